/* SPDX-License-Identifier: MIT */
#include "agentd/egress/kernel/nft_words.h"

#include <linux/netfilter.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

const uint8_t word_families[2] = {AF_INET, AF_INET6};

const char *nft_why_name(enum nft_why w)
{
    static const char *const name[NFT_WHY_COUNT] = {
        "default",  "floor",   "private", "denied", "udp",
        "protocol", "invalid", "limit",   "quota",  "guard",
    };

    return (unsigned)w < NFT_WHY_COUNT ? name[w] : "unknown";
}

struct word_name word_named(uint32_t index, const char *what)
{
    struct word_name r;

    (void)snprintf(r.s, sizeof(r.s), "s%u%s%s", index, what[0] != '\0' ? "_" : "", what);
    return r;
}

/* -- sets and their elements --------------------------------------------------------- */

static struct nft_elem *new_elems(struct nft_batch *b, size_t n)
{
    struct nft_elem *e = b->is_failed ? NULL : mem_zalloc(n > 0 ? n : 1, sizeof(*e));

    if (e == NULL)
        b->is_failed = true;
    return e;
}

/* Address ranges: a value where each begins and one after its end. */
void word_put_ranges(struct nft_batch *b, const char *set, const struct nft_rects *r,
                     uint8_t family)
{
    struct nft_elem *e = new_elems(b, r->n * 2);
    size_t n = 0;

    for (size_t i = 0; e != NULL && i < r->n; i++) {
        struct ip_addr next;

        if (r->at[i].lo.family != family)
            continue;
        e[n].len = ip_bytes(family);
        memcpy(e[n++].key, r->at[i].lo.bytes, ip_bytes(family));
        if (!rect_next_addr(&r->at[i].hi, &next))
            continue;
        e[n].len = ip_bytes(family);
        e[n].is_closing = true;
        memcpy(e[n++].key, next.bytes, ip_bytes(family));
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

void word_put_ports(struct nft_batch *b, const char *set, const struct port_range *p,
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

void word_put_rects(struct nft_batch *b, const char *set, const struct nft_rects *r,
                    uint8_t family)
{
    struct nft_elem *e = new_elems(b, r->n);
    uint32_t w = ip_bytes(family);
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

void word_range_set(struct nft_batch *b, const char *name, uint32_t type, uint32_t len)
{
    build_set(b, &(struct nft_set_def){
                     .name = name, .flags = NFT_SET_INTERVAL, .type = type, .len = len});
}

void word_rect_set(struct nft_batch *b, const char *name, uint8_t family)
{
    build_set(b, &(struct nft_set_def){
                     .name = name,
                     .flags = NFT_SET_INTERVAL | NFT_SET_CONCAT,
                     .type = (family == AF_INET ? T_IP4 : T_IP6) << T_BITS | T_PORT,
                     .len = ip_bytes(family) + 4,
                     .field = {ip_bytes(family), 2},
                     .n_fields = 2,
                 });
}

/* -- words for rules ----------------------------------------------------------------- */

void word_nfproto(struct nft_batch *b, uint8_t family)
{
    rule_meta(b, NFT_META_NFPROTO, R1);
    rule_cmp8(b, EQ, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6);
}

void word_l4proto(struct nft_batch *b, uint32_t op, uint8_t proto)
{
    rule_meta(b, NFT_META_L4PROTO, R1);
    rule_cmp8(b, op, proto);
}

void word_daddr(struct nft_batch *b, uint8_t family, uint32_t reg)
{
    rule_payload(b, NH, family == AF_INET ? IP4_DADDR : IP6_DADDR, ip_bytes(family), reg);
}

void word_port_is(struct nft_batch *b, uint8_t proto, uint16_t port)
{
    word_l4proto(b, EQ, proto);
    rule_payload(b, TH, PORT_TO, 2, R1);
    rule_cmp16(b, EQ, port);
}

/* daddr . dport, for a set of rectangles */
void word_daddr_port_in(struct nft_batch *b, uint8_t family, const char *set, bool is_not)
{
    word_daddr(b, family, R(0));
    rule_payload(b, TH, PORT_TO, 2, R(ip_bytes(family) / 4));
    rule_lookup(b, set, is_not);
}

void word_daddr_in(struct nft_batch *b, uint8_t family, const char *set)
{
    word_nfproto(b, family);
    word_daddr(b, family, R1);
    rule_lookup(b, set, false);
}

void word_mark_is(struct nft_batch *b, uint32_t op, uint32_t mark)
{
    rule_meta(b, NFT_META_MARK, R1);
    rule_cmp32(b, op, mark);
}

void word_ifname_is(struct nft_batch *b, uint32_t key, uint32_t op, const char *name)
{
    rule_meta(b, key, R1);
    rule_cmp(b, op, name, (uint32_t)strlen(name) + 1);
}

/* interface . address */
void word_origin_in(struct nft_batch *b, uint8_t family, bool is_from)
{
    static const uint32_t offset[2][2] = {{IP4_DADDR, IP4_SADDR}, {IP6_DADDR, IP6_SADDR}};
    bool is_6 = family == AF_INET6;

    word_nfproto(b, family);
    rule_meta(b, is_from ? NFT_META_IIFNAME : NFT_META_OIFNAME, R(0));
    rule_payload(b, NH, offset[is_6][is_from], ip_bytes(family), R(4));
}

void word_go(struct nft_batch *b, const char *chain, const char *comment)
{
    rule_verdict(b, NFT_GOTO, chain);
    rule_end(b, comment);
}

void word_end(struct nft_batch *b, int verdict)
{
    rule_verdict(b, verdict, NULL);
    rule_end(b, NULL);
}
