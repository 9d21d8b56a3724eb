/* SPDX-License-Identifier: MIT */
/*
 * The rules themselves: what stands in the tables. docs/EGRESS.md shows them as nft(8) prints them.
 *
 * A commit walks all chains and looks sets up by name one after the other, so a sandbox costs one chain, and
 * sets only for what its policy has networks for; pins of all sandboxes are in two sets, made first,
 * where a tag tells whose a pin is. A tag is never used again, so the pins of a sandbox that is gone are
 * nobody's until they end.
 *
 * While a packet is judged its mark is the sandbox's tag, then EGRESS_MARK (to the guard) or why it was
 * refused (NFLOG carries the mark, so the reason needs no rule of its own). Every path through
 * a sandbox's chain ends in it: refused, dropped, or with the guard.
 */
#include "agentd/egress/kernel/nft_int.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <netinet/icmp6.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

enum {
    /* nft(8)'s numbers of types, 6 bits each in a concatenation */
    T_IP4 = 7,
    T_IP6 = 8,
    T_ETHER = 9,
    T_PROTO = 12,
    T_PORT = 13,
    T_MARK = 19,
    T_IFNAME = 41,
    T_BITS = 6,
    CT_INVALID = 1,
    CT_ESTABLISHED = 2,
    CT_RELATED = 4,
    CT_NEW = 8,
    PRIO_MANGLE = -150,
    PRIO_FILTER = 0,
    PRIO_INGRESS = -500,
    IP4_DADDR = 16,
    IP4_SADDR = 12,
    IP6_DADDR = 24,
    IP6_SADDR = 8,
    PORT_TO = 2, /* offset in TCP, UDP, SCTP */
    NAME_MAX = 40,
    QUOTA_SPARE = 1 << 20,
    REASON_REST_MS = 60000,
};

#define R1 NFT_REG_1
/* A 4-byte register, by the name that the kernel gives it in its dumps. */
#define R(n) ((n) % 4 == 0 ? NFT_REG_1 + (n) / 4 : NFT_REG32_00 + (n))
#define NH   NFT_PAYLOAD_NETWORK_HEADER
#define TH   NFT_PAYLOAD_TRANSPORT_HEADER
#define LL   NFT_PAYLOAD_LL_HEADER
#define EQ   NFT_CMP_EQ
#define NEQ  NFT_CMP_NEQ

static const char *const own_set[NFT_OWN_SETS] = {"net4", "net6", "no4", "no6", "port"};

const char *nft_why_name(enum nft_why w)
{
    static const char *const name[NFT_WHY_COUNT] = {
        "default",  "floor",   "private", "denied", "udp",
        "protocol", "invalid", "limit",   "quota",  "guard",
    };

    return (unsigned)w < NFT_WHY_COUNT ? name[w] : "unknown";
}

struct name {
    char s[NAME_MAX];
};

static struct name named(uint32_t index, const char *what)
{
    struct name r;

    (void)snprintf(r.s, sizeof(r.s), "s%u%s%s", index, what[0] != '\0' ? "_" : "", what);
    return r;
}

/* -- plans -------------------------------------------------------------------------------------- */

