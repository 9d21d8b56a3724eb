/* SPDX-License-Identifier: MIT */
#include "agentd/link/dial.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/ws.h"
#include "tests/support/child.h"
#include "tests/support/lws_peer.h"
#include "tests/support/test.h"

static struct child_certs certs;

/* One dial, run to its end. */
struct outcome {
    struct loop *loop;
    bool is_open;
    unsigned passed; /* bit per stage */
    struct dial_failure why;
    struct buf unread;
};

static void on_passed(void *owner, enum dial_stage stage, const char *finding)
{
    struct outcome *o = owner;

    assert_true(strlen(finding) > 0);
    assert_null(strstr(finding, "SECRET"));
    o->passed |= 1u << stage;
}

static void on_opened(void *owner, struct conn **take_conn)
{
    struct outcome *o = owner;
    uint8_t bytes[4096];
    size_t n = 0;

    o->is_open = true;
    if (conn_read(*take_conn, bytes, sizeof(bytes), &n) == CONN_OK)
        assert_int_equal(buf_add(&o->unread, bytes, n), 0);
    conn_close(take_conn);
    loop_stop(o->loop);
}

static void on_failed(void *owner, const struct dial_failure *why)
{
    struct outcome *o = owner;

    o->why = *why;
    assert_true(why->err.code != ERR_NONE);
    assert_null(strstr(why->err.msg, "SECRET"));
    assert_null(strstr(why->err.msg, "good.token"));
    loop_stop(o->loop);
}

static const struct dial_ops ops = {
    .passed = on_passed, .opened = on_opened, .failed = on_failed};

struct attempt {
    const char *server, *proxy, *ca_file, *token;
};

static struct outcome dial(const struct attempt *a)
{
    struct outcome o = {0};
    struct dialer_conf dc = {.ca_file = a->ca_file, .proxy = a->proxy};
    struct server_url server;
    struct dial_conf conf = {.server = &server, .id = "demo"};
    struct err e = {0};

    conf.token = span_str(a->token ? a->token : LWS_PEER_TOKEN);
    o.loop = loop_new(&e);
    assert_non_null(o.loop);
    if (server_url_parse(a->server, &server, &e) < 0)
        fail_msg("%s", e.msg);
    conf.dialer = dialer_new(o.loop, &dc, &e);
    if (!conf.dialer)
        fail_msg("%s", e.msg);
    assert_non_null(dial_start(&conf, &ops, &o, &e));
    loop_run(o.loop);
    dialer_free(conf.dialer);
    loop_free(o.loop);
    o.loop = NULL;
    return o;
}

/* Good for the next seven calls. */
static const char *url(const char *before_port, uint16_t port)
{
    static char text[8][600];
    static unsigned i;

    i = (i + 1) % 8;
    (void)snprintf(text[i], sizeof(text[i]), "%s%u", before_port, port);
    return text[i];
}

static void expect_failure(const struct outcome *o, enum dial_stage stage,
                           const char *words)
{
    if (o->is_open)
        fail_msg("opened; wanted: %s", words);
    if (o->why.stage != stage || !strstr(o->why.err.msg, words))
        fail_msg("stage %s: %s; wanted: %s", dial_stage_name(o->why.stage),
                 o->why.err.msg, words);
}

/* -- against libwebsockets ------------------------------------------------------------------ */

static void a_tls_server_takes_the_link(void **state)
{
    struct child peer;
    struct outcome o;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca});
    if (!o.is_open)
        fail_msg("%s: %s", dial_stage_name(o.why.stage), o.why.err.msg);
    assert_int_equal(o.passed, 1u << DIAL_NAME | 1u << DIAL_CONNECT | 1u << DIAL_TLS |
                                   1u << DIAL_UPGRADE | 1u << DIAL_TOKEN);

    /* another token is refused, as such */
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .token = "SECRET.other"});
    expect_failure(&o, DIAL_TOKEN, "refused the token (401");
    assert_true(o.why.is_refused);
    assert_int_equal(o.why.err.code, ERR_DENIED);

    /* a CA that nobody trusts here is named */
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port)});
    expect_failure(&o, DIAL_TLS, "Test CA");

    /* a certificate for another name */
    o = dial(&(struct attempt){.server = url("https://other.localhost:", peer.port),
                               .ca_file = certs.ca});
    expect_failure(&o, DIAL_TLS, "0-demo.other.localhost");
    child_stop(&peer);
}

