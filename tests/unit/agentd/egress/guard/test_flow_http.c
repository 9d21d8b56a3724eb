/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow.h"

#include <string.h>
#include <sys/socket.h>

#include "tests/support/flows_scene.h"
#include "tests/support/own_network.h"
#include "tests/support/test.h"

#define POLICY                                                                           \
    "{\"version\":1,\"name\":\"office\",\"allow\":[\"good.example:80,8080\","            \
    "\"two.example:80\",\"198.51.100.0/24:80\",\"gone.example:80\"],"                    \
    "\"deny\":[{\"to\":{\"domain\":\"bad.example\"},\"ports\":\"80\","                   \
    "\"reason\":\"ask the network team\"}],\"protocols\":{\"8080\":\"http\"}}"

#define GET(host) "GET / HTTP/1.1\r\nHost: " host "\r\n\r\n"
#define OK        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

static void open_scene(struct flows_scene *s)
{
    flows_scene_open(s, POLICY);
    flows_scene_name(s, "good.example", "203.0.113.7");
    flows_scene_name(s, "two.example", "203.0.113.7");
}

/* A program that talks to a server through the guard. */
struct talk {
    struct flows_scene s;
    const char *to; /* what the program means */
    int listener;   /* the server's */
    int fd, out;    /* the program's end, and the server's; -1: none */
};

static void talk_connect(struct talk *t)
{
    sock_close(&t->fd);
    sock_close(&t->out);
    t->fd = flows_scene_connect(&t->s, t->to);
}

/* In a scene that is open; @at is where the server listens. */
static void talk_start(struct talk *t, const char *to, const char *at)
{
    t->to = to;
    t->listener = flows_scene_listen(at);
    t->fd = t->out = -1;
    talk_connect(t);
}

static void talk_open(struct talk *t, const char *to, const char *at)
{
    open_scene(&t->s);
    talk_start(t, to, at);
}

/* The program says it, and the server hears it as `heard`. */
static void talk_pass_as(struct talk *t, const char *request, const char *heard)
{
    flows_scene_say(&t->s, t->fd, request);
    if (t->out < 0)
        t->out = flows_scene_accept(&t->s, t->listener);
    flows_scene_expect(&t->s, t->out, heard);
}

static void talk_pass(struct talk *t, const char *request)
{
    talk_pass_as(t, request, request);
}

/* The server says it, and the program hears it. */
static void talk_reply(struct talk *t, const char *text)
{
    flows_scene_say(&t->s, t->out, text);
    flows_scene_expect(&t->s, t->fd, text);
}

static void talk_close(struct talk *t)
{
    sock_close(&t->fd);
    sock_close(&t->out);
    flows_scene_close(&t->s);
    sock_close(&t->listener);
}

/* Everything until the end, which must be in order. */
static void read_all(struct flows_scene *s, int fd, struct buf *ret)
{
    char more;

    flows_scene_read(s, fd, SIZE_MAX, ret);
    assert_int_equal(recv(fd, &more, 1, MSG_PEEK), 0);
    assert_int_equal(buf_add(ret, "", 1), 0);
}

/* What a program hears, until the end, that connects to 203.0.113.7:80 and says this, and
 * then `n` pieces of a body. */
static void ask_with_body(struct flows_scene *s, const char *request, int n,
                          struct buf *ret)
{
    static const uint8_t body[30000];
    int fd = flows_scene_connect(s, "203.0.113.7:80");

    flows_scene_say(s, fd, request);
    for (int i = 0; i < n; i++)
        flows_scene_write(s, fd, body, sizeof body);
    ret->len = 0;
    read_all(s, fd, ret);
    sock_close(&fd);
}

static void ask(struct flows_scene *s, const char *request, struct buf *ret)
{
    ask_with_body(s, request, 0, ret);
}

static void assert_has(const struct buf *b, const char *text)
{
    if (!strstr((const char *)b->p, text))
        fail_msg("no <%s> in <%s>", text, (const char *)b->p);
}

