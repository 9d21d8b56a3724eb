/* SPDX-License-Identifier: MIT */
/**
 * happy -- connect to the first of several addresses that takes us (RFC 8305 5): one
 *          attempt each CONNECT_STAGGER_MS, or as soon as the one before has failed; the
 *          first connected socket wins and the others are closed.
 */
#ifndef AGENTD_LINK_HAPPY_H
#define AGENTD_LINK_HAPPY_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "common/sock.h"

struct happy;

/**
 * The end, once, from the loop; the attempt is over and its pointer dead.
 * @take_fd  a connected, non-blocking socket, to be taken (set to -1) or else it is
 * closed; -1 when *e says why not: the first failure in words, or ERR_TIMEOUT
 * @to       where it is connected
 */
typedef void happy_fn(void *arg, int *take_fd, const struct sock_addr *to,
                      const struct err *e);

struct happy_conf {
    uint32_t timeout_ms; /* for all attempts together */
    happy_fn *fn;
    void *arg;
};
/** @addr  n >= 1, tried in this order; copied, at most CONNECT_ADDRS_MAX. NULL with *e.
 */
struct happy *happy_start(struct loop *l, const struct sock_addr *addr, size_t n,
                          const struct happy_conf *conf, struct err *e);
/** No call of fn after this; *h becomes NULL; NULL is fine. */
void happy_cancel(struct happy **h);

#endif
