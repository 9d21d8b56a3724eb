/* SPDX-License-Identifier: MIT */
/**
 * cares -- a c-ares channel driven by our loop: its sockets are watched while it has
 *          them, and it is woken when it wants to try again.
 *
 * Owner    embedded in a request, one channel each; cares_done() is legal in every
 *          state, but not inside a callback of the channel's own: c-ares does not
 *          survive that. End from a job.
 * Source   ares_init_options(3), ares_process(3). cares.[ch] and the two that ask,
 *          link/resolve.c and egress/guard/dns_ask.c, are the only files that
 *          include <ares.h>.
 */
#ifndef AGENTD_LINK_CARES_H
#define AGENTD_LINK_CARES_H

#include <ares.h>

#include "common/err.h"
#include "common/loop.h"

struct cares_socket;

struct cares {
    struct loop *loop;
    ares_channel channel; /* NULL: not open */
    struct cares_socket *sockets;
    struct loop_timer tick;
};

void cares_init(struct cares *c, struct loop *l);
/**
 * Opens the channel.
 *
 * @opt      lent; its sock_state_cb is set here
 * @mask     ARES_OPT_*: what is set in it
 * @servers  "192.0.2.53:53,[2001:db8::53]:53"; NULL: those of the options or the system
 *
 * 0, or -1 with *e: ERR_NOMEM, or ERR_CONFIG when the servers are none; then cares_done()
 * is due as after success.
 */
int cares_open(struct cares *c, struct ares_options *opt, int mask, const char *servers,
               struct err *e);
/** To be called after a question was put, once: c-ares says then when it wants
 *  to try again. */
void cares_arm(struct cares *c);
/** The callbacks of questions without an answer come once more, from inside. */
void cares_done(struct cares *c);

#endif
