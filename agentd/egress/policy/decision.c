/* SPDX-License-Identifier: MIT */
/*
 * Theory. A question has a name, an address or both, and a port or none. The index gives
 * the rules that speak of name or address, the most particular first; of these the first
 * that lives and has the port decides. Without a port the question is whether any port is
 * left when the denied ones are taken from the allowed ones, which takes a set of ports;
 * that is only made where a deny rule speaks of the name at all.
 */
#include "agentd/egress/policy/decision.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/cdefs.h"

#define PORTS 65536u

struct port_set {
    uint64_t bits[PORTS / 64];
};

/* A word at a time: a rule may have all ports, and there is a question for
 * each connection. */
static void port_set_put(struct port_set *s, const struct policy_rule *r, bool on)
{
    for (size_t i = 0; i < r->n_ports; i++) {
        uint32_t first = r->ports[i].first, last = r->ports[i].last;

        for (uint32_t word = first / 64; word <= last / 64; word++) {
            uint64_t bits = UINT64_MAX;

            if (word == first / 64)
                bits &= UINT64_MAX << first % 64;
            if (word == last / 64)
                bits &= UINT64_MAX >> (63 - last % 64);
            s->bits[word] = on ? s->bits[word] | bits : s->bits[word] & ~bits;
        }
    }
}

/* The next port that is in it, from `port` on; PORTS: none. */
static uint32_t port_set_next(const struct port_set *s, uint32_t port)
{
    uint32_t word = port / 64;
    uint64_t bits;

    if (port >= PORTS)
        return PORTS;
    bits = s->bits[word] & UINT64_MAX << port % 64;
    while (bits == 0 && ++word < PORTS / 64)
        bits = s->bits[word];
    return bits ? word * 64 + (uint32_t)__builtin_ctzll(bits) : PORTS;
}

static bool rule_lives(const struct policy_rule *r, int64_t now_s)
{
    return r->expires_s == 0 || r->expires_s > now_s;
}

/* Port 0: any. */
static bool rule_has_port(const struct policy_rule *r, uint16_t port)
{
    for (size_t i = 0; i < r->n_ports; i++)
        if (port == 0 || (port >= r->ports[i].first && port <= r->ports[i].last))
            return true;
    return false;
}

static void start(struct rule_walk *w, const struct policy *p, enum policy_list list,
                  const struct target *t)
{
    struct ip_net net = {t->addr, ip_bits(t->addr.family)};

    rule_walk_start(w, &p->index[list], p->rule + (list == POLICY_ALLOW ? p->n_deny : 0),
                    t->name, false, &net);
    /* A deny rule denies however deep; how deep an allow rule reaches is bounded, because
     * each name under it is a message to whoever serves the domain. */
    if (list == POLICY_ALLOW && p->limits.labels > 0)
        w->labels_max = p->limits.labels;
}

static const struct policy_rule *first(const struct policy *p, enum policy_list list,
                                       const struct target *t, int64_t now_s)
{
    const struct policy_rule *r;
    struct rule_walk w;

    start(&w, p, list, t);
    while ((r = rule_walk_next(&w)))
        if (rule_lives(r, now_s) && rule_has_port(r, t->port))
            return r;
    return NULL;
}

/* -- in words ------------------------------------------------------------------------ */

/* Bytes of s, at most `max`, without half a character at the end: the text goes into DNS
 * answers, which must be UTF-8 (RFC 8914). */
static int fit(const char *s, size_t max)
{
    size_t n = strnlen(s, max + 1);

    if (n > max)
        for (n = max; n > 0 && ((uint8_t)s[n] & 0xc0) == 0x80;)
            n--;
    return (int)n;
}

static void say_rule(struct verdict *v, const struct policy_rule *r, const char *list)
{
    const char *from = r->from ? r->from : "";
    const char *reason = r->reason ? r->reason : "";

    (void)snprintf(v->text, sizeof v->text, "%s rule %u \"%.110s\"%s%.*s%s%.*s%s", list,
                   r->number + 1, r->text, *from ? " of " : "", fit(from, 32), from,
                   *reason ? " (" : "", fit(reason, 60), reason, *reason ? ")" : "");
}

