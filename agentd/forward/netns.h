/* SPDX-License-Identifier: MIT */
/**
 * netns -- another network namespace, in which sockets are made that are used from here: the
 *          agent's listing of listeners and its connections (`up --netns`, `egress run --up`),
 *          the egress keeper's listeners and netlink.
 *
 * A socket belongs for life to the namespace it is made in, so entering is needed only around
 * socket(2). Who may leave its own namespace and come back (CAP_SYS_ADMIN here and there) does
 * so; who may not (an ordinary user's sandbox) asks a process that lives there, the maker, which
 * hands sockets out over a socketpair. NULL as the namespace means our own everywhere.
 */
#ifndef AGENTD_FORWARD_NETNS_H
#define AGENTD_FORWARD_NETNS_H

#include <sys/types.h>

#include "common/err.h"

#define NETNS_MAKER_MS 5000 /* until the maker answers */
#define NETNS_NAME_MAX 63   /* of a netns_sysctl() */

struct netns;

/** By a namespace file, or that of a process when `path` is NULL. NULL with ERR_SYS when
 * it cannot be opened or entered (that needs CAP_SYS_ADMIN). */
struct netns *netns_open(const char *path, pid_t pid, struct err *e);
/** By a SOCK_SEQPACKET socket to a process that runs netns_maker() there. */
struct netns *netns_from_maker(int *take_fd, struct err *e);
void netns_free(struct netns *n);
/** socket(2) there: SOCK_CLOEXEC and SOCK_NONBLOCK are set. The descriptor, or -1. */
int netns_socket(struct netns *n, int domain, int type, int protocol, struct err *e);
/** The namespace itself, borrowed; -1: it is only reached through a maker, or is our own. */
int netns_fd(const struct netns *n);
/** A file of /proc/sys/net as it is there, opened for reading: "ipv4/ip_local_port_range". The
 *  descriptor, or -1. */
int netns_sysctl(struct netns *n, const char *name, struct err *e);
/** The maker's life: answer requests on `fd` until it closes. AF_INET, AF_INET6 and AF_NETLINK
 *  sockets, and files of netns_sysctl(), only. Returns 0 at the end, -1 on a broken request. */
int netns_maker(int fd);

#endif
