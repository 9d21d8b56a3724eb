/* SPDX-License-Identifier: MIT */
#include "agentd/link/ws_link.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/sock.h"
#include "common/ws.h"

enum {
    RX_SIZE = 65536,
    TX_HEAD = 16, /* >= WS_HEAD_MAX; keeps the payload aligned for masking */
    MASK_LEN = 4,
    MASKS_SIZE = 256,
    CLOSE_REASON_MAX = 123, /* RFC 6455 5.5: 125 with the status */
};
enum {
    STATUS_NORMAL = 1000,
    STATUS_PROTOCOL = 1002,
    STATUS_TOO_BIG = 1009,
    STATUS_NONE = 1005, /* never on the wire */
};

struct ws_scratch {
    uint8_t rx[RX_SIZE];
    uint8_t tx[TX_HEAD + MUX_BATCH];
    uint8_t mask[MASKS_SIZE]; /* fresh random bytes, each used once */
    unsigned mask_pos;
};

enum state {
    OPEN,
    CLOSING, /* our close frame is on its way; the other side's is waited for */
    ENDING,  /* the connection is gone; closed() comes in a job */
};

struct ws_link {
    struct link link;
    struct loop *loop;
    struct ws_scratch *scratch; /* borrowed */
    struct conn *conn;          /* NULL when ENDING */
    enum state state;
    struct ws_rx rx;
    struct buf text;    /* a text message that comes in pieces */
    struct buf pending; /* what the socket did not take */
    size_t pending_pos;
    bool wants_room; /* begin() said no; room() is owed */
    bool may_begin;  /* the kernel said writable: believe it once, whatever is unsent */
    uint64_t last_rx_ms;
    bool *gone; /* set by ws_link_cut() for the loop that is on the stack, or NULL */
    struct loop_timer close_timer;
    struct loop_job end;
    char why[160];
};

struct ws_scratch *ws_scratch_new(void)
{
    struct ws_scratch *s = mem_alloc(sizeof(*s));

    if (s)
        s->mask_pos = MASKS_SIZE;
    return s;
}

void ws_scratch_free(struct ws_scratch *s)
{
    mem_free(s);
}

static const uint8_t *next_mask(struct ws_scratch *s)
{
    if (s->mask_pos == MASKS_SIZE) {
        crypto_random(s->mask, MASKS_SIZE);
        s->mask_pos = 0;
    }
    s->mask_pos += MASK_LEN;
    return s->mask + s->mask_pos - MASK_LEN;
}

static void destroy(struct ws_link *w)
{
    if (w->gone)
        *w->gone = true;
    loop_job_cancel(&w->end);
    loop_timer_stop(&w->close_timer);
    buf_done(&w->text);
    buf_done(&w->pending);
    mem_free(w);
}

static void on_end(void *arg)
{
    struct ws_link *w = arg;
    const struct link_user_ops *ops = w->link.user_ops;
    void *user = w->link.user;
    char why[sizeof(w->why)];

    memcpy(why, w->why, sizeof(why));
    destroy(w);
    ops->closed(user, why);
}

/* From here on only closed() is left. The first reason stays. */
static void end(struct ws_link *w, const char *why)
{
    if (w->state == ENDING)
        return;
    w->state = ENDING;
    (void)snprintf(w->why, sizeof(w->why), "%.159s", why);
    loop_timer_stop(&w->close_timer);
    conn_close(&w->conn);
    loop_job_defer(&w->end);
}

static void end_conn(struct ws_link *w, enum conn_result r)
{
    if (r != CONN_EOF)
        end(w, conn_error(w->conn)->msg);
    else
        end(w, w->state == CLOSING ? "closed" : "the server ended the connection");
}

static void update_want(struct ws_link *w)
{
    if (w->conn)
        conn_want(w->conn,
                  LOOP_READ | (w->pending.len || w->wants_room ? LOOP_WRITE : 0u));
}

/* -- sending ------------------------------------------------------------------------------- */

/* Write until all is taken, or the socket is full. */
static enum conn_result write_some(struct ws_link *w, const uint8_t *p, size_t n,
                                   size_t *ret_n)
{
    size_t done = 0;

    while (done < n) {
        size_t one = 0;
        enum conn_result r = conn_write(w->conn, p + done, n - done, &one);

        if (r != CONN_OK) {
            *ret_n = done;
            return r;
        }
        done += one;
    }
    *ret_n = done;
    return CONN_OK;
}

static int keep(struct ws_link *w, const uint8_t *p, size_t n)
{
    if (w->pending_pos) {
        buf_drop(&w->pending, w->pending_pos);
        w->pending_pos = 0;
    }
    if (buf_reserve(&w->pending, n, WS_PENDING_MAX) < 0)
        return -1;
    return buf_add(&w->pending, p, n);
}