static void a_plain_server_on_localhost_takes_the_link(void **state)
{
    struct child peer;
    struct outcome o;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    o = dial(&(struct attempt){.server = url("http://preview.localhost:", peer.port)});
    assert_true(o.is_open);
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port)});
    expect_failure(&o, DIAL_TLS, "");
    child_stop(&peer);
}

static void nobody_there_is_a_failure_to_connect(void **state)
{
    struct outcome o = dial(&(struct attempt){
        .server = url("https://preview.localhost:", child_free_port())});

    (void)state;
    expect_failure(&o, DIAL_CONNECT, "connect ");
    assert_int_equal(o.passed, 1u << DIAL_NAME);
}

static void a_token_with_a_line_break_is_never_sent(void **state)
{
    struct child peer;
    struct outcome o;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    o = dial(&(struct attempt){.server = url("http://preview.localhost:", peer.port),
                               .token = "SECRET\r\nX: y"});
    expect_failure(&o, DIAL_TOKEN, "a byte that no token has");
    assert_false(o.why.is_refused);
    child_stop(&peer);
}

/* -- against answers that a test writes ------------------------------------------------------- */

/* In the child: "%K" in the text becomes the accept key of the request. */
static void answer_upgrade(int fd, const void *arg)
{
    const char *text = arg, *mark = strstr(text, "%K"), *key;
    char head[4096], accept[29];

    if (child_read_head(fd, head, sizeof(head)) < 0)
        return;
    if (strncmp(head, "GET /.tunnel/v1/link HTTP/1.1\r\n", 31) != 0 ||
        !strstr(head, "\r\nHost: 0-demo.preview.localhost:"))
        return;
    key = strstr(head, "Sec-WebSocket-Key: ");
    if (!key)
        return;
    ws_accept_key(span_of(key + 19, 24), accept);
    if (mark) {
        child_write_slowly(fd, text, (int)(mark - text));
        child_write(fd, accept, 28);
        child_write(fd, mark + 2, (int)strlen(mark + 2));
    } else {
        child_write_slowly(fd, text, (int)strlen(text));
    }
    (void)child_read(fd, head, 1); /* until the agent goes */
}

#define SWITCH "HTTP/1.1 101 Switching Protocols\r\n"
#define WS     "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
#define KEY    "Sec-WebSocket-Accept: %K\r\n"
#define V1     "Sec-WebSocket-Protocol: tunnel.v1\r\n"

static const struct {
    const char *answer;
    enum dial_stage stage;
    const char *words; /* NULL: it opens */
    uint32_t retry_after_ms;
} upgrade[] = {
    {SWITCH WS KEY V1 "\r\n\x81\x02hi", DIAL_UPGRADE, NULL, 0},
    {SWITCH WS V1 "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
     DIAL_UPGRADE, "wrong Sec-WebSocket-Accept", 0},
    {SWITCH WS V1 "\r\n", DIAL_UPGRADE, "wrong Sec-WebSocket-Accept", 0},
    {SWITCH WS KEY "\r\n", DIAL_UPGRADE, "does not speak tunnel.v1", 0},
    {SWITCH WS KEY "Sec-WebSocket-Protocol: tunnel.v2\r\n\r\n", DIAL_UPGRADE,
     "does not speak tunnel.v1", 0},
    {SWITCH WS KEY V1 "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
     DIAL_UPGRADE, "extension", 0},
    {SWITCH KEY V1 "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", DIAL_UPGRADE,
     "no WebSocket", 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", DIAL_UPGRADE, "200 instead of 101",
     0},
    {"HTTP/1.1 403 Forbidden\r\nTunnel-Error: forbidden\r\n\r\n", DIAL_TOKEN,
     "refused the token (403: forbidden)", 0},
    {"HTTP/1.1 429 x\r\nRetry-After: 7\r\n\r\n", DIAL_UPGRADE, "fewer attempts", 7000},
    {"HTTP/1.1 503 x\r\nRetry-After: 99999999999999999999\r\n\r\n", DIAL_UPGRADE,
     "cannot take the link now (503)", RETRY_AFTER_MAX_MS},
    {"HTTP/1.1 503 x\r\nRetry-After: -1\r\nTunnel-Error: \x1b[31m\r\n\r\n", DIAL_UPGRADE,
     "", 0},
    {"HTTP/1.1 502 x\r\nTunnel-Error: <b>\r\n\r\n", DIAL_UPGRADE, "now (502)", 0},
    {"SSH-2.0-x\r\n\r\n", DIAL_UPGRADE, "not HTTP", 0},
    {"HTTP/1.1 101 x\n\n", DIAL_UPGRADE, "not HTTP", 0},
};

