/* SPDX-License-Identifier: MIT */
/**
 * forward -- streams that the server opens, each joined to one connection to the program
 *            that listens on the port.
 *
 * Shape    drives itself on the loop. Bytes are read straight into the stream's queue and
 *          written straight from the link's, so nothing is held here: what the program
 * does not take stays in the stream's window, and what the link does not take stays in
 *          the program's socket.
 * Ends     half-close both ways; a reset on one side is a reset on the other.
 * Limits   FORWARD_*; connections as the conf says.
 */
#ifndef AGENTD_FORWARD_FORWARD_H
#define AGENTD_FORWARD_FORWARD_H

#include "agentd/forward/netns.h"
#include "agentd/forward/published.h"
#include "common/loop.h"
#include "common/mux.h"

#define FORWARD_CONNECT_MS 5000  /* until the program's address answers */
#define FORWARD_READ_MIN   4000  /* bytes of one read, with a chunk's head a page */
#define FORWARD_READ_MAX   65536 /* after one that was filled */
#define FORWARD_READS      2     /* reads for one stream in one turn */
#define FORWARD_FLUSH_MS   5000  /* a broken connection's last bytes may take */

struct forward;

struct forward_conf {
    const struct published *table; /* borrowed, outlives the forward */
    struct netns *ns;              /* borrowed; NULL: here */
    unsigned max_flows;            /* connections at once; further streams get LIMIT */
};

/** NULL: no memory. */
struct forward *forward_new(struct loop *l, const struct forward_conf *conf);
/** As mux_ops.opened. Takes the stream or resets it. */
void forward_opened(struct forward *f, struct mux_stream *s, const struct mux_open *open);
unsigned forward_flows(const struct forward *f);
/** Resets every stream that is left. Not inside a callback. NULL is fine. */
void forward_free(struct forward *f);

#endif
