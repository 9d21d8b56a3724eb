/* SPDX-License-Identifier: MIT */
/**
 * decision -- may this be reached? The one function that `explain`, the name server, the
 *             connections and the tests ask. Pure.
 *
 * Order    floor, deny, allow, default. A private address is of the floor unless an allow
 *          rule for a network covers it with this port. Expired rules do not exist.
 */
#ifndef AGENTD_EGRESS_POLICY_DECISION_H
#define AGENTD_EGRESS_POLICY_DECISION_H

#include <netinet/in.h>

#include "agentd/egress/policy/policy.h"

/** What is floor on this machine beyond ip_classify(): its own addresses,
 *  sibling sandboxes. */
struct floor {
    const struct ip_net *net;
    size_t n;
};

struct target {
    const char *name;    /* canonical; NULL: only an address is known */
    struct ip_addr addr; /* family 0: only a name is known */
    uint16_t port;       /* 0: any (a DNS question) */
    uint8_t protocol;    /* IPPROTO_TCP, IPPROTO_UDP */
};

enum verdict_stage {
    VERDICT_FLOOR,
    VERDICT_DENY,
    VERDICT_ALLOW,
    VERDICT_DEFAULT,
    VERDICT_LIMIT, /* not by decide(): a rate, quota or cap */
    VERDICT_GUARD, /* not by decide(): bytes that are no TLS, a Host that differs, ... */
};
#define VERDICT_TEXT_MAX 240
struct verdict {
    bool allowed;
    enum verdict_stage stage;
    const struct policy_rule *rule; /* ALLOW, DENY; borrowed from the policy */
    /* 'deny rule 2 "*.evil.example" (reason)', 'floor: cloud metadata' ... */
    char text[VERDICT_TEXT_MAX];
};

/**
 * @floor  NULL: only what ip_classify() knows
 * @now_s  wall clock With a name and an address: the name must be allowed (or a network
 * rule cover the address), and the address must be neither floor nor denied. With port 0:
 * is there any port for which it is allowed?
 */
void decide(const struct policy *p, const struct floor *floor, const struct target *t,
            int64_t now_s, struct verdict *ret);
/** The ports for which a name is allowed by rules that are not wider than
 *  POLICY_PIN_PORTS, for pinning; name-checked ports too. Fills at most
 *  `cap`; how many. */
size_t decide_ports(const struct policy *p, const char *name, int64_t now_s,
                    uint16_t *ret, size_t cap);

#endif
