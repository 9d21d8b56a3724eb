/* SPDX-License-Identifier: MIT */
/* The guard itself, sealed, in a child behind a real channel; the test is its keeper.
 * Two network namespaces in which every address is local: the sandbox's, where the
 * programs and the guard's listeners are, and the world, where the guard dials and the
 * servers stand. */
#include "agentd/egress/guard/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/channel.h"
#include "agentd/egress/kernel/nflog.h"
#include "agentd/egress/kernel/rt.h"
#include "agentd/egress/policy/policy.h"
#include "common/buf.h"
#include "common/sock.h"
#include "tests/support/own_ns.h"
#include "tests/support/pin_sink.h"
#include "tests/support/test.h"

enum {
    BOUND_MS = 15000,
    INDEX = 7,
    PORT =
        8090, /* the guard's listener there, the server here: no port of the kernel's choice */
    LEAKED = 77,
};
#define ADDR     "203.0.113.7"
#define OTHER    "203.0.113.8"
#define RESOLVER "198.51.100.53"

static int world = -1, sandbox = -1; /* namespaces */

struct scene {
    int keeper;
    pid_t guard, origin, resolver;
    int audit, tcp, udp, listener;
    uint32_t seq;
    struct pin_sink pins;
    uint32_t tag;
    unsigned n_who;
    char records[65536];
};

/* -- namespaces ---------------------------------------------------------------------- */

static int seal(int *ret)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct err e = {0};
    bool has_ip6;
    int rc = rt_seal(fd, &has_ip6, &e);

    (void)close(fd);
    if (rc < 0)
        (void)fprintf(stderr, "%s\n", e.msg);
    *ret = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return rc < 0 || *ret < 0 ? -1 : 0;
}

static bool enter(void)
{
    return own_ns_enter(CLONE_NEWNET) == 0 && seal(&world) == 0 &&
           unshare(CLONE_NEWNET) == 0 && seal(&sandbox) == 0 &&
           setns(world, CLONE_NEWNET) == 0;
}

/* A socket of the sandbox's namespace, bound where `at` says; 0.0.0.0 for "". */
static int socket_in(int ns, int type, const char *at, uint16_t at_port)
{
    struct sock_addr a;
    int fd, one = 1;

    assert_int_equal(sock_parse_ip(span_str(at[0] != '\0' ? at : "0.0.0.0"), at_port, &a),
                     0);
    assert_int_equal(setns(ns, CLONE_NEWNET), 0);
    fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(setns(world, CLONE_NEWNET), 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
    if (type == SOCK_DGRAM)
        (void)setsockopt(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &one, sizeof(one));
    if (at_port != 0 || at[0] == '\0')
        assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    return fd;
}

/* -- servers of the world ------------------------------------------------------------ */

/* Gives back what it gets, for every connection. */
static void serve_echo(int fd)
{
    struct sock_addr from;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int conn;
        char b[1024];
        ssize_t n;

        (void)poll(&p, 1, -1);
        conn = sock_accept(fd, &from);
        if (conn < 0)
            continue;
        if (fork() != 0) {
            (void)close(conn);
            continue;
        }
        (void)close(fd); /* it may outlive the listener */
        (void)fcntl(conn, F_SETFL, 0);
        while ((n = read(conn, b, sizeof(b))) > 0)
            if (write(conn, b, (size_t)n) != n)
                break;
        _exit(0);
    }
}

/* Every name has one IPv4 address, ADDR. */
static void serve_names(int fd)
{
    static const uint8_t answer[] = {0xc0, 12, 0, 1, 0,   1, 0,   0,
                                     0,    60, 0, 4, 203, 0, 113, 7};

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct sock_addr from = {.len = sizeof(from.u)};
        uint8_t b[1024];
        ssize_t n, end = 12;

        (void)poll(&p, 1, -1);
        n = recvfrom(fd, b, sizeof(b) / 2, 0, &from.u.sa, &from.len);
        if (n < 17)
            continue;
        while (end < n && b[end] != 0)
            end += b[end] + 1;
        end += 5;
        if (end > n)
            continue;
        b[2] = 0x81;
        b[3] = 0x80;
        b[7] = b[end - 3] == 1; /* an A record for an A question */
        b[9] = b[11] = 0;       /* no OPT */
        if (b[7] == 1) {
            memcpy(b + end, answer, sizeof(answer));
            end += (ssize_t)sizeof(answer);
        }
        (void)sendto(fd, b, (size_t)end, 0, &from.u.sa, from.len);
    }
}

