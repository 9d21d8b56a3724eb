/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/learned.h"

#include "common/mem.h"

enum {
    FIRST_CAP = 64
};

void learned_done(struct learned *l)
{
    mem_free(l->place);
    *l = (struct learned){0};
}

/* Where it is, or would be. There is always a free place. */
static uint64_t *find(uint64_t *place, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);

    while (place[i] && place[i] != hash)
        i = (i + 1) & (cap - 1);
    return &place[i];
}

static int grow(struct learned *l)
{
    size_t cap = l->cap ? 2 * l->cap : FIRST_CAP;
    uint64_t *place = mem_zalloc(cap, sizeof(*place));

    if (!place)
        return -1;
    for (size_t i = 0; i < l->cap; i++)
        if (l->place[i])
            *find(place, cap, l->place[i]) = l->place[i];
    mem_free(l->place);
    l->place = place;
    l->cap = cap;
    return 0;
}

int learned_add(struct learned *l, uint64_t hash, size_t most)
{
    uint64_t key = hash ? hash : 1;

    if (l->cap && *find(l->place, l->cap, key) == key)
        return 1;
    if (l->n >= LEARNED_MAX || (most && l->n >= most))
        return 0;
    if (2 * (l->n + 1) > l->cap && grow(l) < 0)
        return -1;
    *find(l->place, l->cap, key) = key;
    l->n++;
    return 1;
}
