/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow.h"

#include <string.h>

#include "tests/support/flows_scene.h"
#include "tests/support/own_network.h"
#include "tests/support/test.h"

#define POLICY                                                                           \
    "{\"version\":1,\"name\":\"p\",\"allow\":[\"good.example\",\"*.wild.example\","      \
    "\"db.example:5432\",\"198.51.100.0/24:443\",\"inner.example\","                     \
    "{\"to\":\"plain.example\",\"tls\":false}],\"deny\":[\"bad.wild.example\"]}"

static void open_scene(struct flows_scene *s, const char *policy)
{
    flows_scene_open(s, policy);
    flows_scene_name(s, "good.example", "203.0.113.7");
    flows_scene_name(s, "a.wild.example", "203.0.113.7");
    flows_scene_name(s, "db.example", "203.0.113.7");
    flows_scene_name(s, "inner.example", "10.1.0.9");
    flows_scene_name(s, "plain.example", "203.0.113.7");
}

/* Sends a hello in pieces and sees it arrive at `listener` as it was. */
static void assert_arrives(struct flows_scene *s, int listener, const char *to,
                           const struct buf *hello, size_t piece)
{
    AUTO(buf_done)
    struct buf got = BUF_INIT;
    int fd = flows_scene_connect(s, to), out;

    for (size_t at = 0; at < hello->len; at += piece) {
        size_t n = piece < hello->len - at ? piece : hello->len - at;

        flows_scene_write(s, fd, hello->p + at, n);
        if (piece < hello->len && at % 64 == 0)
            flows_scene_turn(s, 1);
    }
    out = flows_scene_accept(s, listener);
    if (out < 0)
        fail_msg("nothing came; records: %s", flows_scene_records(s));
    flows_scene_read(s, out, hello->len, &got);
    assert_true(span_eq(buf_span(&got), buf_span(hello)));
    flows_scene_say(s, out, "server");
    flows_scene_expect(s, fd, "server");
    sock_close(&out);
    assert_string_equal(flows_scene_end(s, fd), "eof");
    sock_close(&fd);
}

static void assert_refused(struct flows_scene *s, const char *to, const struct buf *hello)
{
    int fd = flows_scene_connect(s, to);

    if (hello)
        (void)send(fd, hello->p, hello->len, MSG_NOSIGNAL);
    assert_string_equal(flows_scene_end(s, fd), "reset");
    sock_close(&fd);
}

