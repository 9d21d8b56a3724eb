/* SPDX-License-Identifier: MIT */
/*
 * What a veth lets in: frames from the sandbox's own MAC and addresses to the gateway,
 * ARP and neighbour solicitation about these, nothing else. IPv4 with options, fragments,
 * VLAN tags and IPv6 extension headers are nothing that a program needs to reach the
 * guard.
 */
#include "agentd/egress/kernel/nft_words.h"

#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <netinet/icmp6.h>
#include <stdio.h>
#include <string.h>

static void mac_is(struct nft_batch *b, uint32_t offset, const uint8_t mac[6])
{
    rule_payload(b, LL, offset, 6, R1);
    rule_cmp(b, EQ, mac, 6);
}

static void ether_type(struct nft_batch *b, uint16_t type)
{
    /* Both: the header as it came, VLAN tag included, and what the kernel takes it
     * for. */
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
            word_end(b, NF_ACCEPT);
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
        word_end(b, NF_ACCEPT);
    }
}

/* Only what follows the fixed header at once: no fragments, no other extension
 * headers. */
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
            if (next[k] == IPPROTO_ICMPV6) {
                rule_payload(b, TH, 0, 1, R1);
                rule_cmp8(b, NEQ, ND_NEIGHBOR_ADVERT);
            }
            word_end(b, NF_ACCEPT);
        }
        rule_begin(b, chain); /* an advertisement: of itself, else it would be believed
                                 to be its sibling */
        mac_is(b, 0, s->gateway_mac);
        ether_type(b, ETH_P_IPV6);
        rule_payload(b, NH, IP6_SADDR, 16, R1);
        rule_cmp(b, EQ, s->addr[i].bytes, 16);
        rule_payload(b, NH, 6, 1, R1);
        rule_cmp8(b, EQ, IPPROTO_ICMPV6);
        rule_payload(b, TH, 0, 1, R1);
        rule_cmp8(b, EQ, ND_NEIGHBOR_ADVERT);
        rule_payload(b, TH, 8, 16, R1);
        rule_cmp(b, EQ, s->addr[i].bytes, 16);
        word_end(b, NF_ACCEPT);
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
        word_end(b, NF_ACCEPT);
    }
}

void rules_ingress(struct nft_batch *b, const struct nft_sandbox *s)
{
    struct word_name chain = word_named(s->index, ""),
                     spoofed = word_named(s->index, "spoofed");

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
    word_end(b, NF_DROP);
    ingress_arp(b, s, chain.s);
    ingress_ip4(b, s, chain.s);
    ingress_ip6(b, s, chain.s);
    rule_begin(b, chain.s);
    rule_counter(b, spoofed.s);
    word_end(b, NF_DROP);
    b->family = NFPROTO_INET;
}

void rules_origin(struct nft_batch *b, const struct nft_sandbox *s, bool is_drop)
{
    struct word_name chain = word_named(s->index, "");

    for (unsigned i = 0; i < s->n_addr; i++) {
        bool is_6 = s->addr[i].family == AF_INET6;
        struct nft_elem e = {.len = 16 + ip_bytes(s->addr[i].family)};

        (void)snprintf((char *)e.key, 16, "%s", s->bridge);
        memcpy(e.key + 16, s->addr[i].bytes, ip_bytes(s->addr[i].family));
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