/* 0, or -1: there is no room, and nothing of the frame was sent. */
static int send_bytes(struct ws_link *w, const uint8_t *p, size_t n)
{
    size_t sent = 0;
    enum conn_result r = CONN_AGAIN;

    if (w->pending.len == 0)
        r = write_some(w, p, n, &sent);
    if (r == CONN_OK)
        return 0;
    if (r != CONN_AGAIN) {
        end_conn(w, r);
        return 0;
    }
    if (keep(w, p + sent, n - sent) < 0) {
        if (sent == 0)
            return -1;
        end(w, "no memory for what the socket did not take");
        return 0;
    }
    update_want(w);
    return 0;
}

static int send_frame(struct ws_link *w, enum ws_opcode op, struct span payload)
{
    uint8_t *p = w->scratch->tx + TX_HEAD;
    size_t head;

    if (payload.len)
        memcpy(p, payload.p, payload.len);
    head = ws_frame(p, payload.len, op, true, next_mask(w->scratch));
    return send_bytes(w, p - head, head + payload.len);
}

static void flush(struct ws_link *w)
{
    size_t n = 0;
    enum conn_result r =
        write_some(w, w->pending.p + w->pending_pos, w->pending.len - w->pending_pos, &n);

    w->pending_pos += n;
    if (r == CONN_OK) {
        buf_done(&w->pending);
        w->pending_pos = 0;
    } else if (r != CONN_AGAIN) {
        end_conn(w, r);
    }
}

static void on_writable(void *owner)
{
    struct ws_link *w = owner;
    bool gone = false;

    if (w->pending.len)
        flush(w);
    if (w->state != ENDING && w->pending.len == 0) {
        w->may_begin = true;
        if (w->wants_room && w->state == OPEN) {
            w->wants_room = false;
            w->gone = &gone;
            w->link.user_ops->room(w->link.user);
            if (gone)
                return;
            w->gone = NULL;
        }
    }
    update_want(w);
}

static struct ws_link *of(struct link *l)
{
    return CONTAINER_OF(l, struct ws_link, link);
}

static uint8_t *link_begin(struct link *l, size_t *ret_cap)
{
    struct ws_link *w = of(l);
    size_t unsent;

    if (w->state != OPEN)
        return NULL;
    unsent = sock_unsent(conn_fd(w->conn));
    if (w->pending.len || (!w->may_begin && unsent > MUX_AHEAD)) {
        w->wants_room = true;
        update_want(w);
        return NULL;
    }
    w->may_begin = false;
    *ret_cap = link_batch(unsent);
    return w->scratch->tx + TX_HEAD;
}

static void link_commit(struct link *l, size_t n)
{
    struct ws_link *w = of(l);
    uint8_t *p = w->scratch->tx + TX_HEAD;
    size_t head;

    if (w->state != OPEN)
        return;
    head = ws_frame(p, n, WS_BINARY, true, next_mask(w->scratch));
    /* The stream of frames has no gaps: what cannot be kept ends the link. */
    if (send_bytes(w, p - head, head + n) < 0)
        end(w, "no memory for what the socket did not take");
}

static int link_text(struct link *l, struct span json)
{
    struct ws_link *w = of(l);

    if (w->state != OPEN || json.len > CONTROL_MAX)
        return -1;
    return send_frame(w, WS_TEXT, json);
}

static void send_close(struct ws_link *w, unsigned status, struct span reason)
{
    uint8_t body[2 + CLOSE_REASON_MAX];
    size_t n = 0;

    if (status != STATUS_NONE) {
        body[0] = (uint8_t)(status >> 8);
        body[1] = (uint8_t)status;
        n = reason.len < CLOSE_REASON_MAX ? reason.len : CLOSE_REASON_MAX;
        if (n)
            memcpy(body + 2, reason.p, n);
        n += 2;
    }
    (void)send_frame(w, WS_CLOSE, span_of(body, n)); /* best effort: we end anyway */
}

static void link_close(struct link *l, unsigned status, const char *reason)
{
    struct ws_link *w = of(l);

    if (w->state != OPEN)
        return;
    w->state = CLOSING;
    w->wants_room = false;
    loop_timer_start(&w->close_timer, WS_CLOSE_MS);
    send_close(w, status, span_str(reason));
}

static void on_close_timer(void *arg)
{
    struct ws_link *w = arg;

    end(w, "closed; the server did not answer the close");
}

static const struct link_ops link_ops = {
    .begin = link_begin,
    .commit = link_commit,
    .text = link_text,
    .close = link_close,
};

/* -- receiving ------------------------------------------------------------------------------ */

/* Tell the server why, and end. */
static void fault(struct ws_link *w, unsigned status, const char *why)
{
    char text[sizeof(w->why)];

    (void)snprintf(text, sizeof(text), "the server broke the protocol: %s", why);
    if (w->state == OPEN)
        send_close(w, status, span_str(why));
    end(w, text);
}

