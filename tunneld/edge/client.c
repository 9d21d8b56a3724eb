/* SPDX-License-Identifier: MIT */
/*
 * Theory. A connection alternates between HEAD and EXCHANGE; pipelined bytes wait in `in`
 * until the exchange before them is written out, so answers keep their order. What it wants
 * of the socket is computed from its state in one place, client_watch(). There is one timer;
 * it is only ever moved closer, and asks client->due_ms when it fires, so that a deadline
 * that is renewed with each request costs nothing.
 *
 *   HANDSHAKE -> HEAD <-> EXCHANGE -> TUNNEL
 *                 |           `-----> LINGER
 *                 `-> MOVING                   all -> CLOSED
 */
#include "tunneld/edge/edge_int.h"

#include <netinet/tcp.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/metrics.h"

static void on_readable(void *owner);
static void on_writable(void *owner);
static void on_secured(void *owner, const struct err *e);
static void on_timer(void *arg);
static void on_job(void *arg);

static const struct conn_ops conn_ops = {on_readable, on_writable, on_secured};

/* -- life ------------------------------------------------------------------------------ */

/* A client that is gone without a word is found in minutes: a quiet event stream would
 * otherwise stay for ever. */
static void tune(int fd)
{
    static const int one = 1, idle_s = 60, between_s = 15, probes = 4;

    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof(between_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static int start(struct client *c, struct worker_guest *take)
{
    struct edge *e = c->edge;
    bool is_new = take->has_tls && !take->parts.ssl;

    c->conn = conn_attach(e->loop, &take->parts, &conn_ops, c, NULL);
    if (!c->conn)
        return -1;
    tune(conn_fd(c->conn));
    if (is_new && (!e->tls || conn_tls_accept(c->conn, e->tls, NULL) < 0))
        return -1;
    c->state = is_new ? CLIENT_HANDSHAKE : CLIENT_HEAD;
    return 0;
}

struct client *client_new(struct edge *e, struct worker_guest *take)
{
    struct client *c = mem_zalloc(1, sizeof(*c));

    if (!c) {
        conn_parts_done(&take->parts);
        return NULL;
    }
    c->edge = e;
    c->from = take->client;
    c->is_trusted = config_trusts(e->conf, &take->client);
    c->is_shared = take->is_trusted;
    c->is_listed = take->has_tls;
    c->accepted_ms = take->accepted_ms;
    loop_timer_init(&c->timer, e->loop, on_timer, c);
    loop_job_init(&c->job, e->loop, on_job, c);
    if (start(c, take) < 0) {
        conn_parts_done(&take->parts);
        conn_abort(&c->conn);
        loop_timer_stop(&c->timer);
        mem_free(c);
        return NULL;
    }
    c->next = e->clients;
    c->prev = &e->clients;
    if (c->next)
        c->next->prev = &c->next;
    e->clients = c;
    metric_inc(METRIC_CONNS_OPEN);
    if (c->state == CLIENT_HANDSHAKE)
        client_wait(c, WAIT_HANDSHAKE, e->conf->limits.handshake_ms);
    else
        client_wait_idle(c);
    client_watch(c);
    return c;
}

/* Everything but the connection; the memory follows in the job. */
static void let_go(struct client *c, enum mux_reason why)
{
    c->state = CLIENT_CLOSED;
    exchange_drop(c, why);
    upstream_drop_kept(c);
    buf_done(&c->in);
    bufq_done(&c->out);
    loop_timer_stop(&c->timer);
    metric_add(METRIC_CONNS_OPEN, -1);
    loop_job_defer(&c->job);
}

void client_close(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    exchange_log(c);
    conn_close(&c->conn);
    let_go(c, MUX_REASON_CANCEL);
}

void client_cut(struct client *c, const char *why)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (!c->x.error)
        c->x.error = why;
    exchange_log(c);
    conn_abort(&c->conn);
    let_go(c, MUX_REASON_CANCEL);
}

void client_free(struct client *c)
{
    loop_job_cancel(&c->job);
    if (c->edge->parsed == c)
        c->edge->parsed = NULL;
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    mem_free(c);
}

/* -- moving ---------------------------------------------------------------------------- */

/* Between two exchanges: the head that does not belong here goes along unread. */
static void move(struct client *c)
{
    struct edge *e = c->edge;
    struct worker_guest g = {
        .client = c->from,
        .is_trusted = c->is_shared,
        .has_tls = c->is_listed,
        .is_link = c->moves_link,
        .accepted_ms = c->accepted_ms,
    };
    char id[HOST_ID_MAX + 1];

    memcpy(id, c->x.site.id, sizeof(id));
    if (conn_unread(c->conn, buf_span(&c->in)) < 0 ||
        conn_unread(c->conn, buf_span(&c->x.raw)) < 0) {
        client_cut(c, "no-memory");
        return;
    }
    conn_detach(&c->conn, &g.parts);
    let_go(c, MUX_REASON_CANCEL);
    e->ops->give(e->owner, id, &g);
}

static void on_job(void *arg)
{
    struct client *c = arg;

    switch (c->state) {
    case CLIENT_CLOSED:
        client_free(c);
        return;
    case CLIENT_MOVING:
        move(c);
        return;
    case CLIENT_HEAD:
        if (c->in.len > 0)
            intake_feed(c, buf_span(&c->in));
        break;
    case CLIENT_EXCHANGE:
        if (c->x.redials) {
            c->x.redials = false;
            exchange_dial(c);
        }
        break;
    case CLIENT_HANDSHAKE:
    case CLIENT_TUNNEL:
    case CLIENT_LINGER:
        break;
    }
    client_watch(c);
}

/* -- deadlines ------------------------------------------------------------------------- */

void client_wait(struct client *c, enum client_wait what, int64_t ms)
{
    c->wait = what;
    if (what == WAIT_NONE)
        return;
    c->due_ms = loop_now(c->edge->loop) + (uint64_t)ms;
    if (!loop_timer_is_on(&c->timer) || c->timer.due_ms > c->due_ms)
        (void)loop_timer_start(&c->timer, (uint64_t)ms); /* not the first start */
}

void client_wait_idle(struct client *c)
{
    int64_t ms = c->edge->conf->limits.idle_ms;

    client_wait(c, WAIT_IDLE,
                c->edge->is_draining && ms > EDGE_DRAIN_MS ? EDGE_DRAIN_MS : ms);
}

/* The client has ended its direction: it may be waiting for its answer, or be gone. */
static bool half_is_over(struct client *c, uint64_t now)
{
    if (!c->has_eof || c->state != CLIENT_EXCHANGE || now < c->half_due_ms)
        return false;
    if (c->x.bytes_down == c->half_bytes && c->out.len == 0)
        return true;
    c->half_bytes = c->x.bytes_down;
    c->half_due_ms = now + EDGE_HALF_MS;
    return false;
}

static void expire(struct client *c)
{
    enum client_wait what = c->wait;

    c->wait = WAIT_NONE;
    switch (what) {
    case WAIT_NONE:
        break;
    case WAIT_KEPT:
        upstream_drop_kept(c);
        client_wait_idle(c);
        break;
    case WAIT_HEAD:
        exchange_refuse(c, HTTP1_E_CUT, "head took too long (HEAD_MS)");
        break;
    case WAIT_CONNECT:
    case WAIT_RESPONSE:
        exchange_fail(c, ERROR_UPSTREAM_TIMEOUT);
        break;
    case WAIT_BODY:
        c->x.keep_alive = false;
        exchange_fail(c, ERROR_BAD_REQUEST);
        break;
    case WAIT_HANDSHAKE:
    case WAIT_FLUSH:
        client_cut(c, "client-timeout");
        break;
    case WAIT_IDLE:
    case WAIT_LINGER:
        client_close(c);
        break;
    }
}

static void on_timer(void *arg)
{
    struct client *c = arg;
    uint64_t now = loop_now(c->edge->loop), due = UINT64_MAX;

    if (half_is_over(c, now)) {
        client_cut(c, "client-gone");
        return;
    }
    if (c->wait != WAIT_NONE && now >= c->due_ms)
        expire(c);
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->wait != WAIT_NONE)
        due = c->due_ms;
    if (c->has_eof && c->state == CLIENT_EXCHANGE && c->half_due_ms < due)
        due = c->half_due_ms;
    if (due != UINT64_MAX && !loop_timer_is_on(&c->timer))
        (void)loop_timer_start(&c->timer, due > now ? due - now : 0);
    client_watch(c);
}

