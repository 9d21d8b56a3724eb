/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/http_gate.h"

#include <stdio.h>
#include <string.h>

#include "common/limits.h"
#include "tests/support/test.h"

/* Requests in pieces of `piece` bytes, each let through; what the server gets is in
 * `out`. The last result. */
static enum http_gate_result run(struct http_gate *g, const char *text, size_t piece,
                                 struct buf *out)
{
    enum http_gate_result r = HTTP_GATE_MORE;
    struct buf in = BUF_INIT;
    size_t len = strlen(text), at = 0, used;

    while (at < len) {
        size_t n = piece < len - at ? piece : len - at;

        assert_int_equal(buf_add(&in, text + at, n), 0);
        at += n;
        do {
            r = http_gate_request(g, buf_span(&in), &used, out);
            assert_true(used <= in.len);
            buf_drop(&in, used);
            if (r == HTTP_GATE_REQUEST)
                assert_int_equal(http_gate_pass(g, out), 0);
        } while (r == HTTP_GATE_REQUEST);
        if (r == HTTP_GATE_ERROR)
            break;
    }
    buf_done(&in);
    return r;
}

static void assert_text(const struct buf *b, const char *want)
{
    if (b->len != strlen(want) || memcmp(b->p, want, b->len) != 0)
        fail_msg("got <%.*s>, want <%s>", SPAN_FMT(buf_span(b)), want);
}

/* -- what passes --------------------------------------------------------------------- */

static const struct {
    const char *in, *out;
} good[] = {
    {"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"},
    {"GET /x?y HTTP/1.1\r\nhOST:   A.Example.:80\r\nX-A:  b \r\n\r\n",
     "GET /x?y HTTP/1.1\r\nHost: a.example:80\r\nX-A: b\r\n\r\n"},
    {"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n"},
    {"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nConnection: close\r\n\r\n"},
    {"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n",
     "GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n"},
    {"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc",
     "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"},
    {"POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
     "Keep-Alive: 3\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\nX-End: "
     "2\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: a.example\r\nX-End: 2\r\nConnection: close\r\n\r\n"},
    /* Not offered to the server: what it would speak then is not ours to judge. */
    {"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\n"
     "Upgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"},
    {"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: "
     "other/1\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"},
    {"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n"
     "Upgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n",
     "GET /ws HTTP/1.1\r\nHost: a.example\r\nSec-WebSocket-Key: k\r\n"
     "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
    {"GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /ws HTTP/1.1\r\nHost: a.example\r\n"
     "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
     "GET /ws HTTP/1.1\r\nHost: a.example\r\n\r\n"},
    {"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n",
     "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"},
};

static void what_is_understood_passes_written_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct http_gate g;
        struct buf out = BUF_INIT;

        http_gate_init(&g);
        assert_int_not_equal(run(&g, good[i].in, 1, &out), HTTP_GATE_ERROR);
        assert_text(&out, good[i].out);
        http_gate_done(&g);
        buf_done(&out);
    }
}

static void a_chunked_body_loses_its_extensions_and_keeps_its_trailers(void **state)
{
    struct http_gate g;
    struct buf out = BUF_INIT;

    (void)state;
    http_gate_init(&g);
    assert_int_equal(run(&g,
                         "PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: "
                         "chunked\r\n\r\n"
                         "0004;x=\"a;b\"\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\n\r\n"
                         "GET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n",
                         SIZE_MAX, &out),
                     HTTP_GATE_MORE);
    assert_text(&out, "PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: "
                      "chunked\r\n\r\n"
                      "4\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\n\r\n"
                      "GET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_int_equal(g.number, 2);
    http_gate_done(&g);
    buf_done(&out);
}

/* -- what does not ------------------------------------------------------------------- */

static const char *const bad[] = {
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example,b.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example/\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: 0x7f000001\r\n\r\n",
    "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a.example\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET /\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: "
    "1\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +1\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: "
    "chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    "\x16\x03\x01\x02",
    "SSH-2.0-x\r\n",
};

static void what_is_not_understood_passes_no_byte_after_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        for (size_t piece = 1; piece < 300; piece += 298) {
            struct http_gate g;
            struct buf out = BUF_INIT;

            http_gate_init(&g);
            if (run(&g, bad[i], piece, &out) != HTTP_GATE_ERROR)
                fail_msg("row %zu passed", i);
            assert_non_null(g.rule);
            assert_true(out.len == 0 || g.number == 1);
            http_gate_done(&g);
            buf_done(&out);
        }
    }
}

static void a_head_that_never_ends_is_refused(void **state)
{
    struct http_gate g;
    struct buf in = BUF_INIT, out = BUF_INIT;
    enum http_gate_result r;
    size_t used;

    (void)state;
    http_gate_init(&g);
    assert_int_equal(buf_adds(&in, "GET / HTTP/1.1\r\nHost: a.example\r\nX: "), 0);
    while (in.len < HTTP1_HEAD_MAX - 1)
        assert_int_equal(buf_add(&in, "y", 1), 0);
    r = http_gate_request(&g, buf_span(&in), &used, &out);
    assert_int_equal(r, HTTP_GATE_MORE);
    assert_int_equal(buf_add(&in, "yy", 2), 0);
    r = http_gate_request(&g, buf_span(&in), &used, &out);
    assert_int_equal(r, HTTP_GATE_ERROR);
    assert_int_equal(g.error, HTTP1_E_FIELDS_BIG);
    http_gate_done(&g);
    buf_done(&in);
    buf_done(&out);
}

