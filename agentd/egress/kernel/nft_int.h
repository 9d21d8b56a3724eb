/* SPDX-License-Identifier: MIT */
/**
 * nft_int -- between the nft_*.c files: a batch of netlink messages and the words to fill
 * it with.
 *
 * Shape    pure: calls append messages to `bytes`. The first failure (no memory, over the
 *          bound) stays in `is_failed`, later calls do nothing; who asked for the batch
 *          looks once, at its end.
 * Owner    batch_done() frees it, in any state.
 */
#ifndef AGENTD_EGRESS_KERNEL_NFT_INT_H
#define AGENTD_EGRESS_KERNEL_NFT_INT_H

#include <linux/netfilter/nf_tables.h>

#include "agentd/egress/kernel/nft.h"
#include "common/buf.h"

#define NFT_BATCH_MAX      (64 << 20) /* bytes of one batch: 65,536 networks take 12 MiB */
#define NFT_MESSAGE_MAX    (96 << 10) /* room before a message: 64 KiB of elements, a head */
#define NFT_PINS_SEALED    65535      /* of each family in a sealed namespace */
#define NFT_PINS_HOST      262144     /* on a host, all sandboxes together; 4 MiB */
#define NFT_LOG_PER_S      20         /* records a second, for each sandbox and reason */
#define NFT_LOG_BURST      40
#define NFT_LOG_BYTES      128   /* of a refused packet */
#define NFT_REASONS_SEALED 64    /* of the limits above at once; one that rests goes */
#define NFT_REASONS_HOST   65536 /* after a minute */
#define NFT_TAG            0x46000000u /* meta mark while a sandbox's packet is judged: | its tag */
#define NFT_TAG_MASK       0x00ffffffu
#define NFT_PIN_MARK       0x80000000u /* a sealed namespace's: | chance */
#define NFT_REFUSED        0x45000000u /* meta mark of a refused packet: | index << 8 | why */
#define NFT_REFUSED_MASK   0xff000000u

#ifndef NFT_TABLE_F_PERSIST /* Linux 6.9; Debian 12's headers are older */
#define NFT_TABLE_F_PERSIST 4
#endif

/** Why a packet was refused; the names are nflog's. */
enum nft_why {
    NFT_WHY_DEFAULT,  /* nothing allows it */
    NFT_WHY_FLOOR,    /* loopback, link-local, metadata, the host, multicast, reserved */
    NFT_WHY_PRIVATE,  /* private, and no rule for a network names it */
    NFT_WHY_DENIED,   /* a deny rule for a network */
    NFT_WHY_UDP,      /* UDP that is no DNS */
    NFT_WHY_PROTOCOL, /* neither TCP nor UDP */
    NFT_WHY_INVALID,  /* of no connection that the kernel follows */
    NFT_WHY_LIMIT,    /* too many connections */
    NFT_WHY_QUOTA,    /* too many bytes */
    NFT_WHY_GUARD,    /* the guard's own port */
    NFT_WHY_COUNT
};
const char *nft_why_name(enum nft_why w);

/* -- rectangles: addresses x ports --------------------------------------------------- */

struct nft_rect {
    struct ip_addr lo, hi;
    uint16_t first, last; /* ports; 0, 0 in lists of addresses only */
};
struct nft_rects {
    struct nft_rect *at;
    size_t n, cap;
};
void rects_done(struct nft_rects *r);
/** What to take of a policy. */
enum nft_take {
    NFT_TAKE_ALLOWED,
    NFT_TAKE_DENIED,
    NFT_TAKE_PRIVATE, /* allowed ones that touch private space */
};
/** Append a policy's networks with their ports, in any order and overlapping. 0; -1: no
 * memory.
 *  Deny rules that end are the guard's alone: here they would outlive their end. */
int rects_of_policy(struct nft_rects *r, const struct policy *p, enum nft_take take);
int rects_add(struct nft_rects *r, const struct ip_net *net, uint16_t first,
              uint16_t last);
int rects_push(struct nft_rects *r, const struct nft_rect *x);
/** The same set of pairs as rectangles that do not overlap. Each must be a network's width
 * (as the two above
 *  make them), so that two are apart or one holds the other. 0; -1: no memory. */
int rects_disjoin(struct nft_rects *r);
/** Address ranges only: sorted, overlapping and touching ones joined. */
void rects_join(struct nft_rects *r);
int rects_add_nets(struct nft_rects *r, const struct ip_net *net, size_t n);
/** The address after `a`; false: there is none. */
bool rect_next_addr(const struct ip_addr *a, struct ip_addr *ret);

/* -- a batch ------------------------------------------------------------------------- */

struct nlmsghdr;
struct nftnl_rule;

