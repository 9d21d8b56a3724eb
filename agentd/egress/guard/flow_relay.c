/* SPDX-License-Identifier: MIT */
/*
 * Bytes. Each direction reads once an event, at most FLOW_RELAY_BUFFER, into the stack,
 * and gives it to the other side at once; what that does not take is held, and the
 * source is not read until it is gone. So an idle flow costs no buffer, and a stalled
 * one a single read's worth. Over FLOW_HELD_MAX in a sandbox reads become small. Bulk
 * goes by flow_pipe.c.
 */
#include <netinet/tcp.h>
#include <string.h>

#include "agentd/egress/guard/flow.h"

/* -- what to wait for ---------------------------------------------------------------- */

static bool wants_source(const struct flow_pump *p)
{
    return !p->has_eof && p->held.len == 0 && !p->is_paused;
}

void flow_want(struct flow *f)
{
    unsigned in = 0, out = 0;

    if (f->state == FLOW_RELAY) {
        if (wants_source(&f->up) && (!f->gate || flow_http_wants(f)))
            in |= LOOP_READ;
        if (f->down.held.len > 0)
            in |= LOOP_WRITE;
        if (wants_source(&f->down))
            out |= LOOP_READ;
        if (f->up.held.len > 0)
            out |= LOOP_WRITE;
        conn_want(f->inner, in);
        conn_want(f->outer, out);
    } else if (f->state == FLOW_REPLY) {
        conn_want(f->inner, f->words.len > 0 ? LOOP_READ | LOOP_WRITE : LOOP_READ);
    }
}

/* -- rates --------------------------------------------------------------------------- */

void flow_unpause(struct flow *f)
{
    f->up.is_paused = f->down.is_paused = false;
    if (!f->paused_prev)
        return;
    *f->paused_prev = f->paused_next;
    if (f->paused_next)
        f->paused_next->paused_prev = f->paused_prev;
    f->paused_prev = NULL;
}

static void pause_pump(struct flow *f, struct flow_pump *p)
{
    struct flows *fs = f->flows;

    p->is_paused = true;
    if (!loop_timer_is_on(&fs->refill))
        loop_timer_start(&fs->refill, FLOW_REFILL_MS);
    if (f->paused_prev)
        return;
    f->paused_next = fs->paused;
    if (f->paused_next)
        f->paused_next->paused_prev = &f->paused_next;
    f->paused_prev = &fs->paused;
    fs->paused = f;
}

/* How much may be read; 0: the pump is paused, or the flow has ended. */
static size_t room(struct flow *f, struct flow_pump *p, enum flow_way way)
{
    struct flow_limit *limit[2] = {f->flows->all, f->limit};
    uint64_t now_ms = loop_now(flows_loop(f->flows));
    size_t n = f->gate && way == FLOW_UP ? FLOW_READ_HTTP : FLOW_RELAY_BUFFER;

    if (flows_hold_much(f->flows))
        n = FLOW_READ_SMALL;
    for (int i = 0; i < 2; i++) {
        struct flow_limit *l = limit[i];

        if (!l)
            continue;
        if (flow_limit_is_used_up(l)) {
            flow_end(f, FLOW_LIMIT);
            return 0;
        }
        if (l->limits.bytes_per_s && n > FLOW_BURST_MIN)
            n = FLOW_BURST_MIN;
        n = flow_limit_room(l, way, n, now_ms);
    }
    if (n == 0)
        pause_pump(f, p);
    return n;
}

void flow_count(struct flow *f, enum flow_way way, size_t n)
{
    struct channel_counts *c = &f->flows->ward->counts;

    *(way == FLOW_UP ? &f->up.bytes : &f->down.bytes) += n;
    *(way == FLOW_UP ? &c->bytes_up : &c->bytes_down) += n;
    flow_limit_moved(f->flows->all, way, n);
    if (f->limit)
        flow_limit_moved(f->limit, way, n);
}

void flow_count_in(struct flow *f)
{
    flows_hold(f->flows, f->in.len, f->in_held);
    f->in_held = f->in.len;
}

/* -- giving -------------------------------------------------------------------------- */

/* 0, or -1: the sink is broken, or there is no memory. */
static int hold(struct flow *f, struct flow_pump *p, struct span bytes)
{
    if (bytes.len == 0)
        return 0;
    if (buf_add(&p->held, bytes.p, bytes.len) < 0)
        return -1;
    flows_hold(f->flows, bytes.len, 0);
    return 0;
}