static void each_request_is_shown_before_it_passes(void **state)
{
    static const char two[] = "GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n"
                              "HEAD /2 HTTP/1.1\r\nHost: b.example:81\r\n\r\n";
    struct http_gate g;
    struct buf out = BUF_INIT;
    struct span in = span_str(two);
    size_t used;

    (void)state;
    http_gate_init(&g);
    assert_int_equal(http_gate_request(&g, in, &used, &out), HTTP_GATE_REQUEST);
    assert_string_equal(g.host.name, "a.example");
    assert_false(g.is_other_host);
    assert_true(http_gate_is_judging(&g));
    assert_int_equal(out.len, 0);
    assert_int_equal(http_gate_request(&g, span_skip(in, used), &used, &out),
                     HTTP_GATE_WAIT);
    assert_int_equal(http_gate_pass(&g, &out), 0);
    in = span_skip(in, strlen(two) / 2 - 2);
    while (in.p[0] != 'H' || in.p[1] != 'E')
        in = span_skip(in, 1);
    buf_done(&out);
    assert_int_equal(http_gate_request(&g, in, &used, &out), HTTP_GATE_REQUEST);
    assert_true(g.is_other_host);
    assert_true(g.is_head);
    assert_string_equal(g.host.name, "b.example");
    assert_int_equal(g.host.port, 81);
    assert_int_equal(out.len, 0);
    http_gate_done(&g);
    buf_done(&out);
}

/* -- responses ----------------------------------------------------------------------- */

static bool answer(struct http_gate *g, const char *text, size_t piece)
{
    size_t len = strlen(text);

    for (size_t at = 0; at < len; at += piece) {
        size_t n = piece < len - at ? piece : len - at;

        if (!http_gate_response(g, span_of(text + at, n)))
            return false;
    }
    return true;
}

#define GET "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
#define WS                                                                               \
    "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: "              \
    "websocket\r\n\r\n"

static void words_may_stand_only_between_two_answers(void **state)
{
    static const char *const whole[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(whole); i++) {
        for (size_t cut = 0; cut <= strlen(whole[i]); cut++) {
            struct http_gate g;
            struct buf out = BUF_INIT;

            http_gate_init(&g);
            (void)run(&g, GET, SIZE_MAX, &out);
            assert_false(http_gate_may_speak(&g));
            assert_true(http_gate_response(&g, span_of(whole[i], cut)));
            assert_int_equal(http_gate_may_speak(&g), cut == strlen(whole[i]));
            assert_true(
                http_gate_response(&g, span_of(whole[i] + cut, strlen(whole[i]) - cut)));
            assert_true(http_gate_may_speak(&g));
            http_gate_done(&g);
            buf_done(&out);
        }
    }
}

static void an_answer_to_head_has_no_body(void **state)
{
    struct http_gate g;
    struct buf out = BUF_INIT;

    (void)state;
    http_gate_init(&g);
    (void)run(&g, "HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n" GET, SIZE_MAX, &out);
    assert_true(answer(&g,
                       "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
                       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                       7));
    assert_false(http_gate_may_speak(&g));
    assert_true(answer(&g, "ab", 1));
    assert_true(http_gate_may_speak(&g));
    http_gate_done(&g);
    buf_done(&out);
}

static void an_answer_without_an_end_is_never_followed_by_words(void **state)
{
    static const char *const lost[] = {
        "HTTP/1.1 200 OK\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "220 mail.example ESMTP\r\n\r\n",
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
         "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(lost); i++) {
        struct http_gate g;
        struct buf out = BUF_INIT;

        http_gate_init(&g);
        (void)run(&g, GET, SIZE_MAX, &out);
        assert_true(answer(&g, lost[i], 3));
        assert_false(http_gate_may_speak(&g));
        assert_false(http_gate_can_follow(&g));
        /* The next request is judged like any other. */
        assert_int_equal(run(&g, GET, SIZE_MAX, &out), HTTP_GATE_MORE);
        assert_int_equal(g.number, 2);
        http_gate_done(&g);
        buf_done(&out);
    }
}

