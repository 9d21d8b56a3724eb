/* SPDX-License-Identifier: MIT */
/*
 * Theory. An entry is one name and family: asked (its dns_ask runs and halves wait on
 * it), or answered until it expires. A question of a caller is one or two halves, each of
 * which is done at once from the table, or waits on an entry; when the halves are done a
 * deferred job gives the answer. An entry that is asked cannot be evicted, and there are
 * at most NAMES_ASKING_MAX of them, so a sandbox that floods waits for itself only.
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
#include "agentd/egress/guard/learned.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/mem.h"

_Static_assert(NAMES_ADDRS_MAX == DNSMSG_ADDRS_MAX, "one bound");
_Static_assert(NAMES_CHAIN_MAX == DNSMSG_CHAIN_MAX, "one bound");

enum {
    BUCKETS = 512
};

struct half {
    struct half *next, **prev; /* of the entry's waiting; prev NULL: not waiting */
    struct names_ask *owner;
    bool is_wanted, is_done;
    enum names_result result;
    uint32_t ttl_s;
    size_t n;
    struct ip_addr addr[NAMES_ADDRS_MAX];
};

enum {
    V6,
    V4,
    FAMILIES
};

struct names_ask {
    struct names_ask *next, **prev; /* of all */
    struct names *names;
    names_fn *fn;
    void *arg;
    struct loop_job end;
    struct loop_timer patience;
    struct half half[FAMILIES];
    struct verdict why;
};

struct entry {
    struct entry *next;          /* of its bucket */
    struct entry *newer, *older; /* use */
    struct names *names;         /* borrowed: owner */
    struct dns_ask *ask;         /* NULL: answered */
    struct half *waiting;
    uint64_t hash, expires_ms;
    int family;
    enum names_result result;
    bool was_filtered;   /* some address was left out */
    struct verdict *why; /* FLOOR */
    struct ip_addr *addr;
    size_t n;
    char name[];
};

struct names {
    struct ward *ward; /* borrowed */
    struct entry *bucket[BUCKETS];
    struct entry *newest, *oldest;
    size_t n_entries, n_asking;
    struct names_ask *asks;
    uint64_t seed[2];
    uint64_t servers; /* hash of what is asked, to see it change */
    struct learned learned;
};

/* -- hashing: seeded, since the sandbox chooses the names ---------------------------- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static uint64_t hash_text(const struct names *n, const char *text)
{
    uint64_t h = n->seed[0];

    for (; *text; text++)
        h = mix(h ^ (uint8_t)*text) + n->seed[1];
    h = mix(h);
    return h ? h : 1;
}

/* -- entries ------------------------------------------------------------------------- */

static void entry_unlink_use(struct entry *e)
{
    struct names *n = e->names;

    *(e->newer ? &e->newer->older : &n->newest) = e->older;
    *(e->older ? &e->older->newer : &n->oldest) = e->newer;
}

static void entry_link_use(struct entry *e)
{
    struct names *n = e->names;

    e->newer = NULL;
    e->older = n->newest;
    *(e->older ? &e->older->newer : &n->oldest) = e;
    n->newest = e;
}

static struct entry *entry_find(const struct names *n, const char *name, int family,
                                uint64_t hash)
{
    struct entry *e = n->bucket[hash % BUCKETS];

    while (e && (e->hash != hash || e->family != family || strcmp(e->name, name) != 0))
        e = e->next;
    return e;
}

static void entry_empty(struct entry *e)
{
    mem_free(e->addr);
    mem_free(e->why);
    e->addr = NULL;
    e->why = NULL;
    e->n = 0;
    e->was_filtered = false;
}

/* Nothing waits on it. */
static void entry_free(struct entry *e)
{
    struct names *n = e->names;
    struct entry **p = &n->bucket[e->hash % BUCKETS];

    while (*p != e)
        p = &(*p)->next;
    *p = e->next;
    entry_unlink_use(e);
    n->n_entries--;
    if (e->ask)
        n->n_asking--;
    dns_ask_cancel(&e->ask);
    entry_empty(e);
    mem_free(e);
}

static void make_room(struct names *n)
{
    struct entry *e = n->oldest;

    if (n->n_entries < NAMES_CACHE_MAX)
        return;
    while (e && e->ask)
        e = e->newer;
    if (e)
        entry_free(e);
}

