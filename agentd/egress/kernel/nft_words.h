/* SPDX-License-Identifier: MIT */
/**
 * nft_words -- what the files that write rules share: names, types, sets with their
 *              elements, and the phrases that rules are made of. Each adds to the batch,
 *              as the words of nft_int.h do.
 */
#ifndef AGENTD_EGRESS_KERNEL_NFT_WORDS_H
#define AGENTD_EGRESS_KERNEL_NFT_WORDS_H

#include "agentd/egress/kernel/nft_int.h"

enum {
    /* nft(8)'s numbers of types, 6 bits each in a concatenation */
    T_IP4 = 7,
    T_IP6 = 8,
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
    WORD_NAME_MAX = 40,
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

struct word_name {
    char s[WORD_NAME_MAX];
};
/** "s7_refused"; "s7" with what "". */
struct word_name word_named(uint32_t index, const char *what);
extern const uint8_t word_families[2];

/** Elements of an interval set: address ranges, ports (sorted); of a set of rectangles.
 *  Only those of one family. */
void word_put_ranges(struct nft_batch *b, const char *set, const struct nft_rects *r,
                     uint8_t family);
void word_put_ports(struct nft_batch *b, const char *set, const struct port_range *p,
                    size_t n_ports);
void word_put_rects(struct nft_batch *b, const char *set, const struct nft_rects *r,
                    uint8_t family);
void word_range_set(struct nft_batch *b, const char *name, uint32_t type, uint32_t len);
void word_rect_set(struct nft_batch *b, const char *name, uint8_t family);

void word_nfproto(struct nft_batch *b, uint8_t family);
void word_l4proto(struct nft_batch *b, uint32_t op, uint8_t proto);
void word_daddr(struct nft_batch *b, uint8_t family, uint32_t reg);
void word_port_is(struct nft_batch *b, uint8_t proto, uint16_t port);
/** daddr . dport; the family must have been asked for. */
void word_daddr_port_in(struct nft_batch *b, uint8_t family, const char *set,
                        bool is_not);
void word_daddr_in(struct nft_batch *b, uint8_t family, const char *set);
void word_mark_is(struct nft_batch *b, uint32_t op, uint32_t mark);
void word_ifname_is(struct nft_batch *b, uint32_t key, uint32_t op, const char *name);
/** Puts interface . address into the registers from 1 on. */
void word_origin_in(struct nft_batch *b, uint8_t family, bool is_from);
/** The rule's end: go to a chain; accept or drop. */
void word_go(struct nft_batch *b, const char *chain, const char *comment);
void word_end(struct nft_batch *b, int verdict);

#endif
