/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/support/flows_scene.h"
#include "tests/support/own_network.h"
#include "tests/support/pki.h"
#include "tests/support/test.h"

#define POLICY(proxy)                                                                    \
    "{\"version\":1,\"allow\":[\"good.example:443\",\"good.example:80\","                \
    "\"inner.example:443\",{\"to\":{\"cidr\":\"198.51.100.0/24\"},\"ports\":\"443\"}],"  \
    "\"proxy\":{" proxy "}}"
#define AT_ADDRESS "\"url\":\"http://user:secret@10.1.0.3:3128\""
#define YES        "HTTP/1.1 200 Connection established\r\n\r\n"

struct scene {
    struct flows_scene s;
    int proxy; /* listens */
    struct buf hello;
};

static void open_scene(struct scene *x, const char *policy)
{
    flows_scene_open(&x->s, policy);
    flows_scene_name(&x->s, "good.example", "203.0.113.7");
    flows_scene_name(&x->s, "inner.example", "10.1.0.9");
    flows_scene_name(&x->s, "proxy.example", "10.1.0.3");
    x->proxy = flows_scene_listen("10.1.0.3:3128");
    x->hello = (struct buf)BUF_INIT;
    flows_scene_hello("good.example", 0, 999, &x->hello);
}

static void close_scene(struct scene *x)
{
    /* Whatever happened, nobody outside the guard and its proxy reads this. */
    assert_null(strstr(flows_scene_records(&x->s), "secret"));
    sock_close(&x->proxy);
    buf_done(&x->hello);
    flows_scene_close(&x->s);
}

static int send_hello(struct scene *x, const char *to)
{
    int fd = flows_scene_connect(&x->s, to);

    flows_scene_write(&x->s, fd, x->hello.p, x->hello.len);
    return fd;
}

/* Reads a head from the program's side of the proxy. */
static void read_head(struct flows_scene *s, int fd, char out[1024])
{
    struct buf b = BUF_INIT;

    while (b.len < 4 || memcmp(b.p + b.len - 4, "\r\n\r\n", 4) != 0) {
        size_t before = b.len;

        flows_scene_read(s, fd, b.len + 1, &b);
        assert_true(b.len > before && b.len < 1023);
    }
    memcpy(out, b.p, b.len);
    out[b.len] = '\0';
    buf_done(&b);
}

static void assert_hello(struct scene *x, int fd)
{
    struct buf got = BUF_INIT;

    flows_scene_read(&x->s, fd, x->hello.len, &got);
    assert_true(span_eq(buf_span(&got), buf_span(&x->hello)));
    buf_done(&got);
}

static void the_proxy_is_asked_for_the_address_that_was_checked(void **state)
{
    static const char *const policy[] = {
        POLICY(AT_ADDRESS),
        POLICY(AT_ADDRESS ",\"required\":true"),
        POLICY("\"url\":\"http://user:secret@proxy.example:3128\""),
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(policy); i++) {
        struct scene x;
        char head[1024];
        int fd, at;

        open_scene(&x, policy[i]);
        fd = send_hello(&x, "203.0.113.66:443");
        at = flows_scene_accept(&x.s, x.proxy);
        if (at < 0)
            fail_msg("records: %s", flows_scene_records(&x.s));
        read_head(&x.s, at, head);
        assert_ptr_equal(strstr(head, "CONNECT 203.0.113.7:443 HTTP/1.1\r\n"), head);
        assert_non_null(strstr(head, "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="));
        assert_true(flows_scene_is_quiet(&x.s, at)); /* nothing before the yes */
        flows_scene_say(&x.s, at, YES "early");
        assert_hello(&x, at);
        flows_scene_expect(&x.s, fd, "early");
        sock_close(&at);
        assert_string_equal(flows_scene_end(&x.s, fd), "eof");
        sock_close(&fd);
        flows_scene_recorded(&x.s, "good.example", "\"dialed\":\"203.0.113.7\"",
                             ":3128\"", NULL);
        close_scene(&x);
    }
}

static void by_name_where_the_policy_says_so(void **state)
{
    struct scene x;
    char head[1024];
    int fd, at;

    (void)state;
    open_scene(&x, POLICY(AT_ADDRESS ",\"by\":\"name\""));
    fd = send_hello(&x, "203.0.113.66:443");
    at = flows_scene_accept(&x.s, x.proxy);
    read_head(&x.s, at, head);
    assert_ptr_equal(strstr(head, "CONNECT good.example:443 HTTP/1.1\r\n"), head);
    sock_close(&fd);
    sock_close(&at);
    close_scene(&x);
}

