/* SPDX-License-Identifier: MIT */
/* The mux's sender: what goes into the next message, and in which order.
 *
 * First what is owed (PONG, GOAWAY, and each stream's OPEN, ACCEPT, CREDIT, RESET, in the
 * order the streams came to owe it), then streams with little queued, each with all it
 * has, then bulk streams in turn, a frame each. So that bulk is not starved by many small
 * ones, one bulk frame goes after every MUX_SMALL_RUN bytes of small ones. Each frame
 * costs O(1) and one copy; a stream with nothing to send is in no list. */
#include <assert.h>

#include "common/mem.h"
#include "common/mux_engine.h"

enum {
    OWED_MAX = 8 + MUX_OPEN_MAX + 8 + 16 + 9, /* all one stream can owe */
    CUT_MIN = 1024, /* a bulk frame is not cut smaller to fill the message's end */
    RECORD = 16384, /* a TLS record, which begins with the message's head: */
    AGENT_HEAD = 8, /* masked (RFC 6455 5.2) */
    SERVER_HEAD = 4,
    BULK_US = 50000,
    RTT_AGE_US = 100000,
    RTT_FLOOR_US = MUX_RTT_FLOOR_MS * 1000,
};

/* -- what is owed ----------------------------------------------------------------------
 */

static size_t put_head(uint8_t *out, enum mux_type type, size_t len, uint32_t stream)
{
    mux_head_put(out, (struct mux_head){
                          .type = (uint8_t)type, .len = (uint16_t)len, .stream = stream});
    return MUX_HEAD_LEN;
}

static size_t put_u64(uint8_t *out, enum mux_type type, uint32_t stream, uint64_t v)
{
    size_t n = put_head(out, type, 8, stream);

    mux_u64_put(out + n, v);
    return n + 8;
}

static size_t put_reason(uint8_t *out, enum mux_type type, uint32_t stream, uint8_t why)
{
    size_t n = put_head(out, type, 1, stream);

    out[n] = why;
    return n + 1;
}

/* The window doubles when its consumer took a whole one within two round trips: then it
 * is the window, not the consumer, that holds the stream back. The last eighth of the
 * budget is not for growing, so that what grew cannot keep new streams out. */
static void grow_window(struct mux_stream *s)
{
    struct mux *m = s->mux;
    struct mux_budget *b = m->conf.budget;
    uint64_t rtt = m->rtt_us > RTT_FLOOR_US ? m->rtt_us : RTT_FLOOR_US;
    uint64_t spent = m->now_us - s->epoch_us;
    uint32_t more = s->window;

    if (s->rx_taken - s->epoch_taken < s->window)
        return;
    s->epoch_us = m->now_us;
    s->epoch_taken = s->rx_taken;
    if (m->rtt_us == 0 || spent > 2 * rtt)
        return;
    if (more > m->conf.window_max - s->window)
        more = m->conf.window_max - s->window;
    if (b != NULL && b->max_bytes > 0) {
        size_t usable = b->max_bytes - b->max_bytes / 8;

        if (b->used_bytes > usable || more > usable - b->used_bytes)
            return;
    }
    if (b != NULL)
        b->used_bytes += more;
    s->window += more;
}

static size_t put_credit(struct mux_stream *s, uint8_t *out)
{
    struct mux *m = s->mux;
    uint64_t limit;

    if (s->rx_fin)
        return 0;
    grow_window(s);
    limit = s->rx_taken + s->window;
    if (limit <= s->rx_limit)
        return 0;
    s->rx_limit = limit;
    if (!m->awaits_pong && (m->rtt_us == 0 || m->now_us - m->rtt_us_at > RTT_AGE_US))
        m->owes_ping = true;
    return put_u64(out, MUX_TYPE_CREDIT, s->id, limit);
}