int plan_make(struct nft_plan *ret, const struct policy *p)
{
    const struct policy_limits *l = policy_limits(p);

    *ret = (struct nft_plan){.connections = l->connections};
    ret->port = policy_guarded(p, &ret->n_ports);
    /* The guard counts what connections carry, the kernel what the sandbox sends, with headers:
     * the spare leaves the exact end to the guard. */
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

/* -- sets and their elements -------------------------------------------------------------------- */

static struct nft_elem *new_elems(struct nft_batch *b, size_t n)
{
    struct nft_elem *e = b->is_failed ? NULL : mem_zalloc(n > 0 ? n : 1, sizeof(*e));

    if (e == NULL)
        b->is_failed = true;
    return e;
}

static uint32_t width(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}

/* Address ranges: a value where each begins and one after its end. */
static void put_ranges(struct nft_batch *b, const char *set, const struct nft_rects *r,
                       uint8_t family)
{
    struct nft_elem *e = new_elems(b, r->n * 2);
    size_t n = 0;

    for (size_t i = 0; e != NULL && i < r->n; i++) {
        struct ip_addr next;

        if (r->at[i].lo.family != family)
            continue;
        e[n].len = width(family);
        memcpy(e[n++].key, r->at[i].lo.bytes, width(family));
        if (!rect_next_addr(&r->at[i].hi, &next))
            continue;
        e[n].len = width(family);
        e[n].is_closing = true;
        memcpy(e[n++].key, next.bytes, width(family));
    }
    if (e != NULL)
        build_elems(b, set, e, n);
    mem_free(e);
}

static void put_port(uint8_t *at, uint32_t port)
{
    at[0] = (uint8_t)(port >> 8);
    at[1] = (uint8_t)port;
}

static void put_ports(struct nft_batch *b, const char *set, const struct port_range *p,
                      size_t n_ports)
{
    struct nft_elem *e = new_elems(b, n_ports * 2);
    size_t n = 0;

    for (size_t i = 0; e != NULL && i < n_ports; i++) {
        uint32_t last = p[i].last;

        e[n].len = 2;
        put_port(e[n++].key, p[i].first);
        /* Touching ranges are one: the kernel takes no value twice. */
        while (i + 1 < n_ports && p[i + 1].first <= last + 1)
            last = p[++i].last > last ? p[i].last : last;
        if (last == UINT16_MAX)
            break;
        e[n].len = 2;
        e[n].is_closing = true;
        put_port(e[n++].key, last + 1);
    }
    if (e != NULL)
        build_elems(b, set, e, n);
    mem_free(e);
}

static void put_rects(struct nft_batch *b, const char *set, const struct nft_rects *r,
                      uint8_t family)
{
    struct nft_elem *e = new_elems(b, r->n);
    uint32_t w = width(family);
    size_t n = 0;

    for (size_t i = 0; e != NULL && i < r->n; i++) {
        const struct nft_rect *x = &r->at[i];

        if (x->lo.family != family)
            continue;
        e[n].len = w + 4;
        e[n].has_end = true;
        memcpy(e[n].key, x->lo.bytes, w);
        memcpy(e[n].end, x->hi.bytes, w);
        put_port(e[n].key + w, x->first);
        put_port(e[n].end + w, x->last);
        n++;
    }
    if (e != NULL)
        build_elems(b, set, e, n);
    mem_free(e);
}

static void range_set(struct nft_batch *b, const char *name, uint32_t type, uint32_t len)
{
    build_set(b, &(struct nft_set_def){
                     .name = name, .flags = NFT_SET_INTERVAL, .type = type, .len = len});
}

static void rect_set(struct nft_batch *b, const char *name, uint8_t family)
{
    build_set(b, &(struct nft_set_def){
                     .name = name,
                     .flags = NFT_SET_INTERVAL | NFT_SET_CONCAT,
                     .type = (family == AF_INET ? T_IP4 : T_IP6) << T_BITS | T_PORT,
                     .len = width(family) + 4,
                     .field = {(uint8_t)width(family), 2},
                     .n_fields = 2,
                 });
}

static void pin_set(struct nft_batch *b, const char *name, uint8_t family,
                    enum egress_tier tier)
{
    build_set(b, &(struct nft_set_def){
                     .name = name,
                     .flags = NFT_SET_TIMEOUT | NFT_SET_CONCAT,
                     .type = T_MARK << T_BITS * 3 |
                             (family == AF_INET ? T_IP4 : T_IP6) << T_BITS * 2 |
                             T_PROTO << T_BITS | T_PORT,
                     .len = 4 + width(family) + 4 + 4,
                     .field = {4, (uint8_t)width(family), 1, 2},
                     .n_fields = 4,
                     .size = tier == EGRESS_SEALED ? NFT_PINS_SEALED : NFT_PINS_HOST,
                 });
}

uint32_t rules_pin_key(uint8_t key[NFT_KEY_MAX], uint32_t tag, const struct nft_pin *pin)
{
    uint32_t w = width(pin->addr.family);

    memset(key, 0, NFT_KEY_MAX);
    tag |= NFT_TAG;
    memcpy(key, &tag, 4);
    memcpy(key + 4, pin->addr.bytes, w);
    key[4 + w] = IPPROTO_TCP;
    put_port(key + 8 + w, pin->port);
    return w + 12;
}

/* -- words for rules ----------------------------------------------------------------------------- */

static void nfproto(struct nft_batch *b, uint8_t family)
{
    rule_meta(b, NFT_META_NFPROTO, R1);
    rule_cmp8(b, EQ, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6);
}

static void l4proto(struct nft_batch *b, uint32_t op, uint8_t proto)
{
    rule_meta(b, NFT_META_L4PROTO, R1);
    rule_cmp8(b, op, proto);
}

static void daddr(struct nft_batch *b, uint8_t family, uint32_t reg)
{
    rule_payload(b, NH, family == AF_INET ? IP4_DADDR : IP6_DADDR, width(family), reg);
}

static void port_is(struct nft_batch *b, uint8_t proto, uint16_t port)
{
    l4proto(b, EQ, proto);
    rule_payload(b, TH, PORT_TO, 2, R1);
    rule_cmp16(b, EQ, port);
}

/* daddr . dport, for a set of rectangles */
static void daddr_port_in(struct nft_batch *b, uint8_t family, const char *set,
                          bool is_not)
{
    daddr(b, family, R(0));
    rule_payload(b, TH, PORT_TO, 2, R(width(family) / 4));
    rule_lookup(b, set, is_not);
}

static void daddr_in(struct nft_batch *b, uint8_t family, const char *set)
{
    nfproto(b, family);
    daddr(b, family, R1);
    rule_lookup(b, set, false);
}

static void mark_is(struct nft_batch *b, uint32_t op, uint32_t mark)
{
    rule_meta(b, NFT_META_MARK, R1);
    rule_cmp32(b, op, mark);
}

static void ifname_is(struct nft_batch *b, uint32_t key, uint32_t op, const char *name)
{
    rule_meta(b, key, R1);
    rule_cmp(b, op, name, (uint32_t)strlen(name) + 1);
}

/* interface . address */
static void origin_in(struct nft_batch *b, uint8_t family, bool is_from)
{
    static const uint32_t offset[2][2] = {{IP4_DADDR, IP4_SADDR}, {IP6_DADDR, IP6_SADDR}};
    bool is_6 = family == AF_INET6;

    nfproto(b, family);
    rule_meta(b, is_from ? NFT_META_IIFNAME : NFT_META_OIFNAME, R(0));
    rule_payload(b, NH, offset[is_6][is_from], width(family), R(4));
}

static void go(struct nft_batch *b, const char *chain, const char *comment)
{
    rule_verdict(b, NFT_GOTO, chain);
    rule_end(b, comment);
}

static void end(struct nft_batch *b, int verdict)
{
    rule_verdict(b, verdict, NULL);
    rule_end(b, NULL);
}

static const uint8_t families[2] = {AF_INET, AF_INET6};

/* -- the table without sandboxes ------------------------------------------------------------------- */

static void base_sets(struct nft_batch *b, const struct nft_base *base)
{
    static const struct {
        const char *name4, *name6;
    } row[] = {{"floor4", "floor6"}, {"private4", "private6"}, {"own4", "own6"}};
    struct nft_rects r[COUNT_OF(row)] = {{0}};
    static const char *const own[] = {"127.0.0.0/8", EGRESS_SEALED_IP4, "::1",
                                      EGRESS_SEALED_IP6};
    const struct ip_net *net;
    struct ip_net one;
    int rc = 0;

    for (size_t i = 0; i < 2; i++) {
        size_t n = ip_class_nets(i == 0, &net);

        rc |= rects_add_nets(&r[i], net, n);
    }
    rc |= rects_add_nets(&r[0], base->own, base->n_own);
    for (size_t i = 0; i < COUNT_OF(own); i++)
        rc |= ip_net_parse(span_str(own[i]), &one) < 0 || rects_add(&r[2], &one, 0, 0) < 0
                  ? -1
                  : 0;
    b->is_failed = b->is_failed || rc < 0;
    for (size_t i = 0; i < (base->tier == EGRESS_SEALED ? 3 : 2); i++) {
        rects_join(&r[i]);
        range_set(b, row[i].name4, T_IP4, 4);
        put_ranges(b, row[i].name4, &r[i], AF_INET);
        range_set(b, row[i].name6, T_IP6, 16);
        put_ranges(b, row[i].name6, &r[i], AF_INET6);
    }
    for (size_t i = 0; i < COUNT_OF(r); i++)
        rects_done(&r[i]);
}

/* Where every refused packet ends: told at a bounded rate for each sandbox and reason, then refused
 * so that the program notices at once. */
static void base_refuse(struct nft_batch *b)
{
    build_chain(b, "refuse", NULL, NULL);
    rule_begin(b, "refuse");
    rule_meta(b, NFT_META_MARK, R1);
    rule_limit_each(b, "told", NFT_LOG_PER_S, NFT_LOG_BURST);
    rule_log(b, EGRESS_NFT " ");
    rule_end(b, NULL);
    rule_begin(b, "refuse");
    l4proto(b, EQ, IPPROTO_TCP);
    rule_reject(b, true);
    rule_end(b, NULL);
    rule_begin(b, "refuse");
    rule_reject(b, false);
    rule_end(b, NULL);
}

static void base_sealed(struct nft_batch *b)
{
    /* Filled by the sandbox: its judgement, and its way to the guard. */
    build_chain(b, "judge", NULL, NULL);
    build_chain(b, "guard", NULL, NULL);

    build_chain(b, "output",
                &(struct nft_hook){NF_INET_LOCAL_OUT, PRIO_FILTER, true, NULL}, NULL);
    rule_begin(b, "output");
    ifname_is(b, NFT_META_OIFNAME, NEQ, "lo");
    end(b, NF_DROP);
    rule_begin(b, "output"); /* the guard's answers */
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    end(b, NF_ACCEPT);
    for (size_t i = 0; i < 2; i++) { /* resets and ICMP errors, of refusals too */
        rule_begin(b, "output");
        daddr_in(b, families[i], i == 0 ? "own4" : "own6");
        rule_ct_state(b, CT_RELATED);
        end(b, NF_ACCEPT);
    }
    rule_begin(b, "output");
    rule_verdict(b, NFT_JUMP, "judge");
    rule_end(b, NULL);
    rule_begin(b, "output");
    rule_mark(b, NFT_REFUSED | NFT_WHY_DEFAULT);
    go(b, "refuse", "no policy yet");

    build_chain(b, "prerouting",
                &(struct nft_hook){NF_INET_PRE_ROUTING, PRIO_MANGLE, true, NULL}, NULL);
    rule_begin(b, "prerouting");
    ifname_is(b, NFT_META_IIFNAME, NEQ, "lo");
    end(b, NF_DROP);
    rule_begin(b, "prerouting");
    mark_is(b, EQ, EGRESS_MARK);
    go(b, "guard", NULL);
    rule_begin(b, "prerouting");
    mark_is(b, EQ, 0);
    end(b, NF_ACCEPT);

    build_chain(b, "input", &(struct nft_hook){NF_INET_LOCAL_IN, PRIO_FILTER, true, NULL},
                NULL);
    rule_begin(b, "input");
    mark_is(b, EQ, EGRESS_MARK);
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    end(b, NF_ACCEPT);
    rule_begin(b, "input");
    ifname_is(b, NFT_META_IIFNAME, EQ, "lo");
    mark_is(b, EQ, 0);
    end(b, NF_ACCEPT);
    build_chain(b, "forward",
                &(struct nft_hook){NF_INET_FORWARD, PRIO_FILTER, true, NULL}, NULL);
}

/* What is known of where sandboxes are: maps from (interface . address) to a sandbox's chain, and the
 * same as sets, for hooks that only drop. */
static void base_origins(struct nft_batch *b)
{
    for (size_t i = 0; i < 2; i++) {
        struct nft_set_def d = {
            .name = i == 0 ? "from4" : "from6",
            .flags = NFT_SET_CONCAT | NFT_SET_MAP,
            .type = T_IFNAME << T_BITS | (i == 0 ? T_IP4 : T_IP6),
            .len = 16 + width(families[i]),
            .field = {16, (uint8_t)width(families[i])},
            .n_fields = 2,
            .is_vmap = true,
        };

        build_set(b, &d);
        d.name = i == 0 ? "ours4" : "ours6";
        d.flags = NFT_SET_CONCAT;
        d.is_vmap = false;
        build_set(b, &d);
    }
}

/* Who is who on the link: without it there is no IPv6. What a sandbox may say was looked at as it came in. */
static void accept_neighbours(struct nft_batch *b, const char *chain)
{
    for (uint8_t type = ND_NEIGHBOR_SOLICIT; type <= ND_NEIGHBOR_ADVERT; type++) {
        rule_begin(b, chain);
        l4proto(b, EQ, IPPROTO_ICMPV6);
        rule_payload(b, TH, 0, 1, R1);
        rule_cmp8(b, EQ, type);
        end(b, NF_ACCEPT);
    }
}

static void base_veth(struct nft_batch *b)
{
    build_chain(b, "prerouting",
                &(struct nft_hook){NF_INET_PRE_ROUTING, PRIO_MANGLE, false, NULL}, NULL);
    accept_neighbours(b, "prerouting");
    build_chain(b, "arrived", NULL, NULL);
    accept_neighbours(b, "arrived");
    rule_begin(b, "arrived");
    mark_is(b, EQ, EGRESS_MARK);
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    end(b, NF_ACCEPT);
    rule_begin(b, "arrived");
    end(b, NF_DROP);
    build_chain(b, "input",
                &(struct nft_hook){NF_INET_LOCAL_IN, PRIO_FILTER, false, NULL}, NULL);
    build_chain(b, "forward",
                &(struct nft_hook){NF_INET_FORWARD, PRIO_FILTER, false, NULL}, NULL);
    for (size_t i = 0; i < 2; i++) {
        rule_begin(b, "prerouting");
        origin_in(b, families[i], true);
        rule_vmap(b, i == 0 ? "from4" : "from6");
        rule_end(b, NULL);
        rule_begin(b, "input");
        origin_in(b, families[i], true);
        rule_lookup(b, i == 0 ? "ours4" : "ours6", false);
        go(b, "arrived", NULL);
        for (int is_from = 0; is_from < 2; is_from++) {
            rule_begin(b, "forward");
            origin_in(b, families[i], is_from);
            rule_lookup(b, i == 0 ? "ours4" : "ours6", false);
            end(b, NF_DROP);
        }
    }
}

/* The guard's own sockets on the host: whatever a name resolves to, and whatever becomes of the guard. */
static void base_guard(struct nft_batch *b, const struct nft_base *base)
{
    static const char *const may[2] = {"may4", "may6"}, *const nets[2] = {"nets4",
                                                                          "nets6"};
    struct nft_rects r = {0};

    for (size_t i = 0; i < base->n_guard_may; i++) {
        struct ip_net net = {0};

        ip_from_sock(&base->guard_may[i], &net.addr);
        net.bits = (uint8_t)(width(net.addr.family) * 8);
        if (rects_add(&r, &net, sock_port(&base->guard_may[i]),
                      sock_port(&base->guard_may[i])) < 0)
            b->is_failed = true;
    }
    if (rects_disjoin(&r) < 0)
        b->is_failed = true;
    build_counter(b, "guard_refused");
    build_chain(b, "guard", NULL, NULL);
    build_chain(b, "output",
                &(struct nft_hook){NF_INET_LOCAL_OUT, PRIO_FILTER, false, NULL}, NULL);
    /* Not "skuid != ... accept": a packet without a socket (an echo reply, a reset) matches neither. */
    rule_begin(b, "output");
    rule_meta(b, NFT_META_SKUID, R1);
    rule_cmp32(b, EQ, base->guard_uid);
    go(b, "guard", NULL);
    rule_begin(b, "guard"); /* answers to sandboxes */
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    end(b, NF_ACCEPT);
    for (size_t i = 0; i < 2; i++) {
        rect_set(b, may[i], families[i]);
        put_rects(b, may[i], &r, families[i]);
        rect_set(b, nets[i], families[i]);
        rule_begin(b, "guard");
        nfproto(b, families[i]);
        daddr_port_in(b, families[i], may[i], false);
        end(b, NF_ACCEPT);
        rule_begin(b, "guard");
        daddr_in(b, families[i], i == 0 ? "floor4" : "floor6");
        rule_counter(b, "guard_refused");
        rule_reject(b, false);
        rule_end(b, NULL);
        rule_begin(b, "guard");
        daddr_in(b, families[i], i == 0 ? "private4" : "private6");
        daddr_port_in(b, families[i], nets[i], true);
        rule_counter(b, "guard_refused");
        rule_reject(b, false);
        rule_end(b, NULL);
    }
    rects_done(&r);
}

void rules_guard_nets(struct nft_batch *b, const struct nft_rects *r)
{
    build_set_flush(b, "nets4");
    put_rects(b, "nets4", r, AF_INET);
    build_set_flush(b, "nets6");
    put_rects(b, "nets6", r, AF_INET6);
}

void rules_base(struct nft_batch *b, const struct nft_base *base)
{
    bool is_sealed = base->tier == EGRESS_SEALED;

    if (!is_sealed) {
        b->family = NFPROTO_NETDEV;
        build_table(b);
        build_table_drop(b);
        build_table(b);
        b->family = NFPROTO_INET;
    }
    build_table(b);
    build_table_drop(b);
    build_table(b);
    pin_set(b, NFT_SET_PIN4, AF_INET, base->tier);
    pin_set(b, NFT_SET_PIN6, AF_INET6, base->tier);
    build_set(b, &(struct nft_set_def){
                     .name = "told",
                     .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT,
                     .type = T_MARK,
                     .len = 4,
                     .size = NFT_REASONS,
                     .timeout_ms = REASON_REST_MS,
                 });
    if (!is_sealed)
        base_origins(b);
    base_sets(b, base);
    base_refuse(b);
    if (is_sealed)
        base_sealed(b);
    else
        base_veth(b);
    if (!is_sealed && base->guard_uid != 0)
        base_guard(b, base);
}

/* -- a sandbox's chain ----------------------------------------------------------------------------- */

struct judged {
    struct nft_batch *b;
    const struct nft_sandbox *s;
    const struct nft_plan *plan;
    const struct nft_judge *j;
    struct name chain, refused, guarded, quota;
    struct name set[NFT_OWN_SETS];
    uint32_t sets;
};

static void refuse(const struct judged *x, enum nft_why why)
{
    rule_counter(x->b, x->refused.s);
    rule_mark(x->b, NFT_REFUSED | x->s->index << 8 | (uint32_t)why);
    go(x->b, "refuse", nft_why_name(why));
}

/* The rule's packet is for the guard. On a host `tproxy` goes on to the next rule when no
 * socket is there: the chain's last rule drops. */
static void to_guard(const struct judged *x, bool is_dns)
{
    rule_counter(x->b, x->guarded.s);
    rule_mark(x->b, EGRESS_MARK);
    if (x->j->tier == EGRESS_VETH)
        rule_tproxy(x->b, is_dns ? x->s->udp_port : x->s->tcp_port);
    end(x->b, NF_ACCEPT);
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
        daddr_in(x->b, families[i], own[i]);
        port_is(x->b, IPPROTO_TCP, x->s->tcp_port);
        refuse(x, NFT_WHY_GUARD);
        begin(x);
        daddr_in(x->b, families[i], own[i]);
        port_is(x->b, IPPROTO_UDP, x->s->udp_port);
        refuse(x, NFT_WHY_GUARD);
        begin(x);
        daddr_in(x->b, families[i], own[i]);
        rule_mark(x->b, 0); /* what it set itself (SO_MARK) is no way to the guard */
        end(x->b, NF_ACCEPT);
    }
}