static void plain_http_by_name_goes_without_a_tunnel(void **state)
{
    static const char ok[] = "HTTP/1.1 204 No Content\r\n\r\n";
    static const char request[] = "GET /x HTTP/1.1\r\nHost: good.example\r\n\r\n";
    struct scene x;
    char head[1024];
    int fd, at;

    (void)state;
    open_scene(&x, POLICY(AT_ADDRESS ",\"by\":\"name\""));
    fd = flows_scene_connect(&x.s, "203.0.113.66:80");
    flows_scene_say(&x.s, fd, request);
    at = flows_scene_accept(&x.s, x.proxy);
    for (int i = 0; i < 2; i++) {
        read_head(&x.s, at, head);
        assert_string_equal(head, "GET http://good.example:80/x HTTP/1.1\r\n"
                                  "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"
                                  "Host: good.example\r\n\r\n");
        flows_scene_say(&x.s, at, ok);
        flows_scene_expect(&x.s, fd, ok);
        flows_scene_say(&x.s, fd, request);
    }
    sock_close(&fd);
    sock_close(&at);
    /* An upgrade needs the tunnel; and by address there is no other way. */
    fd = flows_scene_connect(&x.s, "203.0.113.66:80");
    flows_scene_say(&x.s, fd,
                    "GET /x HTTP/1.1\r\nHost: good.example\r\nConnection: upgrade\r\n"
                    "Upgrade: websocket\r\n\r\n");
    at = flows_scene_accept(&x.s, x.proxy);
    read_head(&x.s, at, head);
    assert_ptr_equal(strstr(head, "CONNECT good.example:80 HTTP/1.1\r\n"), head);
    sock_close(&fd);
    sock_close(&at);
    flows_scene_policy(&x.s, POLICY(AT_ADDRESS));
    fd = flows_scene_connect(&x.s, "203.0.113.66:80");
    flows_scene_say(&x.s, fd, request);
    at = flows_scene_accept(&x.s, x.proxy);
    read_head(&x.s, at, head);
    assert_ptr_equal(strstr(head, "CONNECT 203.0.113.7:80 HTTP/1.1\r\n"), head);
    sock_close(&fd);
    sock_close(&at);
    close_scene(&x);
}

/* -- TLS with the proxy -------------------------------------------------------------- */

struct tls_end {
    struct conn *conn;
    struct buf got;
    bool is_secured;
};

static void tls_readable(void *owner)
{
    struct tls_end *t = owner;
    uint8_t bytes[4096];
    size_t n = 0;

    if (conn_read(t->conn, bytes, sizeof(bytes), &n) == CONN_OK)
        assert_int_equal(buf_add(&t->got, bytes, n), 0);
}

static void tls_writable(void *owner)
{
    (void)owner;
}

static void tls_secured(void *owner, const struct err *e)
{
    struct tls_end *t = owner;

    t->is_secured = e == NULL;
    conn_want(t->conn, LOOP_READ);
}

static const struct conn_ops tls_ops = {
    .readable = tls_readable,
    .writable = tls_writable,
    .secured = tls_secured,
};

static bool wait_for(struct scene *x, const struct tls_end *t, size_t n)
{
    for (int i = 0; i < 1000 && t->got.len < n; i++)
        flows_scene_turn(&x->s, 1);
    return t->got.len >= n;
}

static void talk_tls(struct scene *x, struct tls_ctx *ctx)
{
    struct tls_end t = {.is_secured = false};
    int fd = send_hello(x, "203.0.113.66:443");
    int at = flows_scene_accept(&x->s, x->proxy);
    struct err e = {0};
    size_t n = 0;

    assert_true(at >= 0);
    t.conn = conn_new(x->s.loop, &at, &tls_ops, &t, &e);
    assert_int_equal(conn_tls_accept(t.conn, ctx, &e), 0);
    if (!wait_for(x, &t, 80))
        fail_msg("records: %s", flows_scene_records(&x->s));
    assert_memory_equal(t.got.p, "CONNECT 203.0.113.7:443 HTTP/1.1\r\n", 34);
    buf_done(&t.got);
    assert_int_equal(conn_write(t.conn, YES "early", strlen(YES) + 5, &n), CONN_OK);
    flows_scene_expect(&x->s, fd, "early");
    assert_true(wait_for(x, &t, x->hello.len));
    assert_memory_equal(t.got.p, x->hello.p, x->hello.len);
    conn_close(&t.conn);
    assert_string_equal(flows_scene_end(&x->s, fd), "eof");
    sock_close(&fd);
    buf_done(&t.got);
}

