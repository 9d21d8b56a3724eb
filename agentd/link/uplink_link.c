/* SPDX-License-Identifier: MIT */
/* What the link and the mux tell an uplink; see uplink.c for the theory. */
#include <string.h>
#include <time.h>

#include "agentd/link/uplink_int.h"
#include "common/limits.h"
#include "common/link.h"

/* -- the mux ------------------------------------------------------------------------------------ */

static void on_mux_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    struct uplink *u = owner;

    u->ops->opened(u->owner, s, open);
}

static void on_mux_wants_send(void *owner)
{
    struct uplink *u = owner;

    loop_job_defer(&u->pump);
}

static void on_mux_goaway(void *owner, enum mux_reason why)
{
    struct uplink *u = owner;

    uplink_on_goaway(u, why, 0);
}

const struct mux_ops uplink_mux_ops = {
    .opened = on_mux_opened,
    .wants_send = on_mux_wants_send,
    .goaway = on_mux_goaway,
};

/* Once per loop turn, for all that was queued in it. */
void uplink_on_pump(void *arg)
{
    struct uplink *u = arg;

    if (u->state == UPLINK_IS_UP)
        link_pump(ws_link_link(u->ws), u->mux, clock_us());
}

/* -- the link ------------------------------------------------------------------------------------ */

static int64_t slept_ms(void)
{
    struct timespec boot = {0}, mono = {0};

    (void)clock_gettime(CLOCK_BOOTTIME,
                        &boot); /* both clocks are in every Linux we run on */
    (void)clock_gettime(CLOCK_MONOTONIC, &mono);
    return (int64_t)(boot.tv_sec - mono.tv_sec) * 1000 +
           (boot.tv_nsec - mono.tv_nsec) / 1000000;
}

void uplink_on_tick(void *arg)
{
    struct uplink *u = arg;
    struct err why = {0};

    switch (liveness_look(&u->liveness, loop_now(u->loop), ws_link_last_rx_ms(u->ws),
                          slept_ms())) {
    case LIVENESS_SILENT:
        (void)err_set(&why, ERR_TIMEOUT, "nothing came from the server for %d s",
                      SILENCE_MS / 1000);
        uplink_hang_up(u, UPLINK_WS_GOING, "silence", &why);
        return;
    case LIVENESS_SLEPT:
        (void)err_set(&why, ERR_TIMEOUT, "no answer after this machine slept");
        uplink_hang_up(u, UPLINK_WS_GOING, "slept", &why);
        return;
    case LIVENESS_ASK:
        mux_ping(u->mux, clock_us());
        break;
    case LIVENESS_WELL:
        break;
    }
    loop_timer_start(&u->tick, LIVENESS_LOOK_MS);
}

static void on_welcome(struct uplink *u, const struct control_msg *m)
{
    struct err why = {0};
    uint64_t now = loop_now(u->loop);

    if (m->u.welcome.version != CONTROL_VERSION) {
        (void)err_set(&why, ERR_PROTO, "the server speaks version %u of the protocol",
                      m->u.welcome.version);
        uplink_hang_up(u, UPLINK_WS_PROTOCOL, "version", &why);
        return;
    }
    mux_set_peer(u->mux, m->u.welcome.window, m->u.welcome.max_streams);
    loop_timer_stop(&u->wait);
    u->state = UPLINK_IS_UP;
    u->was_up = true;
    u->up_ms = now;
    liveness_init(&u->liveness, now, slept_ms());
    loop_timer_start(&u->tick, LIVENESS_LOOK_MS);
    u->ops->up(u->owner, m);
}

static void on_control(struct uplink *u, const struct control_msg *m)
{
    struct err why = {0};
    enum mux_reason r;

    if (u->state == UPLINK_IS_GREETING && m->type == CONTROL_WELCOME) {
        on_welcome(u, m);
    } else if (m->type == CONTROL_GOAWAY) {
        for (r = MUX_REASON_NONE + 1; r < MUX_REASON_COUNT; r++)
            if (strcmp(m->u.goaway.reason, mux_reason_name(r)) == 0)
                break;
        u->ops->control(u->owner, m);
        uplink_on_goaway(u, r < MUX_REASON_COUNT ? r : MUX_REASON_DRAIN,
                         m->u.goaway.retry_after_ms);
    } else if (u->state == UPLINK_IS_UP && m->type == CONTROL_URL) {
        u->ops->control(u->owner, m);
    } else {
        (void)err_set(&why, ERR_PROTO, "the server sent a control message out of place");
        uplink_hang_up(u, UPLINK_WS_PROTOCOL, "control message out of place", &why);
    }
}

static void on_link_text(void *user, struct span json)
{
    struct uplink *u = user;
    struct control_msg m;
    struct err why = {0};
    int rc;

    if (u->state != UPLINK_IS_GREETING && u->state != UPLINK_IS_UP)
        return;
    rc = control_parse(json, &m, &why);
    if (rc < 0)
        uplink_hang_up(u, UPLINK_WS_PROTOCOL, "control message", &why);
    else if (rc == 0)
        on_control(u, &m);
}

static void on_link_bytes(void *user, struct span bytes)
{
    struct uplink *u = user;
    struct err why = {0};
    enum mux_result r;

    if (u->state != UPLINK_IS_GREETING && u->state != UPLINK_IS_UP)
        return;
    r = mux_recv(u->mux, bytes, clock_us());
    if (r == MUX_OK)
        return;
    if (r == MUX_E_PROTOCOL) {
        (void)err_set(&why, ERR_PROTO, "the server broke the protocol: %s",
                      mux_fault(u->mux));
        uplink_hang_up(u, UPLINK_WS_PROTOCOL, mux_fault(u->mux), &why);
    } else {
        (void)err_set(&why, ERR_NOMEM, "link: %s", mux_result_name(r));
        uplink_hang_up(u, UPLINK_WS_INTERNAL, "memory", &why);
    }
}

static void on_link_room(void *user)
{
    struct uplink *u = user;

    loop_job_defer(&u->pump);
}

static void on_link_closed(void *user, const char *reason)
{
    struct uplink *u = user;
    struct err why = {0};

    u->ws = NULL;
    (void)err_set(&why, ERR_NOTFOUND, "the link was lost: %s", reason);
    uplink_lose(u, &why);
}

const struct link_user_ops uplink_link_ops = {
    .room = on_link_room,
    .text = on_link_text,
    .bytes = on_link_bytes,
    .closed = on_link_closed,
};