static void judge_first(const struct judged *x)
{
    static const uint8_t multicast4[4] = {224}, multicast6[16] = {0xff};

    begin(x);
    nfproto(x->b, AF_INET);
    daddr(x->b, AF_INET, R1);
    rule_cmp(x->b, NFT_CMP_GTE, multicast4, sizeof(multicast4));
    refuse(x, NFT_WHY_FLOOR);
    begin(x);
    nfproto(x->b, AF_INET6);
    daddr(x->b, AF_INET6, R1);
    rule_cmp(x->b, NFT_CMP_GTE, multicast6, sizeof(multicast6));
    refuse(x, NFT_WHY_FLOOR);
    begin(x);
    port_is(x->b, IPPROTO_UDP, 53);
    to_guard(x, true);
    begin(x);
    port_is(x->b, IPPROTO_TCP, 53);
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
    l4proto(x->b, EQ, IPPROTO_TCP);
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
        daddr_in(x->b, families[i], row[i].floor);
        refuse(x, NFT_WHY_FLOOR);
    }
    begin(x);
    l4proto(x->b, EQ, IPPROTO_UDP);
    refuse(x, NFT_WHY_UDP);
    begin(x);
    l4proto(x->b, NEQ, IPPROTO_TCP);
    refuse(x, NFT_WHY_PROTOCOL);
    for (size_t i = 0; i < 2; i++) {
        if (x->sets & 1u << row[i].no) {
            begin(x);
            nfproto(x->b, families[i]);
            daddr_port_in(x->b, families[i], x->set[row[i].no].s, false);
            refuse(x, NFT_WHY_DENIED);
        }
        begin(x);
        daddr_in(x->b, families[i], row[i].private);
        if (x->sets & 1u << row[i].net)
            daddr_port_in(x->b, families[i], x->set[row[i].net].s, true);
        refuse(x, NFT_WHY_PRIVATE);
    }
}

