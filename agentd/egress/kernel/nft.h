/* SPDX-License-Identifier: MIT */
/**
 * nft -- our nftables table in one network namespace: built by nft_build.c (pure: structs
 *        in, netlink messages out), spoken by nft_link.c (one batch a change,
 *        acknowledged, errors matched by sequence number and put into words).
 *
 *   table inet agentd_egress   sealed: the policy of every base chain is drop
 *     floor4/6, private4/6     static: ip_class_nets() and, on a host, its addresses
 *     own4/6                   sealed: what a sandbox's programs are to each other
 *     from4/6, ours4/6         veth: (interface . address) to a sandbox's chain; the same
 *                              as a set, for hooks that only drop
 *     may4/6, nets4/6          what of floor and private space the guard itself may dial
 *     pin4/6                   timed: tag . address . protocol . port, of all sandboxes;
 *                              a tag is one sandbox's, and never used again. Chain `pin`
 *                              puts in and takes out what the guard says (pin.h)
 *     told                     timed: which refusals are logged, at a bounded rate
 *     sandbox N                chain sN, counters sN_refused and sN_guarded, sN_quota;
 *                              where its policy has such, sN_net4/6 and sN_no4/6 (allowed
 *                              and denied networks . port), sN_port (ports that the
 *                              guard decides)
 *   table netdev agentd_egress veth: an ingress chain sN an interface, against spoofing
 *
 * A sandbox's chain (nft_judge.c), in order:
 *   multicast                                 refused
 *   port 53, wherever it goes                 to the guard
 *   sealed: the guard's ports                 refused
 *   sealed: its own addresses                 accepted
 *   the quota used up; invalid                refused
 *   TCP that is established                   to the guard
 *   floor; UDP; all but TCP                   refused
 *   sN_no; private and not in sN_net          refused
 *   pinned, or in sN_net, or in sN_port       to the guard, while its connections are not
 *                                             too many
 *   all else                                  refused
 *
 * To the guard is EGRESS_MARK: marked packets meet `tproxy`, and behind it a drop without
 * condition. Refusals are counted, logged to EGRESS_NFLOG with a mark that says which
 * sandbox and why, and fail at once (TCP reset, ICMP admin-prohibited).
 *
 * Limits   NFT_*; a pin over NFT_PINS_SEALED or NFT_PINS_HOST is refused. A batch is
 *          one datagram: without CAP_NET_ADMIN in the first user namespace it is
 *          at most twice net.core.wmem_max (2,000 networks or so).
 * Source   nf_tables.h, libnftnl; docs/EGRESS.md shows the rules. Only nft_build.c and
 *          nft_link.c include libnftnl, and only those and rt.c include libmnl.
 */
#ifndef AGENTD_EGRESS_KERNEL_NFT_H
#define AGENTD_EGRESS_KERNEL_NFT_H

#include "agentd/egress/policy/policy.h"
#include "agentd/egress/sandbox_name.h"

struct nft;

/** What belongs to the namespace as a whole. */
struct nft_base {
    enum egress_tier tier;
    const struct ip_net *own; /* VETH: the host's addresses, beyond ip_class_nets(true) */
    size_t n_own;
    /* VETH: floor for the sockets of this user, the guard's; 0: no such rule. */
    uint32_t guard_uid;
    bool is_guard_only; /* and nothing else: see nft_own_table() */
    /* Resolvers and proxies that the guard may reach although they are floor
     * or private. */
    const struct sock_addr *guard_may;
    size_t n_guard_may;
    /* Sandboxes that are not in this table, whose guard it is too: what they allow of
     * private space it may dial. */
    const struct policy *const *guard_for;
    size_t n_guard_for;
};

/** One sandbox in it. Index 1..65535, the keeper's. */
struct nft_sandbox {
    uint32_t index;
    const char *name; /* for comments */
    const struct policy *policy;
    uint16_t tcp_port; /* the guard's listeners, both families */
    uint16_t udp_port;
    /* VETH */
    const char *bridge; /* interface by which its packets reach the host's IP layer */
    const char *veth;   /* its own host-side interface, for the netdev chain */
    uint8_t mac[6], gateway_mac[6];
    struct ip_addr addr[8]; /* its addresses; its link-local one too */
    unsigned n_addr;
    struct ip_addr gateway4; /* whom alone it may ask for by ARP; family 0: anybody */
};

