/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/policy.h"

#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/mem.h"

/* -- memory -------------------------------------------------------------------------- */

#define ARENA_CHUNK 16384

struct arena_chunk {
    struct arena_chunk *older;
    size_t used, cap;
    _Alignas(max_align_t) uint8_t bytes[];
};

void *arena_alloc(struct arena *a, size_t n)
{
    struct arena_chunk *c = a->newest;
    void *p;

    if (n > SIZE_MAX / 2)
        return NULL;
    n = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (!c || c->cap - c->used < n) {
        size_t cap = n > ARENA_CHUNK ? n : ARENA_CHUNK;

        c = mem_alloc(sizeof *c + cap);
        if (!c)
            return NULL;
        c->older = a->newest;
        c->used = 0;
        c->cap = cap;
        a->newest = c;
    }
    p = c->bytes + c->used;
    c->used += n;
    memset(p, 0, n);
    return p;
}

char *arena_text(struct arena *a, struct span text)
{
    char *p = arena_alloc(a, text.len + 1);

    if (p && text.len > 0)
        memcpy(p, text.p, text.len);
    return p;
}

void arena_done(struct arena *a)
{
    while (a->newest) {
        struct arena_chunk *c = a->newest;

        a->newest = c->older;
        /* A proxy's password may be in it. */
        explicit_bzero(c->bytes, c->used);
        mem_free(c);
    }
}

/* -- life ---------------------------------------------------------------------------- */

struct policy *policy_ref(struct policy *p)
{
    p->refs++;
    return p;
}

void policy_unref(struct policy *p)
{
    if (!p || --p->refs > 0)
        return;
    rule_index_done(&p->index[POLICY_DENY]);
    rule_index_done(&p->index[POLICY_ALLOW]);
    mem_free(p->rule);
    mem_free(p->guarded);
    arena_done(&p->arena);
    mem_free(p);
}

/* -- what is wrong with it ----------------------------------------------------------- */

int policy_faults_err(const struct policy_faults *f, struct err *e)
{
    for (size_t i = 0; i < f->n; i++)
        if (!f->at[i].is_warning)
            return err_set(e, ERR_CONFIG, "%s%s%s", f->at[i].path,
                           f->at[i].path[0] ? ": " : "", f->at[i].text);
    return err_set(e, ERR_CONFIG, "it is not understood");
}

/* -- what it says -------------------------------------------------------------------- */

const char *policy_name(const struct policy *p)
{
    return p->name;
}

enum policy_mode policy_mode(const struct policy *p)
{
    return p->mode;
}

bool policy_default_allows(const struct policy *p)
{
    return p->default_allows;
}

const struct policy_limits *policy_limits(const struct policy *p)
{
    return &p->limits;
}

const struct policy_proxy *policy_proxy(const struct policy *p)
{
    return &p->proxy;
}

const char *policy_resolvers(const struct policy *p)
{
    return p->resolvers;
}

enum policy_check policy_check(const struct policy *p, uint16_t port)
{
    for (size_t i = 0; i < p->n_checks && p->checks[i].port <= port; i++)
        if (p->checks[i].port == port)
            return p->checks[i].check;
    return POLICY_CHECK_NONE;
}

const struct policy_rule *policy_rules(const struct policy *p, size_t *ret_n)
{
    *ret_n = p->n_rules;
    return p->rule;
}

const struct port_range *policy_guarded(const struct policy *p, size_t *ret_n)
{
    *ret_n = p->n_guarded;
    return p->guarded;
}

const char *policy_hash(const struct policy *p)
{
    return p->hash;
}
