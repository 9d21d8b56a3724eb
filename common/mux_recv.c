/* SPDX-License-Identifier: MIT */
/* The mux's receiver: any cut of the byte stream in, events out. Heads and control
 * payloads are gathered in mux.head; DATA payload goes to its user as it comes. */
#include <assert.h>

#include "common/mux_engine.h"

static enum mux_result fail(struct mux *m, enum mux_fault_id f)
{
    m->fault = f;
    return m->result = MUX_E_PROTOCOL;
}

static bool is_ours(const struct mux *m, uint32_t id)
{
    return (id & 1) == (m->conf.role == MUX_AGENT ? 1 : 0);
}

static bool was_opened(const struct mux *m, uint32_t id)
{
    return id < (is_ours(m, id) ? m->next_id : m->peer_next_id);
}

/* -- streams opened by the other side -------------------------------------------------
 */

/* Husks are our own answers that the other side does not fetch. Resetting all its streams
 * and all of ours at once is in order; more in the queue can only be a flood. */
static bool is_flooded(const struct mux *m)
{
    return m->n_husks > (uint64_t)MUX_REFUSED_MAX + m->conf.max_streams + m->peer_streams;
}

static enum mux_result on_open(struct mux *m, const struct mux_head *h)
{
    const struct mux_budget *b = m->conf.budget;
    struct mux_open open;
    struct mux_stream *s;
    enum mux_fault_id f;

    if (is_ours(m, h->stream) || h->stream != m->peer_next_id ||
        h->stream > UINT32_MAX - 2)
        return fail(m, MUX_FAULT_OPEN_ID);
    f = mux_open_parse(m->head + MUX_HEAD_LEN, h->len, &open);
    if (f != MUX_FAULT_NONE)
        return fail(m, f);
    if (is_flooded(m))
        return fail(m, MUX_FAULT_FLOOD);
    s = mux_stream_make(m, h->stream, false);
    if (s == NULL)
        return m->result = MUX_E_NOMEM;
    m->peer_next_id += 2;
    if (m->n_theirs > m->conf.max_streams ||
        (b != NULL && b->max_bytes > 0 && b->used_bytes >= b->max_bytes)) {
        mux_stream_reset(s, MUX_REASON_LIMIT);
        return MUX_OK;
    }
    if (m->has_goaway_out) {
        mux_stream_reset(s, (enum mux_reason)m->goaway_reason);
        return MUX_OK;
    }
    if (m->ops->opened != NULL)
        m->ops->opened(m->owner, s, &open);
    /* A husk is still there to look at: it goes in mux_send(). */
    if (!s->is_dead && s->ops == NULL)
        mux_stream_reset(s, MUX_REASON_REFUSED);
    return MUX_OK;
}

/* -- data ------------------------------------------------------------------------------
 */

static void on_fin(struct mux_stream *s)
{
    s->rx_fin = true;
    if (s->rx.len > 0)
        return;
    s->rx_eof = true;
    if (s->ops->eof != NULL)
        s->ops->eof(s->user);
    if (!s->is_dead && s->tx_fin_sent)
        mux_stream_end(s, MUX_REASON_NONE);
}

/* No memory: only this stream suffers. The reset leaves a husk, so `s` may be read. */
static void break_stream(struct mux_stream *s)
{
    mux_stream_reset(s, MUX_REASON_LIMIT);
    if (s->ops->closed != NULL)
        s->ops->closed(s->user, MUX_REASON_LIMIT);
}

/* A piece of the current frame's payload. */
static void on_piece(struct mux *m, struct span piece)
{
    struct mux_stream *s = m->data_stream;
    size_t n = 0;

    if (s->rx.len == 0 && s->ops->data != NULL) {
        n = s->ops->data(s->user, piece);
        if (s->is_dead)
            return;
        assert(n <= piece.len);
        s->rx_taken += n;
    }
    if (n < piece.len) {
        if (bufq_add(&s->rx, piece.p + n, piece.len - n) < 0) {
            break_stream(s);
            return;
        }
        m->held_bytes += piece.len - n;
    }
    if (n > 0)
        mux_check_credit(s);
}

