/* SPDX-License-Identifier: MIT */
/* The guard's connections on loopback beside none: what the name check adds to setting
 * one up, and what the relay leaves of one stream's throughput. Guard, server and client
 * are processes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agentd/egress/guard/flow.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins.h"
#include "common/mem.h"
#include "tests/support/own_network.h"
#include "tests/support/samples.h"

#define POLICY                                                                           \
    "{\"version\":1,\"allow\":[\"bench.example:443\",{\"to\":{\"cidr\":"                 \
    "\"203.0.113.0/24\"},\"ports\":\"7000\"}]}"

enum {
    ROUNDS = 4000,
    MOVE = 1 << 30,
    PIECE = 262144,
    GUARD_PORT = 5000 /* + the port that is meant */
};

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "bench_relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void address(const char *ip, int port, struct sock_addr *ret)
{
    need(sock_parse_ip(span_str(ip), (uint16_t)port, ret) == 0, "address");
}

/* -- the guard ----------------------------------------------------------------------- */

struct gate {
    struct flows *flows;
    int fd;
    struct sock_addr meant;
};

static void on_accept(void *arg, unsigned events)
{
    struct gate *g = arg;
    struct sock_addr from;
    int fd;

    (void)events;
    while ((fd = sock_accept(g->fd, &from)) >= 0)
        flows_take(g->flows, &fd, &from, &g->meant);
}

static void open_gate(struct loop *l, struct gate *g, struct flows *fs, int port)
{
    struct sock_addr at;
    struct loop_io *io;
    struct err e = {0};

    address("127.0.0.1", GUARD_PORT + port, &at);
    address("203.0.113.7", port, &g->meant);
    g->flows = fs;
    g->fd = sock_listen(&at, &e);
    need(g->fd >= 0, e.msg);
    io = loop_io_start(l, g->fd, on_accept, g, &e);
    loop_io_want(io, LOOP_READ);
}

/* Answers every A question with the server's address. */
static void on_question(void *arg, unsigned events)
{
    int fd = *(int *)arg;
    struct sockaddr_storage from;
    socklen_t from_len = sizeof(from);
    uint8_t m[1024];
    ssize_t n = recvfrom(fd, m, 512, 0, (struct sockaddr *)&from, &from_len);
    size_t at = 12;

    (void)events;
    while (n > 17 && at < (size_t)n && m[at] != 0)
        at += m[at] + 1u;
    at += 5;
    if (n < 17 || at > (size_t)n)
        return;
    m[2] = 0x81;
    m[3] = 0x80;
    memset(m + 6, 0, 6);
    if (m[at - 3] == 1) {
        m[7] = 1;
        memcpy(m + at, "\xc0\x0c\0\1\0\1\0\0\x0e\x10\0\4\xcb\0\x71\7", 16);
        at += 16;
    }
    (void)sendto(fd, m, at, 0, (struct sockaddr *)&from, from_len);
}

static void guard(int ready)
{
    static struct ward w;
    static struct guard g;
    static struct policy_faults faults;
    static struct gate tls, plain;
    struct err e = {0};
    int none[2] = {-1, -1}, dns;
    struct sock_addr at;
    struct loop_io *io;

    mem_tune(1 << 20);
    g.loop = loop_new(&e);
    g.audit = audit_new(open("/dev/null", O_WRONLY | O_APPEND | O_CLOEXEC));
    address("127.0.0.1", 5353, &at);
    (void)sock_print(&at, g.resolvers);
    dns = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    need(bind(dns, &at.u.sa, at.len) == 0, "bind");
    io = loop_io_start(g.loop, dns, on_question, &dns, &e);
    loop_io_want(io, LOOP_READ);
    w.guard = &g;
    w.index = 1;
    w.policy = policy_compile(span_str(POLICY), NULL, &faults);
    need(w.policy != NULL, faults.at[0].text);
    w.pins = pins_new(&w, &e);
    w.names = names_new(&w, &e);
    w.flows = flows_new(&w, none, &e);
    need(w.flows != NULL, e.msg);
    open_gate(g.loop, &tls, w.flows, 443);
    open_gate(g.loop, &plain, w.flows, 7000);
    need(write(ready, "", 1) == 1, "ready");
    loop_run(g.loop);
}

/* -- the server ---------------------------------------------------------------------- */

/* One byte back for the first that comes, or `MOVE` bytes swallowed and then one back. */
static void serve(int fd, bool is_bulk, uint8_t *piece)
{
    size_t got = 0;

    while (got < (is_bulk ? MOVE : 1)) {
        ssize_t n = recv(fd, piece, PIECE, 0);

        if (n <= 0)
            return;
        got += (size_t)n;
    }
    (void)send(fd, "", 1, MSG_NOSIGNAL);
    (void)recv(fd, piece, PIECE, 0);
}