struct nft_batch {
    struct buf bytes;
    uint32_t seq;    /* of the next message; the owner's counter goes on from it */
    uint32_t set_id; /* of the next new set in this batch */
    size_t last;     /* where the last message starts */
    bool is_failed;
    uint8_t family; /* NFPROTO_INET, NFPROTO_NETDEV */
    const char *table;
    uint32_t table_flags;    /* NFT_TABLE_F_*, of the table */
    bool is_plain_before;    /* what it replaces had none */
    uint32_t pin_mark;       /* of the datagrams that are pins, in a sealed namespace */
    struct nftnl_rule *rule; /* being built */
};
void batch_init(struct nft_batch *b, const char *table, uint32_t seq);
void batch_done(struct nft_batch *b);
/** Empty again, memory kept. */
void batch_reset(struct nft_batch *b, const char *table, uint32_t seq);
void batch_begin(struct nft_batch *b);
/** Asks for the acknowledgement of the last message, then ends the batch. */
void batch_end(struct nft_batch *b);

/** A message's head, to be filled; NULL when the batch failed. Then its end. */
struct nlmsghdr *batch_message(struct nft_batch *b, uint16_t type, uint16_t flags);
void batch_message_end(struct nft_batch *b, const struct nlmsghdr *m);

void build_table(struct nft_batch *b);
/** Deletes what was there, then makes it. */
void build_table_anew(struct nft_batch *b);
void build_table_drop(struct nft_batch *b);

struct nft_hook {
    uint32_t num;
    int32_t priority;
    bool is_drop;       /* policy */
    const char *device; /* netdev */
};
/** @hook  NULL: a chain to jump to.  @comment  NULL: none */
void build_chain(struct nft_batch *b, const char *name, const struct nft_hook *hook,
                 const char *comment);
void build_chain_flush(struct nft_batch *b, const char *name);
void build_chain_drop(struct nft_batch *b, const char *name);

#define NFT_KEY_MAX 40
struct nft_set_def {
    const char *name;
    uint32_t flags;    /* NFT_SET_* */
    uint32_t type;     /* nft(8)'s number, for display */
    uint32_t len;      /* bytes of the key */
    uint8_t field[4];  /* of a concatenation with intervals: lengths */
    uint32_t n_fields; /* 0: no such */
    uint32_t size;     /* 0: no bound */
    uint64_t timeout_ms;
    bool is_vmap;
};
void build_set(struct nft_batch *b, const struct nft_set_def *d);
void build_set_flush(struct nft_batch *b, const char *name);
void build_set_drop(struct nft_batch *b, const char *name);

struct nft_elem {
    uint8_t key[NFT_KEY_MAX], end[NFT_KEY_MAX];
    uint32_t len;
    bool has_end;    /* a rectangle */
    bool is_closing; /* the first value after an interval */
    const char *go;  /* of a verdict map: the chain; borrowed */
};
void build_elems(struct nft_batch *b, const char *set, const struct nft_elem *e,
                 size_t n);
void build_elems_drop(struct nft_batch *b, const char *set, const struct nft_elem *e,
                      size_t n);
void build_counter(struct nft_batch *b, const char *name);
void build_quota(struct nft_batch *b, const char *name, uint64_t bytes);
void build_object_drop(struct nft_batch *b, const char *name, uint32_t type);

/* -- a rule: rule_begin(), expressions, rule_end() ----------------------------------- */

void rule_begin(struct nft_batch *b, const char *chain);
void rule_drop(struct nft_batch *b); /* one that was begun and not ended */
void rule_end(struct nft_batch *b, const char *comment);
void rule_meta(struct nft_batch *b, uint32_t key, uint32_t reg);
void rule_mark(struct nft_batch *b, uint32_t mark); /* meta mark set */
void rule_payload(struct nft_batch *b, uint32_t base, uint32_t offset, uint32_t len,
                  uint32_t reg);
void rule_cmp(struct nft_batch *b, uint32_t op, const void *p, uint32_t len);
void rule_cmp8(struct nft_batch *b, uint32_t op, uint8_t v);
void rule_cmp16(struct nft_batch *b, uint32_t op,
                uint16_t v); /* network order on the wire */
void rule_cmp32(struct nft_batch *b, uint32_t op,
                uint32_t v); /* host order: marks, uids */
void rule_and(struct nft_batch *b, const void *mask, uint32_t len);
void rule_lookup(struct nft_batch *b, const char *set, bool is_not);
void rule_vmap(struct nft_batch *b, const char *set);
void rule_ct_state(struct nft_batch *b, uint32_t bits);
void rule_ct_reply(struct nft_batch *b); /* ct direction reply */
void rule_ct_over(struct nft_batch *b, uint32_t n);
void rule_socket(struct nft_batch *b, uint32_t key, uint8_t v);
void rule_counter(struct nft_batch *b, const char *name);
void rule_quota(struct nft_batch *b, const char *name);
/** `update @set { meta mark timeout .. limit rate n/second burst m }`, the mark in
 * register 1 */
void rule_limit_each(struct nft_batch *b, const char *set, uint32_t per_s,
                     uint32_t burst);
