/* SPDX-License-Identifier: MIT */
/* Two engines, joined by wires that split, delay and stop, driven by chance. Every byte of a
 * stream is a function of stream, direction and offset, so one that was lost, invented or
 * delivered elsewhere is seen when it is read. SEED=n runs one seed, printing it on failure
 * is done by check(). */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "tests/support/pair.h"

enum {
    IDS = 4096,
    STEPS = 3000,
    SEEDS = 60,
    QUIET_ROUNDS = 200
};

struct end { /* one side of one stream */
    struct run *run;
    struct mux_stream *s; /* NULL: not there, or over */
    uint32_t id;
    int side;
    uint64_t sent, got;
    bool finished, got_eof, is_stalled, was_reset, is_over, is_accepting;
    unsigned quiet_rounds;
};

struct run {
    uint64_t seed;
    unsigned step;
    struct pair_rng rng;
    struct pair pair;
    struct mux_budget budget[2];
    uint32_t window_max[2];
    struct {
        struct run *run;
        int side;
    } owner[2];
    bool is_draining;
    unsigned opened, ended_in_order;
    struct end end[2][IDS];
};

#define check(run, cond)                                                                 \
    do {                                                                                 \
        if (!(cond)) {                                                                   \
            print_error("seed %llu step %u: %s\n", (unsigned long long)(run)->seed,      \
                        (run)->step, #cond);                                             \
            fail();                                                                      \
        }                                                                                \
    } while (0)

static uint8_t byte_at(uint32_t id, int side, uint64_t offset)
{
    uint64_t x = (offset >> 3) * UINT64_C(0x9e3779b97f4a7c15) + id * 2u + (unsigned)side;

    x = (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint8_t)(x >> (8 * (offset & 7)));
}

static void verify(struct end *e, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check(e->run, p[i] == byte_at(e->id, !e->side, e->got + i));
    e->got += n;
    e->quiet_rounds = e->run->end[!e->side][e->id].quiet_rounds = 0;
    check(e->run, e->got <= e->run->end[!e->side][e->id].sent);
}

static void write_some(struct end *e, size_t n)
{
    uint8_t buf[40000];
    size_t took = 0, cap = 0, i;
    bool in_place = pair_below(&e->run->rng, 2) == 0;
    uint8_t *p = buf;

    if (e->finished)
        return;
    if (in_place) {
        p = mux_stream_reserve(e->s, n, &cap);
        if (p == NULL)
            return;
        n = n < cap ? n : cap;
    } else if (n > sizeof(buf)) {
        n = sizeof(buf);
    }
    for (i = 0; i < n; i++)
        p[i] = byte_at(e->id, e->side, e->sent + i);
    if (in_place) {
        mux_stream_commit(e->s, n);
        took = n;
    } else {
        check(e->run, mux_stream_write(e->s, span_of(buf, n), &took) == MUX_OK);
    }
    e->sent += took;
}

static void over(struct end *e)
{
    e->s = NULL;
    e->is_over = true;
}

static void reset(struct end *e)
{
    struct mux_stream *s = e->s;

    e->was_reset = e->run->end[!e->side][e->id].was_reset = true;
    over(e);
    mux_stream_reset(s, MUX_REASON_CANCEL);
}

static void read_kept(struct end *e)
{
    while (e->s != NULL && !e->is_stalled) {
        struct span k = mux_stream_peek(e->s);
        size_t n = k.len > 1 && !e->run->is_draining
                       ? 1 + pair_below(&e->run->rng, (uint32_t)k.len)
                       : k.len;

        if (k.len == 0)
            break;
        verify(e, k.p, n);
        if (mux_stream_consume(e->s, n))
            e->got_eof = true;
        if (!e->run->is_draining && pair_below(&e->run->rng, 3) == 0)
            break;
    }
}

/* -- callbacks: each checks that it may still come, and some meddle ---------------------- */

static void meddle(struct end *e)
{
    struct run *r = e->run;

    if (r->is_draining)
        return;
    switch (pair_below(&r->rng, 60)) {
    case 0:
        reset(e);
        break;
    case 1:
    case 2:
    case 3:
        write_some(e, 1 + pair_below(&r->rng, 3000));
        break;
    case 4:
        mux_stream_finish(e->s);
        e->finished = true;
        break;
    default:
        break;
    }
}

static size_t on_data(void *user, struct span bytes)
{
    struct end *e = user;
    size_t n;

    check(e->run, e->s != NULL && !e->got_eof && bytes.len > 0);
    check(e->run, mux_stream_peek(e->s).len == 0);
    n = e->is_stalled ? 0 : pair_below(&e->run->rng, (uint32_t)bytes.len + 1);
    if (!e->is_stalled && pair_below(&e->run->rng, 4) > 0)
        n = bytes.len;
    verify(e, bytes.p, n);
    meddle(e);
    return n;
}

static void on_accepted(void *user)
{
    struct end *e = user;

    check(e->run, e->s != NULL);
    meddle(e);
}

static void on_eof(void *user)
{
    struct end *e = user;

    check(e->run, e->s != NULL && !e->got_eof);
    check(e->run, e->got == e->run->end[!e->side][e->id].sent);
    e->got_eof = true;
    meddle(e);
}

static void on_writable(void *user)
{
    struct end *e = user;

    check(e->run, e->s != NULL && mux_stream_room(e->s) > 0);
    meddle(e);
}

static void on_closed(void *user, enum mux_reason why)
{
    struct end *e = user;

    check(e->run, e->s != NULL);
    over(e);
    if (why == MUX_REASON_NONE) {
        check(e->run, e->finished && e->got_eof);
        check(e->run, e->got == e->run->end[!e->side][e->id].sent);
        e->run->ended_in_order++;
    } else {
        check(e->run, e->was_reset || why == MUX_REASON_LIMIT);
        e->run->end[!e->side][e->id].was_reset = true;
    }
}

static const struct mux_stream_ops stream_ops = {
    .accepted = on_accepted,
    .data = on_data,
    .eof = on_eof,
    .writable = on_writable,
    .closed = on_closed,
};

static struct end *begin(struct run *r, int side, struct mux_stream *s)
{
    uint32_t id = mux_stream_id(s);
    struct end *e = &r->end[side][id];

    check(r, id < IDS && e->s == NULL && !e->is_over);
    e->run = r;
    e->s = s;
    e->id = id;
    e->side = side;
    e->is_stalled = !r->is_draining && pair_below(&r->rng, 8) == 0;
    r->opened++;
    return e;
}

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    struct run *r = *(struct run **)owner;
    int side = owner == &r->owner[0] ? 0 : 1;
    struct end *e = begin(r, side, s);

    check(r, open->port == 1 + mux_stream_id(s) % 1000);
    if (e->was_reset)
        check(r, r->end[!side][e->id].is_over);
    mux_stream_use(s, &stream_ops, e);
    if (!r->is_draining && pair_below(&r->rng, 20) == 0)
        reset(e);
    else if (pair_below(&r->rng, 2) == 0 || r->is_draining)
        mux_stream_accept(s);
}

