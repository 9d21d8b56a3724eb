/* SPDX-License-Identifier: MIT */
#include "tunneld/directory.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/token.h"

#define TABLE_FIRST 64 /* slots of a new table; a power of two */

/* A chained hash table of things that begin with struct node. */
struct node {
    struct node *next;
    uint64_t hash;
    const char *key; /* points into the thing */
};
struct table {
    struct node **slot;
    size_t n_slots, n;
};

struct tenant {
    struct node node;
    char name[TOKEN_TENANT_MAX + 1];
};
struct owner { /* of an id */
    struct node node;
    const struct tenant
        *tenant; /* borrowed from the table of tenants, which only grows */
    char id[HOST_ID_MAX + 1];
};
struct claim {
    struct node node;
    const struct tenant *tenant; /* as above */
    bool is_used;
    uint16_t port;
    char id[HOST_ID_MAX + 1];
    char name[HOST_LABEL_MAX + 1];
};

struct directory {
    pthread_mutex_t lock;
    uint64_t seed;
    struct table tenants, owners, claims;
};

struct directory *directory_new(void)
{
    struct directory *d = mem_zalloc(1, sizeof *d);

    if (!d)
        return NULL;
    if (pthread_mutex_init(&d->lock, NULL) != 0) {
        mem_free(d);
        return NULL;
    }
    crypto_random(&d->seed, sizeof d->seed);
    return d;
}

static void table_done(struct table *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        struct node *next;

        for (struct node *n = t->slot[i]; n; n = next) {
            next = n->next;
            mem_free(n); /* the node is the first member of what was allocated */
        }
    }
    mem_free(t->slot);
    *t = (struct table){0};
}

void directory_free(struct directory *d)
{
    if (!d)
        return;
    table_done(&d->claims);
    table_done(&d->owners);
    table_done(&d->tenants);
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}

/* FNV-1a, seeded and finished as in MurmurHash3: a seed nobody knows is what keeps a
 * tenant from choosing ids that all fall to one worker. */
uint64_t directory_hash(const struct directory *d, const char *text)
{
    uint64_t h = 0xcbf29ce484222325u ^ d->seed;

    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 0x100000001b3u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    return h;
}

static struct node *table_find(const struct table *t, uint64_t hash, const char *key)
{
    struct node *n = t->n_slots ? t->slot[hash & (t->n_slots - 1)] : NULL;

    while (n && (n->hash != hash || strcmp(n->key, key) != 0))
        n = n->next;
    return n;
}

static int table_grow(struct table *t)
{
    size_t n_slots = t->n_slots ? t->n_slots * 2 : TABLE_FIRST;
    struct node **slot = mem_zalloc(n_slots, sizeof(struct node *));

    if (!slot)
        return -1;
    for (size_t i = 0; i < t->n_slots; i++) {
        struct node *next;

        for (struct node *n = t->slot[i]; n; n = next) {
            next = n->next;
            n->next = slot[n->hash & (n_slots - 1)];
            slot[n->hash & (n_slots - 1)] = n;
        }
    }
    mem_free(t->slot);
    t->slot = slot;
    t->n_slots = n_slots;
    return 0;
}

/* `n` has hash and key. */
static int table_add(struct table *t, struct node *n)
{
    struct node **at;

    if (t->n >= t->n_slots && table_grow(t) < 0)
        return -1;
    at = &t->slot[n->hash & (t->n_slots - 1)];
    n->next = *at;
    *at = n;
    t->n++;
    return 0;
}

/* The tenant's one copy, made when it is new; NULL on a bound or no memory. */
static const struct tenant *tenant_get(struct directory *d, const char *name)
{
    uint64_t hash = directory_hash(d, name);
    struct tenant *t = (struct tenant *)table_find(&d->tenants, hash, name);

    if (t || d->tenants.n >= DIRECTORY_TENANTS)
        return t;
    t = mem_zalloc(1, sizeof *t);
    if (!t)
        return NULL;
    (void)snprintf(t->name, sizeof t->name, "%s",
                   name); /* callers' text has this bound */
    t->node.hash = hash;
    t->node.key = t->name;
    if (table_add(&d->tenants, &t->node) < 0) {
        mem_free(t);
        return NULL;
    }
    return t;
}

