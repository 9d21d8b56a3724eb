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

/* Everything until the end, which must be in order. */
static void read_all(struct flows_scene *s, int fd, struct buf *ret)
{
    flows_scene_read(s, fd, SIZE_MAX, ret);
    assert_int_equal(recv(fd, ret, 1, MSG_PEEK), 0);
    assert_int_equal(buf_add(ret, "", 1), 0);
}

static void assert_has(const struct buf *b, const char *text)
{
    if (!strstr((const char *)b->p, text))
        fail_msg("no <%s> in <%s>", text, (const char *)b->p);
}

static void requests_of_one_host_pass_on_one_connection(void **state)
{
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.66:80");
    flows_scene_say(&s, fd, "GET / HTTP/1.1\r\nHOST: Good.Example\r\nA:b\r\n\r\n");
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, "GET / HTTP/1.1\r\nHost: good.example\r\nA: b\r\n\r\n");
    flows_scene_say(&s, out, OK);
    flows_scene_expect(&s, fd, OK);
    flows_scene_say(&s, fd, "POST /2 HTTP/1.1\r\nHost: good.example:80\r\n");
    flows_scene_say(&s, fd, "Content-Length: 4\r\n\r\nab");
    flows_scene_expect(&s, out,
                       "POST /2 HTTP/1.1\r\nHost: good.example:80\r\n"
                       "Content-Length: 4\r\n\r\nab");
    flows_scene_say(&s, fd, "cd" GET("good.example"));
    flows_scene_expect(&s, out, "cd" GET("good.example"));
    flows_scene_say(&s, out, OK OK);
    sock_close(&out);
    flows_scene_expect(&s, fd, OK OK);
    assert_string_equal(flows_scene_end(&s, fd), "eof");
    sock_close(&fd);
    flows_scene_recorded(&s, "\"connection\"", "good.example", "\"http\"", "closed",
                         NULL);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void a_refusal_is_said_in_words_that_arrive(void **state)
{
    static const char *const request[] = {
        GET("evil.example"),
        "POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 900000\r\n\r\n",
    };
    struct flows_scene s;
    uint8_t body[30000] = {0};

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(request); i++) {
        struct buf b = BUF_INIT;
        int fd = flows_scene_connect(&s, "203.0.113.7:80");

        flows_scene_say(&s, fd, request[i]);
        for (int k = 0; i == 1 && k < 30; k++)
            flows_scene_write(&s, fd, body, sizeof(body));
        read_all(&s, fd, &b);
        assert_has(&b, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain");
        assert_has(&b, "\r\nConnection: close\r\n");
        assert_has(&b, "\r\nEgress-Verdict: denied\r\n");
        assert_has(&b, "evil.example:80");
        assert_has(&b, "no rule names evil.example");
        assert_has(&b, "not an outage");
        assert_has(&b, "Do not retry");
        assert_has(&b, "agentd egress explain --policy FILE evil.example:80");
        sock_close(&fd);
        buf_done(&b);
    }
    flows_scene_recorded(&s, "\"refused\"", "evil.example", "\"http\"", NULL);
    flows_scene_close(&s);
}

static void the_rule_and_its_reason_are_told(void **state)
{
    struct buf b = BUF_INIT;
    struct flows_scene s;
    int fd;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, "HEAD / HTTP/1.1\r\nHost: bad.example\r\n\r\n");
    read_all(&s, fd, &b);
    assert_has(&b, "403");
    assert_null(strstr((const char *)b.p, "Refused")); /* HEAD has no body */
    buf_done(&b);
    sock_close(&fd);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, GET("bad.example"));
    read_all(&s, fd, &b);
    assert_has(&b, "deny rule 1");
    assert_has(&b, "ask the network team");
    assert_has(&b, "office");
    buf_done(&b);
    sock_close(&fd);
    flows_scene_close(&s);
}

