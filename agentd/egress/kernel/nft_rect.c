/* SPDX-License-Identifier: MIT */
/*
 * A policy's networks and ports as the kernel's sets take them: intervals and rectangles
 * that do not overlap (a set with overlapping ones is refused, or worse, broken).
 *
 * Networks are apart or one holds the other, so sorted by first address, widest first,
 * they are a walk through a forest. Each network keeps the ports that none of those
 * around it has: what is left overlaps nowhere, and covers the same pairs.
 */
#include "agentd/egress/kernel/nft_int.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum {
    PORTS = 65536,
    DEPTH_MAX = 129, /* networks around an IPv6 address, itself included */
};

struct ports {
    uint64_t bit[PORTS / 64];
};

void rects_done(struct nft_rects *r)
{
    mem_free(r->at);
    *r = (struct nft_rects){0};
}

int rects_push(struct nft_rects *r, const struct nft_rect *x)
{
    if (r->n == r->cap) {
        size_t cap = r->cap > 0 ? r->cap * 2 : 16;
        struct nft_rect *p = mem_resize(r->at, cap * sizeof(*p));

        if (p == NULL)
            return -1;
        r->at = p;
        r->cap = cap;
    }
    r->at[r->n++] = *x;
    return 0;
}

int rects_add(struct nft_rects *r, const struct ip_net *net, uint16_t first,
              uint16_t last)
{
    struct nft_rect x = {.lo = net->addr, .hi = net->addr, .first = first, .last = last};

    for (unsigned i = net->bits; i < ip_bits(net->addr.family); i++)
        x.hi.bytes[i / 8] |= (uint8_t)(0x80u >> i % 8);
    return rects_push(r, &x);
}

int rects_add_nets(struct nft_rects *r, const struct ip_net *net, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (rects_add(r, &net[i], 0, 0) < 0)
            return -1;
    return 0;
}

static bool is_private(const struct ip_net *net)
{
    const struct ip_net *p;
    size_t n = ip_class_nets(false, &p);

    for (size_t i = 0; i < n; i++)
        if (p[i].addr.family == net->addr.family &&
            (ip_net_covers(&p[i], net) || ip_net_covers(net, &p[i])))
            return true;
    return false;
}

static bool is_wanted(const struct policy_rule *rule, enum nft_take take)
{
    if (!rule->is_net)
        return false;
    if (take == NFT_TAKE_DENIED)
        return rule->list == POLICY_DENY && rule->expires_s == 0;
    return rule->list == POLICY_ALLOW &&
           (take == NFT_TAKE_ALLOWED || is_private(&rule->net));
}

int rects_of_policy(struct nft_rects *r, const struct policy *p, enum nft_take take)
{
    size_t n;
    const struct policy_rule *rule = policy_rules(p, &n);

    for (size_t i = 0; i < n; i++) {
        if (!is_wanted(&rule[i], take))
            continue;
        for (size_t k = 0; k < rule[i].n_ports; k++)
            if (rects_add(r, &rule[i].net, rule[i].ports[k].first,
                          rule[i].ports[k].last) < 0)
                return -1;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct nft_rect *x = a, *y = b;
    int d = (int)x->lo.family - (int)y->lo.family;

    if (d == 0)
        d = memcmp(x->lo.bytes, y->lo.bytes, sizeof(x->lo.bytes));
    return d != 0 ? d : memcmp(y->hi.bytes, x->hi.bytes, sizeof(x->hi.bytes));
}

/* Of one network the ranges by their first port, the longest first: what it comes to is
 * the same then however the rules were ordered. */
static int by_place_and_port(const void *a, const void *b)
{
    const struct nft_rect *x = a, *y = b;
    int d = by_place(a, b);

    if (d == 0)
        d = (int)x->first - (int)y->first;
    return d != 0 ? d : (int)y->last - (int)x->last;
}

static bool holds(const struct nft_rect *outer, const struct nft_rect *inner)
{
    return outer->lo.family == inner->lo.family &&
           memcmp(outer->hi.bytes, inner->hi.bytes, sizeof(outer->hi.bytes)) >= 0;
}

/* Add a range; what was not there before becomes rectangles of `x`'s addresses. */
static int claim(struct ports *have, const struct nft_rect *x, struct nft_rects *out)
{
    struct nft_rect piece = *x;
    bool is_open = false;

    for (uint32_t p = x->first; p <= x->last; p++) {
        bool is_new = (have->bit[p / 64] >> p % 64 & 1) == 0;

        if (is_new && !is_open)
            piece.first = (uint16_t)p;
        if (is_new)
            have->bit[p / 64] |= (uint64_t)1 << p % 64;
        else if (is_open && rects_push(out, &piece) < 0)
            return -1;
        if (is_new)
            piece.last = (uint16_t)p;
        is_open = is_new;
    }
    return is_open ? rects_push(out, &piece) : 0;
}

/* The walk. level[d] is the network at depth d, have[d] its ports and those of all around
 * it. */
static int disjoin(const struct nft_rects *in, struct nft_rects *out, struct ports **have)
{
    const struct nft_rect *level[DEPTH_MAX];
    size_t depth = 0;

    for (size_t i = 0; i < in->n; i++) {
        const struct nft_rect *x = &in->at[i];

        while (depth > 0 && !holds(level[depth - 1], x))
            depth--;
        if (depth == 0 || by_place(level[depth - 1], x) != 0) {
            if (have[depth] == NULL)
                have[depth] = mem_alloc(sizeof(struct ports));
            if (have[depth] == NULL)
                return -1;
            if (depth == 0)
                memset(have[0], 0, sizeof(struct ports));
            else
                memcpy(have[depth], have[depth - 1], sizeof(struct ports));
            level[depth++] = x;
        }
        if (claim(have[depth - 1], x, out) < 0)
            return -1;
    }
    return 0;
}

int rects_disjoin(struct nft_rects *r)
{
    struct nft_rects out = {0};
    struct ports *have[DEPTH_MAX] = {NULL};
    int rc;

    if (r->n < 2)
        return 0;
    qsort(r->at, r->n, sizeof(r->at[0]), by_place_and_port);
    rc = disjoin(r, &out, have);
    for (size_t i = 0; i < DEPTH_MAX; i++)
        mem_free(have[i]);
    if (rc < 0) {
        rects_done(&out);
        return -1;
    }
    rects_done(r);
    *r = out;
    return 0;
}

bool rect_next_addr(const struct ip_addr *a, struct ip_addr *ret)
{
    *ret = *a;
    for (size_t i = ip_bytes(a->family); i-- > 0;)
        if (++ret->bytes[i] != 0)
            return true;
    return false;
}

void rects_join(struct nft_rects *r)
{
    size_t n = 0;

    if (r->n < 2)
        return;
    qsort(r->at, r->n, sizeof(r->at[0]), by_place);
    for (size_t i = 1; i < r->n; i++) {
        struct nft_rect *last = &r->at[n], *x = &r->at[i];
        struct ip_addr next;
        bool is_end = !rect_next_addr(&last->hi, &next);

        if (x->lo.family != last->lo.family ||
            (!is_end && memcmp(x->lo.bytes, next.bytes, sizeof(next.bytes)) > 0))
            r->at[++n] = *x;
        else if (memcmp(x->hi.bytes, last->hi.bytes, sizeof(x->hi.bytes)) > 0)
            last->hi = x->hi;
    }
    r->n = n + 1;
}
