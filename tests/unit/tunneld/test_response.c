/* SPDX-License-Identifier: MIT */
#include "tests/support/test.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/edge_site.h"
#include "tunneld/edge/response.h"

#define OK(fields)  "HTTP/1.1 200 OK\r\n" fields "Content-Length: 0\r\n\r\n"
#define P(port)     "https://" port "-demo.preview.test:8443"
#define SENT_ORIGIN "https://4000-demo.preview.test:9999"

static struct http1_head head;

static int rewrite(const char *text, const struct response_args *args, struct buf *out)
{
    struct config conf;
    struct site site;
    struct response_args a = *args;

    if (edge_site_response(text, &head) < 0)
        return -2;
    edge_site_init(&site, &conf, "3000-demo.preview.test:8443");
    a.site = &site;
    out->len = 0;
    return response_write(&head, &a, out);
}

static void check(const char *text, const struct response_args *a, const char *want)
{
    struct buf out = BUF_INIT;

    assert_int_equal(rewrite(text, a, &out), 0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_string_equal((const char *)out.p, want);
    buf_done(&out);
}

static const struct {
    const char *sent, *want; /* fields */
} rows[] = {
    {"Location: http://localhost:3000/x?y#z\r\n", "Location: " P("3000") "/x?y#z\r\n"},
    {"Location: http://127.0.0.1:4000\r\n", "Location: " P("4000") "\r\n"},
    {"Location: https://[::1]:4000/\r\n", "Location: " P("4000") "/\r\n"},
    {"Location: //0.0.0.0:3000/x\r\n", "Location: " P("3000") "/x\r\n"},
    {"Location: http://localhost/x\r\n", "Location: " P("80") "/x\r\n"},
    {"Location: http://localhost:5999/x\r\n", "Location: http://localhost:5999/x\r\n"},
    {"Location: /x\r\n", "Location: /x\r\n"},
    {"Location: http://localhost.evil.com:3000/\r\n",
     "Location: http://localhost.evil.com:3000/\r\n"},
    {"Location: http://a@localhost:3000/\r\n", "Location: http://a@localhost:3000/\r\n"},
    {"Location: https://example.com/http://localhost:3000/\r\n",
     "Location: https://example.com/http://localhost:3000/\r\n"},
    {"Content-Location: http://localhost:3000/x\r\n",
     "Content-Location: " P("3000") "/x\r\n"},
    {"Refresh: 5; url=http://localhost:3000/x\r\n",
     "Refresh: 5; url=" P("3000") "/x\r\n"},
    {"Refresh: 5;URL='http://localhost:3000/x'\r\n",
     "Refresh: 5;URL='" P("3000") "/x'\r\n"},
    {"Refresh: 5\r\n", "Refresh: 5\r\n"},
    {"Access-Control-Allow-Origin: http://localhost:3000\r\n",
     "Access-Control-Allow-Origin: " P("3000") "\r\n"},
    /* the browser's own Origin, by whatever port it came */
    {"Access-Control-Allow-Origin: http://localhost:4000\r\n",
     "Access-Control-Allow-Origin: " SENT_ORIGIN "\r\n"},
    {"Access-Control-Allow-Origin: *\r\n", "Access-Control-Allow-Origin: *\r\n"},
    {"Access-Control-Allow-Origin: null\r\n", "Access-Control-Allow-Origin: null\r\n"},
    {"Set-Cookie: a=b; Domain=localhost; Path=/\r\n", "Set-Cookie: a=b; Path=/\r\n"},
    {"Set-Cookie: a=b;domain = .preview.test\r\n", "Set-Cookie: a=b\r\n"},
    {"Set-Cookie: a=b; Domain=test; Secure\r\n", "Set-Cookie: a=b; Secure\r\n"},
    {"Set-Cookie: a=b; Domain=review.test\r\n",
     "Set-Cookie: a=b; Domain=review.test\r\n"},
    {"Set-Cookie: Domain=localhost; Path=/\r\n",
     "Set-Cookie: Domain=localhost; Path=/\r\n"},
    {"X-A: http://localhost:3000/\r\n", "X-A: http://localhost:3000/\r\n"},
};

static void urls_of_this_machine_become_previews(void **state)
{
    struct response_args a = {.mode = CONTROL_LOCALHOST,
                              .framing = HTTP1_LENGTH,
                              .client_minor = 1,
                              .keep_alive = true,
                              .origin = span_str(SENT_ORIGIN)};
    char text[512], want[512];

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        (void)snprintf(text, sizeof(text), OK("%s"), rows[i].sent);
        (void)snprintf(want, sizeof(want), OK("%s"), rows[i].want);
        check(text, &a, want);
    }
    a.mode = CONTROL_PRESERVE;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        (void)snprintf(text, sizeof(text), OK("%s"), rows[i].sent);
        check(text, &a, text);
    }
}

