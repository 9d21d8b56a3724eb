/* SPDX-License-Identifier: MIT */
/** text_queue -- whole messages that wait for a socket, in order; its user bounds `q.len`. */
#ifndef TUNNELD_TUNNEL_TEXT_QUEUE_H
#define TUNNELD_TUNNEL_TEXT_QUEUE_H

#include "common/buf.h"

struct text_queue {
    struct bufq q; /* a length (size_t) and its bytes, each */
};

/** Copies; 0, or -1 on no memory (nothing queued). */
MUST_USE int text_queue_add(struct text_queue *t, struct span text);
/** The first message into `out`, which has room for the longest that was added; its length,
 *  0: none waits. */
size_t text_queue_take(struct text_queue *t, uint8_t *out);
void text_queue_done(struct text_queue *t);

#endif