static size_t put_owed(struct mux_stream *s, uint8_t *out)
{
    size_t n = 0;

    if (s->owes_open) {
        n += put_head(out, MUX_TYPE_OPEN, s->open_len, s->id);
        memcpy(out + n, s->open, s->open_len);
        n += s->open_len;
    }
    if (!s->is_dead && s->owes_accept)
        n += put_head(out + n, MUX_TYPE_ACCEPT, 0, s->id);
    if (!s->is_dead && s->owes_credit)
        n += put_credit(s, out + n);
    if (s->owes_reset)
        n += put_reason(out + n, MUX_TYPE_RESET, s->id, s->reason);
    s->owes_open = s->owes_accept = s->owes_credit = s->owes_reset = false;
    return n;
}

static size_t put_ping(struct mux *m, uint8_t *out)
{
    m->owes_ping = false;
    m->awaits_pong = true;
    m->ping_us = m->now_us;
    mux_u64_put(m->ping, m->now_us);
    return put_u64(out, MUX_TYPE_PING, 0, m->now_us);
}

static size_t send_owed(struct mux *m, uint8_t *out, size_t cap)
{
    size_t len = 0;

    if (m->owes_pong) {
        len += put_u64(out, MUX_TYPE_PONG, 0, mux_u64(m->pong));
        m->owes_pong = false;
    }
    if (m->owes_goaway) {
        len += put_reason(out + len, MUX_TYPE_GOAWAY, 0, m->goaway_reason);
        m->owes_goaway = false;
    }
    while (!mux_list_is_empty(&m->ctl) && cap - len >= OWED_MAX) {
        struct mux_stream *s = CONTAINER_OF(m->ctl.next, struct mux_stream, ctl);

        mux_list_remove(&s->ctl);
        len += put_owed(s, out + len);
        if (s->is_dead) {
            m->n_husks--;
            s->magic = 0;
            mem_free(s);
        }
    }
    if (m->owes_ping && cap - len >= MUX_HEAD_LEN + 8)
        len += put_ping(m, out + len);
    return len;
}

/* -- data ------------------------------------------------------------------------------
 */

static bool can_send(const struct mux_stream *s)
{
    if (s->is_dead || (!s->is_ours && !s->is_accepted))
        return false;
    if (s->tx.len > 0)
        return s->tx_sent < s->tx_limit;
    return s->tx_fin && !s->tx_fin_sent;
}

static bool is_bulk(const struct mux_stream *s)
{
    return s->tx.len > MUX_FRAME_MAX || s->mux->now_us < s->bulk_until_us;
}

void mux_schedule(struct mux_stream *s)
{
    struct mux *m = s->mux;

    if (!can_send(s)) {
        mux_list_remove(&s->run);
        return;
    }
    if (s->run.next != NULL)
        return;
    mux_list_add(is_bulk(s) ? &m->bulk : &m->small, &s->run);
    mux_need_send(m);
}

void mux_check_writable(struct mux_stream *s)
{
    if (!s->tx_full || mux_stream_room(s) == 0)
        return;
    s->tx_full = false;
    s->wakes_writable = true;
    if (s->wake.next == NULL)
        mux_list_add(&s->mux->wake, &s->wake);
}

void mux_check_credit(struct mux_stream *s)
{
    uint64_t offered = s->rx_limit - s->rx_taken;

    if (s->rx_fin || s->owes_credit || offered > s->window / 2)
        return;
    s->owes_credit = true;
    mux_owe(s);
}

/* The stream whose turn it is; off its list. */
static struct mux_stream *pick(struct mux *m)
{
    struct mux_stream *s;

    while (!mux_list_is_empty(&m->small) &&
           (m->small_run < MUX_SMALL_RUN || mux_list_is_empty(&m->bulk))) {
        s = CONTAINER_OF(m->small.next, struct mux_stream, run);
        mux_list_remove(&s->run);
        if (!is_bulk(s))
            return s;
        mux_list_add(&m->bulk, &s->run); /* more was written since */
    }
    if (mux_list_is_empty(&m->bulk))
        return NULL;
    m->small_run = 0;
    s = CONTAINER_OF(m->bulk.next, struct mux_stream, run);
    mux_list_remove(&s->run);
    return s;
}