/* A child's: what it holds open is not closed when the test and the guard close it. */
static void keep_only(int fd)
{
    for (int i = STDERR_FILENO + 1; i < 256; i++)
        if (i != fd)
            (void)close(i);
}

static pid_t serve(void (*fn)(int fd), int fd)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        keep_only(fd);
        (void)signal(SIGCHLD, SIG_IGN);
        fn(fd);
        _exit(0);
    }
    (void)close(fd);
    return pid;
}

/* -- the keeper ---------------------------------------------------------------------- */

static void say(struct scene *s, struct channel_msg *m)
{
    struct err e = {0};

    m->seq = ++s->seq;
    if (channel_send(s->keeper, m, &e) < 0)
        fail_msg("%s", e.msg);
}

static void answer(struct scene *s, struct channel_msg *asked, enum channel_type type)
{
    struct channel_msg m;
    char text[IP_TEXT_MAX];

    channel_msg_init(&m, type, asked->sandbox);
    m.seq = asked->seq;
    if (type == CHANNEL_WHO) {
        m.pid = 4242;
        m.uid = 1000;
        memcpy(m.comm, "tester", 7);
        s->n_who++;
    } else {
        m.fd[CHANNEL_FD_REPLY] =
            socket_in(sandbox, SOCK_DGRAM, ip_print(&asked->to, text), asked->to_port);
    }
    assert_int_equal(channel_send(s->keeper, &m, NULL), 0);
    channel_msg_done(&m);
}

/* The next record that is no request, answering those meanwhile; false at the
 * channel's end. */
static bool next(struct scene *s, int ms, struct channel_msg *m)
{
    struct pollfd p = {.fd = s->keeper, .events = POLLIN};
    struct err e = {0};

    for (;;) {
        int rc;

        if (poll(&p, 1, ms) == 0)
            return false;
        rc = channel_recv(s->keeper, m, &e);
        if (rc < 0)
            return false;
        if (rc == 0)
            continue;
        assert_false(channel_is_keepers(m->type));
        if (m->type == CHANNEL_ASK_WHO)
            answer(s, m, CHANNEL_WHO);
        else if (m->type == CHANNEL_WANT_REPLY)
            answer(s, m, CHANNEL_REPLY);
        else
            return true;
    }
}

/* It is of this type and, unless it is READY, answers what was said last. */
static struct channel_msg expect(struct scene *s, enum channel_type type)
{
    struct channel_msg m;

    if (!next(s, BOUND_MS, &m))
        fail_msg("no %s", channel_type_name(type));
    if (m.type != type)
        fail_msg("%s (%s), not %s", channel_type_name(m.type), m.text,
                 channel_type_name(type));
    if (type != CHANNEL_READY && type != CHANNEL_PROPOSAL)
        assert_int_equal(m.seq, s->seq);
    return m;
}

/* @fault  which of its allocations fails; 0: none */
static void start_guard(struct scene *s, unsigned fault)
{
    int pair[2];

    assert_int_equal(channel_pair(pair, NULL), 0);
    s->guard = fork();
    assert_true(s->guard >= 0);
    if (s->guard == 0) {
        int code;

        keep_only(pair[1]);
        mem_fault_at(fault);
        code = guard_main(pair[1]);
        _exit(mem_live() == 0 ? code : LEAKED);
    }
    (void)close(pair[1]);
    s->keeper = pair[0];
}

