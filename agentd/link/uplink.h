/* SPDX-License-Identifier: MIT */
/**
 * uplink -- the life of the agent's link: dial, hello and welcome, the mux over it,
 * pings, silence, and coming back after a loss.
 *
 * Shape    drives itself on the loop. Callbacks never come inside uplink_new(),
 *          uplink_start(), uplink_send() or uplink_stop(), but from the loop; a callback
 * may call any function here except uplink_free(). Owner    whoever called uplink_new();
 * uplink_free() at any time outside a callback. Return   lost link: random in
 * 0..RETRY_FIRST_MS; then random in 0..min(RETRY_MAX_MS, RETRY_STEP_MS * 2^n), n = 0
 * again only after a link that stood RETRY_STABLE_MS. Retry-After and the server's
 * retry_after_ms are waited for first, at most RETRY_AFTER_MAX_MS.
 */
#ifndef AGENTD_LINK_UPLINK_H
#define AGENTD_LINK_UPLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/control.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/mux.h"

struct uplink;
struct dialer; /* agentd/link/dial.h: what many links of one process can share */

/** Why an uplink came to its end. The values are the exit codes of agentd(8). */
enum uplink_end {
    UPLINK_STOPPED = 0,     /* uplink_stop() has finished */
    UPLINK_REFUSED = 3,     /* the token was refused, and the token file has no other */
    UPLINK_UNREACHABLE = 4, /* `once`, and the server could not be reached or was lost */
    UPLINK_REPLACED = 5,    /* another agent instance took the sandbox */
};

struct uplink_ops {
    /* The server welcomed us; u.welcome. Streams may be opened from now on. */
    void (*up)(void *owner, const struct control_msg *welcome);
    /* An attempt failed (was_up false) or the link was lost (true); the next attempt
     * comes in retry_ms. All streams of the link have had closed() before. Not called
     * when ended() follows. */
    void (*down)(void *owner, const struct err *why, bool was_up, uint32_t retry_ms);
    /* CONTROL_URL or CONTROL_GOAWAY came. After GOAWAY the uplink does what is to be done
     * by itself; this is for telling people. */
    void (*control)(void *owner, const struct control_msg *m);
    /* The server opened a stream: as mux_ops.opened. */
    void (*opened)(void *owner, struct mux_stream *s, const struct mux_open *open);
    /* The last event. *why is in words; its code is ERR_NONE for UPLINK_STOPPED. */
    void (*ended)(void *owner, enum uplink_end end, const struct err *why);
};

/** Everything is copied by uplink_new() but the dialer. */
struct uplink_conf {
    const char *server;         /* "https://DOMAIN[:PORT]"; http:// only for loopback */
    const char *id;             /* the sandbox; canonical */
    const char *token_file;     /* read again at each dial; NULL: `token` */
    const struct secret *token; /* used when there is no file */
    const char *ca_file;        /* trusted besides the system's store; NULL: none */
    const char *proxy;          /* URL, "env" or "none"; NULL: "env" */
    bool once;                  /* one attempt; a failure or a loss is the end */
    struct mux_budget *budget;  /* borrowed, outlives the uplink; NULL: no bound */
    struct dialer *dialer;      /* borrowed, outlives the uplink; NULL: its own (then
                                 * ca_file and proxy above are used) */

    /* for the hello */
    const char *instance; /* random per agent process */
    const char *agent;    /* "agentd/0.1.0" */
    const char *hostname;
    const struct port_list *excluded; /* NULL: none */
};

/** NULL with *e: ERR_CONFIG (server, proxy, CA file, id), ERR_NOMEM, ERR_SYS. */
struct uplink *uplink_new(struct loop *l, const struct uplink_conf *conf,
                          const struct uplink_ops *ops, void *owner, struct err *e);
/** Dial for the first time, at once. */
void uplink_start(struct uplink *u);
bool uplink_is_up(const struct uplink *u);
/** Send a control message (PORT, GONE). 0, or -1: not up, or no memory. */
int uplink_send(struct uplink *u, const struct control_msg *m);
/**
 * Drain: tell the server to open no more, let the open streams end for at most
 * `drain_ms`, close, then ended(UPLINK_STOPPED). A second call with 0 ends at once. Fine
 * in any state.
 */
void uplink_stop(struct uplink *u, uint32_t drain_ms);
/** The mux while the link is up, else NULL; good until the next down() or ended(). */
struct mux *uplink_mux(struct uplink *u);
/** Ends everything at once without telling the server or the owner (open streams still
 * get closed()). NULL is fine. Not inside a callback. */
void uplink_free(struct uplink *u);

#endif
