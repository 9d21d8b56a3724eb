/* SPDX-License-Identifier: MIT */
/*
 * The tables as they are without sandboxes. docs/EGRESS.md shows them as nft(8) prints
 * them.
 *
 * A commit walks all chains and looks sets up by name one after the other, so a sandbox
 * costs one chain, and sets only for what its policy has networks for; pins of all
 * sandboxes are in two sets, made first, where a tag tells whose a pin is. A tag is never
 * used again, so the pins of a sandbox that is gone are nobody's until they end.
 *
 * While a packet is judged its mark is the sandbox's tag, then EGRESS_MARK (to the guard)
 * or why it was refused (NFLOG carries the mark, so the reason needs no rule of its own).
 * Every path through a sandbox's chain ends in it: refused, dropped, or with the guard.
 */
#include "agentd/egress/kernel/nft_words.h"

#include <linux/netfilter.h>
#include <netinet/icmp6.h>
#include <string.h>

#include "agentd/egress/kernel/pin.h"

enum {
    UDP_LEN = 8,
};

/* Who gives a set that rules write to no size has it from the kernel, NFT_PINS_SEALED; and
 * a size is memory at once, half a mebibyte for so many, where it grows otherwise. */
static void pin_set(struct nft_batch *b, const char *name, uint8_t family,
                    enum egress_tier tier)
{
    build_set(b, &(struct nft_set_def){
                     .name = name,
                     .flags = NFT_SET_TIMEOUT | NFT_SET_EVAL | NFT_SET_CONCAT,
                     .type = T_MARK << T_BITS * 3 |
                             (family == AF_INET ? T_IP4 : T_IP6) << T_BITS * 2 |
                             T_PROTO << T_BITS | T_PORT,
                     .len = 4 + ip_bytes(family) + 4 + 4,
                     .field = {4, ip_bytes(family), 1, 2},
                     .n_fields = 4,
                     .size = tier == EGRESS_SEALED ? 0 : NFT_PINS_HOST,
                 });
}

static void pin_rule(struct nft_batch *b, unsigned family, unsigned life)
{
    uint32_t key_len = family == AF_INET ? PIN_KEY4_LEN : PIN_KEY6_LEN;

    rule_begin(b, "pin");
    rule_payload(b, TH, UDP_LEN, 2, R1);
    rule_cmp16(b, EQ, (uint16_t)((family == AF_INET ? 4 : 6) << 8 | life));
    rule_payload(b, TH, 4, 2, R1); /* the datagram's length */
    rule_cmp16(b, EQ, (uint16_t)(UDP_LEN + PIN_KEY_AT + key_len));
    rule_payload(b, TH, UDP_LEN + PIN_KEY_AT, key_len, R1);
    rule_element(b, family == AF_INET ? "pin4" : "pin6",
                 life > 0 ? pin_life_s(life - 1) : 0);
    word_end(b, NF_ACCEPT);
}

/* What the guard tells: pin.h. A full set ends the rule before its verdict. */
static void base_pins(struct nft_batch *b)
{
    build_chain(b, "pin", NULL, NULL);
    rule_begin(b, "pin");
    rule_mark(b, EGRESS_PIN_MARK); /* what it came with is nobody's to see */
    rule_end(b, NULL);
    for (size_t i = 0; i < 2; i++)
        for (unsigned life = 0; life <= PIN_LIVES; life++)
            pin_rule(b, word_families[i], life);
    rule_begin(b, "pin");
    word_end(b, NF_DROP);
}

static void to_pins(struct nft_batch *b, uint32_t mark)
{
    rule_begin(b, "output");
    word_mark_is(b, EQ, mark);
    word_l4proto(b, EQ, IPPROTO_UDP);
    word_go(b, "pin", NULL);
}

/* -- the table without sandboxes ----------------------------------------------------- */

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
        word_range_set(b, row[i].name4, T_IP4, 4);
        word_put_ranges(b, row[i].name4, &r[i], AF_INET);
        word_range_set(b, row[i].name6, T_IP6, 16);
        word_put_ranges(b, row[i].name6, &r[i], AF_INET6);
    }
    for (size_t i = 0; i < COUNT_OF(r); i++)
        rects_done(&r[i]);
}

/* Where every refused packet ends: told at a bounded rate for each sandbox and reason,
 * then refused so that the program notices at once. */
