/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flows.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "agentd/egress/guard/flow.h"
#include "agentd/egress/guard/pins.h"
#include "tests/support/flows_scene.h"
#include "tests/support/own_network.h"
#include "tests/support/test.h"

#define ANY                                                                              \
    "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.0/24\"},\"ports\":"         \
    "\"7000-7010\"}]"
#define TO "203.0.113.7:7000"

/* -- accepting ----------------------------------------------------------------------- */

static int dial(const char *to)
{
    struct sock_addr a;
    struct err e = {0};
    int fd;

    assert_int_equal(sock_parse(to, &a, &e), 0);
    fd = sock_connect(&a, &e);
    assert_true(fd >= 0);
    return fd;
}

/* Beside others at the same port; the kernel takes the one that is bound most exactly. */
static int listen_beside(const char *at)
{
    struct sock_addr a;
    struct err e = {0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    assert_int_equal(sock_parse(at, &a, &e), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* Another listener for the scene's flows: any address, as the kernel's TPROXY
 * brings them. */
static void listen_for_all(struct flows_scene *s)
{
    int two[2] = {listen_beside("0.0.0.0:7000"), -1};
    struct err e = {0};

    flows_free(s->ward.flows);
    s->ward.flows = flows_new(&s->ward, two, &e);
    assert_non_null(s->ward.flows);
    assert_int_equal(two[0], -1);
}

static void what_is_accepted_goes_where_its_name_says(void **state)
{
    struct flows_scene s;
    int server = listen_beside("203.0.113.7:7000"), fd, out;
    struct buf hello = BUF_INIT, got = BUF_INIT;

    (void)state;
    flows_scene_open(&s, "{\"version\":1,\"allow\":[\"good.example:7000\"],"
                         "\"protocols\":{\"7000\":\"tls\"}}");
    flows_scene_name(&s, "good.example", "203.0.113.7");
    listen_for_all(&s);
    flows_scene_hello("good.example", 0, 999, &hello);
    fd = dial("198.51.100.9:7000");
    flows_scene_write(&s, fd, hello.p, hello.len);
    out = flows_scene_accept(&s, server);
    flows_scene_read(&s, out, hello.len, &got);
    assert_true(span_eq(buf_span(&got), buf_span(&hello)));
    sock_close(&fd);
    sock_close(&out);
    flows_scene_recorded(&s, "\"connection\"", "\"address\":\"198.51.100.9\"",
                         "\"dialed\":\"203.0.113.7\"", NULL);
    flows_scene_close(&s);
    buf_done(&hello);
    buf_done(&got);
    sock_close(&server);
}

static void the_listener_itself_is_no_target(void **state)
{
    struct flows_scene s;
    int two[2] = {flows_scene_listen("203.0.113.5:7000"), -1}, fd;
    struct err e = {0};

    (void)state;
    flows_scene_open(&s, ANY "}");
    flows_free(s.ward.flows);
    s.ward.flows = flows_new(&s.ward, two, &e);
    fd = dial("203.0.113.5:7000");
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    flows_scene_recorded(&s, "own listener", NULL);
    assert_int_equal(s.ward.counts.connects, 1);
    sock_close(&fd);
    flows_scene_close(&s);
}

static void without_descriptors_connections_wait(void **state)
{
    struct flows_scene s;
    struct rlimit was, none;
    int fd;

    (void)state;
    flows_scene_open(&s, ANY "}");
    listen_for_all(&s);
    fd = dial("198.51.100.9:7000");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){(rlim_t)fd + 1, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    flows_scene_turn(&s, 30);
    assert_int_equal(s.ward.counts.connects, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    assert_int_equal(s.ward.counts.connects, 1);
    sock_close(&fd);
    flows_scene_close(&s);
}

/* -- limits -------------------------------------------------------------------------- */

/* Of eight that the descriptors allow, two sandboxes have one each for sure. */
static void no_sandbox_takes_the_descriptors_of_all(void **state)
{
    struct flows_scene s;
    int server = flows_scene_listen(TO), fd[7];

    (void)state;
    flows_scene_open(&s, ANY "}");
    s.guard.flows_max = 8;
    s.guard.n_wards = 2;
    for (int i = 0; i < 7; i++)
        fd[i] = flows_scene_connect(&s, TO);
    assert_string_equal(flows_scene_end(&s, fd[6]), "reset");
    flows_scene_recorded(&s, "refused", "limit of the guard: this sandbox's part of 8",
                         NULL);
    assert_int_equal(s.guard.flows_open, 6);
    for (int i = 0; i < 7; i++)
        sock_close(&fd[i]);
    for (int i = 0; i < 6; i++) {
        int out = flows_scene_accept(&s, server);

        assert_true(out >= 0);
        sock_close(&out);
    }
    for (int i = 0; i < 100 && s.guard.flows_open > 0; i++)
        flows_scene_turn(&s, 20);
    assert_int_equal(s.guard.flows_open, 0);
    /* Another has seven by now: one more of ours is the eighth. */
    s.guard.flows_open = 7;
    fd[0] = flows_scene_connect(&s, TO);
    fd[1] = flows_scene_accept(&s, server);
    assert_true(fd[1] >= 0);
    fd[2] = flows_scene_connect(&s, TO);
    assert_string_equal(flows_scene_end(&s, fd[2]), "reset");
    for (int i = 0; i < 3; i++)
        sock_close(&fd[i]);
    sock_close(&server);
    flows_scene_close(&s);
}

static void no_sandbox_takes_the_memory_of_all(void **state)
{
    struct flows_scene s;

    (void)state;
    flows_scene_open(&s, ANY "}");
    s.guard.n_wards = 100;
    assert_false(flows_hold_much(s.ward.flows));
    flows_hold(s.ward.flows, FLOW_HELD_MAX, 0);
    assert_false(flows_hold_much(s.ward.flows)); /* nobody else wants any */
    s.guard.held += FLOW_HELD_ALL_MAX / 4 * 3;
    assert_true(flows_hold_much(s.ward.flows));
    flows_hold(s.ward.flows, FLOW_HELD_ALL_MAX / 400, FLOW_HELD_MAX);
    assert_false(flows_hold_much(s.ward.flows)); /* its part is its own */
    flows_hold(s.ward.flows, 1, FLOW_HELD_ALL_MAX / 400);
    s.guard.held -= FLOW_HELD_ALL_MAX / 4 * 3;
    flows_hold(s.ward.flows, 0, 1);
    assert_int_equal(s.guard.held, 0);
    flows_scene_close(&s);
}

static void a_sandbox_has_so_many_connections_and_no_more(void **state)
{
    struct flows_scene s;
    int server = flows_scene_listen(TO), fd[3];

    (void)state;
    flows_scene_open(&s, ANY ",\"limits\":{\"connections\":2}}");
    for (int i = 0; i < 3; i++)
        fd[i] = flows_scene_connect(&s, TO);
    assert_string_equal(flows_scene_end(&s, fd[2]), "reset");
    flows_scene_recorded(&s, "refused", "limit of the sandbox: 2 connections", NULL);
    sock_close(&fd[0]);
    sock_close(&fd[2]);
    for (int i = 0; i < 2; i++) {
        int out = flows_scene_accept(&s, server);

        assert_true(out >= 0);
        sock_close(&out);
    }
    flows_scene_turn(&s, 20);
    fd[0] = flows_scene_connect(&s, TO);
    fd[2] = flows_scene_accept(&s, server);
    assert_true(fd[2] >= 0);
    for (int i = 0; i < 3; i++)
        sock_close(&fd[i]);
    flows_scene_close(&s);
    sock_close(&server);
}

static void a_rule_has_limits_of_its_own(void **state)
{
    static const char policy[] =
        "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.7/32\"},\"ports\":"
        "\"7000\",\"limits\":{\"connections\":1}},{\"to\":{\"cidr\":\"203.0.113.8/32\"},"
        "\"ports\":\"7000\"}]}";
    struct flows_scene s;
    int server = flows_scene_listen(TO), other = flows_scene_listen("203.0.113.8:7000");
    int one, two, out;

    (void)state;
    flows_scene_open(&s, policy);
    one = flows_scene_connect(&s, TO);
    out = flows_scene_accept(&s, server);
    two = flows_scene_connect(&s, TO);
    assert_string_equal(flows_scene_end(&s, two), "reset");
    flows_scene_recorded(&s, "refused", "limit of allow rule 1", NULL);
    sock_close(&two);
    sock_close(&out);
    two = flows_scene_connect(&s, "203.0.113.8:7000");
    out = flows_scene_accept(&s, other);
    assert_true(out >= 0);
    sock_close(&out);
    sock_close(&one);
    sock_close(&two);
    flows_scene_close(&s);
    sock_close(&server);
    sock_close(&other);
}

/* -- policies that change ------------------------------------------------------------ */

static void a_new_policy_cuts_what_it_does_not_allow_and_nothing_else(void **state)
{
    struct flows_scene s;
    int server = flows_scene_listen(TO), other = flows_scene_listen("203.0.113.7:7001");
    int stays, goes, out, out_goes;

    (void)state;
    flows_scene_open(&s, ANY "}");
    stays = flows_scene_connect(&s, "203.0.113.7:7001");
    out = flows_scene_accept(&s, other);
    goes = flows_scene_connect(&s, TO);
    out_goes = flows_scene_accept(&s, server);
    flows_scene_policy(&s, "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.7/"
                           "32\"},\"ports\":\"7001\"}]}");
    assert_string_equal(flows_scene_end(&s, goes), "reset");
    assert_string_equal(flows_scene_end(&s, out_goes), "reset");
    flows_scene_recorded(&s, "\"port\":7000", "\"end\":\"policy\"", NULL);
    flows_scene_say(&s, stays, "still");
    flows_scene_expect(&s, out, "still");
    sock_close(&stays);
    sock_close(&goes);
    sock_close(&out);
    sock_close(&out_goes);
    flows_scene_close(&s);
    sock_close(&server);
    sock_close(&other);
}

static void a_new_check_cuts_what_was_not_checked(void **state)
{
    static const char before[] = "{\"version\":1,\"allow\":[\"db.example:7000\"]}";
    static const char after[] = "{\"version\":1,\"allow\":[\"db.example:7000\"],"
                                "\"protocols\":{\"7000\":\"tls\"}}";
    struct flows_scene s;
    int server = flows_scene_listen(TO), fd, out;

    (void)state;
    flows_scene_open(&s, before);
    flows_scene_pin(&s, "db.example", "203.0.113.7");
    fd = flows_scene_connect(&s, TO);
    out = flows_scene_accept(&s, server);
    assert_true(out >= 0);
    flows_scene_policy(&s, before);
    flows_scene_say(&s, fd, "still");
    flows_scene_expect(&s, out, "still");
    flows_scene_policy(&s, after);
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&server);
}

static void a_rule_that_expires_cuts_within_a_second(void **state)
{
    char policy[512], when[32];
    struct flows_scene s;
    time_t end = time(NULL) + 2;
    struct tm tm;
    int server = flows_scene_listen(TO), fd, out;
    const char *how = "open";

    (void)state;
    (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&end, &tm));
    (void)snprintf(policy, sizeof(policy),
                   "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.7/32\"},"
                   "\"ports\":\"7000\",\"expires\":\"%s\"}]}",
                   when);
    flows_scene_open(&s, policy);
    fd = flows_scene_connect(&s, TO);
    out = flows_scene_accept(&s, server);
    assert_true(out >= 0);
    for (int i = 0; i < 5 && strcmp(how, "open") == 0; i++)
        how = flows_scene_end(&s, fd);
    assert_string_equal(how, "reset");
    flows_scene_recorded(&s, "\"end\":\"policy\"", NULL);
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&server);
}

static void connections_that_are_not_decided_yet_survive_a_reload(void **state)
{
    static const char policy[] = "{\"version\":1,\"allow\":[\"a.example\"]}";
    struct flows_scene s;
    int fd;

    (void)state;
    flows_scene_open(&s, policy);
    fd = flows_scene_connect(&s, "203.0.113.7:443");
    flows_scene_policy(&s, policy);
    assert_true(flows_scene_is_quiet(&s, fd));
    flows_scene_policy(&s, "{\"version\":1,\"allow\":[\"a.example\"],"
                           "\"protocols\":{\"443\":\"http\"}}");
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    sock_close(&fd);
    flows_scene_close(&s);
}

/* -- memory that fails --------------------------------------------------------------- */

/* One connection with its k-th allocation failing. True: it had no such
 * allocation any more. */
static bool fail_at(unsigned k, const char *to, const char *said, int server)
{
    struct flows_scene s;
    size_t live = mem_live();
    bool is_over;
    int fd, out;

    flows_scene_open(&s, "{\"version\":1,\"allow\":[\"good.example:80\",\"db.example:"
                         "7000\"],\"deny\":[\"bad.example:80\"]}");
    flows_scene_name(&s, "good.example", "203.0.113.7");
    flows_scene_pin(&s, "db.example", "203.0.113.7");
    mem_fault_at(k);
    fd = flows_scene_connect(&s, to);
    (void)send(fd, said, strlen(said), MSG_NOSIGNAL);
    for (int i = 0; i < 8; i++)
        flows_scene_turn(&s, 1);
    out = accept(server, NULL, NULL);
    if (out >= 0) {
        /* It is there because it was allowed, whatever failed besides. */
        assert_null(strstr(said, "bad.example"));
        (void)send(out, "HTTP/1.1 204 x\r\n\r\n", 18, MSG_NOSIGNAL);
        for (int i = 0; i < 4; i++)
            flows_scene_turn(&s, 1);
    }
    is_over = mem_count() < k;
    mem_fault_at(0);
    sock_close(&fd);
    sock_close(&out);
    flows_scene_turn(&s, 2);
    flows_scene_close(&s);
    assert_int_equal(mem_live(), live);
    return is_over;
}

static void no_memory_ends_a_connection_and_leaves_nothing(void **state)
{
    static const struct {
        const char *to, *said;
    } way[] = {
        {"203.0.113.7:80", "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"},
        {"203.0.113.7:80", "GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n"},
        {TO, "x"},
        {"203.0.113.7:443", "no tls"},
    };
    int http = flows_scene_listen("203.0.113.7:80"), db = flows_scene_listen(TO);

    (void)state;
    for (size_t i = 0; i < COUNT_OF(way); i++) {
        unsigned k = 1;

        while (!fail_at(k, way[i].to, way[i].said, i == 2 ? db : http))
            k++;
        assert_true(k > 3);
    }
    sock_close(&http);
    sock_close(&db);
}

/* -- the end ------------------------------------------------------------------------- */

static void the_end_of_the_guard_ends_and_records_all(void **state)
{
    struct flows_scene s;
    int server = flows_scene_listen(TO), fd[3], out;
    int none[2] = {-1, -1};
    struct err e = {0};

    (void)state;
    flows_scene_open(&s, ANY "}");
    fd[0] = flows_scene_connect(&s, TO);
    out = flows_scene_accept(&s, server);
    fd[1] = flows_scene_connect(&s, "203.0.113.7:443");
    fd[2] = flows_scene_connect(&s, "203.0.113.7:7002");
    flows_free(s.ward.flows);
    s.ward.flows = flows_new(&s.ward, none, &e);
    flows_scene_recorded(&s, "\"port\":7000", "\"end\":\"guard\"", NULL);
    flows_scene_recorded(&s, "\"port\":443", "refused", NULL);
    flows_scene_recorded(&s, "\"port\":7002", "connection", NULL);
    assert_string_equal(flows_scene_end(&s, out), "reset");
    for (int i = 0; i < 3; i++) {
        assert_string_equal(flows_scene_end(&s, fd[i]), "reset");
        sock_close(&fd[i]);
    }
    assert_int_equal(s.ward.counts.flows, 0);
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&server);
}

