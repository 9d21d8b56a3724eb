/* SPDX-License-Identifier: MIT */
/**
 * keeper_link -- the guard's end of the channel: requests with their answers.
 *
 * Shape    records that the keeper does not take at once are queued, bounded. on_gone
 *          comes once, after every open request was answered with NULL. A keeper that
 *          breaks the protocol is gone too.
 */
#ifndef AGENTD_EGRESS_GUARD_KEEPER_LINK_H
#define AGENTD_EGRESS_GUARD_KEEPER_LINK_H

#include "agentd/egress/channel.h"
#include "common/loop.h"

struct keeper_link;
struct keeper_request;
/** The answer (REPLY, WHO), lent; NULL: the keeper is gone or did not answer in
 *  KEEPER_ANSWER_MS. Descriptors may be taken (set to -1). */
typedef void keeper_answer_fn(void *arg, struct channel_msg *m);
/** A message that is no answer. */
typedef void keeper_message_fn(void *arg, struct channel_msg *m);
/** The channel is closed or broken; once. */
typedef void keeper_gone_fn(void *arg);

#define KEEPER_ANSWER_MS    2000
#define KEEPER_REQUESTS_MAX 4096
#define KEEPER_QUEUE_MAX    8192 /* records that wait for a keeper that does not read */
#define KEEPER_QUEUE_BYTES  4194304

struct keeper_link *keeper_link_new(struct loop *l, int *take_fd,
                                    keeper_message_fn *on_message,
                                    keeper_gone_fn *on_gone, void *arg, struct err *e);
/** Requests still open are told nothing more. Not from a callback of its own. */
void keeper_link_free(struct keeper_link *k);
/** Send m (its seq is set here) and have fn called once, never inside. NULL with *e. */
struct keeper_request *keeper_link_ask(struct keeper_link *k, struct channel_msg *m,
                                       keeper_answer_fn *fn, void *arg, struct err *e);
/** fn will not be called. Fine with NULL; sets *r to NULL. */
void keeper_link_cancel(struct keeper_request **r);
/** Send, or queue; descriptors of m stay the caller's. -1: gone, or the queue is full. */
int keeper_link_send(struct keeper_link *k, const struct channel_msg *m, struct err *e);

#endif
