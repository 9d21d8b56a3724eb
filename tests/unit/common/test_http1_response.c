/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "common/http1.h"
#include "tests/support/test.h"

/* Text with its length, so that rows may hold NUL. */
#define TEXT(s) s, sizeof(s) - 1

static enum http1_result parse(struct span text, struct http1_head *h)
{
    struct http1_scan s = {0};
    size_t len = 0;
    enum http1_result r = http1_scan(&s, text, &len);

    if (r != HTTP1_OK)
        return r;
    text.len = len;
    return http1_parse_response(text, h);
}

static const struct {
    const char *text;
    unsigned status;
    const char *reason;
    enum http1_framing framing, head_framing;
    bool keep_alive;
} good[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, "OK", HTTP1_LENGTH, HTTP1_NONE,
     true},
    {"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, "", HTTP1_LENGTH, HTTP1_NONE,
     true},
    {"HTTP/1.1 200\r\n\r\n", 200, "", HTTP1_UNTIL_CLOSE, HTTP1_NONE, false},
    {"HTTP/1.0 404 Not  F\xc3\xb6und\t!\r\n\r\n", 404, "Not  F\xc3\xb6und\t!",
     HTTP1_UNTIL_CLOSE, HTTP1_NONE, false},
    {"HTTP/1.1 999 x\r\nTransfer-Encoding: CHUNKED\r\n\r\n", 999, "x", HTTP1_CHUNKED,
     HTTP1_NONE, true},
    {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "
     "websocket\r\n\r\n",
     101, "Switching Protocols", HTTP1_NONE, HTTP1_NONE, true},
    {"HTTP/1.1 100 Continue\r\n\r\n", 100, "Continue", HTTP1_NONE, HTTP1_NONE, true},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, "No Content",
     HTTP1_NONE, HTTP1_NONE, true},
    {"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", 304, "x", HTTP1_NONE, HTTP1_NONE,
     true},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", 200, "OK",
     HTTP1_LENGTH, HTTP1_NONE, true},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", 200, "OK",
     HTTP1_LENGTH, HTTP1_NONE, false},
};

static void good_responses_are_understood(void **state)
{
    static struct http1_head h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (parse(span_str(good[i].text), &h) != HTTP1_OK)
            fail_msg("%s: %s", good[i].text, http1_rule());
        assert_false(h.is_request);
        assert_int_equal(h.status, good[i].status);
        assert_true(span_eq(h.reason, span_str(good[i].reason)));
        assert_int_equal(http1_response_framing(&h, false), good[i].framing);
        assert_int_equal(http1_response_framing(&h, true), good[i].head_framing);
        assert_int_equal(h.keep_alive, good[i].keep_alive);
    }
}

static const struct {
    const char *text;
    size_t len;
    enum http1_result result;
    const char *rule; /* what http1_rule() begins with */
} bad[] = {
    {TEXT("HTTP/1.1\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1 20 OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1 2000 OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1 099 OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1 +20 OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1  200 OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1\t200 OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/1.1 200OK\r\n\r\n"), HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)"},
    {TEXT("HTTP/2.0 200 OK\r\n\r\n"), HTTP1_E_VERSION, "version not 1.0 or 1.1"},
    {TEXT("HTTP/1.2 200 OK\r\n\r\n"), HTTP1_E_VERSION, "version not 1.0 or 1.1"},
    {TEXT("ICY 200 OK\r\n\r\n"), HTTP1_E_SYNTAX, "not a version (RFC 9112 2.3)"},
    {TEXT("hello\r\n\r\n"), HTTP1_E_SYNTAX, "not a status line (RFC 9112 4)"},
    {TEXT("\r\nHTTP/1.1 200 OK\r\n\r\n"), HTTP1_E_SYNTAX, "not a status line"},
    {TEXT("HTTP/1.1 200 O\0K\r\n\r\n"), HTTP1_E_SYNTAX, "NUL (RFC 9110 5.5)"},
    {TEXT("HTTP/1.1 200 OK\n\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), HTTP1_E_SYNTAX, "folded line"},
    {TEXT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
     HTTP1_E_FRAMING, "two Content-Length (RFC 9112 6.3)"},
    {TEXT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
     HTTP1_E_FRAMING, "two Content-Length (RFC 9112 6.3)"},
    {TEXT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
     HTTP1_E_FRAMING, "Content-Length with Transfer-Encoding (RFC 9112 6.3)"},
    {TEXT("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), HTTP1_E_FRAMING,
     "coding not chunked (RFC 9112 6.1)"},
    {TEXT("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP1_E_FRAMING,
     "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)"},
};

static void bad_responses_are_refused_with_their_rule(void **state)
{
    static struct http1_head h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        enum http1_result r = parse(span_of(bad[i].text, bad[i].len), &h);

        if (r != bad[i].result ||
            strncmp(http1_rule(), bad[i].rule, strlen(bad[i].rule)) != 0)
            fail_msg("%s: got %s, %s", bad[i].text, http1_result_name(r), http1_rule());
    }
}

static void every_field_of_the_map_is_known(void **state)
{
    static const struct {
        enum http1_field_id id;
        const char *name;
    } row[] = {
#define ROW(id, name) {HTTP1_##id, name},
        HTTP1_FIELD_MAP(ROW)};
    static struct http1_head h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        /* Alone and valid, in lower and in upper case; then with one letter changed. */
        char text[200], name[64];
        size_t n = strlen(row[i].name);

        for (size_t j = 0; j <= n; j++) {
            char c = row[i].name[j];

            name[j] = c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
        }
        for (int upper = 0; upper < 2; upper++) {
            const char *value = row[i].id == HTTP1_CONTENT_LENGTH      ? "1"
                                : row[i].id == HTTP1_TRANSFER_ENCODING ? "chunked"
                                                                       : "x";

            (void)snprintf(text, sizeof(text), "HTTP/1.1 200\r\n%s: %s\r\n\r\n",
                           upper ? name : row[i].name, value);
            assert_int_equal(parse(span_str(text), &h), HTTP1_OK);
            assert_int_equal(h.field[0].id, row[i].id);
            assert_non_null(http1_find(&h, row[i].id));
        }
        name[n - 1] = '~';
        (void)snprintf(text, sizeof(text), "HTTP/1.1 200\r\n%s: x\r\n\r\n", name);
        assert_int_equal(parse(span_str(text), &h), HTTP1_OK);
        assert_int_equal(h.field[0].id, HTTP1_OTHER);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_responses_are_understood),
        cmocka_unit_test(bad_responses_are_refused_with_their_rule),
        cmocka_unit_test(every_field_of_the_map_is_known),
    };

    return cmocka_run_group_tests_name("common/http1 responses", tests, NULL, NULL);
}
