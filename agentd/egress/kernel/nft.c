/* SPDX-License-Identifier: MIT */
/*
 * What stands in the kernel, remembered: base, sandboxes with their tags, sets and
 * addresses. A change is built from that and the new wish, committed, and only then
 * remembered.
 */
#include "agentd/egress/kernel/nft.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/kernel/nft_int.h"
#include "common/crypto.h"
#include "common/mem.h"

#define NFT_MAGIC 0x6e667421u

struct known { /* a sandbox in the table */
    uint32_t index, tag, sets;
    struct nft_sandbox at; /* addresses and interfaces; names and policy are not kept */
    char bridge[16];
    struct nft_rects nets; /* private networks that its policy allows */
};

struct nft {
    unsigned magic;
    struct nft_link link;
    struct nft_batch batch;
    bool is_installed, has_guard;
    enum egress_tier tier;
    char table[NFT_TABLE_MAX];
    struct known *known; /* by index */
    size_t n_known, cap_known;
    struct nft_rects guard_for; /* private space of sandboxes that are elsewhere */
    uint32_t next_tag;
    const struct nft *before; /* while it is made anew: what stood there */
    bool is_seen;             /* the kernel had what it should at this generation */
    uint32_t seen;
};

struct nft *nft_open(int *take_fd, struct err *e)
{
    struct nft *n = mem_zalloc(1, sizeof(*n));

    if (n == NULL) {
        sock_close(take_fd);
        (void)err_set(e, ERR_NOMEM, "no memory for nftables");
        return NULL;
    }
    n->magic = NFT_MAGIC;
    memcpy(n->table, EGRESS_NFT, sizeof EGRESS_NFT);
    batch_init(&n->batch, n->table, 0);
    n->batch.pin_mark = NFT_PIN_MARK | crypto_random_below(NFT_PIN_MARK);
    if (link_open(&n->link, take_fd, e) < 0) {
        mem_free(n);
        return NULL;
    }
    return n;
}

void nft_own_table(struct nft *n, const char *name)
{
    (void)snprintf(n->table, sizeof n->table, "%s", name); /* the caller's: it fits */
    n->batch.table_flags = NFT_TABLE_F_OWNER;
}

void nft_keep_table(struct nft *n)
{
    n->batch.table_flags = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;
}

const char *nft_table(const struct nft *n)
{
    return n->table;
}

static void forget(struct nft *n)
{
    for (size_t i = 0; i < n->n_known; i++)
        rects_done(&n->known[i].nets);
    n->n_known = 0;
}

void nft_close(struct nft *n)
{
    if (n == NULL)
        return;
    forget(n);
    rects_done(&n->guard_for);
    mem_free(n->known);
    batch_done(&n->batch);
    link_done(&n->link);
    n->magic = 0;
    mem_free(n);
}

/* -- what is known ------------------------------------------------------------------- */

