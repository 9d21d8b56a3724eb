/* SPDX-License-Identifier: MIT */
/**
 * pin_batch -- pins on their way to the kernel: as many messages to the keeper as they
 *              need, one answer.
 *
 * Made, filled, sent once; then it ends by its function or by pin_batch_cancel().
 */
#ifndef AGENTD_EGRESS_GUARD_PIN_BATCH_H
#define AGENTD_EGRESS_GUARD_PIN_BATCH_H

#include "agentd/egress/guard/ward.h"

#define PIN_BATCH_MESSAGES 512 /* in one batch: a full table with two ports a name */

struct pin_batch;
/** @ok  all of them are in the kernel. The batch is dead. */
typedef void pin_batch_fn(void *arg, bool ok);

/** fn once, after pin_batch_send() and never inside; NULL: no memory. */
struct pin_batch *pin_batch_new(struct ward *w, pin_batch_fn *fn, void *arg);
/** @left_ms  until it ends, rounded up to seconds; 0: take it out */
void pin_batch_add(struct pin_batch *b, const struct ip_addr *a, uint16_t port,
                   uint64_t left_ms);
/** 0; -1 with *e when some of it could not be sent: cancel it. An empty batch is
 *  answered too. */
int pin_batch_send(struct pin_batch *b, struct err *e);
void pin_batch_cancel(struct pin_batch **b);

#endif