static void base_refuse(struct nft_batch *b)
{
    build_chain(b, "refuse", NULL, NULL);
    rule_begin(b, "refuse");
    rule_meta(b, NFT_META_MARK, R1);
    rule_limit_each(b, "told", NFT_LOG_PER_S, NFT_LOG_BURST);
    rule_log(b, EGRESS_NFT " ");
    rule_end(b, NULL);
    rule_begin(b, "refuse");
    word_l4proto(b, EQ, IPPROTO_TCP);
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
    word_ifname_is(b, NFT_META_OIFNAME, NEQ, "lo");
    word_end(b, NF_DROP);
    to_pins(
        b, b->pin_mark); /* and no further: what is so marked is dropped as it comes in */
    /* The guard's answers. Answers only: a program with CAP_NET_RAW may have transparent
     * sockets, too. */
    rule_begin(b, "output");
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    rule_ct_reply(b);
    word_end(b, NF_ACCEPT);
    for (size_t i = 0; i < 2; i++) { /* resets and ICMP errors, of refusals too */
        rule_begin(b, "output");
        word_daddr_in(b, word_families[i], i == 0 ? "own4" : "own6");
        rule_ct_state(b, CT_RELATED);
        word_end(b, NF_ACCEPT);
    }
    rule_begin(b, "output");
    rule_verdict(b, NFT_JUMP, "judge");
    rule_end(b, NULL);
    rule_begin(b, "output");
    rule_mark(b, NFT_REFUSED | NFT_WHY_DEFAULT);
    word_go(b, "refuse", "no policy yet");

    build_chain(b, "prerouting",
                &(struct nft_hook){NF_INET_PRE_ROUTING, PRIO_MANGLE, true, NULL}, NULL);
    rule_begin(b, "prerouting");
    word_ifname_is(b, NFT_META_IIFNAME, NEQ, "lo");
    word_end(b, NF_DROP);
    rule_begin(b, "prerouting");
    word_mark_is(b, EQ, EGRESS_MARK);
    word_go(b, "guard", NULL);
    rule_begin(b, "prerouting");
    word_mark_is(b, EQ, 0);
    word_end(b, NF_ACCEPT);

    build_chain(b, "input", &(struct nft_hook){NF_INET_LOCAL_IN, PRIO_FILTER, true, NULL},
                NULL);
    rule_begin(b, "input");
    word_mark_is(b, EQ, EGRESS_MARK);
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    word_end(b, NF_ACCEPT);
    rule_begin(b, "input");
    word_ifname_is(b, NFT_META_IIFNAME, EQ, "lo");
    word_mark_is(b, EQ, 0);
    word_end(b, NF_ACCEPT);
    build_chain(b, "forward",
                &(struct nft_hook){NF_INET_FORWARD, PRIO_FILTER, true, NULL}, NULL);
}

/* What is known of where sandboxes are: maps from (interface . address) to a sandbox's
 * chain, and the same as sets, for hooks that only drop. */
