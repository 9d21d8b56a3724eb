/* SPDX-License-Identifier: MIT */
/**
 * wire -- a bounded reader over received bytes.
 *
 * The reader keeps one sticky failure flag: after the first short read every
 * later read yields 0, so a parser reads all its fields and checks once.
 * Big-endian, as all our formats are.
 */
#ifndef COMMON_WIRE_H
#define COMMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_rd {
    const uint8_t *p;   /* next byte */
    const uint8_t *end; /* one past the last byte */
    bool bad;           /* a read went past the end */
};

static inline struct wire_rd wire_rd_init(const void *base, size_t len)
{
    const uint8_t *p = base;

    return (struct wire_rd){.p = p, .end = p + len};
}

static inline size_t wire_rd_left(const struct wire_rd *r)
{
    return (size_t)(r->end - r->p);
}

uint32_t wire_rd_uint(struct wire_rd *r, unsigned nbytes);

/** Sub-reader over the next `len` bytes; `r` is advanced past them. */
struct wire_rd wire_rd_sub(struct wire_rd *r, size_t len);

#endif
