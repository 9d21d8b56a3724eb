/* SPDX-License-Identifier: MIT */
#include "tests/support/test.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/edge_site.h"
#include "tunneld/edge/request.h"

#define L(fields) "GET /p HTTP/1.1\r\nHost: 3000-demo.preview.test:8443\r\n" fields "\r\n"
/* What the app gets for L(""): before and after the fields that pass. */
#define HEAD_LOCAL "GET /p HTTP/1.1\r\nHost: localhost:3000\r\n"
#define TAIL(xff)                                                                        \
    "X-Forwarded-For: " xff                                                              \
    "\r\nTunnel-Public-Url: https://3000-demo.preview.test:8443\r\n"
#define LOCAL(fields) HEAD_LOCAL fields TAIL("203.0.113.9")

static struct http1_head head;

static int rewrite(const char *text, enum control_host_mode mode, bool is_trusted,
                   struct buf *out)
{
    struct config conf;
    struct site site;
    struct sock_addr from;
    struct request_args a = {.site = &site, .mode = mode, .from = &from, .is_tls = true};

    a.is_trusted = is_trusted;
    if (edge_site_request(text, &head) < 0)
        return -2;
    edge_site_init(&site, &conf, "3000-demo.preview.test:8443");
    (void)sock_parse(is_trusted ? "10.0.0.1:1" : "203.0.113.9:1", &from, NULL);
    out->len = 0;
    if (request_write(&head, &a, out) < 0)
        return -1;
    return 0;
}

static void check(const char *text, enum control_host_mode mode, bool is_trusted,
                  const char *want)
{
    struct buf out = BUF_INIT;

    assert_int_equal(rewrite(text, mode, is_trusted, &out), 0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_string_equal((const char *)out.p, want);
    buf_done(&out);
}

static void in_localhost_mode_the_app_sees_itself(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {L(""), LOCAL("") "\r\n"},
        {L("Origin: https://3000-demo.preview.test:8443\r\n"),
         LOCAL("Origin: http://localhost:3000\r\n") "\r\n"},
        {L("Origin: https://4000-DEMO.preview.test:8443\r\n"),
         LOCAL("Origin: http://localhost:4000\r\n") "\r\n"},
        {L("Origin: https://shop.preview.test\r\n"),
         LOCAL("Origin: http://localhost:3000\r\n") "\r\n"},
        {L("Origin: https://3000-evil.preview.test:8443\r\n"),
         LOCAL("Origin: https://3000-evil.preview.test:8443\r\n") "\r\n"},
        {L("Origin: http://3000-demo.preview.test:8443\r\n"),
         LOCAL("Origin: http://3000-demo.preview.test:8443\r\n") "\r\n"},
        {L("Origin: null\r\n"), LOCAL("Origin: null\r\n") "\r\n"},
        {L("Referer: https://4000-demo.preview.test:8443/a?b=1&_tunnel=x.y.z\r\n"),
         LOCAL("Referer: http://localhost:4000/a?b=1\r\n") "\r\n"},
        {L("Referer: https://example.com/3000-demo.preview.test\r\n"),
         LOCAL("Referer: https://example.com/3000-demo.preview.test\r\n") "\r\n"},
        {L("X-A: 1\r\nCookie: a=b\r\n"), LOCAL("X-A: 1\r\nCookie: a=b\r\n") "\r\n"},
    };

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check(rows[i].text, CONTROL_LOCALHOST, false, rows[i].want);
}

static void our_credentials_never_reach_the_app(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"GET /p?_tunnel=a.b.c HTTP/1.1\r\nHost: 3000-demo.preview.test\r\n\r\n",
         LOCAL("") "\r\n"},
        {L("Cookie: __Host-tunnel=abc\r\n"), LOCAL("") "\r\n"},
        {L("Cookie: a=b; __Host-tunnel=abc; c=d\r\n"),
         LOCAL("Cookie: a=b; c=d\r\n") "\r\n"},
        {L("Cookie: a=b;__host-TUNNEL = abc ;c=d\r\n"),
         LOCAL("Cookie: a=b; c=d\r\n") "\r\n"},
        {L("Cookie: =__Host-tunnel=abc; c=d\r\n"), LOCAL("Cookie: c=d\r\n") "\r\n"},
        {L("X-Tunnel-Token: abc\r\nX-Tunnel-Token: d\r\n"), LOCAL("") "\r\n"},
        {L("Tunnel-Public-Url: https://evil\r\nTunnel-Error: x\r\n"), LOCAL("") "\r\n"},
    };

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check(rows[i].text, CONTROL_LOCALHOST, false, rows[i].want);
}

static void the_rest_of_the_query_stays_as_it_was(void **state)
{
    static const struct {
        const char *target, *want;
    } rows[] = {
        {"/a?_tunnel=t", "/a"},
        {"/a?_tunnel=t&b=1", "/a?b=1"},
        {"/a?b=1&_tunnel=t&c", "/a?b=1&c"},
        {"/a?_tunnel&_tunnel=&x", "/a?x"},
        {"/a?_tunnelx=t&x_tunnel=t", "/a?_tunnelx=t&x_tunnel=t"},
        {"/a_tunnel=t?", "/a_tunnel=t?"},
        {"//a?&&_tunnel=t&", "//a?&&"},
    };
    char text[128], want[400];

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        (void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n",
                       rows[i].target);
        (void)snprintf(
            want, sizeof(want),
            "GET %s HTTP/1.1\r\nHost: localhost:3000\r\n" TAIL("203.0.113.9") "\r\n",
            rows[i].want);
        check(text, CONTROL_LOCALHOST, false, want);
    }
}

