/* SPDX-License-Identifier: MIT */
/*
 * Bytes both ways. Towards the client, they go from the mux's buffer straight into the
 * connection; what it does not take stays in the stream and holds back its credit, so a
 * client that stops costs its window. Only what we made ourselves (heads, chunk framing)
 * can be in c->out, and nothing more is made until that is gone. Towards the app the
 * connection reads into the stream's own queue.
 */
#include "tunneld/edge/edge_int.h"

#include "common/metrics.h"

enum {
    READ_TUNNEL = 16384, /* messages are small; a bulk upload reads 64 KiB at once */
    READ_BODY = 65536
};

static enum relay_result no_memory(struct client *c)
{
    client_cut(c, "no-memory");
    return RELAY_CLOSED;
}

static void count_down(struct client *c, size_t n)
{
    c->x.bytes_down += n;
    metric_add(METRIC_BYTES_DOWN, (int64_t)n);
}

static void count_up(struct client *c, size_t n)
{
    c->x.bytes_up += n;
    metric_add(METRIC_BYTES_UP, (int64_t)n);
}

/* -- down ------------------------------------------------------------------------------ */

static enum relay_result flush_tx(struct client *c)
{
    struct buf *tx = &c->edge->tx;
    bool is_open = true;

    c->x.head_sent = c->x.has_head;
    if (tx->len > 0)
        is_open = client_send(c, buf_span(tx));
    tx->len = 0;
    if (tx->cap > EDGE_SCRATCH)
        buf_done(tx);
    return is_open ? RELAY_MORE : RELAY_CLOSED;
}

/* Send up to `n` bytes as they are, the first of them in one record with what is in tx. */
static enum relay_result pass(struct client *c, struct span *bytes, size_t n,
                              size_t *ret_n)
{
    struct buf *tx = &c->edge->tx;
    size_t first = 0, wrote = 0;

    if (tx->len > 0 && tx->len < EDGE_RECORD) {
        first = n < EDGE_RECORD - tx->len ? n : EDGE_RECORD - tx->len;
        if (buf_add(tx, bytes->p, first) < 0)
            return no_memory(c);
    }
    if (flush_tx(c) == RELAY_CLOSED)
        return RELAY_CLOSED;
    if (c->out.len == 0 && n > first &&
        !client_write(c, span_of(bytes->p + first, n - first), &wrote))
        return RELAY_CLOSED;
    *ret_n = first + wrote;
    *bytes = span_skip(*bytes, *ret_n);
    c->is_behind = *ret_n < n;
    count_down(c, *ret_n);
    return RELAY_MORE;
}

static int put_chunk(struct buf *out, struct span piece)
{
    char head[HTTP1_CHUNK_HEAD_MAX];
    size_t n = http1_chunk_head(head, piece.len);

    if (buf_reserve(out, n + piece.len + 2, SIZE_MAX) < 0 || buf_add(out, head, n) < 0 ||
        buf_add(out, piece.p, piece.len) < 0)
        return -1;
    return buf_add(out, "\r\n", 2);
}

static int put_end(struct buf *out, const struct http1_body *b)
{
    if (buf_add(out, "0\r\n", 3) < 0 || buf_add(out, b->trailer.p, b->trailer.len) < 0)
        return -1;
    return buf_add(out, "\r\n", 2);
}

static const char after_end[] = "bytes after the end of the answer (RFC 9112 6.3)";

static enum relay_result down_framed(struct client *c, struct span *bytes,
                                     const char **ret_rule)
{
    struct exchange *x = &c->x;
    struct buf *tx = &c->edge->tx;
    bool is_chunked = x->rs_out == HTTP1_CHUNKED;
    struct span piece;

    while (bytes->len > 0 && !x->rs.is_done) {
        if (http1_body_feed(&x->rs, bytes, &piece) != HTTP1_OK) {
            *ret_rule = http1_rule();
            return RELAY_BAD;
        }
        if (piece.len == 0)
            continue;
        if (is_chunked ? put_chunk(tx, piece) < 0 : buf_add(tx, piece.p, piece.len) < 0)
            return no_memory(c);
        count_down(c, piece.len);
    }
    if (x->rs.is_done && bytes->len > 0) {
        *ret_rule = after_end;
        return RELAY_BAD;
    }
    if (x->rs.is_done && is_chunked && put_end(tx, &x->rs) < 0)
        return no_memory(c);
    return flush_tx(c);
}

static enum relay_result down_length(struct client *c, struct span *bytes,
                                     const char **ret_rule)
{
    struct exchange *x = &c->x;
    size_t n = 0;

    if (bytes->len > x->rs.left) {
        *ret_rule = after_end;
        return RELAY_BAD;
    }
    if (pass(c, bytes, bytes->len, &n) == RELAY_CLOSED)
        return RELAY_CLOSED;
    x->rs.left -= n;
    x->rs.is_done = x->rs.left == 0;
    return RELAY_MORE;
}