static void on_close_frame(struct ws_link *w, struct span body)
{
    unsigned status = STATUS_NONE;
    char text[sizeof(w->why)];

    if (body.len >= 2)
        status = (unsigned)body.p[0] << 8 | body.p[1];
    if (w->state == OPEN) {
        send_close(w, status, (struct span){0});
        (void)snprintf(text, sizeof(text), "closed by the server (status %u)", status);
        end(w, text);
    } else {
        end(w, "closed");
    }
}

static void on_text(struct ws_link *w, const struct ws_event *ev)
{
    struct span whole = ev->payload;

    if (w->text.len || !ev->message_end) {
        if (ev->payload.len > CONTROL_MAX - w->text.len) {
            fault(w, STATUS_TOO_BIG, "a control message over CONTROL_MAX");
            return;
        }
        if (buf_add(&w->text, ev->payload.p, ev->payload.len) < 0) {
            end(w, "no memory for a control message");
            return;
        }
        whole = buf_span(&w->text);
    }
    if (!ev->message_end)
        return;
    if (whole.len > CONTROL_MAX) {
        fault(w, STATUS_TOO_BIG, "a control message over CONTROL_MAX");
        return;
    }
    w->link.user_ops->text(w->link.user, whole);
}

static void on_event(struct ws_link *w, const struct ws_event *ev)
{
    switch (ev->opcode) {
    case WS_BINARY:
        if (w->state == OPEN && ev->payload.len)
            w->link.user_ops->bytes(w->link.user, ev->payload);
        break;
    case WS_TEXT:
        if (w->state == OPEN)
            on_text(w, ev);
        break;
    case WS_PING:
        /* One that finds no room is left out: 5.5.3 asks for the latest only. */
        if (w->state == OPEN)
            (void)send_frame(w, WS_PONG, ev->payload);
        break;
    case WS_CLOSE:
        on_close_frame(w, ev->payload);
        break;
    case WS_PONG:
    case WS_CONT:
        break;
    }
}

/* False when the link is over (ENDING, or gone). */
static bool feed(struct ws_link *w, uint8_t *p, size_t n)
{
    bool *gone = w->gone;

    while (w->state != ENDING) {
        struct ws_event ev;
        enum ws_result r = ws_rx_feed(&w->rx, &p, &n, &ev);

        if (r == WS_MORE)
            return true;
        if (r != WS_OK) {
            fault(w, STATUS_PROTOCOL, ws_result_name(r));
            return false;
        }
        on_event(w, &ev);
        if (*gone)
            return false;
        if (ev.opcode == WS_TEXT && ev.message_end)
            buf_done(&w->text);
    }
    return false;
}

static void on_readable(void *owner)
{
    struct ws_link *w = owner;
    bool gone = false, goes_on = true;
    size_t total = 0;

    w->gone = &gone;
    while (goes_on && total < RX_SIZE) {
        size_t n = 0;
        enum conn_result r = conn_read(w->conn, w->scratch->rx, RX_SIZE, &n);

        if (r == CONN_AGAIN)
            break;
        if (r != CONN_OK) {
            end_conn(w, r);
            break;
        }
        total += n;
        w->last_rx_ms = loop_now(w->loop);
        goes_on = feed(w, w->scratch->rx, n);
    }
    if (!gone)
        w->gone = NULL;
}

static const struct conn_ops conn_ops = {
    .readable = on_readable,
    .writable = on_writable,
};

/* -- life ------------------------------------------------------------------------------------ */

struct ws_link *ws_link_new(struct loop *l, struct conn **take_conn, struct ws_scratch *s,
                            const struct link_user_ops *ops, void *user)
{
    struct ws_link *w = mem_zalloc(1, sizeof(*w));

    if (!w) {
        conn_close(take_conn);
        return NULL;
    }
    w->link = (struct link){.ops = &link_ops, .user_ops = ops, .user = user};
    w->loop = l;
    w->scratch = s;
    w->conn = *take_conn;
    *take_conn = NULL;
    w->last_rx_ms = loop_now(l);
    ws_rx_init(&w->rx, false);
    loop_timer_init(&w->close_timer, l, on_close_timer, w);
    loop_job_init(&w->end, l, on_end, w);
    conn_set_owner(w->conn, &conn_ops, w);
    update_want(w);
    return w;
}

struct link *ws_link_link(struct ws_link *w)
{
    return &w->link;
}

void ws_link_cut(struct ws_link **w)
{
    if (*w) {
        conn_close(&(*w)->conn);
        destroy(*w);
    }
    *w = NULL;
}

uint64_t ws_link_last_rx_ms(const struct ws_link *w)
{
    return w->last_rx_ms;
}

size_t ws_link_pending(const struct ws_link *w)
{
    return w->pending.len - w->pending_pos;
}