static const struct mux_ops mux_ops = {.opened = on_opened};

/* -- the run ---------------------------------------------------------------------------- */

static void open_one(struct run *r, int side)
{
    uint32_t next = 0;
    struct mux_open open = {.kind = MUX_KIND_TCP};
    enum mux_result why = MUX_OK;
    struct mux_stream *s;
    struct end *e;

    /* The port tells the id, to see OPENs that are mixed up. */
    for (next = side == PAIR_AGENT ? 1 : 2; next < IDS; next += 2)
        if (!r->end[side][next].is_over && r->end[side][next].s == NULL)
            break;
    if (next >= IDS)
        return;
    open.port = (uint16_t)(1 + next % 1000);
    e = &r->end[side][next];
    s = mux_open(r->pair.mux[side], &open, &stream_ops, e, &why);
    check(r, s != NULL || why == MUX_E_LIMIT);
    if (s == NULL)
        return;
    check(r, begin(r, side, s) == e);
}

static struct end *any_end(struct run *r)
{
    int side = (int)pair_below(&r->rng, 2);
    uint32_t start = pair_below(&r->rng, IDS);

    for (uint32_t i = 0; i < IDS; i++)
        if (r->end[side][(start + i) % IDS].s != NULL)
            return &r->end[side][(start + i) % IDS];
    return NULL;
}

static void act_on(struct run *r, struct end *e)
{
    switch (pair_below(&r->rng, 40)) {
    case 0:
        reset(e);
        break;
    case 1:
        e->is_stalled = !e->is_stalled;
        break;
    case 2:
        mux_stream_finish(e->s);
        e->finished = true;
        break;
    case 3:
    case 4:
    case 5:
        mux_stream_accept(e->s);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
        read_kept(e);
        break;
    default:
        write_some(e, 1 + pair_below(&r->rng, pair_below(&r->rng, 3) == 0 ? 60000 : 200));
        break;
    }
}

static void move(struct run *r, int side)
{
    static const uint32_t pieces[] = {1, 7, 9, 100, 5000, 20000, 200000};
    uint32_t n = pieces[pair_below(&r->rng, sizeof(pieces) / sizeof(pieces[0]))];

    if (pair_below(&r->rng, 2) == 0) {
        /* The link is busy now and then: its wire holds at most so much. */
        if (pair_wire_len(&r->pair.wire[side]) < 100000)
            (void)pair_send(&r->pair, side,
                            MUX_SEND_MIN + pair_below(&r->rng, MUX_BATCH - MUX_SEND_MIN));
    } else {
        check(r, pair_deliver(&r->pair, side, 1 + pair_below(&r->rng, n)) == MUX_OK);
    }
}