/* mark . daddr . protocol . port */
static void pinned(const struct judged *x, size_t i)
{
    uint32_t w = width(families[i]) / 4;

    begin(x);
    nfproto(x->b, families[i]);
    rule_meta(x->b, NFT_META_MARK, R(0));
    daddr(x->b, families[i], R(1));
    rule_meta(x->b, NFT_META_L4PROTO, R(1 + w));
    rule_payload(x->b, TH, PORT_TO, 2, R(2 + w));
    rule_lookup(x->b, i == 0 ? NFT_SET_PIN4 : NFT_SET_PIN6, false);
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
        nfproto(x->b, families[i]);
        daddr_port_in(x->b, families[i], x->set[net].s, false);
        rule_mark(x->b, EGRESS_MARK);
        rule_end(x->b, NULL);
    }
    if (x->sets & 1u << NFT_PORT) {
        begin(x);
        l4proto(x->b, EQ, IPPROTO_TCP);
        rule_payload(x->b, TH, PORT_TO, 2, R1);
        rule_lookup(x->b, x->set[NFT_PORT].s, false);
        rule_mark(x->b, EGRESS_MARK);
        rule_end(x->b, NULL);
    }
    begin(x);
    mark_is(x->b, NEQ, EGRESS_MARK);
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
    end(x->b, NF_DROP);
}