static void after_an_upgrade_that_was_taken_bytes_pass(void **state)
{
    struct http_gate g;
    struct buf out = BUF_INIT;
    size_t used;

    (void)state;
    http_gate_init(&g);
    assert_int_equal(run(&g, WS, 1, &out), HTTP_GATE_WAIT);
    assert_true(http_gate_is_waiting(&g));
    assert_true(
        answer(&g, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n", 1));
    assert_true(http_gate_is_waiting(&g));
    assert_true(answer(&g, "\r\n\x81\x01x", 3));
    buf_done(&out);
    assert_int_equal(http_gate_request(&g, span_str("\r\n\x01raw"), &used, &out),
                     HTTP_GATE_TUNNEL);
    assert_int_equal(used, 6);
    assert_text(&out, "\r\n\x01raw");
    http_gate_done(&g);
    buf_done(&out);
}

static void after_an_upgrade_that_was_refused_requests_are_read_on(void **state)
{
    struct http_gate g;
    struct buf out = BUF_INIT;

    (void)state;
    http_gate_init(&g);
    assert_int_equal(run(&g, WS, SIZE_MAX, &out), HTTP_GATE_WAIT);
    assert_true(answer(&g, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", 5));
    assert_int_equal(run(&g, "\x16\x03\x01", SIZE_MAX, &out), HTTP_GATE_ERROR);
    http_gate_done(&g);
    buf_done(&out);
}

static void a_switch_that_nobody_asked_for_is_an_error(void **state)
{
    static const char *const requests[] = {GET, GET WS, ""};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        struct http_gate g;
        struct buf out = BUF_INIT;

        http_gate_init(&g);
        (void)run(&g, requests[i], SIZE_MAX, &out);
        assert_false(answer(&g, "HTTP/1.1 101 Switching Protocols\r\n\r\n", 4));
        http_gate_done(&g);
        buf_done(&out);
    }
}

static void requests_far_ahead_of_their_answers_wait(void **state)
{
    struct http_gate g;
    struct buf out = BUF_INIT;
    int i;

    (void)state;
    http_gate_init(&g);
    for (i = 0; i < HTTP_GATE_DEPTH; i++)
        assert_false(http_gate_is_waiting(&g) || run(&g, GET, SIZE_MAX, &out) < 0);
    assert_true(http_gate_is_waiting(&g));
    assert_int_equal(run(&g, GET, SIZE_MAX, &out), HTTP_GATE_WAIT);
    assert_int_equal(g.number, HTTP_GATE_DEPTH);
    assert_true(answer(&g, "HTTP/1.1 204 x\r\n\r\n", 1));
    assert_false(http_gate_is_waiting(&g));
    http_gate_done(&g);
    buf_done(&out);
}

static void to_a_proxy_requests_go_in_absolute_form_with_its_fields(void **state)
{
    struct http_gate g;
    struct buf out = BUF_INIT, fields = BUF_INIT;

    (void)state;
    http_gate_init(&g);
    assert_int_equal(buf_adds(&fields, "Proxy-Authorization: Basic eA==\r\n"), 0);
    http_gate_to_proxy(&g, 8080, &fields);
    assert_null(fields.p);
    assert_int_equal(run(&g,
                         "GET /x?y HTTP/1.1\r\nHost: a.example:8080\r\nA: b\r\n"
                         "Proxy-Authorization: Basic bWluZQ==\r\n\r\n"
                         "OPTIONS * HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
                         1, &out),
                     HTTP_GATE_MORE);
    assert_text(&out, "GET http://a.example:8080/x?y HTTP/1.1\r\n"
                      "Proxy-Authorization: Basic eA==\r\n"
                      "Host: a.example:8080\r\nA: b\r\n\r\n"
                      "OPTIONS http://a.example:8080 HTTP/1.1\r\n"
                      "Proxy-Authorization: Basic eA==\r\n"
                      "Host: a.example:8080\r\n\r\n");
    http_gate_done(&g);
    buf_done(&out);
}

static int one_of_all(void)
{
    static const char text[] =
        "PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        "4\r\nwiki\r\n0\r\nX-Sum: 9\r\n\r\n";
    struct http_gate g;
    struct buf out = BUF_INIT;
    struct span in = span_str(text);
    int rc = -1;
    size_t used;

    http_gate_init(&g);
    if (http_gate_request(&g, in, &used, &out) == HTTP_GATE_REQUEST &&
        http_gate_pass(&g, &out) == 0 &&
        http_gate_request(&g, span_skip(in, used), &used, &out) == HTTP_GATE_MORE)
        rc = 0;
    http_gate_done(&g);
    buf_done(&out);
    return rc;
}

static void no_memory_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(one_of_all());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_understood_passes_written_anew),
        cmocka_unit_test(a_chunked_body_loses_its_extensions_and_keeps_its_trailers),
        cmocka_unit_test(what_is_not_understood_passes_no_byte_after_it),
        cmocka_unit_test(a_head_that_never_ends_is_refused),
        cmocka_unit_test(each_request_is_shown_before_it_passes),
        cmocka_unit_test(words_may_stand_only_between_two_answers),
        cmocka_unit_test(an_answer_to_head_has_no_body),
        cmocka_unit_test(an_answer_without_an_end_is_never_followed_by_words),
        cmocka_unit_test(after_an_upgrade_that_was_taken_bytes_pass),
        cmocka_unit_test(after_an_upgrade_that_was_refused_requests_are_read_on),
        cmocka_unit_test(a_switch_that_nobody_asked_for_is_an_error),
        cmocka_unit_test(requests_far_ahead_of_their_answers_wait),
        cmocka_unit_test(to_a_proxy_requests_go_in_absolute_form_with_its_fields),
        cmocka_unit_test(no_memory_is_an_error_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