static size_t place_of(const struct nft *n, uint32_t index)
{
    size_t lo = 0, hi = n->n_known;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (n->known[mid].index < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct known *find(const struct nft *n, uint32_t index)
{
    size_t i = place_of(n, index);

    return i < n->n_known && n->known[i].index == index ? &n->known[i] : NULL;
}

static int reserve(struct nft *n, size_t more)
{
    struct known *p;
    size_t cap = n->n_known + more;

    if (cap <= n->cap_known)
        return 0;
    cap += cap / 2;
    p = mem_resize(n->known, cap * sizeof(*p));
    if (p == NULL)
        return -1;
    n->known = p;
    n->cap_known = cap;
    return 0;
}

/* Room was reserved. */
static void remember(struct nft *n, struct known *k)
{
    size_t i = place_of(n, k->index);

    if (i < n->n_known && n->known[i].index == k->index) {
        rects_done(&n->known[i].nets);
    } else {
        memmove(&n->known[i + 1], &n->known[i], (n->n_known - i) * sizeof(*k));
        n->n_known++;
    }
    n->known[i] = *k;
    n->known[i].at.bridge = NULL;
    *k = (struct known){0};
}

static void known_done(struct known *k)
{
    rects_done(&k->nets);
}

/* Its sandbox as rules_origin() takes it. */
static struct nft_sandbox origin_of(const struct known *k)
{
    struct nft_sandbox s = k->at;

    s.bridge = k->bridge;
    return s;
}

static bool has_addr(const struct nft_sandbox *s, const char *bridge,
                     const struct ip_addr *a)
{
    for (unsigned i = 0; i < s->n_addr; i++)
        if (ip_eq(&s->addr[i], a) && strcmp(s->bridge, bridge) == 0)
            return true;
    return false;
}

/* -- building ------------------------------------------------------------------------ */

static int check(const struct nft *n, const struct nft_sandbox *s, struct err *e)
{
    if (!n->is_installed)
        return err_set(e, ERR_CONFIG, "nftables: no table is installed");
    if (s->index == 0 || s->index > UINT16_MAX)
        return err_set(e, ERR_CONFIG, "nftables: sandbox index %u", s->index);
    if (s->tcp_port == 0 || s->udp_port == 0)
        return err_set(e, ERR_CONFIG, "nftables: sandbox %s without the guard's ports",
                       s->name);
    if (n->tier == EGRESS_SEALED && n->n_known > 0 && n->known[0].index != s->index)
        return err_set(e, ERR_CONFIG,
                       "nftables: a sealed namespace has one sandbox, and it is %u",
                       n->known[0].index);
    if (n->tier == EGRESS_SEALED)
        return 0;
    if (s->bridge == NULL || s->veth == NULL || strlen(s->bridge) > 15 ||
        strlen(s->veth) > 15 || s->bridge[0] == '\0' || s->veth[0] == '\0')
        return err_set(e, ERR_CONFIG, "nftables: sandbox %s has no interface", s->name);
    if (s->n_addr == 0 || s->n_addr > COUNT_OF(s->addr))
        return err_set(e, ERR_CONFIG, "nftables: sandbox %s has %u addresses", s->name,
                       s->n_addr);
    for (size_t i = 0; i < n->n_known; i++)
        for (unsigned a = 0; a < n->known[i].at.n_addr; a++)
            if (n->known[i].index != s->index &&
                has_addr(s, n->known[i].bridge, &n->known[i].at.addr[a]))
                return err_set(e, ERR_CONFIG,
                               "nftables: sandbox %s has an address of sandbox %u",
                               s->name, n->known[i].index);
    return 0;
}

/* Append a sandbox's rules to the batch; *ret is what to remember when they are in
 * force. */
static int put_sandbox(struct nft *n, const struct nft_sandbox *s, struct known *ret)
{
    const struct known *old = find(n, s->index), *kin = old;
    struct nft_judge j = {.tier = n->tier};
    struct nft_plan plan;

    *ret = (struct known){.index = s->index, .at = *s};
    ret->at.name = NULL;
    ret->at.policy = NULL;
    ret->at.veth = NULL;
    if (n->tier == EGRESS_VETH)
        (void)snprintf(ret->bridge, sizeof(ret->bridge), "%s", s->bridge);
    else
        ret->at.n_addr = 0;
    if (plan_make(&plan, s->policy) < 0)
        return -1;
    ret->sets = plan_sets(&plan);
    if (kin == NULL && n->before != NULL)
        kin = find(n->before, s->index);
    ret->tag = kin != NULL ? kin->tag : ++n->next_tag & NFT_TAG_MASK;
    j.tag = ret->tag;
    j.old_sets = old != NULL ? old->sets : 0;
    if (old != NULL && n->tier == EGRESS_VETH) {
        struct nft_sandbox was = origin_of(old);

        for (unsigned i = 0; i < was.n_addr;)
            if (has_addr(s, was.bridge, &was.addr[i]))
                was.addr[i] = was.addr[--was.n_addr];
            else
                i++;
        rules_origin(&n->batch, &was, true);
    }
    rules_sandbox(&n->batch, s, &plan, &j);
    plan_done(&plan);
    return n->has_guard ? rects_of_policy(&ret->nets, s->policy, NFT_TAKE_PRIVATE) : 0;
}

/* The union of what all sandboxes' policies allow of private space, `changed` taking the
 * place of what is known of the same sandboxes. */
static int put_guard_nets(struct nft *n, const struct known *changed, size_t n_changed,
                          uint32_t dropped)
{
    struct nft_rects all = {0};
    int rc = 0;

    if (!n->has_guard)
        return 0;
    for (size_t a = 0; a < n->guard_for.n && rc == 0; a++)
        rc = rects_push(&all, &n->guard_for.at[a]);
    for (size_t i = 0; i < n->n_known + n_changed && rc == 0; i++) {
        const struct known *k = i < n->n_known ? &n->known[i] : &changed[i - n->n_known];
        bool is_old = k->index == dropped;

        for (size_t c = 0; c < n_changed && i < n->n_known; c++)
            is_old = is_old || changed[c].index == k->index;
        for (size_t a = 0; a < k->nets.n && !is_old && rc == 0; a++)
            rc = rects_push(&all, &k->nets.at[a]);
    }
    if (rc == 0)
        rc = rects_disjoin(&all);
    if (rc == 0)
        rules_guard_nets(&n->batch, &all);
    rects_done(&all);
    return rc;
}

/* -- changes ------------------------------------------------------------------------- */

/* One that fails leaves the generation as it is, but what is wanted is another. */
static void begin(struct nft *n, struct nft_batch *b)
{
    n->is_seen = false;
    link_begin(&n->link, b, n->table);
}

static void adopt(struct nft *n, const struct nft_base *base)
{
    n->tier = base->tier;
    n->has_guard = base->tier == EGRESS_VETH && base->guard_uid != 0;
    n->is_installed = true;
}

static int take_guard_for(struct nft_rects *r, const struct nft_base *base)
{
    for (size_t i = 0; i < base->n_guard_for; i++)
        if (rects_of_policy(r, base->guard_for[i], NFT_TAKE_PRIVATE) < 0)
            return -1;
    return 0;
}

int nft_install(struct nft *n, const struct nft_base *base, struct err *e)
{
    return nft_restore(n, base, NULL, 0, e);
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory for the rules");
}

/* As nft_restore(), on a fresh `n` that borrows the link; nothing of the old one is known
 * to it. */
static int put_all(struct nft *fresh, const struct nft_base *base,
                   const struct nft_sandbox *s, size_t count, struct err *e)
{
    rules_base(&fresh->batch, base);
    if (reserve(fresh, count) < 0 || take_guard_for(&fresh->guard_for, base) < 0)
        return no_memory(e);
    for (size_t i = 0; i < count; i++) {
        struct known k;

        if (check(fresh, &s[i], e) < 0)
            return -1;
        if (put_sandbox(fresh, &s[i], &k) < 0) {
            known_done(&k);
            return no_memory(e);
        }
        remember(fresh, &k);
    }
    return put_guard_nets(fresh, NULL, 0, 0) < 0 ? no_memory(e) : 0;
}

/* One try: what is there before it, and what the kernel knows, is as the
 * batch's flags say. */
static int restore(struct nft *n, const struct nft_base *base,
                   const struct nft_sandbox *s, size_t n_sandboxes, struct err *e)
{
    struct nft *fresh = mem_zalloc(1, sizeof(*fresh));
    int rc;

    if (fresh == NULL)
        return no_memory(e);
    fresh->batch = n->batch;
    fresh->next_tag = n->next_tag;
    fresh->before = n;
    adopt(fresh, base);
    begin(n, &fresh->batch);
    rc = put_all(fresh, base, s, n_sandboxes, e);
    if (rc == 0)
        rc = link_commit(&n->link, &fresh->batch, e);
    n->batch = fresh->batch;
    n->next_tag = fresh->next_tag;
    if (rc == 0) {
        struct known *old = n->known;
        struct nft_rects old_for = n->guard_for;

        forget(n);
        n->guard_for = fresh->guard_for;
        fresh->guard_for = old_for;
        n->known = fresh->known;
        n->n_known = fresh->n_known;
        n->cap_known = fresh->cap_known;
        fresh->known = old;
        fresh->n_known = 0;
        adopt(n, base);
    }
    forget(fresh);
    rects_done(&fresh->guard_for);
    mem_free(fresh->known);
    mem_free(fresh);
    return rc;
}

static bool is_other_kind(const struct err *e)
{
    return e->code == ERR_SYS && (e->sys == EOPNOTSUPP || e->sys == EINVAL);
}

int nft_restore(struct nft *n, const struct nft_base *base, const struct nft_sandbox *s,
                size_t n_sandboxes, struct err *e)
{
    struct err why = {0};
    int rc = restore(n, base, s, n_sandboxes, &why);

    if (rc < 0 && n->batch.table_flags & NFT_TABLE_F_PERSIST && is_other_kind(&why)) {
        n->batch.is_plain_before = true; /* of a version that kept it otherwise */
        rc = restore(n, base, s, n_sandboxes, &why);
        n->batch.is_plain_before = false;
        if (rc < 0 && is_other_kind(&why)) {
            n->batch.table_flags = 0; /* a kernel before 6.9 */
            rc = restore(n, base, s, n_sandboxes, &why);
        }
    }
    if (rc < 0 && e)
        *e = why;
    return rc;
}

int nft_sandbox_set(struct nft *n, const struct nft_sandbox *s, struct err *e)
{
    struct known k = {0};
    int rc;

    if (check(n, s, e) < 0)
        return -1;
    begin(n, &n->batch);
    if (reserve(n, 1) < 0 || put_sandbox(n, s, &k) < 0 || put_guard_nets(n, &k, 1, 0) < 0)
        rc = no_memory(e);
    else
        rc = link_commit(&n->link, &n->batch, e);
    if (rc == 0)
        remember(n, &k);
    known_done(&k);
    return rc < 0 ? err_wrap(e, "sandbox %s", s->name) : 0;
}

int nft_sandbox_drop(struct nft *n, const struct nft_sandbox *s, struct err *e)
{
    struct known *k = find(n, s->index);
    bool is_veth = n->tier == EGRESS_VETH;

    if (k == NULL)
        return err_set(e, ERR_NOTFOUND, "nftables: there is no sandbox %u", s->index);
    begin(n, &n->batch);
    if (is_veth) {
        struct nft_sandbox was = origin_of(k);

        rules_origin(&n->batch, &was, true);
    }
    rules_sandbox_drop(&n->batch, k->index, k->sets, is_veth);
    if (put_guard_nets(n, NULL, 0, k->index) < 0)
        return no_memory(e);
    if (link_commit(&n->link, &n->batch, e) < 0)
        return err_wrap(e, "sandbox %u", s->index);
    known_done(k);
    memmove(k, k + 1, (size_t)(n->known + n->n_known - (k + 1)) * sizeof(*k));
    n->n_known--;
    return 0;
}

int nft_uninstall(struct nft *n, struct err *e)
{
    begin(n, &n->batch);
    for (int i = n->tier == EGRESS_VETH ? 0 : 1; i < 2; i++) {
        n->batch.family = i == 0 ? NFPROTO_NETDEV : NFPROTO_INET;
        build_table(&n->batch); /* deleting what is not there is an error */
        build_table_drop(&n->batch);
    }
    if (link_commit(&n->link, &n->batch, e) < 0)
        return -1;
    forget(n);
    n->is_installed = false;
    return 0;
}

uint32_t nft_pin_mark(const struct nft *n)
{
    return n->tier == EGRESS_SEALED ? n->batch.pin_mark : EGRESS_PIN_MARK;
}

void nft_pin_mark_set(struct nft *n, uint32_t mark)
{
    n->batch.pin_mark = mark;
}

uint32_t nft_tag(const struct nft *n, uint32_t index)
{
    const struct known *k = find(n, index);

    return k == NULL ? 0 : NFT_TAG | k->tag;
}

/* -- looking ------------------------------------------------------------------------- */

int nft_counts(struct nft *n, uint32_t index, struct nft_counts *ret, struct err *e)
{
    struct nft_counts c = {0};
    char name[40];

    (void)snprintf(name, sizeof(name), "s%u_refused", index);
    if (link_counter(&n->link, n->table, name, &c.refused_packets, &c.refused_bytes, e) <
        0)
        return -1;
    (void)snprintf(name, sizeof(name), "s%u_guarded", index);
    if (link_counter(&n->link, n->table, name, &c.guarded_packets, &c.guarded_bytes, e) <
        0)
        return -1;
    *ret = c;
    return 0;
}

/* What the table must hold: built as new, with the tags that the sandboxes have. */
static int expected(struct nft *n, const struct nft_base *base,
                    const struct nft_sandbox *s, size_t count, struct buf *ret,
                    struct err *e)
{
    struct nft_batch b;
    struct nft_rects nets = {0};
    int rc = 0;

    batch_init(&b, n->table, 1);
    b.table_flags = n->batch.table_flags;
    b.pin_mark = n->batch.pin_mark;
    rules_base(&b, base);
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct known *k = find(n, s[i].index);
        struct nft_judge j = {.tier = base->tier};
        struct nft_plan plan;

        if (k == NULL || plan_make(&plan, s[i].policy) < 0) {
            rc = k == NULL ? err_set(e, ERR_DENIED, "sandbox %s has no rules", s[i].name)
                           : no_memory(e);
            break;
        }
        j.tag = k->tag;
        rules_sandbox(&b, &s[i], &plan, &j);
        plan_done(&plan);
        if (n->has_guard && rects_of_policy(&nets, s[i].policy, NFT_TAKE_PRIVATE) < 0)
            rc = no_memory(e);
    }
    if (rc == 0 && (take_guard_for(&nets, base) < 0 || rects_disjoin(&nets) < 0))
        rc = no_memory(e);
    if (rc == 0 && n->has_guard)
        rules_guard_nets(&b, &nets);
    if (rc == 0)
        rc = link_expected(&b, ret, e);
    rects_done(&nets);
    batch_done(&b);
    return rc;
}

static int compare(struct nft *n, const struct nft_base *base,
                   const struct nft_sandbox *s, size_t n_sandboxes, struct err *e)
{
    AUTO(buf_done)
    struct buf want = BUF_INIT;
    AUTO(buf_done)
    struct buf have = BUF_INIT;
    char what[160];
    int rc;

    if (expected(n, base, s, n_sandboxes, &want, e) < 0 ||
        link_dump(&n->link, n->table, base->tier == EGRESS_VETH && !base->is_guard_only,
                  &have, e) < 0)
        return -1;
    rc = lines_diff(&want, &have, what, sizeof(what));
    if (rc < 0)
        return no_memory(e);
    return rc == 0 ? 0 : err_set(e, ERR_DENIED, "nftables: the rules differ: %s", what);
}

/* A dump costs a millisecond, and mostly nothing has changed since the last. */
int nft_verify(struct nft *n, const struct nft_base *base, const struct nft_sandbox *s,
               size_t n_sandboxes, struct err *e)
{
    uint32_t before, after;

    if (link_generation(&n->link, &before, e) < 0)
        return -1;
    if (n->is_seen && n->seen == before)
        return 0;
    n->is_seen = false;
    if (compare(n, base, s, n_sandboxes, e) < 0 ||
        link_generation(&n->link, &after, e) < 0)
        return -1;
    n->is_seen = before == after;
    n->seen = after;
    return 0;
}

uint32_t nft_port(const struct nft *n)
{
    return n->link.port;
}