static void another_host_later_is_misdirected_even_when_allowed(void **state)
{
    struct buf b = BUF_INIT;
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, GET("good.example") GET("two.example"));
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, GET("good.example"));
    assert_true(flows_scene_is_quiet(&s, out));
    assert_true(flows_scene_is_quiet(&s, fd)); /* the first answer comes first */
    flows_scene_say(&s, out, OK);
    read_all(&s, fd, &b);
    assert_memory_equal(b.p, OK "HTTP/1.1 421 ", strlen(OK) + 13);
    assert_has(&b, "good.example");
    assert_has(&b, "Egress-Verdict: denied");
    assert_string_equal(flows_scene_end(&s, out), "reset");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_recorded(&s, "\"refused\"", "two.example", "another Host", NULL);
    flows_scene_recorded(&s, "\"connection\"", "good.example", NULL);
    flows_scene_close(&s);
    buf_done(&b);
    sock_close(&listener);
}

static void a_mode_that_only_watches_changes_no_request(void **state)
{
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    flows_scene_open(&s, "{\"version\":1,\"mode\":\"audit\",\"allow\":[\"x.example\"]}");
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, GET("good.example:81") GET("two.example"));
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, GET("good.example:81") GET("two.example"));
    sock_close(&fd);
    sock_close(&out);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, "no http\r\n");
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, "no http\r\n");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void another_port_in_host_later_is_misdirected(void **state)
{
    struct buf b = BUF_INIT;
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, GET("good.example"));
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, GET("good.example"));
    flows_scene_say(&s, out, OK);
    flows_scene_expect(&s, fd, OK);
    flows_scene_say(&s, fd, GET("good.example:8080"));
    read_all(&s, fd, &b);
    assert_has(&b, "HTTP/1.1 421 ");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    buf_done(&b);
    sock_close(&listener);
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
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80");

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct buf b = BUF_INIT;
        int fd = flows_scene_connect(&s, "203.0.113.7:80");

        flows_scene_say(&s, fd, bad[i]);
        read_all(&s, fd, &b);
        assert_has(&b, "HTTP/1.1 400 Bad Request");
        assert_has(&b, "Egress-Verdict: denied");
        sock_close(&fd);
        buf_done(&b);
    }
    assert_int_equal(flows_scene_accept(&s, listener), -1);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void hosts_that_do_not_fit_the_connection_are_refused(void **state)
{
    static const char *const request[] = {
        GET("good.example:8080"), GET("203.0.113.9"),   GET("203.0.113.7"),
        GET("198.51.100.9"),      GET("-good.example"), "GET / HTTP/1.0\r\n\r\n",
    };
    struct flows_scene s;

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(request); i++) {
        struct buf b = BUF_INIT;
        int fd = flows_scene_connect(&s, "203.0.113.7:80");

        flows_scene_say(&s, fd, request[i]);
        read_all(&s, fd, &b);
        assert_has(&b, "HTTP/1.1 403 ");
        sock_close(&fd);
        buf_done(&b);
    }
    flows_scene_close(&s);
}

static void a_rule_for_the_network_lets_any_host_and_none_pass(void **state)
{
    static const char *const request[] = {GET("198.51.100.9"), GET("any.example"),
                                          "GET / HTTP/1.0\r\nConnection: close\r\n\r\n"};
    struct flows_scene s;
    int listener = flows_scene_listen("198.51.100.9:80");

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(request); i++) {
        int fd = flows_scene_connect(&s, "198.51.100.9:80");
        int out;

        flows_scene_say(&s, fd, request[i]);
        out = flows_scene_accept(&s, listener);
        flows_scene_expect(&s, out, request[i]);
        sock_close(&fd);
        sock_close(&out);
    }
    flows_scene_close(&s);
    sock_close(&listener);
}

