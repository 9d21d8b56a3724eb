/* SPDX-License-Identifier: MIT */
/*
 * Theory. A question of a caller (names_ask.c) is done from the table, or waits on an
 * entry that is asked upstream: one question a name and family, however many want to know.
 * At most NAMES_ASKING_MAX are asked at once, so a sandbox that floods waits for itself
 * only.
 *
 * Addresses are filtered when they arrive: each is decided with the name, so the
 * floor, the host's own addresses and denied networks are left out whatever the name
 * server says. What stands in the table has passed the policy that is in force:
 * names_reload() sees to it.
 */
#include "agentd/egress/guard/names.h"

#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/dns_ask.h"
#include "agentd/egress/guard/names_int.h"
#include "common/mem.h"

_Static_assert(NAMES_ADDRS_MAX == DNSMSG_ADDRS_MAX, "one bound");
_Static_assert(NAMES_CHAIN_MAX == DNSMSG_CHAIN_MAX, "one bound");
_Static_assert(NAMES_ASKING_MAX < NAMES_CACHE_MAX, "there is always one to evict");

static void entry_free(struct name_entry *e)
{
    struct names *n = e->names;

    if (e->ask)
        n->n_asking--;
    dns_ask_cancel(&e->ask);
    name_table_drop(&n->table, e);
}

/* -- the cap under wildcards --------------------------------------------------------- */

/* May this name be asked upstream? 1 yes, 0 no (*why), -1 no memory. */
static int may_ask(struct names *n, const char *name, uint64_t hash, struct verdict *why)
{
    uint32_t most = policy_limits(n->ward->policy)->names;
    struct target t = {.name = name, .protocol = IPPROTO_TCP};
    const struct policy_rule *r;
    struct verdict v;
    bool would_refuse;
    int rc;

    ward_decide(n->ward, &t, &v, &would_refuse);
    r = v.rule;
    if (v.stage != VERDICT_ALLOW || !r || r->is_net || !r->is_wildcard)
        return 1;
    rc = learned_add(&n->learned, hash, most);
    if (rc != 0)
        return rc;
    *why = (struct verdict){.stage = VERDICT_LIMIT, .rule = r};
    (void)snprintf(
        why->text, sizeof(why->text),
        "limit: over %zu names were asked under wildcards; allow rule %u \"%.100s\"",
        n->learned.n, r->number + 1, r->text);
    return 0;
}

/* -- answers from upstream ----------------------------------------------------------- */

/* Leave out what may not be reached by this name; in place. *why: the last that
 * was left out. */
static size_t filter(const struct ward *w, const char *name, struct ip_addr *addr,
                     size_t n, struct verdict *why)
{
    struct target t = {.name = name, .protocol = IPPROTO_TCP};
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        struct verdict v;
        bool would_refuse;

        t.addr = addr[i];
        ward_decide(w, &t, &v, &would_refuse);
        if (v.allowed)
            addr[kept++] = addr[i];
        else
            *why = v;
    }
    return kept;
}

static uint32_t clamp_ttl(uint32_t ttl_s)
{
    /* So that the pin, which outlives the answer, keeps to the bound too. */
    const uint32_t most = NAMES_TTL_MAX_S - NAMES_GRACE_S;

    if (ttl_s < NAMES_TTL_MIN_S)
        return NAMES_TTL_MIN_S;
    return ttl_s < most ? ttl_s : most;
}

/* 0, or -1: no memory. */
static int entry_take_addrs(struct name_entry *e, const struct dns_answer *a)
{
    struct ip_addr addr[NAMES_ADDRS_MAX];
    struct verdict why = {.allowed = false};
    size_t n;

    memcpy(addr, a->addr, a->n * sizeof(*addr));
    n = filter(e->names->ward, e->name, addr, a->n, &why);
    e->was_filtered = n < a->n;
    if (n == 0) {
        e->result = NAMES_FLOOR;
        e->why = mem_alloc(sizeof(*e->why));
        if (!e->why)
            return -1;
        *e->why = why;
        return 0;
    }
    e->result = NAMES_OK;
    e->addr = mem_alloc(n * sizeof(*addr));
    if (!e->addr)
        return -1;
    memcpy(e->addr, addr, n * sizeof(*addr));
    e->n = n;
    return 0;
}

