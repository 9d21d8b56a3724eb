/* SPDX-License-Identifier: MIT */
/**
 * mux -- many byte streams over one ordered, reliable byte stream.
 *
 * Shape    engine without I/O or clock: bytes in by mux_recv(), bytes out by mux_send(),
 *          time as an argument, events by struct mux_ops and struct mux_stream_ops.
 *          Callbacks may open, write, read, finish and reset streams; they must not call
 *          mux_recv(), mux_send() or mux_free().
 * Owner    the session owns the mux; the mux owns its streams. A stream pointer is valid
 *          until its closed() returns, or until its user called mux_stream_reset().
 * Memory   a stream holds at most its receive window (unread bytes) plus MUX_TX_MAX
 *          (unsent bytes) plus one frame.
 * Limits   MUX_* in common/limits.def.
 * Source   docs/PROTOCOL.md; flow control after RFC 9000 4.1 (absolute offsets).
 */
#ifndef COMMON_MUX_H
#define COMMON_MUX_H

#include <stdbool.h>
#include <stdint.h>

#include "common/cdefs.h"
#include "common/sock.h"
#include "common/span.h"

struct mux;
struct mux_stream;

enum mux_role {
    MUX_AGENT,
    MUX_SERVER
};

enum mux_result {
    MUX_OK,
    MUX_E_PROTOCOL, /* the other side broke docs/PROTOCOL.md; mux_fault() says the rule */
    MUX_E_NOMEM,
    MUX_E_LIMIT,  /* too many streams, or the memory budget is used up */
    MUX_E_CLOSED, /* this direction was finished, or the mux is going away */
};
const char *mux_result_name(enum mux_result r);

/** Why a stream ended before its time (RESET frame), and why a link does (GOAWAY).
 *  One row each in docs/PROTOCOL.md. */
enum mux_reason {
    MUX_REASON_NONE,          /* both directions ended in order */
    MUX_REASON_CANCEL,        /* not wanted any more */
    MUX_REASON_REFUSED,       /* nothing accepts connections there (ECONNREFUSED) */
    MUX_REASON_NOT_PUBLISHED, /* the agent does not publish that port */
    MUX_REASON_UNREACHABLE,   /* connecting failed otherwise */
    MUX_REASON_TIMEOUT,       /* a deadline passed */
    MUX_REASON_LIMIT,         /* a bound was reached */
    MUX_REASON_IO,            /* the connection behind the stream broke (RST, error) */
    MUX_REASON_PROTOCOL,      /* the other side broke the protocol */
    MUX_REASON_LINK,          /* the link is gone (never on the wire) */
    MUX_REASON_REPLACED,      /* GOAWAY: another agent took the sandbox */
    MUX_REASON_DRAIN,         /* GOAWAY: this side is shutting down */
    MUX_REASON_TOKEN,         /* GOAWAY: the token has ended */
    MUX_REASON_COUNT
};
const char *mux_reason_name(enum mux_reason r); /* "not-published" */

enum mux_kind {
    MUX_KIND_HTTP,
    MUX_KIND_TCP,
    MUX_KIND_COUNT
};

struct mux_open {
    uint16_t port; /* 1..65535 */
    enum mux_kind kind;
    struct sock_addr client; /* len 0: not told */
};

/** What a stream tells its user. Set by mux_stream_use(). Any may be NULL. */
struct mux_stream_ops {
    /* The other side accepted the OPEN. */
    void (*accepted)(void *user);
    /* Bytes arrived. Take what you can and return how many; the rest is kept and read
     * later with mux_stream_peek()/_consume(). Not called while bytes are kept. NULL:
     * all is kept. */
    size_t (*data)(void *user, struct span bytes);
    /* The other side finished its direction and every byte before was consumed. */
    void (*eof)(void *user);
    /* mux_stream_room() went from 0 to more. */
    void (*writable)(void *user);
    /* The last event: the stream is over (NONE) or was reset. The pointer dies. */
    void (*closed)(void *user, enum mux_reason why);
};

struct mux_ops {
    /* The other side opened a stream. Call mux_stream_use() and later
     * mux_stream_accept(), or mux_stream_reset(). A stream without a user after this call
     * is reset. */
    void (*opened)(void *owner, struct mux_stream *s, const struct mux_open *open);
    /* mux_send() has something to give, or an event to tell, having had nothing before.
     * Comes inside the call that caused it: note it down, call mux_send() later. */
    void (*wants_send)(void *owner);
    /* GOAWAY came: no new streams here; those open go on. */
    void (*goaway)(void *owner, enum mux_reason why);
};

