/* SPDX-License-Identifier: MIT */
/*
 * What a connection and a question cost, as a program sees it.
 *
 *   stopwatch server ADDRESS PORT
 *   stopwatch client ADDRESS PORT NAME     commands on standard input, an answer line to each:
 *     setup N           N connections: connect, ClientHello for NAME, first byte.   P50 P99 in us,
 *                       then the same of connect() alone
 *     ping N            N times one byte there and back on one connection.          P50 P99 in us
 *     down N, up N      N bytes on one connection.                                  MB/s
 *     ask N             N questions for NAME, one after the other.                  P50 P99 in us
 *     questions N       N questions, WINDOW of them under way.                      questions a second
 *
 * The server reads one TLS record and says `k`; then commands of nine bytes until the end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    HELLO = 517, /* as browsers pad it */
    PIECE = 131072,
    WINDOW = 32,
    SAMPLES = 200000,
    WAIT_S = 20,
    COMMAND = 9
};

struct target {
    struct sockaddr_in at;
    const char *name;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "stopwatch: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* -- bytes ---------------------------------------------------------------------------------------- */

static void tune(int fd)
{
    struct timeval tv = {WAIT_S, 0};
    int on = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static bool put(int fd, const void *p, size_t n)
{
    const uint8_t *at = p;

    while (n > 0) {
        ssize_t k = send(fd, at, n, MSG_NOSIGNAL);

        if (k <= 0)
            return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static bool get(int fd, void *p, size_t n)
{
    return recv(fd, p, n, MSG_WAITALL) == (ssize_t)n;
}

static bool put_many(int fd, uint64_t n)
{
    static const uint8_t piece[PIECE];

    for (; n > 0; n -= n < PIECE ? n : PIECE)
        if (!put(fd, piece, n < PIECE ? n : PIECE))
            return false;
    return true;
}

static bool get_many(int fd, uint64_t n)
{
    static uint8_t piece[PIECE];

    while (n > 0) {
        ssize_t k = recv(fd, piece, n < PIECE ? n : PIECE, 0);

        if (k <= 0)
            return false;
        n -= (uint64_t)k;
    }
    return true;
}

/* -- the server ------------------------------------------------------------------------------------- */

static bool obey(int fd)
{
    uint8_t command[COMMAND];
    uint64_t n;

    if (!get(fd, command, COMMAND))
        return false;
    memcpy(&n, command + 1, sizeof(n));
    switch (command[0]) {
    case 'd':
        return put_many(fd, n);
    case 'u':
        return get_many(fd, n) && put(fd, "k", 1);
    case 'p':
        return put(fd, "k", 1);
    default:
        return false;
    }
}

static void serve(int fd)
{
    uint8_t head[5], rest[16384];
    size_t n;

    tune(fd);
    if (get(fd, head, sizeof(head))) {
        n = (size_t)(head[3] << 8 | head[4]);
        if (n <= sizeof(rest) && get(fd, rest, n) && put(fd, "k", 1))
            while (obey(fd))
                ;
    }
    (void)close(fd);
}

_Noreturn static void server(const struct target *t)
{
    int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    need(s >= 0 && setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
             bind(s, (const struct sockaddr *)&t->at, sizeof(t->at)) == 0 &&
             listen(s, 128) == 0,
         "listen");
    (void)puts("ready");
    (void)fflush(stdout);
    for (;;) {
        int fd = accept(s, NULL, NULL);

        if (fd >= 0)
            serve(fd); /* one at a time: so they are measured */
    }
}

/* -- the client ------------------------------------------------------------------------------------- */

struct samples {
    size_t n;
    uint64_t ns[SAMPLES];
};

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void add(struct samples *s, uint64_t ns)
{
    if (s->n < SAMPLES)
        s->ns[s->n++] = ns;
}

static void print(struct samples *s, const char *end)
{
    need(s->n > 0, "nothing was measured");
    qsort(s->ns, s->n, sizeof(s->ns[0]), by_value);
    (void)printf("%.1f %.1f%s", (double)s->ns[s->n / 2] / 1000,
                 (double)s->ns[s->n * 99 / 100] / 1000, end);
    s->n = 0;
}

static uint8_t *put16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

/* A ClientHello of TLS 1.3 that is padded to HELLO bytes. */
static void make_hello(const char *name, uint8_t out[HELLO])
{
    static const uint8_t fixed[] = {0x13, 0x01, 0x13, 0x02, 0x13, 0x03, 0xc0, 0x2f};
    static const uint8_t versions[] = {0, 43, 0, 3, 2, 3, 4};
    static const uint8_t groups[] = {0, 10, 0, 4, 0, 2, 0, 29};
    size_t len = strlen(name), left;
    uint8_t *p = out;

    memset(out, 0, HELLO);
    *p++ = 22;
    p = put16(p, 0x0301);
    p = put16(p, HELLO - 5);
    *p++ = 1;
    *p++ = 0;
    p = put16(p, HELLO - 9);
    p = put16(p, 0x0303);
    memset(p, 7, 32); /* random */
    p += 32;
    *p++ = 32; /* session */
    p += 32;
    p = put16(p, sizeof(fixed));
    memcpy(p, fixed, sizeof(fixed));
    p += sizeof(fixed);
    *p++ = 1; /* compression: none */
    *p++ = 0;
    p = put16(p, (size_t)(out + HELLO - p) - 2);
    p = put16(p, 0); /* server_name */
    p = put16(p, len + 5);
    p = put16(p, len + 3);
    *p++ = 0;
    p = put16(p, len);
    memcpy(p, name, len);
    p += len;
    memcpy(p, versions, sizeof(versions));
    p += sizeof(versions);
    memcpy(p, groups, sizeof(groups));
    p += sizeof(groups);
    left = (size_t)(out + HELLO - p) - 4;
    p = put16(p, 21); /* padding */
    (void)put16(p, left);
}

/* Connected, and past the first byte. */
static int begin(const struct target *t, uint64_t *ret_connected)
{
    uint8_t hello[HELLO], k;
    int fd;

    make_hello(t->name, hello);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(fd >= 0, "socket");
    tune(fd);
    need(connect(fd, (const struct sockaddr *)&t->at, sizeof(t->at)) == 0, "connect");
    *ret_connected = now_ns();
    need(put(fd, hello, sizeof(hello)) && get(fd, &k, 1), "first byte");
    return fd;
}

static void setup(const struct target *t, uint64_t n)
{
    static struct samples all, connects;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t connected, start = now_ns();
        int fd = begin(t, &connected);

        add(&all, now_ns() - start);
        add(&connects, connected - start);
        (void)close(fd);
    }
    print(&all, " ");
    print(&connects, "\n");
}

static void command(int fd, char which, uint64_t n)
{
    uint8_t c[COMMAND] = {(uint8_t)which};

    memcpy(c + 1, &n, sizeof(n));
    need(put(fd, c, sizeof(c)), "command");
}

static void ping(const struct target *t, uint64_t n)
{
    static struct samples all;
    uint64_t start;
    uint8_t k;
    int fd = begin(t, &start);

    for (uint64_t i = 0; i < n; i++) {
        start = now_ns();
        command(fd, 'p', 0);
        need(get(fd, &k, 1), "answer");
        add(&all, now_ns() - start);
    }
    (void)close(fd);
    print(&all, "\n");
}

static void transfer(const struct target *t, char which, uint64_t n)
{
    uint64_t start;
    uint8_t k;
    int fd = begin(t, &start);

    start = now_ns();
    command(fd, which, n);
    if (which == 'd')
        need(get_many(fd, n), "download");
    else
        need(put_many(fd, n) && get(fd, &k, 1), "upload");
    (void)printf("%.1f\n", (double)n * 1000 / (double)(now_ns() - start));
    (void)close(fd);
}

/* -- questions --------------------------------------------------------------------------------------- */

static size_t make_question(const char *name, uint8_t out[512])
{
    static const uint8_t head[] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
    static const uint8_t end[] = {0, 0, 1, 0, 1};
    uint8_t *p = out + sizeof(head);

    memcpy(out, head, sizeof(head));
    while (*name) {
        size_t len = strcspn(name, ".");

        *p++ = (uint8_t)len;
        memcpy(p, name, len);
        p += len;
        name += len + (name[len] == '.');
    }
    memcpy(p, end, sizeof(end));
    return (size_t)(p + sizeof(end) - out);
}

static int asker(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(53)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    /* Whatever it is sent to, the sandbox's own name server answers. */
    need(inet_pton(AF_INET, "203.0.113.53", &at.sin_addr) == 1, "address");
    need(fd >= 0 && connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0, "socket");
    tune(fd);
    return fd;
}

static void answer(int fd)
{
    uint8_t got[1500];

    need(recv(fd, got, sizeof(got), 0) > 12 && (got[3] & 0xf) == 0 && got[7] > 0,
         "a question without its answer");
}

static void ask(const struct target *t, uint64_t n)
{
    static struct samples all;
    uint8_t question[512];
    size_t len = make_question(t->name, question);
    int fd = asker();

    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = now_ns();

        need(send(fd, question, len, 0) == (ssize_t)len, "send");
        answer(fd);
        add(&all, now_ns() - start);
    }
    (void)close(fd);
    print(&all, "\n");
}

static void questions(const struct target *t, uint64_t n)
{
    uint8_t question[512];
    size_t len = make_question(t->name, question);
    uint64_t sent = 0, start = now_ns();
    int fd = asker();

    for (uint64_t answered = 0; answered < n; answered++) {
        for (; sent < n && sent - answered < WINDOW; sent++)
            need(send(fd, question, len, 0) == (ssize_t)len, "send");
        answer(fd);
    }
    (void)close(fd);
    (void)printf("%.0f\n", (double)n * 1e9 / (double)(now_ns() - start));
}

static int client(const struct target *t)
{
    char line[64], *end;

    (void)puts("ready");
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *number = strchr(line, ' ');
        uint64_t n;

        need(number != NULL, "command without a number");
        *number = '\0';
        n = strtoull(number + 1, &end, 10);
        if (strcmp(line, "setup") == 0)
            setup(t, n);
        else if (strcmp(line, "ping") == 0)
            ping(t, n);
        else if (strcmp(line, "down") == 0 || strcmp(line, "up") == 0)
            transfer(t, line[0], n);
        else if (strcmp(line, "ask") == 0)
            ask(t, n);
        else if (strcmp(line, "questions") == 0)
            questions(t, n);
        (void)fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct target t = {.at.sin_family = AF_INET};
    bool is_server = argc == 4 && strcmp(argv[1], "server") == 0;
    bool is_client = argc == 5 && strcmp(argv[1], "client") == 0;

    if ((!is_server && !is_client) || inet_pton(AF_INET, argv[2], &t.at.sin_addr) != 1) {
        (void)fprintf(stderr, "usage: stopwatch server ADDRESS PORT\n"
                              "       stopwatch client ADDRESS PORT NAME\n");
        return 2;
    }
    t.at.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
    t.name = argv[4];
    if (is_server)
        server(&t);
    return client(&t);
}
