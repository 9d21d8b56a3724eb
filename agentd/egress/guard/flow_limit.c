/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow_limit.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/mem.h"

static uint64_t burst(uint64_t per_s)
{
    uint64_t part = per_s / FLOW_BURST_PART;

    return part > FLOW_BURST_MIN ? part : FLOW_BURST_MIN;
}

/* Both factors are bounded: what a bucket holds fits 64 bits in thousandths as long as a
 * rate is under 2^53, and time beyond a bucket's filling is of no use. */
static void refill(struct flow_bucket *b, uint64_t per_s, uint64_t cap, uint64_t now_ms)
{
    uint64_t passed = now_ms > b->at_ms ? now_ms - b->at_ms : 0, room;

    b->at_ms = now_ms;
    if (cap > UINT64_MAX / 1000)
        cap = UINT64_MAX / 1000;
    room = cap * 1000 > b->milli ? cap * 1000 - b->milli : 0;
    if (passed > 0 && per_s > room / passed)
        b->milli += room;
    else
        b->milli += per_s * passed;
}

struct flow_limit *flow_limit_new(const struct policy_rule *rule,
                                  const struct policy_limits *limits)
{
    struct flow_limit *l = mem_zalloc(1, sizeof(*l));
    size_t n;

    if (!l)
        return NULL;
    l->limits = *limits;
    l->is_new = true;
    if (rule) {
        n = strlen(rule->text) + 1;
        l->list = rule->list;
        l->rule = mem_alloc(n);
        if (!l->rule) {
            mem_free(l);
            return NULL;
        }
        memcpy(l->rule, rule->text, n);
    }
    return l;
}

void flow_limit_free(struct flow_limit *l)
{
    if (!l)
        return;
    mem_free(l->rule);
    mem_free(l);
}

static void begin(struct flow_limit *l, uint64_t now_ms)
{
    if (!l->is_new)
        return;
    l->is_new = false;
    l->connects = (struct flow_bucket){(uint64_t)l->limits.connects_per_s * 1000, now_ms};
    for (int i = 0; i < 2; i++) {
        l->rate[i] = (struct flow_bucket){0, now_ms};
        l->rate[i].milli = FLOW_BURST_MIN * UINT64_C(1000);
    }
}

const char *flow_limit_enter(struct flow_limit *l, uint64_t now_ms, char why[64])
{
    const struct policy_limits *max = &l->limits;

    begin(l, now_ms);
    if (max->connections && l->open >= max->connections) {
        (void)snprintf(why, 64, "%" PRIu32 " connections at once", max->connections);
        return why;
    }
    if (flow_limit_is_used_up(l)) {
        (void)snprintf(why, 64, "%" PRIu64 " bytes in all", max->bytes);
        return why;
    }
    if (max->connects_per_s) {
        refill(&l->connects, max->connects_per_s, max->connects_per_s, now_ms);
        if (l->connects.milli < 1000) {
            (void)snprintf(why, 64, "%" PRIu32 " new connections a second",
                           max->connects_per_s);
            return why;
        }
        l->connects.milli -= 1000;
    }
    l->open++;
    return NULL;
}

void flow_limit_leave(struct flow_limit *l)
{
    if (l->open > 0)
        l->open--;
}

size_t flow_limit_room(struct flow_limit *l, enum flow_way way, size_t n, uint64_t now_ms)
{
    uint64_t per_s = l->limits.bytes_per_s, have;

    begin(l, now_ms);
    if (l->limits.bytes) {
        have = l->limits.bytes > l->bytes ? l->limits.bytes - l->bytes : 0;
        n = have < n ? (size_t)have : n;
    }
    if (per_s) {
        refill(&l->rate[way], per_s, burst(per_s), now_ms);
        have = l->rate[way].milli / 1000;
        n = have < n ? (size_t)have : n;
    }
    return n;
}

void flow_limit_moved(struct flow_limit *l, enum flow_way way, size_t n)
{
    uint64_t milli = (uint64_t)n * 1000;

    l->bytes += n;
    if (l->limits.bytes_per_s)
        l->rate[way].milli -= milli < l->rate[way].milli ? milli : l->rate[way].milli;
}

bool flow_limit_is_used_up(const struct flow_limit *l)
{
    return l->limits.bytes && l->bytes >= l->limits.bytes;
}