static void a_client_hello_arrives_however_it_is_cut(void **state)
{
    static const struct {
        size_t size, record, piece;
    } way[] = {
        {0, 16384, 16384}, {0, 16384, 1},        {0, 1, 16384},
        {0, 5, 3},         {600, 7, 1},          {2000, 16384, 1},
        {2000, 700, 1400}, {15000, 16384, 1460}, {15000, 100, 999},
    };
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:443");

    (void)state;
    open_scene(&s, POLICY);
    for (size_t i = 0; i < COUNT_OF(way); i++) {
        struct buf hello = BUF_INIT;

        flows_scene_hello("good.example", way[i].size, way[i].record, &hello);
        assert_arrives(&s, listener, "203.0.113.7:443", &hello, way[i].piece);
        buf_done(&hello);
    }
    flows_scene_recorded(&s, "good.example", "\"tls\"", "closed", "curl", NULL);
    for (int i = 0; i < 1000 && s.ward.counts.flows > 0; i++)
        flows_scene_turn(&s, 1);
    assert_int_equal(s.ward.counts.flows, 0);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void our_own_answer_is_dialed_whatever_address_was_meant(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:443");
    int theirs = flows_scene_listen("203.0.113.66:443");

    (void)state;
    open_scene(&s, POLICY);
    flows_scene_hello("GOOD.example", 0, 999, &hello);
    assert_arrives(&s, listener, "203.0.113.66:443", &hello, 999);
    assert_arrives(&s, listener, "[2001:db8::66]:443", &hello, 999);
    assert_int_equal(flows_scene_accept(&s, theirs), -1);
    flows_scene_close(&s);
    buf_done(&hello);
    sock_close(&listener);
    sock_close(&theirs);
}

/* The name server's table was filled by what is allowed on some port, and before this. */
static void each_address_is_decided_once_more_at_the_dial(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;
    struct ip_net own;
    int listener = flows_scene_listen("203.0.113.7:443");
    int server = flows_scene_listen("203.0.113.8:443");

    (void)state;
    flows_scene_hello("good.example", 0, 999, &hello);
    open_scene(&s, "{\"version\":1,\"allow\":[\"good.example:80,443\"],"
                   "\"deny\":[\"203.0.113.7:443\"]}");
    assert_refused(&s, "203.0.113.9:443", &hello);
    flows_scene_recorded(&s, "refused", "good.example", "deny rule 1", NULL);
    flows_scene_close(&s);
    open_scene(&s, POLICY);
    flows_scene_name(&s, "good.example", "203.0.113.8");
    assert_arrives(&s, listener, "203.0.113.7:443", &hello, 999);
    assert_int_equal(ip_net_parse(span_str("203.0.113.7"), &own), 0);
    s.guard.floor = (struct floor){&own, 1};
    assert_arrives(&s, server, "203.0.113.9:443", &hello, 999);
    assert_int_equal(flows_scene_accept(&s, listener), -1);
    flows_scene_close(&s);
    buf_done(&hello);
    sock_close(&listener);
    sock_close(&server);
}

static void an_address_that_was_meant_and_is_ours_is_preferred(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;
    int one = flows_scene_listen("203.0.113.7:443");
    int two = flows_scene_listen("203.0.113.8:443");

    (void)state;
    open_scene(&s, POLICY);
    flows_scene_name(&s, "good.example", "203.0.113.8");
    flows_scene_hello("good.example", 0, 999, &hello);
    assert_arrives(&s, two, "203.0.113.8:443", &hello, 999);
    assert_arrives(&s, one, "203.0.113.7:443", &hello, 999);
    flows_scene_close(&s);
    buf_done(&hello);
    sock_close(&one);
    sock_close(&two);
}

static void names_that_are_not_allowed_are_reset_and_recorded(void **state)
{
    static const char *const name[] = {"evil.example",     "wild.example",
                                       "bad.wild.example", "good.example.evil.example",
                                       "db.example",       "inner.example"};
    struct flows_scene s;

    (void)state;
    open_scene(&s, POLICY);
    for (size_t i = 0; i < COUNT_OF(name); i++) {
        struct buf hello = BUF_INIT;

        flows_scene_hello(name[i], 0, 999, &hello);
        assert_refused(&s, "203.0.113.7:443", &hello);
        flows_scene_recorded(&s, "refused", name[i], NULL);
        buf_done(&hello);
    }
    assert_int_equal(s.ward.counts.refused, COUNT_OF(name));
    flows_scene_recorded(&s, "inner.example", "floor", "private", NULL);
    flows_scene_close(&s);
}

static void without_a_server_name_only_a_rule_for_the_network_counts(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;
    int listener = flows_scene_listen("198.51.100.9:443");

    (void)state;
    open_scene(&s, POLICY);
    flows_scene_pin(&s, "good.example", "203.0.113.7");
    flows_scene_hello("", 0, 999, &hello);
    assert_refused(&s, "203.0.113.7:443", &hello);
    flows_scene_recorded(&s, "TLS without a server name", NULL);
    assert_arrives(&s, listener, "198.51.100.9:443", &hello, 999);
    buf_done(&hello);
    flows_scene_hello("unknown.example", 0, 999, &hello);
    assert_arrives(&s, listener, "198.51.100.9:443", &hello, 999);
    flows_scene_close(&s);
    buf_done(&hello);
    sock_close(&listener);
}

static void what_is_no_tls_is_refused_but_where_a_rule_asks_for_no_check(void **state)
{
    static const char *const other[] = {"GET / HTTP/1.1\r\n", "SSH-2.0-x\r\n",
                                        "\x16\x02\x01\x01\x01",
                                        "\x16\x03\x01\x40\x01\x01", "\x80\x2e\x01"};
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:443"), fd, out;

    (void)state;
    open_scene(&s, POLICY);
    flows_scene_pin(&s, "good.example", "203.0.113.7");
    for (size_t i = 0; i < COUNT_OF(other); i++) {
        struct buf b = {.p = (uint8_t *)(uintptr_t)other[i], .len = strlen(other[i])};

        assert_refused(&s, "203.0.113.7:443", &b);
    }
    flows_scene_pin(&s, "plain.example", "203.0.113.7");
    fd = flows_scene_connect(&s, "203.0.113.7:443");
    flows_scene_say(&s, fd, "SSH-2.0-x\r\n");
    out = flows_scene_accept(&s, listener);
    flows_scene_expect(&s, out, "SSH-2.0-x\r\n");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_recorded(&s, "plain.example", "closed", NULL);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void a_hello_without_end_or_over_its_bound_is_refused(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;

    (void)state;
    open_scene(&s, POLICY);
    flows_scene_hello("good.example", 16500, 4000, &hello);
    assert_refused(&s, "203.0.113.7:443", &hello);
    flows_scene_recorded(&s, "ClientHello over 16 KiB", NULL);
    flows_scene_close(&s);
    buf_done(&hello);
}

static void a_program_that_leaves_before_it_says_anything_is_recorded(void **state)
{
    struct flows_scene s;
    int fd;

    (void)state;
    open_scene(&s, POLICY);
    fd = flows_scene_connect(&s, "203.0.113.7:443");
    flows_scene_turn(&s, 5);
    sock_close(&fd);
    flows_scene_recorded(&s, "refused", "ended before", NULL);
    flows_scene_close(&s);
}

static void the_floor_is_refused_at_once(void **state)
{
    static const char *const to[] = {
        "127.0.0.1:443",       "169.254.169.254:80", "[::1]:443",    "[fe80::1]:443",
        "224.0.0.1:443",       "0.0.0.0:80",         "10.1.0.9:443", "192.0.0.8:443",
        "[fd00:ec2::254]:443", "100.100.100.200:80",
    };
    struct flows_scene s;

    (void)state;
    open_scene(&s, POLICY);
    for (size_t i = 0; i < COUNT_OF(to); i++)
        assert_refused(&s, to[i], NULL);
    flows_scene_recorded(&s, "refused", "169.254.169.254", "floor", NULL);
    flows_scene_close(&s);
}

static void other_ports_go_by_the_pin_and_the_server_may_speak_first(void **state)
{
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:5432"), fd, out;

    (void)state;
    open_scene(&s, POLICY);
    assert_refused(&s, "203.0.113.7:5432", NULL);
    flows_scene_pin(&s, "good.example", "203.0.113.7");
    assert_refused(&s, "203.0.113.7:5432", NULL);
    flows_scene_pin(&s, "db.example", "203.0.113.7");
    fd = flows_scene_connect(&s, "203.0.113.7:5432");
    out = flows_scene_accept(&s, listener);
    flows_scene_say(&s, out, "220 hello\r\n");
    flows_scene_expect(&s, fd, "220 hello\r\n");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_recorded(&s, "db.example", "\"pin\"", "203.0.113.7", NULL);
    assert_refused(&s, "203.0.113.7:5433", NULL);
    flows_scene_close(&s);
    sock_close(&listener);
}

static void modes_that_only_watch_let_all_but_the_floor_pass(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;
    int tls = flows_scene_listen("203.0.113.7:443");
    int other = flows_scene_listen("203.0.113.7:9999"), fd, out;

    (void)state;
    open_scene(&s, "{\"version\":1,\"mode\":\"audit\",\"allow\":[\"x.example\"]}");
    flows_scene_name(&s, "evil.example", "203.0.113.7");
    flows_scene_hello("evil.example", 0, 999, &hello);
    assert_arrives(&s, tls, "203.0.113.7:443", &hello, 999);
    flows_scene_recorded(&s, "evil.example", "would_refuse", NULL);
    buf_done(&hello);
    /* A name that does not exist: by the address that was meant. */
    flows_scene_hello("nowhere.example", 0, 999, &hello);
    assert_arrives(&s, tls, "203.0.113.7:443", &hello, 999);
    buf_done(&hello);
    fd = flows_scene_connect(&s, "203.0.113.7:443");
    flows_scene_say(&s, fd, "no tls\r\n");
    out = flows_scene_accept(&s, tls);
    flows_scene_expect(&s, out, "no tls\r\n");
    sock_close(&fd);
    sock_close(&out);
    fd = flows_scene_connect(&s, "203.0.113.7:9999");
    out = flows_scene_accept(&s, other);
    assert_true(out >= 0);
    sock_close(&fd);
    sock_close(&out);
    assert_refused(&s, "169.254.169.254:9999", NULL);
    flows_scene_close(&s);
    sock_close(&tls);
    sock_close(&other);
}

static void by_default_allowed_is_what_no_rule_denies(void **state)
{
    struct buf hello = BUF_INIT;
    struct flows_scene s;
    int listener = flows_scene_listen("203.0.113.7:443");

    (void)state;
    open_scene(&s,
               "{\"version\":1,\"default\":\"allow\",\"deny\":[\"bad.wild.example\"]}");
    flows_scene_hello("good.example", 0, 999, &hello);
    assert_arrives(&s, listener, "203.0.113.66:443", &hello, 999);
    buf_done(&hello);
    flows_scene_hello("bad.wild.example", 0, 999, &hello);
    assert_refused(&s, "203.0.113.7:443", &hello);
    buf_done(&hello);
    flows_scene_hello("inner.example", 0, 999, &hello);
    assert_refused(&s, "203.0.113.7:443", &hello);
    flows_scene_close(&s);
    buf_done(&hello);
    sock_close(&listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_hello_arrives_however_it_is_cut),
        cmocka_unit_test(our_own_answer_is_dialed_whatever_address_was_meant),
        cmocka_unit_test(each_address_is_decided_once_more_at_the_dial),
        cmocka_unit_test(an_address_that_was_meant_and_is_ours_is_preferred),
        cmocka_unit_test(names_that_are_not_allowed_are_reset_and_recorded),
        cmocka_unit_test(without_a_server_name_only_a_rule_for_the_network_counts),
        cmocka_unit_test(what_is_no_tls_is_refused_but_where_a_rule_asks_for_no_check),
        cmocka_unit_test(a_hello_without_end_or_over_its_bound_is_refused),
        cmocka_unit_test(a_program_that_leaves_before_it_says_anything_is_recorded),
        cmocka_unit_test(the_floor_is_refused_at_once),
        cmocka_unit_test(other_ports_go_by_the_pin_and_the_server_may_speak_first),
        cmocka_unit_test(modes_that_only_watch_let_all_but_the_floor_pass),
        cmocka_unit_test(by_default_allowed_is_what_no_rule_denies),
    };

    if (!own_network_enter())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