/** What all muxes of a process share: memory beyond the first window of each stream. One
 *  for each thread (not locked), or NULL in struct mux_conf for no bound. */
struct mux_budget {
    size_t max_bytes;
    size_t used_bytes;
};

struct mux_conf {
    enum mux_role role;
    uint32_t window;     /* our first receive window, bytes; as told in our hello */
    uint32_t window_max; /* it may grow to this */
    uint32_t
        max_streams; /* how many the other side may have open; as told in our hello */
    struct mux_budget *budget; /* borrowed, outlives the mux */
};

struct mux *mux_new(const struct mux_conf *conf, const struct mux_ops *ops, void *owner);
/** Every stream still there gets closed(MUX_REASON_LINK) first. NULL is fine. */
void mux_free(struct mux *m);
/** What the other side's hello said; until then nothing can be opened by us. */
void mux_set_peer(struct mux *m, uint32_t window, uint32_t max_streams);

/** Bytes from the link. After an error the mux is dead: close the link. */
MUST_USE enum mux_result mux_recv(struct mux *m, struct span bytes, uint64_t now_us);
const char *mux_fault(const struct mux *m); /* rule broken, or "" */
/** Fill `out` with whole frames; bytes written, 0: nothing to send. Streams with little
 *  queued go before bulk ones; bulk ones take turns. cap >= MUX_SEND_MIN. */
size_t mux_send(struct mux *m, uint8_t *out, size_t cap, uint64_t now_us);
bool mux_wants_send(const struct mux *m);

/** wants_send() once more if there is something: for who stops before mux_send() gave 0.
 */
void mux_nudge(struct mux *m);

/** Queue a PING, unless one is not yet answered. */
void mux_ping(struct mux *m, uint64_t now_us);
uint64_t mux_last_recv_us(const struct mux *m); /* when bytes last came; 0: never */
uint32_t mux_rtt_us(const struct mux *m);       /* smoothed; 0: not known */
/** Tell the other side to open no more. */
void mux_goaway(struct mux *m, enum mux_reason why);
unsigned mux_streams(const struct mux *m);
size_t mux_memory(const struct mux *m); /* bytes held for streams, both directions */

/** NULL with *ret_why (LIMIT, CLOSED, NOMEM) when it cannot be. Bytes may be written at
 *  once, before the answer. */
struct mux_stream *mux_open(struct mux *m, const struct mux_open *open,
                            const struct mux_stream_ops *ops, void *user,
                            enum mux_result *ret_why);
void mux_stream_use(struct mux_stream *s, const struct mux_stream_ops *ops, void *user);
void mux_stream_accept(struct mux_stream *s);
uint32_t mux_stream_id(const struct mux_stream *s);
bool mux_stream_is_accepted(const struct mux_stream *s);

/** How many bytes may be queued now: what there is credit for, but at least MUX_WINDOW
 * and at most MUX_TX_MAX, less what is queued already. So a stalled reader costs this
 * side no more than a first window. */
size_t mux_stream_room(const struct mux_stream *s);
/** Queue bytes (copied), up to the room. MUX_OK or why not; *ret_n may be less than len.
 */
MUST_USE enum mux_result mux_stream_write(struct mux_stream *s, struct span bytes,
                                          size_t *ret_n);
/** Place to read(2) into directly: NULL on no memory or no room. Then commit. */
uint8_t *mux_stream_reserve(struct mux_stream *s, size_t want, size_t *ret_cap);
void mux_stream_commit(struct mux_stream *s, size_t n);
size_t
mux_stream_unsent(const struct mux_stream *s); /* queued, not yet given to the link */
/** No more bytes from us; those queued still go. */
void mux_stream_finish(struct mux_stream *s);
/** End both directions now. No callback comes after; the pointer dies. */
void mux_stream_reset(struct mux_stream *s, enum mux_reason why);

/** Kept bytes, first contiguous run; empty when none. Valid until the next call. */
struct span mux_stream_peek(const struct mux_stream *s);
/** Taken: credit is returned. May lead to eof() in a later mux_recv(), or in this call's
 *  return value: true when the other side has finished and nothing is left (eof() is then
 *  not called). */
bool mux_stream_consume(struct mux_stream *s, size_t n);

#endif
