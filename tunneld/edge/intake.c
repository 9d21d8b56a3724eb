/* SPDX-License-Identifier: MIT */
/* Bytes from a client: heads, what comes ahead of its turn, and its end. */
#include "tunneld/edge/edge_int.h"

#include "common/limits.h"

/* -- heads --------------------------------------------------------------------------- */

static void take_head(struct client *c, struct span bytes, size_t len)
{
    struct exchange *x = &c->x;
    bool is_kept = bytes.p == c->in.p;

    c->scan = (struct http1_scan){0};
    c->edge->parsed = NULL;
    x->raw.len = 0;
    if (buf_add(&x->raw, bytes.p, len) < 0 ||
        (!is_kept && buf_add(&c->in, bytes.p + len, bytes.len - len) < 0)) {
        client_cut(c, "no-memory");
        return;
    }
    if (is_kept)
        buf_drop(&c->in, len);
    exchange_begin(c);
}

/* @bytes  from a head's first byte: all of c->in, or all that was read with c->in empty */
void intake_feed(struct client *c, struct span bytes)
{
    size_t len = 0;
    enum http1_result r = http1_scan(&c->scan, bytes, &len);

    if (r == HTTP1_OK) {
        take_head(c, bytes, len);
        return;
    }
    if (r != HTTP1_MORE) {
        c->scan = (struct http1_scan){0};
        exchange_refuse(c, r, http1_rule());
        return;
    }
    if (bytes.p != c->in.p && buf_add(&c->in, bytes.p, bytes.len) < 0) {
        client_cut(c, "no-memory");
        return;
    }
    if (c->wait != WAIT_HEAD)
        client_wait(c, WAIT_HEAD, HEAD_MS);
}

/* The client ended its direction, or is gone. */
void intake_end(struct client *c, enum conn_result r)
{
    if (r == CONN_ERROR) {
        client_cut(c, "client-gone");
        return;
    }
    c->has_eof = true;
    switch (c->state) {
    case CLIENT_TUNNEL:
        if (c->x.up && c->x.up->stream)
            mux_stream_finish(c->x.up->stream);
        if (c->x.up && c->x.up->has_eof && c->out.len == 0)
            client_close(c);
        return;
    case CLIENT_EXCHANGE:
        if (!c->x.rq.is_done && !c->x.is_done) {
            client_cut(c, "client-gone");
            return;
        }
        c->half_bytes = c->x.bytes_down;
        c->half_due_ms = loop_now(c->edge->loop) + EDGE_HALF_MS;
        if (!loop_timer_is_on(&c->timer) || c->timer.due_ms > c->half_due_ms)
            (void)loop_timer_start(&c->timer, EDGE_HALF_MS);
        return;
    case CLIENT_HEAD: /* in the middle of one: it will not come to its end */
    case CLIENT_LINGER:
    case CLIENT_HANDSHAKE:
    case CLIENT_MOVING:
    case CLIENT_CLOSED:
        client_close(c);
        return;
    }
}

static void on_bytes(struct client *c, struct span bytes)
{
    if (c->state == CLIENT_LINGER) {
        c->lingered += bytes.len;
        if (c->lingered > EDGE_LINGER_BYTES)
            client_cut(c, "client-timeout");
        return;
    }
    if (c->state == CLIENT_HEAD && c->in.len == 0) {
        intake_feed(c, bytes);
        return;
    }
    if (buf_add(&c->in, bytes.p, bytes.len) < 0) {
        client_cut(c, "no-memory");
        return;
    }
    if (c->state == CLIENT_HEAD)
        intake_feed(c, buf_span(&c->in));
}

void intake_readable(struct client *c)
{
    enum conn_result r;
    size_t n = 0;

    if (c->state == CLIENT_TUNNEL ||
        (c->state == CLIENT_EXCHANGE && !c->x.rq.is_done && !c->x.is_done)) {
        relay_up(c);
        return;
    }
    r = conn_read(c->conn, c->edge->rx,
                  c->state == CLIENT_EXCHANGE ? EDGE_AHEAD : EDGE_RX, &n);
    if (r == CONN_AGAIN)
        return;
    if (r != CONN_OK)
        intake_end(c, r);
    else
        on_bytes(c, span_of(c->edge->rx, n));
    client_watch(c);
}

/* -- from one exchange to the next ----------------------------------------------------- */

static void finish(struct client *c, bool was_read)
{
    if (was_read && c->in.len == 0) {
        client_close(c);
        return;
    }
    /* Closing on unread bytes is a reset, and that can overtake the answer. */
    c->state = CLIENT_LINGER;
    buf_done(&c->in);
    upstream_drop_kept(c);
    conn_finish(c->conn);
    if (c->has_eof)
        client_close(c);
    else
        client_wait(c, WAIT_LINGER, EDGE_LINGER_MS);
}

void client_next(struct client *c)
{
    bool keeps = c->x.keep_alive; /* as the client was told */
    bool was_read = c->x.rq.is_done;
    bool is_short = c->edge->is_draining || c->edge->conf->limits.idle_ms <= EDGE_KEPT_MS;

    exchange_drop(c, MUX_REASON_CANCEL);
    if (!keeps || !was_read) {
        finish(c, was_read && !keeps);
        return;
    }
    c->state = CLIENT_HEAD;
    if (c->in.len > 0) {
        client_wait(c, WAIT_HEAD, HEAD_MS);
        loop_job_defer(&c->job);
    } else if (c->has_eof) {
        client_close(c);
    } else if (c->kept && !is_short) {
        client_wait(c, WAIT_KEPT, EDGE_KEPT_MS);
    } else {
        client_wait_idle(c);
    }
    if (c->in.len == 0)
        buf_done(&c->in);
}
