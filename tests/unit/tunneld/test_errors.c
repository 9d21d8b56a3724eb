/* SPDX-License-Identifier: MIT */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/edge_site.h"
#include "tunneld/edge/errors.h"

static struct http1_head head;

static void the_form_follows_what_the_client_can_use(void **state)
{
    static const struct {
        const char *fields;
        enum error_form want;
    } rows[] = {
        {"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nAccept: text/html\r\n",
         ERROR_PAGE},
        {"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n", ERROR_PAGE},
        {"Sec-Fetch-Mode: cors\r\nAccept: */*\r\n", ERROR_JSON},
        {"Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\nAccept: */*\r\n",
         ERROR_JSON},
        {"Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n", ERROR_JSON},
        {"Accept: text/html,application/xhtml+xml\r\n", ERROR_PAGE},
        {"Accept: application/json\r\n", ERROR_JSON},
        {"Origin: https://a\r\nAccept: */*\r\n", ERROR_JSON},
        {"Accept: */*\r\nUser-Agent: curl/8\r\n", ERROR_TEXT},
        {"", ERROR_TEXT},
        {"Connection: upgrade\r\nUpgrade: websocket\r\nSec-Fetch-Mode: websocket\r\n",
         ERROR_BARE},
    };
    char text[256];

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n",
                       rows[i].fields);
        assert_int_equal(edge_site_request(text, &head), 0);
        assert_int_equal(errors_form(&head), rows[i].want);
    }
}

/* Every code in every form is an answer that our own strict parser takes. */
static void every_answer_is_whole(void **state)
{
    UNUSED_ARG(state);
    for (int i = 0; i < ERROR_COUNT * 4 * 2; i++) {
        enum error_code code = (enum error_code)(i / 8);
        struct error_args a = {.form = (enum error_form)(i / 2 % 4),
                               .is_head = i % 2,
                               .can_reload = true,
                               .keep_alive = true,
                               .client_minor = 1};
        struct http1_scan scan = {0};
        struct buf out = BUF_INIT;
        size_t len = 0;

        assert_int_equal(errors_write(code, &a, &out), 0);
        assert_int_equal(http1_scan(&scan, buf_span(&out), &len), HTTP1_OK);
        assert_int_equal(http1_parse_response(span_of(out.p, len), &head), HTTP1_OK);
        assert_int_equal(head.status, errors_status(code));
        assert_true(
            span_is(http1_find(&head, HTTP1_TUNNEL_ERROR)->value, errors_name(code)));
        assert_true(head.keep_alive);
        assert_true(head.has_length);
        assert_int_equal(out.len - len, a.is_head ? 0 : head.length);
        assert_true(head.length > 0 || a.form == ERROR_BARE);
        buf_done(&out);
    }
}

static const char *write_one(enum error_code c, const struct error_args *a,
                             struct buf *out)
{
    out->len = 0;
    if (errors_write(c, a, out) < 0 || buf_add(out, "", 1) < 0)
        abort();
    return (const char *)out->p;
}

static void only_what_may_come_back_reloads(void **state)
{
    struct error_args a = {.form = ERROR_PAGE, .can_reload = true, .client_minor = 1};
    struct buf out = BUF_INIT;

    UNUSED_ARG(state);
    assert_non_null(strstr(write_one(ERROR_PORT_CLOSED, &a, &out), "<script>"));
    assert_non_null(strstr((char *)out.p, "http-equiv=refresh"));
    assert_non_null(strstr((char *)out.p, "Retry-After: 2\r\n"));
    assert_non_null(strstr((char *)out.p, "Cache-Control: no-store\r\n"));
    assert_non_null(strstr((char *)out.p, "X-Robots-Tag: noindex\r\n"));
    assert_non_null(strstr((char *)out.p, "Connection: close\r\n"));
    assert_null(strstr(write_one(ERROR_LOGIN_REQUIRED, &a, &out), "<script>"));
    assert_non_null(strstr((char *)out.p, "WWW-Authenticate: "));
    a.can_reload = false; /* a form was posted */
    assert_null(strstr(write_one(ERROR_PORT_CLOSED, &a, &out), "<script>"));
    buf_done(&out);
}

static void a_sibling_port_may_read_the_answer(void **state)
{
    struct error_args a = {.form = ERROR_JSON, .client_minor = 1};
    struct buf out = BUF_INIT;

    UNUSED_ARG(state);
    assert_null(strstr(write_one(ERROR_FORBIDDEN, &a, &out), "Access-Control"));
    a.origin = span_str("https://3000-demo.preview.test");
    assert_non_null(
        strstr(write_one(ERROR_FORBIDDEN, &a, &out),
               "Access-Control-Allow-Origin: https://3000-demo.preview.test\r\n"));
    assert_non_null(strstr((char *)out.p, "{\"error\":\"forbidden\",\"status\":403,"));
    buf_done(&out);
}

static int once(void)
{
    struct error_args a = {.form = ERROR_PAGE, .can_reload = true};
    struct buf out = BUF_INIT;
    int r = errors_write(ERROR_AGENT_OFFLINE, &a, &out);

    buf_done(&out);
    return r;
}

static void every_allocation_may_fail(void **state)
{
    UNUSED_ARG(state);
    FAIL_EACH_ALLOC(once());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_form_follows_what_the_client_can_use),
        cmocka_unit_test(every_answer_is_whole),
        cmocka_unit_test(only_what_may_come_back_reloads),
        cmocka_unit_test(a_sibling_port_may_read_the_answer),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
