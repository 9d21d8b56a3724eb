/* SPDX-License-Identifier: MIT */
/* Questions a second through a sandbox's name server on a UDP socket: names that are
 * in the table, as most are. The keeper is a function that says yes, the kernel's sets a
 * socket that nobody reads; a child asks. */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agentd/egress/guard/dns_server.h"
#include "agentd/egress/guard/dnsmsg.h"
#include "agentd/egress/guard/keeper_link.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins.h"
#include "common/sock.h"

enum {
    NAMES = 100,
    QUESTIONS = 200000,
    WINDOW = 32, /* questions on their way */
    ROUNDS = 5
};

struct bench {
    struct guard guard;
    struct ward ward;
    int keeper, upstream, reply;
    pid_t client;
    struct loop_timer look;
    int status;
};

static uint64_t now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "bench_dns: %s\n", what);
    exit(1);
}

static int udp(struct sock_addr *at)
{
    int on = 1, fd;

    need(sock_parse_ip(span_str("127.0.0.1"), 0, at) == 0, "address");
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    need(fd >= 0 && bind(fd, &at->u.sa, at->len) == 0 && sock_local(fd, at) == 0 &&
             setsockopt(fd, SOL_IP, IP_RECVORIGDSTADDR, &on, sizeof(on)) == 0,
         "socket");
    return fd;
}

/* -- the child ----------------------------------------------------------------------- */

static double ask_all(int fd, const struct sock_addr *to)
{
    static uint8_t m[NAMES][DNSMSG_UDP_MIN];
    size_t len[NAMES];
    uint8_t got[DNSMSG_REPLY_MAX];
    unsigned sent = 0, answered = 0;
    uint64_t start;

    for (int i = 0; i < NAMES; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "n%d.example.com", i);
        len[i] = dnsmsg_ask(name, DNS_A, (uint16_t)i, m[i]);
    }
    start = now_us();
    while (answered < QUESTIONS) {
        for (; sent < QUESTIONS && sent - answered < WINDOW; sent++)
            need(sendto(fd, m[sent % NAMES], len[sent % NAMES], 0, &to->u.sa, to->len) >
                     0,
                 "send");
        need(recv(fd, got, sizeof(got), 0) > 12 && (got[3] & 0xf) == 0 && got[7] == 1,
             "a question without its answer");
        answered++;
    }
    return QUESTIONS * 1e6 / (double)(now_us() - start);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void client(const struct sock_addr *to)
{
    struct timeval tv = {5, 0};
    double rate[ROUNDS];
    struct sock_addr at;
    int fd = udp(&at);

    need(fcntl(fd, F_SETFL, 0) == 0, "blocking");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    for (int i = 0; i < ROUNDS; i++)
        rate[i] = ask_all(fd, to);
    qsort(rate, ROUNDS, sizeof(*rate), by_size);
    (void)printf("{\"name\":\"dns_questions_cached\",\"unit\":\"1/s\",\"n\":%d,"
                 "\"median\":%.0f,\"worst\":%.0f}\n",
                 ROUNDS, rate[ROUNDS / 2], rate[0]);
    (void)fflush(stdout);
    _exit(0);
}

/* -- the others, on the guard's loop ------------------------------------------------- */

static void on_keeper(void *arg, unsigned events)
{
    struct bench *b = arg;
    struct channel_msg m, r;

    UNUSED_ARG(events);
    while (channel_recv(b->keeper, &m, NULL) > 0) {
        channel_msg_init(&r, CHANNEL_REPLY, m.sandbox);
        r.seq = m.seq;
        r.fd[CHANNEL_FD_REPLY] = b->reply;
        need(channel_send(b->keeper, &r, NULL) == 0, "keeper");
        channel_msg_done(&m);
    }
}

static void on_upstream(void *arg, unsigned events)
{
    static const uint8_t a[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 203, 0, 113, 7};
    struct bench *b = arg;
    struct sock_addr from = {.len = sizeof(from.u)};
    uint8_t m[1500];
    ssize_t n = recvfrom(b->upstream, m, 1400, 0, &from.u.sa, &from.len);

    UNUSED_ARG(events);
    if (n <= DNSMSG_OPT_SIZE)
        return;
    n -= DNSMSG_OPT_SIZE;
    m[2] |= 0x80;
    m[7] = 1;
    m[11] = 0;
    memcpy(m + n, a, sizeof(a));
    (void)sendto(b->upstream, m, (size_t)n + sizeof(a), 0, &from.u.sa, from.len);
}

static void on_message(void *arg, struct channel_msg *m)
{
    UNUSED_ARG(arg);
    UNUSED_ARG(m);
}

static void on_gone(void *arg)
{
    UNUSED_ARG(arg);
}

static void on_look(void *arg)
{
    struct bench *b = arg;

    if (waitpid(b->client, &b->status, WNOHANG) == b->client)
        loop_stop(b->guard.loop);
    else
        loop_timer_start(&b->look, 50);
}

static void watch(struct bench *b, int fd, loop_io_fn *fn)
{
    struct loop_io *io = loop_io_start(b->guard.loop, fd, fn, b, NULL);

    need(io != NULL, "watch");
    loop_io_want(io, LOOP_READ);
}

int main(void)
{
    static const char policy[] = "{\"version\":1,\"name\":\"bench\",\"allow\":"
                                 "[\"*.example.com\"],\"limits\":{\"questions_per_s\":"
                                 "1000000}}";
    static struct policy_faults faults;
    static struct bench b;
    struct sock_addr at, up, pins;
    int take[2] = {-1, -1}, pair[2];

    take[0] = udp(&at);
    b.reply = dup(take[0]);
    b.upstream = udp(&up);
    b.client = fork();
    if (b.client == 0)
        client(&at);
    need(b.client > 0, "fork");
    b.guard.loop = loop_new(NULL);
    need(b.guard.loop && channel_pair(pair, NULL) == 0, "loop");
    b.keeper = pair[0];
    b.guard.keeper =
        keeper_link_new(b.guard.loop, &pair[1], on_message, on_gone, NULL, NULL);
    b.guard.audit = audit_new(-1);
    (void)snprintf(b.guard.resolvers, sizeof(b.guard.resolvers), "127.0.0.1:%u",
                   sock_port(&up));
    b.ward.guard = &b.guard;
    b.ward.index = 1;
    memcpy(b.ward.name, "bench", 6);
    b.ward.tag = 1;
    b.ward.pin_fd = udp(&pins);
    need(connect(b.ward.pin_fd, &pins.u.sa, pins.len) == 0, "pins");
    b.ward.policy = policy_compile(span_str(policy), NULL, &faults);
    need(b.ward.policy != NULL, faults.n ? faults.at[0].text : "policy");
    b.ward.names = names_new(&b.ward, NULL);
    b.ward.pins = pins_new(&b.ward, NULL);
    need(b.guard.keeper && b.guard.audit && b.ward.names && b.ward.pins, "memory");
    b.ward.dns = dns_server_new(&b.ward, take, NULL);
    need(b.ward.dns != NULL, "name server");
    watch(&b, b.keeper, on_keeper);
    watch(&b, b.upstream, on_upstream);
    loop_timer_init(&b.look, b.guard.loop, on_look, &b);
    loop_timer_start(&b.look, 50);
    loop_run(b.guard.loop);
    return b.status == 0 ? 0 : 1; /* the process's end gives back the rest */
}
