/* SPDX-License-Identifier: MIT */
/* keeper_ops.c record by record: what a guard that is somebody else's by now may ask for:
 * its records, forged. */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/guard/names.h"
#include "common/sock.h"
#include "tests/support/keeper_scene.h"
#include "tests/support/test.h"

#define WORLD  KEEPER_SCENE_WORLD
#define POLICY "{\"version\":1,\"allow\":[\"" WORLD "/32:8080\"]}"

struct scene {
    struct keeper_scene k;
    struct keeper_box box;
    uint32_t index;
    int pair[2]; /* in the place of the channel while a forged record is answered */
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof *s);

    keeper_scene_open(&s->k, NULL);
    keeper_box_open(&s->box);
    if (keeper_box_add(&s->k, &s->box, "box", POLICY) < 0 ||
        channel_pair(s->pair, NULL) < 0)
        return -1;
    s->index = keeper_find(s->k.keeper, "box")->index;
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    close(s->pair[0]);
    close(s->pair[1]);
    keeper_box_close(&s->box);
    keeper_scene_close(&s->k);
    free(s);
    return 0;
}

static struct ip_addr addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

/* 1: answered; 0: not; -1: no guard sends such. */
static int forge(struct scene *s, struct channel_msg *m, struct channel_msg *ret)
{
    struct keeper_guard *g = &s->k.keeper->guard;
    int real = g->fd;
    bool ok;

    g->fd = s->pair[0];
    ok = keeper_request(s->k.keeper, m);
    g->fd = real;
    return ok ? channel_recv(s->pair[1], ret, NULL) : -1;
}

static int pin(struct scene *s, const char *text, uint16_t port, uint32_t ttl_s)
{
    struct channel_msg m, answer;

    channel_msg_init(&m, CHANNEL_PIN, s->index);
    m.seq = 7;
    m.n_pins = 1;
    m.pin[0].addr = addr(text);
    m.pin[0].port = port;
    m.pin[0].ttl_s = ttl_s;
    assert_int_equal(forge(s, &m, &answer), 1);
    assert_int_equal(answer.type, CHANNEL_PINNED);
    assert_int_equal(answer.seq, 7);
    return answer.error;
}

static void pins_in_range_are_taken_and_the_guard_still_decides(void **state)
{
    struct scene *s = *state;

    assert_int_equal(keeper_box_connect(&s->k, &s->box, WORLD, 5432), ECONNREFUSED);
    assert_int_equal(pin(s, WORLD, 5432, 60), 0);
    assert_int_equal(pin(s, WORLD, 5432, 0), 0);
    assert_int_equal(pin(s, "2001:db8::7", 5432, NAMES_TTL_MAX_S + NAMES_GRACE_S), 0);
    assert_int_equal(keeper_box_connect(&s->k, &s->box, WORLD, 5432), ECONNREFUSED);
}

static void a_pin_of_the_floor_is_refused(void **state)
{
    static const char *const floor[] = {
        "127.0.0.1",   "169.254.169.254", "0.0.0.0",
        "224.0.0.1",   "255.255.255.255", "::1",
        "fe80::1",     "ff02::1",         "64:ff9b::a9fe:a9fe",
        "198.51.100.1"};
    struct scene *s = *state;

    for (size_t i = 0; i < COUNT_OF(floor); i++)
        assert_int_equal(pin(s, floor[i], 443, 60), EACCES);
}

static void a_pin_out_of_range_is_refused(void **state)
{
    struct scene *s = *state;
    struct channel_msg m, answer;

    assert_int_equal(pin(s, WORLD, 0, 60), EINVAL);
    assert_int_equal(pin(s, WORLD, 443, NAMES_TTL_MAX_S + NAMES_GRACE_S + 1), EINVAL);
    assert_int_equal(pin(s, WORLD, 443, UINT32_MAX), EINVAL);
    for (uint32_t n = 0; n <= CHANNEL_PINS + 1; n += CHANNEL_PINS + 1) {
        channel_msg_init(&m, CHANNEL_PIN, s->index);
        m.n_pins = n;
        assert_int_equal(forge(s, &m, &answer), 1);
        assert_int_equal(answer.error, EINVAL);
    }
}