static struct entry *entry_new(struct names *n, const char *name, int family,
                               uint64_t hash)
{
    size_t len = strlen(name) + 1;
    struct entry *e;

    make_room(n);
    e = mem_zalloc(1, sizeof(*e) + len);
    if (!e)
        return NULL;
    e->names = n;
    e->family = family;
    e->hash = hash;
    memcpy(e->name, name, len);
    e->next = n->bucket[hash % BUCKETS];
    n->bucket[hash % BUCKETS] = e;
    entry_link_use(e);
    n->n_entries++;
    return e;
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

/* -- answers to the callers ---------------------------------------------------------- */

static void half_leave(struct half *h)
{
    if (!h->prev)
        return;
    *h->prev = h->next;
    if (h->next)
        h->next->prev = h->prev;
    h->prev = NULL;
    h->next = NULL;
}

static void ask_free(struct names_ask *a)
{
    for (unsigned i = 0; i < FAMILIES; i++)
        half_leave(&a->half[i]);
    loop_job_cancel(&a->end);
    loop_timer_stop(&a->patience);
    *a->prev = a->next;
    if (a->next)
        a->next->prev = a->prev;
    mem_free(a);
}

void names_cancel(struct names_ask **a)
{
    if (*a)
        ask_free(*a);
    *a = NULL;
}

static bool half_is_open(const struct half *h)
{
    return h->is_wanted && !h->is_done;
}

/* All halves are done, or the first addresses start a short wait for the rest. */
static void ask_look(struct names_ask *a)
{
    if (!half_is_open(&a->half[V4]) && !half_is_open(&a->half[V6]))
        loop_job_defer(&a->end);
    else if (a->half[V4].n || a->half[V6].n)
        loop_timer_start(&a->patience, NAME_AAAA_MS);
}

static void half_fill(struct half *h, const struct entry *e, uint64_t now)
{
    h->is_done = true;
    h->result = e->result;
    h->n = e->n;
    if (e->n)
        memcpy(h->addr, e->addr, e->n * sizeof(*e->addr));
    h->ttl_s = e->expires_ms > now ? (uint32_t)((e->expires_ms - now + 999) / 1000) : 0;
    if (e->why)
        h->owner->why = *e->why;
}

/* Which of two results without addresses says more to the client? */
static enum names_result worse(const struct names_ask *a)
{
    static const enum names_result order[] = {NAMES_LIMIT, NAMES_FLOOR, NAMES_FAILED,
                                              NAMES_EMPTY};

    for (size_t k = 0; k < COUNT_OF(order); k++)
        for (unsigned i = 0; i < FAMILIES; i++)
            if (a->half[i].is_done && a->half[i].result == order[k])
                return order[k];
    return NAMES_NOT_FOUND;
}

/* IPv6 first, then in turn (RFC 8305 section 4). */
static void merge(const struct names_ask *a, struct names_answer *ret)
{
    ret->ttl_s = NAMES_TTL_MAX_S;
    for (size_t i = 0; i < NAMES_ADDRS_MAX; i++)
        for (unsigned f = 0; f < FAMILIES; f++)
            if (i < a->half[f].n && ret->n < NAMES_ADDRS_MAX)
                ret->addr[ret->n++] = a->half[f].addr[i];
    for (unsigned f = 0; f < FAMILIES; f++)
        if (a->half[f].n && a->half[f].ttl_s < ret->ttl_s)
            ret->ttl_s = a->half[f].ttl_s;
    ret->result = NAMES_OK;
    if (ret->n > 0)
        return;
    ret->ttl_s = 0;
    ret->result = worse(a);
}

static void on_end(void *arg)
{
    struct names_ask *a = arg;
    struct names_answer answer = {.n = 0};
    struct verdict why = a->why;
    names_fn *fn = a->fn;
    void *fn_arg = a->arg;

    merge(a, &answer);
    if (answer.result == NAMES_FLOOR || answer.result == NAMES_LIMIT)
        answer.why = &why;
    ask_free(a);
    fn(fn_arg, &answer);
}

static void on_patience(void *arg)
{
    struct names_ask *a = arg;

    loop_job_defer(&a->end);
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
static int entry_take_addrs(struct entry *e, const struct dns_answer *a)
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

static void entry_take(struct entry *e, const struct dns_answer *a, uint64_t now)
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
        entry_empty(e);
        e->result = NAMES_FAILED;
        e->expires_ms = now;
    } else if (e->result == NAMES_OK) {
        e->expires_ms = now + clamp_ttl(a->ttl_s) * (uint64_t)1000;
    }
}

