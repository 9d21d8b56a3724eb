/* SPDX-License-Identifier: MIT */
/**
 * timerheap -- a pairing heap of loop timers, threaded through them, earliest key_ms at the
 *              root. No memory of its own. For common/loop only.
 */
#ifndef COMMON_TIMERHEAP_H
#define COMMON_TIMERHEAP_H

#include "common/loop.h"

/** Put in a timer that is in no heap. O(1). */
void timerheap_put(struct loop_timer **root, struct loop_timer *t);
/** Take one out, wherever it is. Amortised O(log n). */
void timerheap_cut(struct loop_timer **root, struct loop_timer *t);

#endif
