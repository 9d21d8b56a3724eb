/* SPDX-License-Identifier: MIT */
/*
 * One sandbox's chain. What it decides on, in this order, is told in nft.h; every path
 * through it ends in it: refused, dropped, or with the guard.
 */
#include "agentd/egress/kernel/nft_words.h"

#include <linux/netfilter.h>
#include <string.h>

static const char *const own_set[NFT_OWN_SETS] = {"net4", "net6", "no4", "no6", "port"};

/* -- plans --------------------------------------------------------------------------- */

int plan_make(struct nft_plan *ret, const struct policy *p)
{
    const struct policy_limits *l = policy_limits(p);

    *ret = (struct nft_plan){.connections = l->connections};
    ret->port = policy_guarded(p, &ret->n_ports);
    /* The guard counts what connections carry, the kernel what the sandbox sends, with
     * headers: the spare leaves the exact end to the guard. */
    if (l->bytes > 0)
        ret->quota =
            l->bytes > INT64_MAX / 2 ? INT64_MAX : l->bytes + l->bytes / 8 + QUOTA_SPARE;
    if (rects_of_policy(&ret->allowed, p, NFT_TAKE_ALLOWED) < 0 ||
        rects_of_policy(&ret->denied, p, NFT_TAKE_DENIED) < 0 ||
        rects_disjoin(&ret->allowed) < 0 || rects_disjoin(&ret->denied) < 0) {
        plan_done(ret);
        return -1;
    }
    return 0;
}

void plan_done(struct nft_plan *p)
{
    rects_done(&p->allowed);
    rects_done(&p->denied);
}

static bool has_family(const struct nft_rects *r, uint8_t family)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->at[i].lo.family == family)
            return true;
    return false;
}

uint32_t plan_sets(const struct nft_plan *p)
{
    return (uint32_t)has_family(&p->allowed, AF_INET) << NFT_NET4 |
           (uint32_t)has_family(&p->allowed, AF_INET6) << NFT_NET6 |
           (uint32_t)has_family(&p->denied, AF_INET) << NFT_NO4 |
           (uint32_t)has_family(&p->denied, AF_INET6) << NFT_NO6 |
           (uint32_t)(p->n_ports > 0) << NFT_PORT;
}

/* -- a sandbox's chain --------------------------------------------------------------- */

struct judged {
    struct nft_batch *b;
    const struct nft_sandbox *s;
    const struct nft_plan *plan;
    const struct nft_judge *j;
    struct word_name chain, refused, guarded, quota;
    struct word_name set[NFT_OWN_SETS];
    uint32_t sets;
};

static void refuse(const struct judged *x, enum nft_why why)
{
    rule_counter(x->b, x->refused.s);
    rule_mark(x->b, NFT_REFUSED | x->s->index << 8 | (uint32_t)why);
    word_go(x->b, "refuse", nft_why_name(why));
}

/* The rule's packet is for the guard. On a host `tproxy` goes on to the next rule when no
 * socket is there: the chain's last rule drops. */
static void to_guard(const struct judged *x, bool is_dns)
{
    rule_counter(x->b, x->guarded.s);
    rule_mark(x->b, EGRESS_MARK);
    if (x->j->tier == EGRESS_VETH)
        rule_tproxy(x->b, is_dns ? x->s->udp_port : x->s->tcp_port);
    word_end(x->b, NF_ACCEPT);
}

static void begin(const struct judged *x)
{
    rule_begin(x->b, x->chain.s);
}

/* A sealed sandbox's programs among themselves, but not the guard's doors. */
static void judge_own(const struct judged *x)
{
    static const char *const own[2] = {"own4", "own6"};

    for (size_t i = 0; i < 2; i++) {
        begin(x);
        word_daddr_in(x->b, word_families[i], own[i]);
        word_port_is(x->b, IPPROTO_TCP, x->s->tcp_port);
        refuse(x, NFT_WHY_GUARD);
        begin(x);
        word_daddr_in(x->b, word_families[i], own[i]);
        word_port_is(x->b, IPPROTO_UDP, x->s->udp_port);
        refuse(x, NFT_WHY_GUARD);
        begin(x);
        word_daddr_in(x->b, word_families[i], own[i]);
        rule_mark(x->b, 0); /* what it set itself (SO_MARK) is no way to the guard */
        word_end(x->b, NF_ACCEPT);
    }
}