static void say_target(const struct target *t, char *out, size_t cap)
{
    char ip[IP_TEXT_MAX];

    if (t->name)
        (void)snprintf(out, cap, "%.120s", t->name);
    else
        (void)snprintf(out, cap, "%s", ip_print(&t->addr, ip));
    if (t->port > 0) {
        size_t len = strlen(out);

        (void)snprintf(out + len, cap - len, " port %u", t->port);
    }
}

/* A rule that would have allowed it, had it another port, fewer labels or not ended: who
 * reads the text can mend the policy. */
static void say_default(struct verdict *v, const struct policy *p, const struct target *t,
                        int64_t now_s)
{
    const struct policy_rule *r;
    char what[160], when[POLICY_TIME_MAX];
    struct rule_walk w;

    start(&w, p, POLICY_ALLOW, t);
    r = rule_walk_next(&w);
    if (r && rule_lives(r, now_s)) {
        (void)snprintf(v->text, sizeof v->text,
                       "default deny: allow rule %u \"%.80s\" is not for port %u",
                       r->number + 1, r->text, t->port);
        return;
    }
    if (r) {
        (void)snprintf(v->text, sizeof v->text,
                       "default deny: allow rule %u \"%.80s\" ended %s", r->number + 1,
                       r->text, policy_time_print(r->expires_s, when));
        return;
    }
    start(&w, p, POLICY_ALLOW, t);
    w.labels_max = UINT32_MAX;
    r = rule_walk_next(&w);
    if (r && rule_lives(r, now_s)) {
        (void)snprintf(v->text, sizeof v->text,
                       "default deny: allow rule %u \"%.80s\" is for at most %u labels "
                       "(limits.labels)",
                       r->number + 1, r->text, p->limits.labels);
        return;
    }
    say_target(t, what, sizeof what);
    (void)snprintf(v->text, sizeof v->text, "default deny: no rule names %s", what);
}

static void deny_floor(struct verdict *v, const char *why, const struct ip_addr *a)
{
    char ip[IP_TEXT_MAX];

    v->allowed = false;
    v->stage = VERDICT_FLOOR;
    v->rule = NULL;
    if (a)
        (void)snprintf(v->text, sizeof v->text, "floor: %s (%s)", why, ip_print(a, ip));
    else
        (void)snprintf(v->text, sizeof v->text, "floor: %s", why);
}

/* -- deciding ------------------------------------------------------------------------ */

/* TCP, and name questions. */
static bool is_carried(const struct target *t)
{
    if (t->protocol == IPPROTO_UDP)
        return t->port == 0 || t->port == 53;
    return t->protocol == IPPROTO_TCP || t->protocol == 0;
}

/* True: it is of the floor, and *v says so. */
static bool decide_floor(const struct policy *p, const struct floor *floor,
                         const struct target *t, int64_t now_s, struct verdict *v)
{
    struct target net_only = {.addr = t->addr, .port = t->port};
    enum ip_class c;

    if (!is_carried(t)) {
        deny_floor(v,
                   t->protocol == IPPROTO_UDP ? "UDP is refused but for name questions"
                                              : "what is not TCP is refused",
                   NULL);
        return true;
    }
    if (t->port == 53) {
        deny_floor(v, "port 53 is the sandbox's own name server, wherever it is sent",
                   NULL);
        return true;
    }
    if (t->addr.family == 0)
        return false;
    c = ip_classify(&t->addr);
    if (ip_class_is_floor(c)) {
        deny_floor(v, ip_class_name(c), &t->addr);
        return true;
    }
    for (size_t i = 0; floor && i < floor->n; i++) {
        if (!ip_net_has(&floor->net[i], &t->addr))
            continue;
        deny_floor(v, "an address of this machine or of another sandbox", &t->addr);
        return true;
    }
    if (c == IP_PRIVATE && !first(p, POLICY_ALLOW, &net_only, now_s)) {
        deny_floor(v, "private, and no allow rule for a network has it with this port",
                   &t->addr);
        return true;
    }
    return false;
}