/* -- a sandbox's sets -------------------------------------------------------------------------------- */

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
            range_set(x->b, x->set[i].s, T_PORT, 2);
        else
            rect_set(x->b, x->set[i].s, family);
        if (i == NFT_PORT)
            put_ports(x->b, x->set[i].s, x->plan->port, x->plan->n_ports);
        else
            put_rects(x->b, x->set[i].s, is_denied ? &x->plan->denied : &x->plan->allowed,
                      family);
    }
}

/* -- a veth: nothing but its own addresses comes in -------------------------------------------------- */

static void mac_is(struct nft_batch *b, uint32_t offset, const uint8_t mac[6])
{
    rule_payload(b, LL, offset, 6, R1);
    rule_cmp(b, EQ, mac, 6);
}

static void ether_type(struct nft_batch *b, uint16_t type)
{
    /* Both: the header as it came, VLAN tag included, and what the kernel takes it for. */
    rule_payload(b, LL, 12, 2, R1);
    rule_cmp16(b, EQ, type);
    rule_meta(b, NFT_META_PROTOCOL, R1);
    rule_cmp16(b, EQ, type);
}

static void ingress_arp(struct nft_batch *b, const struct nft_sandbox *s,
                        const char *chain)
{
    static const uint8_t head[6] = {0, 1, 8, 0, 6, 4},
                         broadcast[6] = {255, 255, 255, 255, 255, 255};

    for (unsigned i = 0; i < s->n_addr; i++) {
        for (uint16_t op = 1; s->addr[i].family == AF_INET && op <= 3; op++) {
            rule_begin(
                b, chain); /* 1, 2: request and answer to the gateway; 3: who is it? */
            mac_is(b, 0, op == 3 ? broadcast : s->gateway_mac);
            ether_type(b, ETH_P_ARP);
            rule_payload(b, NH, 0, 6, R1);
            rule_cmp(b, EQ, head, sizeof(head));
            rule_payload(b, NH, 6, 2, R1);
            rule_cmp16(b, EQ, op == 2 ? 2 : 1);
            rule_payload(b, NH, 8, 6, R1);
            rule_cmp(b, EQ, s->mac, 6);
            rule_payload(b, NH, 14, 4, R1);
            rule_cmp(b, EQ, s->addr[i].bytes, 4);
            if (s->gateway4.family == AF_INET) {
                rule_payload(b, NH, 24, 4, R1);
                rule_cmp(b, EQ, s->gateway4.bytes, 4);
            }
            end(b, NF_ACCEPT);
        }
    }
}