static void only_the_right_answer_opens_the_link(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(upgrade); i++) {
        struct child server;
        struct outcome o;

        child_tcp(&server, answer_upgrade, upgrade[i].answer);
        o = dial(
            &(struct attempt){.server = url("http://preview.localhost:", server.port)});
        child_stop(&server);
        if (upgrade[i].words) {
            expect_failure(&o, upgrade[i].stage, upgrade[i].words);
            assert_int_equal(o.why.retry_after_ms, upgrade[i].retry_after_ms);
        } else if (!o.is_open) {
            fail_msg("row %zu: %s", i, o.why.err.msg);
        } else {
            assert_true(o.unread.len == 0 ||
                        span_eq(buf_span(&o.unread), span_of("\x81\x02hi", 4)));
        }
        buf_done(&o.unread);
    }
}

static void hang_up(int fd, const void *arg)
{
    char head[4096];

    (void)arg;
    (void)child_read_head(fd, head, sizeof(head));
}

static void a_server_that_hangs_up_is_told_as_such(void **state)
{
    struct child server;
    struct outcome o;

    (void)state;
    child_tcp(&server, hang_up, NULL);
    o = dial(&(struct attempt){.server = url("http://preview.localhost:", server.port)});
    expect_failure(&o, DIAL_UPGRADE, "closed the connection");
    child_stop(&server);
}

/* -- proxies that a test writes ----------------------------------------------------------------- */

static void say_slowly(int fd, const void *arg)
{
    char head[8192];

    if (child_read_head(fd, head, sizeof(head)) < 0)
        return;
    child_write_slowly(fd, arg, (int)strlen(arg));
    (void)child_read(fd, head, 1);
}

