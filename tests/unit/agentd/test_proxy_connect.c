/* SPDX-License-Identifier: MIT */
#include "agentd/link/proxy_connect.h"

#include <stdio.h>
#include <string.h>

#include "common/limits.h"
#include "tests/support/test.h"

/* What a proxy sends, as bytes; replies to several of our messages follow each other. */
#define B(s)                                                                             \
    {                                                                                    \
        (const uint8_t *)(s), sizeof(s) - 1                                              \
    }
#define V4 "\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90"

struct exchange {
    const char *url, *name;
    const char *address; /* given to a SOCKS proxy instead of the name */
    struct span reply;
    enum proxy_result want;
    struct span sent; /* all our output in order; empty: not compared */
    const char *rest; /* of `reply`, left for the caller */
    enum err_code code;
    const char *words;
};

static const struct exchange row[] = {
    /* HTTP: yes */
    {"http://p:3128", "a.example", NULL, B("HTTP/1.1 200 Connection established\r\n\r\n"),
     PROXY_OK, B("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"), "", 0,
     ""},
    {"http://p", "2001:db8::1", NULL, B("HTTP/1.0 200 OK\r\nVia: x\r\n\r\n"), PROXY_OK,
     B("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"), "", 0,
     ""},
    {"http://user:p%40ss@p", "a.example", NULL, B("HTTP/1.1 200 \r\n\r\nSSH-2.0"),
     PROXY_OK,
     B("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"
       "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"),
     "SSH-2.0", 0, ""},
    {"https://p",
     "a.example",
     NULL,
     B("HTTP/1.1 204 x\r\n\r\n\r\n"),
     PROXY_OK,
     {0},
     "\r\n",
     0,
     ""},
    {"http://p",
     "a.example",
     NULL,
     B("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\nA: b\r\n\r\nHTTP/1.1 200 "
       "OK\r\n\r\nX"),
     PROXY_OK,
     {0},
     "X",
     0,
     ""},
    {"http://p", "a.example", NULL, B("HTTP/1.1 200\r\n\r\n"), PROXY_OK, {0}, "", 0, ""},
    /* HTTP: no */
    {"http://u:SECRET@p:3128",
     "a.example",
     NULL,
     B("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nnope"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "proxy p:3128 refused the credentials (407)"},
    {"http://p:3128",
     "a.example",
     NULL,
     B("HTTP/1.1 407 x\r\n\r\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "proxy p:3128 wants credentials (407)"},
    {"http://p",
     "a.example",
     NULL,
     B("HTTP/1.1 403 Forbidden\r\n\r\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "proxy p:80 does not allow a connection to a.example:443 (403)"},
    {"http://p",
     "a.example",
     NULL,
     B("HTTP/1.1 503 x\r\n\r\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_NOTFOUND,
     "proxy p:80 could not connect to a.example:443 (503)"},
    {"http://p",
     "a.example",
     NULL,
     B("HTTP/1.1 302 x\r\nLocation: /login\r\n\r\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "status 302"},
    {"http://p",
     "a.example",
     NULL,
     B("SSH-2.0-OpenSSH_9\r\n\r\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not HTTP"},
    {"http://p",
     "a.example",
     NULL,
     B("HTTP/1.1 200 OK\n\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not HTTP"},

    /* SOCKS5: yes */
    {"socks5h://p", "a.example", NULL, B("\x05\x00" V4), PROXY_OK,
     B("\x05\x01\x00\x05\x01\x00\x03\x09"
       "a.example\x01\xbb"),
     "", 0, ""},
    {"socks5h://u:pw@p", "a.example", NULL, B("\x05\x02\x01\x00" V4 "hello"), PROXY_OK,
     B("\x05\x02\x00\x02\x01\x01u\x02pw\x05\x01\x00\x03\x09"
       "a.example\x01\xbb"),
     "hello", 0, ""},
    {"socks5h://u:pw@p", "a.example", NULL, B("\x05\x00" V4), PROXY_OK,
     B("\x05\x02\x00\x02\x05\x01\x00\x03\x09"
       "a.example\x01\xbb"),
     "", 0, ""},
    {"socks5h://p", "192.0.2.1", NULL, B("\x05\x00" V4), PROXY_OK,
     B("\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"), "", 0, ""},
    {"socks5://p", "a.example", "192.0.2.1:443", B("\x05\x00" V4), PROXY_OK,
     B("\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"), "", 0, ""},
    {"socks5://p", "a.example", "[2001:db8::2]:443",
     B("\x05\x00\x05\x00\x00\x04"
       "0123456789abcdef\x00\x50z"),
     PROXY_OK,
     B("\x05\x01\x00\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00"
       "\x00"
       "\x00\x02\x01\xbb"),
     "z", 0, ""},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x00\x00\x03\x03tcp\x00\x50zz"),
     PROXY_OK,
     {0},
     "zz",
     0,
     ""},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x00\x00\x03\x00\x00\x50"),
     PROXY_OK,
     {0},
     "",
     0,
     ""},
    /* SOCKS5: no */
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\xff"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "proxy p:1080 wants credentials"},
    {"socks5h://u:SECRET@p",
     "a.example",
     NULL,
     B("\x05\xff"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "takes no user name"},
    {"socks5h://u:SECRET@p",
     "a.example",
     NULL,
     B("\x05\x02\x01\x01"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "proxy p:1080 refused the credentials"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x02"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not SOCKS5"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x04\x00"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not SOCKS5"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("HTTP/1.1 400 Bad\r\n"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not SOCKS5"},
    {"socks5h://u:SECRET@p",
     "a.example",
     NULL,
     B("\x05\x02\x05\x00"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not SOCKS5"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x04\x00\x00\x01"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not SOCKS5"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x00\x00\x02zzzzzz"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_PROTO,
     "not SOCKS5"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x01"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_NOTFOUND,
     "general failure (SOCKS5 reply 1)"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x02\x00\x01"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_DENIED,
     "could not connect to a.example:443: not allowed by its rules"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x03"),
     PROXY_NEXT,
     {0},
     NULL,
     ERR_NOTFOUND,
     "network unreachable"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x04"),
     PROXY_NEXT,
     {0},
     NULL,
     ERR_NOTFOUND,
     "host unreachable"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x05"),
     PROXY_NEXT,
     {0},
     NULL,
     ERR_NOTFOUND,
     "connection refused"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\x08"),
     PROXY_NEXT,
     {0},
     NULL,
     ERR_NOTFOUND,
     "address type not supported"},
    {"socks5h://p",
     "a.example",
     NULL,
     B("\x05\x00\x05\xee"),
     PROXY_ERROR,
     {0},
     NULL,
     ERR_NOTFOUND,
     "unknown reason (SOCKS5 reply 238)"},
};

static void take_output(struct proxy_connect *p, struct buf *sent)
{
    struct span out = proxy_connect_output(p);

    while (out.len) { /* as a socket that takes three bytes at a time */
        size_t n = out.len < 3 ? out.len : 3;

        assert_int_equal(buf_add(sent, out.p, n), 0);
        proxy_connect_sent(p, n);
        out = proxy_connect_output(p);
    }
}

/* A SOCKS proxy answers each of our messages before it has the next. */
static size_t turn_left(struct span reply, size_t pos)
{
    if (pos < 2)
        return 2 - pos;
    return pos < 4 && reply.p[1] == 2 ? 4 - pos : reply.len - pos;
}

/* Feed `reply` cut at `cut`, or in pieces of one byte (cut 0), or whole (cut = len). */
static void play(const struct exchange *x, size_t cut, size_t number)
{
    struct proxy_url url;
    struct proxy_connect p;
    struct buf sent = BUF_INIT;
    struct sock_addr address = {0};
    struct proxy_target to = {.name = x->name, .port = 443};
    struct err e = {0};
    enum proxy_result r = PROXY_MORE;
    size_t pos = 0;

    assert_int_equal(proxy_url_parse(span_str(x->url), &url, &e), 0);
    if (x->address) {
        assert_int_equal(sock_parse(x->address, &address, &e), 0);
        to.address = &address;
    }
    assert_int_equal(proxy_connect_init(&p, &url, &to, &e), 0);
    take_output(&p, &sent);
    while (r == PROXY_MORE && pos < x->reply.len) {
        size_t n = cut == 0 ? 1 : pos < cut ? cut - pos : x->reply.len - pos;
        struct span in;

        if (url.scheme >= PROXY_SOCKS5 && n > turn_left(x->reply, pos))
            n = turn_left(x->reply, pos);
        in = span_of(x->reply.p + pos, n);

        r = proxy_connect_feed(&p, &in, &e);
        assert_true(in.len <= n);
        pos += n - in.len;
        if (r == PROXY_MORE)
            assert_int_equal(in.len, 0);
        take_output(&p, &sent);
    }
    if (r != x->want || e.code != x->code || !strstr(e.msg, x->words))
        fail_msg("row %zu cut %zu: result %d code %d: %s", number, cut, r, e.code, e.msg);
    assert_null(strstr(e.msg, "SECRET"));
    if (x->sent.len && !span_eq(buf_span(&sent), x->sent))
        fail_msg("row %zu: sent %.*s", number, SPAN_FMT(buf_span(&sent)));
    if (x->rest)
        assert_true(span_eq(span_skip(x->reply, pos), span_str(x->rest)));
    buf_done(&sent);
    proxy_connect_done(&p);
    proxy_url_done(&url);
}

static void each_reply_means_what_it_says_however_it_is_cut(void **state)
{
    size_t i, cut;

    (void)state;
    for (i = 0; i < COUNT_OF(row); i++)
        for (cut = 0; cut <= row[i].reply.len; cut++)
            play(&row[i], cut, i);
    assert_int_equal(mem_live(), 0);
}

static void a_reply_that_never_ends_is_cut_at_its_bound(void **state)
{
    struct proxy_url url;
    struct proxy_connect p;
    struct proxy_target to = {.name = "a.example", .port = 443};
    struct err e = {0};
    enum proxy_result r = PROXY_MORE;
    size_t total = 0;
    uint8_t line[] = "A: bcdefghijklmnop\r\n";
    struct span in = span_str("HTTP/1.1 200 OK\r\n");

    (void)state;
    assert_int_equal(proxy_url_parse(span_str("http://p"), &url, &e), 0);
    assert_int_equal(proxy_connect_init(&p, &url, &to, &e), 0);
    assert_int_equal(proxy_connect_feed(&p, &in, &e), PROXY_MORE);
    while (r == PROXY_MORE && total < 4 * PROXY_REPLY_MAX) {
        in = span_of(line, sizeof(line) - 1);
        total += in.len;
        r = proxy_connect_feed(&p, &in, &e);
    }
    assert_int_equal(r, PROXY_ERROR);
    assert_int_equal(e.code, ERR_PROTO);
    assert_true(total <= PROXY_REPLY_MAX + sizeof(line));
    proxy_connect_done(&p);
    proxy_url_done(&url);
    assert_int_equal(mem_live(), 0);
}

static void basic_carries_a_password_of_any_length(void **state)
{
    static char text[PROXY_URL_MAX + 1];
    struct proxy_url url;
    struct proxy_connect p;
    struct proxy_target to = {.name = "a.example", .port = 443};
    struct err e = {0};

    (void)state;
    memset(text, 'x', PROXY_URL_MAX);
    memcpy(text, "http://u:", 9);
    memcpy(text + PROXY_URL_MAX - 2, "@p", 3);
    assert_int_equal(proxy_url_parse(span_str(text), &url, &e), 0);
    assert_int_equal(proxy_connect_init(&p, &url, &to, &e), 0);
    assert_true(proxy_connect_output(&p).len > PROXY_URL_MAX * 4 / 3);
    proxy_connect_done(&p);
    proxy_url_done(&url);
}

static void socks_credentials_end_at_255_bytes(void **state)
{
    char text[600];
    struct proxy_url url;
    struct proxy_connect p;
    struct proxy_target to = {.name = "a.example", .port = 443};
    struct err e = {0};
    int len;

    (void)state;
    for (len = 255; len <= 256; len++) {
        (void)snprintf(text, sizeof(text), "socks5h://u:%0*d@p", len, 0);
        assert_int_equal(proxy_url_parse(span_str(text), &url, &e), 0);
        assert_int_equal(proxy_connect_init(&p, &url, &to, &e), len == 255 ? 0 : -1);
        proxy_connect_done(&p);
        proxy_url_done(&url);
    }
    assert_int_equal(e.code, ERR_CONFIG);
    assert_int_equal(proxy_url_parse(span_str("socks5h://:p@p"), &url, &e), 0);
    assert_int_equal(proxy_connect_init(&p, &url, &to, &e), -1);
    proxy_url_done(&url);
    assert_int_equal(mem_live(), 0);
}

static void a_socks_answer_before_its_question_is_an_error(void **state)
{
    struct proxy_url url;
    struct proxy_connect p;
    struct proxy_target to = {.name = "a.example", .port = 443};
    struct span in = span_of("\x05\x00" V4, 12);
    struct err e = {0};

    (void)state;
    assert_int_equal(proxy_url_parse(span_str("socks5h://p"), &url, &e), 0);
    assert_int_equal(proxy_connect_init(&p, &url, &to, &e), 0);
    proxy_connect_sent(&p, proxy_connect_output(&p).len);
    assert_int_equal(proxy_connect_feed(&p, &in, &e), PROXY_ERROR);
    assert_int_equal(e.code, ERR_PROTO);
    proxy_connect_done(&p);
    proxy_url_done(&url);
}

static int feed_once(struct proxy_connect *p, struct span reply, struct err *e)
{
    size_t pos = 0;

    while (pos < reply.len) {
        struct span one = span_of(reply.p + pos++, 1);
        enum proxy_result r;

        proxy_connect_sent(p, proxy_connect_output(p).len);
        r = proxy_connect_feed(p, &one, e);
        if (r != PROXY_MORE)
            return r == PROXY_OK ? 0 : -1;
    }
    return -1;
}

static int ask_once(const struct proxy_url *url, struct span reply)
{
    struct proxy_connect p;
    struct proxy_target to = {.name = "a.example", .port = 443};
    struct err e = {0};
    int rc = proxy_connect_init(&p, url, &to, &e);

    if (rc < 0) {
        assert_int_equal(e.code, ERR_NOMEM);
        return -1;
    }
    rc = feed_once(&p, reply, &e);
    if (rc < 0)
        assert_int_equal(e.code, ERR_NOMEM);
    proxy_connect_done(&p);
    return rc;
}

static void no_memory_is_an_error_without_a_leak(void **state)
{
    struct proxy_url http, socks;

    (void)state;
    assert_int_equal(proxy_url_parse(span_str("http://u:p@p"), &http, NULL), 0);
    assert_int_equal(proxy_url_parse(span_str("socks5h://u:p@p"), &socks, NULL), 0);
    FAIL_EACH_ALLOC(ask_once(&http, span_str("HTTP/1.1 200 OK\r\n\r\n")));
    FAIL_EACH_ALLOC(ask_once(&socks, span_of("\x05\x02\x01\x00" V4, 14)));
    proxy_url_done(&http);
    proxy_url_done(&socks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_reply_means_what_it_says_however_it_is_cut),
        cmocka_unit_test(a_reply_that_never_ends_is_cut_at_its_bound),
        cmocka_unit_test(basic_carries_a_password_of_any_length),
        cmocka_unit_test(socks_credentials_end_at_255_bytes),
        cmocka_unit_test(a_socks_answer_before_its_question_is_an_error),
        cmocka_unit_test(no_memory_is_an_error_without_a_leak),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
