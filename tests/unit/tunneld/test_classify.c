/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/classify.h"

#include <string.h>

#include "common/limits.h"
#include "tests/support/test.h"

#define DOMAIN "preview.example.com"

/* A ClientHello of TLS 1.2 form with a server name and nothing else, in one record. */
static size_t hello(uint8_t *out, const char *name)
{
    size_t n = strlen(name), ext = 9 + n, body = 2 + 32 + 1 + 2 + 2 + 2 + 2 + ext;
    uint8_t *p = out;

    memcpy(p,
           (const uint8_t[]){22, 3, 1, (uint8_t)((body + 4) >> 8), (uint8_t)(body + 4)},
           5);
    p += 5;
    memcpy(p, (const uint8_t[]){1, 0, (uint8_t)(body >> 8), (uint8_t)body, 3, 3}, 6);
    p += 6;
    memset(p, 7, 32);
    p += 32;
    memcpy(p, (const uint8_t[]){0, 0, 2, 0x13, 1, 1, 0, 0, (uint8_t)ext}, 9);
    p += 9;
    memcpy(p,
           (const uint8_t[]){0, 0, 0, (uint8_t)(n + 5), 0, (uint8_t)(n + 3), 0, 0,
                             (uint8_t)n},
           9);
    p += 9;
    memcpy(p, name, n);
    return (size_t)(p - out) + n;
}

static void the_server_name_says_whose_a_connection_is(void **state)
{
    static const struct {
        const char *name;
        enum host_kind kind;
        const char *id;
    } row[] = {
        {"3000-demo." DOMAIN, HOST_PREVIEW, "demo"},
        {"0-demo." DOMAIN, HOST_LINK, "demo"},
        {"0-DEMO." DOMAIN, HOST_LINK, "demo"},
        {DOMAIN, HOST_APEX, ""},
        {"shop." DOMAIN, HOST_NAME, ""},
        {"03000-demo." DOMAIN, HOST_BAD, ""},
        {"a.b." DOMAIN, HOST_BAD, ""},
        {"example.org", HOST_FOREIGN, ""},
    };
    struct host_route route;
    uint8_t b[512];
    size_t need;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        size_t n = hello(b, row[i].name);

        assert_int_equal(classify_tls(span_of(b, n), DOMAIN, DOMAIN, &route, &need),
                         CLASSIFY_READY);
        assert_int_equal(route.kind, row[i].kind);
        if (row[i].id[0])
            assert_string_equal(route.id, row[i].id);
    }
}

static void every_beginning_of_a_hello_asks_for_more_than_it_has(void **state)
{
    struct host_route route;
    uint8_t b[512];
    size_t n = hello(b, "0-demo." DOMAIN), looks = 0, need;

    (void)state;
    for (size_t cut = 1; cut < n; cut++) {
        need = 0;
        assert_int_equal(classify_tls(span_of(b, cut), DOMAIN, DOMAIN, &route, &need),
                         CLASSIFY_MORE);
        assert_in_range(need, cut + 1, n);
    }
    /* A client that sends a byte at a time: as often as `need` says, the record's head and
     * its end. */
    for (size_t have = 1; have < n; have = need, looks++)
        assert_int_equal(classify_tls(span_of(b, have), DOMAIN, DOMAIN, &route, &need),
                         CLASSIFY_MORE);
    assert_int_equal(looks, 2);
}

static void what_is_not_tls_is_told_by_its_first_bytes(void **state)
{
    struct host_route route;
    size_t need;

    (void)state;
    assert_int_equal(
        classify_tls(span_str("GET / HTTP/1.1\r\n"), DOMAIN, DOMAIN, &route, &need),
        CLASSIFY_NOT_TLS);
    assert_int_not_equal(
        classify_tls(span_str("\x16\x03\x01\xff\xff\x01\x02\x03\x04\x05"), DOMAIN, DOMAIN,
                     &route, &need),
        CLASSIFY_READY);
}

static enum classify_result plain(const char *text, struct host_route *route)
{
    struct http1_scan scan = {0};
    size_t need;

    return classify_plain(&scan, span_str(text), DOMAIN, DOMAIN, route, &need);
}

static void the_host_field_says_whose_a_plaintext_connection_is(void **state)
{
    static const struct {
        const char *text;
        enum host_kind kind;
    } row[] = {
        {"GET / HTTP/1.1\r\nHost: 3000-demo." DOMAIN "\r\n\r\n", HOST_PREVIEW},
        {"GET / HTTP/1.1\r\nhost: 0-demo." DOMAIN ":8443\r\n\r\nrest", HOST_LINK},
        {"GET / HTTP/1.1\r\nHost: shop." DOMAIN "\r\n\r\n", HOST_NAME},
        /* Nobody's, for the edge to answer: */
        {"GET / HTTP/1.1\r\n\r\n", HOST_FOREIGN},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: 0-demo." DOMAIN "\r\n\r\n", HOST_FOREIGN},
        {"GET / HTTP/1.1\nHost: 0-demo." DOMAIN "\n\n", HOST_FOREIGN},
        {"\x16\x03\x01\x02\x03", HOST_FOREIGN},
        {"PRI * HTTP/2.0\r\n\r\n", HOST_FOREIGN},
    };
    struct host_route route;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        assert_int_equal(plain(row[i].text, &route), CLASSIFY_READY);
        assert_int_equal(route.kind, row[i].kind);
    }
}

static void a_plaintext_head_in_single_bytes_is_decided_at_its_end(void **state)
{
    static const char text[] = "GET /a HTTP/1.1\r\nHost: 0-demo." DOMAIN "\r\n\r\n";
    struct http1_scan scan = {0};
    struct host_route route;
    size_t need;

    (void)state;
    for (size_t n = 1; n < sizeof text - 1; n++) {
        assert_int_equal(
            classify_plain(&scan, span_of(text, n), DOMAIN, DOMAIN, &route, &need),
            CLASSIFY_MORE);
        assert_int_equal(need, n + 1);
    }
    assert_int_equal(classify_plain(&scan, span_of(text, sizeof text - 1), DOMAIN, DOMAIN,
                                    &route, &need),
                     CLASSIFY_READY);
    assert_int_equal(route.kind, HOST_LINK);
}

static void an_endless_head_is_left_to_the_edge(void **state)
{
    static char text[CLASSIFY_HEAD_MAX + 64];
    struct http1_scan scan = {0};
    struct host_route route;
    size_t need;

    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text, "GET / HTTP/1.1\r\nx: ", 19);
    assert_int_equal(classify_plain(&scan, span_of(text, CLASSIFY_HEAD_MAX - 1), DOMAIN,
                                    DOMAIN, &route, &need),
                     CLASSIFY_MORE);
    assert_int_equal(classify_plain(&scan, span_of(text, CLASSIFY_HEAD_MAX), DOMAIN,
                                    DOMAIN, &route, &need),
                     CLASSIFY_READY);
    assert_int_equal(route.kind, HOST_FOREIGN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_name_says_whose_a_connection_is),
        cmocka_unit_test(every_beginning_of_a_hello_asks_for_more_than_it_has),
        cmocka_unit_test(what_is_not_tls_is_told_by_its_first_bytes),
        cmocka_unit_test(the_host_field_says_whose_a_plaintext_connection_is),
        cmocka_unit_test(a_plaintext_head_in_single_bytes_is_decided_at_its_end),
        cmocka_unit_test(an_endless_head_is_left_to_the_edge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