static void a_proxy_that_fails_is_the_error_and_nothing_goes_around_it(void **state)
{
    struct child peer, proxy;
    struct outcome o;
    const char *server;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    server = url("https://preview.localhost:", peer.port);

    child_tcp(&proxy, say_slowly, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    o = dial(&(struct attempt){.server = server,
                               .ca_file = certs.ca,
                               .proxy = url("http://u:SECRET@127.0.0.1:", proxy.port)});
    expect_failure(&o, DIAL_PROXY, "refused the credentials (407)");
    assert_int_equal(o.why.err.code, ERR_DENIED);
    assert_int_equal(o.passed, 0);
    child_stop(&proxy);

    /* bytes of another before the server can have spoken */
    child_tcp(&proxy, say_slowly, "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 injected\r\n\r\n");
    o = dial(&(struct attempt){.server = server,
                               .ca_file = certs.ca,
                               .proxy = url("http://127.0.0.1:", proxy.port)});
    expect_failure(&o, DIAL_TLS, "");
    child_stop(&proxy);

    child_tcp(&proxy, hang_up, NULL);
    o = dial(&(struct attempt){.server = server,
                               .ca_file = certs.ca,
                               .proxy = url("http://127.0.0.1:", proxy.port)});
    expect_failure(&o, DIAL_PROXY, "proxy closed the connection");
    child_stop(&proxy);

    o = dial(&(struct attempt){.server = server,
                               .ca_file = certs.ca,
                               .proxy = url("http://127.0.0.1:", child_free_port())});
    expect_failure(&o, DIAL_PROXY, "connect");

    setenv("HTTPS_PROXY", "socks9://u:SECRET@x", 1);
    setenv("NO_PROXY", "", 1);
    o = dial(&(struct attempt){.server = "https://preview.example.com", .proxy = "env"});
    unsetenv("HTTPS_PROXY");
    expect_failure(&o, DIAL_PROXY, "HTTPS_PROXY: ");
    child_stop(&peer);
}

static void a_dial_may_be_cancelled_at_every_stage(void **state)
{
    struct child peer;
    unsigned turns;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    for (turns = 0; turns < 6; turns++) {
        struct outcome o = {0};
        struct dialer_conf dc = {.ca_file = certs.ca};
        struct server_url server;
        struct dial_conf conf = {
            .server = &server, .id = "demo", .token = span_str(LWS_PEER_TOKEN)};
        struct dial *d;
        struct loop_timer t;
        struct err e = {0};

        o.loop = loop_new(&e);
        assert_int_equal(
            server_url_parse(url("https://preview.localhost:", peer.port), &server, &e),
            0);
        conf.dialer = dialer_new(o.loop, &dc, &e);
        assert_non_null(conf.dialer);
        d = dial_start(&conf, &ops, &o, &e);
        loop_timer_init(&t, o.loop, (loop_timer_fn *)loop_stop, o.loop);
        loop_timer_start(&t, turns);
        loop_run(o.loop);
        if (!o.is_open)
            dial_cancel(&d);
        loop_timer_stop(&t);
        dialer_free(conf.dialer);
        loop_free(o.loop);
        buf_done(&o.unread);
    }
    child_stop(&peer);
}

/* -- real proxies ----------------------------------------------------------------------------------- */

static const char *password_200(void)
{
    static char text[201];

    memset(text, 'p', 200);
    memcpy(text, "SECRET", 6);
    return text;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* squid with Basic authentication by a helper of its own package, or by /bin/sh. */
static bool start_squid(struct child *c, const char *password)
{
    char name[24], conf[256], script[256], text[2048];
    const char *argv[] = {"/usr/sbin/squid", "-N", "-n", name, "-f", conf, NULL};

    /* Its shared memory bears this name: another user's squid may be here too. */
    (void)snprintf(name, sizeof(name), "t%ld", (long)getpid());
    (void)snprintf(conf, sizeof(conf), "%s/squid.conf", certs.dir);
    (void)snprintf(script, sizeof(script), "%s/auth.sh", certs.dir);
    (void)snprintf(
        text, sizeof(text),
        "#!/bin/sh\nwhile read -r line; do\n"
        "if [ \"$line\" = 'user %s' ]; then echo OK; else echo ERR; fi\ndone\n",
        password);
    write_file(script, text);
    assert_int_equal(chmod(script, 0755), 0);
    assert_int_equal(chmod(certs.dir, 0755), 0);
    c->port = child_free_port();
    (void)snprintf(text, sizeof(text),
                   "http_port 127.0.0.1:%u\npid_filename none\ncache deny all\n"
                   "access_log none\ncache_log /dev/null\nshutdown_lifetime 0 seconds\n"
                   "auth_param basic program /bin/sh %s\nauth_param basic children 1\n"
                   "acl ok proxy_auth REQUIRED\nhttp_access allow ok\n"
                   "http_access deny all\nhosts_file %s/hosts\n",
                   c->port, script, certs.dir);
    write_file(conf, text);
    (void)snprintf(script, sizeof(script), "%s/hosts", certs.dir);
    write_file(script, "127.0.0.1 0-demo.preview.localhost\n");
    return child_program(c, argv);
}

static void squid_with_basic_credentials_of_200_characters(void **state)
{
    struct child peer, squid = {0};
    struct outcome o;
    char form[300];

    (void)state;
    if (!start_squid(&squid, password_200())) {
        print_message("left out: squid is not installed\n");
        skip();
    }
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    (void)snprintf(form, sizeof(form), "http://user:%s@127.0.0.1:", password_200());
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .proxy = url(form, squid.port)});
    if (!o.is_open)
        fail_msg("%s: %s", dial_stage_name(o.why.stage), o.why.err.msg);
    assert_int_equal(o.passed & 1u << DIAL_PROXY, 1u << DIAL_PROXY);
    assert_int_equal(o.passed & 1u << DIAL_CONNECT, 0);

    o = dial(&(struct attempt){
        .server = url("https://preview.localhost:", peer.port),
        .ca_file = certs.ca,
        .proxy = url("http://user:SECRETwrong@127.0.0.1:", squid.port)});
    expect_failure(&o, DIAL_PROXY, "refused the credentials (407)");
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .proxy = url("http://127.0.0.1:", squid.port)});
    expect_failure(&o, DIAL_PROXY, "wants credentials (407)");
    child_stop(&peer);
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .proxy = url(form, squid.port)});
    expect_failure(&o, DIAL_PROXY, "could not connect to 0-demo.preview.localhost:");
    child_end(&squid);
}