static int code_of(struct scene *s)
{
    int status = 0;

    sock_close(&s->keeper);
    assert_int_equal(waitpid(s->guard, &status, 0), s->guard);
    s->guard = 0;
    if (WIFSIGNALED(status))
        fail_msg("the guard was ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static void surround(struct scene *s, enum channel_type type, const char *floor)
{
    struct channel_msg m;

    channel_msg_init(&m, type, 0);
    (void)snprintf(m.text, sizeof(m.text), RESOLVER ":5353");
    if (floor != NULL)
        assert_int_equal(ip_net_parse(span_str(floor), &m.floor[m.n_floor++]), 0);
    if (type == CHANNEL_HELLO)
        m.fd[CHANNEL_FD_AUDIT] = s->audit;
    say(s, &m);
}

static void say_policy(struct scene *s, enum channel_type type, const char *policy)
{
    struct channel_msg m;
    char text[2048] = "", *at = text;

    for (; *policy != '\0'; policy++) { /* each "%u" is the port */
        bool is_port = strncmp(policy, "%u", 2) == 0;

        assert_true(at < text + sizeof(text) - 8);
        at += snprintf(at, 8, is_port ? "%u" : "%c", is_port ? PORT : (uint8_t)*policy);
        policy += is_port;
    }
    channel_msg_init(&m, type, INDEX);
    if (type == CHANNEL_SANDBOX) {
        memcpy(m.name, "demo", 5);
        m.fd[CHANNEL_FD_TCP4] = s->tcp;
        m.fd[CHANNEL_FD_UDP4] = s->udp;
        m.fd[CHANNEL_FD_PIN] = s->pins.fd;
    }
    m.tag = s->tag;
    m.fd[CHANNEL_FD_POLICY] = channel_text_out(text, strlen(text), NULL);
    say(s, &m);
    (void)close(m.fd[CHANNEL_FD_POLICY]);
}

static void say_plain(struct scene *s, enum channel_type type)
{
    struct channel_msg m;

    channel_msg_init(&m, type, INDEX);
    say(s, &m);
}

static int start(void **state)
{
    static struct scene s;
    int origin, names;

    memset(&s, 0, sizeof(s));
    /* The servers first: what they hold of the rest they hold until they first run. */
    origin = socket_in(world, SOCK_STREAM, "", PORT);
    names = socket_in(world, SOCK_DGRAM, RESOLVER, 5353);
    if (listen(origin, 64) < 0)
        return -1;
    s.origin = serve(serve_echo, origin);
    s.resolver = serve(serve_names, names);
    s.audit = memfd_create("audit", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    s.tcp = socket_in(sandbox, SOCK_STREAM, "", PORT);
    s.udp = socket_in(sandbox, SOCK_DGRAM, "", 53);
    if (listen(s.tcp, 64) < 0)
        return -1;
    pin_sink_open(&s.pins);
    s.tag = PIN_SINK_TAG;
    start_guard(&s, 0);
    *state = &s;
    return 0;
}

static int stop(void **state)
{
    struct scene *s = *state;
    pid_t *pids[] = {&s->guard, &s->origin, &s->resolver};

    for (size_t i = 0; i < COUNT_OF(pids); i++) {
        if (*pids[i] == 0)
            continue;
        (void)kill(*pids[i], SIGKILL);
        (void)waitpid(*pids[i], NULL, 0);
    }
    sock_close(&s->keeper);
    sock_close(&s->audit);
    sock_close(&s->tcp);
    sock_close(&s->udp);
    pin_sink_close(&s->pins);
    return 0;
}

/* -- a program of the sandbox -------------------------------------------------------- */

static int dial(const char *to)
{
    struct sock_addr a;
    int fd = socket_in(sandbox, SOCK_STREAM, "", 0);

    assert_int_equal(sock_parse_ip(span_str(to), PORT, &a), 0);
    if (connect(fd, &a.u.sa, a.len) < 0)
        assert_int_equal(errno, EINPROGRESS);
    return fd;
}

/* Waits while the keeper goes on answering. */
static short ready(struct scene *s, int fd, short events)
{
    for (int ms = 0; ms < BOUND_MS; ms += 10) {
        struct pollfd p = {.fd = fd, .events = events};
        struct channel_msg m;

        if (poll(&p, 1, 10) == 1)
            return p.revents;
        if (next(s, 0, &m))
            fail_msg("%s where none is due", channel_type_name(m.type));
    }
    return 0;
}

static bool echoes(struct scene *s, int fd)
{
    char b[8];

    if ((ready(s, fd, POLLOUT) & POLLOUT) == 0 || send(fd, "ping", 4, MSG_NOSIGNAL) != 4)
        return false;
    return (ready(s, fd, POLLIN) & POLLIN) != 0 && recv(fd, b, sizeof(b), 0) == 4 &&
           memcmp(b, "ping", 4) == 0;
}

/* It ends, whether in order or not. */
static bool ends(struct scene *s, int fd)
{
    char b[64];
    ssize_t n = 1;

    while (n > 0) {
        if (ready(s, fd, POLLIN) == 0)
            return false;
        n = recv(fd, b, sizeof(b), 0);
    }
    (void)close(fd);
    return true;
}

static bool reaches(struct scene *s, const char *to)
{
    int fd = dial(to);
    bool does = echoes(s, fd);

    (void)close(fd);
    return does;
}

/* One record has both. */
static bool recorded(struct scene *s, const char *a, const char *b)
{
    for (int ms = 0; ms < BOUND_MS; ms += 10) {
        ssize_t n = pread(s->audit, s->records, sizeof(s->records) - 1, 0);
        struct channel_msg m;

        s->records[n > 0 ? n : 0] = '\0';
        for (char *line = s->records, *end; (end = strchr(line, '\n')) != NULL;
             line = end + 1) {
            *end = '\0';
            if (strstr(line, a) != NULL && strstr(line, b) != NULL)
                return true;
        }
        if (next(s, 10, &m))
            fail_msg("%s where none is due", channel_type_name(m.type));
    }
    return false;
}

/* -- its life ------------------------------------------------------------------------ */

static void greet(struct scene *s)
{
    surround(s, CHANNEL_HELLO, NULL);
    (void)expect(s, CHANNEL_READY);
}

static void it_is_ready_when_greeted_and_ends_with_the_channel(void **state)
{
    struct scene *s = *state;

    greet(s);
    assert_int_equal(code_of(s), 0);
}

static void it_ignores_what_a_terminal_says(void **state)
{
    struct scene *s = *state;

    greet(s);
    assert_int_equal(kill(s->guard, SIGINT), 0);
    assert_int_equal(kill(s->guard, SIGTERM), 0);
    say_plain(s, CHANNEL_STATUS);
    (void)expect(s, CHANNEL_REFUSED);
    assert_int_equal(code_of(s), 0);
}

static void what_comes_before_the_greeting_ends_it(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    say_plain(s, CHANNEL_STATUS);
    assert_false(next(s, BOUND_MS, &m));
    assert_int_equal(code_of(s), 1);
}

static void a_second_greeting_ends_it(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    greet(s);
    surround(s, CHANNEL_HELLO, NULL);
    assert_false(next(s, BOUND_MS, &m));
    assert_int_equal(code_of(s), 1);
}

static void bytes_that_are_no_record_end_it(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    greet(s);
    assert_int_equal(send(s->keeper, "x", 1, 0), 1);
    assert_false(next(s, BOUND_MS, &m));
    (void)code_of(s);
}

/* -- sandboxes ----------------------------------------------------------------------- */

#define ALLOW_ADDR "{\"version\":1,\"allow\":[\"" ADDR ":%u\"]}"

static void what_is_refused_is_undone(void **state)
{
    static const char *const bad[] = {"{\"version\":1,\"allow\":[\"*\"]}", "{", "",
                                      "{\"version\":1,\"extends\":[\"build\"]}"};
    struct scene *s = *state;
    struct channel_msg m;

    greet(s);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        say_policy(s, CHANNEL_SANDBOX, bad[i]);
        m = expect(s, CHANNEL_REFUSED);
        assert_true(strlen(m.text) > 10);
    }
    channel_msg_init(&m, CHANNEL_SANDBOX, INDEX); /* a policy that could still change */
    memcpy(m.name, "demo", 5);
    m.fd[CHANNEL_FD_POLICY] = s->audit;
    say(s, &m);
    (void)expect(s, CHANNEL_REFUSED);
    say_plain(s, CHANNEL_REMOVE);
    (void)expect(s, CHANNEL_REFUSED);
    say_policy(s, CHANNEL_POLICY, ALLOW_ADDR);
    (void)expect(s, CHANNEL_REFUSED);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR);
    (void)expect(s, CHANNEL_IN_FORCE);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR); /* the index is taken */
    (void)expect(s, CHANNEL_REFUSED);
    assert_true(reaches(s, ADDR));
    assert_int_equal(code_of(s), 0);
}