/** `update @set { registers from 1 on timeout life_s }`; 0: `delete @set { ... }` */
void rule_element(struct nft_batch *b, const char *set, uint32_t life_s);
void rule_log(struct nft_batch *b, const char *prefix);
void rule_tproxy(struct nft_batch *b, uint16_t port);
void rule_reject(struct nft_batch *b, bool is_reset);
void rule_verdict(struct nft_batch *b, int verdict, const char *chain);

/* -- our rules (nft_table.c, nft_judge.c, nft_ingress.c) ----------------------------- */

/** What a policy comes to for the kernel. */
struct nft_plan {
    struct nft_rects allowed, denied; /* disjoint */
    const struct port_range *port;    /* borrowed from the policy */
    size_t n_ports;
    uint64_t quota;       /* 0: none */
    uint32_t connections; /* 0: no limit */
};
int plan_make(struct nft_plan *ret, const struct policy *p); /* -1: no memory */
void plan_done(struct nft_plan *p);

/** Sets that a sandbox has only when there is something in them. */
enum nft_own_set {
    NFT_NET4,
    NFT_NET6,
    NFT_NO4,
    NFT_NO6,
    NFT_PORT,
    NFT_OWN_SETS
};
uint32_t plan_sets(const struct nft_plan *p); /* bits, 1 << NFT_NET4 ... */

/** The tables without sandboxes: deletes what was there, then makes them. */
void rules_base(struct nft_batch *b, const struct nft_base *base);
/** @tag   the sandbox's, for its pins
 *  @old   the sets it has now; 0 for a new one */
struct nft_judge {
    enum egress_tier tier;
    uint32_t tag;
    uint32_t old_sets;
};
void rules_sandbox(struct nft_batch *b, const struct nft_sandbox *s,
                   const struct nft_plan *p, const struct nft_judge *j);
/** Where a sandbox's packets come from: elements of the verdict maps and of the sets
 * beside them. */
void rules_origin(struct nft_batch *b, const struct nft_sandbox *s, bool is_drop);
void rules_sandbox_drop(struct nft_batch *b, uint32_t index, uint32_t sets, bool is_veth);
/** A veth's own chain, in the netdev table. */
void rules_ingress(struct nft_batch *b, const struct nft_sandbox *s);
/** The private networks that the guard may dial, of all policies: replaces the set's
 * elements. */
void rules_guard_nets(struct nft_batch *b, const struct nft_rects *r);

/* -- messages as bytes (nft_socket.c) ------------------------------------------------ */

/** An attribute after `head` bytes of fixed fields; empty when there is none. */
struct span message_attr(const struct nlmsghdr *m, size_t head, uint16_t type);
/** A text attribute of an nftables message; "" when there is none. */
void message_text_attr(const struct nlmsghdr *m, uint16_t type, char *out, size_t cap);

/* -- the socket (nft_socket.c) ------------------------------------------------------- */

#define NFT_LINK_MS 5000 /* longest wait for the kernel, which answers at once */

struct nft_link {
    int fd;
    uint32_t port; /* our address: whose changes are ours */
    uint32_t seq;
    size_t send_max; /* bytes that one batch may have now */
    uint8_t *in;     /* NFT_LINK_IN */
};
#define NFT_LINK_IN 131072

int link_open(struct nft_link *l, int *take_fd, struct err *e);
void link_done(struct nft_link *l);
/** Begin a batch with the link's next number. */
void link_begin(struct nft_link *l, struct nft_batch *b, const char *table);
/** End it, send it and wait for the answer: all is in force, or -1 and nothing is. */
int link_commit(struct nft_link *l, struct nft_batch *b, struct err *e);
int link_send(struct nft_link *l, const void *p, size_t len, struct err *e);
/** The next datagram from the kernel, into l->in; its length, or -1. */
ssize_t link_take(struct nft_link *l, struct err *e);
/** Forget answers that nobody waited for. */
void link_drain(struct nft_link *l);

/* -- reading (nft_link.c) ------------------------------------------------------------ */

/** Append what stands in a table of both families, as lines (see lines_diff()); with
 * elements. */
int link_dump(struct nft_link *l, const char *table, bool has_netdev, struct buf *out,
              struct err *e);
/** The lines of what a batch sets up. */
int link_expected(const struct nft_batch *b, struct buf *out, struct err *e);
/** A number that every change of nftables in the namespace makes another. */
int link_generation(struct nft_link *l, uint32_t *ret, struct err *e);
int link_counter(struct nft_link *l, const char *table, const char *name,
                 uint64_t *ret_packets, uint64_t *ret_bytes, struct err *e);

const char *nft_table(const struct nft *n);
/** Before nft_install(): not by chance, so that what is shown can be compared. */
void nft_pin_mark_set(struct nft *n, uint32_t mark);

/* -- comparing (nft_verify.c) -------------------------------------------------------- */

/** Lines "kind name\ttext\n". Those of one kind and name keep their order when they are
 * rules, and have none
 *  otherwise; twice the same is once, but for rules. 0: the same; 1: *ret is the first
 *  difference. -1: no memory. */
int lines_diff(const struct buf *want, const struct buf *have, char *ret, size_t cap);

#endif
