/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "common/http1.h"
#include "tests/support/test.h"

#define TEXT(s) s, sizeof(s) - 1

/* What a decoder made of its input. */
struct outcome {
    enum http1_result result;
    bool is_done;
    size_t used;
    size_t n;
    char content[512];
    size_t n_trailer;
    char trailer[512];
};

static enum http1_result feed_piece(struct http1_body *b, struct span in,
                                    struct outcome *o)
{
    size_t len = in.len;

    while (in.len > 0 && !b->is_done) {
        struct span piece;
        enum http1_result r = http1_body_feed(b, &in, &piece);

        if (r != HTTP1_OK)
            return r;
        assert_true(o->n + piece.len <= sizeof(o->content));
        if (piece.len > 0)
            memcpy(o->content + o->n, piece.p, piece.len);
        o->n += piece.len;
    }
    o->used += len - in.len;
    return HTTP1_OK;
}

/* `first` bytes, then pieces of `step`, then the end of the connection. */
static struct outcome decode(struct span in, enum http1_framing framing, uint64_t length,
                             size_t first, size_t step)
{
    struct http1_body b;
    struct outcome o = {.result = HTTP1_OK};
    size_t at = 0;

    http1_body_init(&b, framing, length);
    while (at < in.len && !b.is_done && o.result == HTTP1_OK) {
        size_t n = at == 0 ? first : step;

        if (n > in.len - at)
            n = in.len - at;
        o.result = feed_piece(&b, span_of(in.p + at, n), &o);
        at += n;
    }
    if (o.result == HTTP1_OK)
        o.result = http1_body_end(&b);
    o.is_done = b.is_done;
    if (o.result == HTTP1_OK) {
        assert_true(b.trailer.len <= sizeof(o.trailer));
        o.n_trailer = b.trailer.len;
        if (b.trailer.len > 0)
            memcpy(o.trailer, b.trailer.p, b.trailer.len);
    }
    http1_body_done(&b);
    return o;
}

static const struct {
    const char *text;
    size_t len;
    const char *content, *trailer, *rest;
} good[] = {
    {TEXT("0\r\n\r\n"), "", "", ""},
    {TEXT("0000000000000000\r\n\r\nGET /"), "", "", "GET /"},
    {TEXT("5\r\nhello\r\n0\r\n\r\n"), "hello", "", ""},
    {TEXT("0000000000000005\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"), "hello0123456789",
     "", ""},
    {TEXT("a\r\n0\r\n\r\n\r\n\r\n1\r\n0\r\n\r\n"), "0\r\n\r\n\r\n\r\n1", "", ""},
    {TEXT("1;a\r\nx\r\n1;a=b;c=\"d;e\\\"\\\\ \xc3\xa4\"; f = g\r\ny\r\n0;last\r\n\r\n"),
     "xy", "", ""},
    {TEXT("1\r\nx\r\n0\r\nGrpc-Status: 0\r\nX:\r\n\r\nrest"), "x",
     "Grpc-Status: 0\r\nX:\r\n", "rest"},
    {TEXT("0\r\nServer-Timing: a\tb \r\n\r\n0\r\n\r\n"), "", "Server-Timing: a\tb \r\n",
     "0\r\n\r\n"},
};

static void good_chunks_are_decoded_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        for (size_t first = 1; first <= good[i].len; first++) {
            for (size_t step = 1; step <= good[i].len; step += good[i].len - 1) {
                struct outcome o = decode(span_of(good[i].text, good[i].len),
                                          HTTP1_CHUNKED, 0, first, step);

                if (o.result != HTTP1_OK)
                    fail_msg("%s: %s", good[i].text, http1_rule());
                assert_true(span_eq(span_of(o.content, o.n), span_str(good[i].content)));
                assert_true(
                    span_eq(span_of(o.trailer, o.n_trailer), span_str(good[i].trailer)));
                assert_int_equal(o.used, good[i].len - strlen(good[i].rest));
            }
        }
    }
}