static void judge_first(const struct judged *x)
{
    static const uint8_t multicast4[4] = {224}, multicast6[16] = {0xff};

    begin(x);
    word_nfproto(x->b, AF_INET);
    word_daddr(x->b, AF_INET, R1);
    rule_cmp(x->b, NFT_CMP_GTE, multicast4, sizeof(multicast4));
    refuse(x, NFT_WHY_FLOOR);
    begin(x);
    word_nfproto(x->b, AF_INET6);
    word_daddr(x->b, AF_INET6, R1);
    rule_cmp(x->b, NFT_CMP_GTE, multicast6, sizeof(multicast6));
    refuse(x, NFT_WHY_FLOOR);
    begin(x);
    word_port_is(x->b, IPPROTO_UDP, 53);
    to_guard(x, true);
    begin(x);
    word_port_is(x->b, IPPROTO_TCP, 53);
    to_guard(x, false);
    if (x->j->tier == EGRESS_SEALED)
        judge_own(x);
    if (x->plan->quota > 0) {
        begin(x);
        rule_quota(x->b, x->quota.s);
        refuse(x, NFT_WHY_QUOTA);
    }
    begin(x);
    rule_ct_state(x->b, CT_INVALID);
    refuse(x, NFT_WHY_INVALID);
    begin(x);
    word_l4proto(x->b, EQ, IPPROTO_TCP);
    rule_ct_state(x->b, CT_ESTABLISHED);
    to_guard(x, false);
}

static void judge_refused(const struct judged *x)
{
    static const struct {
        const char *floor, *private;
        enum nft_own_set net, no;
    } row[2] = {
        {"floor4", "private4", NFT_NET4, NFT_NO4},
        {"floor6", "private6", NFT_NET6, NFT_NO6},
    };

    for (size_t i = 0; i < 2; i++) {
        begin(x);
        word_daddr_in(x->b, word_families[i], row[i].floor);
        refuse(x, NFT_WHY_FLOOR);
    }
    begin(x);
    word_l4proto(x->b, EQ, IPPROTO_UDP);
    refuse(x, NFT_WHY_UDP);
    begin(x);
    word_l4proto(x->b, NEQ, IPPROTO_TCP);
    refuse(x, NFT_WHY_PROTOCOL);
    for (size_t i = 0; i < 2; i++) {
        if (x->sets & 1u << row[i].no) {
            begin(x);
            word_nfproto(x->b, word_families[i]);
            word_daddr_port_in(x->b, word_families[i], x->set[row[i].no].s, false);
            refuse(x, NFT_WHY_DENIED);
        }
        begin(x);
        word_daddr_in(x->b, word_families[i], row[i].private);
        if (x->sets & 1u << row[i].net)
            word_daddr_port_in(x->b, word_families[i], x->set[row[i].net].s, true);
        refuse(x, NFT_WHY_PRIVATE);
    }
}

/* mark . daddr . protocol . port */
static void pinned(const struct judged *x, size_t i)
{
    uint32_t w = ip_bytes(word_families[i]) / 4;

    begin(x);
    word_nfproto(x->b, word_families[i]);
    rule_meta(x->b, NFT_META_MARK, R(0));
    word_daddr(x->b, word_families[i], R(1));
    rule_meta(x->b, NFT_META_L4PROTO, R(1 + w));
    rule_payload(x->b, TH, PORT_TO, 2, R(2 + w));
    rule_lookup(x->b, i == 0 ? "pin4" : "pin6", false);
    rule_mark(x->b, EGRESS_MARK);
    rule_end(x->b, NULL);
}

static void judge_allowed(const struct judged *x)
{
    begin(x);
    rule_mark(x->b, NFT_TAG | x->j->tag);
    rule_end(x->b, NULL);
    pinned(x, 0);
    pinned(x, 1);
    for (size_t i = 0; i < 2; i++) {
        enum nft_own_set net = i == 0 ? NFT_NET4 : NFT_NET6;

        if ((x->sets & 1u << net) == 0)
            continue;
        begin(x);
        word_nfproto(x->b, word_families[i]);
        word_daddr_port_in(x->b, word_families[i], x->set[net].s, false);
        rule_mark(x->b, EGRESS_MARK);
        rule_end(x->b, NULL);
    }
    if (x->sets & 1u << NFT_PORT) {
        begin(x);
        word_l4proto(x->b, EQ, IPPROTO_TCP);
        rule_payload(x->b, TH, PORT_TO, 2, R1);
        rule_lookup(x->b, x->set[NFT_PORT].s, false);
        rule_mark(x->b, EGRESS_MARK);
        rule_end(x->b, NULL);
    }
    begin(x);
    word_mark_is(x->b, NEQ, EGRESS_MARK);
    refuse(x, NFT_WHY_DEFAULT);
    if (x->plan->connections > 0) {
        begin(x);
        rule_ct_state(x->b, CT_NEW);
        rule_ct_over(x->b, x->plan->connections);
        refuse(x, NFT_WHY_LIMIT);
    }
    begin(x);
    to_guard(x, false);
    begin(x);
    word_end(x->b, NF_DROP);
}

