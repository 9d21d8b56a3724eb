/* SPDX-License-Identifier: MIT */
/**
 * veth -- the interface that an engine gave a sandbox, found from both ends, and what
 *         would break its rules.
 *
 *   sandbox: eth0 --(veth)-- vethXY on the host, in a bridge br0        way = br0, port = vethXY
 *                                              in none (point to point) way = port = vethXY
 *
 * A sandbox of the veth tier has exactly one interface but lo: a veth whose other end is
 * in our own namespace. Everything else (two interfaces, macvlan, ipvlan, a tunnel, a
 * device, the host's own namespace) is refused in words, since what leaves there would be
 * nobody's. Devices that the kernel puts into every namespace by itself (tunl0, sit0 and
 * the like) count for nothing.
 *
 * Reads netlink, sysctls and the bridge's switches; no byte that a sandbox
 * wrote: Docker's embedded resolver is found by its socket on 127.0.0.11, not
 * by a file of the sandbox.
 *
 * Use      veth_host_look() once a round for all sandboxes, then per sandbox
 *          veth_find() when it is added and veth_breakers() then and every
 *          KEEPER_CHECK_MS. rt_tproxy_set() comes before the first look: whether it
 *          still stands is part of it.
 */
#ifndef AGENTD_EGRESS_KEEPER_VETH_H
#define AGENTD_EGRESS_KEEPER_VETH_H

#include <net/if.h>

#include "agentd/egress/kernel/nft.h"
#include "agentd/forward/netns.h"

#define VETH_ADDRS_MAX 8    /* of a sandbox; as nft_sandbox's */
#define VETH_LINKS_MAX 8192 /* on the host; of two a sandbox, with room */

/** What both ends' rules are made from. A value: copy it. */
struct veth {
    char inside[IF_NAMESIZE]; /* in the sandbox, when it was found: "eth0" */
    int inside_index;
    char port[IF_NAMESIZE]; /* its other end, here: gets the netdev chain */
    int port_index;
    char way[IF_NAMESIZE]; /* its packets reach IP here by: the bridge, or the port */
    int way_index;
    bool is_bridged;
    uint8_t mac[6], gateway_mac[6];      /* the sandbox's; that of `way` */
    struct ip_addr addr[VETH_ADDRS_MAX]; /* the sandbox's; its link-local one too */
    unsigned n_addr;
    /* The address of `way` in the sandbox's network; family 0: none, or more than one. */
    struct ip_addr gateway4;
};

struct veth_host; /* opaque: links and switches of our own namespace, at one moment */

/** NULL with *e. Cost: two dumps, whatever the number of sandboxes. */
struct veth_host *veth_host_look(struct err *e);
void veth_host_free(struct veth_host *h);

/**
 * Find the sandbox's interface.
 *
 * @ns     the sandbox's namespace
 * @iface  must be its name inside, or that of its end here; NULL: whatever it is called
 *
 * 0, or -1: ERR_DENIED with what it has instead of one veth ("interface eth0 is a
 * macvlan, which has no end on the host"), ERR_NOTFOUND when it has none yet, ERR_SYS.
 */
int veth_find(const struct veth_host *h, struct netns *ns, const char *iface,
              struct veth *ret, struct err *e);
/** For the sealed tier: 0 when the namespace is not ours and has no interface but lo; -1
 *  with ERR_DENIED ("it has interface eth0, ..."). */
int veth_none(struct netns *ns, struct err *e);
/** For the veth tier: 0 when the namespace is not ours and has one interface
 *  beyond lo. */
int veth_any(struct netns *ns, struct err *e);
/**
 * What has changed on this side since: names, the bridge's hardware address. What is
 * inside stays as it was: who is root there chooses its addresses, and the rules must not
 * follow him. 0, or -1 as veth_find().
 */
int veth_follow(const struct veth_host *h, struct netns *ns, const struct veth *was,
                struct veth *ret, struct err *e);
/** Fill bridge, veth, mac, gateway_mac, addr and gateway4 of *s; its texts
 *  are lent by *v. */
void veth_fill(const struct veth *v, struct nft_sandbox *s);
/** The same rules would be made from both? */
bool veth_is_same(const struct veth *a, const struct veth *b);

#define VETH_REASONS_MAX 8
#define VETH_REASON_MAX  200
struct veth_reasons {
    unsigned n;
    char text[VETH_REASONS_MAX][VETH_REASON_MAX]; /* each a sentence for people */
};

/**
 * Look again, inside and here, and say what breaks enforcement: none is enforced.
 *
 * @was  what the rules in force were made from; it tells when that is no longer so (the
 *       keeper may then find anew and replace the rules)
 *
 * Never fails: what cannot be looked at is a reason. Renaming the interface inside, or
 * giving it other addresses, is none: the rules are on this side, and drop what has
 * another address.
 */
void veth_breakers(const struct veth_host *h, struct netns *ns, const struct veth *was,
                   struct veth_reasons *ret);

#endif
