/* SPDX-License-Identifier: MIT */
/* A real keeper whose guard is somebody else's: this program again, which asks for what
 * no guard of ours asks for, and writes what it got into the audit. */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "common/sock.h"
#include "tests/support/keeper_scene.h"
#include "tests/support/test.h"

#define WORLD KEEPER_SCENE_WORLD
#define SHUT                                                                             \
    "{\"version\":1,\"name\":\"shut\",\"allow\":[],\"dns\":{\"upstream\":[\"" WORLD      \
    ":53\"]}}"

enum {
    CHANNEL_AT = 3,
    ANSWER_MS = 1000,
    FLOOD = 20000,
};

/* -- the guard ----------------------------------------------------------------------- */

struct hostile {
    int audit;
    uint32_t sandbox, seq;
};

static void tell(const struct hostile *h, const char *what, int value)
{
    (void)dprintf(h->audit, "%s=%d\n", what, value);
}

static bool wait_readable(int ms)
{
    struct pollfd p = {.fd = CHANNEL_AT, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}

/* The answer's errno; -1: none came, -2: it cannot be sent. *ret_fd is the caller's. */
static int ask(struct hostile *h, struct channel_msg *m, int *ret_fd)
{
    uint64_t end_us = clock_us() + ANSWER_MS * 1000ull;
    struct channel_msg answer;
    struct err e;
    int error;

    m->seq = ++h->seq;
    if (channel_send(CHANNEL_AT, m, &e) < 0)
        return -2;
    /* STATUS comes meanwhile, and is left without an answer. */
    while (clock_us() < end_us && wait_readable(ANSWER_MS)) {
        if (channel_recv(CHANNEL_AT, &answer, &e) != 1)
            _exit(1);
        if (answer.seq != h->seq || answer.type == CHANNEL_STATUS) {
            channel_msg_done(&answer);
            continue;
        }
        error = answer.error;
        if (ret_fd) {
            *ret_fd = answer.fd[CHANNEL_FD_REPLY];
            answer.fd[CHANNEL_FD_REPLY] = -1;
        }
        channel_msg_done(&answer);
        return error;
    }
    return -1;
}

static int ask_pin(struct hostile *h, uint32_t sandbox, const char *addr, uint32_t ttl_s)
{
    struct channel_msg m;

    channel_msg_init(&m, CHANNEL_PIN, sandbox);
    m.n_pins = 1;
    if (ip_parse(span_str(addr), &m.pin[0].addr) < 0)
        return -3;
    m.pin[0].port = 8080;
    m.pin[0].ttl_s = ttl_s;
    return ask(h, &m, NULL);
}

static int ask_reply(struct hostile *h, const char *addr, uint16_t port, uint8_t protocol,
                     int *ret_fd)
{
    struct channel_msg m;

    channel_msg_init(&m, CHANNEL_WANT_REPLY, h->sandbox);
    if (ip_parse(span_str(addr), &m.to) < 0)
        return -3;
    m.to_port = port;
    m.protocol = protocol;
    return ask(h, &m, ret_fd);
}

static void try_pins(struct hostile *h)
{
    tell(h, "pin.loopback", ask_pin(h, h->sandbox, "127.0.0.1", 60));
    tell(h, "pin.metadata", ask_pin(h, h->sandbox, "169.254.169.254", 60));
    tell(h, "pin.metadata6", ask_pin(h, h->sandbox, "fd00:ec2::254", 60));
    tell(h, "pin.host", ask_pin(h, h->sandbox, "198.51.100.1", 60));
    tell(h, "pin.nat64", ask_pin(h, h->sandbox, "64:ff9b::7f00:1", 60));
    tell(h, "pin.ever", ask_pin(h, h->sandbox, WORLD, UINT32_MAX));
    tell(h, "pin.nobody", ask_pin(h, h->sandbox + 7, WORLD, 60));
    tell(h, "pin.good", ask_pin(h, h->sandbox, WORLD, 60));
}

static void try_replies(struct hostile *h)
{
    struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
    struct sock_fprog open = {.len = 1, .filter = &all};
    int fd = -1, zero = 0;

    tell(h, "reply.port", ask_reply(h, WORLD, 80, IPPROTO_UDP, NULL));
    tell(h, "reply.tcp", ask_reply(h, WORLD, 53, IPPROTO_TCP, NULL));
    tell(h, "reply.any", ask_reply(h, "0.0.0.0", 53, IPPROTO_UDP, NULL));
    tell(h, "reply.multicast", ask_reply(h, "224.0.0.251", 53, IPPROTO_UDP, NULL));
    tell(h, "reply.good", ask_reply(h, WORLD, 53, IPPROTO_UDP, &fd));
    /* It only sends, whatever is done to it. */
    tell(h, "reply.detach",
         setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof zero) < 0 ? errno
                                                                              : 0);
    tell(h, "reply.attach",
         setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &open, sizeof open) < 0 ? errno
                                                                              : 0);
    sock_close(&fd);
}