static void a_connection_is_relayed_counted_and_recorded(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR);
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(reaches(s, ADDR));
    assert_true(recorded(s, "\"kind\":\"connection\"", "\"address\":\"" ADDR "\""));
    assert_false(reaches(s, OTHER));
    assert_true(recorded(s, "\"kind\":\"refused\"", "\"address\":\"" OTHER "\""));
    say_plain(s, CHANNEL_STATUS);
    m = expect(s, CHANNEL_COUNTS);
    assert_int_equal(m.counts.connects, 2);
    assert_int_equal(m.counts.refused, 1);
    assert_int_equal(m.counts.bytes_up, 4);
    assert_int_equal(m.counts.bytes_down, 4);
    assert_int_equal(m.counts.flows, 0);
    assert_int_equal(m.counts.audit_lost, 0);
    assert_int_equal(code_of(s), 0);
}

static void records_that_are_lost_are_told_to_the_keeper(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR);
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_int_equal(fcntl(s->audit, F_ADD_SEALS, F_SEAL_GROW), 0); /* a full disk */
    assert_false(reaches(s, OTHER));
    say_plain(s, CHANNEL_STATUS);
    m = expect(s, CHANNEL_COUNTS);
    assert_int_equal(m.counts.refused, 1);
    assert_int_equal(m.counts.audit_lost, 1);
    assert_int_equal(code_of(s), 0);
}