static const struct {
    const char *text;
    size_t len;
    enum http1_result result;
    const char *rule;
} bad[] = {
    {TEXT("\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number (RFC 9112 7.1)"},
    {TEXT(";a\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number (RFC 9112 7.1)"},
    {TEXT("+5\r\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT("-5\r\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT("0x5\r\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT(" 5\r\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT("5 \r\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT("5\t;a\r\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT("5_0\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number (RFC 9112 7.1)"},
    {TEXT("g\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number (RFC 9112 7.1)"},
    {TEXT("5\0\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number (RFC 9112 7.1)"},
    {TEXT("00000000000000005\r\nhello"), HTTP1_E_CHUNK, "chunk size over 16 digits"},
    {TEXT("10000000000000005\r\nhello"), HTTP1_E_CHUNK, "chunk size over 16 digits"},
    {TEXT("5\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "chunk size is no hex number"},
    {TEXT("5\rhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "CR without LF after chunk size"},
    {TEXT("5\r\nhello0\r\n\r\n"), HTTP1_E_CHUNK, "no CRLF after chunk (RFC 9112 7.1)"},
    {TEXT("5\r\nhello\n0\r\n\r\n"), HTTP1_E_CHUNK, "no CRLF after chunk (RFC 9112 7.1)"},
    {TEXT("5\r\nhello\r0\r\n\r\n"), HTTP1_E_CHUNK, "no CRLF after chunk (RFC 9112 7.1)"},
    {TEXT("5\r\nhellox\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "no CRLF after chunk"},
    {TEXT("5;a\nhello\r\n0\r\n\r\n"), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a\0\r\nhello"), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a,b\r\nhello"), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a\xe4\r\nhello"), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a=\"\r\nhello\""), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a=\"\\\r\nhello\""), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a=\"\\\nhello\""), HTTP1_E_CHUNK, "byte that no chunk extension has"},
    {TEXT("5;a\rhello"), HTTP1_E_CHUNK, "CR without LF after chunk size (RFC 9112 7.1)"},
    {TEXT("0\r\n\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT("0\r\nA: b\n\r\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT("0\r\nA: b\rc\r\n\r\n"), HTTP1_E_SYNTAX, "CR without LF (RFC 9112 2.2)"},
    {TEXT("0\r\nA: \0\r\n\r\n"), HTTP1_E_SYNTAX, "NUL (RFC 9110 5.5)"},
    {TEXT("0\r\nA : b\r\n\r\n"), HTTP1_E_SYNTAX, "white space before colon"},
    {TEXT("0\r\nA: b\r\n c\r\n\r\n"), HTTP1_E_SYNTAX, "folded line (RFC 9112 5.2)"},
    {TEXT("0\r\nnocolon\r\n\r\n"), HTTP1_E_SYNTAX, "line without colon (RFC 9112 5)"},
    {TEXT("0\r\nContent-Length: 5\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in"},
    {TEXT("0\r\ntransfer-encoding: chunked\r\n\r\n"), HTTP1_E_SYNTAX,
     "field not allowed"},
    {TEXT("0\r\nHOST: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in trailers"},
    {TEXT("0\r\nAuthorization: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in trail"},
    {TEXT("0\r\nSet-Cookie: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in trailers"},
    {TEXT("0\r\nTunnel-Error: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in trail"},
    {TEXT("0\r\nX-Forwarded-For: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in"},
    {TEXT("0\r\nContent-Type: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in"},
    {TEXT("0\r\nContent-Encoding: a\r\n\r\n"), HTTP1_E_SYNTAX, "field not allowed in"},
    {TEXT("0\r\nContent-Range: a\r\n\r\n"), HTTP1_E_SYNTAX,
     "field not allowed in trailers (RFC 9110 6.5.1)"},
    {TEXT("5\r\nhell"), HTTP1_E_CUT, "body ended in the middle (RFC 9112 8)"},
    {TEXT("5\r\nhello\r\n"), HTTP1_E_CUT, "body ended in the middle (RFC 9112 8)"},
    {TEXT("5\r\nhello\r\n0\r\n"), HTTP1_E_CUT, "body ended in the middle (RFC 9112 8)"},
    {TEXT("0\r\nA: b\r\n"), HTTP1_E_CUT, "body ended in the middle (RFC 9112 8)"},
    {TEXT("ffffffffffffffff\r\nx"), HTTP1_E_CUT, "body ended in the middle"},
};

static void bad_chunks_are_refused_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        for (size_t first = 1; first <= bad[i].len; first++) {
            for (size_t step = 1; step <= bad[i].len; step += bad[i].len - 1) {
                struct outcome o = decode(span_of(bad[i].text, bad[i].len), HTTP1_CHUNKED,
                                          0, first, step);

                if (o.result != bad[i].result ||
                    strncmp(http1_rule(), bad[i].rule, strlen(bad[i].rule)) != 0)
                    fail_msg("%s: got %s, %s", bad[i].text, http1_result_name(o.result),
                             http1_rule());
                assert_false(o.is_done);
            }
        }
    }
}

static enum http1_result feed_text(struct http1_body *b, const char *text)
{
    struct span in = span_str(text), piece;
    enum http1_result r = HTTP1_OK;

    while (in.len > 0 && !b->is_done && r == HTTP1_OK)
        r = http1_body_feed(b, &in, &piece);
    return r;
}

static void extensions_are_counted_over_all_chunks(void **state)
{
    struct http1_body b;
    enum http1_result r = HTTP1_OK;
    unsigned sent = 0;

    (void)state;
    http1_body_init(&b, HTTP1_CHUNKED, 0);
    /* Fifteen bytes of extension each: ";", a name, "=" and a quoted string. */
    while (sent < HTTP1_CHUNK_EXTRA_MAX / 15) {
        r = feed_text(&b, "1;abcd=\"efghijk\"\r\nx\r\n");
        assert_int_equal(r, HTTP1_OK);
        sent++;
    }
    r = feed_text(&b, "1;abcd=\"efghijk\"\r\nx\r\n");
    assert_int_equal(r, HTTP1_E_CHUNK);
    assert_string_equal(http1_rule(), "too much in chunk extensions (RFC 9112 7.1.1)");
    http1_body_done(&b);
}

static void one_extension_byte_too_many_is_refused(void **state)
{
    (void)state;
    for (unsigned over = 0; over < 2; over++) {
        struct http1_body b;
        enum http1_result r;

        http1_body_init(&b, HTTP1_CHUNKED, 0);
        assert_int_equal(feed_text(&b, "1;"), HTTP1_OK);
        for (unsigned i = 0; i < HTTP1_CHUNK_EXTRA_MAX - 1; i++)
            assert_int_equal(feed_text(&b, "a"), HTTP1_OK);
        r = feed_text(&b, over ? "a" : "\r\nx\r\n0\r\n\r\n");
        assert_int_equal(r, over ? HTTP1_E_CHUNK : HTTP1_OK);
        assert_int_equal(b.is_done, !over);
        http1_body_done(&b);
    }
}

static void one_trailer_byte_too_many_is_refused(void **state)
{
    static char line[HTTP1_TRAILER_MAX + 16];

    (void)state;
    for (size_t over = 0; over < 2; over++) {
        struct http1_body b;
        size_t n =
            HTTP1_TRAILER_MAX - 2 + over; /* with the empty line: exactly the bound */

        memset(line, 'a', sizeof(line));
        memcpy(line, "X: ", 3);
        memcpy(line + n - 2, "\r\n\r\n", 5);
        http1_body_init(&b, HTTP1_CHUNKED, 0);
        assert_int_equal(feed_text(&b, "0\r\n"), HTTP1_OK);
        assert_int_equal(feed_text(&b, line), over ? HTTP1_E_FIELDS_BIG : HTTP1_OK);
        assert_int_equal(b.is_done, !over);
        http1_body_done(&b);
    }
}

static void one_trailer_field_too_many_is_refused(void **state)
{
    struct http1_body b;

    (void)state;
    http1_body_init(&b, HTTP1_CHUNKED, 0);
    assert_int_equal(feed_text(&b, "0\r\n"), HTTP1_OK);
    for (unsigned i = 0; i < HTTP1_FIELDS_MAX; i++)
        assert_int_equal(feed_text(&b, "a:\r\n"), HTTP1_OK);
    assert_int_equal(feed_text(&b, "a:\r\n"), HTTP1_E_FIELDS_BIG);
    http1_body_done(&b);
}

static void a_length_takes_its_bytes_and_no_more(void **state)
{
    (void)state;
    for (size_t step = 1; step <= 8; step++) {
        struct outcome o = decode(span_str("hello+more"), HTTP1_LENGTH, 5, step, step);

        assert_int_equal(o.result, HTTP1_OK);
        assert_int_equal(o.used, 5);
        assert_true(span_eq(span_of(o.content, o.n), span_str("hello")));
        o = decode(span_str("hell"), HTTP1_LENGTH, 5, step, step);
        assert_int_equal(o.result, HTTP1_E_CUT);
        assert_int_equal(o.n, 4);
    }
}

static void bodies_without_bytes_are_done_at_once(void **state)
{
    struct http1_body b;
    struct span in = span_str("x"), piece;

    (void)state;
    http1_body_init(&b, HTTP1_NONE, 5);
    assert_true(b.is_done);
    assert_int_equal(http1_body_feed(&b, &in, &piece), HTTP1_OK);
    assert_int_equal(in.len, 1);
    assert_int_equal(piece.len, 0);
    assert_int_equal(http1_body_end(&b), HTTP1_OK);
    http1_body_init(&b, HTTP1_LENGTH, 0);
    assert_true(b.is_done);
}

static void until_close_ends_with_the_connection_only(void **state)
{
    struct outcome o = decode(span_str("0\r\n\r\n"), HTTP1_UNTIL_CLOSE, 0, 2, 1);

    (void)state;
    assert_int_equal(o.result, HTTP1_OK);
    assert_true(o.is_done);
    assert_true(span_eq(span_of(o.content, o.n), span_str("0\r\n\r\n")));
}

static int decode_with_trailers(void)
{
    struct http1_body b;
    enum http1_result r;

    http1_body_init(&b, HTTP1_CHUNKED, 0);
    r = feed_text(&b, "1\r\nx\r\n0\r\nA: b\r\n");
    for (unsigned i = 0; i < 90 && r == HTTP1_OK; i++)
        r = feed_text(&b, "Long-Enough-To-Grow-The-Buffer: 0123456789\r\n");
    if (r == HTTP1_OK)
        r = feed_text(&b, "\r\n");
    if (r == HTTP1_OK)
        assert_true(b.is_done);
    else
        assert_int_equal(r, HTTP1_E_NOMEM);
    http1_body_done(&b);
    return r == HTTP1_OK ? 0 : -1;
}

static void a_failed_allocation_is_told(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(decode_with_trailers());
}

static void chunk_heads_are_read_back(void **state)
{
    static const uint64_t len[] = {1,   9,   10,    15,       16,
                                   255, 256, 65536, 1u << 31, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(len); i++) {
        char head[HTTP1_CHUNK_HEAD_MAX], want[32];
        size_t n = http1_chunk_head(head, len[i]);
        struct span in = span_of(head, n), piece;
        struct http1_body b;

        (void)snprintf(want, sizeof(want), "%llx\r\n", (unsigned long long)len[i]);
        assert_true(span_eq(span_of(head, n), span_str(want)));
        http1_body_init(&b, HTTP1_CHUNKED, 0);
        assert_int_equal(http1_body_feed(&b, &in, &piece), HTTP1_OK);
        assert_true(b.left == len[i]);
        http1_body_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_chunks_are_decoded_at_every_cut),
        cmocka_unit_test(bad_chunks_are_refused_at_every_cut),
        cmocka_unit_test(extensions_are_counted_over_all_chunks),
        cmocka_unit_test(one_extension_byte_too_many_is_refused),
        cmocka_unit_test(one_trailer_byte_too_many_is_refused),
        cmocka_unit_test(one_trailer_field_too_many_is_refused),
        cmocka_unit_test(a_length_takes_its_bytes_and_no_more),
        cmocka_unit_test(bodies_without_bytes_are_done_at_once),
        cmocka_unit_test(until_close_ends_with_the_connection_only),
        cmocka_unit_test(a_failed_allocation_is_told),
        cmocka_unit_test(chunk_heads_are_read_back),
    };

    return cmocka_run_group_tests_name("common/http1_body", tests, NULL, NULL);
}
