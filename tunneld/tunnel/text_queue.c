/* SPDX-License-Identifier: MIT */
#include "tunneld/tunnel/text_queue.h"

int text_queue_add(struct text_queue *t, struct span text)
{
    AUTO(buf_done)
    struct buf whole = BUF_INIT;
    size_t n = text.len;

    /* In one piece: a length without its bytes would take the next message's for them. */
    if (buf_add(&whole, &n, sizeof n) < 0 || buf_add(&whole, text.p, text.len) < 0)
        return -1;
    return bufq_add(&t->q, whole.p, whole.len);
}

static void take(struct text_queue *t, void *out, size_t n)
{
    uint8_t *at = out;

    while (n > 0) {
        struct span s = bufq_peek(&t->q);
        size_t k = s.len < n ? s.len : n;

        memcpy(at, s.p, k);
        bufq_consume(&t->q, k);
        at += k;
        n -= k;
    }
}

size_t text_queue_take(struct text_queue *t, uint8_t *out)
{
    size_t n = 0;

    if (t->q.len == 0)
        return 0;
    take(t, &n, sizeof n);
    take(t, out, n);
    return n;
}

void text_queue_done(struct text_queue *t)
{
    bufq_done(&t->q);
}