static void a_replaced_policy_cuts_what_it_does_not_allow(void **state)
{
    struct scene *s = *state;
    int fd;

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR);
    (void)expect(s, CHANNEL_IN_FORCE);
    fd = dial(ADDR);
    assert_true(echoes(s, fd));
    say_policy(s, CHANNEL_POLICY,
               "{\"version\":1,\"allow\":[\"*\"]}"); /* wrong: the old stays */
    (void)expect(s, CHANNEL_REFUSED);
    assert_true(echoes(s, fd));
    say_policy(s, CHANNEL_POLICY,
               "{\"version\":1,\"allow\":[\"" ADDR ":%u\",\"" OTHER ":%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(echoes(s, fd));
    assert_true(reaches(s, OTHER));
    say_policy(s, CHANNEL_POLICY, "{\"version\":1,\"allow\":[\"" OTHER ":%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(ends(s, fd));
    assert_false(reaches(s, ADDR));
    assert_true(recorded(s, "\"end\":\"policy\"", "\"address\":\"" ADDR "\""));
    assert_int_equal(code_of(s), 0);
}

static void a_new_floor_cuts_what_is_floor_now(void **state)
{
    struct scene *s = *state;
    int fd;

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR);
    (void)expect(s, CHANNEL_IN_FORCE);
    fd = dial(ADDR);
    assert_true(echoes(s, fd));
    surround(s, CHANNEL_FLOOR, "203.0.113.0/24");
    assert_true(ends(s, fd));
    assert_false(reaches(s, ADDR));
    assert_true(recorded(s, "\"stage\":\"floor\"", "\"address\":\"" ADDR "\""));
    assert_int_equal(code_of(s), 0);
}

static void a_removed_sandbox_has_nothing_left(void **state)
{
    struct scene *s = *state;
    int fd, gone;
    short events;

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, ALLOW_ADDR);
    (void)expect(s, CHANNEL_IN_FORCE);
    sock_close(&s->tcp); /* the guard's copy is the only one */
    fd = dial(ADDR);
    assert_true(echoes(s, fd));
    say_plain(s, CHANNEL_REMOVE);
    (void)expect(s, CHANNEL_REMOVED);
    assert_true(recorded(s, "\"kind\":\"connection\"", "\"address\":\"" ADDR "\""));
    assert_true(ends(s, fd));
    gone = dial(ADDR);
    events = ready(s, gone, POLLOUT);
    if ((events & (POLLERR | POLLHUP)) == 0)
        fail_msg("events %#x, error %d", (unsigned)events, sock_error(gone));
    assert_int_equal(sock_error(gone), ECONNREFUSED);
    (void)close(gone);
    say_plain(s, CHANNEL_STATUS);
    (void)expect(s, CHANNEL_REFUSED);
    assert_int_equal(code_of(s), 0);
}

