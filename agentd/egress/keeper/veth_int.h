/* SPDX-License-Identifier: MIT */
/** veth_int -- what veth.c (finding) and veth_break.c (what breaks it) share. */
#ifndef AGENTD_EGRESS_KEEPER_VETH_INT_H
#define AGENTD_EGRESS_KEEPER_VETH_INT_H

#include "agentd/egress/keeper/veth.h"
#include "agentd/egress/kernel/rt.h"

#define VETH_INSIDE_LINKS 64

/** Our own namespace. */
struct veth_home {
    int fd; /* rtnetlink; -1: not open */
    int ns; /* its file; -1: not open */
};

struct veth_host {
    struct veth_home home;
    struct rt_link *link;
    size_t n;
    struct err tproxy; /* code ERR_NONE: rules and routes stand */
};

/** The sandbox's namespace, at one moment. */
struct veth_inside {
    struct rt_link link[VETH_INSIDE_LINKS];
    int n;
    struct ip_net addr[RT_ADDRS_MAX]; /* of `only` */
    int n_addr;
    const struct rt_link *only; /* neither lo nor the kernel's own; NULL: nothing */
    bool ends_here;             /* `only` has its other end in our namespace */
    bool has_embedded_resolver;
};
int veth_look_inside(struct veth_inside *in, struct netns *ns,
                     const struct veth_home *own, struct err *e);
/** Put both ends together: all of *ret but the sandbox's addresses. */
int veth_join(const struct veth_host *h, const struct veth_inside *in, const char *iface,
              struct veth *ret, struct err *e);

#endif
