/* SPDX-License-Identifier: MIT */
/**
 * buf  -- one contiguous, growable run of bytes with a cap.
 * bufq -- a queue of byte chunks: bytes are put in at the tail and taken at the head
 *         without moving what lies between.
 *
 * Owner    whoever holds the struct; x_done() frees the memory and leaves it empty.
 * Limits   the caller's: buf takes its cap at each growth, bufq counts and its user stops.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include "common/cdefs.h"
#include "common/span.h"

struct buf {
    uint8_t *p;
    size_t len; /* bytes in use */
    size_t cap; /* bytes allocated */
};
#define BUF_INIT ((struct buf){0})

void buf_done(struct buf *b);
/** Make room for `n` more bytes while the whole stays <= max. 0, or -1 (nothing changed). */
MUST_USE int buf_reserve(struct buf *b, size_t n, size_t max);
/** Append; 0, or -1 on no memory (nothing changed). No cap: for bytes we make ourselves. */
MUST_USE int buf_add(struct buf *b, const void *p, size_t n);
MUST_USE int buf_adds(struct buf *b, const char *s);
MUST_USE int buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/** Forget the first `n` bytes; the rest moves to the front. An emptied buffer keeps its
 *  memory; buf_done() returns it. */
void buf_drop(struct buf *b, size_t n);
static inline struct span buf_span(const struct buf *b)
{
    return span_of(b->p, b->len);
}

struct bufq_chunk;
struct bufq {
    struct bufq_chunk *head, *tail;
    size_t len; /* bytes queued */
};

void bufq_done(struct bufq *q);
/** Copy bytes to the tail; 0, or -1 on no memory (nothing queued). */
MUST_USE int bufq_add(struct bufq *q, const void *p, size_t n);
/**
 * Room at the tail to fill in place, for read(2) straight into the queue.
 * @want     bytes the caller would like, > 0; a hint for a new chunk's size
 * @ret_cap  how many may be written, >= 1
 * Returns the place, or NULL on no memory. Follow with bufq_commit() before any other call.
 */
MUST_USE uint8_t *bufq_reserve(struct bufq *q, size_t want, size_t *ret_cap);
void bufq_commit(struct bufq *q, size_t n);
/** The first contiguous bytes; empty when the queue is. Valid until the next change. */
struct span bufq_peek(const struct bufq *q);
/** Forget the first `n` <= len bytes. Emptied chunks are freed. */
void bufq_consume(struct bufq *q, size_t n);

#endif
