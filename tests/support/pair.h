/* SPDX-License-Identifier: MIT */
/**
 * pair -- two mux engines joined by byte queues that a test can cut, delay and stop, and
 *         a seeded source of chance that gives the same run for the same seed.
 *
 * Memory comes from malloc(), not from common/mem.h: failing allocations is
 * for the engines.
 */
#ifndef TESTS_SUPPORT_PAIR_H
#define TESTS_SUPPORT_PAIR_H

#include <stdint.h>

#include "common/mux.h"

struct pair_rng {
    uint64_t state;
};
uint32_t pair_rand(struct pair_rng *r);
uint32_t pair_below(struct pair_rng *r, uint32_t n); /* 0..n-1 */

struct pair_wire {
    uint8_t *p;
    size_t start, end, cap;
    uint64_t total; /* bytes ever put in */
};
void pair_wire_put(struct pair_wire *w, struct span bytes);
/** Up to n bytes from the front; valid until the next put. */
struct span pair_wire_take(struct pair_wire *w, size_t n);
size_t pair_wire_len(const struct pair_wire *w);

enum {
    PAIR_AGENT,
    PAIR_SERVER
};
struct pair {
    struct mux *mux[2];
    struct pair_wire wire[2]; /* [i]: written by side i, read by the other */
    uint64_t now_us;
};

/** Both engines know the other's window and max_streams from the start. */
void pair_init(struct pair *p, const struct mux_conf conf[2],
               const struct mux_ops *const ops[2], void *const owner[2]);
void pair_done(struct pair *p);
/** One mux_send() of side i into its wire; bytes written. */
size_t pair_send(struct pair *p, int i, size_t cap);
/** Give up to n bytes that side i wrote to the other side. */
enum mux_result pair_deliver(struct pair *p, int i, size_t n);
/** Send and deliver until both are quiet. */
enum mux_result pair_settle(struct pair *p);

#endif
