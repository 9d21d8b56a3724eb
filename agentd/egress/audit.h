/* SPDX-License-Identifier: MIT */
/**
 * audit -- the record of what was allowed and what was not: JSON Lines, schema in
 *          docs/egress-audit.schema.json. One record a connection at its end, one at
 *          each refusal, one for each name refused, and events of the keeper.
 *
 * Each record is one write(2) to a descriptor opened with O_APPEND, so the guard and the
 * keeper may share a file. Refusals of one kind beyond AUDIT_RATE_PER_S in a sandbox are
 * counted and told with the next one ("repeated").
 */
#ifndef AGENTD_EGRESS_AUDIT_H
#define AGENTD_EGRESS_AUDIT_H

#include "agentd/egress/policy/decision.h"
#include "common/buf.h"
#include "common/err.h"

#define AUDIT_RATE_PER_S 50

enum audit_kind {
    AUDIT_CONNECTION, /* allowed, at its end */
    AUDIT_REFUSED,    /* by the guard or the kernel */
    AUDIT_NAME,       /* a question refused */
    AUDIT_EVENT, /* sandbox.start, sandbox.end, policy.replaced, rules.restored, guard.died, ... */
};
struct audit_record {
    enum audit_kind kind;
    int32_t pid; /* 0: not known */
    const char *sandbox;
    const char *event; /* EVENT; else NULL */
    const char *by;    /* "kernel", "guard", "dns", "keeper" */
    const char *comm;  /* NULL: not known */
    const char *name;  /* server name, Host, or the question; NULL */
    uint32_t uid; /* UINT32_MAX: not known; as the sandbox's namespace is seen here */
    struct ip_addr addr; /* family 0: none */
    uint8_t protocol;    /* IPPROTO_*; 0: none */
    uint16_t port;
    const char *check; /* "tls", "http", "pin", "dns"; NULL */
    const char *via;   /* the upstream proxy's host:port; NULL: direct */
    uint64_t bytes_up, bytes_down;
    uint64_t started_ms, ended_ms; /* wall clock */
    struct ip_addr dialed;         /* CONNECTION: where it went */
    bool would_refuse; /* mode audit or learn: allowed although the policy says no */
    uint32_t repeated; /* like ones left out before this */
    const char *end;   /* CONNECTION: "closed", "reset", "policy", "limit", "guard" ... */
    const struct verdict *verdict; /* NULL for events */
    const char *hash;              /* the policy's */
    const char *text;              /* EVENT: what, in words; NULL */
};
/** Append one line with its newline. Pure. */
int audit_print(const struct audit_record *r, struct buf *out);

struct audit;
/** @fd  borrowed; -1: records go nowhere */
struct audit *audit_new(int fd);
void audit_free(struct audit *a);
/** Write it; what cannot be written is counted and logged, rate-limited. */
void audit_write(struct audit *a, const struct audit_record *r);
uint64_t audit_lost(const struct audit *a);
/** Opens or makes a file for appending, 0640; "-" is stdout. */
int audit_open(const char *path, struct err *e);

#endif
