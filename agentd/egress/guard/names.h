/* SPDX-License-Identifier: MIT */
/**
 * names -- the guard's own resolver for one sandbox: one upstream question at a time a
 *          name and type, answers kept for their time, addresses that are floor (or
 *          private and not allowed) left out. Name server and connections ask the same
 *          table, so a connection goes where the answer said.
 *
 * Limits   NAMES_CACHE_MAX names, least recently used goes; policy limit `names` under
 *          wildcards (`labels` is decide()'s).
 */
#ifndef AGENTD_EGRESS_GUARD_NAMES_H
#define AGENTD_EGRESS_GUARD_NAMES_H

#include "agentd/egress/guard/ward.h"

#define NAMES_ADDRS_MAX   32
#define NAMES_CHAIN_MAX   8 /* CNAMEs */
#define NAMES_CACHE_MAX   4096
#define NAMES_ASKING_MAX  128  /* questions upstream at once, a sandbox */
#define NAMES_NEGATIVE_MS 5000 /* no such name, no address, only refused addresses */
#define NAMES_TTL_MIN_S   30   /* what an answer and its pins live at least */
#define NAMES_TTL_MAX_S   3600
#define NAMES_GRACE_S     60 /* a pin outlives its answer: clients keep addresses longer */

enum names_result {
    NAMES_OK,        /* addresses, at least one */
    NAMES_EMPTY,     /* the name is, but has no address of this kind (NODATA) */
    NAMES_NOT_FOUND, /* NXDOMAIN */
    NAMES_FLOOR,     /* addresses, but each of them is refused: `why` says for what */
    NAMES_FAILED,    /* no usable answer from upstream */
    NAMES_LIMIT,     /* too many names under a wildcard, too many questions waiting */
};
struct names_answer {
    enum names_result result;
    struct ip_addr addr[NAMES_ADDRS_MAX];
    size_t n;
    uint32_t ttl_s;
    const struct verdict *why; /* FLOOR, LIMIT */
};
struct names_ask;
typedef void names_fn(void *arg, const struct names_answer *a);

struct names *names_new(struct ward *w, struct err *e);
void names_free(struct names *n);
/** @name    canonical; the caller has decided that it is allowed
 *  @family  AF_INET or AF_INET6; AF_UNSPEC: both
 *  fn once, never inside; NULL with *e: no memory or too many waiting. */
struct names_ask *names_ask(struct names *n, const char *name, int family, names_fn *fn,
                            void *arg, struct err *e);
void names_cancel(struct names_ask **a);
/** The policy changed: drop what is cached for names no longer allowed;
 *  resolvers may differ. */
void names_reload(struct names *n);

#endif