static void requests_of_one_host_pass_on_one_connection(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, "203.0.113.66:80", "203.0.113.7:80"); /* where the name is, it goes */
    talk_pass_as(&t, "GET / HTTP/1.1\r\nHOST: Good.Example\r\nA:b\r\n\r\n",
                 "GET / HTTP/1.1\r\nHost: good.example\r\nA: b\r\n\r\n");
    talk_reply(&t, OK);
    flows_scene_say(&t.s, t.fd, "POST /2 HTTP/1.1\r\nHost: good.example:80\r\n");
    talk_pass_as(&t, "Content-Length: 4\r\n\r\nab",
                 "POST /2 HTTP/1.1\r\nHost: good.example:80\r\n"
                 "Content-Length: 4\r\n\r\nab");
    talk_pass(&t, "cd" GET("good.example"));
    flows_scene_say(&t.s, t.out, OK OK);
    sock_close(&t.out);
    flows_scene_expect(&t.s, t.fd, OK OK);
    assert_string_equal(flows_scene_end(&t.s, t.fd), "eof");
    sock_close(&t.fd);
    flows_scene_recorded(&t.s, "\"connection\"", "good.example", "\"http\"", "closed",
                         NULL);
    talk_close(&t);
}

static void a_refusal_is_said_in_words_that_arrive(void **state)
{
    static const char *const request[] = {
        GET("evil.example"),
        "POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 900000\r\n\r\n",
    };
    struct buf b = BUF_INIT;
    struct flows_scene s;

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(request); i++) {
        ask_with_body(&s, request[i], i == 1 ? 30 : 0, &b);
        assert_has(&b, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain");
        assert_has(&b, "\r\nConnection: close\r\n");
        assert_has(&b, "\r\nEgress-Verdict: denied\r\n");
        assert_has(&b, "evil.example:80");
        assert_has(&b, "no rule names evil.example");
        assert_has(&b, "not an outage");
        assert_has(&b, "Do not retry");
        assert_has(&b, "agentd egress explain --policy FILE evil.example:80");
    }
    flows_scene_recorded(&s, "\"refused\"", "evil.example", "\"http\"", NULL);
    flows_scene_close(&s);
    buf_done(&b);
}

static void the_rule_and_its_reason_are_told(void **state)
{
    struct buf b = BUF_INIT;
    struct flows_scene s;

    (void)state;
    open_scene(&s);
    ask(&s, "HEAD / HTTP/1.1\r\nHost: bad.example\r\n\r\n", &b);
    assert_has(&b, "403");
    assert_null(strstr((const char *)b.p, "Refused")); /* HEAD has no body */
    ask(&s, GET("bad.example"), &b);
    assert_has(&b, "deny rule 1");
    assert_has(&b, "ask the network team");
    assert_has(&b, "office");
    flows_scene_close(&s);
    buf_done(&b);
}

static void another_host_later_is_misdirected_even_when_allowed(void **state)
{
    struct buf b = BUF_INIT;
    struct talk t;

    (void)state;
    talk_open(&t, "203.0.113.7:80", "203.0.113.7:80");
    talk_pass_as(&t, GET("good.example") GET("two.example"), GET("good.example"));
    assert_true(flows_scene_is_quiet(&t.s, t.out));
    assert_true(flows_scene_is_quiet(&t.s, t.fd)); /* the first answer comes first */
    flows_scene_say(&t.s, t.out, OK);
    read_all(&t.s, t.fd, &b);
    assert_memory_equal(b.p, OK "HTTP/1.1 421 ", strlen(OK) + 13);
    assert_has(&b, "good.example");
    assert_has(&b, "Egress-Verdict: denied");
    assert_string_equal(flows_scene_end(&t.s, t.out), "reset");
    sock_close(&t.fd);
    sock_close(&t.out);
    flows_scene_recorded(&t.s, "\"refused\"", "two.example", "another Host", NULL);
    flows_scene_recorded(&t.s, "\"connection\"", "good.example", NULL);
    talk_close(&t);
    buf_done(&b);
}