static void ingress_ip4(struct nft_batch *b, const struct nft_sandbox *s,
                        const char *chain)
{
    static const uint8_t fragment[2] = {0x3f, 0xff}, none[2];

    for (unsigned i = 0; i < s->n_addr; i++) {
        if (s->addr[i].family != AF_INET)
            continue;
        rule_begin(b, chain);
        mac_is(b, 0, s->gateway_mac);
        ether_type(b, ETH_P_IP);
        rule_payload(b, NH, 0, 1, R1);
        rule_cmp8(b, EQ, 0x45); /* no options */
        rule_payload(b, NH, IP4_SADDR, 4, R1);
        rule_cmp(b, EQ, s->addr[i].bytes, 4);
        rule_payload(b, NH, 6, 2, R1);
        rule_and(b, fragment, sizeof(fragment));
        rule_cmp(b, EQ, none, sizeof(none));
        end(b, NF_ACCEPT);
    }
}

/* Only what follows the fixed header at once: no fragments, no other extension headers. */
static void ingress_ip6(struct nft_batch *b, const struct nft_sandbox *s,
                        const char *chain)
{
    static const uint8_t next[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6};
    static const uint8_t solicited[13] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};
    static const uint8_t solicited_mac[3] = {0x33, 0x33, 0xff};

    for (unsigned i = 0; i < s->n_addr; i++) {
        if (s->addr[i].family != AF_INET6)
            continue;
        for (size_t k = 0; k < sizeof(next); k++) {
            rule_begin(b, chain);
            mac_is(b, 0, s->gateway_mac);
            ether_type(b, ETH_P_IPV6);
            rule_payload(b, NH, IP6_SADDR, 16, R1);
            rule_cmp(b, EQ, s->addr[i].bytes, 16);
            rule_payload(b, NH, 6, 1, R1);
            rule_cmp8(b, EQ, next[k]);
            end(b, NF_ACCEPT);
        }
        rule_begin(b, chain); /* neighbour solicitation */
        rule_payload(b, LL, 0, 3, R1);
        rule_cmp(b, EQ, solicited_mac, sizeof(solicited_mac));
        ether_type(b, ETH_P_IPV6);
        rule_payload(b, NH, IP6_SADDR, 16, R1);
        rule_cmp(b, EQ, s->addr[i].bytes, 16);
        rule_payload(b, NH, 6, 2, R1); /* next header, hop limit: from this link */
        rule_cmp16(b, EQ, IPPROTO_ICMPV6 << 8 | 255);
        rule_payload(b, NH, IP6_DADDR, 13, R1);
        rule_cmp(b, EQ, solicited, sizeof(solicited));
        rule_payload(b, TH, 0, 1, R1);
        rule_cmp8(b, EQ, ND_NEIGHBOR_SOLICIT);
        end(b, NF_ACCEPT);
    }
}