/* -- a sandbox's sets ---------------------------------------------------------------- */

static void sandbox_sets(const struct judged *x)
{
    for (unsigned i = 0; i < NFT_OWN_SETS; i++) {
        bool is_4 = i == NFT_NET4 || i == NFT_NO4;
        bool is_denied = i == NFT_NO4 || i == NFT_NO6;
        uint8_t family = is_4 ? AF_INET : AF_INET6;

        if ((x->sets & 1u << i) == 0)
            continue;
        if (x->j->old_sets & 1u << i)
            build_set_flush(x->b, x->set[i].s);
        else if (i == NFT_PORT)
            word_range_set(x->b, x->set[i].s, T_PORT, 2);
        else
            word_rect_set(x->b, x->set[i].s, family);
        if (i == NFT_PORT)
            word_put_ports(x->b, x->set[i].s, x->plan->port, x->plan->n_ports);
        else
            word_put_rects(x->b, x->set[i].s,
                           is_denied ? &x->plan->denied : &x->plan->allowed, family);
    }
}

static void sealed_ways(const struct judged *x)
{
    build_chain_flush(x->b, "judge");
    rule_begin(x->b, "judge");
    word_go(x->b, x->chain.s, NULL);
    build_chain_flush(x->b, "guard");
    for (int is_udp = 0; is_udp < 2; is_udp++) {
        rule_begin(x->b, "guard");
        word_l4proto(x->b, EQ, is_udp ? IPPROTO_UDP : IPPROTO_TCP);
        rule_tproxy(x->b, is_udp ? x->s->udp_port : x->s->tcp_port);
        word_end(x->b, NF_ACCEPT);
    }
    rule_begin(x->b, "guard");
    word_end(x->b, NF_DROP);
}

void rules_sandbox(struct nft_batch *b, const struct nft_sandbox *s,
                   const struct nft_plan *p, const struct nft_judge *j)
{
    struct judged x = {
        .b = b,
        .s = s,
        .plan = p,
        .j = j,
        .chain = word_named(s->index, ""),
        .refused = word_named(s->index, "refused"),
        .guarded = word_named(s->index, "guarded"),
        .quota = word_named(s->index, "quota"),
        .sets = plan_sets(p),
    };

    for (unsigned i = 0; i < NFT_OWN_SETS; i++)
        x.set[i] = word_named(s->index, own_set[i]);
    build_counter(b, x.refused.s);
    build_counter(b, x.guarded.s);
    build_quota(b, x.quota.s, p->quota > 0 ? p->quota : INT64_MAX);
    build_chain(b, x.chain.s, NULL, s->name);
    build_chain_flush(b, x.chain.s);
    sandbox_sets(&x);
    judge_first(&x);
    judge_refused(&x);
    judge_allowed(&x);
    for (unsigned i = 0; i < NFT_OWN_SETS; i++)
        if (j->old_sets & ~x.sets & 1u << i)
            build_set_drop(b, x.set[i].s);
    if (j->tier == EGRESS_SEALED) {
        sealed_ways(&x);
        return;
    }
    rules_ingress(b, s);
    rules_origin(b, s, false);
}

void rules_sandbox_drop(struct nft_batch *b, uint32_t index, uint32_t sets, bool is_veth)
{
    struct word_name chain = word_named(index, "");

    if (!is_veth) {
        build_chain_flush(b, "judge");
        build_chain_flush(b, "guard");
    }
    build_chain_flush(b, chain.s);
    build_chain_drop(b, chain.s);
    for (unsigned i = 0; i < NFT_OWN_SETS; i++)
        if (sets & 1u << i)
            build_set_drop(b, word_named(index, own_set[i]).s);
    build_object_drop(b, word_named(index, "refused").s, NFT_OBJECT_COUNTER);
    build_object_drop(b, word_named(index, "guarded").s, NFT_OBJECT_COUNTER);
    build_object_drop(b, word_named(index, "quota").s, NFT_OBJECT_QUOTA);
    if (!is_veth)
        return;
    b->family = NFPROTO_NETDEV;
    build_chain_flush(b, chain.s);
    build_chain_drop(b, chain.s);
    build_object_drop(b, word_named(index, "spoofed").s, NFT_OBJECT_COUNTER);
    b->family = NFPROTO_INET;
}