static enum relay_result down_body(struct client *c, struct span *bytes,
                                   const char **ret_rule)
{
    struct exchange *x = &c->x;
    enum relay_result r;

    if (x->rs.framing == HTTP1_LENGTH || x->rs.framing == HTTP1_NONE)
        r = down_length(c, bytes, ret_rule);
    else
        r = down_framed(c, bytes, ret_rule);
    return r == RELAY_MORE && x->rs.is_done ? RELAY_DONE : r;
}

enum relay_result relay_down(struct client *c, struct span bytes, size_t *ret_used,
                             const char **ret_rule)
{
    struct span left = bytes;
    enum relay_result r = RELAY_MORE;
    size_t n;

    *ret_used = 0;
    *ret_rule = NULL;
    if (c->out.len > 0) {
        c->is_behind = true;
        return RELAY_MORE;
    }
    c->edge->tx.len = 0;
    c->x.up->has_bytes = true;
    if (!c->x.has_head)
        r = answer_head(c, &left, ret_rule);
    if (r == RELAY_MORE) {
        if (c->state == CLIENT_TUNNEL)
            r = pass(c, &left, left.len, &n);
        else
            r = c->x.has_head ? down_body(c, &left, ret_rule) : flush_tx(c);
    }
    *ret_used = bytes.len - left.len;
    return r;
}

void relay_act(struct client *c, enum relay_result r, const char *rule)
{
    switch (r) {
    case RELAY_DONE:
        exchange_done(c);
        break;
    case RELAY_BAD:
        exchange_bad_answer(c, rule);
        break;
    case RELAY_MORE:
        if (c->state == CLIENT_TUNNEL && c->in.len > 0)
            relay_up(c); /* sent before the app had agreed */
        break;
    case RELAY_CLOSED:
        break;
    }
}

void relay_pull(struct client *c)
{
    struct upstream *u = c->x.up;
    size_t budget = EDGE_TURN;

    c->is_behind = false;
    while (u->stream && c->out.len == 0) {
        struct span s = mux_stream_peek(u->stream);
        enum relay_result r;
        const char *rule;
        size_t used;

        if (s.len == 0)
            break;
        if (budget < s.len) {
            c->is_behind = true; /* go on in the next turn */
            return;
        }
        budget -= s.len;
        r = relay_down(c, s, &used, &rule);
        if (r == RELAY_CLOSED)
            return;
        if (r != RELAY_BAD && used > 0)
            u->has_eof |= mux_stream_consume(u->stream, used);
        relay_act(c, r, rule);
        if (c->x.up != u || c->is_behind)
            return;
    }
    if (u->has_eof)
        relay_eof(c);
}

/* The app has closed its direction of an upgraded connection. */
static void tunnel_eof(struct client *c)
{
    if (c->out.len > 0 || c->is_behind)
        return; /* relay_pull() comes here again */
    conn_finish(c->conn);
    if (c->has_eof)
        client_close(c);
    else
        client_wait(c, WAIT_LINGER, c->edge->conf->limits.idle_ms);
}

void relay_eof(struct client *c)
{
    struct exchange *x = &c->x;

    if (c->state == CLIENT_TUNNEL) {
        tunnel_eof(c);
        return;
    }
    if (!x->has_head) {
        exchange_lost(c, MUX_REASON_NONE);
        return;
    }
    if (http1_body_end(&x->rs) != HTTP1_OK) {
        client_cut(c, "bad-upstream");
        return;
    }
    if (x->rs_out == HTTP1_CHUNKED && !client_send(c, span_str("0\r\n\r\n")))
        return;
    exchange_done(c);
}

/* -- up -------------------------------------------------------------------------------- */

static void up_taken(struct client *c, size_t n)
{
    struct http1_body *b = &c->x.rq;

    count_up(c, n);
    if (c->state == CLIENT_TUNNEL)
        return;
    b->left -= n;
    b->is_done = b->left == 0;
}

/* The request itself is wrong, seen in the middle of its body. */
static void refuse_body(struct client *c, enum error_code code, const char *rule)
{
    c->x.keep_alive = false;
    c->x.rule = rule;
    exchange_fail(c, code);
}

/* Decode a chunked body into x.pending; false: refused. */
static bool up_chunked(struct client *c, struct span *bytes)
{
    struct exchange *x = &c->x;
    int64_t max = c->edge->conf->limits.body_bytes;
    struct span piece;

    while (bytes->len > 0 && !x->rq.is_done) {
        if (http1_body_feed(&x->rq, bytes, &piece) != HTTP1_OK) {
            refuse_body(c, ERROR_BAD_REQUEST, http1_rule());
            return false;
        }
        if (piece.len == 0)
            continue;
        count_up(c, piece.len);
        if (max > 0 && x->bytes_up > (uint64_t)max) {
            refuse_body(c, ERROR_BODY_TOO_LARGE, "body over limits.body_bytes");
            return false;
        }
        if (put_chunk(&x->pending, piece) < 0) {
            client_cut(c, "no-memory");
            return false;
        }
    }
    if (x->rq.is_done && put_end(&x->pending, &x->rq) < 0) {
        client_cut(c, "no-memory");
        return false;
    }
    return true;
}

