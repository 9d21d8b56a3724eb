/* SPDX-License-Identifier: MIT */
/* The mux itself: made, ended, and the books about its streams. Frames in are in
 * mux_recv.c, frames out in mux_send.c, what users call on a stream in mux_stream.c. */
#include "common/mux.h"

#include <assert.h>

#include "common/mem.h"
#include "common/mux_engine.h"

struct mux *mux_new(const struct mux_conf *conf, const struct mux_ops *ops, void *owner)
{
    struct mux *m = mem_zalloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    assert(conf->window > 0 && ops != NULL);
    m->magic = MUX_MAGIC;
    m->conf = *conf;
    if (m->conf.window_max < m->conf.window)
        m->conf.window_max = m->conf.window;
    m->ops = ops;
    m->owner = owner;
    m->next_id = conf->role == MUX_AGENT ? 1 : 2;
    m->peer_next_id = conf->role == MUX_AGENT ? 2 : 1;
    mux_list_init(&m->ctl);
    mux_list_init(&m->small);
    mux_list_init(&m->bulk);
    mux_list_init(&m->wake);
    m->bucket = m->first_bucket;
    m->bucket_mask = COUNT_OF(m->first_bucket) - 1;
    return m;
}

static struct mux_stream *any_stream(struct mux *m)
{
    for (uint32_t i = 0; i <= m->bucket_mask; i++)
        if (m->bucket[i] != NULL)
            return m->bucket[i];
    return NULL;
}

static void free_husks(struct mux *m)
{
    while (!mux_list_is_empty(&m->ctl)) {
        struct mux_stream *s = CONTAINER_OF(m->ctl.next, struct mux_stream, ctl);

        mux_list_remove(&s->ctl);
        assert(s->is_dead);
        mem_free(s);
    }
}

void mux_free(struct mux *m)
{
    struct mux_stream *s;

    if (m == NULL)
        return;
    assert(m->magic == MUX_MAGIC && !m->in_call);
    m->is_ending = true;
    /* closed() may reset other streams, so look for the next one afresh each time. */
    while (m->n_ours + m->n_theirs > 0 && (s = any_stream(m)) != NULL)
        mux_stream_end(s, MUX_REASON_LINK);
    free_husks(m);
    if (m->bucket != m->first_bucket)
        mem_free(m->bucket);
    m->magic = 0;
    mem_free(m);
}

void mux_set_peer(struct mux *m, uint32_t window, uint32_t max_streams)
{
    m->peer_window = window;
    m->peer_streams = max_streams;
    m->has_peer = true;
}

const char *mux_fault(const struct mux *m)
{
    return mux_fault_text(m->fault);
}

uint64_t mux_last_recv_us(const struct mux *m)
{
    return m->last_recv_us;
}

uint32_t mux_rtt_us(const struct mux *m)
{
    return m->rtt_us;
}

unsigned mux_streams(const struct mux *m)
{
    return m->n_ours + m->n_theirs;
}

size_t mux_memory(const struct mux *m)
{
    return m->held_bytes;
}

void mux_ping(struct mux *m, uint64_t now_us)
{
    m->now_us = now_us;
    if (m->awaits_pong || m->owes_ping)
        return;
    m->owes_ping = true;
    mux_need_send(m);
}

void mux_goaway(struct mux *m, enum mux_reason why)
{
    m->goaway_reason = (uint8_t)(mux_reason_is_wire(why) ? why : MUX_REASON_DRAIN);
    m->has_goaway_out = m->owes_goaway = true;
    mux_need_send(m);
}

/* -- the books ------------------------------------------------------------------------
 */

/* Both sides' ids run upwards in steps of two: consecutive ones fall into different
 * buckets, and a chain is never longer than two by much. */
static uint32_t bucket_of(uint32_t id, uint32_t mask)
{
    return id & mask;
}

struct mux_stream *mux_find(struct mux *m, uint32_t id)
{
    struct mux_stream *s = m->bucket[bucket_of(id, m->bucket_mask)];

    while (s != NULL && s->id != id)
        s = s->hash_next;
    return s;
}