static void what_cannot_be_reached_is_told_as_no_refusal(void **state)
{
    static const struct {
        const char *request, *to, *why;
    } way[] = {
        {GET("gone.example"), "203.0.113.7:80", "NXDOMAIN"},
        {GET("good.example"), "203.0.113.7:80", "Connection refused"},
    };
    struct flows_scene s;

    (void)state;
    open_scene(&s);
    for (size_t i = 0; i < COUNT_OF(way); i++) {
        struct buf b = BUF_INIT;
        int fd = flows_scene_connect(&s, way[i].to);

        flows_scene_say(&s, fd, way[i].request);
        read_all(&s, fd, &b);
        assert_has(&b, "HTTP/1.1 502 Bad Gateway");
        assert_has(&b, "Egress-Verdict: allowed");
        assert_has(&b, way[i].why);
        assert_has(&b, "not a refusal");
        sock_close(&fd);
        buf_done(&b);
    }
    flows_scene_recorded(&s, "\"connection\"", "gone.example", "\"end\":\"name\"", NULL);
    flows_scene_recorded(&s, "\"connection\"", "good.example", "\"end\":\"unreachable\"",
                         NULL);
    flows_scene_close(&s);
}

static void a_websocket_passes_after_its_upgrade(void **state)
{
    static const char ws[] = "GET /ws HTTP/1.1\r\nHost: good.example\r\n"
                             "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, ws);
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, ws);
    flows_scene_say(&s, fd, "\x81\x02hi"); /* too early: waits for the answer */
    assert_true(flows_scene_is_quiet(&s, out));
    flows_scene_say(&s, out, "HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x01x");
    flows_scene_expect(&s, fd, "HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x01x");
    flows_scene_expect(&s, out, "\x81\x02hi");
    flows_scene_say(&s, fd, GET("evil.example"));
    flows_scene_expect(&s, out, GET("evil.example"));
    sock_close(&fd);
    assert_string_equal(flows_scene_end(&s, out), "eof");
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void a_switch_that_nobody_asked_for_cuts(void **state)
{
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, GET("good.example"));
    out = flows_scene_accept(&s, listener);
    flows_scene_say(&s, out, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void a_body_of_any_size_passes_both_ways(void **state)
{
    enum {
        SIZE = 3000000
    };
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:8080"), fd, out;
    struct buf got = BUF_INIT, head = BUF_INIT;
    uint8_t *bytes = mem_zalloc(1, SIZE);

    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3);
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:8080");
    flows_scene_say(&s, fd,
                    "PUT / HTTP/1.1\r\nHost: good.example:8080\r\nContent-Length: "
                    "3000000\r\n\r\n");
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out,
                       "PUT / HTTP/1.1\r\nHost: good.example:8080\r\nContent-Length: "
                       "3000000\r\n\r\n");
    for (size_t at = 0; at < SIZE; at += 100000) {
        flows_scene_write(&s, fd, bytes + at, 100000);
        flows_scene_read(&s, out, at + 100000, &got);
    }
    assert_int_equal(got.len, SIZE);
    assert_memory_equal(got.p, bytes, SIZE);
    buf_done(&got);
    flows_scene_say(&s, out, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
    flows_scene_expect(&s, fd, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
    for (size_t at = 0; at < SIZE; at += 100000) {
        flows_scene_write(&s, out, bytes + at, 100000);
        flows_scene_read(&s, fd, at + 100000, &got);
    }
    assert_memory_equal(got.p, bytes, SIZE);
    /* And the next request is read as one. */
    flows_scene_say(&s, fd, GET("two.example"));
    flows_scene_expect(&s, fd, "HTTP/1.1 421 ");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    buf_done(&got);
    buf_done(&head);
    mem_free(bytes);
    sock_close(&listener);
}

static void a_connection_ends_with_the_policy_that_allowed_it(void **state)
{
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:80"), fd, out;

    (void)state;
    open_scene(&s);
    fd = flows_scene_connect(&s, "203.0.113.7:80");
    flows_scene_say(&s, fd, GET("good.example"));
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, GET("good.example"));
    flows_scene_policy(&s, "{\"version\":1,\"allow\":[\"two.example:80\"]}");
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    assert_string_equal(flows_scene_end(&s, out), "reset");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_recorded(&s, "good.example", "\"end\":\"policy\"", NULL);
    flows_scene_close(&s);
    sock_close(&listener);
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
