/* SPDX-License-Identifier: MIT */
#include "common/http1.h"

#include <stdio.h>

#include "tests/support/test.h"

#define REQ  "GET / HTTP/1.1\r\n"
#define HOST "Host: a.example\r\n"

/* Text with its length, so that rows may hold NUL. */
#define TEXT(s) s, sizeof(s) - 1

static enum http1_result scan_in_pieces(struct span all, size_t step, size_t *ret_len)
{
    struct http1_scan s = {0};

    for (size_t n = step;; n += step) {
        enum http1_result r =
            http1_scan(&s, span_of(all.p, n < all.len ? n : all.len), ret_len);

        if (r != HTTP1_MORE || n >= all.len)
            return r;
    }
}

static enum http1_result parse(struct span text, struct http1_head *h)
{
    struct http1_scan s = {0};
    size_t len = 0;
    enum http1_result r = http1_scan(&s, text, &len);

    if (r != HTTP1_OK)
        return r;
    text.len = len;
    return http1_parse_request(text, h);
}

struct good_row {
    const char *text;
    const char *method, *target;
    unsigned minor, n_fields;
    bool keep_alive, is_chunked, has_length, wants_upgrade;
    uint64_t length;
};

static const struct good_row good[] = {
    {REQ HOST "\r\n", "GET", "/", 1, 1, true, false, false, false, 0},
    {"\r\n" REQ HOST "\r\n", "GET", "/", 1, 1, true, false, false, false, 0},
    {"GET / HTTP/1.0\r\n\r\n", "GET", "/", 0, 0, false, false, false, false, 0},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", 0, 1, true, false,
     false, false, 0},
    {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "OPTIONS", "*", 1, 1, true, false, false,
     false, 0},
    {"get //a?b={c}|\"^`\\ HTTP/1.1\r\nhOST:a.example:80 \t\r\n\r\n", "get",
     "//a?b={c}|\"^`\\", 1, 1, true, false, false, false, 0},
    {"M-SEARCH!#$%&'*+.^_`|~ /x HTTP/1.1\r\nHost: [::1]:3000\r\n\r\n",
     "M-SEARCH!#$%&'*+.^_`|~", "/x", 1, 1, true, false, false, false, 0},
    {"POST /a HTTP/1.1\r\n" HOST "Content-Length: 9999999999999999999\r\n\r\n", "POST",
     "/a", 1, 2, true, false, true, false, 9999999999999999999u},
    {"POST /a HTTP/1.1\r\n" HOST "content-length:0\r\n\r\n", "POST", "/a", 1, 2, true,
     false, true, false, 0},
    {"POST /a HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n", "POST", "/a", 1, 2,
     true, true, false, false, 0},
    {REQ HOST "Connection: foo ,, CLOSE\r\n\r\n", "GET", "/", 1, 2, false, false, false,
     false, 0},
    {REQ HOST "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET", "/",
     1, 3, true, false, false, true, 0},
    {REQ HOST "Upgrade: websocket\r\n\r\n", "GET", "/", 1, 2, true, false, false, false,
     0},
    {REQ HOST "Connection: upgrade\r\n\r\n", "GET", "/", 1, 2, true, false, false, false,
     0},
    {REQ HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
              "HTTP2-Settings: AAMAAABk\r\n\r\n",
     "GET", "/", 1, 4, true, false, false, false, 0},
    {REQ HOST "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: a, H2C\r\n\r\n",
     "GET", "/", 1, 4, true, false, false, false, 0},
    {REQ HOST "Connection: Upgrade\r\nUpgrade: websocket\r\nHTTP2-Settings:\r\n\r\n",
     "GET", "/", 1, 4, true, false, false, false, 0},
    {"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET", "/", 0,
     2, false, false, false, false, 0},
    {REQ HOST "X: a\tb\r\nEmpty:\r\nObs: \xe4\xff\r\n\r\n", "GET", "/", 1, 4, true, false,
     false, false, 0},
};

static void good_requests_are_understood(void **state)
{
    static struct http1_head h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        const struct good_row *g = &good[i];

        if (parse(span_str(g->text), &h) != HTTP1_OK)
            fail_msg("%s: %s", g->text, http1_rule());
        assert_true(h.is_request);
        assert_true(span_eq(h.method, span_str(g->method)));
        assert_true(span_eq(h.target, span_str(g->target)));
        assert_int_equal(h.minor, g->minor);
        assert_int_equal(h.n_fields, g->n_fields);
        assert_int_equal(h.len, strlen(g->text));
        assert_int_equal(h.keep_alive, g->keep_alive);
        assert_int_equal(h.is_chunked, g->is_chunked);
        assert_int_equal(h.has_length, g->has_length);
        assert_int_equal(h.wants_upgrade, g->wants_upgrade);
        assert_true(h.length == g->length);
    }
}