static enum directory_result own(struct directory *d, const char *id, const char *tenant)
{
    uint64_t hash = directory_hash(d, id);
    struct owner *o = (struct owner *)table_find(&d->owners, hash, id);

    if (o)
        return strcmp(o->tenant->name, tenant) == 0 ? DIRECTORY_OK : DIRECTORY_TAKEN;
    if (d->owners.n >= DIRECTORY_IDS)
        return DIRECTORY_FULL;
    o = mem_zalloc(1, sizeof *o);
    if (!o)
        return DIRECTORY_FULL;
    (void)snprintf(o->id, sizeof o->id, "%s", id); /* ids have this bound */
    o->node.hash = hash;
    o->node.key = o->id;
    o->tenant = tenant_get(d, tenant);
    if (!o->tenant || table_add(&d->owners, &o->node) < 0) {
        mem_free(o);
        return DIRECTORY_FULL;
    }
    return DIRECTORY_OK;
}

enum directory_result directory_own(struct directory *d, const char *id,
                                    const char *tenant)
{
    enum directory_result r;

    pthread_mutex_lock(&d->lock);
    r = own(d, id, tenant);
    pthread_mutex_unlock(&d->lock);
    return r;
}

bool directory_owner(struct directory *d, const char *id,
                     char ret_tenant[TOKEN_TENANT_MAX + 1])
{
    const struct owner *o;

    pthread_mutex_lock(&d->lock);
    o = (struct owner *)table_find(&d->owners, directory_hash(d, id), id);
    if (o)
        (void)snprintf(ret_tenant, TOKEN_TENANT_MAX + 1, "%s", o->tenant->name);
    pthread_mutex_unlock(&d->lock);
    return o != NULL;
}

static struct claim *claim_find(struct directory *d, const char *name)
{
    return (struct claim *)table_find(&d->claims, directory_hash(d, name), name);
}

static struct claim *claim_new(struct directory *d, const char *name, const char *tenant)
{
    struct claim *c;

    if (d->claims.n >= DIRECTORY_NAMES)
        return NULL;
    c = mem_zalloc(1, sizeof *c);
    if (!c)
        return NULL;
    (void)snprintf(c->name, sizeof c->name, "%s", name); /* names are labels */
    c->node.hash = directory_hash(d, name);
    c->node.key = c->name;
    c->tenant = tenant_get(d, tenant);
    if (!c->tenant || table_add(&d->claims, &c->node) < 0) {
        mem_free(c);
        return NULL;
    }
    return c;
}

enum directory_result directory_claim(struct directory *d, const char *name,
                                      const char *id, const char *tenant, uint16_t port)
{
    enum directory_result r = DIRECTORY_OK;
    struct claim *c;

    pthread_mutex_lock(&d->lock);
    c = claim_find(d, name);
    if (c &&
        (strcmp(c->tenant->name, tenant) != 0 || (c->is_used && strcmp(c->id, id) != 0)))
        r = DIRECTORY_TAKEN;
    else if (!c && !(c = claim_new(d, name, tenant)))
        r = DIRECTORY_FULL;
    if (r == DIRECTORY_OK) {
        c->is_used = true;
        c->port = port;
        (void)snprintf(c->id, sizeof c->id, "%s", id); /* ids have this bound */
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

void directory_release(struct directory *d, const char *name, const char *id)
{
    struct claim *c;

    pthread_mutex_lock(&d->lock);
    c = claim_find(d, name);
    if (c && strcmp(c->id, id) == 0)
        c->is_used = false;
    pthread_mutex_unlock(&d->lock);
}

bool directory_find(struct directory *d, const char *name, char ret_id[HOST_ID_MAX + 1],
                    uint16_t *ret_port)
{
    const struct claim *c;

    pthread_mutex_lock(&d->lock);
    c = claim_find(d, name);
    if (c) {
        memcpy(ret_id, c->id, sizeof c->id);
        *ret_port = c->port;
    }
    pthread_mutex_unlock(&d->lock);
    return c != NULL;
}
