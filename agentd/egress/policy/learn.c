/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/learn.h"

#include "common/mem.h"

enum {
    BUCKETS = 1024
};

struct learn {
    size_t n, dropped;
    struct learn_thing *bucket[BUCKETS];
    struct learn_thing *thing[LEARN_MAX];
};

static const struct ip_addr NO_ADDR;

struct learn *learn_new(void)
{
    return mem_zalloc(1, sizeof(struct learn));
}

void learn_free(struct learn *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->n; i++)
        mem_free(l->thing[i]);
    mem_free(l);
}

static struct learn_thing **bucket_of(struct learn *l, const char *name,
                                      const struct ip_addr *a, uint16_t port)
{
    uint32_t h = 2166136261u ^ port;

    for (; *name != '\0'; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    for (size_t i = 0; i < sizeof(a->bytes); i++)
        h = (h ^ a->bytes[i]) * 16777619u;
    return &l->bucket[h % BUCKETS];
}

/* `name` is "" for an address, `a` NO_ADDR for a name. */
static void see(struct learn *l, const char *name, const struct ip_addr *a, uint16_t port)
{
    struct learn_thing **b = bucket_of(l, name, a, port), *t;
    size_t room = strlen(name) + 1;

    for (t = *b; t != NULL; t = t->next)
        if (t->port == port && strcmp(t->name, name) == 0 && ip_eq(&t->addr, a))
            return;
    t = l->n < LEARN_MAX ? mem_zalloc(1, sizeof(*t) + room) : NULL;
    if (t == NULL) {
        l->dropped++;
        return;
    }
    t->addr = *a;
    t->port = port;
    memcpy(t->name, name, room);
    t->next = *b;
    *b = t;
    l->thing[l->n++] = t;
}

void learn_name(struct learn *l, const char *name, uint16_t port)
{
    see(l, name, &NO_ADDR, port);
}

void learn_addr(struct learn *l, const struct ip_addr *a, uint16_t port)
{
    see(l, "", a, port);
}

size_t learn_count(const struct learn *l)
{
    return l->n;
}

size_t learn_dropped(const struct learn *l)
{
    return l->dropped;
}

const struct learn_thing *learn_at(const struct learn *l, size_t i)
{
    return l->thing[i];
}