static void on_upstream(void *arg, const struct dns_answer *a, const struct err *why)
{
    struct entry *e = arg;
    struct names *n = e->names;
    uint64_t now = loop_now(n->ward->guard->loop);
    struct half *h;

    UNUSED_ARG(why);
    e->ask = NULL;
    n->n_asking--;
    entry_empty(e);
    entry_take(e, a, now);
    while ((h = e->waiting) != NULL) {
        half_leave(h);
        half_fill(h, e, now);
        ask_look(h->owner);
    }
    if (e->result == NAMES_FAILED)
        entry_free(e); /* the next one asks again */
}

/* -- asking -------------------------------------------------------------------------- */

static const char *servers_of(const struct ward *w)
{
    const char *own = policy_resolvers(w->policy);

    return own ? own : w->guard->resolvers;
}

static int entry_ask(struct entry *e, struct err *err)
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

static void half_wait(struct half *h, struct entry *e)
{
    h->next = e->waiting;
    if (h->next)
        h->next->prev = &h->next;
    h->prev = &e->waiting;
    e->waiting = h;
}

static int half_start(struct half *h, const char *name, int family, struct err *err)
{
    struct names *n = h->owner->names;
    uint64_t hash = hash_text(n, name), now = loop_now(n->ward->guard->loop);
    struct entry *e = entry_find(n, name, family, hash);
    int may;

    h->is_wanted = true;
    if (e && !e->ask && e->expires_ms > now) {
        entry_unlink_use(e);
        entry_link_use(e);
        half_fill(h, e, now);
        return 0;
    }
    if (e && e->ask) {
        half_wait(h, e);
        return 0;
    }
    may = may_ask(n, name, hash, &h->owner->why);
    if (may == 0) {
        h->is_done = true;
        h->result = NAMES_LIMIT;
        return 0;
    }
    if (may > 0 && !e)
        e = entry_new(n, name, family, hash);
    if (may < 0 || !e)
        return err_set(err, ERR_NOMEM, "asking for \"%s\": no memory", name);
    if (entry_ask(e, err) < 0) {
        entry_free(e);
        return -1;
    }
    half_wait(h, e);
    return 0;
}

struct names_ask *names_ask(struct names *n, const char *name, int family, names_fn *fn,
                            void *arg, struct err *e)
{
    struct names_ask *a = mem_zalloc(1, sizeof(*a));

    if (!a) {
        (void)err_set(e, ERR_NOMEM, "asking for \"%s\": no memory", name);
        return NULL;
    }
    a->names = n;
    a->fn = fn;
    a->arg = arg;
    a->prev = &n->asks;
    a->next = n->asks;
    if (a->next)
        a->next->prev = &a->next;
    n->asks = a;
    loop_job_init(&a->end, n->ward->guard->loop, on_end, a);
    loop_timer_init(&a->patience, n->ward->guard->loop, on_patience, a);
    a->half[V4].owner = a->half[V6].owner = a;
    if ((family != AF_INET && half_start(&a->half[V6], name, AF_INET6, e) < 0) ||
        (family != AF_INET6 && half_start(&a->half[V4], name, AF_INET, e) < 0)) {
        ask_free(a);
        return NULL;
    }
    ask_look(a);
    return a;
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
    crypto_random(n->seed, sizeof(n->seed));
    n->servers = hash_text(n, servers_of(w));
    return n;
}

void names_free(struct names *n)
{
    if (!n)
        return;
    while (n->asks)
        ask_free(n->asks);
    while (n->newest)
        entry_free(n->newest);
    learned_done(&n->learned);
    mem_free(n);
}

/* Does what is cached stand under the policy as it is now? */
static bool entry_stands(struct entry *e)
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
    uint64_t servers = hash_text(n, servers_of(n->ward));
    struct entry *e = n->oldest, *newer;

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
