/* SPDX-License-Identifier: MIT */
/**
 * rule_index -- which rules of a list speak of a name or an address, in the order in
 *               which they decide: the name itself, wildcards from the longest, networks
 *               from the smallest; alike ones in the order in which they were written.
 *
 * Cost     a hash look-up for each label of the name and for each length of network that
 *          the list has; not dependent on how many rules there are.
 */
#ifndef AGENTD_EGRESS_POLICY_RULE_INDEX_H
#define AGENTD_EGRESS_POLICY_RULE_INDEX_H

#include "agentd/egress/policy/policy.h"

struct rule_index {
    uint32_t *head; /* by hash; number of a rule + 1, 0: none */
    uint32_t *next; /* by rule */
    uint32_t mask;
    uint8_t has_bits4[33], has_bits6[129]; /* lengths of networks that are there */
};

/** @rule  of one list. 0, or -1: no memory. */
int rule_index_build(struct rule_index *x, const struct policy_rule *rule, size_t n);
void rule_index_done(struct rule_index *x);

#define RULE_WALK_LABELS 128
struct rule_walk {
    const struct rule_index *index;
    const struct policy_rule *rule;
    uint32_t labels_max; /* that a wildcard may stand for; may be set after the start */
    const char *name;    /* NULL: none, or done */
    struct {
        uint32_t hash;
        uint16_t pos;
    } suffix[RULE_WALK_LABELS]; /* from the last label on */
    int n_suffix, suffix_at;
    bool is_exact_next;
    struct ip_addr addr;
    int bits; /* next length to look for; -1: done */
    /* what is being looked for */
    const char *key_name; /* NULL: key_net */
    bool key_is_wildcard;
    struct ip_net key_net;
    uint32_t at; /* next rule to look at + 1 */
};
/**
 * @rule         what the index was built of
 * @name         canonical, without "*."; NULL: none
 * @is_wildcard  the name stands for what is under it: only wildcards, its own first
 * @net          NULL: none. Networks that hold all of it are found
 */
void rule_walk_start(struct rule_walk *w, const struct rule_index *x,
                     const struct policy_rule *rule, const char *name, bool is_wildcard,
                     const struct ip_net *net);
/** The next rule, whatever its ports and its end; NULL: no more. */
const struct policy_rule *rule_walk_next(struct rule_walk *w);

#endif