static void socks_takes_the_link(const char *credentials, uint16_t port)
{
    struct child peer;
    struct outcome o;
    char proxy[64];

    (void)snprintf(proxy, sizeof(proxy), "socks5://%s127.0.0.1:", credentials);
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    /* the peer listens on IPv4; the proxy is asked for ::1 first, then for 127.0.0.1 */
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .proxy = url(proxy, port)});
    if (!o.is_open)
        fail_msg("%s: %s", dial_stage_name(o.why.stage), o.why.err.msg);
    assert_int_equal(o.passed & 1u << DIAL_PROXY, 1u << DIAL_PROXY);
    child_stop(&peer);
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .proxy = url(proxy, port)});
    assert_int_equal(o.why.stage, DIAL_PROXY);
}

/* In the child: a SOCKS5 proxy that wants a name, and knows where it is: at *arg. */
static void socks_by_name(int fd, const void *arg)
{
    const struct sockaddr_in *to = arg;
    static const char want[] = "\x05\x01\x00\x05\x01\x00\x03\x18"
                               "0-demo.preview.localhost";
    char got[sizeof(want) - 1 + 2], bytes[4096];
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.events = POLLIN}};
    ssize_t n;
    int i;

    if (!child_read(fd, got, 3))
        return;
    child_write_slowly(fd, "\x05\x00", 2);
    if (!child_read(fd, got + 3, (int)sizeof(got) - 3) ||
        memcmp(got, want, sizeof(want) - 1) != 0)
        return;
    p[1].fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(p[1].fd, (const struct sockaddr *)to, sizeof(*to)) == 0) {
        child_write_slowly(fd, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 10);
        while (poll(p, 2, -1) > 0) {
            i = p[0].revents ? 0 : 1;
            n = read(p[i].fd, bytes, sizeof(bytes));
            if (n <= 0)
                break;
            child_write(p[1 - i].fd, bytes, (int)n);
        }
    }
    close(p[1].fd);
}

static void socks5h_gives_the_proxy_the_name(void **state)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct child peer, proxy;
    struct outcome o;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    to.sin_port = htons(peer.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    child_tcp(&proxy, socks_by_name, &to);
    o = dial(&(struct attempt){.server = url("https://preview.localhost:", peer.port),
                               .ca_file = certs.ca,
                               .proxy = url("socks5h://127.0.0.1:", proxy.port)});
    if (!o.is_open)
        fail_msg("%s: %s", dial_stage_name(o.why.stage), o.why.err.msg);
    assert_int_equal(o.passed & 1u << DIAL_NAME, 0);
    child_stop(&proxy);
    child_stop(&peer);
}