static void sandbox_ingress(struct nft_batch *b, const struct nft_sandbox *s)
{
    struct name chain = named(s->index, ""), spoofed = named(s->index, "spoofed");

    b->family = NFPROTO_NETDEV;
    build_counter(b, spoofed.s);
    build_chain(b, chain.s,
                &(struct nft_hook){NF_NETDEV_INGRESS, PRIO_INGRESS, true, s->veth},
                s->name);
    build_chain_flush(b, chain.s);
    rule_begin(b, chain.s);
    rule_payload(b, LL, 6, 6, R1);
    rule_cmp(b, NEQ, s->mac, 6);
    rule_counter(b, spoofed.s);
    end(b, NF_DROP);
    ingress_arp(b, s, chain.s);
    ingress_ip4(b, s, chain.s);
    ingress_ip6(b, s, chain.s);
    rule_begin(b, chain.s);
    rule_counter(b, spoofed.s);
    end(b, NF_DROP);
    b->family = NFPROTO_INET;
}

void rules_origin(struct nft_batch *b, const struct nft_sandbox *s, bool is_drop)
{
    struct name chain = named(s->index, "");

    for (unsigned i = 0; i < s->n_addr; i++) {
        bool is_6 = s->addr[i].family == AF_INET6;
        struct nft_elem e = {.len = 16 + width(s->addr[i].family)};

        (void)snprintf((char *)e.key, 16, "%s", s->bridge);
        memcpy(e.key + 16, s->addr[i].bytes, width(s->addr[i].family));
        if (is_drop)
            build_elems_drop(b, is_6 ? "ours6" : "ours4", &e, 1);
        else
            build_elems(b, is_6 ? "ours6" : "ours4", &e, 1);
        e.go = is_drop ? NULL : chain.s;
        if (is_drop)
            build_elems_drop(b, is_6 ? "from6" : "from4", &e, 1);
        else
            build_elems(b, is_6 ? "from6" : "from4", &e, 1);
    }
}

