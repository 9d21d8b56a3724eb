/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/rule_index.h"

#include <string.h>

#include "common/mem.h"

#define HASH_START 2166136261u /* FNV-1a */
#define HASH_PRIME 16777619u

static uint32_t hash_byte(uint32_t h, uint8_t c)
{
    return (h ^ c) * HASH_PRIME;
}

/* From the end, so that one pass over a name gives the hashes of all its suffixes. */
static uint32_t hash_name(const char *name)
{
    uint32_t h = HASH_START;

    for (size_t i = strlen(name); i > 0; i--)
        h = hash_byte(h, (uint8_t)name[i - 1]);
    return h;
}

static uint32_t hash_net(const struct ip_net *n)
{
    uint32_t h = hash_byte(hash_byte(HASH_START, n->addr.family), n->bits);

    for (size_t i = 0; i < sizeof n->addr.bytes; i++)
        h = hash_byte(h, n->addr.bytes[i]);
    return h;
}

static uint32_t hash_rule(const struct policy_rule *r)
{
    return r->is_net ? hash_net(&r->net) : hash_byte(hash_name(r->name), r->is_wildcard);
}

int rule_index_build(struct rule_index *x, const struct policy_rule *rule, size_t n)
{
    size_t slots = 16;

    memset(x, 0, sizeof *x);
    while (slots < n * 2)
        slots *= 2;
    x->head = mem_zalloc(slots, sizeof *x->head);
    x->next = mem_zalloc(n ? n : 1, sizeof *x->next);
    if (!x->head || !x->next) {
        rule_index_done(x);
        return -1;
    }
    x->mask = (uint32_t)(slots - 1);
    for (size_t i = n; i > 0; i--) {
        const struct policy_rule *r = &rule[i - 1];
        uint32_t *head = &x->head[hash_rule(r) & x->mask];

        x->next[i - 1] = *head;
        *head = (uint32_t)i;
        if (r->is_net && r->net.addr.family == AF_INET)
            x->has_bits4[r->net.bits] = 1;
        else if (r->is_net)
            x->has_bits6[r->net.bits] = 1;
    }
    return 0;
}

void rule_index_done(struct rule_index *x)
{
    mem_free(x->head);
    mem_free(x->next);
    x->head = x->next = NULL;
}

/* -- walking ------------------------------------------------------------------------- */

static void start_name(struct rule_walk *w, const char *name, bool is_wildcard)
{
    uint32_t h = HASH_START;

    w->name = name;
    for (size_t i = strlen(name); i > 0 && w->n_suffix < RULE_WALK_LABELS; i--) {
        h = hash_byte(h, (uint8_t)name[i - 1]);
        if (i > 1 && name[i - 2] != '.')
            continue;
        w->suffix[w->n_suffix].hash = h;
        w->suffix[w->n_suffix++].pos = (uint16_t)(i - 1);
    }
    w->is_exact_next = !is_wildcard;
    w->suffix_at = w->n_suffix - (is_wildcard ? 1 : 2);
}

void rule_walk_start(struct rule_walk *w, const struct rule_index *x,
                     const struct policy_rule *rule, const char *name, bool is_wildcard,
                     const struct ip_net *net)
{
    w->index = x;
    w->rule = rule;
    w->labels_max = UINT32_MAX;
    w->name = NULL;
    w->n_suffix = 0;
    w->addr.family = 0;
    w->bits = -1;
    w->at = 0;
    if (name && *name)
        start_name(w, name, is_wildcard);
    if (net && net->addr.family != 0) {
        w->addr = net->addr;
        w->bits = net->bits;
    }
}

static bool next_name(struct rule_walk *w)
{
    int i = w->suffix_at;

    w->key_is_wildcard = !w->is_exact_next;
    if (w->is_exact_next) {
        w->is_exact_next = false;
        i = w->n_suffix - 1;
    } else if (i < 0 || (uint32_t)(w->n_suffix - 1 - i) > w->labels_max) {
        w->name = NULL;
        return false;
    } else {
        w->suffix_at--;
    }
    w->key_name = w->name + w->suffix[i].pos;
    w->at =
        w->index->head[hash_byte(w->suffix[i].hash, w->key_is_wildcard) & w->index->mask];
    return true;
}

static bool next_net(struct rule_walk *w)
{
    const uint8_t *has =
        w->addr.family == AF_INET ? w->index->has_bits4 : w->index->has_bits6;

    while (w->bits >= 0 && !has[w->bits])
        w->bits--;
    if (w->bits < 0)
        return false;
    w->key_name = NULL;
    ip_net_of(&w->addr, (unsigned)w->bits, &w->key_net);
    w->bits--;
    w->at = w->index->head[hash_net(&w->key_net) & w->index->mask];
    return true;
}

static bool is_key(const struct rule_walk *w, const struct policy_rule *r)
{
    if (!w->key_name)
        return r->is_net && r->net.bits == w->key_net.bits &&
               ip_eq(&r->net.addr, &w->key_net.addr);
    return !r->is_net && r->is_wildcard == w->key_is_wildcard &&
           strcmp(r->name, w->key_name) == 0;
}

const struct policy_rule *rule_walk_next(struct rule_walk *w)
{
    for (;;) {
        while (w->at > 0) {
            const struct policy_rule *r = &w->rule[w->at - 1];

            w->at = w->index->next[w->at - 1];
            if (is_key(w, r))
                return r;
        }
        if (!(w->name && next_name(w)) && !next_net(w))
            return NULL;
    }
}