/* False: the stream is gone for us, the exchange has ended. */
static bool up_pending(struct client *c)
{
    struct exchange *x = &c->x;
    size_t n = 0;

    if (x->pending.len == 0)
        return true;
    if (mux_stream_write(x->up->stream, buf_span(&x->pending), &n) != MUX_OK) {
        exchange_fail(c, ERROR_BAD_UPSTREAM);
        return false;
    }
    buf_drop(&x->pending, n);
    return true;
}

/* From what was read before. False: stop. */
static bool up_kept(struct client *c, bool is_raw)
{
    struct exchange *x = &c->x;
    struct span bytes = buf_span(&c->in);
    size_t n = 0;

    if (!is_raw) {
        if (!up_chunked(c, &bytes))
            return false;
        buf_drop(&c->in, c->in.len - bytes.len);
        return up_pending(c);
    }
    if (c->state != CLIENT_TUNNEL && bytes.len > x->rq.left)
        bytes.len = x->rq.left;
    if (mux_stream_write(x->up->stream, bytes, &n) != MUX_OK) {
        exchange_fail(c, ERROR_BAD_UPSTREAM);
        return false;
    }
    up_taken(c, n);
    buf_drop(&c->in, n);
    return true;
}

/* Straight into the stream's queue. False: stop. */
static bool up_direct(struct client *c, size_t *ret_n)
{
    struct exchange *x = &c->x;
    size_t want = c->state == CLIENT_TUNNEL  ? READ_TUNNEL
                  : x->rq.left < (READ_BODY) ? (size_t)x->rq.left
                                             : READ_BODY;
    size_t cap = 0;
    uint8_t *p = mux_stream_reserve(x->up->stream, want, &cap);
    enum conn_result r;

    if (!p) {
        if (mux_stream_room(x->up->stream) > 0)
            client_cut(c, "no-memory");
        return false;
    }
    r = conn_read(c->conn, p, cap < want ? cap : want, ret_n);
    mux_stream_commit(x->up->stream, r == CONN_OK ? *ret_n : 0);
    if (r == CONN_OK)
        up_taken(c, *ret_n);
    else if (r != CONN_AGAIN)
        intake_end(c, r);
    return r == CONN_OK;
}

static bool up_decoded(struct client *c, size_t *ret_n)
{
    struct edge *e = c->edge;
    enum conn_result r = conn_read(c->conn, e->rx, EDGE_AHEAD, ret_n);
    struct span bytes;

    if (r != CONN_OK) {
        if (r != CONN_AGAIN)
            intake_end(c, r);
        return false;
    }
    bytes = span_of(e->rx, *ret_n);
    if (!up_chunked(c, &bytes))
        return false;
    if (bytes.len > 0 && buf_add(&c->in, bytes.p, bytes.len) < 0) {
        client_cut(c, "no-memory");
        return false;
    }
    return up_pending(c);
}

static void up_progress(struct client *c)
{
    const struct config_limits *l = &c->edge->conf->limits;

    if (c->state == CLIENT_TUNNEL) {
        if (c->x.up->has_eof)
            client_wait(c, WAIT_LINGER, l->idle_ms);
    } else if (!c->x.rq.is_done) {
        client_wait(c, WAIT_BODY, l->body_stall_ms);
    } else if (c->x.has_head) {
        client_wait(c, WAIT_NONE, 0);
    } else {
        client_wait(c, WAIT_RESPONSE, l->response_ms);
    }
}

void relay_up(struct client *c)
{
    struct exchange *x = &c->x;
    struct upstream *u = x->up;
    bool is_tunnel = c->state == CLIENT_TUNNEL;
    bool is_raw = is_tunnel || x->rq.framing == HTTP1_LENGTH;
    size_t budget = EDGE_TURN, n = 0;
    bool goes = u && u->stream && up_pending(c), moved = false;

    while (goes && u->is_accepted && (is_tunnel || !x->rq.is_done) &&
           x->pending.len == 0 && mux_stream_room(u->stream) > 0 && budget > 0) {
        n = c->in.len;
        if (n > 0)
            goes = up_kept(c, is_raw);
        else if (c->has_eof)
            break;
        else
            goes = is_raw ? up_direct(c, &n) : up_decoded(c, &n);
        moved |= n > 0;
        budget -= n < budget ? n : budget;
    }
    if (moved && x->up == u && u->stream && c->state != CLIENT_CLOSED)
        up_progress(c);
    client_watch(c);
}