/* -- what we want of the socket -------------------------------------------------------- */

static bool wants_read(const struct client *c)
{
    const struct exchange *x = &c->x;
    const struct upstream *u = x->up;

    switch (c->state) {
    case CLIENT_HEAD:
    case CLIENT_LINGER:
        return true;
    case CLIENT_EXCHANGE:
        /* With the request read, what comes is the next one, or the client's end. */
        if (x->is_done || x->rq.is_done)
            return !c->has_eof && c->in.len < EDGE_AHEAD;
        break;
    case CLIENT_TUNNEL:
        break;
    case CLIENT_HANDSHAKE:
    case CLIENT_MOVING:
    case CLIENT_CLOSED:
        return false;
    }
    return !c->has_eof && u && u->stream && u->is_accepted && x->pending.len == 0 &&
           mux_stream_room(u->stream) > 0;
}

void client_watch(struct client *c)
{
    unsigned want = 0;

    if (!c->conn)
        return;
    if (wants_read(c))
        want |= LOOP_READ;
    if (c->out.len > 0 || c->is_behind)
        want |= LOOP_WRITE;
    conn_want(c->conn, want);
}

/* -- writing --------------------------------------------------------------------------- */

bool client_write(struct client *c, struct span bytes, size_t *ret_n)
{
    enum conn_result r;
    size_t n = 0;

    *ret_n = 0;
    while (*ret_n < bytes.len) {
        r = conn_write(c->conn, bytes.p + *ret_n, bytes.len - *ret_n, &n);
        if (r == CONN_AGAIN)
            break;
        if (r != CONN_OK) {
            client_cut(c, "client-gone");
            return false;
        }
        *ret_n += n;
    }
    return true;
}