static void a_mode_that_only_watches_changes_no_request(void **state)
{
    struct talk t;

    (void)state;
    flows_scene_open(&t.s,
                     "{\"version\":1,\"mode\":\"audit\",\"allow\":[\"x.example\"]}");
    talk_start(&t, "203.0.113.7:80", "203.0.113.7:80");
    talk_pass(&t, GET("good.example:81") GET("two.example"));
    talk_connect(&t);
    talk_pass(&t, "no http\r\n");
    talk_close(&t);
}

static void another_port_in_host_later_is_misdirected(void **state)
{
    struct buf b = BUF_INIT;
    struct talk t;

    (void)state;
    talk_open(&t, "203.0.113.7:80", "203.0.113.7:80");
    talk_pass(&t, GET("good.example"));
    talk_reply(&t, OK);
    flows_scene_say(&t.s, t.fd, GET("good.example:8080"));
    read_all(&t.s, t.fd, &b);
    assert_has(&b, "HTTP/1.1 421 ");
    talk_close(&t);
    buf_done(&b);
}

static void bytes_that_are_no_request_get_400_and_go_nowhere(void **state)
{
    static const char *const bad[] = {
        "GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n",
        "CONNECT good.example:80 HTTP/1.1\r\nHost: good.example:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: good.example\r\nX: a\nHost: evil.example\r\n\r\n",
        "\x16\x03\x01\x02\x03\x01",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "hello\r\n",
    };
    struct buf b = BUF_INIT;
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80");

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        ask(&s, bad[i], &b);
        assert_has(&b, "HTTP/1.1 400 Bad Request");
        assert_has(&b, "Egress-Verdict: denied");
    }
    assert_int_equal(flows_scene_accept(&s, listener), -1);
    flows_scene_close(&s);
    sock_close(&listener);
    buf_done(&b);
}

static void hosts_that_do_not_fit_the_connection_are_refused(void **state)
{
    static const char *const request[] = {
        GET("good.example:8080"), GET("203.0.113.9"),   GET("203.0.113.7"),
        GET("198.51.100.9"),      GET("-good.example"), "GET / HTTP/1.0\r\n\r\n",
    };
    struct buf b = BUF_INIT;
    struct flows_scene s;

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(request); i++) {
        ask(&s, request[i], &b);
        assert_has(&b, "HTTP/1.1 403 ");
    }
    flows_scene_close(&s);
    buf_done(&b);
}

static void a_rule_for_the_network_lets_any_host_and_none_pass(void **state)
{
    static const char *const request[] = {GET("198.51.100.9"), GET("any.example"),
                                          "GET / HTTP/1.0\r\nConnection: close\r\n\r\n"};
    struct talk t;

    (void)state;
    talk_open(&t, "198.51.100.9:80", "198.51.100.9:80");
    for (size_t i = 0; i < COUNT_OF(request); i++) {
        if (i > 0)
            talk_connect(&t);
        talk_pass(&t, request[i]);
    }
    talk_close(&t);
}

static void what_cannot_be_reached_is_told_as_no_refusal(void **state)
{
    static const struct {
        const char *request, *why;
    } way[] = {
        {GET("gone.example"), "NXDOMAIN"},
        {GET("good.example"), "Connection refused"},
    };
    struct buf b = BUF_INIT;
    struct flows_scene s;

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(way); i++) {
        ask(&s, way[i].request, &b);
        assert_has(&b, "HTTP/1.1 502 Bad Gateway");
        assert_has(&b, "Egress-Verdict: allowed");
        assert_has(&b, way[i].why);
        assert_has(&b, "not a refusal");
    }
    flows_scene_recorded(&s, "\"connection\"", "gone.example", "\"end\":\"name\"", NULL);
    flows_scene_recorded(&s, "\"connection\"", "good.example", "\"end\":\"unreachable\"",
                         NULL);
    flows_scene_close(&s);
    buf_done(&b);
}