static void hop_by_hop_fields_are_removed_first(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {L("Connection: x-a, close\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: 3\r\n"),
         LOCAL("X-B: 2\r\n") "\r\n"},
        {L("Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n"),
         LOCAL("") "\r\n"},
        /* Ours cannot be named away. */
        {L("Connection: x-forwarded-for, tunnel-public-url, host\r\n"), LOCAL("") "\r\n"},
        {L("TE: trailers, deflate\r\nConnection: te\r\n"),
         LOCAL("") "TE: trailers\r\nConnection: TE\r\n\r\n"},
        {L("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"),
         LOCAL("Sec-WebSocket-Key: x\r\n") "Connection: upgrade\r\nUpgrade: "
                                           "websocket\r\n\r\n"},
        {L("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"),
         LOCAL("") "\r\n"},
        {L("Upgrade: websocket\r\n"), LOCAL("") "\r\n"},
        {L("Transfer-Encoding: chunked\r\nTrailer: X\r\nExpect: 100-continue\r\n"),
         LOCAL("Trailer: X\r\nExpect: 100-continue\r\n") "Transfer-Encoding: "
                                                         "chunked\r\n\r\n"},
        {L("Content-Length: 0012\r\nConnection: content-length\r\nTrailer: X\r\n"),
         LOCAL("") "Content-Length: 12\r\n\r\n"},
    };

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check(rows[i].text, CONTROL_LOCALHOST, false, rows[i].want);
}

static void forwarded_fields_count_from_trusted_addresses_only(void **state)
{
    static const char sent[] =
        L("X-Forwarded-For: 198.51.100.7, 10.0.0.9\r\nX-Forwarded-Proto: http\r\n"
          "X-Forwarded-Host: evil\r\nForwarded: for=evil\r\nX-Real-IP: 1.2.3.4\r\n"
          "X-Forwarded-Port: 1\r\nX-Forwarded-Server: evil\r\n");

    UNUSED_ARG(state);
    check(sent, CONTROL_LOCALHOST, false, LOCAL("") "\r\n");
    check(sent, CONTROL_LOCALHOST, true,
          HEAD_LOCAL TAIL("198.51.100.7, 10.0.0.9, 10.0.0.1") "\r\n");
}

static void preserve_mode_changes_nothing_and_says_all(void **state)
{
    UNUSED_ARG(state);
    check(L("Origin: https://3000-demo.preview.test:8443\r\n"
            "Referer: https://3000-demo.preview.test:8443/x?_tunnel=t\r\n"),
          CONTROL_PRESERVE, false,
          "GET /p HTTP/1.1\r\nHost: 3000-demo.preview.test:8443\r\n"
          "Origin: https://3000-demo.preview.test:8443\r\n"
          "Referer: https://3000-demo.preview.test:8443/x\r\n"
          "X-Forwarded-For: 203.0.113.9\r\n"
          "Forwarded: for=\"203.0.113.9\";host=\"3000-demo.preview.test:8443\";"
          "proto=https\r\n"
          "X-Forwarded-Proto: https\r\nX-Forwarded-Host: 3000-demo.preview.test:8443\r\n"
          "X-Forwarded-Port: 8443\r\nX-Real-IP: 203.0.113.9\r\n"
          "Tunnel-Public-Url: https://3000-demo.preview.test:8443\r\n\r\n");
}

static void the_client_is_the_rightmost_untrusted_address(void **state)
{
    static const struct {
        const char *field, *want;
    } rows[] = {
        {"", "10.0.0.1"},
        {"X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"},
        {"X-Forwarded-For: 1.1.1.1, 198.51.100.7, 10.1.1.1\r\n", "198.51.100.7"},
        {"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n", "2.2.2.2"},
        {"X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"},
        {"X-Forwarded-For: 1.1.1.1, evil, 10.1.1.1\r\n", "10.1.1.1"},
        {"X-Forwarded-For: 10.2.2.2, 10.1.1.1\r\n", "10.2.2.2"},
    };
    struct config conf;
    struct site site;
    struct sock_addr from, got;
    char text[256], ip[SOCK_TEXT_MAX];

    UNUSED_ARG(state);
    edge_site_init(&site, &conf, "3000-demo.preview.test");
    (void)sock_parse("10.0.0.1:1", &from, NULL);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n",
                       rows[i].field);
        assert_int_equal(edge_site_request(text, &head), 0);
        request_client(&head, &conf, &from, true, &got);
        assert_string_equal(sock_print_ip(&got, ip), rows[i].want);
        request_client(&head, &conf, &from, false, &got);
        assert_string_equal(sock_print_ip(&got, ip), "10.0.0.1");
    }
}

static int once(void)
{
    struct buf out = BUF_INIT;
    int r = rewrite(L("Cookie: a=b; __Host-tunnel=c\r\nOrigin: "
                      "https://4000-demo.preview.test:8443\r\n"),
                    CONTROL_PRESERVE, true, &out);

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
        cmocka_unit_test(in_localhost_mode_the_app_sees_itself),
        cmocka_unit_test(our_credentials_never_reach_the_app),
        cmocka_unit_test(the_rest_of_the_query_stays_as_it_was),
        cmocka_unit_test(hop_by_hop_fields_are_removed_first),
        cmocka_unit_test(forwarded_fields_count_from_trusted_addresses_only),
        cmocka_unit_test(preserve_mode_changes_nothing_and_says_all),
        cmocka_unit_test(the_client_is_the_rightmost_untrusted_address),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