static enum mux_result on_data_head(struct mux *m, const struct mux_head *h,
                                    struct mux_stream *s)
{
    m->data_stream = s;
    m->data_left = h->len;
    m->data_fin = (h->flags & MUX_FLAG_FIN) != 0;
    if (s == NULL)
        return MUX_OK;
    if (s->is_ours && !s->is_accepted)
        return fail(m, MUX_FAULT_DATA_EARLY);
    if (s->rx_fin)
        return fail(m, MUX_FAULT_DATA_FIN);
    if (h->len > s->rx_limit - s->rx_seen)
        return fail(m, MUX_FAULT_DATA_CREDIT);
    if (s->rx_seen == 0)
        s->epoch_us = m->now_us;
    s->rx_seen += h->len;
    if (h->len == 0 && m->data_fin) {
        m->data_stream = NULL;
        on_fin(s);
    }
    return MUX_OK;
}

static void take_data(struct mux *m, struct span *bytes)
{
    size_t n = bytes->len < m->data_left ? bytes->len : m->data_left;

    if (m->data_stream != NULL)
        on_piece(m, span_of(bytes->p, n));
    m->data_left = (uint16_t)(m->data_left - n);
    *bytes = span_skip(*bytes, n);
    if (m->data_left == 0 && m->data_stream != NULL) {
        struct mux_stream *s = m->data_stream;

        m->data_stream = NULL;
        if (m->data_fin)
            on_fin(s);
    }
}

/* -- the other frames ------------------------------------------------------------------
 */

static enum mux_result on_credit(struct mux *m, struct mux_stream *s)
{
    uint64_t limit = mux_u64(m->head + MUX_HEAD_LEN);

    if (limit > MUX_OFFSET_MAX)
        return fail(m, MUX_FAULT_CREDIT_BIG);
    if (s == NULL)
        return MUX_OK;
    if (limit < s->tx_limit)
        return fail(m, MUX_FAULT_CREDIT_SHRINK);
    s->tx_limit = limit;
    mux_schedule(s);
    mux_check_writable(s);
    return MUX_OK;
}

static enum mux_result on_accept(struct mux *m, uint32_t id, struct mux_stream *s)
{
    if (!is_ours(m, id))
        return fail(m, MUX_FAULT_ACCEPT_OWN);
    if (s == NULL)
        return MUX_OK;
    if (s->is_accepted)
        return fail(m, MUX_FAULT_ACCEPT_TWICE);
    s->is_accepted = true;
    if (s->ops->accepted != NULL)
        s->ops->accepted(s->user);
    return MUX_OK;
}

static enum mux_result on_reset(struct mux *m, struct mux_stream *s)
{
    uint8_t why = m->head[MUX_HEAD_LEN];

    if (!mux_reason_is_wire(why))
        return fail(m, MUX_FAULT_REASON);
    if (s != NULL)
        mux_stream_end(s, (enum mux_reason)why);
    return MUX_OK;
}

static enum mux_result on_goaway(struct mux *m)
{
    uint8_t why = m->head[MUX_HEAD_LEN];

    if (!mux_reason_is_wire(why))
        return fail(m, MUX_FAULT_REASON);
    m->has_goaway_in = true;
    if (m->ops->goaway != NULL)
        m->ops->goaway(m->owner, (enum mux_reason)why);
    return MUX_OK;
}

static enum mux_result on_ping(struct mux *m)
{
    if (m->owes_pong)
        return fail(m, MUX_FAULT_PING_TWICE);
    memcpy(m->pong, m->head + MUX_HEAD_LEN, sizeof(m->pong));
    m->owes_pong = true;
    mux_need_send(m);
    return MUX_OK;
}