static int give(struct flow *f, struct flow_pump *p, struct conn *sink, struct span bytes)
{
    while (bytes.len > 0 && p->held.len == 0) {
        size_t n = 0;
        enum conn_result r = conn_write(sink, bytes.p, bytes.len, &n);

        if (r == CONN_AGAIN)
            break;
        if (r != CONN_OK)
            return -1;
        bytes = span_skip(bytes, n);
    }
    return hold(f, p, bytes);
}

/* What is held, again. */
static int give_held(struct flow *f, struct flow_pump *p, struct conn *sink)
{
    while (p->pos < p->held.len) {
        size_t n = 0;
        enum conn_result r =
            conn_write(sink, p->held.p + p->pos, p->held.len - p->pos, &n);

        if (r == CONN_AGAIN)
            return 0;
        if (r != CONN_OK)
            return -1;
        p->pos += n;
    }
    flows_hold(f->flows, 0, p->held.len);
    buf_done(&p->held);
    p->pos = 0;
    return 0;
}

/* -- ends ---------------------------------------------------------------------------- */

/* Requests that wait for an answer go before the program's end. */
static bool is_up_used(const struct flow *f)
{
    return !f->gate || f->in.len == 0 || flow_http_wants(f);
}

static void pass_end(struct flow_pump *p, const struct flow_pump *other,
                     struct conn *sink)
{
    if (!p->is_done && !other->is_done)
        conn_finish(sink);
    p->is_done = true;
}

/* The second end is passed by closing. */
static void pass_ends(struct flow *f)
{
    if (f->up.has_eof && f->up.held.len == 0 && is_up_used(f))
        pass_end(&f->up, &f->down, f->outer);
    if (f->down.has_eof && f->down.held.len == 0)
        pass_end(&f->down, &f->up, f->inner);
    if (f->up.is_done && f->down.is_done)
        flow_end(f, FLOW_CLOSED);
}

/* After each step of the relay. */
static void settle(struct flow *f)
{
    if (f->state != FLOW_RELAY)
        return;
    flow_count_in(f);
    if (f->words.len > 0 && f->down.held.len == 0) {
        if (flow_http_may_say(f)) {
            flow_reply(f);
            return;
        }
        if (f->down.has_eof) { /* never more */
            flow_end(f, FLOW_GUARD);
            return;
        }
    }
    pass_ends(f);
    if (f->state == FLOW_RELAY)
        flow_want(f);
}

/* -- up ------------------------------------------------------------------------------ */

/* What HTTP lets through of f->in. */
static void send_requests(struct flow *f)
{
    struct buf *out = &f->flows->out;

    if (f->up.held.len > 0)
        return;
    buf_drop(out, out->len);
    if (!flow_http_up(f, out))
        return;
    if (give(f, &f->up, f->outer, buf_span(out)) < 0)
        flow_end(f, FLOW_RESET);
    if (out->cap > FLOW_RELAY_BUFFER)
        buf_done(out);
}

static void take_up(struct flow *f, struct span bytes)
{
    flow_count(f, FLOW_UP, bytes.len);
    if (!f->gate) {
        if (give(f, &f->up, f->outer, bytes) < 0)
            flow_end(f, FLOW_RESET);
    } else if (buf_add(&f->in, bytes.p, bytes.len) < 0) {
        flow_end(f, FLOW_NO_MEMORY);
    } else {
        send_requests(f);
    }
}

static void move_up(struct flow *f)
{
    uint8_t bytes[FLOW_RELAY_BUFFER];
    size_t n = room(f, &f->up, FLOW_UP), got = 0;

    if (n == 0) {
        settle(f);
        return;
    }
    if (flow_pipe_move(f, FLOW_UP, n)) {
        settle(f);
        return;
    }
    switch (conn_read(f->inner, bytes, n, &got)) {
    case CONN_AGAIN:
        return;
    case CONN_EOF:
        f->up.has_eof = true;
        break;
    case CONN_ERROR:
        flow_end(f, FLOW_RESET);
        return;
    case CONN_OK:
        flow_pipe_read(&f->up, got);
        take_up(f, span_of(bytes, got));
        break;
    }
    settle(f);
}

/* -- down ---------------------------------------------------------------------------- */

static void take_down(struct flow *f, struct span bytes)
{
    flow_count(f, FLOW_DOWN, bytes.len);
    if (give(f, &f->down, f->inner, bytes) < 0) {
        flow_end(f, FLOW_RESET);
        return;
    }
    if (!f->gate)
        return;
    if (!flow_http_down(f, bytes))
        return;
    if (f->in.len > 0)
        send_requests(f); /* some may have waited for this */
}