static void a_websocket_passes_after_its_upgrade(void **state)
{
    static const char ws[] = "GET /ws HTTP/1.1\r\nHost: good.example\r\n"
                             "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    struct talk t;

    (void)state;
    talk_open(&t, "203.0.113.7:80", "203.0.113.7:80");
    talk_pass(&t, ws);
    flows_scene_say(&t.s, t.fd, "\x81\x02hi"); /* too early: waits for the answer */
    assert_true(flows_scene_is_quiet(&t.s, t.out));
    talk_reply(&t, "HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x01x");
    flows_scene_expect(&t.s, t.out, "\x81\x02hi");
    talk_pass(&t, GET("evil.example"));
    sock_close(&t.fd);
    assert_string_equal(flows_scene_end(&t.s, t.out), "eof");
    talk_close(&t);
}

static void a_switch_that_nobody_asked_for_cuts(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, "203.0.113.7:80", "203.0.113.7:80");
    talk_pass(&t, GET("good.example"));
    flows_scene_say(&t.s, t.out, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_string_equal(flows_scene_end(&t.s, t.fd), "reset");
    talk_close(&t);
}

/* All of it from one end to the other, in pieces. */
static void pass_bytes(struct flows_scene *s, int from, int to, const uint8_t *bytes,
                       size_t n)
{
    struct buf got = BUF_INIT;

    for (size_t at = 0; at < n; at += 100000) {
        flows_scene_write(s, from, bytes + at, 100000);
        flows_scene_read(s, to, at + 100000, &got);
    }
    assert_int_equal(got.len, n);
    assert_memory_equal(got.p, bytes, n);
    buf_done(&got);
}

static void a_body_of_any_size_passes_both_ways(void **state)
{
    enum {
        SIZE = 3000000
    };
    struct talk t;
    uint8_t *bytes = mem_zalloc(1, SIZE);

    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3);
    talk_open(&t, "203.0.113.7:8080", "203.0.113.7:8080");
    talk_pass(&t, "PUT / HTTP/1.1\r\nHost: good.example:8080\r\nContent-Length: "
                  "3000000\r\n\r\n");
    pass_bytes(&t.s, t.fd, t.out, bytes, SIZE);
    talk_reply(&t, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
    pass_bytes(&t.s, t.out, t.fd, bytes, SIZE);
    /* And the next request is read as one. */
    flows_scene_say(&t.s, t.fd, GET("two.example"));
    flows_scene_expect(&t.s, t.fd, "HTTP/1.1 421 ");
    talk_close(&t);
    mem_free(bytes);
}

static void a_connection_ends_with_the_policy_that_allowed_it(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, "203.0.113.7:80", "203.0.113.7:80");
    talk_pass(&t, GET("good.example"));
    flows_scene_policy(&t.s, "{\"version\":1,\"allow\":[\"two.example:80\"]}");
    assert_string_equal(flows_scene_end(&t.s, t.fd), "reset");
    assert_string_equal(flows_scene_end(&t.s, t.out), "reset");
    sock_close(&t.fd);
    sock_close(&t.out);
    flows_scene_recorded(&t.s, "good.example", "\"end\":\"policy\"", NULL);
    talk_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_one_host_pass_on_one_connection),
        cmocka_unit_test(a_refusal_is_said_in_words_that_arrive),
        cmocka_unit_test(the_rule_and_its_reason_are_told),
        cmocka_unit_test(another_host_later_is_misdirected_even_when_allowed),
        cmocka_unit_test(a_mode_that_only_watches_changes_no_request),
        cmocka_unit_test(another_port_in_host_later_is_misdirected),
        cmocka_unit_test(bytes_that_are_no_request_get_400_and_go_nowhere),
        cmocka_unit_test(hosts_that_do_not_fit_the_connection_are_refused),
        cmocka_unit_test(a_rule_for_the_network_lets_any_host_and_none_pass),
        cmocka_unit_test(what_cannot_be_reached_is_told_as_no_refusal),
        cmocka_unit_test(a_websocket_passes_after_its_upgrade),
        cmocka_unit_test(a_switch_that_nobody_asked_for_cuts),
        cmocka_unit_test(a_body_of_any_size_passes_both_ways),
        cmocka_unit_test(a_connection_ends_with_the_policy_that_allowed_it),
    };

    if (!own_network_enter())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
