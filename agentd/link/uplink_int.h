/* SPDX-License-Identifier: MIT */
/** uplink_int -- what uplink.c (its life) and uplink_link.c (one link) share; nobody else
 *                includes it. */
#ifndef AGENTD_LINK_UPLINK_INT_H
#define AGENTD_LINK_UPLINK_INT_H

#include "agentd/link/dial.h"
#include "agentd/link/liveness.h"
#include "agentd/link/retry.h"
#include "agentd/link/uplink.h"
#include "agentd/link/ws_link.h"

enum uplink_state {
    UPLINK_IS_IDLE,
    UPLINK_IS_DIALING,
    UPLINK_IS_GREETING,
    UPLINK_IS_UP,
    UPLINK_IS_LOSING,
    UPLINK_IS_WAITING,
    UPLINK_IS_ENDED
};

/* RFC 6455 7.4 */
enum {
    UPLINK_WS_NORMAL = 1000,
    UPLINK_WS_GOING = 1001,
    UPLINK_WS_PROTOCOL = 1002,
    UPLINK_WS_INTERNAL = 1011
};

struct uplink {
    struct loop *loop;
    const struct uplink_ops *ops;
    void *owner;
    enum uplink_state state;

    struct server_url server;
    char id[HOST_ID_MAX + 1];
    char *token_file;    /* NULL: token */
    struct secret token; /* that was sent last, or that we were given */
    struct control_msg hello;
    bool once;
    struct mux_budget *budget; /* borrowed */
    struct dialer *dialer;     /* borrowed, or own_dialer */
    struct dialer *own_dialer;

    struct dial *dial;
    struct ws_link *ws;
    struct mux *mux;
    struct loop_job settle, pump;
    struct loop_timer wait; /* WAITING: retry; GREETING: no welcome; leaving: look */
    struct loop_timer tick; /* UP: liveness */

    /* this link */
    bool was_up, is_refused, leaving;
    enum mux_reason goaway; /* NONE: none came */
    uint64_t up_ms, leave_until_ms;
    struct liveness liveness;
    uint32_t retry_after_ms;
    struct err why; /* LOSING */

    bool stopping;
    struct retry retry;
};

/* uplink.c */

/** The dial or the link is over; the first reason stays. Anywhere. */
void uplink_lose(struct uplink *u, const struct err *why);
/** The same, and we are the ones who end it: say so to the server. */
void uplink_hang_up(struct uplink *u, unsigned status, const char *reason,
                    const struct err *why);
/** Told in a control message and again in a mux frame; the first counts. */
void uplink_on_goaway(struct uplink *u, enum mux_reason why, uint32_t retry_after_ms);

/* uplink_link.c */

extern const struct mux_ops uplink_mux_ops;
extern const struct link_user_ops uplink_link_ops;
void uplink_on_pump(void *arg); /* a job */
void uplink_on_tick(void *arg); /* a timer, while up */

#endif
