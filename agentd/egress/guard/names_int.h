/* SPDX-License-Identifier: MIT */
/**
 * names_int -- what the two halves of names say to each other: names.c knows and asks
 *              upstream, names_ask.c has the callers, who wait.
 *
 * A caller's question is one half a family, each of which is done at once from the
 * table, or waits on an entry. When its halves are done, or one has addresses and the
 * other had NAME_AAAA_MS more, a deferred job gives the answer, so nobody is called back
 * inside of anything here.
 */
#ifndef AGENTD_EGRESS_GUARD_NAMES_INT_H
#define AGENTD_EGRESS_GUARD_NAMES_INT_H

#include "agentd/egress/guard/learned.h"
#include "agentd/egress/guard/name_table.h"

enum {
    NAMES_V6,
    NAMES_V4,
    NAMES_FAMILIES
};

struct names_half {
    struct names_half *next, **prev; /* of the entry's waiting; prev NULL: not waiting */
    struct names_ask *owner;
    bool is_wanted, is_done;
    enum names_result result;
    uint32_t ttl_s;
    size_t n;
    struct ip_addr addr[NAMES_ADDRS_MAX];
};

struct names_ask {
    struct names_ask *next, **prev; /* of all */
    struct names *names;            /* borrowed: owner */
    names_fn *fn;
    void *arg;
    struct loop_job end;
    struct loop_timer patience;
    struct names_half half[NAMES_FAMILIES];
    struct verdict why;
};

struct names {
    struct ward *ward; /* borrowed */
    struct name_table table;
    size_t n_asking;
    struct names_ask *asks;
    uint64_t servers; /* hash of what is asked, to see it change */
    struct learned learned;
};

/* names.c */

/** Done from the table, or by the limit; or it waits on an entry. 0, or -1 with *err: no
 *  memory, too many are asked. */
int names_half_start(struct names_half *h, const char *name, int family, struct err *err);

/* names_ask.c */

/** Until names_tell() says the entry's answer. */
void names_half_wait(struct names_half *h, struct name_entry *e);
/** Done, by what the entry has. */
void names_half_fill(struct names_half *h, const struct name_entry *e, uint64_t now);
/** Those who wait on it have their answer. */
void names_tell(struct name_entry *e, uint64_t now);
/** With its halves, wherever they wait; its function is not called. */
void names_ask_free(struct names_ask *a);

#endif
