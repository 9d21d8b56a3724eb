/* SPDX-License-Identifier: MIT */
/**
 * dns_ask -- one question to the upstream name servers, on our loop (c-ares): over UDP,
 *            over TCP when the answer is truncated, the next server on silence or
 *            failure, with one deadline (NAME_MS) for all of it.
 *
 * What c-ares carries is our own message and the answer is read by dnsmsg. No file is
 * read: not /etc/resolv.conf, not /etc/hosts.
 */
#ifndef AGENTD_EGRESS_GUARD_DNS_ASK_H
#define AGENTD_EGRESS_GUARD_DNS_ASK_H

#include "agentd/egress/guard/dnsmsg.h"
#include "common/err.h"
#include "common/loop.h"

struct dns_ask;
/** The answer, once, from the loop; then the question is over and its pointer dead. `a`
 *  is lent; NULL: *e says why (ERR_TIMEOUT, ERR_PROTO for an answer that is none,
 *  ERR_NOTFOUND for servers that refuse or cannot be reached, ERR_NOMEM). The rcode is
 *  NOERROR or NXDOMAIN. */
typedef void dns_ask_fn(void *arg, const struct dns_answer *a, const struct err *e);

struct dns_ask_what {
    const char *servers; /* "192.0.2.53:53,[2001:db8::53]:53"; at least one */
    const char *name;    /* canonical */
    uint16_t type;       /* DNS_A or DNS_AAAA */
};
/** NULL with *e: no memory, no servers. fn is never called inside. `what` is copied. */
struct dns_ask *dns_ask_start(struct loop *l, const struct dns_ask_what *what,
                              dns_ask_fn *fn, void *arg, struct err *e);
/** No call of fn after this; *a becomes NULL; NULL is fine. */
void dns_ask_cancel(struct dns_ask **a);

#endif