static void entry_take(struct name_entry *e, const struct dns_answer *a, uint64_t now)
{
    e->expires_ms = now + NAMES_NEGATIVE_MS;
    if (!a) {
        e->result = NAMES_FAILED;
        e->expires_ms = now;
    } else if (a->rcode == DNS_NXDOMAIN) {
        e->result = NAMES_NOT_FOUND;
    } else if (a->n == 0) {
        e->result = NAMES_EMPTY;
    } else if (entry_take_addrs(e, a) < 0) {
        name_entry_empty(e);
        e->result = NAMES_FAILED;
        e->expires_ms = now;
    } else if (e->result == NAMES_OK) {
        e->expires_ms = now + clamp_ttl(a->ttl_s) * (uint64_t)1000;
    }
}

static void on_upstream(void *arg, const struct dns_answer *a, const struct err *why)
{
    struct name_entry *e = arg;
    struct names *n = e->names;
    uint64_t now = loop_now(n->ward->guard->loop);

    UNUSED_ARG(why);
    e->ask = NULL;
    n->n_asking--;
    name_entry_empty(e);
    entry_take(e, a, now);
    names_tell(e, now);
    if (e->result == NAMES_FAILED)
        entry_free(e); /* the next one asks again */
}

/* -- asking -------------------------------------------------------------------------- */

static const char *servers_of(const struct ward *w)
{
    const char *own = policy_resolvers(w->policy);

    return own ? own : w->guard->resolvers;
}

static int entry_ask(struct name_entry *e, struct err *err)
{
    struct names *n = e->names;
    struct dns_ask_what what = {servers_of(n->ward), e->name,
                                e->family == AF_INET ? DNS_A : DNS_AAAA};

    if (n->n_asking >= NAMES_ASKING_MAX)
        return err_set(err, ERR_LIMIT, "over %d names are being asked for",
                       NAMES_ASKING_MAX);
    e->ask = dns_ask_start(n->ward->guard->loop, &what, on_upstream, e, err);
    if (!e->ask)
        return -1;
    n->n_asking++;
    return 0;
}

int names_half_start(struct names_half *h, const char *name, int family, struct err *err)
{
    struct names *n = h->owner->names;
    uint64_t hash = name_table_hash(&n->table, name),
             now = loop_now(n->ward->guard->loop);
    struct name_entry *e = name_table_find(&n->table, name, family, hash);
    int may;

    h->is_wanted = true;
    if (e && !e->ask && e->expires_ms > now) {
        name_table_touch(&n->table, e);
        names_half_fill(h, e, now);
        return 0;
    }
    if (e && e->ask) {
        names_half_wait(h, e);
        return 0;
    }
    may = may_ask(n, name, hash, &h->owner->why);
    if (may == 0) {
        h->is_done = true;
        h->result = NAMES_LIMIT;
        return 0;
    }
    if (may > 0 && !e)
        e = name_table_add(&n->table, name, family, hash);
    if (may < 0 || !e)
        return err_set(err, ERR_NOMEM, "asking for \"%s\": no memory", name);
    e->names = n;
    if (entry_ask(e, err) < 0) {
        entry_free(e);
        return -1;
    }
    names_half_wait(h, e);
    return 0;
}

/* -- the whole ----------------------------------------------------------------------- */

struct names *names_new(struct ward *w, struct err *e)
{
    struct names *n = mem_zalloc(1, sizeof(*n));

    if (!n) {
        (void)err_set(e, ERR_NOMEM, "names of \"%s\": no memory", w->name);
        return NULL;
    }
    n->ward = w;
    name_table_init(&n->table);
    n->servers = name_table_hash(&n->table, servers_of(w));
    return n;
}

void names_free(struct names *n)
{
    if (!n)
        return;
    while (n->asks)
        names_ask_free(n->asks);
    while (n->table.newest)
        entry_free(n->table.newest);
    learned_done(&n->learned);
    mem_free(n);
}

/* Does what is cached stand under the policy as it is now? */
static bool entry_stands(struct name_entry *e)
{
    struct target t = {.name = e->name, .protocol = IPPROTO_TCP};
    struct verdict v;
    bool would_refuse;

    ward_decide(e->names->ward, &t, &v, &would_refuse);
    if (!v.allowed || e->was_filtered)
        return false; /* what was left out may be allowed now */
    return filter(e->names->ward, e->name, e->addr, e->n, &v) == e->n;
}

void names_reload(struct names *n)
{
    uint64_t servers = name_table_hash(&n->table, servers_of(n->ward));
    struct name_entry *e = n->table.oldest, *newer;

    for (; e; e = newer) {
        newer = e->newer;
        /* What is being asked is filtered when its answer comes. */
        if (!e->ask && (servers != n->servers || !entry_stands(e)))
            entry_free(e);
    }
    n->servers = servers;
    /* An answer may be on its way with why: its rule goes with the old policy. */
    for (struct names_ask *a = n->asks; a; a = a->next)
        a->why.rule = NULL;
}