bool client_send(struct client *c, struct span bytes)
{
    size_t n = 0;

    if (c->out.len == 0 && !client_write(c, bytes, &n))
        return false;
    if (n < bytes.len && bufq_add(&c->out, bytes.p + n, bytes.len - n) < 0) {
        client_cut(c, "no-memory");
        return false;
    }
    return true;
}

static bool flush(struct client *c)
{
    while (c->out.len > 0) {
        struct span s = bufq_peek(&c->out);
        size_t n;

        if (!client_write(c, s, &n))
            return false;
        if (n > 0 && c->wait == WAIT_FLUSH)
            client_wait(c, WAIT_FLUSH, c->edge->conf->limits.idle_ms);
        bufq_consume(&c->out, n);
        if (n < s.len)
            break;
    }
    return true;
}

static void on_readable(void *owner)
{
    intake_readable(owner);
}

static void on_writable(void *owner)
{
    struct client *c = owner;

    if (!flush(c))
        return;
    if (c->out.len == 0) {
        if (c->state == CLIENT_EXCHANGE && c->x.is_done)
            client_next(c);
        else if (c->state == CLIENT_TUNNEL && !c->x.up)
            client_close(c); /* the other side has closed, and all of it is written */
        else if (c->x.up && (c->is_behind || c->x.up->has_eof))
            relay_pull(c);
    }
    client_watch(c);
}

/* -- TLS ----------------------------------------------------------------------------------- */

static void on_secured(void *owner, const struct err *e)
{
    struct client *c = owner;

    if (e) {
        log_debug("client.handshake", "why=%s", log_q(e->msg));
        client_cut(c, "handshake");
        return;
    }
    c->state = CLIENT_HEAD;
    client_wait_idle(c);
    client_watch(c);
}