static void nothing_is_done_for_a_sandbox_that_is_not_there(void **state)
{
    static const uint32_t index[] = {0, 2, CHANNEL_INDEX_MAX, CHANNEL_INDEX_MAX + 1,
                                     UINT32_MAX};
    struct scene *s = *state;
    struct channel_msg m, answer;

    for (size_t i = 0; i < COUNT_OF(index); i++) {
        channel_msg_init(&m, CHANNEL_PIN, index[i]);
        m.n_pins = 1;
        m.pin[0].addr = addr(WORLD);
        m.pin[0].port = 443;
        m.pin[0].ttl_s = 60;
        assert_int_equal(forge(s, &m, &answer), 0);
    }
}

static void records_of_the_keeper_are_not_the_guards(void **state)
{
    static const enum channel_type type[] = {
        CHANNEL_HELLO, CHANNEL_SANDBOX, CHANNEL_POLICY, CHANNEL_REMOVE, CHANNEL_PINNED,
        CHANNEL_REPLY, CHANNEL_WHO,     CHANNEL_FLOOR,  CHANNEL_STATUS, CHANNEL_READY,
    };
    struct scene *s = *state;
    struct channel_msg m, answer;

    for (size_t i = 0; i < COUNT_OF(type); i++) {
        channel_msg_init(&m, type[i], s->index);
        assert_int_equal(forge(s, &m, &answer), -1);
    }
}

static void answers_to_nothing_change_nothing(void **state)
{
    static const enum channel_type type[] = {CHANNEL_IN_FORCE, CHANNEL_REFUSED};
    struct scene *s = *state;
    struct channel_msg m, answer;
    char status[16384];

    for (size_t i = 0; i < COUNT_OF(type); i++)
        for (uint32_t seq = 0; seq < 4; seq++) {
            channel_msg_init(&m, type[i], s->index);
            m.seq = seq;
            assert_int_equal(forge(s, &m, &answer), 0);
        }
    channel_msg_init(&m, CHANNEL_REMOVED, s->index);
    assert_int_equal(forge(s, &m, &answer), 0);
    assert_non_null(
        strstr(keeper_scene_status(&s->k, "box", status), "\"enforced\":true"));
}

static int want(struct scene *s, const char *text, uint16_t port, uint8_t protocol,
                int *ret_fd)
{
    struct channel_msg m, answer;

    channel_msg_init(&m, CHANNEL_WANT_REPLY, s->index);
    m.to = addr(text);
    m.to_port = port;
    m.protocol = protocol;
    assert_int_equal(forge(s, &m, &answer), 1);
    assert_int_equal(answer.type, CHANNEL_REPLY);
    *ret_fd = answer.fd[CHANNEL_FD_REPLY];
    return answer.error;
}

static void a_reply_socket_is_bound_to_the_name_servers_port_only(void **state)
{
    struct scene *s = *state;
    struct sock_addr at;
    char text[SOCK_TEXT_MAX];
    int fd;

    assert_int_equal(want(s, "203.0.113.53", 53, IPPROTO_UDP, &fd), 0);
    assert_int_equal(sock_local(fd, &at), 0);
    assert_string_equal(sock_print(&at, text), "203.0.113.53:53");
    close(fd);
    assert_int_equal(want(s, "203.0.113.53", 54, IPPROTO_UDP, &fd), EINVAL);
    assert_int_equal(want(s, "203.0.113.53", 53, IPPROTO_TCP, &fd), EINVAL);
    assert_int_equal(want(s, "224.0.0.251", 53, IPPROTO_UDP, &fd), EINVAL);
    assert_int_equal(want(s, "0.0.0.0", 53, IPPROTO_UDP, &fd), EINVAL);
    assert_int_equal(want(s, "::", 53, IPPROTO_UDP, &fd), EINVAL);
    assert_int_equal(fd, -1);
}

static void reply_sockets_are_few_a_second(void **state)
{
    struct scene *s = *state;
    int fd, error = 0;
    unsigned n = 0;

    while (n < 100 && (error = want(s, "203.0.113.53", 53, IPPROTO_UDP, &fd)) == 0) {
        close(fd);
        n++;
    }
    assert_int_equal(error, EBUSY);
    assert_in_range(n, 1, 32);
}

