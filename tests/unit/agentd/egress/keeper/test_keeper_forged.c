/* SPDX-License-Identifier: MIT */
/* keeper_ops.c record by record: what a guard that is somebody else's by now may ask for:
 * its records, forged; and what it may pin. */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/kernel/pin.h"
#include "common/sock.h"
#include "tests/support/keeper_scene.h"
#include "tests/support/test.h"

#define WORLD  KEEPER_SCENE_WORLD
#define POLICY "{\"version\":1,\"allow\":[\"" WORLD "/32:8080\"]}"

struct scene {
    struct keeper_scene k;
    struct keeper_box box;
    uint32_t index;
    size_t seen; /* of the records */
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

/* Who refused it, as the last record has it. */
static void refused_by(struct scene *s, const char *by, int error)
{
    char out[65536], want[32];
    const char *last = NULL;

    assert_int_equal(keeper_box_connect(&s->k, &s->box, WORLD, 5432), error);
    (void)snprintf(want, sizeof want, "\"by\":\"%s\"", by);
    for (unsigned i = 0; i < 100 && !last; i++) {
        keeper_scene_run(&s->k, 50, NULL);
        last = strstr(keeper_scene_records(&s->k, out) + s->seen, "\"kind\":\"refused\"");
    }
    if (!last || !strstr(last, want))
        fail_msg("not %s in: %s", want, out + s->seen);
    s->seen = strlen(out);
}

static void what_is_pinned_is_still_decided_by_the_guard(void **state)
{
    struct scene *s = *state;
    const struct kept *k = keeper_find(s->k.keeper, "box");
    struct pin p = {addr(WORLD), 5432, 60};

    refused_by(s, "kernel", ECONNREFUSED);
    assert_int_equal(pin_put(k->fd[CHANNEL_FD_PIN], nft_tag(k->nft, k->index), &p), 0);
    refused_by(s, "guard", ECONNRESET);
    p.life_s = 0;
    assert_int_equal(pin_put(k->fd[CHANNEL_FD_PIN], nft_tag(k->nft, k->index), &p), 0);
    refused_by(s, "kernel", ECONNREFUSED);
}

/* On a host. The socket is root's here, whom the floor for the guard's does not hold: it
 * is for its mark that it is stopped. */
static void a_socket_for_pins_reaches_nobody_from_a_host(void **state)
{
    const struct nft_base base = {.tier = EGRESS_VETH, .guard_uid = 65534};
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    struct pin p = {addr("2001:db8::9"), 443, 60};
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    uint8_t note[PIN_NOTE_MAX], got[512];
    ssize_t len = (ssize_t)pin_note(note, 0x46000001, &p);
    struct sock_addr world;
    struct nft *n;
    struct err e;

    UNUSED_ARG(state);
    assert_int_equal(sock_parse(WORLD ":53", &world, &e), 0);
    /* Its zeros are a question that the world answers. */
    assert_int_equal(sendto(fd, note, (size_t)len, 0, &world.u.sa, world.len), len);
    assert_int_equal(poll(&answer, 1, 5000), 1);
    assert_true(recv(fd, got, sizeof got, 0) > 0);

    n = nft_open(&netlink, &e);
    assert_non_null(n);
    assert_int_equal(nft_install(n, &base, &e), 0);
    assert_int_equal(pin_tie(fd, nft_pin_mark(n), &e), 0);
    assert_int_equal(pin_put(fd, 0x46000001, &p), 0);
    assert_int_equal(connect(fd, &nowhere, sizeof nowhere), 0);
    assert_int_equal(sendto(fd, note, (size_t)len, 0, &world.u.sa, world.len), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(nft_uninstall(n, &e), 0);
    nft_close(n);
    close(fd);
}

static void nothing_is_done_for_a_sandbox_that_is_not_there(void **state)
{
    static const uint32_t index[] = {0, 2, CHANNEL_INDEX_MAX, CHANNEL_INDEX_MAX + 1,
                                     UINT32_MAX};
    struct scene *s = *state;
    struct channel_msg m, answer;

    for (size_t i = 0; i < COUNT_OF(index); i++) {
        channel_msg_init(&m, CHANNEL_WANT_REPLY, index[i]);
        m.to = addr("203.0.113.53");
        m.to_port = 53;
        m.protocol = IPPROTO_UDP;
        assert_int_equal(forge(s, &m, &answer), 0);
    }
}

static void records_of_the_keeper_are_not_the_guards(void **state)
{
    static const enum channel_type type[] = {
        CHANNEL_HELLO, CHANNEL_SANDBOX, CHANNEL_POLICY, CHANNEL_REMOVE, CHANNEL_REPLY,
        CHANNEL_WHO,   CHANNEL_FLOOR,   CHANNEL_STATUS, CHANNEL_READY,
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
        T(what_is_pinned_is_still_decided_by_the_guard),
        T(a_socket_for_pins_reaches_nobody_from_a_host),
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