/* Smoothed as TCP does it (RFC 6298 2.3), an eighth of the difference at a time. */
static enum mux_result on_pong(struct mux *m)
{
    uint64_t sample = m->now_us > m->ping_us ? m->now_us - m->ping_us : 1;
    uint32_t us = sample < UINT32_MAX ? (uint32_t)sample : UINT32_MAX;

    if (!m->awaits_pong || memcmp(m->ping, m->head + MUX_HEAD_LEN, sizeof(m->ping)) != 0)
        return fail(m, MUX_FAULT_PONG);
    m->awaits_pong = false;
    m->rtt_us_at = m->now_us;
    if (m->rtt_us == 0)
        m->rtt_us = us;
    else
        m->rtt_us = (uint32_t)(((uint64_t)m->rtt_us * 7 + us) / 8);
    m->rtt_us += m->rtt_us == 0;
    return MUX_OK;
}

static enum mux_result on_frame(struct mux *m, const struct mux_head *h)
{
    struct mux_stream *s = NULL;

    if (h->type == MUX_TYPE_OPEN)
        return on_open(m, h);
    if (h->stream != 0) {
        if (!was_opened(m, h->stream))
            return fail(m, MUX_FAULT_NEVER);
        /* NULL: it was open and is not any more. The other side may not know yet. */
        s = mux_find(m, h->stream);
    }
    switch ((enum mux_type)h->type) {
    case MUX_TYPE_ACCEPT:
        return on_accept(m, h->stream, s);
    case MUX_TYPE_DATA:
        return on_data_head(m, h, s);
    case MUX_TYPE_CREDIT:
        return on_credit(m, s);
    case MUX_TYPE_RESET:
        return on_reset(m, s);
    case MUX_TYPE_PING:
        return on_ping(m);
    case MUX_TYPE_PONG:
        return on_pong(m);
    case MUX_TYPE_GOAWAY:
        return on_goaway(m);
    case MUX_TYPE_OPEN:
    case MUX_TYPE_COUNT:
        break;
    }
    return fail(m, MUX_FAULT_TYPE);
}

/* Copy towards `need` bytes of head; true when they are there. */
static bool gather(struct mux *m, struct span *bytes, size_t need)
{
    size_t n = need - m->head_len;

    if (n > bytes->len)
        n = bytes->len;
    memcpy(m->head + m->head_len, bytes->p, n);
    m->head_len = (uint8_t)(m->head_len + n);
    *bytes = span_skip(*bytes, n);
    return m->head_len == need;
}

static enum mux_result take_head(struct mux *m, struct span *bytes)
{
    enum mux_fault_id f;
    struct mux_head h;

    if (m->head_len < MUX_HEAD_LEN && !gather(m, bytes, MUX_HEAD_LEN))
        return MUX_OK;
    f = mux_head_parse(m->head, &h);
    if (f != MUX_FAULT_NONE)
        return fail(m, f);
    if (h.type != MUX_TYPE_DATA && h.len > 0 &&
        !gather(m, bytes, (size_t)MUX_HEAD_LEN + h.len))
        return MUX_OK;
    m->head_len = 0;
    return on_frame(m, &h);
}

enum mux_result mux_recv(struct mux *m, struct span bytes, uint64_t now_us)
{
    enum mux_result r = m->result;

    assert(m->magic == MUX_MAGIC && !m->in_call);
    if (r != MUX_OK || bytes.len == 0)
        return r;
    m->now_us = m->last_recv_us = now_us;
    if (!m->has_peer)
        return fail(m, MUX_FAULT_EARLY);
    m->in_call = true;
    while (r == MUX_OK && bytes.len > 0) {
        if (m->data_left > 0)
            take_data(m, &bytes);
        else
            r = take_head(m, &bytes);
    }
    if (r == MUX_OK)
        mux_wake_users(m);
    m->in_call = false;
    return r;
}
