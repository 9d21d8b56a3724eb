/* SPDX-License-Identifier: MIT */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/edge_site.h"
#include "tunneld/edge/access.h"

#define NOW 1000000

static const uint8_t cookie_key[32] = {1, 2, 3};
static const uint8_t other_key[32] = {1, 2, 4};
static struct http1_head head;

struct fixture {
    struct token_keys *tokens;
    struct config conf;
    struct site site;
    struct access_keys keys;
    struct buf text; /* a cookie */
    char request[4096];
};

static int start(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct ed25519 *key = ed25519_generate(NULL);
    struct access a = {.kind = ACCESS_ENTER};

    *state = f;
    f->tokens = token_keys_new();
    if (token_keys_add(f->tokens, "own", &key, NULL) < 0)
        return -1;
    f->keys = (struct access_keys){f->tokens, cookie_key};
    edge_site_init(&f->site, &f->conf, "3000-demo.preview.test");
    strcpy(a.tenant, "acme");
    a.has_ports = true;
    if (port_list_parse(span_str("3000,8000-8999"), &a.ports) < 0)
        return -1;
    return access_put_cookie(&f->keys, &f->site, &a, NOW, &f->text) < 0 ||
                   buf_add(&f->text, "", 1) < 0
               ? -1
               : 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;

    token_keys_free(f->tokens);
    buf_done(&f->text);
    free(f);
    return 0;
}

static struct access decide(struct fixture *f, const char *method, const char *fields,
                            int64_t now_s)
{
    struct access a;

    (void)snprintf(
        f->request, sizeof(f->request),
        "%s /x HTTP/1.1\r\nHost: %s\r\n%sCookie: b=c; __Host-tunnel=%s\r\n\r\n", method,
        f->site.host, fields, (const char *)f->text.p);
    if (edge_site_request(f->request, &head) < 0)
        abort();
    access_decide(&f->keys, &f->site, &head, now_s, &a);
    return a;
}

static void a_cookie_gives_back_what_was_sealed(void **state)
{
    struct fixture *f = *state;
    struct access a = decide(f, "GET", "", NOW + 1);

    assert_int_equal(a.kind, ACCESS_OK);
    assert_string_equal(a.tenant, "acme");
    assert_true(a.has_ports);
    assert_true(port_list_has(&a.ports, 8500));
    assert_false(port_list_has(&a.ports, 9000));
}