static void check_bounds(struct run *r)
{
    for (int side = 0; side < 2; side++) {
        const struct mux *m = r->pair.mux[side];
        size_t unsent = 0, n = 0;

        for (uint32_t id = 1; id < IDS; id++) {
            const struct end *e = &r->end[side][id];

            if (e->s == NULL)
                continue;
            check(r, mux_stream_unsent(e->s) <= MUX_TX_MAX);
            unsent += mux_stream_unsent(e->s);
            n++;
        }
        check(r, n == mux_streams(m));
        check(r, mux_memory(m) >= unsent);
        check(r, mux_memory(m) - unsent <= n * r->window_max[side]);
        check(r, r->budget[side].used_bytes <= r->budget[side].max_bytes);
    }
}

/* Everybody reads, accepts and finishes; each round moves all that is there. A stream that
 * has bytes under way and sees none for many rounds starves. */
static void drain(struct run *r)
{
    unsigned rounds = 0;

    r->is_draining = true;
    for (;;) {
        unsigned open = 0;

        check(r, rounds++ < 20000);
        for (int side = 0; side < 2; side++) {
            for (uint32_t id = 1; id < IDS; id++) {
                struct end *e = &r->end[side][id];

                if (e->s == NULL)
                    continue;
                open++;
                e->is_stalled = false;
                mux_stream_accept(e->s);
                read_kept(e);
                if (!e->finished)
                    mux_stream_finish(e->s);
                e->finished = true;
                check(r, e->quiet_rounds++ < QUIET_ROUNDS);
            }
        }
        if (open == 0)
            break;
        for (int side = 0; side < 2; side++)
            (void)pair_send(&r->pair, side, MUX_BATCH);
        for (int side = 0; side < 2; side++)
            check(r, pair_deliver(&r->pair, side, SIZE_MAX) == MUX_OK);
        r->pair.now_us += 500;
    }
}

static void start(struct run *r, uint64_t seed)
{
    static const uint32_t windows[] = {16, 100, 5000, 65536};
    struct mux_conf conf[2];
    const struct mux_ops *ops[2] = {&mux_ops, &mux_ops};
    void *owner[2] = {&r->owner[0], &r->owner[1]};

    memset(r, 0, sizeof(*r));
    r->seed = r->rng.state = seed;
    for (int i = 0; i < 2; i++) {
        uint32_t window = windows[pair_below(&r->rng, 4)];

        r->owner[i].run = r;
        r->owner[i].side = i;
        r->window_max[i] = window * (1 + pair_below(&r->rng, 16));
        r->budget[i].max_bytes = 1 + pair_below(&r->rng, 400000);
        conf[i] = (struct mux_conf){
            .role = i == PAIR_AGENT ? MUX_AGENT : MUX_SERVER,
            .window = window,
            .window_max = r->window_max[i],
            .max_streams = 1 + pair_below(&r->rng, 40),
            .budget = &r->budget[i],
        };
    }
    pair_init(&r->pair, conf, ops, owner);
}

static void run_seed(struct run *r, uint64_t seed)
{
    size_t live = mem_live();

    start(r, seed);
    for (r->step = 0; r->step < STEPS; r->step++) {
        uint32_t what = pair_below(&r->rng, 20);
        struct end *e;

        if (what == 0)
            open_one(r, (int)pair_below(&r->rng, 2));
        else if (what < 10)
            move(r, (int)pair_below(&r->rng, 2));
        else if (what == 10)
            mux_ping(r->pair.mux[pair_below(&r->rng, 2)], r->pair.now_us);
        else if ((e = any_end(r)) != NULL)
            act_on(r, e);
        r->pair.now_us += pair_below(&r->rng, 300);
        if (r->step % 16 == 0)
            check_bounds(r);
    }
    drain(r);
    check_bounds(r);
    for (int i = 0; i < 2; i++) {
        check(r, mux_memory(r->pair.mux[i]) == 0);
        check(r, r->budget[i].used_bytes == 0);
    }
    pair_done(&r->pair);
    check(r, mem_live() == live);
}

static void no_byte_is_lost_invented_or_misled(void **state)
{
    struct run *r = malloc(sizeof(*r));
    const char *one = getenv("SEED");
    unsigned opened = 0, in_order = 0;

    (void)state;
    assert_non_null(r);
    if (one != NULL) {
        run_seed(r, strtoull(one, NULL, 10));
    } else {
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            run_seed(r, seed);
            opened += r->opened;
            in_order += r->ended_in_order;
        }
        /* Chance did its part: most of what can happen did. */
        assert_true(opened > SEEDS * 20);
        assert_true(in_order > SEEDS * 5);
    }
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_byte_is_lost_invented_or_misled),
    };

    return cmocka_run_group_tests_name("common/mux (random)", tests, NULL, NULL);
}