/* A table that cannot grow still works, with longer chains. */
static void grow_table(struct mux *m)
{
    uint32_t mask = m->bucket_mask * 4 + 3;
    struct mux_stream **table = mem_zalloc((size_t)mask + 1, sizeof(struct mux_stream *));

    if (table == NULL)
        return;
    for (uint32_t i = 0; i <= m->bucket_mask; i++) {
        struct mux_stream *s = m->bucket[i], *next;

        for (; s != NULL; s = next) {
            struct mux_stream **head = &table[bucket_of(s->id, mask)];

            next = s->hash_next;
            s->hash_next = *head;
            *head = s;
        }
    }
    if (m->bucket != m->first_bucket)
        mem_free(m->bucket);
    m->bucket = table;
    m->bucket_mask = mask;
}

static void shrink_table(struct mux *m)
{
    if (m->bucket == m->first_bucket)
        return;
    mem_free(m->bucket);
    memset(m->first_bucket, 0, sizeof(m->first_bucket));
    m->bucket = m->first_bucket;
    m->bucket_mask = COUNT_OF(m->first_bucket) - 1;
}

struct mux_stream *mux_stream_make(struct mux *m, uint32_t id, bool is_ours)
{
    struct mux_stream *s = mem_zalloc(1, sizeof(*s)), **head;

    if (s == NULL)
        return NULL;
    if (mux_streams(m) > m->bucket_mask * 2)
        grow_table(m);
    s->magic = MUX_STREAM_MAGIC;
    s->id = id;
    s->mux = m;
    s->is_ours = is_ours;
    s->tx_limit = m->peer_window;
    s->rx_limit = s->window = m->conf.window;
    head = &m->bucket[bucket_of(id, m->bucket_mask)];
    s->hash_next = *head;
    *head = s;
    if (is_ours)
        m->n_ours++;
    else
        m->n_theirs++;
    return s;
}

void mux_stream_unlink(struct mux_stream *s)
{
    struct mux *m = s->mux;
    struct mux_stream **p = &m->bucket[bucket_of(s->id, m->bucket_mask)];

    s->is_dead = true;
    while (*p != s)
        p = &(*p)->hash_next;
    *p = s->hash_next;
    mux_list_remove(&s->run);
    mux_list_remove(&s->wake);
    if (m->data_stream == s)
        m->data_stream = NULL;
    m->held_bytes -= s->tx.len + s->rx.len;
    bufq_done(&s->tx);
    bufq_done(&s->rx);
    if (m->conf.budget != NULL)
        m->conf.budget->used_bytes -= s->window - m->conf.window;
    if (s->is_ours)
        m->n_ours--;
    else
        m->n_theirs--;
    if (mux_streams(m) == 0)
        shrink_table(m);
}

void mux_stream_end(struct mux_stream *s, enum mux_reason why)
{
    mux_stream_unlink(s);
    mux_list_remove(&s->ctl);
    if (s->ops != NULL && s->ops->closed != NULL)
        s->ops->closed(s->user, why);
    s->magic = 0;
    mem_free(s);
}

bool mux_wants_send(const struct mux *m)
{
    return m->fault == MUX_FAULT_NONE && m->result == MUX_OK &&
           (!mux_list_is_empty(&m->ctl) || !mux_list_is_empty(&m->small) ||
            !mux_list_is_empty(&m->bulk) || !mux_list_is_empty(&m->wake) ||
            m->owes_ping || m->owes_pong || m->owes_goaway);
}

void mux_need_send(struct mux *m)
{
    if (m->is_awake || m->is_ending || m->result != MUX_OK)
        return;
    m->is_awake = true;
    if (m->ops->wants_send != NULL)
        m->ops->wants_send(m->owner);
}

void mux_nudge(struct mux *m)
{
    m->is_awake = false;
    if (mux_wants_send(m))
        mux_need_send(m);
}

void mux_owe(struct mux_stream *s)
{
    if (s->ctl.next == NULL)
        mux_list_add(&s->mux->ctl, &s->ctl);
    mux_need_send(s->mux);
}

void mux_wake_users(struct mux *m)
{
    while (!mux_list_is_empty(&m->wake)) {
        struct mux_stream *s = CONTAINER_OF(m->wake.next, struct mux_stream, wake);

        mux_list_remove(&s->wake);
        if (s->wakes_closed) {
            mux_stream_end(s, MUX_REASON_NONE);
            continue;
        }
        s->wakes_writable = false;
        if (!s->tx_fin && s->ops->writable != NULL)
            s->ops->writable(s->user);
    }
}