/* What is said must not wait for an answer that does not come: the guard may
 * have ended. */
static bool try_to_say(struct scene *s, struct channel_msg *m, enum channel_type wanted)
{
    struct channel_msg got;
    bool is_it;

    m->seq = ++s->seq;
    if (channel_send(s->keeper, m, NULL) < 0 || !next(s, BOUND_MS, &got))
        return false;
    is_it = got.type == wanted;
    channel_msg_done(&got);
    return is_it;
}

/* Greeted, given a sandbox, which is taken from it again: true when all of it
 * was done. */
static bool live_once(struct scene *s)
{
    static const char policy[] = "{\"version\":1,\"mode\":\"learn\"}";
    struct channel_msg m;
    bool is_done;

    channel_msg_init(&m, CHANNEL_HELLO, 0);
    m.fd[CHANNEL_FD_AUDIT] = s->audit;
    if (!try_to_say(s, &m, CHANNEL_READY))
        return false;
    channel_msg_init(&m, CHANNEL_SANDBOX, INDEX);
    memcpy(m.name, "demo", 5);
    m.fd[CHANNEL_FD_TCP4] = s->tcp;
    m.fd[CHANNEL_FD_UDP4] = s->udp;
    m.fd[CHANNEL_FD_POLICY] = channel_text_out(policy, strlen(policy), NULL);
    is_done = try_to_say(s, &m, CHANNEL_IN_FORCE);
    sock_close(&m.fd[CHANNEL_FD_POLICY]);
    if (!is_done)
        return false;
    channel_msg_init(&m, CHANNEL_REMOVE, INDEX);
    return try_to_say(s, &m, CHANNEL_PROPOSAL);
}

static void without_memory_it_refuses_or_ends_and_keeps_nothing(void **state)
{
    struct scene *s = *state;
    unsigned fault = 1;
    bool is_done = false;

    (void)kill(s->guard, SIGKILL);
    (void)waitpid(s->guard, NULL, 0);
    for (; fault < 2000 && !is_done; fault++) {
        int code;

        sock_close(&s->keeper);
        start_guard(s, fault);
        is_done = live_once(s);
        code = code_of(s);
        if (code != 0 && code != 1)
            fail_msg("allocation %u: exit code %d", fault, code);
    }
    assert_true(is_done); /* at last none failed */
    assert_in_range(fault, 20, 2000);
}

/* -- names --------------------------------------------------------------------------- */

static ssize_t asks(struct scene *s, const char *name, uint8_t ret[512])
{
    struct sock_addr server;
    uint8_t q[300] = {0x12, 0x34, 1, 0, 0, 1};
    size_t n = 12;
    int fd = socket_in(sandbox, SOCK_DGRAM, "", 0);
    ssize_t got;

    for (const char *label = name; *label != '\0';) {
        size_t len = strcspn(label, ".");

        q[n++] = (uint8_t)len;
        memcpy(q + n, label, len);
        n += len;
        label += len + (label[len] == '.');
    }
    memcpy(q + n, "\0\0\1\0\1", 5);
    n += 5;
    assert_int_equal(sock_parse_ip(span_str("198.51.100.1"), 53, &server), 0);
    assert_int_equal(sendto(fd, q, n, 0, &server.u.sa, server.len), (ssize_t)n);
    assert_true((ready(s, fd, POLLIN) & POLLIN) != 0);
    got = recv(fd, ret, 512, 0);
    (void)close(fd);
    return got;
}

static void a_name_is_pinned_before_it_is_answered_and_then_reached(void **state)
{
    static const uint8_t addr[] = {0, 4, 203, 0, 113, 7};
    struct scene *s = *state;
    uint8_t reply[512];
    ssize_t n;

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, "{\"version\":1,\"allow\":[\"api.example.com:%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_false(reaches(s, ADDR)); /* no name led to it */
    n = asks(s, "api.example.com", reply);
    assert_true(n > 12);
    assert_int_equal(reply[3] & 15, 0);
    assert_non_null(memmem(reply, (size_t)n, addr, sizeof(addr)));
    assert_int_equal(pin_sink_notes(&s->pins), 1);
    assert_true(pin_sink_life(&s->pins, ADDR, PORT) >= 30);
    assert_true(reaches(s, ADDR));
    assert_true(recorded(s, "\"kind\":\"connection\"", "\"name\":\"api.example.com\""));
    assert_int_equal(code_of(s), 0);
}