static void server(int ready)
{
    struct pollfd p[2];
    uint8_t *piece = mem_alloc(PIECE);
    struct sock_addr at;
    struct err e = {0};

    for (int i = 0; i < 2; i++) {
        address("203.0.113.7", i ? 7000 : 443, &at);
        p[i] = (struct pollfd){.fd = sock_listen(&at, &e), .events = POLLIN};
        need(p[i].fd >= 0, e.msg);
    }
    need(write(ready, "", 1) == 1, "ready");
    for (;;) {
        need(poll(p, 2, -1) > 0, "poll");
        for (int i = 0; i < 2; i++) {
            int fd = p[i].revents ? accept4(p[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;

            if (fd < 0)
                continue;
            serve(fd, i == 1, piece);
            sock_close(&fd);
        }
    }
}

/* -- the client ---------------------------------------------------------------------- */

static int connect_to(const char *ip, int port)
{
    struct sock_addr a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address(ip, port, &a);
    need(connect(fd, &a.u.sa, a.len) == 0, "connect");
    return fd;
}

/* A ClientHello for bench.example, 93 bytes. */
static size_t hello(uint8_t *p)
{
    static const uint8_t head[] = {0x16, 3, 1,  0, 73, 1,
                                   0,    0, 69, 3, 3}; /* record, message, version */
    static const uint8_t mid[] = {0, 0, 2, 0x13, 1, 1,  0, 0, 22,
                                  0, 0, 0, 18,   0, 16, 0, 0, 13};
    static const char name[] = "bench.example";
    size_t n = 0;

    memcpy(p, head, sizeof(head));
    n = sizeof(head);
    memset(p + n, 7, 32);
    n += 32;
    memcpy(p + n, mid, sizeof(mid));
    n += sizeof(mid);
    memcpy(p + n, name, sizeof(name) - 1);
    n += sizeof(name) - 1;
    p[4] = (uint8_t)(n - 5);
    p[8] = (uint8_t)(n - 9);
    return n;
}

static void set_up(const char *ip, int port, const char *what, double *ret_p50)
{
    static uint64_t took[ROUNDS];
    uint8_t bytes[256], one;
    size_t n = hello(bytes);

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t began = samples_now();
        int fd = connect_to(ip, port);

        need(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n, "send");
        need(recv(fd, &one, 1, 0) == 1, "answer");
        took[i] = samples_now() - began;
        sock_close(&fd);
    }
    samples_sort(took, ROUNDS);
    *ret_p50 = (double)took[ROUNDS / 2] / 1000;
    (void)printf("  connect, hello, first byte, %-14s p50 %6.1f us  p99 %6.1f us\n", what,
                 *ret_p50, (double)took[ROUNDS * 99 / 100] / 1000);
}

static double bulk(const char *ip, int port, const uint8_t *piece)
{
    int fd = connect_to(ip, port);
    uint64_t began = samples_now();
    size_t sent = 0;
    uint8_t one;

    while (sent < MOVE) {
        ssize_t n = send(fd, piece, PIECE, MSG_NOSIGNAL);

        need(n > 0, "send");
        sent += (size_t)n;
    }
    need(recv(fd, &one, 1, 0) == 1, "answer");
    sock_close(&fd);
    return (double)MOVE * 8 / (double)(samples_now() - began);
}

static void client(void)
{
    uint8_t *piece = mem_zalloc(1, PIECE);
    double direct, guarded, best[2] = {0, 0};

    set_up("203.0.113.7", 443, "direct", &direct);
    set_up("127.0.0.1", GUARD_PORT + 443, "through guard", &guarded);
    (void)printf("  added by the name check and the relay: p50 %.1f us\n",
                 guarded - direct);
    for (int i = 0; i < 5; i++) {
        double a = bulk("203.0.113.7", 7000, piece);
        double b = bulk("127.0.0.1", GUARD_PORT + 7000, piece);

        best[0] = a > best[0] ? a : best[0];
        best[1] = b > best[1] ? b : best[1];
    }
    (void)printf("  one stream: direct %.1f Gbit/s, through the relay %.1f Gbit/s, ratio "
                 "%.2f\n",
                 best[0], best[1], best[1] / best[0]);
    mem_free(piece);
}

/* -- all ----------------------------------------------------------------------------- */

static pid_t start(void (*fn)(int))
{
    int p[2];
    pid_t pid;
    char byte;

    need(pipe2(p, O_CLOEXEC) == 0, "pipe");
    pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        fn(p[1]);
        exit(0);
    }
    (void)close(p[1]);
    need(read(p[0], &byte, 1) == 1, "start");
    (void)close(p[0]);
    return pid;
}

int main(void)
{
    pid_t child[2];

    if (!own_network_enter())
        return 0;
    (void)printf("bench_relay: connections through the guard, on loopback\n");
    (void)fflush(stdout);
    child[0] = start(server);
    child[1] = start(guard);
    client();
    for (int i = 0; i < 2; i++) {
        (void)kill(child[i], SIGKILL);
        (void)waitpid(child[i], NULL, 0);
    }
    return 0;
}
