/* SPDX-License-Identifier: MIT */
/**
 * name_table -- the table behind names: one entry a name and family, found by name and by
 *               how lately it was used. Pure.
 *
 * An entry is asked (its question upstream runs, and halves wait on it), or answered until
 * it expires. One that is asked is never evicted: there are at most NAMES_ASKING_MAX of
 * them, which is less than the table holds. Hashed with a secret seed, since the sandbox
 * chooses the names.
 */
#ifndef AGENTD_EGRESS_GUARD_NAME_TABLE_H
#define AGENTD_EGRESS_GUARD_NAME_TABLE_H

#include "agentd/egress/guard/names.h"

#define NAME_TABLE_BUCKETS 512

struct dns_ask;
struct names_half;

struct name_entry {
    struct name_entry *next;          /* of its bucket */
    struct name_entry *newer, *older; /* use */
    struct names *names;              /* borrowed: whose table it is */
    struct dns_ask *ask;              /* NULL: answered */
    struct names_half *waiting;       /* on the answer */
    uint64_t hash, expires_ms;
    int family;
    enum names_result result;
    bool was_filtered;   /* some address was left out */
    struct verdict *why; /* FLOOR */
    struct ip_addr *addr;
    size_t n;
    char name[];
};

struct name_table {
    struct name_entry *bucket[NAME_TABLE_BUCKETS];
    struct name_entry *newest, *oldest;
    size_t n;
    uint64_t seed[2];
};

/** Empty, with a seed of its own. */
void name_table_init(struct name_table *t);
/** Never 0. */
uint64_t name_table_hash(const struct name_table *t, const char *text);
/** @hash  the name's. NULL: not there. */
struct name_entry *name_table_find(const struct name_table *t, const char *name,
                                   int family, uint64_t hash);
/** An empty one, the newest; it is not there yet. Of NAMES_CACHE_MAX the one that was not
 *  used for longest goes. NULL: no memory. */
struct name_entry *name_table_add(struct name_table *t, const char *name, int family,
                                  uint64_t hash);
/** It is used now. */
void name_table_touch(struct name_table *t, struct name_entry *e);
/** Nothing waits on it, and it is not asked. */
void name_table_drop(struct name_table *t, struct name_entry *e);
/** Forgets what was answered. */
void name_entry_empty(struct name_entry *e);

#endif
