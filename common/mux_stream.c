/* SPDX-License-Identifier: MIT */
/* What the users of the mux call on its streams. Nothing here calls a stream's user back.
 */
#include <assert.h>

#include "common/mux_engine.h"

struct mux_stream *mux_open(struct mux *m, const struct mux_open *open,
                            const struct mux_stream_ops *ops, void *user,
                            enum mux_result *ret_why)
{
    const struct mux_budget *b = m->conf.budget;
    struct mux_stream *s;

    assert(open->port != 0 && (unsigned)open->kind < MUX_KIND_COUNT && ops != NULL);
    if (!m->has_peer || m->has_goaway_in || m->is_ending || m->result != MUX_OK ||
        m->next_id > UINT32_MAX - 2) {
        *ret_why = MUX_E_CLOSED;
        return NULL;
    }
    if (m->n_ours >= m->peer_streams ||
        (b != NULL && b->max_bytes > 0 && b->used_bytes >= b->max_bytes)) {
        *ret_why = MUX_E_LIMIT;
        return NULL;
    }
    s = mux_stream_make(m, m->next_id, true);
    if (s == NULL) {
        *ret_why = MUX_E_NOMEM;
        return NULL;
    }
    m->next_id += 2;
    s->ops = ops;
    s->user = user;
    s->open_len = (uint8_t)mux_open_put(s->open, open);
    s->owes_open = true;
    mux_owe(s);
    *ret_why = MUX_OK;
    return s;
}

void mux_stream_use(struct mux_stream *s, const struct mux_stream_ops *ops, void *user)
{
    assert(s->magic == MUX_STREAM_MAGIC && ops != NULL);
    s->ops = ops;
    s->user = user;
}

void mux_stream_accept(struct mux_stream *s)
{
    assert(s->magic == MUX_STREAM_MAGIC);
    if (s->is_ours || s->is_accepted || s->is_dead)
        return;
    s->is_accepted = s->owes_accept = true;
    mux_owe(s);
    mux_schedule(s); /* what was written before waited for this */
}

uint32_t mux_stream_id(const struct mux_stream *s)
{
    return s->id;
}

bool mux_stream_is_accepted(const struct mux_stream *s)
{
    return s->is_accepted;
}

/* No more is queued than may be sent, but a first window's worth: a stream whose reader
 * stalls holds no more on this side than on the other. */
size_t mux_stream_room(const struct mux_stream *s)
{
    uint64_t cap = s->tx_limit - s->tx_sent;

    if (s->is_dead || s->tx_fin)
        return 0;
    if (cap < MUX_WINDOW)
        cap = MUX_WINDOW;
    if (cap > MUX_TX_MAX)
        cap = MUX_TX_MAX;
    return cap > s->tx.len ? (size_t)cap - s->tx.len : 0;
}

static void queued(struct mux_stream *s, size_t n)
{
    s->mux->held_bytes += n;
    s->tx_full = mux_stream_room(s) == 0;
    mux_schedule(s);
}

enum mux_result mux_stream_write(struct mux_stream *s, struct span bytes, size_t *ret_n)
{
    size_t room = mux_stream_room(s);
    size_t n = bytes.len < room ? bytes.len : room;

    assert(s->magic == MUX_STREAM_MAGIC);
    *ret_n = 0;
    if (s->tx_fin || s->is_dead)
        return MUX_E_CLOSED;
    if (n > 0 && bufq_add(&s->tx, bytes.p, n) < 0)
        return MUX_E_NOMEM;
    queued(s, n);
    *ret_n = n;
    return MUX_OK;
}

uint8_t *mux_stream_reserve(struct mux_stream *s, size_t want, size_t *ret_cap)
{
    size_t room = mux_stream_room(s), cap = 0;
    uint8_t *p;

    assert(s->magic == MUX_STREAM_MAGIC);
    if (want > room)
        want = room;
    if (want == 0) {
        s->tx_full = !s->tx_fin && room == 0;
        return NULL;
    }
    p = bufq_reserve(&s->tx, want, &cap);
    if (p != NULL)
        *ret_cap = cap < room ? cap : room;
    return p;
}

void mux_stream_commit(struct mux_stream *s, size_t n)
{
    bufq_commit(&s->tx, n);
    if (n > 0)
        queued(s, n);
    else if (s->tx.len == 0)
        bufq_done(&s->tx); /* an idle stream keeps no chunk */
}

size_t mux_stream_unsent(const struct mux_stream *s)
{
    return s->tx.len;
}

void mux_stream_finish(struct mux_stream *s)
{
    assert(s->magic == MUX_STREAM_MAGIC);
    if (s->tx_fin || s->is_dead)
        return;
    s->tx_fin = true;
    mux_schedule(s);
}

void mux_stream_reset(struct mux_stream *s, enum mux_reason why)
{
    struct mux *m = s->mux;

    assert(s->magic == MUX_STREAM_MAGIC);
    if (s->is_dead)
        return;
    mux_stream_unlink(s);
    /* When both sides have finished, the other one may still be reading. */
    if (!s->tx_fin_sent || !s->rx_fin) {
        s->owes_reset = true;
        s->reason = (uint8_t)(mux_reason_is_wire(why) ? why : MUX_REASON_CANCEL);
    }
    m->n_husks++;
    mux_owe(s);
}

struct span mux_stream_peek(const struct mux_stream *s)
{
    return bufq_peek(&s->rx);
}

bool mux_stream_consume(struct mux_stream *s, size_t n)
{
    struct mux *m = s->mux;

    assert(s->magic == MUX_STREAM_MAGIC && n <= s->rx.len);
    bufq_consume(&s->rx, n);
    s->rx_taken += n;
    m->held_bytes -= n;
    mux_check_credit(s);
    if (!s->rx_fin || s->rx_eof || s->rx.len > 0)
        return false;
    s->rx_eof = true;
    if (s->tx_fin_sent) {
        s->wakes_closed = true;
        if (s->wake.next == NULL)
            mux_list_add(&m->wake, &s->wake);
        mux_need_send(m);
    }
    return true;
}