static void a_proxy_may_be_spoken_tls_with_and_must_be_who_it_says(void **state)
{
    static const char *const alt[] = {"IP:10.1.0.3", "DNS:other.example"};
    struct pki pki;

    (void)state;
    pki_init(&pki, "proxies");
    for (size_t i = 0; i < COUNT_OF(alt); i++) {
        struct scene x;
        struct err e = {0};
        struct tls_cert *cert;
        struct tls_cert_slot *slot;
        struct tls_ctx *ctx;

        pki_issue(&pki, "proxy", alt[i], 1);
        cert = tls_cert_load(pki.cert_file, pki.key_file, &e);
        slot = tls_cert_slot_new(&cert);
        ctx = tls_ctx_server(slot, NULL, &e);
        open_scene(&x, POLICY("\"url\":\"https://user:secret@10.1.0.3:3128\""));
        x.s.guard.store_fd = open(pki.ca_file, O_RDONLY | O_CLOEXEC);
        if (i == 0) {
            talk_tls(&x, ctx);
        } else {
            struct tls_end t = {.is_secured = false};
            int fd = send_hello(&x, "203.0.113.66:443");
            int at = flows_scene_accept(&x.s, x.proxy);

            t.conn = conn_new(x.s.loop, &at, &tls_ops, &t, &e);
            assert_int_equal(conn_tls_accept(t.conn, ctx, &e), 0);
            assert_string_equal(flows_scene_end(&x.s, fd), "reset");
            flows_scene_recorded(&x.s, "\"end\":\"proxy\"", NULL);
            assert_int_equal(t.got.len, 0); /* no credentials either */
            conn_close(&t.conn);
            sock_close(&fd);
        }
        sock_close(&x.s.guard.store_fd);
        close_scene(&x);
        tls_ctx_free(ctx);
        tls_cert_slot_free(slot);
    }
    pki_done(&pki);
}

static void socks_is_spoken_with_the_address(void **state)
{
    struct scene x;
    struct buf got = BUF_INIT;
    int fd, at;

    (void)state;
    open_scene(&x, POLICY("\"url\":\"socks5://10.1.0.3:3128\""));
    fd = send_hello(&x, "203.0.113.66:443");
    at = flows_scene_accept(&x.s, x.proxy);
    flows_scene_read(&x.s, at, 3, &got);
    assert_memory_equal(got.p, "\x05\x01\x00", 3);
    buf_done(&got);
    flows_scene_write(&x.s, at, "\x05\x00", 2);
    flows_scene_read(&x.s, at, 10, &got);
    assert_memory_equal(got.p, "\x05\x01\x00\x01\xcb\x00\x71\x07\x01\xbb", 10);
    buf_done(&got);
    flows_scene_write(&x.s, at, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 10);
    assert_hello(&x, at);
    sock_close(&fd);
    sock_close(&at);
    close_scene(&x);
}

static void
a_private_address_behind_a_name_is_refused_before_the_proxy_hears_of_it(void **state)
{
    struct buf hello = BUF_INIT;
    struct scene x;
    int fd;

    (void)state;
    open_scene(&x, POLICY(AT_ADDRESS ",\"by\":\"name\""));
    flows_scene_hello("inner.example", 0, 999, &hello);
    fd = flows_scene_connect(&x.s, "203.0.113.66:443");
    flows_scene_write(&x.s, fd, hello.p, hello.len);
    assert_string_equal(flows_scene_end(&x.s, fd), "reset");
    flows_scene_recorded(&x.s, "refused", "inner.example", "floor", NULL);
    assert_int_equal(flows_scene_accept(&x.s, x.proxy), -1);
    sock_close(&fd);
    buf_done(&hello);
    close_scene(&x);
}

/* What a proxy may do instead of saying yes. */
static void a_proxy_that_fails_is_never_gone_around(void **state)
{
    static const char *const policy[] = {POLICY(AT_ADDRESS),
                                         POLICY(AT_ADDRESS ",\"required\":true")};
    static const char *const answer[] = {
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "garbage\n\n", ""};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(policy) * COUNT_OF(answer); i++) {
        int direct = flows_scene_listen("203.0.113.7:443"), fd, at;
        struct scene x;
        char head[1024];

        open_scene(&x, policy[i % 2]);
        fd = send_hello(&x, "203.0.113.7:443");
        at = flows_scene_accept(&x.s, x.proxy);
        read_head(&x.s, at, head);
        flows_scene_say(&x.s, at, answer[i / 2]);
        sock_close(&at);
        assert_string_equal(flows_scene_end(&x.s, fd), "reset");
        flows_scene_recorded(&x.s, "good.example", "\"end\":\"proxy\"", NULL);
        sock_close(&fd);
        fd = accept(direct, NULL, NULL);
        assert_int_equal(fd, -1);
        sock_close(&direct);
        close_scene(&x);
    }
}