static void sealed_ways(const struct judged *x)
{
    build_chain_flush(x->b, "judge");
    rule_begin(x->b, "judge");
    go(x->b, x->chain.s, NULL);
    build_chain_flush(x->b, "guard");
    for (int is_udp = 0; is_udp < 2; is_udp++) {
        rule_begin(x->b, "guard");
        l4proto(x->b, EQ, is_udp ? IPPROTO_UDP : IPPROTO_TCP);
        rule_tproxy(x->b, is_udp ? x->s->udp_port : x->s->tcp_port);
        end(x->b, NF_ACCEPT);
    }
    rule_begin(x->b, "guard");
    end(x->b, NF_DROP);
}

void rules_sandbox(struct nft_batch *b, const struct nft_sandbox *s,
                   const struct nft_plan *p, const struct nft_judge *j)
{
    struct judged x = {
        .b = b,
        .s = s,
        .plan = p,
        .j = j,
        .chain = named(s->index, ""),
        .refused = named(s->index, "refused"),
        .guarded = named(s->index, "guarded"),
        .quota = named(s->index, "quota"),
        .sets = plan_sets(p),
    };

    for (unsigned i = 0; i < NFT_OWN_SETS; i++)
        x.set[i] = named(s->index, own_set[i]);
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
    sandbox_ingress(b, s);
    rules_origin(b, s, false);
}

void rules_sandbox_drop(struct nft_batch *b, uint32_t index, uint32_t sets, bool is_veth)
{
    struct name chain = named(index, "");

    if (!is_veth) {
        build_chain_flush(b, "judge");
        build_chain_flush(b, "guard");
    }
    build_chain_flush(b, chain.s);
    build_chain_drop(b, chain.s);
    for (unsigned i = 0; i < NFT_OWN_SETS; i++)
        if (sets & 1u << i)
            build_set_drop(b, named(index, own_set[i]).s);
    build_object_drop(b, named(index, "refused").s, NFT_OBJECT_COUNTER);
    build_object_drop(b, named(index, "guarded").s, NFT_OBJECT_COUNTER);
    build_object_drop(b, named(index, "quota").s, NFT_OBJECT_QUOTA);
    if (!is_veth)
        return;
    b->family = NFPROTO_NETDEV;
    build_chain_flush(b, chain.s);
    build_chain_drop(b, chain.s);
    build_object_drop(b, named(index, "spoofed").s, NFT_OBJECT_COUNTER);
    b->family = NFPROTO_INET;
}
