/* SPDX-License-Identifier: MIT */
/* A real keeper whose guard is somebody else's: this program again, which asks for what
 * no guard of ours asks for and pins what none of ours pins, writes what it got into the
 * audit, and then only says which connections came to it, until it is given a policy. */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/kernel/pin.h"
#include "common/cdefs.h"
#include "common/sock.h"
#include "tests/support/keeper_scene.h"
#include "tests/support/test.h"

#define WORLD KEEPER_SCENE_WORLD
#define SHUT                                                                             \
    "{\"version\":1,\"name\":\"shut\",\"allow\":[],\"deny\":[\"198.51.100.128/"          \
    "25:8080\"],"                                                                        \
    "\"dns\":{\"upstream\":[\"" WORLD ":53\"]}}"

enum {
    CHANNEL_AT = 3,
    ANSWER_MS = 1000,
    SILENCE_MS = 100,
    FLOOD = 20000,
    PORT = 8080,
};

/* -- the guard ----------------------------------------------------------------------- */

struct hostile {
    int audit;
    uint32_t sandbox, seq, tag;
    int tcp, udp, pin; /* its listeners, and the socket for pins */
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

static int pin(const struct hostile *h, uint32_t tag, const char *addr)
{
    struct pin p = {.port = PORT, .life_s = 60};

    return ip_parse(span_str(addr), &p.addr) < 0 ? -3 : pin_put(h->pin, tag, &p);
}

/* What no rule takes. */
static void try_notes(const struct hostile *h)
{
    struct pin p = {.port = PORT, .life_s = 60};
    uint8_t note[PIN_NOTE_MAX];
    size_t len;

    (void)ip_parse(span_str("198.51.100.11"), &p.addr);
    len = pin_note(note, h->tag, &p);
    tell(h, "note.cut", send(h->pin, note, len - 1, 0) < 0 ? errno : 0);
    note[1] = PIN_LIVES + 1;
    tell(h, "note.life", send(h->pin, note, len, 0) < 0 ? errno : 0);
    note[1] = UINT8_MAX;
    tell(h, "note.ever", send(h->pin, note, len, 0) < 0 ? errno : 0);
    note[1] = 1;
    note[0] = 5;
    tell(h, "note.family", send(h->pin, note, len, 0) < 0 ? errno : 0);
    tell(h, "note.empty", send(h->pin, note, 0, 0) < 0 ? errno : 0);
}

/* The socket is for pins, and nothing else comes of it. */
static void try_socket(const struct hostile *h)
{
    const uint32_t mark = EGRESS_MARK;
    struct pollfd here = {.fd = h->udp, .events = POLLIN};
    struct pin p = {.addr = {.family = AF_INET}, .port = PORT};
    uint8_t note[PIN_NOTE_MAX];
    struct sock_addr own, world;
    size_t len = pin_note(note, h->tag, &p);

    tell(h, "socket.mark",
         setsockopt(h->pin, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0 ? errno : 0);
    (void)sock_local(h->udp, &own);
    own.u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tell(h, "socket.own", sendto(h->pin, note, len, 0, &own.u.sa, own.len) < 0);
    tell(h, "socket.own.came", poll(&here, 1, SILENCE_MS));
    (void)sock_parse(WORLD ":53", &world, NULL);
    tell(h, "socket.world", sendto(h->pin, "words", 5, 0, &world.u.sa, world.len) < 0);
}

/* The kernel takes them: what they are worth is said by who lands where. */
static void try_pins(const struct hostile *h)
{
    static const char *const addr[] = {
        "127.0.0.1", "::1",     "169.254.169.254", "fd00:ec2::254",  "64:ff9b::7f00:1",
        "10.0.0.7",  "fc00::7", "198.51.100.1",    "198.51.100.130", WORLD,
    };
    int error = 0;

    for (size_t i = 0; i < COUNT_OF(addr); i++)
        error |= pin(h, h->tag, addr[i]);
    tell(h, "pin.any", error);
    tell(h, "pin.others",
         pin(h, h->tag + 1, "198.51.100.9") | pin(h, h->tag - 1, "198.51.100.9") |
             pin(h, 0, "198.51.100.9") | pin(h, EGRESS_MARK, "198.51.100.9"));
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
    tell(h, "flood.after", ask_reply(h, WORLD, 80, IPPROTO_UDP, NULL));
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
    tell(h, "lie.after", ask_reply(h, WORLD, 80, IPPROTO_UDP, NULL));
}

static void say_who_landed(const struct hostile *h)
{
    int fd = accept4(h->tcp, NULL, NULL, SOCK_CLOEXEC);
    struct sock_addr meant;
    char text[SOCK_TEXT_MAX];

    if (fd < 0)
        return;
    if (sock_local(fd, &meant) == 0)
        (void)dprintf(h->audit, "landed=%s\n", sock_print(&meant, text));
    close(fd);
}

/* Whatever it gets, but its connections. */
static bool next(const struct hostile *h, struct channel_msg *m)
{
    struct pollfd p[] = {{.fd = CHANNEL_AT, .events = POLLIN},
                         {.fd = h->tcp, .events = POLLIN}};

    while (poll(p, 2, -1) > 0) {
        if (p[1].revents)
            say_who_landed(h);
        if (p[0].revents)
            return channel_recv(CHANNEL_AT, m, NULL) == 1;
    }
    return false;
}

static void take_sandbox(struct hostile *h, struct channel_msg *m)
{
    struct channel_msg answer;

    h->sandbox = m->sandbox;
    h->tag = m->tag;
    h->tcp = m->fd[CHANNEL_FD_TCP4];
    h->udp = m->fd[CHANNEL_FD_UDP4];
    h->pin = m->fd[CHANNEL_FD_PIN];
    m->fd[CHANNEL_FD_TCP4] = m->fd[CHANNEL_FD_UDP4] = m->fd[CHANNEL_FD_PIN] = -1;
    channel_msg_init(&answer, CHANNEL_IN_FORCE, h->sandbox);
    answer.seq = m->seq;
    (void)channel_send(CHANNEL_AT, &answer, NULL);
}

static int hostile_main(void)
{
    struct hostile h = {.audit = -1, .seq = 1000000, .tcp = -1, .udp = -1, .pin = -1};
    struct channel_msg m;
    struct err e;

    while (next(&h, &m)) {
        if (m.type == CHANNEL_HELLO) {
            h.audit = m.fd[CHANNEL_FD_AUDIT];
            m.fd[CHANNEL_FD_AUDIT] = -1;
            channel_msg_init(&m, CHANNEL_READY, 0);
            (void)channel_send(CHANNEL_AT, &m, &e);
        } else if (m.type == CHANNEL_SANDBOX) {
            take_sandbox(&h, &m);
            try_notes(&h);
            try_pins(&h);
            try_socket(&h);
            try_replies(&h);
            lie(&h);
            flood(&h);
            tell(&h, "done", 1);
        } else if (m.type == CHANNEL_POLICY) {
            (void)send(CHANNEL_AT, "no record", 9, MSG_NOSIGNAL);
        }
        channel_msg_done(&m);
    }
    return 0;
}

/* -- the keeper ---------------------------------------------------------------------- */

static void until_record(struct keeper_scene *s, const char *text, char out[65536])
{
    for (unsigned i = 0; i < 200; i++) {
        if (strstr(keeper_scene_records(s, out), text))
            return;
        keeper_scene_run(s, 100, NULL);
    }
    fail_msg("no %s in:\n%s", text, out);
}

/* ENODATA: the guard had it, and nobody else. */
static void lands_where_rules_say(struct keeper_scene *s, struct keeper_box *b)
{
    static const struct {
        const char *to;
        uint16_t port;
        int error;
    } row[] = {
        {"127.0.0.1", PORT, ECONNREFUSED}, /* its own, where nobody listens */
        {"::1", PORT, ECONNREFUSED},
        {"169.254.169.254", PORT, ECONNREFUSED},
        {"fd00:ec2::254", PORT, ECONNREFUSED},
        {"64:ff9b::7f00:1", PORT, ECONNREFUSED},
        {"10.0.0.7", PORT, ECONNREFUSED},
        {"fc00::7", PORT, ECONNREFUSED},
        {"198.51.100.130", PORT, ECONNREFUSED}, /* denied */
        {"198.51.100.1", PORT, ENODATA},        /* the host's */
        {WORLD, PORT, ENODATA},
        {WORLD, 5432, ECONNREFUSED},           /* of no pin */
        {"198.51.100.9", PORT, ECONNREFUSED},  /* of another's */
        {"198.51.100.11", PORT, ECONNREFUSED}, /* of notes that are none */
    };

    for (size_t i = 0; i < COUNT_OF(row); i++) {
        int error = keeper_box_connect(s, b, row[i].to, row[i].port);

        if (error != row[i].error)
            fail_msg("%s port %u: %s", row[i].to, row[i].port, strerror(error));
    }
}

static void a_guard_of_somebody_elses_gets_nothing_that_rules_do_not_give(void **state)
{
    static const char *const want[] = {
        "note.cut=1\n",     "note.life=1\n",        "note.ever=1\n",
        "note.family=1\n",  "note.empty=1\n",       "pin.any=0\n",
        "pin.others=0\n",   "socket.mark=1\n",      "socket.own.came=0\n",
        "socket.world=1\n", "reply.port=22\n",      "reply.tcp=22\n",
        "reply.any=22\n",   "reply.multicast=22\n", "reply.good=0\n",
        "reply.detach=1\n", "reply.attach=1\n",     "lie.after=22\n",
        "flood.sent=1\n",   "flood.after=22\n",
    };
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char out[65536];

    keeper_box_open(&b);
    assert_int_equal(keeper_box_add(s, &b, "box", SHUT), 0);
    until_record(s, "done=1", out);
    for (size_t i = 0; i < COUNT_OF(want); i++)
        if (!strstr(out, want[i]))
            fail_msg("no %s in:\n%s", want[i], out);
    lands_where_rules_say(s, &b);
    until_record(s, "landed=198.51.100.1:8080\nlanded=" WORLD ":8080\n", out);
    assert_null(strstr(strstr(out, "landed=" WORLD) + 1, "landed="));
    (void)keeper_box_reload(s, "box", SHUT);
    until_record(s, "guard.died", out); /* for what is no record */
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
