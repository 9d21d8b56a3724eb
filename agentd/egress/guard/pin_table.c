/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/pin_table.h"

#include <string.h>

#include "common/crypto.h"
#include "common/mem.h"

/* -- the heap ------------------------------------------------------------------------ */

static void heap_put(struct pin_table *t, size_t at, struct pin_entry *e)
{
    t->heap[at] = e;
    e->heap_at = at;
}

static void heap_fix(struct pin_table *t, struct pin_entry *e)
{
    size_t at = e->heap_at;

    while (at > 0 && t->heap[(at - 1) / 2]->due_ms > e->due_ms) {
        heap_put(t, at, t->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < t->n && t->heap[child + 1]->due_ms < t->heap[child]->due_ms)
            child++;
        if (child >= t->n || t->heap[child]->due_ms >= e->due_ms)
            break;
        heap_put(t, at, t->heap[child]);
        at = child;
    }
    heap_put(t, at, e);
}

static int heap_add(struct pin_table *t, struct pin_entry *e)
{
    if (t->n == t->heap_cap) {
        size_t cap = t->heap_cap ? 2 * t->heap_cap : 64;
        struct pin_entry **heap = mem_resize(t->heap, cap * sizeof(struct pin_entry *));

        if (!heap)
            return -1;
        t->heap = heap;
        t->heap_cap = cap;
    }
    heap_put(t, t->n++, e);
    heap_fix(t, e);
    return 0;
}

static void heap_drop(struct pin_table *t, const struct pin_entry *e)
{
    size_t at = e->heap_at;
    struct pin_entry *last = t->heap[--t->n];

    if (last == e)
        return;
    heap_put(t, at, last);
    heap_fix(t, last);
}

void pin_table_set_due(struct pin_table *t, struct pin_entry *e)
{
    e->due_ms = e->end_ms - (e->held ? (uint64_t)PIN_RENEW_S * 1000 : 0);
    heap_fix(t, e);
}

/* -- entries ------------------------------------------------------------------------- */

static struct pin_entry **bucket_of(struct pin_table *t, const struct ip_addr *a)
{
    uint32_t h = t->seed ^ a->family;

    for (size_t i = 0; i < sizeof(a->bytes); i++)
        h = (h ^ a->bytes[i]) * 0x01000193u;
    return &t->bucket[(h ^ h >> 15) % PIN_BUCKETS];
}

struct pin_entry *pin_table_find(struct pin_table *t, const struct ip_addr *a,
                                 const char *name)
{
    struct pin_entry *e = *bucket_of(t, a);

    while (e && (!ip_eq(&e->addr, a) || strcmp(e->name, name) != 0))
        e = e->next;
    return e;
}

static void entry_free(struct pin_entry *e)
{
    mem_free(e->port);
    mem_free(e->old);
    mem_free(e);
}

void pin_table_drop(struct pin_table *t, struct pin_entry *e)
{
    struct pin_entry **at = bucket_of(t, &e->addr);

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    heap_drop(t, e);
    entry_free(e);
}

struct pin_entry *pin_table_first(struct pin_table *t, const struct ip_addr *a)
{
    return *bucket_of(t, a);
}

struct pin_entry *pin_table_add(struct pin_table *t, const struct ip_addr *a,
                                const char *name, uint64_t end_ms)
{
    size_t len = strlen(name) + 1;
    struct pin_entry **at, *e = mem_zalloc(1, sizeof(*e) + len);

    if (!e)
        return NULL;
    e->addr = *a;
    memcpy(e->name, name, len);
    e->end_ms = e->due_ms = end_ms;
    if (heap_add(t, e) < 0) {
        mem_free(e);
        return NULL;
    }
    for (at = bucket_of(t, a); *at; at = &(*at)->next)
        ;
    *at = e;
    return e;
}

void pin_table_init(struct pin_table *t)
{
    memset(t, 0, sizeof(*t));
    crypto_random(&t->seed, sizeof(t->seed));
}

void pin_table_done(struct pin_table *t)
{
    for (size_t i = 0; i < t->n; i++)
        entry_free(t->heap[i]);
    mem_free(t->heap);
    memset(t, 0, sizeof(*t));
}

/* -- ports --------------------------------------------------------------------------- */

bool pin_ports_have(const uint16_t *port, size_t n, uint16_t want)
{
    for (size_t i = 0; i < n; i++)
        if (port[i] == want)
            return true;
    return false;
}

/* The latest end that the names of an address give a port; 0: none does. */
uint64_t pin_table_end(struct pin_table *t, const struct ip_addr *a, uint16_t port,
                       const struct pin_entry *but)
{
    uint64_t end = 0;

    for (const struct pin_entry *e = *bucket_of(t, a); e; e = e->next)
        if (e != but && !e->is_dead && e->end_ms > end && ip_eq(&e->addr, a) &&
            pin_ports_have(e->port, e->n_ports, port))
            end = e->end_ms;
    return end;
}

int pin_ports_set(struct pin_entry *e, const uint16_t *port, size_t n)
{
    uint16_t *copy = NULL;

    if (n > 0) {
        copy = mem_alloc(n * sizeof(*copy));
        if (!copy)
            return -1;
        memcpy(copy, port, n * sizeof(*copy));
    }
    mem_free(e->port);
    e->port = copy;
    e->n_ports = n;
    return 0;
}

bool pin_ports_are(const struct pin_entry *e, const uint16_t *port, size_t n)
{
    return e->n_ports == n && (n == 0 || memcmp(e->port, port, n * sizeof(*port)) == 0);
}