/* Questions without end whose answers are not read; then they are. */
static void flood(struct hostile *h)
{
    struct channel_msg m, answer;
    unsigned sent = 0;
    struct err e;

    channel_msg_init(&m, CHANNEL_ASK_WHO, h->sandbox);
    m.protocol = IPPROTO_TCP;
    (void)ip_parse(span_str(WORLD), &m.to);
    m.from = m.to;
    for (unsigned i = 0; i < FLOOD; i++)
        sent += channel_send(CHANNEL_AT, &m, &e) == 0;
    while (wait_readable(ANSWER_MS / 4) && channel_recv(CHANNEL_AT, &answer, &e) == 1)
        channel_msg_done(&answer);
    tell(h, "flood.sent", sent > 0);
    tell(h, "flood.after", ask_pin(h, h->sandbox, WORLD, 60));
}

/* It says that a sandbox is gone which is not. */
static void lie(struct hostile *h)
{
    struct channel_msg m;
    struct err e;

    channel_msg_init(&m, CHANNEL_REMOVED, h->sandbox);
    (void)channel_send(CHANNEL_AT, &m, &e);
    channel_msg_init(&m, CHANNEL_IN_FORCE, h->sandbox);
    m.seq = 12345;
    (void)channel_send(CHANNEL_AT, &m, &e);
    tell(h, "lie.after", ask_pin(h, h->sandbox, WORLD, 60));
}

static int hostile_main(void)
{
    struct hostile h = {.audit = -1, .seq = 1000000};
    struct channel_msg m;
    struct err e;

    for (;;) {
        if (!wait_readable(-1) || channel_recv(CHANNEL_AT, &m, &e) < 0)
            return 0;
        if (m.type == CHANNEL_HELLO) {
            h.audit = m.fd[CHANNEL_FD_AUDIT];
            m.fd[CHANNEL_FD_AUDIT] = -1;
            channel_msg_init(&m, CHANNEL_READY, 0);
            (void)channel_send(CHANNEL_AT, &m, &e);
        } else if (m.type == CHANNEL_SANDBOX) {
            h.sandbox = m.sandbox;
            h.seq = m.seq;
            channel_msg_done(&m);
            channel_msg_init(&m, CHANNEL_IN_FORCE, h.sandbox);
            m.seq = h.seq;
            (void)channel_send(CHANNEL_AT, &m, &e);
            h.seq = 1000000;
            try_pins(&h);
            try_replies(&h);
            lie(&h);
            flood(&h);
            tell(&h, "done", 1);
            (void)send(CHANNEL_AT, "no record", 9, MSG_NOSIGNAL);
        }
        channel_msg_done(&m);
    }
}

/* -- the keeper ---------------------------------------------------------------------- */

static void a_guard_of_somebody_elses_gets_nothing_that_rules_do_not_give(void **state)
{
    static const char *const want[] = {
        "pin.loopback=13\n", "pin.metadata=13\n", "pin.metadata6=13\n",
        "pin.host=13\n",     "pin.nat64=13\n",    "pin.ever=22\n",
        "pin.nobody=-1\n",   "pin.good=0\n",      "reply.port=22\n",
        "reply.tcp=22\n",    "reply.any=22\n",    "reply.multicast=22\n",
        "reply.good=0\n",    "reply.detach=1\n",  "reply.attach=1\n",
        "lie.after=0\n",     "flood.sent=1\n",    "flood.after=0\n",
    };
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char out[65536];

    keeper_box_open(&b);
    assert_int_equal(keeper_box_add(s, &b, "box", SHUT), 0);
    for (unsigned i = 0; i < 200 && !strstr(keeper_scene_records(s, out), "guard.died");
         i++)
        keeper_scene_run(s, 100, NULL);
    for (size_t i = 0; i < COUNT_OF(want); i++)
        if (!strstr(out, want[i]))
            fail_msg("no %s in:\n%s", want[i], out);
    assert_non_null(strstr(out, "guard.died")); /* for what is no record */
    keeper_box_close(&b);
}

static int setup(void **state)
{
    struct keeper_scene *s = calloc(1, sizeof *s);

    keeper_scene_open(s, NULL);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    keeper_scene_close(*state);
    free(*state);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_guard_of_somebody_elses_gets_nothing_that_rules_do_not_give, setup,
            teardown),
    };
    int code;

    if (argc == 3 && strcmp(argv[2], "guard") == 0)
        return hostile_main();
    if (keeper_scene_main(argc, argv, &code))
        return code;
    return code ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
