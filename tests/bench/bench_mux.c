/* SPDX-License-Identifier: MIT */
/* Two engines joined in memory: what the mux alone costs, both sides on one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/mux.h"

enum {
    ROUNDS = 5,
    BULK_BYTES = 1 << 30,
    SHORT_STREAMS = 300000,
    FRAMES = 1000000
};

struct bench {
    struct mux *mux[2]; /* agent, server */
    uint8_t wire[MUX_BATCH];
    uint64_t got;
    unsigned answered;
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
    (void)fprintf(stderr, "bench_mux: %s\n", what);
    exit(1);
}

/* -- users --------------------------------------------------------------------------- */

static size_t take(void *user, struct span bytes)
{
    struct bench *b = user;

    b->got += bytes.len;
    return bytes.len;
}
static const struct mux_stream_ops take_ops = {.data = take};

struct answer { /* the app: answers the first bytes with 1 KiB and ends */
    struct mux_stream *s;
};

static size_t answer_data(void *user, struct span bytes)
{
    static const uint8_t body[1024];
    struct answer *a = user;
    size_t n;

    need(mux_stream_write(a->s, span_of(body, sizeof(body)), &n) == MUX_OK, "write");
    mux_stream_finish(a->s);
    return bytes.len;
}

static void answer_closed(void *user, enum mux_reason why)
{
    (void)why;
    free(user);
}
static const struct mux_stream_ops answer_ops = {.data = answer_data,
                                                 .closed = answer_closed};

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    if (open->port == 1) {
        mux_stream_use(s, &take_ops, owner);
    } else {
        struct answer *a = malloc(sizeof(*a));

        need(a != NULL, "memory");
        a->s = s;
        mux_stream_use(s, &answer_ops, a);
    }
    mux_stream_accept(s);
}

static void closed_count(void *user, enum mux_reason why)
{
    struct bench *b = user;

    need(why == MUX_REASON_NONE, "stream ended badly");
    b->answered++;
}
static const struct mux_stream_ops ask_ops = {.data = take, .closed = closed_count};

static const struct mux_ops mux_ops = {.opened = on_opened};

/* -- moving -------------------------------------------------------------------------- */

static void start(struct bench *b, uint32_t window_max)
{
    *b = (struct bench){0};
    for (int i = 0; i < 2; i++) {
        struct mux_conf conf = {
            .role = i == 0 ? MUX_AGENT : MUX_SERVER,
            .window = MUX_WINDOW,
            .window_max = window_max,
            .max_streams = MUX_STREAMS,
        };

        b->mux[i] = mux_new(&conf, &mux_ops, b);
        need(b->mux[i] != NULL, "memory");
        mux_set_peer(b->mux[i], MUX_WINDOW, MUX_STREAMS);
    }
}

static void stop(struct bench *b)
{
    mux_free(b->mux[0]);
    mux_free(b->mux[1]);
}

static void move(struct bench *b)
{
    for (int i = 0; i < 2; i++) {
        size_t n;

        while ((n = mux_send(b->mux[i], b->wire, sizeof(b->wire), now_us())) > 0)
            need(mux_recv(b->mux[!i], span_of(b->wire, n), now_us()) == MUX_OK,
                 mux_fault(b->mux[!i]));
    }
}

static struct mux_stream *open_port(struct bench *b, uint16_t port,
                                    const struct mux_stream_ops *ops)
{
    struct mux_open open = {.port = port, .kind = MUX_KIND_HTTP};
    enum mux_result why;
    struct mux_stream *s = mux_open(b->mux[1], &open, ops, b, &why);

    need(s != NULL, "open");
    return s;
}

/* MB/s through `n` streams, each with `piece` bytes written at a time. */
static double bulk(struct bench *b, unsigned n, size_t piece, uint64_t total)
{
    static uint8_t block[1 << 16];
    struct mux_stream *s[64];
    uint64_t t;

    start(b, MUX_WINDOW_MAX);
    for (unsigned i = 0; i < n; i++)
        s[i] = open_port(b, 1, &take_ops);
    t = now_us();
    while (b->got < total) {
        for (unsigned i = 0; i < n; i++) {
            size_t took = 0;

            do
                need(mux_stream_write(s[i], span_of(block, piece), &took) == MUX_OK,
                     "write");
            while (took == piece && piece >= 4096);
        }
        move(b);
    }
    t = now_us() - t;
    stop(b);
    return (double)b->got / (double)t;
}

static double bulk_1(struct bench *b)
{
    return bulk(b, 1, 1 << 16, BULK_BYTES);
}

static double bulk_16(struct bench *b)
{
    return bulk(b, 16, 1 << 14, BULK_BYTES);
}

/* Thousand frames a second: 64 streams that write 100 bytes each turn. */
static double small_frames(struct bench *b)
{
    return bulk(b, 64, 100, (uint64_t)FRAMES * 100) * 1000 / 100;
}

/* Thousand streams a second: open, 300 bytes there, 1 KiB back, closed; 64 at once. */
static double streams(struct bench *b)
{
    static const uint8_t request[300];
    unsigned opened = 0;
    uint64_t t = now_us();

    start(b, MUX_WINDOW_MAX);
    while (b->answered < SHORT_STREAMS) {
        while (opened < SHORT_STREAMS && opened - b->answered < 64) {
            struct mux_stream *s = open_port(b, 2, &ask_ops);
            size_t n;

            need(mux_stream_write(s, span_of(request, sizeof(request)), &n) == MUX_OK,
                 "write");
            mux_stream_finish(s);
            opened++;
        }
        move(b);
    }
    t = now_us() - t;
    stop(b);
    return (double)opened * 1000 / (double)t;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

int main(void)
{
    static const struct {
        const char *name, *unit;
        double (*run)(struct bench *b);
    } rows[] = {
        {"mux.bulk.1", "MB/s", bulk_1},
        {"mux.bulk.16", "MB/s", bulk_16},
        {"mux.frames.100B", "k/s", small_frames},
        {"mux.streams", "k/s", streams},
    };
    static struct bench b;

    mem_tune(8 << 20); /* as the daemons do */
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        double v[ROUNDS];

        for (int k = 0; k < ROUNDS; k++)
            v[k] = rows[i].run(&b);
        qsort(v, ROUNDS, sizeof(v[0]), by_value);
        (void)printf("{\"name\":\"%s\",\"unit\":\"%s\",\"n\":%d,\"median\":%.1f}\n",
                     rows[i].name, rows[i].unit, ROUNDS, v[ROUNDS / 2]);
    }
    return 0;
}