static void base_origins(struct nft_batch *b)
{
    for (size_t i = 0; i < 2; i++) {
        struct nft_set_def d = {
            .name = i == 0 ? "from4" : "from6",
            .flags = NFT_SET_CONCAT | NFT_SET_MAP,
            .type = T_IFNAME << T_BITS | (i == 0 ? T_IP4 : T_IP6),
            .len = 16 + ip_bytes(word_families[i]),
            .field = {16, ip_bytes(word_families[i])},
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

/* Who is who on the link: without it there is no IPv6. What a sandbox may say was looked
 * at as it came in. */
static void accept_neighbours(struct nft_batch *b, const char *chain)
{
    for (uint8_t type = ND_NEIGHBOR_SOLICIT; type <= ND_NEIGHBOR_ADVERT; type++) {
        rule_begin(b, chain);
        word_l4proto(b, EQ, IPPROTO_ICMPV6);
        rule_payload(b, TH, 0, 1, R1);
        rule_cmp8(b, EQ, type);
        word_end(b, NF_ACCEPT);
    }
}

static void base_veth(struct nft_batch *b)
{
    build_chain(b, "prerouting",
                &(struct nft_hook){NF_INET_PRE_ROUTING, PRIO_MANGLE, false, NULL}, NULL);
    rule_begin(b, "prerouting");
    word_mark_is(b, EQ, EGRESS_PIN_MARK);
    word_end(b, NF_DROP);
    accept_neighbours(b, "prerouting");
    build_chain(b, "arrived", NULL, NULL);
    accept_neighbours(b, "arrived");
    rule_begin(b, "arrived");
    word_mark_is(b, EQ, EGRESS_MARK);
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    word_end(b, NF_ACCEPT);
    rule_begin(b, "arrived");
    word_end(b, NF_DROP);
    build_chain(b, "input",
                &(struct nft_hook){NF_INET_LOCAL_IN, PRIO_FILTER, false, NULL}, NULL);
    build_chain(b, "forward",
                &(struct nft_hook){NF_INET_FORWARD, PRIO_FILTER, false, NULL}, NULL);
    for (size_t i = 0; i < 2; i++) {
        rule_begin(b, "prerouting");
        word_origin_in(b, word_families[i], true);
        rule_vmap(b, i == 0 ? "from4" : "from6");
        rule_end(b, NULL);
        rule_begin(b, "input");
        word_origin_in(b, word_families[i], true);
        rule_lookup(b, i == 0 ? "ours4" : "ours6", false);
        word_go(b, "arrived", NULL);
        for (int is_from = 0; is_from < 2; is_from++) {
            rule_begin(b, "forward");
            word_origin_in(b, word_families[i], is_from);
            rule_lookup(b, i == 0 ? "ours4" : "ours6", false);
            word_end(b, NF_DROP);
        }
    }
}

/* The sockets that it was given to answer sandboxes from do that and nothing else: they
 * may have any source, so two of them could make any packet an answer to the other's. */
static void guard_answers(struct nft_batch *b)
{
    build_chain(b, "answers", NULL, NULL);
    for (size_t i = 0; i < 2; i++) {
        rule_begin(b, "answers");
        word_origin_in(b, word_families[i], false);
        rule_lookup(b, i == 0 ? "ours4" : "ours6", false);
        rule_ct_reply(b);
        word_end(b, NF_ACCEPT);
    }
    rule_begin(b, "answers");
    rule_counter(b, "guard_refused");
    rule_reject(b, false);
    rule_end(b, NULL);
    rule_begin(b, "guard");
    rule_socket(b, NFT_SOCKET_TRANSPARENT, 1);
    word_go(b, "answers", NULL);
}

/* The guard's own sockets on the host: whatever a name resolves to, and whatever becomes
 * of the guard. */
static void base_guard(struct nft_batch *b, const struct nft_base *base)
{
    static const char *const may[2] = {"may4", "may6"}, *const nets[2] = {"nets4",
                                                                          "nets6"};
    struct nft_rects r = {0};

    for (size_t i = 0; i < base->n_guard_may; i++) {
        struct ip_net net = {0};

        ip_from_sock(&base->guard_may[i], &net.addr);
        net.bits = ip_bits(net.addr.family);
        if (rects_add(&r, &net, sock_port(&base->guard_may[i]),
                      sock_port(&base->guard_may[i])) < 0)
            b->is_failed = true;
    }
    if (rects_disjoin(&r) < 0)
        b->is_failed = true;
    build_counter(b, "guard_refused");
    build_chain(b, "guard", NULL, NULL);
    /* Not "skuid != ... accept": a packet without a socket (an echo reply, a reset)
     * matches neither. */
    rule_begin(b, "output");
    rule_meta(b, NFT_META_SKUID, R1);
    rule_cmp32(b, EQ, base->guard_uid);
    word_go(b, "guard", NULL);
    if (!base->is_guard_only)
        guard_answers(b);
    for (size_t i = 0; i < 2; i++) {
        word_rect_set(b, may[i], word_families[i]);
        word_put_rects(b, may[i], &r, word_families[i]);
        word_rect_set(b, nets[i], word_families[i]);
        rule_begin(b, "guard");
        word_nfproto(b, word_families[i]);
        word_daddr_port_in(b, word_families[i], may[i], false);
        word_end(b, NF_ACCEPT);
        rule_begin(b, "guard");
        word_daddr_in(b, word_families[i], i == 0 ? "floor4" : "floor6");
        rule_counter(b, "guard_refused");
        rule_reject(b, false);
        rule_end(b, NULL);
        rule_begin(b, "guard");
        word_daddr_in(b, word_families[i], i == 0 ? "private4" : "private6");
        word_daddr_port_in(b, word_families[i], nets[i], true);
        rule_counter(b, "guard_refused");
        rule_reject(b, false);
        rule_end(b, NULL);
    }
    rects_done(&r);
}

void rules_guard_nets(struct nft_batch *b, const struct nft_rects *r)
{
    build_set_flush(b, "nets4");
    word_put_rects(b, "nets4", r, AF_INET);
    build_set_flush(b, "nets6");
    word_put_rects(b, "nets6", r, AF_INET6);
}

static void host_output(struct nft_batch *b)
{
    build_chain(b, "output",
                &(struct nft_hook){NF_INET_LOCAL_OUT, PRIO_FILTER, false, NULL}, NULL);
}

/* Before the floor for the guard's sockets, of which the one for pins is: these go to
 * 127.0.0.1. Turned elsewhere it gets nowhere, whosever it is. */
static void host_pins(struct nft_batch *b)
{
    rule_begin(b, "output");
    word_mark_is(b, EQ, EGRESS_PIN_MARK);
    word_ifname_is(b, NFT_META_OIFNAME, NEQ, "lo");
    word_end(b, NF_DROP);
    to_pins(b, EGRESS_PIN_MARK);
}

void rules_base(struct nft_batch *b, const struct nft_base *base)
{
    bool is_sealed = base->tier == EGRESS_SEALED;

    if (base->is_guard_only) {
        build_table_anew(b);
        base_sets(b, base);
        host_output(b);
        base_guard(b, base);
        return;
    }
    if (!is_sealed) {
        b->family = NFPROTO_NETDEV;
        build_table_anew(b);
        b->family = NFPROTO_INET;
    }
    build_table_anew(b);
    pin_set(b, "pin4", AF_INET, base->tier);
    pin_set(b, "pin6", AF_INET6, base->tier);
    build_set(b, &(struct nft_set_def){
                     .name = "told",
                     .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT,
                     .type = T_MARK,
                     .len = 4,
                     .size = is_sealed ? NFT_REASONS_SEALED : NFT_REASONS_HOST,
                     .timeout_ms = REASON_REST_MS,
                 });
    if (!is_sealed)
        base_origins(b);
    base_sets(b, base);
    base_refuse(b);
    base_pins(b);
    if (is_sealed) {
        base_sealed(b);
    } else {
        base_veth(b);
        host_output(b);
        host_pins(b);
    }
    if (!is_sealed && base->guard_uid != 0)
        base_guard(b, base);
}
