/* SPDX-License-Identifier: MIT */
/**
 * mux_engine -- the structs that common/mux.c (receiving), common/mux_send.c (scheduling)
 *               and common/mux_stream.c (what users call) share. No other file includes
 * it.
 *
 * Theory. A live stream is in the hash. It may stand in three lists at once:
 *   ctl   it owes a frame that goes before data (OPEN, ACCEPT, CREDIT, RESET);
 *   run   it can send DATA now: bytes and credit, or a bare FIN. One of two lists:
 * `small` (little queued) or `bulk`; wake  its user is to be told something at the end of
 * mux_recv() or mux_send(). A stream that its user reset leaves hash, run and wake at
 * once and gives all memory back, but stays as a husk in ctl until mux_send() has written
 * its RESET: so a reset needs no memory, and a pointer on the stack of mux_recv() below a
 * callback is never dangling. mux_send() cannot run below a callback. All other ends
 * happen on top level and free at once after closed().
 */
#ifndef COMMON_MUX_ENGINE_H
#define COMMON_MUX_ENGINE_H

#include <assert.h>

#include "common/buf.h"
#include "common/limits.h"
#include "common/mux.h"
#include "common/mux_wire.h"

struct mux_node {
    struct mux_node *next, *prev; /* NULL: in no list */
};

static inline void mux_list_init(struct mux_node *l)
{
    l->next = l->prev = l;
}
static inline bool mux_list_is_empty(const struct mux_node *l)
{
    return l->next == l;
}
static inline void mux_list_add(struct mux_node *l, struct mux_node *n)
{
    struct mux_node *last = l->prev;

    assert(last != NULL); /* a list's head is always linked */
    n->next = l, n->prev = last;
    last->next = l->prev = n;
}
static inline void mux_list_add_first(struct mux_node *l, struct mux_node *n)
{
    mux_list_add(l->next, n);
}
static inline void mux_list_remove(struct mux_node *n)
{
    if (n->next == NULL)
        return;
    n->next->prev = n->prev, n->prev->next = n->next;
    n->next = n->prev = NULL;
}

struct mux_stream {
    unsigned magic;
    uint32_t id;
    struct mux *mux; /* borrowed; owns this */
    const struct mux_stream_ops *ops;
    void *user;
    struct mux_stream *hash_next;
    struct mux_node ctl, run, wake;

    struct bufq tx;             /* accepted from the user, not yet in a frame */
    uint64_t tx_sent, tx_limit; /* offsets: given to the link; allowed by CREDIT */
    uint64_t bulk_until_us;     /* had a long queue shortly ago */

    struct bufq rx;                 /* arrived, not taken by the user */
    uint64_t rx_seen, rx_taken;     /* offsets: announced by DATA heads; consumed */
    uint64_t rx_limit;              /* allowed by our last CREDIT */
    uint64_t epoch_us, epoch_taken; /* when and where the measured window began */
    uint32_t window;

    uint8_t open[MUX_OPEN_MAX], open_len; /* payload, while owes_open */
    uint8_t reason;                       /* while owes_reset */
    bool is_ours, is_accepted, is_dead;
    bool owes_open, owes_accept, owes_credit, owes_reset;
    bool tx_fin, tx_fin_sent, tx_full;
    bool rx_fin, rx_eof; /* FIN came; and the user knows */
    bool wakes_writable, wakes_closed;
};

struct mux {
    unsigned magic;
    struct mux_conf conf;
    const struct mux_ops *ops;
    void *owner;
    enum mux_fault_id fault;
    enum mux_result result;            /* of mux_recv() once it failed */
    bool has_peer, in_call, is_ending; /* in_call: below mux_recv() or mux_send() */
    bool is_awake;                     /* wants_send() was told and not yet answered */
    bool owes_ping, owes_pong, owes_goaway, awaits_pong;
    bool has_goaway_in, has_goaway_out; /* told to us; told by us */
    uint8_t goaway_reason;

    uint32_t peer_window, peer_streams;
    uint64_t now_us, last_recv_us, ping_us, rtt_us_at; /* rtt_us_at: the last sample's */
    uint32_t rtt_us;
    uint8_t ping[8], pong[8];

    /* receiving: a head with its control payload, or the rest of a DATA payload */
    uint8_t head[MUX_HEAD_LEN + MUX_OPEN_MAX];
    uint8_t head_len;
    bool data_fin;
    uint16_t data_left;
    struct mux_stream *data_stream; /* NULL: drop the payload */

    uint32_t next_id, peer_next_id;
    uint32_t n_ours, n_theirs, n_husks;
    size_t held_bytes;
    uint32_t small_run; /* bytes of small streams since the last bulk frame */
    struct mux_node ctl, small, bulk, wake;

    struct mux_stream **bucket, *first_bucket[4];
    uint32_t bucket_mask;
};

#define MUX_MAGIC        0x6d757821u
#define MUX_STREAM_MAGIC 0x6d757873u

/* mux.c */
struct mux_stream *mux_stream_make(struct mux *m, uint32_t id, bool is_ours);
struct mux_stream *mux_find(struct mux *m, uint32_t id); /* NULL: not open */
/** Out of hash, run and wake; queues and budget given back; counted no more. */
void mux_stream_unlink(struct mux_stream *s);
/** unlink, closed(why), free. Only on top level: no callback of `s` on the stack. */
void mux_stream_end(struct mux_stream *s, enum mux_reason why);
/** There is something for mux_send() to do. */
void mux_need_send(struct mux *m);
void mux_owe(struct mux_stream *s); /* put on the ctl list */
/** Tell users what became due. Top level only. */
void mux_wake_users(struct mux *m);

/* mux_send.c */
/** Put the stream on the run list it belongs to, or off. */
void mux_schedule(struct mux_stream *s);
/** Room or credit changed: was the user waiting for it? */
void mux_check_writable(struct mux_stream *s);
/** Bytes were taken: is a CREDIT due? */
void mux_check_credit(struct mux_stream *s);

#endif
