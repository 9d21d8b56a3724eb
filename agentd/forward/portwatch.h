/* SPDX-License-Identifier: MIT */
/**
 * portwatch -- which TCP ports are listened on here, and at which address to reach each.
 *
 * Shape    drives itself on the loop: asks the kernel (NETLINK_SOCK_DIAG, state LISTEN,
 * both families) every PORTWATCH_MS and when a listener was closed (destroy group, where
 *          it can be joined), and tells the differences.
 * Cost     31 us a round with 10 listeners, 4 ms with 10,000; needs no privilege. Rounds
 *          are cut into pieces of PORTWATCH_READS buffers, so none holds the loop.
 * Owner    portwatch_free() at any time outside a callback.
 */
#ifndef AGENTD_FORWARD_PORTWATCH_H
#define AGENTD_FORWARD_PORTWATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "agentd/forward/netns.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/sock.h"

#define PORTWATCH_MS    200
#define PORTWATCH_MAX   16384 /* listening sockets kept; those beyond are not seen */
#define PORTWATCH_READS 8     /* netlink buffers read in one turn */

/** The socket of a port that is best to dial: the loopback address before others, IPv4
 *  before IPv6, a socket on the wildcard by the loopback of its family. */
struct portwatch_port {
    struct sock_addr listen; /* as the program bound it */
    struct sock_addr dial;   /* how to reach it from here */
    uint64_t inode;
    uint32_t uid;
    uint16_t port;
};

struct portwatch_ops {
    /* Ports that were not there before, and those whose socket is another one now
     * (is_new false), each once. `n` is at most PORTWATCH_BATCH; more come in further
     * calls. */
    void (*opened)(void *owner, const struct portwatch_port *port, size_t n);
    void (*closed)(void *owner, uint16_t port);
};
#define PORTWATCH_BATCH 64

struct portwatch;

/** `ns` is borrowed and outlives the watch; NULL: here. The first round begins at once,
 * from the loop. NULL with *e: no memory, or the kernel has no sock_diag. */
struct portwatch *portwatch_new(struct loop *l, struct netns *ns,
                                const struct portwatch_ops *ops, void *owner,
                                struct err *e);
void portwatch_free(struct portwatch *w); /* NULL is fine */

/** One look, without a loop: sorted by port, one entry each. Free with mem_free(). */
int portwatch_list(struct netns *ns, struct portwatch_port **ret, size_t *ret_n,
                   struct err *e);

#endif
