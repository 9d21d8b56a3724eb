/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/redirect.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"
#include "tunneld/admin.h"

static void ask(const char *text, struct http1_head *ret)
{
    assert_int_equal(http1_parse_request(span_str(text), ret), HTTP1_OK);
}

static void done(struct small_http_answer *a)
{
    buf_done(&a->fields);
    buf_done(&a->body);
}

static void only_our_hosts_are_redirected_and_only_to_themselves(void **state)
{
    static const struct {
        const char *request;
        unsigned status;
        const char *field;
    } row[] = {
        {"GET /a?b=1 HTTP/1.1\r\nHost: 3000-demo.example.com\r\n\r\n", 308,
         "Location: https://3000-demo.example.com:8443/a?b=1\r\n"},
        {"GET / HTTP/1.1\r\nHost: EXAMPLE.com.:80\r\n\r\n", 308,
         "Location: https://example.com:8443/\r\n"},
        {"GET //evil.org HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", 308,
         "Location: https://shop.example.com:8443//evil.org\r\n"},
        {"GET / HTTP/1.1\r\nHost: evil.org\r\n\r\n", 421,
         "Tunnel-Error: misdirected\r\n"},
        {"GET / HTTP/1.1\r\nHost: example.com.evil.org\r\n\r\n", 421,
         "Tunnel-Error: misdirected\r\n"},
        {"GET / HTTP/1.1\r\nHost: a.b.example.com\r\n\r\n", 421,
         "Tunnel-Error: misdirected\r\n"},
        {"GET / HTTP/1.0\r\n\r\n", 421, "Tunnel-Error: misdirected\r\n"},
        {"OPTIONS * HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", 400,
         "Tunnel-Error: bad-request\r\n"},
    };
    struct config conf = {.domain = "example.com",
                          .control_host = "example.com",
                          .public_scheme = "https",
                          .public_port = 8443};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        struct small_http_answer a = {0};
        struct http1_head head;

        ask(row[i].request, &head);
        assert_int_equal(redirect_answer(&conf, &head, &a), 0);
        assert_int_equal(a.status, row[i].status);
        assert_int_equal(a.fields.len, strlen(row[i].field));
        assert_memory_equal(a.fields.p, row[i].field, a.fields.len);
        done(&a);
    }
}

static void the_admin_paths_answer_and_nothing_else_does(void **state)
{
    static const struct {
        const char *request;
        bool is_ready;
        unsigned status;
    } row[] = {
        {"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", false, 200},
        {"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", true, 200},
        {"GET /readyz?x HTTP/1.1\r\nHost: a\r\n\r\n", false, 503},
        {"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", true, 200},
        {"GET /metricsx HTTP/1.1\r\nHost: a\r\n\r\n", true, 404},
        {"POST /healthz HTTP/1.1\r\nHost: a\r\n\r\n", true, 405},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        struct small_http_answer a = {0};
        struct http1_head head;

        ask(row[i].request, &head);
        assert_int_equal(admin_answer(row[i].is_ready, &head, &a), 0);
        assert_int_equal(a.status, row[i].status);
        done(&a);
    }
}

static int all_answers(void)
{
    struct config conf = {.domain = "example.com", .control_host = "example.com"};
    struct small_http_answer a = {0}, b = {0};
    struct http1_head head;
    int r;

    ask("GET /metrics HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", &head);
    r = redirect_answer(&conf, &head, &a) < 0 || admin_answer(true, &head, &b) < 0 ? -1
                                                                                   : 0;
    done(&a);
    done(&b);
    return r;
}

static void each_failing_allocation_is_told_and_leaks_nothing(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(all_answers());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_our_hosts_are_redirected_and_only_to_themselves),
        cmocka_unit_test(the_admin_paths_answer_and_nothing_else_does),
        cmocka_unit_test(each_failing_allocation_is_told_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