static void what_only_we_may_say_is_removed_in_both_modes(void **state)
{
    static const char *const fields[] = {
        "Tunnel-Error: port-closed\r\n",
        "Set-Cookie: __Host-tunnel=x; Path=/\r\n",
        "Set-Cookie:  __HOST-Tunnel =x\r\n",
        "Set-Cookie: =__Host-tunnel=x\r\n",
        "Set-Cookie: __Host-tunnel\r\n",
        "Connection: keep-alive, x-a\r\nX-A: 1\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Authenticate: Basic\r\n",
        "Trailer: X\r\n",
        "Upgrade: h2c\r\n",
    };
    struct response_args a = {
        .framing = HTTP1_LENGTH, .client_minor = 1, .keep_alive = true};
    char text[512];

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(fields) * 2; i++) {
        a.mode = i % 2 ? CONTROL_PRESERVE : CONTROL_LOCALHOST;
        (void)snprintf(text, sizeof(text), OK("%s"), fields[i / 2]);
        check(text, &a, OK(""));
    }
}

static void framing_and_connection_are_ours(void **state)
{
    static const struct {
        const char *sent;
        enum http1_framing framing;
        uint8_t minor;
        bool keeps;
        const char *want;
    } cases[] = {
        {"HTTP/1.0 200 OK\r\n\r\n", HTTP1_CHUNKED, 1, true,
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n",
         HTTP1_CHUNKED, 1, true,
         "HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_UNTIL_CLOSE, 0,
         false, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", HTTP1_LENGTH, 0, true,
         "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
         HTTP1_LENGTH, 1, true, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", HTTP1_NONE, 1, false,
         "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"},
        {"HTTP/1.1 304 \r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n", HTTP1_NONE, 1, true,
         "HTTP/1.1 304 \r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n"},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", HTTP1_NONE, 1, true,
         "HTTP/1.1 204 No Content\r\n\r\n"},
        {"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", HTTP1_NONE, 1, false,
         "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"},
        {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
         "websocket\r\n"
         "Sec-WebSocket-Accept: x\r\n\r\n",
         HTTP1_NONE, 1, false,
         "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n"
         "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
        {"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-6/9\r\n"
         "Content-Length: 7\r\n\r\n",
         HTTP1_LENGTH, 1, true,
         "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-6/9\r\n"
         "Content-Length: 7\r\n\r\n"},
    };

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct response_args a = {.framing = cases[i].framing,
                                  .client_minor = cases[i].minor,
                                  .keep_alive = cases[i].keeps};

        check(cases[i].sent, &a, cases[i].want);
    }
}

static int once(void)
{
    struct response_args a = {.framing = HTTP1_LENGTH, .client_minor = 1};
    struct buf out = BUF_INIT;
    int r = rewrite(OK("Location: http://localhost:3000/\r\nSet-Cookie: a=b; "
                       "Domain=localhost\r\nRefresh: 1; url=http://localhost:4000/\r\n"),
                    &a, &out);

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
        cmocka_unit_test(urls_of_this_machine_become_previews),
        cmocka_unit_test(what_only_we_may_say_is_removed_in_both_modes),
        cmocka_unit_test(framing_and_connection_are_ours),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
