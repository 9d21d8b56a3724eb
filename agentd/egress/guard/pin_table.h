/* SPDX-License-Identifier: MIT */
/**
 * pin_table -- the table behind pins: one entry an address and name, found by address
 *              (oldest first) and by when it needs care (a heap). Pure.
 */
#ifndef AGENTD_EGRESS_GUARD_PIN_TABLE_H
#define AGENTD_EGRESS_GUARD_PIN_TABLE_H

#include "agentd/egress/policy/ip.h"

#define PIN_RENEW_S 30 /* before its end a pin that is held needs care */

struct pin_entry {
    struct pin_entry *next; /* of its bucket; younger */
    uint64_t end_ms;        /* the latest of all answers */
    uint64_t told_ms;       /* the end that the kernel was told; 0: nothing */
    uint64_t due_ms;        /* when it needs care */
    size_t heap_at;
    uint32_t held;
    bool is_dead;         /* during a reload */
    uint16_t *port, *old; /* old: during a reload */
    size_t n_ports, n_old;
    struct ip_addr addr;
    char name[];
};

#define PIN_BUCKETS 512
struct pin_table {
    struct pin_entry *bucket[PIN_BUCKETS];
    struct pin_entry **heap; /* n of them; the first needs care first */
    size_t n, heap_cap;
    uint32_t seed;
};

/** Empty, with a seed of its own. */
void pin_table_init(struct pin_table *t);
/** With all entries. */
void pin_table_done(struct pin_table *t);
struct pin_entry *pin_table_find(struct pin_table *t, const struct ip_addr *a,
                                 const char *name);
/** The oldest in the address's bucket, where others may hang too; NULL. */
struct pin_entry *pin_table_first(struct pin_table *t, const struct ip_addr *a);
/** It is not there yet. NULL: no memory. */
struct pin_entry *pin_table_add(struct pin_table *t, const struct ip_addr *a,
                                const char *name, uint64_t end_ms);
/** Out of bucket and heap, and freed. */
void pin_table_drop(struct pin_table *t, struct pin_entry *e);
/** After end_ms or held changed. */
void pin_table_set_due(struct pin_table *t, struct pin_entry *e);
/** The latest end that the names of an address give a port; 0: none does. @but  not counted */
uint64_t pin_table_end(struct pin_table *t, const struct ip_addr *a, uint16_t port,
                       const struct pin_entry *but);

/** Is `want` among them; are the entry's just these, in this order. */
bool pin_ports_have(const uint16_t *port, size_t n, uint16_t want);
bool pin_ports_are(const struct pin_entry *e, const uint16_t *port, size_t n);
/** 0, or -1: no memory, and nothing changed. */
int pin_ports_set(struct pin_entry *e, const uint16_t *port, size_t n);

#endif