static void a_proxy_that_is_gone_is_told_in_words(void **state)
{
    int direct = flows_scene_listen("203.0.113.7:80"), fd;
    struct buf got = BUF_INIT;
    struct scene x;

    (void)state;
    open_scene(&x, POLICY(AT_ADDRESS));
    sock_close(&x.proxy);
    fd = flows_scene_connect(&x.s, "203.0.113.7:80");
    flows_scene_say(&x.s, fd, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n");
    flows_scene_read(&x.s, fd, SIZE_MAX, &got);
    assert_int_equal(buf_add(&got, "", 1), 0);
    assert_non_null(strstr((const char *)got.p, "HTTP/1.1 502 "));
    assert_null(strstr((const char *)got.p, "secret"));
    sock_close(&fd);
    fd = accept(direct, NULL, NULL);
    assert_int_equal(fd, -1);
    sock_close(&direct);
    buf_done(&got);
    close_scene(&x);
}

static void no_proxy_goes_direct_unless_a_proxy_is_required(void **state)
{
    static const struct {
        const char *policy;
        bool is_direct;
    } way[] = {
        {POLICY(AT_ADDRESS ",\"no_proxy\":\"good.example\""), true},
        {POLICY(AT_ADDRESS ",\"no_proxy\":\"203.0.113.0/24\""), true},
        {POLICY(AT_ADDRESS ",\"no_proxy\":\".example:443\""), true},
        {POLICY(AT_ADDRESS ",\"no_proxy\":\".example:444,198.51.100.0/24\""), false},
        {POLICY(AT_ADDRESS ",\"no_proxy\":\"good.example\",\"required\":true"), false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(way); i++) {
        int direct = flows_scene_listen("203.0.113.7:443"), fd, at;
        struct scene x;

        open_scene(&x, way[i].policy);
        fd = send_hello(&x, "203.0.113.7:443");
        at = flows_scene_accept(&x.s, way[i].is_direct ? direct : x.proxy);
        if (at < 0)
            fail_msg("row %zu", i);
        sock_close(&at);
        at = accept(way[i].is_direct ? x.proxy : direct, NULL, NULL);
        assert_int_equal(at, -1);
        sock_close(&fd);
        sock_close(&direct);
        close_scene(&x);
    }
}

static void a_proxy_that_becomes_required_cuts_what_goes_direct(void **state)
{
    int direct = flows_scene_listen("203.0.113.7:443"), fd, out;
    struct scene x;

    (void)state;
    open_scene(&x, POLICY(AT_ADDRESS ",\"no_proxy\":\"good.example\""));
    fd = send_hello(&x, "203.0.113.7:443");
    out = flows_scene_accept(&x.s, direct);
    assert_hello(&x, out);
    flows_scene_policy(&x.s, POLICY(AT_ADDRESS ",\"no_proxy\":\"good.example\""));
    flows_scene_say(&x.s, out, "still");
    flows_scene_expect(&x.s, fd, "still");
    flows_scene_policy(&x.s, POLICY(AT_ADDRESS ",\"required\":true"));
    assert_string_equal(flows_scene_end(&x.s, fd), "reset");
    assert_string_equal(flows_scene_end(&x.s, out), "reset");
    sock_close(&fd);
    sock_close(&out);
    sock_close(&direct);
    close_scene(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_proxy_is_asked_for_the_address_that_was_checked),
        cmocka_unit_test(by_name_where_the_policy_says_so),
        cmocka_unit_test(plain_http_by_name_goes_without_a_tunnel),
        cmocka_unit_test(a_proxy_may_be_spoken_tls_with_and_must_be_who_it_says),
        cmocka_unit_test(socks_is_spoken_with_the_address),
        cmocka_unit_test(
            a_private_address_behind_a_name_is_refused_before_the_proxy_hears_of_it),
        cmocka_unit_test(a_proxy_that_fails_is_never_gone_around),
        cmocka_unit_test(a_proxy_that_is_gone_is_told_in_words),
        cmocka_unit_test(a_proxy_that_becomes_required_cuts_what_goes_direct),
        cmocka_unit_test(no_proxy_goes_direct_unless_a_proxy_is_required),
    };

    if (!own_network_enter())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
