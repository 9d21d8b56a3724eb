/* SPDX-License-Identifier: MIT */
#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

enum {
    BUF_FIRST = 256,
    CHUNK_SMALL = 4096,   /* with its header: what a head or an event needs */
    CHUNK_BULK = 65536,   /* as much as a read(2) of a busy socket gives */
    CHUNK_TAIL_MIN = 2048 /* less room than this at the tail is not worth a system call */
};

void buf_done(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf)BUF_INIT;
}

int buf_reserve(struct buf *b, size_t n, size_t max)
{
    size_t cap = b->cap > 0 ? b->cap : BUF_FIRST;
    uint8_t *p;

    if (b->len > max || n > max - b->len)
        return -1;
    if (n <= b->cap - b->len)
        return 0;
    while (cap - b->len < n) {
        if (cap > SIZE_MAX / 2)
            return -1;
        cap *= 2;
    }
    if (cap > max)
        cap = max;
    p = mem_resize(b->p, cap);
    if (p == NULL)
        return -1;
    b->p = p;
    b->cap = cap;
    return 0;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return 0;
    if (buf_reserve(b, n, SIZE_MAX) < 0)
        return -1;
    memcpy(b->p + b->len, p, n);
    b->len += n;
    return 0;
}

int buf_adds(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    /* One byte more than is kept: vsnprintf() writes a NUL. */
    if (n < 0 || buf_reserve(b, (size_t)n + 1, SIZE_MAX) < 0)
        return -1;
    va_start(ap, fmt);
    (void)vsnprintf((char *)b->p + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

void buf_drop(struct buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    if (n > 0) {
        memmove(b->p, b->p + n, b->len - n);
        b->len -= n;
    }
}

/* Only the last chunk may be empty: an empty tail is always filled before another chunk
 * is made, so the head is empty only when the queue is. */
struct bufq_chunk {
    struct bufq_chunk *next;
    size_t start, end, cap; /* offsets into bytes[] */
    uint8_t bytes[];
};

void bufq_done(struct bufq *q)
{
    struct bufq_chunk *k;

    while ((k = q->head) != NULL) {
        q->head = k->next;
        mem_free(k);
    }
    *q = (struct bufq){0};
}

static size_t tail_room(const struct bufq *q)
{
    return q->tail != NULL ? q->tail->cap - q->tail->end : 0;
}

/* A queue that grows gets greater chunks, so a slow reader does not cost many small ones.
 */
static struct bufq_chunk *chunk_add(struct bufq *q, size_t want)
{
    size_t size = CHUNK_SMALL;
    size_t least = q->len > want ? q->len : want;
    struct bufq_chunk *k;

    while (size < CHUNK_BULK && size - sizeof(*k) < least)
        size *= 2;
    k = mem_alloc(size);
    if (k == NULL)
        return NULL;
    k->next = NULL;
    k->start = k->end = 0;
    k->cap = size - sizeof(*k);
    if (q->tail != NULL)
        q->tail->next = k;
    else
        q->head = k;
    q->tail = k;
    return k;
}

/* Takes back what a failed bufq_add() put after `tail` (NULL: all there is). */
static void cut_after(struct bufq *q, struct bufq_chunk *tail)
{
    struct bufq_chunk *k = tail != NULL ? tail->next : q->head;

    while (k != NULL) {
        struct bufq_chunk *next = k->next;

        mem_free(k);
        k = next;
    }
    q->tail = tail;
    if (tail != NULL)
        tail->next = NULL;
    else
        q->head = NULL;
}

int bufq_add(struct bufq *q, const void *p, size_t n)
{
    struct bufq_chunk *tail = q->tail;
    size_t tail_end = tail != NULL ? tail->end : 0;
    size_t len = q->len;
    size_t room = tail_room(q);
    struct span rest = span_of(p, n);

    while (rest.len > 0) {
        size_t take;

        if (room == 0) {
            if (chunk_add(q, rest.len) == NULL) {
                cut_after(q, tail);
                if (tail != NULL)
                    tail->end = tail_end;
                q->len = len;
                return -1;
            }
            room = tail_room(q);
        }
        take = rest.len < room ? rest.len : room;
        memcpy(q->tail->bytes + q->tail->end, rest.p, take);
        bufq_commit(q, take);
        rest = span_skip(rest, take);
        room -= take;
    }
    return 0;
}

uint8_t *bufq_reserve(struct bufq *q, size_t want, size_t *ret_cap)
{
    size_t room = tail_room(q);
    struct bufq_chunk *k = q->tail;

    if (k == NULL || (k->start != k->end && room < want && room < CHUNK_TAIL_MIN)) {
        k = chunk_add(q, want);
        if (k == NULL)
            return NULL;
    }
    *ret_cap = k->cap - k->end;
    return k->bytes + k->end;
}

void bufq_commit(struct bufq *q, size_t n)
{
    q->tail->end += n;
    q->len += n;
}

struct span bufq_peek(const struct bufq *q)
{
    const struct bufq_chunk *k = q->head;

    if (k == NULL)
        return span_of(NULL, 0);
    return span_of(k->bytes + k->start, k->end - k->start);
}

void bufq_consume(struct bufq *q, size_t n)
{
    struct bufq_chunk *k;

    q->len -= n;
    while ((k = q->head) != NULL) {
        size_t have = k->end - k->start;

        if (n < have) {
            k->start += n;
            return;
        }
        n -= have;
        q->head = k->next;
        if (q->head == NULL)
            q->tail = NULL;
        mem_free(k);
        if (n == 0 && q->len > 0)
            return;
    }
}
