/* SPDX-License-Identifier: MIT */
#include "tests/support/pair.h"

#include <stdlib.h>

#include "common/limits.h"

uint32_t pair_rand(struct pair_rng *r)
{
    /* splitmix64 */
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

uint32_t pair_below(struct pair_rng *r, uint32_t n)
{
    return (uint32_t)((uint64_t)pair_rand(r) * n >> 32);
}

void pair_wire_put(struct pair_wire *w, struct span bytes)
{
    if (w->start > (w->end - w->start)) {
        memmove(w->p, w->p + w->start, w->end - w->start);
        w->end -= w->start;
        w->start = 0;
    }
    if (bytes.len == 0)
        return;
    if (w->cap - w->end < bytes.len) {
        uint8_t *q;

        w->cap = (w->end + bytes.len) * 2;
        q = realloc(w->p, w->cap);
        if (q == NULL)
            abort();
        w->p = q;
    }
    memcpy(w->p + w->end, bytes.p, bytes.len);
    w->end += bytes.len;
    w->total += bytes.len;
}

struct span pair_wire_take(struct pair_wire *w, size_t n)
{
    struct span s;

    if (n > w->end - w->start)
        n = w->end - w->start;
    s = span_of(w->p + w->start, n);
    w->start += n;
    return s;
}

size_t pair_wire_len(const struct pair_wire *w)
{
    return w->end - w->start;
}

void pair_init(struct pair *p, const struct mux_conf conf[2],
               const struct mux_ops *const ops[2], void *const owner[2])
{
    *p = (struct pair){.now_us = 1000};
    for (int i = 0; i < 2; i++) {
        p->mux[i] = mux_new(&conf[i], ops[i], owner[i]);
        if (p->mux[i] != NULL)
            mux_set_peer(p->mux[i], conf[!i].window, conf[!i].max_streams);
    }
}

void pair_done(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        mux_free(p->mux[i]);
        free(p->wire[i].p);
    }
    *p = (struct pair){0};
}

size_t pair_send(struct pair *p, int i, size_t cap)
{
    static uint8_t out[MUX_BATCH]; /* single-threaded */
    size_t n = mux_send(p->mux[i], out, cap < sizeof(out) ? cap : sizeof(out), p->now_us);

    pair_wire_put(&p->wire[i], span_of(out, n));
    return n;
}

enum mux_result pair_deliver(struct pair *p, int i, size_t n)
{
    /* A copy of exact size, so that a read past the piece is seen by the sanitizer. */
    struct span s = pair_wire_take(&p->wire[i], n);
    uint8_t *copy = malloc(s.len > 0 ? s.len : 1);
    enum mux_result r;

    if (copy == NULL)
        abort();
    if (s.len > 0)
        memcpy(copy, s.p, s.len);
    r = mux_recv(p->mux[!i], span_of(copy, s.len), p->now_us);
    free(copy);
    return r;
}

enum mux_result pair_settle(struct pair *p)
{
    enum mux_result r = MUX_OK;
    bool moved = true;

    while (moved && r == MUX_OK) {
        moved = false;
        for (int i = 0; i < 2 && r == MUX_OK; i++) {
            while (pair_send(p, i, MUX_BATCH) > 0)
                moved = true;
            if (pair_wire_len(&p->wire[i]) > 0) {
                moved = true;
                r = pair_deliver(p, i, SIZE_MAX);
            }
        }
    }
    return r;
}