static size_t sendable(const struct mux_stream *s)
{
    uint64_t credit = s->tx_limit - s->tx_sent;
    size_t n = s->tx.len < MUX_FRAME_MAX ? s->tx.len : MUX_FRAME_MAX;

    return credit < n ? (size_t)credit : n;
}

static size_t send_frame(struct mux_stream *s, uint8_t *out, size_t n)
{
    struct mux *m = s->mux;
    bool fin = s->tx_fin && n == s->tx.len;
    size_t at = MUX_HEAD_LEN, end = at + n;

    mux_head_put(out, (struct mux_head){.type = MUX_TYPE_DATA,
                                        .flags = fin ? MUX_FLAG_FIN : 0,
                                        .len = (uint16_t)n,
                                        .stream = s->id});
    if (s->tx.len > MUX_FRAME_MAX)
        s->bulk_until_us = m->now_us + BULK_US;
    while (at < end) {
        struct span run = bufq_peek(&s->tx);
        size_t k = run.len < end - at ? run.len : end - at;

        memcpy(out + at, run.p, k);
        bufq_consume(&s->tx, k);
        at += k;
    }
    s->tx_sent += n;
    m->held_bytes -= n;
    s->tx_fin_sent = fin;
    return end;
}

static void after_frame(struct mux_stream *s)
{
    struct mux *m = s->mux;

    if (s->tx_fin_sent && s->rx_eof) {
        s->wakes_closed = true;
        if (s->wake.next == NULL)
            mux_list_add(&m->wake, &s->wake);
        return;
    }
    mux_schedule(s);
    mux_check_writable(s);
}

/* How long a frame after `len` bytes of a message may be. If there is enough left of the
 * TLS record, the frame ends with it: the other side gets its bytes a record at a time, and
 * a frame in two records would be two writes there. */
static size_t record_room(const struct mux *m, size_t len)
{
    size_t head = m->conf.role == MUX_AGENT ? AGENT_HEAD : SERVER_HEAD;
    size_t left = RECORD - (head + len + MUX_HEAD_LEN) % RECORD;

    return left < RECORD / 2 ? MUX_FRAME_MAX : left;
}

/* `len` bytes of the message are in `out` already; how many are then. */
static size_t send_data(struct mux *m, uint8_t *out, size_t len, size_t cap)
{

    while (cap - len > MUX_HEAD_LEN) {
        struct mux_stream *s = pick(m);
        size_t room = cap - len - MUX_HEAD_LEN, fit, n;

        if (s == NULL)
            break;
        n = sendable(s);
        fit = record_room(m, len);
        n = n < fit ? n : fit;
        if (n > room && room < CUT_MIN) { /* next time, and first */
            mux_list_add_first(is_bulk(s) ? &m->bulk : &m->small, &s->run);
            break;
        }
        if (n > room)
            n = room;
        if (!is_bulk(s))
            m->small_run += (uint32_t)n + MUX_HEAD_LEN;
        len += send_frame(s, out + len, n);
        after_frame(s);
    }
    return len;
}

size_t mux_send(struct mux *m, uint8_t *out, size_t cap, uint64_t now_us)
{
    size_t len = 0;

    assert(m->magic == MUX_MAGIC && !m->in_call && cap >= MUX_SEND_MIN);
    m->now_us = now_us;
    m->in_call = m->is_awake = true;
    /* What users write when they are told goes along if there was nothing else. */
    while (len == 0 && mux_wants_send(m)) {
        len = send_owed(m, out, cap);
        len = send_data(m, out, len, cap);
        mux_wake_users(m);
    }
    m->in_call = false;
    m->is_awake = mux_wants_send(m);
    return len;
}