static void a_cookie_counts_where_only_its_own_site_can_have_sent_it(void **state)
{
    static const struct {
        const char *fields;
        bool counts;
    } rows[] = {
        {"", true},
        {"Origin: https://3000-demo.preview.test\r\n", true},
        {"Origin: https://4000-demo.preview.test:8443\r\n", true},
        {"Origin: https://shop.preview.test\r\n", true},
        {"Origin: https://3000-evil.preview.test\r\n", false},
        {"Origin: https://preview.test\r\n", false},
        {"Origin: http://3000-demo.preview.test\r\n", false},
        {"Origin: https://3000-demo.preview.test.evil.com\r\n", false},
        {"Origin: https://3000-demo.preview.test/x\r\n", false},
        {"Origin: null\r\n", false},
        {"Origin: https://evil.com\r\nSec-Fetch-Mode: navigate\r\n", true},
        {"Origin: https://evil.com\r\nSec-Fetch-Mode: cors\r\n", false},
        {"Origin: https://evil.com\r\nSec-Fetch-Mode: websocket\r\n", false},
        {"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\n", true},
        {"Sec-Fetch-Site: none\r\n", true},
        {"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", false},
        {"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n"
         "Referer: https://3000-evil.preview.test/\r\n",
         false},
        {"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n"
         "Referer: https://4000-demo.preview.test/\r\n",
         true},
        {"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"
         "Sec-Fetch-Dest: iframe\r\n",
         true},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(decide(*state, "GET", rows[i].fields, NOW).kind,
                         rows[i].counts ? ACCESS_OK : ACCESS_NONE);
}

static void a_cookie_ends_and_belongs_to_its_host_and_key(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(decide(f, "GET", "", NOW + 43199).kind, ACCESS_OK);
    assert_int_equal(decide(f, "GET", "", NOW + 43200).kind, ACCESS_NONE);
    f->keys.cookie_key = other_key;
    assert_int_equal(decide(f, "GET", "", NOW).kind, ACCESS_NONE);
    f->keys.cookie_key = cookie_key;
    edge_site_init(&f->site, &f->conf, "8000-demo.preview.test");
    assert_int_equal(decide(f, "GET", "", NOW).kind, ACCESS_NONE);
    edge_site_init(&f->site, &f->conf, "shop.preview.test");
    assert_int_equal(decide(f, "GET", "", NOW).kind, ACCESS_NONE);
}

static void every_changed_byte_of_a_cookie_makes_it_worthless(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i + 1 < f->text.len; i++) {
        uint8_t was = f->text.p[i];

        f->text.p[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(decide(f, "GET", "", NOW).kind, ACCESS_NONE);
        f->text.p[i] = was;
    }
}

static void a_name_that_moves_to_another_sandbox_takes_no_cookie_along(void **state)
{
    struct fixture *f = *state;

    strcpy(f->site.id, "other");
    assert_int_equal(decide(f, "GET", "", NOW).kind, ACCESS_NONE);
}

static void a_preflight_needs_all_its_parts(void **state)
{
    struct fixture *f = *state;
    static const char fields[] = "Origin: https://4000-demo.preview.test\r\n"
                                 "Access-Control-Request-Method: PUT\r\n";

    f->text.p[0] ^= 1;
    assert_int_equal(decide(f, "OPTIONS", fields, NOW).kind, ACCESS_PREFLIGHT);
    assert_int_equal(decide(f, "GET", fields, NOW).kind, ACCESS_NONE);
    assert_int_equal(decide(f, "OPTIONS", fields + 42, NOW).kind, ACCESS_NONE);
    assert_int_equal(
        decide(f, "OPTIONS", "Origin: https://4000-demo.preview.test\r\n", NOW).kind,
        ACCESS_NONE);
}

/* It comes without credentials, so it must be no way to bring more than its fields in. */
static void a_preflight_carries_no_body_and_no_upgrade(void **state)
{
    static const char *const more[] = {
        "Content-Length: 1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
    };
    struct fixture *f = *state;
    char fields[256];

    f->text.p[0] ^= 1;
    for (size_t i = 0; i < COUNT_OF(more); i++) {
        (void)snprintf(fields, sizeof(fields),
                       "Origin: https://4000-demo.preview.test\r\n"
                       "Access-Control-Request-Method: PUT\r\n%s",
                       more[i]);
        assert_int_equal(decide(f, "OPTIONS", fields, NOW).kind, ACCESS_NONE);
    }
}

static void a_tenant_sees_its_own_and_the_server_sees_all(void **state)
{
    UNUSED_ARG(state);
    assert_true(access_tenant_is_ok("", "acme"));
    assert_true(access_tenant_is_ok("acme", "acme"));
    assert_false(access_tenant_is_ok("acme", "other"));
    assert_false(access_tenant_is_ok("acme", ""));
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(a_cookie_gives_back_what_was_sealed),
        ROW(a_cookie_counts_where_only_its_own_site_can_have_sent_it),
        ROW(a_cookie_ends_and_belongs_to_its_host_and_key),
        ROW(every_changed_byte_of_a_cookie_makes_it_worthless),
        ROW(a_name_that_moves_to_another_sandbox_takes_no_cookie_along),
        ROW(a_preflight_needs_all_its_parts),
        ROW(a_preflight_carries_no_body_and_no_upgrade),
        ROW(a_tenant_sees_its_own_and_the_server_sees_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