static void set_rule(struct verdict *v, const struct policy_rule *r)
{
    v->allowed = r->list == POLICY_ALLOW;
    v->stage = v->allowed ? VERDICT_ALLOW : VERDICT_DENY;
    v->rule = r;
    say_rule(v, r, v->allowed ? "allow" : "deny");
}

/* For port 0: the ports that are left, and the first rule that allows one of them.
 * True when one is. */
static bool any_port_left(const struct policy *p, const struct target *t, int64_t now_s,
                          const struct policy_rule **ret_rule)
{
    const struct policy_rule *r;
    struct port_set left;
    struct rule_walk w;
    bool is_left;

    memset(&left, p->default_allows ? 0xff : 0, sizeof left);
    start(&w, p, POLICY_ALLOW, t);
    while ((r = rule_walk_next(&w)))
        if (rule_lives(r, now_s))
            port_set_put(&left, r, true);
    start(&w, p, POLICY_DENY, t);
    while ((r = rule_walk_next(&w)))
        if (rule_lives(r, now_s))
            port_set_put(&left, r, false);
    is_left = port_set_next(&left, 1) < PORTS;
    *ret_rule = NULL;
    start(&w, p, POLICY_ALLOW, t);
    while (is_left && !*ret_rule && (r = rule_walk_next(&w)))
        for (size_t i = 0; i < r->n_ports && rule_lives(r, now_s) && !*ret_rule; i++)
            if (port_set_next(&left, r->ports[i].first) <= r->ports[i].last)
                *ret_rule = r;
    return is_left;
}

void decide(const struct policy *p, const struct floor *floor, const struct target *t,
            int64_t now_s, struct verdict *ret)
{
    const struct policy_rule *denied, *allowed;

    memset(ret, 0, sizeof *ret);
    if (decide_floor(p, floor, t, now_s, ret))
        return;
    denied = first(p, POLICY_DENY, t, now_s);
    if (denied && (t->port != 0 || !any_port_left(p, t, now_s, &allowed))) {
        set_rule(ret, denied);
        return;
    }
    if (!denied)
        allowed = first(p, POLICY_ALLOW, t, now_s);
    if (allowed) {
        set_rule(ret, allowed);
        return;
    }
    ret->stage = VERDICT_DEFAULT;
    ret->allowed = p->default_allows;
    if (ret->allowed)
        (void)snprintf(ret->text, sizeof ret->text, "default allow");
    else
        say_default(ret, p, t, now_s);
}

size_t decide_ports(const struct policy *p, const char *name, int64_t now_s,
                    uint16_t *ret, size_t cap)
{
    struct target t = {.name = name, .protocol = IPPROTO_TCP};
    const struct policy_rule *r;
    struct port_set left;
    struct rule_walk w;
    size_t n = 0;

    memset(&left, 0, sizeof left);
    start(&w, p, POLICY_ALLOW, &t);
    while ((r = rule_walk_next(&w))) {
        unsigned ports = 0;

        for (size_t i = 0; i < r->n_ports; i++)
            ports += r->ports[i].last - r->ports[i].first + 1u;
        if (ports <= POLICY_PIN_PORTS && rule_lives(r, now_s))
            port_set_put(&left, r, true);
    }
    start(&w, p, POLICY_DENY, &t);
    while ((r = rule_walk_next(&w)))
        if (rule_lives(r, now_s))
            port_set_put(&left, r, false);
    for (uint32_t port = 1; n < cap; port++) {
        port = port_set_next(&left, port);
        if (port == PORTS)
            break;
        if (port != 53)
            ret[n++] = (uint16_t)port;
    }
    return n;
}