static void move_down(struct flow *f)
{
    uint8_t bytes[FLOW_RELAY_BUFFER];
    size_t n = room(f, &f->down, FLOW_DOWN), got = 0;

    if (n == 0) {
        settle(f);
        return;
    }
    if (flow_pipe_move(f, FLOW_DOWN, n)) {
        settle(f);
        return;
    }
    switch (conn_read(f->outer, bytes, n, &got)) {
    case CONN_AGAIN:
        return;
    case CONN_EOF:
        f->down.has_eof = true;
        break;
    case CONN_ERROR:
        flow_end(f, FLOW_RESET);
        return;
    case CONN_OK:
        flow_pipe_read(&f->down, got);
        take_down(f, span_of(bytes, got));
        break;
    }
    settle(f);
}

/* -- beginning ----------------------------------------------------------------------- */

static void tune(struct flow *f)
{
    int on = 1, idle = FLOW_KEEPALIVE_S;
    int fd = conn_fd(f->outer);

    /* Without them it only takes longer to see that nobody is there. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
}

void flow_relay_start(struct flow *f)
{
    struct buf first = f->in;
    int r = 0;

    flow_set_state(f, FLOW_RELAY);
    loop_timer_stop(&f->deadline);
    if (f->gate) {
        send_requests(f);
    } else {
        f->in = (struct buf)BUF_INIT;
        r = give(f, &f->up, f->outer, buf_span(&first));
        buf_done(&first);
    }
    if (r < 0)
        flow_end(f, FLOW_RESET);
    else if (f->state == FLOW_RELAY)
        tune(f); /* after the first bytes: they are waited for */
    settle(f);
}

/* -- our own answer ------------------------------------------------------------------ */

static void write_words(struct flow *f)
{
    while (f->words.len > 0) {
        size_t n = 0;
        enum conn_result r = conn_write(f->inner, f->words.p, f->words.len, &n);

        if (r == CONN_AGAIN)
            break;
        if (r != CONN_OK) {
            flow_end(f, FLOW_RESET);
            return;
        }
        buf_drop(&f->words, n);
    }
    if (f->words.len == 0)
        conn_finish(f->inner);
    flow_want(f);
}

/* Unread bytes would make the end a reset, which can overtake the answer. */
static void drain(struct flow *f)
{
    uint8_t bytes[FLOW_BURST_MIN];
    size_t n = 0;

    switch (conn_read(f->inner, bytes, sizeof(bytes), &n)) {
    case CONN_AGAIN:
        return;
    case CONN_OK:
        f->drained += n;
        if (f->drained > FLOW_LINGER_BYTES)
            flow_end(f, FLOW_CLOSED);
        return;
    default:
        flow_end(f, FLOW_CLOSED);
        return;
    }
}

void flow_reply(struct flow *f)
{
    flow_set_state(f, FLOW_REPLY);
    flow_dial_cancel(f);
    flow_unpause(f);
    conn_abort(&f->outer);
    buf_done(&f->in);
    flow_count_in(f);
    loop_timer_start(&f->deadline, FLOW_LINGER_MS);
    write_words(f);
}

/* -- events -------------------------------------------------------------------------- */

static void inner_readable(void *owner)
{
    struct flow *f = owner;

    switch (f->state) {
    case FLOW_LOOK:
        flow_look(f);
        break;
    case FLOW_RELAY:
        move_up(f);
        break;
    case FLOW_REPLY:
        drain(f);
        break;
    default:
        break;
    }
}

static void inner_writable(void *owner)
{
    struct flow *f = owner;

    if (f->state == FLOW_REPLY) {
        write_words(f);
        return;
    }
    if (f->state != FLOW_RELAY)
        return;
    if (give_held(f, &f->down, f->inner) < 0)
        flow_end(f, FLOW_RESET);
    settle(f);
}

static void outer_readable(void *owner)
{
    struct flow *f = owner;

    if (f->state == FLOW_ASK_PROXY)
        flow_proxy_readable(f);
    else if (f->state == FLOW_RELAY)
        move_down(f);
}

static void outer_writable(void *owner)
{
    struct flow *f = owner;

    if (f->state == FLOW_ASK_PROXY) {
        flow_proxy_writable(f);
        return;
    }
    if (f->state != FLOW_RELAY)
        return;
    if (give_held(f, &f->up, f->outer) < 0)
        flow_end(f, FLOW_RESET);
    else if (f->gate && f->in.len > 0)
        send_requests(f);
    settle(f);
}

static void outer_secured(void *owner, const struct err *e)
{
    flow_proxy_secured(owner, e);
}

const struct conn_ops flow_inner_ops = {
    .readable = inner_readable,
    .writable = inner_writable,
};
const struct conn_ops flow_outer_ops = {
    .readable = outer_readable,
    .writable = outer_writable,
    .secured = outer_secured,
};