/* Neither who listens elsewhere nor the keeper can make up for it. */
static void without_a_way_to_the_kernel_no_name_is_answered(void **state)
{
    struct scene *s = *state;
    uint8_t reply[512];

    greet(s);
    sock_close(&s->pins.fd);
    say_policy(s, CHANNEL_SANDBOX, "{\"version\":1,\"allow\":[\"api.example.com:%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(asks(s, "api.example.com", reply) >= 12);
    assert_int_equal(reply[3] & 15, 2); /* SERVFAIL */
    assert_false(reaches(s, ADDR));
    assert_int_equal(pin_sink_notes(&s->pins), 0);
    assert_int_equal(code_of(s), 0);
}

/* After another program's flush the kernel's sets are new, and the policy comes again. */
static void a_policy_with_another_tag_tells_the_pins_again(void **state)
{
    const uint32_t tag = PIN_SINK_TAG + 1;
    struct scene *s = *state;
    uint8_t reply[512], note[PIN_NOTE_MAX + 1];

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, "{\"version\":1,\"allow\":[\"api.example.com:%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(asks(s, "api.example.com", reply) > 12);
    assert_int_equal(pin_sink_notes(&s->pins), 1);
    s->tag = tag;
    say_policy(s, CHANNEL_POLICY, "{\"version\":1,\"allow\":[\"api.example.com:%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(recv(s->pins.other, note, sizeof(note), 0) > PIN_KEY_AT);
    assert_memory_equal(note + PIN_KEY_AT, &tag, sizeof(tag));
    assert_true(note[1] > 0);
    assert_true(recv(s->pins.other, note, sizeof(note), 0) < 0);
    assert_true(reaches(s, ADDR));
    assert_int_equal(code_of(s), 0);
}

static void a_name_that_is_not_allowed_is_refused_and_recorded(void **state)
{
    struct scene *s = *state;
    uint8_t reply[512];

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, "{\"version\":1,\"allow\":[\"api.example.com:%u\"]}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(asks(s, "www.example.com", reply) >= 12);
    assert_int_equal(reply[3] & 15, 3); /* NXDOMAIN */
    assert_true(recorded(s, "\"kind\":\"name\"", "\"name\":\"www.example.com\""));
    assert_int_equal(pin_sink_notes(&s->pins), 0);
    assert_int_equal(code_of(s), 0);
}

/* -- learning ------------------------------------------------------------------------ */

static void what_was_learned_is_proposed_at_the_end(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    static struct policy_faults faults;
    struct scene *s = *state;
    struct policy *p;
    struct channel_msg m;
    char wanted[64];

    greet(s);
    say_policy(s, CHANNEL_SANDBOX, "{\"version\":1,\"mode\":\"learn\"}");
    (void)expect(s, CHANNEL_IN_FORCE);
    assert_true(reaches(s, ADDR));
    assert_true(recorded(s, "\"would_refuse\":true", "\"address\":\"" ADDR "\""));
    say_plain(s, CHANNEL_REMOVE);
    m = expect(s, CHANNEL_PROPOSAL);
    assert_int_equal(channel_text_in(m.fd[CHANNEL_FD_POLICY], 65536, &text, NULL), 0);
    channel_msg_done(&m);
    (void)expect(s, CHANNEL_REMOVED);
    p = policy_compile(buf_span(&text), NULL, &faults);
    assert_non_null(p);
    policy_unref(p);
    (void)snprintf(wanted, sizeof(wanted), "\"" ADDR ":%u\"", PORT);
    assert_non_null(memmem(text.p, text.len, wanted, strlen(wanted)));
    assert_true(recorded(s, "\"event\":\"policy.proposed\"", ADDR));
    assert_int_equal(code_of(s), 0);
}

/* -- what the kernel refused --------------------------------------------------------- */

/* The mark is what the chain of sandbox 7 sets for "udp" (nft_int.h). */
static void what_the_kernel_refused_is_recorded_once_for_all_copies(void **state)
{
    static const char rules[] =
        "table inet t { chain o { type filter hook output priority 0; "
        "ip daddr 198.51.100.9 udp dport 9 meta mark set 0x45000704 log group 5447 drop; "
        "}; }";
    struct scene *s = *state;
    struct channel_msg m;
    struct sock_addr to;
    int log, fd;
    pid_t pid;
    int status = -1;

    assert_int_equal(setns(sandbox, CLONE_NEWNET), 0);
    log = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
    pid = fork();
    if (pid == 0) {
        char *argv[] = {(char[]){"nft"}, (char[]){""}, NULL};
        char text[sizeof(rules)];

        memcpy(text, rules, sizeof(rules));
        argv[1] = text;
        (void)execvp("nft", argv);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(setns(world, CLONE_NEWNET), 0);
    if (status != 0 || nflog_bind(log, EGRESS_NFLOG, NULL) < 0) {
        print_message("skipped: no nftables or no NFLOG here\n");
        (void)close(log);
        skip();
    }
    greet(s);
    channel_msg_init(&m, CHANNEL_SANDBOX, 8); /* another that shares the socket */
    memcpy(m.name, "other", 6);
    m.fd[CHANNEL_FD_NFLOG] = log;
    m.fd[CHANNEL_FD_POLICY] = channel_text_out("{\"version\":1}", 13, NULL);
    say(s, &m);
    (void)expect(s, CHANNEL_IN_FORCE);
    m.sandbox = INDEX;
    memcpy(m.name, "demo", 5);
    say(s, &m);
    (void)expect(s, CHANNEL_IN_FORCE);
    (void)close(m.fd[CHANNEL_FD_POLICY]);
    (void)close(log);
    channel_msg_init(&m, CHANNEL_REMOVE, 8); /* the first of them goes */
    say(s, &m);
    (void)expect(s, CHANNEL_REMOVED);
    fd = socket_in(sandbox, SOCK_DGRAM, "", 0);
    assert_int_equal(sock_parse_ip(span_str("198.51.100.9"), 9, &to), 0);
    (void)sendto(fd, "x", 1, 0, &to.u.sa, to.len); /* EPERM, or dropped */
    (void)close(fd);
    assert_true(recorded(s, "\"by\":\"kernel\"", "\"address\":\"198.51.100.9\""));
    assert_true(recorded(s, "\"sandbox\":\"demo\"", "\"protocol\":\"udp\""));
    assert_false(strstr(s->records, "\"sandbox\":\"other\"") != NULL);
    assert_int_equal(code_of(s), 0);
}

#define SCENE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(it_is_ready_when_greeted_and_ends_with_the_channel),
        SCENE(it_ignores_what_a_terminal_says),
        SCENE(what_comes_before_the_greeting_ends_it),
        SCENE(a_second_greeting_ends_it),
        SCENE(bytes_that_are_no_record_end_it),
        SCENE(what_is_refused_is_undone),
        SCENE(a_connection_is_relayed_counted_and_recorded),
        SCENE(a_replaced_policy_cuts_what_it_does_not_allow),
        SCENE(a_new_floor_cuts_what_is_floor_now),
        SCENE(a_removed_sandbox_has_nothing_left),
        SCENE(without_memory_it_refuses_or_ends_and_keeps_nothing),
        SCENE(a_name_is_pinned_before_it_is_answered_and_then_reached),
        SCENE(without_a_way_to_the_kernel_no_name_is_answered),
        SCENE(a_policy_with_another_tag_tells_the_pins_again),
        SCENE(a_name_that_is_not_allowed_is_refused_and_recorded),
        SCENE(records_that_are_lost_are_told_to_the_keeper),
        SCENE(what_was_learned_is_proposed_at_the_end),
        SCENE(what_the_kernel_refused_is_recorded_once_for_all_copies),
    };

    const char *preload = getenv("LD_PRELOAD");

    if (preload != NULL && strstr(preload, "vgpreload") != NULL) {
        (void)printf("1..0 # skipped: valgrind knows no seccomp\n");
        return 0;
    }
    if (!enter()) {
        (void)printf("1..0 # skipped: no network namespaces here\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