static const struct bad_row {
    const char *text;
    size_t len;
    enum http1_result result;
    const char *rule; /* what http1_rule() begins with */
} bad[] = {
    {TEXT("GET / HTTP/1.1\n" HOST "\r\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT(REQ "Host: a\n\r\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT(REQ HOST "\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT("\n" REQ HOST "\r\n"), HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)"},
    {TEXT(REQ "Host: a\rb\r\n\r\n"), HTTP1_E_SYNTAX, "CR without LF (RFC 9112 2.2)"},
    {TEXT(REQ HOST "X: a\r\r\n\r\n"), HTTP1_E_SYNTAX, "CR without LF (RFC 9112 2.2)"},
    {TEXT(REQ HOST "\r\r\n"), HTTP1_E_SYNTAX, "CR without LF (RFC 9112 2.2)"},
    {TEXT("GET /\0 HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "NUL (RFC 9110 5.5)"},
    {TEXT(REQ "Host: a\0b\r\n\r\n"), HTTP1_E_SYNTAX, "NUL (RFC 9110 5.5)"},
    {TEXT(REQ HOST "X\0: b\r\n\r\n"), HTTP1_E_SYNTAX, "NUL (RFC 9110 5.5)"},
    {TEXT(REQ HOST "X: \x7f\r\n\r\n"), HTTP1_E_SYNTAX, "control byte (RFC 9110 5.5)"},
    {TEXT(REQ HOST "X: \x1b[31m\r\n\r\n"), HTTP1_E_SYNTAX, "control byte (RFC 9110 5.5)"},
    {TEXT("\x16\x03\x01\x02"), HTTP1_E_SYNTAX, "control byte (RFC 9110 5.5)"},
    {TEXT(REQ HOST " folded: x\r\n\r\n"), HTTP1_E_SYNTAX, "folded line (RFC 9112 5.2)"},
    {TEXT(REQ HOST "\tfolded\r\n\r\n"), HTTP1_E_SYNTAX, "folded line (RFC 9112 5.2)"},
    {TEXT(REQ " " HOST "\r\n"), HTTP1_E_SYNTAX, "folded line (RFC 9112 5.2)"},
    {TEXT(REQ "Host : a\r\n\r\n"), HTTP1_E_SYNTAX,
     "white space before colon (RFC 9112 5.1)"},
    {TEXT(REQ HOST "Content-Length\t: 5\r\n\r\n"), HTTP1_E_SYNTAX,
     "white space before colon (RFC 9112 5.1)"},
    {TEXT(REQ HOST ": x\r\n\r\n"), HTTP1_E_SYNTAX, "empty field name (RFC 9110 5.1)"},
    {TEXT(REQ HOST "X(: x\r\n\r\n"), HTTP1_E_SYNTAX, "field name is no token"},
    {TEXT(REQ HOST "\xc3\xa4: x\r\n\r\n"), HTTP1_E_SYNTAX, "field name is no token"},
    {TEXT(REQ HOST "nocolon\r\n\r\n"), HTTP1_E_SYNTAX, "line without colon (RFC 9112 5)"},
    {TEXT("\r\n\r\n" REQ HOST "\r\n"), HTTP1_E_SYNTAX, "empty lines before the head"},
    {TEXT(" GET / HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX,
     "first line starts with no"},
    {TEXT("\"GET / HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX,
     "first line starts with no"},
    {TEXT("G(T / HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "method is no token"},
    {TEXT("GET\t/ HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "method is no token"},
    {TEXT("GET\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "method is no token"},
    {TEXT("GET  / HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not one space"},
    {TEXT("GET /  HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not a version"},
    {TEXT("GET / HTTP/1.1 \r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not a version"},
    {TEXT("GET /a b HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not a version"},
    {TEXT("GET / http/1.1\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not a version"},
    {TEXT("GET / HTTP/1.10\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not a version"},
    {TEXT("GET / HTTP/11\r\n" HOST "\r\n"), HTTP1_E_SYNTAX, "not a version"},
    {TEXT("GET /\r\n\r\n"), HTTP1_E_VERSION, "request without version (RFC 9112 3)"},
    {TEXT("GET / HTTP/0.9\r\n\r\n"), HTTP1_E_VERSION, "version not 1.0 or 1.1"},
    {TEXT("GET / HTTP/1.2\r\n" HOST "\r\n"), HTTP1_E_VERSION, "version not 1.0 or 1.1"},
    {TEXT("PRI * HTTP/2.0\r\n\r\n"), HTTP1_E_VERSION, "version not 1.0 or 1.1"},
    {TEXT("GET http://a.example/ HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET,
     "target not in origin form (RFC 9112 3.2.1)"},
    {TEXT("GET a.example:80 HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET,
     "target not in origin form (RFC 9112 3.2.1)"},
    {TEXT("GET * HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET, "target not in origin form"},
    {TEXT("options * HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET, "target not in origin"},
    {TEXT("OPTIONS *x HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET, "target not in origin"},
    {TEXT("CONNECT a.example:443 HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET,
     "CONNECT (RFC 9112 3.2.3)"},
    {TEXT("CONNECT /x HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET, "CONNECT"},
    {TEXT("GET /#x HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET, "byte that no target has"},
    {TEXT("GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET,
     "byte that no target"},
    {TEXT("GET /a\tb HTTP/1.1\r\n" HOST "\r\n"), HTTP1_E_TARGET,
     "byte that no target has"},
    {TEXT(REQ "\r\n"), HTTP1_E_HOST, "no Host (RFC 9112 3.2)"},
    {TEXT(REQ HOST HOST "\r\n"), HTTP1_E_HOST, "two Host fields (RFC 9112 3.2)"},
    {TEXT(REQ HOST "hOsT:\r\n\r\n"), HTTP1_E_HOST, "two Host fields (RFC 9112 3.2)"},
    {TEXT("GET / HTTP/1.0\r\n" HOST HOST "\r\n"), HTTP1_E_HOST, "two Host fields"},
    {TEXT(REQ "Host:\r\n\r\n"), HTTP1_E_HOST, "Host is no authority (RFC 9112 3.2)"},
    {TEXT(REQ "Host: a, b\r\n\r\n"), HTTP1_E_HOST, "Host is no authority"},
    {TEXT(REQ "Host: u@a\r\n\r\n"), HTTP1_E_HOST, "Host is no authority"},
    {TEXT(REQ "Host: a:99999\r\n\r\n"), HTTP1_E_HOST, "Host is no authority"},
    {TEXT(REQ "Host: http://a\r\n\r\n"), HTTP1_E_HOST, "Host is no authority"},
    {TEXT(REQ HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), HTTP1_E_FRAMING,
     "two Content-Length (RFC 9112 6.3)"},
    {TEXT(REQ HOST "Content-Length: 5, 5\r\n\r\n"), HTTP1_E_FRAMING,
     "bad Content-Length"},
    {TEXT(REQ HOST "Content-Length:\r\n\r\n"), HTTP1_E_FRAMING, "bad Content-Length"},
    {TEXT(REQ HOST "Content-Length: +5\r\n\r\n"), HTTP1_E_FRAMING, "bad Content-Length"},
    {TEXT(REQ HOST "Content-Length: -5\r\n\r\n"), HTTP1_E_FRAMING, "bad Content-Length"},
    {TEXT(REQ HOST "Content-Length: 0x5\r\n\r\n"), HTTP1_E_FRAMING, "bad Content-Length"},
    {TEXT(REQ HOST "Content-Length: 5 5\r\n\r\n"), HTTP1_E_FRAMING, "bad Content-Length"},
    {TEXT(REQ HOST "Content-Length: 00000000000000000001\r\n\r\n"), HTTP1_E_FRAMING,
     "bad Content-Length (RFC 9110 8.6)"},
    {TEXT(REQ HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
     HTTP1_E_FRAMING, "Content-Length with Transfer-Encoding (RFC 9112 6.3)"},
    {TEXT(REQ HOST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
     HTTP1_E_FRAMING, "Content-Length with Transfer-Encoding (RFC 9112 6.3)"},
    {TEXT(REQ HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
     HTTP1_E_FRAMING, "two Transfer-Encoding (RFC 9112 6.1)"},
    {TEXT(REQ HOST "Transfer-Encoding: gzip, chunked\r\n\r\n"), HTTP1_E_FRAMING,
     "coding not chunked (RFC 9112 6.1)"},
    {TEXT(REQ HOST "Transfer-Encoding: chunked,\r\n\r\n"), HTTP1_E_FRAMING,
     "coding not chunked (RFC 9112 6.1)"},
    {TEXT(REQ HOST "Transfer-Encoding: chunked;q=1\r\n\r\n"), HTTP1_E_FRAMING,
     "coding not chunked (RFC 9112 6.1)"},
    {TEXT(REQ HOST "Transfer-Encoding: identity\r\n\r\n"), HTTP1_E_FRAMING, "coding not"},
    {TEXT(REQ HOST "Transfer-Encoding:\r\n\r\n"), HTTP1_E_FRAMING, "coding not chunked"},
    {TEXT(REQ HOST "Transfer-Encoding: xchunked\r\n\r\n"), HTTP1_E_FRAMING, "coding not"},
    {TEXT("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP1_E_FRAMING,
     "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)"},
    {TEXT(REQ HOST "X_Forwarded_For: 1.2.3.4\r\n\r\n"), HTTP1_E_SYNTAX,
     "known field name"},
    {TEXT(REQ HOST "tunnel-PUBLIC_url: x\r\n\r\n"), HTTP1_E_SYNTAX, "known field name"},
    {TEXT(REQ HOST "Content_Length: 5\r\n\r\n"), HTTP1_E_SYNTAX, "known field name"},
    {TEXT(REQ HOST "Transfer_Encoding: chunked\r\n\r\n"), HTTP1_E_SYNTAX, "known field"},
};

static void assert_refused(const struct bad_row *b)
{
    static struct http1_head h;
    enum http1_result r = parse(span_of(b->text, b->len), &h);

    if (r != b->result || strncmp(http1_rule(), b->rule, strlen(b->rule)) != 0)
        fail_msg("%s: got %s, %s", b->text, http1_result_name(r), http1_rule());
    assert_non_null(strstr(http1_rule(), "(RFC "));
}

static void bad_requests_are_refused_with_their_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_refused(&bad[i]);
}

static void pieces_scan_like_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good) + COUNT_OF(bad); i++) {
        struct span all = i < COUNT_OF(good) ? span_str(good[i].text)
                                             : span_of(bad[i - COUNT_OF(good)].text,
                                                       bad[i - COUNT_OF(good)].len);
        struct http1_scan s = {0};
        size_t want_len = 0;
        enum http1_result want = http1_scan(&s, all, &want_len);

        for (size_t step = 1; step <= all.len; step++) {
            size_t len = 0;

            assert_int_equal(scan_in_pieces(all, step, &len), want);
            assert_int_equal(len, want_len);
        }
    }
}

static void the_parser_refuses_what_the_scanner_does(void **state)
{
    static struct http1_head h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct span all = span_of(bad[i].text, bad[i].len);

        assert_true(http1_parse_request(all, &h) > HTTP1_MORE);
    }
    assert_int_equal(http1_parse_request(span_str(REQ HOST "\r\nGET"), &h),
                     HTTP1_E_SYNTAX);
    assert_int_equal(http1_parse_request(span_str(REQ HOST), &h), HTTP1_E_SYNTAX);
    assert_int_equal(http1_parse_request(span_str(REQ "Host: a\r"), &h), HTTP1_E_SYNTAX);
    assert_int_equal(http1_parse_request(span_str(REQ "Host: a"), &h), HTTP1_E_SYNTAX);
    assert_int_equal(http1_parse_request(span_of("", 0), &h), HTTP1_E_SYNTAX);
}

static void faults_are_told_at_the_byte_that_proves_them(void **state)
{
    static const char *const proved[] = {"\x16",        "\n",        " ",     "{",
                                         "GET\n",       "GET /\x01", REQ " ", REQ ":",
                                         REQ "a: b\rx", "\r\n\r\n"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(proved); i++) {
        struct http1_scan s = {0};
        size_t len, n = strlen(proved[i]);

        assert_int_equal(http1_scan(&s, span_of(proved[i], n - 1), &len), HTTP1_MORE);
        assert_int_equal(http1_scan(&s, span_of(proved[i], n), &len), HTTP1_E_SYNTAX);
    }
}

static void bytes_after_the_head_are_left(void **state)
{
    const char *text = REQ HOST "\r\nGET /next";
    struct http1_scan s = {0};
    size_t len = 0;

    (void)state;
    assert_int_equal(http1_scan(&s, span_str(text), &len), HTTP1_OK);
    assert_int_equal(len, strlen(REQ HOST "\r\n"));
}

/* "GET /" and 'a' up to `target_len`, then a field that fills up to `head_len`. */
static char *big_head(size_t target_len, size_t head_len)
{
    size_t line = target_len + sizeof("GET  HTTP/1.1\r\n") - 1;
    char *p = mem_alloc(head_len);

    assert_non_null(p);
    memset(p, 'a', head_len);
    memcpy(p, "GET /", 5);
    memcpy(p + line - 11, " HTTP/1.1\r\n", 11);
    memcpy(p + line, HOST "X: ", sizeof(HOST "X: ") - 1);
    memcpy(p + head_len - 4, "\r\n\r\n", 4);
    return p;
}

static void assert_big(size_t target_len, size_t head_len, enum http1_result want)
{
    static struct http1_head h;
    char *p = big_head(target_len, head_len);
    size_t len;

    assert_int_equal(parse(span_of(p, head_len), &h), want);
    assert_int_equal(scan_in_pieces(span_of(p, head_len), 1, &len), want);
    assert_int_equal(scan_in_pieces(span_of(p, head_len), 1460, &len), want);
    mem_free(p);
}

static void bounds_are_exact(void **state)
{
    size_t line_rest = sizeof("GET  HTTP/1.1") - 1;

    (void)state;
    assert_big(10, HTTP1_HEAD_MAX, HTTP1_OK);
    assert_big(10, HTTP1_HEAD_MAX + 1, HTTP1_E_FIELDS_BIG);
    assert_big(10, HTTP1_HEAD_MAX + 5, HTTP1_E_FIELDS_BIG);
    assert_big(HTTP1_TARGET_MAX - line_rest, HTTP1_TARGET_MAX + 100, HTTP1_OK);
    assert_big(HTTP1_TARGET_MAX - line_rest + 1, HTTP1_TARGET_MAX + 100,
               HTTP1_E_TARGET_BIG);
}

static void one_field_too_many_is_refused(void **state)
{
    static struct http1_head h;
    static char text[4096];
    size_t n = (size_t)snprintf(text, sizeof(text), REQ HOST);

    (void)state;
    for (unsigned i = 1; i < HTTP1_FIELDS_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "a:\r\n");
    memcpy(text + n, "\r\n", 3);
    assert_int_equal(parse(span_str(text), &h), HTTP1_OK);
    assert_int_equal(h.n_fields, HTTP1_FIELDS_MAX);
    memcpy(text + n, "a:\r\n\r\n", 7);
    assert_int_equal(parse(span_str(text), &h), HTTP1_E_FIELDS_BIG);
}

/* Each field that is passed on is looked for in Connection: 65 KB of "a,a,a" beside 98 fields
 * took 24 ms. */
static void connection_names_no_more_than_there_can_be(void **state)
{
    static struct http1_head h;
    char text[1024];
    size_t n =
        (size_t)snprintf(text, sizeof(text), REQ HOST "Connection: a\r\nConnection: ");

    (void)state;
    for (unsigned i = 2; i < HTTP1_FIELDS_MAX; i++)
        text[n++] = ',';
    memcpy(text + n, "\r\n\r\n", 5);
    assert_int_equal(parse(span_str(text), &h), HTTP1_OK);
    memcpy(text + n, ",\r\n\r\n", 6);
    assert_int_equal(parse(span_str(text), &h), HTTP1_E_FIELDS_BIG);
    assert_non_null(strstr(http1_rule(), "Connection too long"));
}

/* In one-byte pieces each call may look at the new byte and at one CR, not at more. */
static void the_scanner_never_goes_back(void **state)
{
    char *p = big_head(10, HTTP1_HEAD_MAX);
    struct http1_scan s = {0};
    size_t len, last = 0;

    (void)state;
    for (size_t n = 1; n <= HTTP1_HEAD_MAX; n++) {
        (void)http1_scan(&s, span_of(p, n), &len);
        assert_true(s.pos >= last && s.pos + 1 >= n);
        last = s.pos;
    }
    mem_free(p);
}

static void lists_are_searched_by_member(void **state)
{
    static struct http1_head h;

    (void)state;
    assert_int_equal(parse(span_str(REQ HOST "Connection: a , b\r\nConnection: ,X-Del\r\n"
                                             "x-del: 1\r\nx-de: 2\r\nTE: trailers\r\n"
                                             "Content-Length: 1\r\nTrailer: x\r\n\r\n"),
                           &h),
                     HTTP1_OK);
    assert_true(http1_has_token(&h, HTTP1_CONNECTION, "B"));
    assert_true(http1_has_token(&h, HTTP1_CONNECTION, "x-del"));
    assert_false(http1_has_token(&h, HTTP1_CONNECTION, "x-de"));
    assert_false(http1_has_token(&h, HTTP1_UPGRADE, "b"));
    assert_false(http1_is_hop(&h, &h.field[0])); /* Host */
    assert_true(http1_is_hop(&h, &h.field[1]));  /* Connection */
    assert_true(http1_is_hop(&h, &h.field[3]));  /* x-del */
    assert_false(http1_is_hop(&h, &h.field[4])); /* x-de */
    assert_true(http1_is_hop(&h, &h.field[5]));  /* TE */
    assert_false(http1_is_hop(&h, &h.field[6])); /* Content-Length */
    assert_false(http1_is_hop(&h, &h.field[7])); /* Trailer */
    assert_null(http1_find(&h, HTTP1_COOKIE));
}

static void connection_cannot_name_host_or_length_away(void **state)
{
    static struct http1_head h;

    (void)state;
    assert_int_equal(parse(span_str(REQ HOST "Connection: Host, Content-Length\r\n"
                                             "Content-Length: 1\r\n\r\n"),
                           &h),
                     HTTP1_OK);
    assert_false(http1_is_hop(&h, http1_find(&h, HTTP1_HOST)));
    assert_false(http1_is_hop(&h, http1_find(&h, HTTP1_CONTENT_LENGTH)));
}

static void request_framing_follows_the_head(void **state)
{
    static struct http1_head h;

    (void)state;
    assert_int_equal(parse(span_str(REQ HOST "\r\n"), &h), HTTP1_OK);
    assert_int_equal(http1_request_framing(&h), HTTP1_NONE);
    assert_int_equal(parse(span_str(REQ HOST "Content-Length: 7\r\n\r\n"), &h), HTTP1_OK);
    assert_int_equal(http1_request_framing(&h), HTTP1_LENGTH);
    assert_int_equal(parse(span_str(REQ HOST "Transfer-Encoding: chunked\r\n\r\n"), &h),
                     HTTP1_OK);
    assert_int_equal(http1_request_framing(&h), HTTP1_CHUNKED);
}

static int put_two(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (http1_put(&b, "A", span_str("1")) < 0 ||
        http1_put_field(&b, span_str("b-c"), span_of(NULL, 0)) < 0)
        return -1;
    assert_true(span_eq(buf_span(&b), span_str("A: 1\r\nb-c: \r\n")));
    return 0;
}

static void fields_are_written_or_nothing_is(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } value[] = {{TEXT("a\r\nX: y")}, {TEXT("\n")}, {TEXT("a\0b")}, {TEXT("\x7f")}};
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    (void)state;
    FAIL_EACH_ALLOC(put_two());
    for (size_t i = 0; i < COUNT_OF(value); i++)
        assert_int_equal(http1_put(&b, "A", span_of(value[i].text, value[i].len)), -1);
    assert_int_equal(b.len, 0);
    assert_string_equal(http1_reason(404), "Not Found");
    assert_string_equal(http1_reason(799), "Unknown");
}

static void every_result_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = HTTP1_OK; a <= HTTP1_E_NOMEM; a++) {
        const char *name = http1_result_name((enum http1_result)a);

        assert_string_not_equal(name, "?");
        for (int b = HTTP1_OK; b < a; b++)
            assert_string_not_equal(name, http1_result_name((enum http1_result)b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_requests_are_understood),
        cmocka_unit_test(bad_requests_are_refused_with_their_rule),
        cmocka_unit_test(pieces_scan_like_the_whole),
        cmocka_unit_test(the_parser_refuses_what_the_scanner_does),
        cmocka_unit_test(faults_are_told_at_the_byte_that_proves_them),
        cmocka_unit_test(bytes_after_the_head_are_left),
        cmocka_unit_test(bounds_are_exact),
        cmocka_unit_test(one_field_too_many_is_refused),
        cmocka_unit_test(connection_names_no_more_than_there_can_be),
        cmocka_unit_test(the_scanner_never_goes_back),
        cmocka_unit_test(lists_are_searched_by_member),
        cmocka_unit_test(connection_cannot_name_host_or_length_away),
        cmocka_unit_test(request_framing_follows_the_head),
        cmocka_unit_test(fields_are_written_or_nothing_is),
        cmocka_unit_test(every_result_has_a_name_of_its_own),
    };

    return cmocka_run_group_tests_name("common/http1", tests, NULL, NULL);
}