static void microsocks_with_and_without_credentials(void **state)
{
    struct child proxy = {0};
    struct outcome o;
    char port[8];
    const char *bare[] = {"/usr/bin/microsocks", "-i", "127.0.0.1", "-p", port, NULL};
    const char *auth[] = {"/usr/bin/microsocks",
                          "-i",
                          "127.0.0.1",
                          "-p",
                          port,
                          "-u",
                          "user",
                          "-P",
                          "SECRET",
                          NULL};

    (void)state;
    proxy.port = child_free_port();
    (void)snprintf(port, sizeof(port), "%u", proxy.port);
    if (!child_program(&proxy, bare)) {
        print_message("left out: microsocks is not installed\n");
        skip();
    }
    socks_takes_the_link("", proxy.port);
    child_stop(&proxy);

    proxy.port = child_free_port();
    (void)snprintf(port, sizeof(port), "%u", proxy.port);
    assert_true(child_program(&proxy, auth));
    socks_takes_the_link("user:SECRET@", proxy.port);
    o = dial(
        &(struct attempt){.server = "https://preview.localhost",
                          .proxy = url("socks5://user:SECRETx@127.0.0.1:", proxy.port)});
    expect_failure(&o, DIAL_PROXY, "refused the credentials");
    o = dial(&(struct attempt){.server = "https://preview.localhost",
                               .proxy = url("socks5://127.0.0.1:", proxy.port)});
    expect_failure(&o, DIAL_PROXY, "wants credentials");
    child_stop(&proxy);
}

static void danted_takes_the_link_and_names_its_refusals(void **state)
{
    struct child proxy = {0};
    struct outcome o;
    char conf[256], text[1024];
    const char *argv[] = {"/usr/sbin/danted", "-f", conf, NULL};

    (void)state;
    if (getuid() != 0) {
        print_message("left out: danted without root\n");
        skip();
    }
    proxy.port = child_free_port();
    (void)snprintf(conf, sizeof(conf), "%s/danted.conf", certs.dir);
    (void)snprintf(text, sizeof(text),
                   "logoutput: /dev/null\ninternal: 127.0.0.1 port = %u\n"
                   "external: 127.0.0.1\nsocksmethod: none\nclientmethod: none\n"
                   "user.privileged: root\nuser.unprivileged: nobody\n"
                   "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
                   "socks block { from: 0.0.0.0/0 to: 127.0.0.0/8 port = 9 }\n"
                   "socks pass { from: 127.0.0.0/8 to: 127.0.0.0/8 }\n",
                   proxy.port);
    write_file(conf, text);
    if (!child_program(&proxy, argv)) {
        print_message("left out: danted is not installed\n");
        skip();
    }
    o = dial(&(struct attempt){.server = "https://preview.localhost:9",
                               .proxy = url("socks5://127.0.0.1:", proxy.port)});
    assert_int_equal(o.why.stage, DIAL_PROXY);
    assert_non_null(strstr(o.why.err.msg, "SOCKS5 reply"));
    socks_takes_the_link("", proxy.port);
    child_stop(&proxy);
}

static int setup(void **state)
{
    (void)state;
    unsetenv("HTTPS_PROXY");
    unsetenv("https_proxy");
    unsetenv("ALL_PROXY");
    unsetenv("all_proxy");
    child_certs_make(&certs);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    child_remove_dir(certs.dir);
    return mem_live() ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tls_server_takes_the_link),
        cmocka_unit_test(a_plain_server_on_localhost_takes_the_link),
        cmocka_unit_test(nobody_there_is_a_failure_to_connect),
        cmocka_unit_test(a_token_with_a_line_break_is_never_sent),
        cmocka_unit_test(only_the_right_answer_opens_the_link),
        cmocka_unit_test(a_server_that_hangs_up_is_told_as_such),
        cmocka_unit_test(a_proxy_that_fails_is_the_error_and_nothing_goes_around_it),
        cmocka_unit_test(a_dial_may_be_cancelled_at_every_stage),
        cmocka_unit_test(squid_with_basic_credentials_of_200_characters),
        cmocka_unit_test(socks5h_gives_the_proxy_the_name),
        cmocka_unit_test(microsocks_with_and_without_credentials),
        cmocka_unit_test(danted_takes_the_link_and_names_its_refusals),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
