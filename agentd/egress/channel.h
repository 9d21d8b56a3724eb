/* SPDX-License-Identifier: MIT */
/**
 * channel -- what keeper and guard say to each other: fixed records over a
 *            SOCK_SEQPACKET pair, with descriptors. Both sides check every field; the
 *            keeper trusts none of the guard's.
 *
 *   0  version (CHANNEL_VERSION)   1  type   2  which descriptors (bit i: fd[i])   3  zero
 *   4  sandbox, 4 bytes            8  seq, 4 bytes                                 12  what the
 *   type has, and nothing after it: see the table of channel_wire.c
 *
 *   keeper -> guard                                  guard -> keeper
 *   HELLO     audit fd, resolvers, floor             READY
 *   SANDBOX   name, tier, tag of its pins; listeners IN_FORCE   (or REFUSED with why)
 *             and other fds, policy memfd
 *   POLICY    tag of its pins; policy memfd          IN_FORCE   (flows cut that are no longer allowed)
 *   REMOVE                                           REMOVED    (last records written)
 *   REPLY     seq, fd                                WANT_REPLY seq, address (a UDP socket bound to it)
 *   WHO       seq, pid, comm, uid                    ASK_WHO    seq, the connection
 *   FLOOR     addresses of the host, resolvers
 *   STATUS    seq                                    COUNTS     seq, what the guard counted
 *                                                    PROPOSAL   memfd: the policy that mode learn proposes
 *
 * IN_FORCE, REFUSED, REMOVED and COUNTS carry the seq of what they answer. STATUS
 * and POLICY for a sandbox that the guard does not have are REFUSED. PROPOSAL
 * comes before REMOVED.
 */
#ifndef AGENTD_EGRESS_CHANNEL_H
#define AGENTD_EGRESS_CHANNEL_H

#include "agentd/egress/policy/ip.h"
#include "agentd/egress/sandbox_name.h"
#include "common/err.h"
#include "common/span.h"

enum channel_type {
    CHANNEL_NONE,
    CHANNEL_HELLO,
    CHANNEL_SANDBOX,
    CHANNEL_POLICY,
    CHANNEL_REMOVE,
    CHANNEL_REPLY,
    CHANNEL_WHO,
    CHANNEL_FLOOR,
    CHANNEL_STATUS,
    CHANNEL_READY,
    CHANNEL_IN_FORCE,
    CHANNEL_REFUSED,
    CHANNEL_REMOVED,
    CHANNEL_WANT_REPLY,
    CHANNEL_ASK_WHO,
    CHANNEL_COUNTS,
    CHANNEL_PROPOSAL,
    CHANNEL_TYPE_COUNT
};
/** "SANDBOX"; "?" for what is no type. */
const char *channel_type_name(enum channel_type t);
/** Which side sends it: what comes from the wrong one is a broken channel. */
bool channel_is_keepers(enum channel_type t);

#define CHANNEL_FDS       7
#define CHANNEL_FLOOR_MAX 256
#define CHANNEL_TEXT_MAX  1024
#define CHANNEL_VERSION   2
#define CHANNEL_WIRE_MAX  8192 /* of one record */
#define CHANNEL_INDEX_MAX 65535
#define CHANNEL_WHO_PER_S 20 /* ASK_WHO that are answered, a sandbox: each reads /proc */

/* Which descriptor of CHANNEL_SANDBOX is what; -1 where there is none (no IPv6). */
enum {
    CHANNEL_FD_TCP4,
    CHANNEL_FD_TCP6,
    CHANNEL_FD_UDP4,
    CHANNEL_FD_UDP6,
    CHANNEL_FD_NFLOG,
    CHANNEL_FD_POLICY,    /* POLICY and PROPOSAL: here too */
    CHANNEL_FD_PIN,       /* to tell the kernel pins: see pin.h */
    CHANNEL_FD_AUDIT = 0, /* HELLO */
    CHANNEL_FD_REPLY = 0, /* REPLY; none when `error` says why */
};

struct channel_counts {
    uint32_t flows;             /* open now */
    uint64_t connects, refused; /* taken and refused by this guard */
    uint64_t questions, names_refused;
    uint64_t bytes_up, bytes_down;
    uint32_t pins;
    uint64_t audit_lost; /* the guard's records that were not written, of all sandboxes */
};

struct channel_msg {
    enum channel_type type;
    uint32_t sandbox; /* index */
    uint32_t seq;
    int32_t error; /* REPLY: errno; 0: done */
    enum egress_tier tier;
    char name[EGRESS_NAME_MAX + 1];
    uint32_t tag; /* SANDBOX, POLICY: nft_tag(); 0: the kernel has no rules of it */
    struct ip_addr from, to; /* ASK_WHO; WANT_REPLY: to */
    uint16_t from_port, to_port;
    uint8_t protocol;
    int32_t pid; /* WHO; 0: not known */
    uint32_t uid;
    char comm[16];
    struct ip_net floor[CHANNEL_FLOOR_MAX]; /* HELLO, FLOOR */
    uint32_t n_floor;
    struct channel_counts counts;
    char text[CHANNEL_TEXT_MAX]; /* HELLO, FLOOR: resolvers; REFUSED: why */
    int fd
        [CHANNEL_FDS]; /* -1: none. Sent ones stay the caller's; received ones are its to close */
};

/** The record as bytes; how many. -1: a field that no such record has (ERR_PROTO). */
int channel_encode(const struct channel_msg *m, uint8_t out[CHANNEL_WIRE_MAX],
                   struct err *e);
/** Strict. @fd  the descriptors that came with it, in order: moved to *ret in all cases but
 *  failure, when they stay the caller's. Every field of *ret is set. */
int channel_decode(struct span bytes, const int *fd, size_t n_fds,
                   struct channel_msg *ret, struct err *e);
int channel_pair(int ret[2], struct err *e); /* close-on-exec, non-blocking */
void channel_msg_init(struct channel_msg *m, enum channel_type type, uint32_t sandbox);
/** 0; -1 with EAGAIN in e->sys when the other side does not read. */
int channel_send(int fd, const struct channel_msg *m, struct err *e);
/** The same for a record that channel_encode() made, with its descriptors in order. */
int channel_send_wire(int fd, uint8_t *wire, size_t len, const int *fds, size_t n_fds,
                      struct err *e);
/** 1: got one; 0: none waits; -1: closed, or broken (ERR_PROTO). */
int channel_recv(int fd, struct channel_msg *ret, struct err *e);
void channel_msg_done(struct channel_msg *m); /* closes descriptors not taken */
/** A sealed memfd with these bytes, and its contents again (bounded). */
int channel_text_out(const void *p, size_t n, struct err *e);
struct buf;
int channel_text_in(int fd, size_t max, struct buf *ret, struct err *e);

#endif
