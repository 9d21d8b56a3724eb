/* SPDX-License-Identifier: MIT */
/*
 * The way to the app: a stream kept from before or a new one, and the request's head on it.
 * The head may go with the OPEN; the body only once the agent has accepted, so that a
 * refused stream can be tried again until the hold ends. Nothing is dialled inside an event
 * of a mux: the job does it.
 */
#include "tunneld/edge/edge_int.h"

#include "common/mux.h"
#include "tunneld/edge/request.h"

static uint64_t hold_until(const struct client *c)
{
    return c->x.started_ms + (uint64_t)c->edge->conf->limits.hold_ms;
}

/* What was decided on arrival, again: the port may have come with a visibility that nobody
 * knew, the sandbox with a tenant. */
static bool is_still_allowed(const struct exchange *x, const struct registry_port *look)
{
    if (look->is_public)
        return true;
    return (x->access == ACCESS_OK || x->access == ACCESS_PREFLIGHT) &&
           access_tenant_is_ok(x->tenant, look->tenant);
}

static void send_request(struct client *c)
{
    struct edge *e = c->edge;
    struct exchange *x = &c->x;
    struct registry_port look;
    struct request_args a = {.site = &x->site,
                             .from = &c->from,
                             .is_trusted = c->is_trusted,
                             .is_tls = conn_is_tls(c->conn)};
    const struct http1_head *h = exchange_head(c);
    size_t n = 0;

    registry_look(e->registry, x->site.id, x->site.port, &look);
    if (!is_still_allowed(x, &look)) {
        exchange_fail(c, ERROR_LOGIN_REQUIRED);
        return;
    }
    x->mode = a.mode = look.host_mode;
    e->tx.len = 0;
    if (!h || request_write(h, &a, &e->tx) < 0) {
        client_cut(c, "no-memory");
        return;
    }
    if (mux_stream_write(x->up->stream, buf_span(&e->tx), &n) != MUX_OK) {
        exchange_fail(c, ERROR_BAD_UPSTREAM);
        return;
    }
    /* A very large head is more than a first window. */
    if (n < e->tx.len && buf_add(&x->pending, e->tx.p + n, e->tx.len - n) < 0) {
        client_cut(c, "no-memory");
        return;
    }
    if (x->up->is_accepted)
        exchange_accepted(c);
    else
        client_wait(c, WAIT_CONNECT, e->conf->limits.connect_ms);
}

static void fail_dial(struct client *c, enum dial_result r)
{
    exchange_fail(c, r == DIAL_OFFLINE       ? ERROR_AGENT_OFFLINE
                     : r == DIAL_PORT_CLOSED ? ERROR_PORT_CLOSED
                                             : ERROR_LIMIT);
}

static void on_dial(void *arg, enum dial_result r, struct mux_stream *s)
{
    struct client *c = arg;

    c->x.dial = NULL;
    if (r == DIAL_OK) {
        upstream_open(c->x.up, s);
        send_request(c);
    } else {
        fail_dial(c, r);
    }
    client_watch(c);
}

static void dial_new(struct client *c)
{
    struct exchange *x = &c->x;
    struct dial_want want = {
        .id = x->site.id,
        .open = {.port = x->site.port, .kind = MUX_KIND_HTTP, .client = x->client},
        .until_ms = hold_until(c),
        .after_refusal = x->after_refusal,
        .ops = &upstream_ops,
    };
    struct mux_stream *s = NULL;
    enum dial_result why = DIAL_LIMIT;

    x->up = upstream_new(c, &x->site);
    if (!x->up) {
        exchange_fail(c, ERROR_LIMIT);
        return;
    }
    want.user = x->up;
    x->dial = dial_start(c->edge->registry, &want, on_dial, c, &s, &why);
    if (s) {
        upstream_open(x->up, s);
        send_request(c);
    } else if (!x->dial) {
        fail_dial(c, why);
    }
}

void exchange_dial(struct client *c)
{
    struct exchange *x = &c->x;

    client_wait(c, WAIT_NONE, 0);
    if (!c->is_shared && !x->was_repeated && !x->after_refusal)
        x->up = upstream_take(c, &x->site, x->is_repeatable ? UINT64_MAX : EDGE_FRESH_MS);
    if (x->up)
        send_request(c);
    else
        dial_new(c);
}