static void a_pin_is_held_while_its_connection_lives(void **state)
{
    struct flows_scene s;
    int server = flows_scene_listen(TO), fd, out;

    (void)state;
    flows_scene_open(&s, "{\"version\":1,\"allow\":[\"db.example:7000\"]}");
    flows_scene_pin(&s, "db.example", "203.0.113.7");
    fd = flows_scene_connect(&s, TO);
    out = flows_scene_accept(&s, server);
    assert_true(s.ward.flows->open->is_holding);
    flows_scene_policy(&s, "{\"version\":1,\"allow\":[\"other.example:7000\"]}");
    assert_string_equal(flows_scene_end(&s, fd), "reset");
    assert_int_equal(pins_count(s.ward.pins), 0);
    sock_close(&fd);
    sock_close(&out);
    flows_scene_close(&s);
    sock_close(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_accepted_goes_where_its_name_says),
        cmocka_unit_test(the_listener_itself_is_no_target),
        cmocka_unit_test(without_descriptors_connections_wait),
        cmocka_unit_test(no_sandbox_takes_the_descriptors_of_all),
        cmocka_unit_test(no_sandbox_takes_the_memory_of_all),
        cmocka_unit_test(a_sandbox_has_so_many_connections_and_no_more),
        cmocka_unit_test(a_rule_has_limits_of_its_own),
        cmocka_unit_test(a_new_policy_cuts_what_it_does_not_allow_and_nothing_else),
        cmocka_unit_test(a_new_check_cuts_what_was_not_checked),
        cmocka_unit_test(a_rule_that_expires_cuts_within_a_second),
        cmocka_unit_test(connections_that_are_not_decided_yet_survive_a_reload),
        cmocka_unit_test(no_memory_ends_a_connection_and_leaves_nothing),
        cmocka_unit_test(the_end_of_the_guard_ends_and_records_all),
        cmocka_unit_test(a_pin_is_held_while_its_connection_lives),
    };

    if (!own_network_enter())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
