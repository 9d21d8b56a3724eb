/* SPDX-License-Identifier: MIT */
/**
 * resolve -- addresses of a name, asked on our loop (c-ares): A and AAAA at once,
 * /etc/hosts and /etc/resolv.conf as they are at that moment.
 *
 * An address is its own answer, and "localhost" and names under it are loopback in both
 * families, without asking anybody (RFC 6761 6.3). Works where there is no /etc.
 */
#ifndef AGENTD_LINK_RESOLVE_H
#define AGENTD_LINK_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "common/sock.h"

struct resolve;

/**
 * The answer, once, from the loop; the request is over and its pointer dead.
 * @addr  n addresses with the port; 1..CONNECT_ADDRS_MAX, IPv6 first, the families in
 * turn (RFC 8305 4); lent for the call. n is 0 when *e says why there are none:
 *        ERR_NOTFOUND (no such name, or no address), ERR_TIMEOUT, ERR_SYS, ERR_NOMEM.
 */
typedef void resolve_fn(void *arg, const struct sock_addr *addr, size_t n,
                        const struct err *e);

struct resolve_conf {
    const char *name;    /* canonical; copied */
    uint16_t port;       /* to put into the addresses */
    uint32_t timeout_ms; /* then ERR_TIMEOUT */
    const char *servers; /* "127.0.0.1:5353,[::1]:53"; NULL: the system's */
};

/** NULL with *e (ERR_NOMEM, ERR_SYS); fn is never called inside. */
struct resolve *resolve_start(struct loop *l, const struct resolve_conf *conf,
                              resolve_fn *fn, void *arg, struct err *e);
/** No call of fn after this; *r becomes NULL; NULL is fine. */
void resolve_cancel(struct resolve **r);

/** Is this "localhost" or a name under it? */
bool resolve_is_localhost(const char *name);

#endif