void exchange_accepted(struct client *c)
{
    struct exchange *x = &c->x;
    const struct config_limits *l = &c->edge->conf->limits;

    if (x->has_head)
        return;
    if (x->rq.is_done) {
        client_wait(c, WAIT_RESPONSE, l->response_ms);
        return;
    }
    client_wait(c, WAIT_BODY, l->body_stall_ms);
    relay_up(c);
}

/* -- a stream that ended early --------------------------------------------------------- */

static void redial(struct client *c, bool after_refusal)
{
    struct exchange *x = &c->x;

    upstream_drop(&x->up, MUX_REASON_CANCEL);
    x->pending.len = 0;
    x->after_refusal = after_refusal;
    x->redials = true;
    client_wait(c, WAIT_NONE, 0);
    loop_job_defer(&c->job);
}

static enum error_code code_of(enum mux_reason why)
{
    switch (why) {
    case MUX_REASON_REFUSED:
    case MUX_REASON_NOT_PUBLISHED:
    case MUX_REASON_UNREACHABLE:
        return ERROR_PORT_CLOSED;
    case MUX_REASON_TIMEOUT:
        return ERROR_UPSTREAM_TIMEOUT;
    case MUX_REASON_LIMIT:
        return ERROR_LIMIT;
    case MUX_REASON_LINK:
    case MUX_REASON_REPLACED:
    case MUX_REASON_DRAIN:
    case MUX_REASON_TOKEN:
        return ERROR_AGENT_OFFLINE;
    case MUX_REASON_NONE:
    case MUX_REASON_CANCEL:
    case MUX_REASON_IO:
    case MUX_REASON_PROTOCOL:
    case MUX_REASON_COUNT:
        break;
    }
    return ERROR_BAD_UPSTREAM;
}

/* The other side of a tunnel has closed, or broke. */
static void tunnel_lost(struct client *c, enum mux_reason why)
{
    upstream_drop(&c->x.up, MUX_REASON_CANCEL);
    if (why != MUX_REASON_NONE)
        client_cut(c, "upstream-cut");
    else if (c->out.len == 0)
        client_close(c);
    else
        client_wait(c, WAIT_FLUSH, c->edge->conf->limits.idle_ms);
}

/* The agent said so before any program was asked: whatever was requested may come again. */
static bool is_turned_away(enum mux_reason why)
{
    switch (why) {
    case MUX_REASON_REFUSED:
    case MUX_REASON_NOT_PUBLISHED:
    case MUX_REASON_REPLACED: /* these three: the OPEN crossed a GOAWAY */
    case MUX_REASON_DRAIN:
    case MUX_REASON_TOKEN:
        return true;
    default:
        return false;
    }
}

void exchange_lost(struct client *c, enum mux_reason why)
{
    struct exchange *x = &c->x;
    const struct upstream *u = x->up;
    bool is_refused = is_turned_away(why);
    bool is_unheard = !u->has_bytes && !x->has_head;
    bool has_time = loop_now(c->edge->loop) < hold_until(c);

    if (c->state == CLIENT_TUNNEL) {
        tunnel_lost(c, why);
    } else if (is_unheard && u->is_reused && x->is_repeatable && !x->was_repeated) {
        x->was_repeated = true; /* the app closed it while it was idle */
        redial(c, false);
    } else if (is_unheard && !u->is_accepted && has_time &&
               (is_refused || (why == MUX_REASON_LINK && x->is_repeatable))) {
        /* With the link, the word that the program has the request may have been lost. */
        redial(c, is_refused);
    } else if (x->head_sent) {
        client_cut(c, "bad-upstream");
    } else if (code_of(why) == ERROR_BAD_UPSTREAM) {
        exchange_bad_answer(c, u->has_bytes
                                   ? "connection ended in the middle of an answer"
                                   : "connection ended without an answer");
    } else {
        exchange_fail(c, code_of(why));
    }
}