/* A name server as others write them: without SO_REUSEADDR. */
static int name_server(const char *at)
{
    struct sock_addr a;
    int fd;

    assert_int_equal(sock_parse_ip(span_str(at), 53, &a), 0);
    fd = socket(a.u.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    return fd;
}

static void says_where_it_is_mute(const struct kept *k, const char *where)
{
    char why[KEEPER_MUTE_MAX] = "", want[64];

    (void)snprintf(want, sizeof want, "UDP port 53 at %s without SO_REUSEADDR", where);
    assert_true(keeper_is_mute(k, why));
    if (!strstr(why, want) || !strstr(why, "no sandbox asks"))
        fail_msg("no %s in: %s", want, why);
}

/* The sandbox is of the veth tier for this: its replies leave from our own namespace. */
static void a_name_server_of_the_hosts_in_the_way_is_said(void **state)
{
    struct scene *s = *state;
    struct kept *k = keeper_find(s->k.keeper, "box");
    char why[KEEPER_MUTE_MAX];
    int server = name_server("0.0.0.0"), fd;

    assert_false(keeper_is_mute(k, why)); /* not of a sealed one */
    k->tier = EGRESS_VETH;
    memcpy(k->veth.way, "lo", 3);
    says_where_it_is_mute(k, "all addresses"); /* before anybody asks */
    close(server);
    assert_false(keeper_is_mute(k, why));

    server = name_server("127.0.0.1");
    assert_false(keeper_is_mute(k, why)); /* nobody asks there */
    assert_int_equal(want(s, "127.0.0.1", 53, IPPROTO_UDP, &fd), EADDRINUSE);
    says_where_it_is_mute(k, "127.0.0.1");
    close(server);
    assert_false(keeper_is_mute(k, why));
    assert_int_equal(want(s, "127.0.0.1", 53, IPPROTO_UDP, &fd), 0);
    close(fd);
    k->tier = EGRESS_SEALED;
}

static void who_it_is_has_an_answer_for_anything(void **state)
{
    struct scene *s = *state;
    struct channel_msg m, answer;

    for (unsigned protocol = 0; protocol < 256; protocol += 17) {
        channel_msg_init(&m, CHANNEL_ASK_WHO, s->index);
        m.from = addr("192.0.0.8");
        m.to = addr(protocol % 2 ? "2001:db8::1" : WORLD);
        m.from_port = 40000;
        m.to_port = 8080;
        m.protocol = (uint8_t)protocol;
        assert_int_equal(forge(s, &m, &answer), 1);
        assert_int_equal(answer.type, CHANNEL_WHO);
        assert_int_equal(answer.pid, 0);
        assert_int_equal(answer.uid, UINT32_MAX);
    }
}

static void a_proposal_that_is_no_policy_is_dropped(void **state)
{
    static const char text[] = "{\"version\":1,\"allow\":[\"*\"],\"evil\":true}";
    struct scene *s = *state;
    struct channel_msg m, answer;

    channel_msg_init(&m, CHANNEL_PROPOSAL, s->index);
    m.fd[CHANNEL_FD_POLICY] = channel_text_out(text, sizeof text - 1, NULL);
    assert_int_equal(forge(s, &m, &answer), 0);
    channel_msg_done(&m);
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(pins_in_range_are_taken_and_the_guard_still_decides),
        T(a_pin_of_the_floor_is_refused),
        T(a_pin_out_of_range_is_refused),
        T(nothing_is_done_for_a_sandbox_that_is_not_there),
        T(records_of_the_keeper_are_not_the_guards),
        T(answers_to_nothing_change_nothing),
        T(a_reply_socket_is_bound_to_the_name_servers_port_only),
        T(reply_sockets_are_few_a_second),
        T(a_name_server_of_the_hosts_in_the_way_is_said),
        T(who_it_is_has_an_answer_for_anything),
        T(a_proposal_that_is_no_policy_is_dropped),
    };
    int code;

    if (keeper_scene_main(argc, argv, &code))
        return code;
    return code ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
