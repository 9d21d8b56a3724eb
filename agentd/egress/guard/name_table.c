/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/name_table.h"

#include <string.h>

#include "common/crypto.h"
#include "common/mem.h"

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

uint64_t name_table_hash(const struct name_table *t, const char *text)
{
    uint64_t h = t->seed[0];

    for (; *text; text++)
        h = mix(h ^ (uint8_t)*text) + t->seed[1];
    h = mix(h);
    return h ? h : 1;
}

static void unlink_use(struct name_table *t, struct name_entry *e)
{
    *(e->newer ? &e->newer->older : &t->newest) = e->older;
    *(e->older ? &e->older->newer : &t->oldest) = e->newer;
}

static void link_use(struct name_table *t, struct name_entry *e)
{
    e->newer = NULL;
    e->older = t->newest;
    *(e->older ? &e->older->newer : &t->oldest) = e;
    t->newest = e;
}

void name_table_touch(struct name_table *t, struct name_entry *e)
{
    unlink_use(t, e);
    link_use(t, e);
}

struct name_entry *name_table_find(const struct name_table *t, const char *name,
                                   int family, uint64_t hash)
{
    struct name_entry *e = t->bucket[hash % NAME_TABLE_BUCKETS];

    while (e && (e->hash != hash || e->family != family || strcmp(e->name, name) != 0))
        e = e->next;
    return e;
}

void name_entry_empty(struct name_entry *e)
{
    mem_free(e->addr);
    mem_free(e->why);
    e->addr = NULL;
    e->why = NULL;
    e->n = 0;
    e->was_filtered = false;
}

void name_table_drop(struct name_table *t, struct name_entry *e)
{
    struct name_entry **p = &t->bucket[e->hash % NAME_TABLE_BUCKETS];

    while (*p != e)
        p = &(*p)->next;
    *p = e->next;
    unlink_use(t, e);
    t->n--;
    name_entry_empty(e);
    mem_free(e);
}

static void make_room(struct name_table *t)
{
    struct name_entry *e = t->oldest;

    if (t->n < NAMES_CACHE_MAX)
        return;
    while (e && e->ask)
        e = e->newer;
    if (e)
        name_table_drop(t, e);
}

struct name_entry *name_table_add(struct name_table *t, const char *name, int family,
                                  uint64_t hash)
{
    size_t len = strlen(name) + 1;
    struct name_entry *e;

    make_room(t);
    e = mem_zalloc(1, sizeof(*e) + len);
    if (!e)
        return NULL;
    e->family = family;
    e->hash = hash;
    memcpy(e->name, name, len);
    e->next = t->bucket[hash % NAME_TABLE_BUCKETS];
    t->bucket[hash % NAME_TABLE_BUCKETS] = e;
    link_use(t, e);
    t->n++;
    return e;
}

void name_table_init(struct name_table *t)
{
    memset(t, 0, sizeof(*t));
    crypto_random(t->seed, sizeof(t->seed));
}