/** @take_fd  an AF_NETLINK, NETLINK_NETFILTER socket made in the namespace */
struct nft *nft_open(int *take_fd, struct err *e);
/** Give such a socket a port id before nft_open(). False: another socket of the namespace
 *  has it; the kernel gives one then. */
bool nft_bind(int fd, uint32_t port);
/** Of the socket that makes our changes. */
uint32_t nft_port(const struct nft *n);
void nft_close(struct nft *n); /* leaves the table, unless it is owned */
/** Before nft_install(): an inet table of another name (copied), which nobody else
 *  can change and which goes with the socket: `run` has one on the host, beside
 *  others of its kind. */
#define NFT_TABLE_MAX 32
void nft_own_table(struct nft *n, const char *name);
/** Before nft_install(): the tables are ours alone, `nft flush ruleset` passes them by,
 *  and they stay when we die, until the next one that asks for the same. Since Linux 6.9;
 *  before that they are as any. */
void nft_keep_table(struct nft *n);

/* Each is one batch: done wholly and acknowledged, or -1 with *e in words and
 * nothing changed. */
/** Make the table anew, with no sandboxes: what was there of ours is replaced
 *  atomically. */
int nft_install(struct nft *n, const struct nft_base *base, struct err *e);
/** Add a sandbox, or replace all of it but its pins, counters and quota. */
int nft_sandbox_set(struct nft *n, const struct nft_sandbox *s, struct err *e);
int nft_sandbox_drop(struct nft *n, const struct nft_sandbox *s, struct err *e);
/** After nft_install(): what pin_tie() gives a socket that pins in this table. */
uint32_t nft_pin_mark(const struct nft *n);
/** What a pin of this sandbox begins with (see pin.h); 0: it has no rules. It stays
 *  over nft_restore(), which leaves no pins. */
uint32_t nft_tag(const struct nft *n, uint32_t index);
int nft_uninstall(struct nft *n, struct err *e);
/** nft_install() and nft_sandbox_set() of all of them in one batch: after a start, or
 *  when somebody broke the table, so that there is no moment without rules. Pins,
 *  counters and quotas begin anew. */
int nft_restore(struct nft *n, const struct nft_base *base, const struct nft_sandbox *s,
                size_t n_sandboxes, struct err *e);

struct nft_counts {
    uint64_t refused_packets, refused_bytes, guarded_packets, guarded_bytes;
};
int nft_counts(struct nft *n, uint32_t index, struct nft_counts *ret, struct err *e);
/** Dump and compare with what was installed for these sandboxes: 0, or -1 with the first
 *  difference in *e (ERR_DENIED) or why the dump failed. When nobody changed anything in
 *  the namespace since the last 0, nor we tried to, it is that again, without a dump. */
int nft_verify(struct nft *n, const struct nft_base *base, const struct nft_sandbox *s,
               size_t n_sandboxes, struct err *e);

/* -- another program's changes ------------------------------------------------------- */

/** A second NETLINK_NETFILTER socket, subscribed to NFNLGRP_NFTABLES; -1 with *e.
 *  @own  a port id whose changes are ours: the kernel leaves them out */
int nft_monitor_start(int fd, uint32_t own, struct err *e);
/** Before nft_monitor_start(): of all namespaces that have a number here (rt_nsid()), too.
 *  False: the kernel refuses (CAP_NET_BROADCAST). Port ids are one namespace's: `own` must
 *  be ours in all of them. */
bool nft_monitor_all(int fd);

/** One message, of one transaction. */
struct nft_news {
    int nsid; /* the namespace's number; -1: our own */
    size_t len;
    _Alignas(8) uint8_t at[65536];
};
enum nft_got {
    NFT_GOT_NONE, /* nothing waits */
    NFT_GOT_NEWS,
    NFT_GOT_LOST, /* some did not fit: verify */
};
enum nft_got nft_monitor_next(int fd, struct nft_news *ret);
/** Is it about our table, and not our own doing? */
bool nft_news_touches(const struct nft_news *news, const struct nft *n);

enum nft_change {
    NFT_CHANGE_NONE,         /* nothing waits, or our own */
    NFT_CHANGE_OURS_TOUCHED, /* our table, or part of it, was changed by another process */
    NFT_CHANGE_LOST,         /* ENOBUFS: verify */
};
/** Read what waits on a socket for one namespace, n's. */
enum nft_change nft_monitor_read(const struct nft *n, int fd);

#endif
