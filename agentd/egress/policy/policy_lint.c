/* SPDX-License-Identifier: MIT */
/*
 * Faults that only show when all rules are there: allow rules that a deny rule covers
 * whole, rules that another covers, rules that have ended, and deny rules that leave open
 * what their writer may think closed.
 *
 * A rule is compared with single others, not with several that cover it together, and
 * with at most COVER_MAX that speak of the same: what is not seen here is only not told.
 */
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "agentd/egress/policy/rule_index.h"

#define COVER_MAX 256

static bool ports_cover(const struct policy_rule *outer, const struct policy_rule *inner)
{
    size_t j = 0;

    for (size_t i = 0; i < inner->n_ports; i++) {
        while (j < outer->n_ports && outer->ports[j].last < inner->ports[i].last)
            j++;
        if (j == outer->n_ports || outer->ports[j].first > inner->ports[i].first)
            return false;
    }
    return true;
}

/* Does outer stand as long as inner? */
static bool outlives(const struct policy_rule *outer, const struct policy_rule *inner)
{
    return outer->expires_s == 0 ||
           (inner->expires_s != 0 && inner->expires_s <= outer->expires_s);
}

static void walk(const struct policy_build *b, struct rule_walk *w, enum policy_list list,
                 const struct policy_rule *r)
{
    const struct policy *p = b->p;

    rule_walk_start(w, &p->index[list], p->rule + (list == POLICY_ALLOW ? p->n_deny : 0),
                    r->is_net ? NULL : r->name, r->is_wildcard,
                    r->is_net ? &r->net : NULL);
}

/* A rule of `list` that covers all of r. */
static const struct policy_rule *find_cover(const struct policy_build *b,
                                            enum policy_list list,
                                            const struct policy_rule *r)
{
    const struct policy_rule *c;
    struct rule_walk w;
    unsigned n = 0;

    walk(b, &w, list, r);
    if (list == POLICY_ALLOW) {
        /* How deep a wildcard of ours reaches is bounded: it covers no other wildcard. */
        w.labels_max = r->is_wildcard ? 0 : b->p->limits.labels;
    }
    while ((c = rule_walk_next(&w)) && n++ < COVER_MAX) {
        if (c == r || !ports_cover(c, r) || !outlives(c, r))
            continue;
        /* Of two that are the same, the second is the one too many. */
        if (c->list == r->list && ports_cover(r, c) && outlives(r, c) &&
            c->number > r->number && c->is_net == r->is_net &&
            (c->is_net ? c->net.bits == r->net.bits : c->is_wildcard == r->is_wildcard))
            continue;
        return c;
    }
    return NULL;
}

/* Is there an allow rule, or the default, that lets a denied thing through on ports that
 * the deny rule does not have? */
static bool leaves_open(const struct policy_build *b, const struct policy_rule *deny)
{
    const struct policy_rule *a;
    struct rule_walk w;
    unsigned n = 0;

    if (b->p->default_allows)
        return true;
    walk(b, &w, POLICY_ALLOW, deny);
    while ((a = rule_walk_next(&w)) && n++ < COVER_MAX)
        if (!ports_cover(deny, a))
            return true;
    return false;
}

static void lint_deny(struct policy_build *b, size_t i)
{
    const struct policy_rule *r = &b->p->rule[i];
    const struct policy_rule *cover = find_cover(b, POLICY_DENY, r);
    char at[POLICY_PATH_MAX];

    if (cover)
        build_rule_fault(b, true, POLICY_DENY, i, "%.60s is denied by %s, %.60s, too",
                         r->text, build_rule_place(b, cover, r, at), cover->text);
    if (b->place[POLICY_DENY][i].is_port_implied && leaves_open(b, r))
        build_rule_fault(b, true, POLICY_DENY, i,
                         "%.80s denies port 443 alone and others stay open; for all of "
                         "them write \":1-65535\"",
                         r->text);
}

static void lint_allow(struct policy_build *b, size_t i, bool *drop)
{
    const struct policy_rule *r = &b->p->rule[b->p->n_deny + i];
    const struct policy_rule *deny = find_cover(b, POLICY_DENY, r), *cover;
    char at[POLICY_PATH_MAX];

    if (deny) {
        *drop = b->place[POLICY_ALLOW][i].source->is_import;
        build_rule_fault(
            b, *drop, POLICY_ALLOW, i,
            "%.50s can never be reached: %s, %.50s, covers it and deny beats "
            "allow",
            r->text, build_rule_place(b, deny, r, at), deny->text);
        return;
    }
    if (b->place[POLICY_ALLOW][i].is_expanded)
        return;
    cover = find_cover(b, POLICY_ALLOW, r);
    if (cover && !r->has_limits && !r->is_unchecked)
        build_rule_fault(b, true, POLICY_ALLOW, i, "%.60s is allowed by %s, %.60s, too",
                         r->text, build_rule_place(b, cover, r, at), cover->text);
    if (r->is_net && r->net.bits < 8) {
        const struct ip_net *private;
        size_t n = ip_class_nets(false, &private);

        for (size_t j = 0; j < n; j++) {
            if (!ip_net_covers(&r->net, &private[j]))
                continue;
            build_rule_fault(b, true, POLICY_ALLOW, i,
                             "%.60s opens private networks as well, such as %s", r->text,
                             private[j].addr.family == AF_INET ? "10.0.0.0/8"
                                                               : "fc00::/7");
            break;
        }
    }
}

bool policy_lint(struct policy_build *b, bool *drop)
{
    size_t n_allow = b->p->n_rules - b->p->n_deny;
    char when[POLICY_TIME_MAX];
    bool drops = false;

    for (size_t i = 0; i < b->p->n_deny; i++)
        lint_deny(b, i);
    for (size_t i = 0; i < n_allow; i++) {
        lint_allow(b, i, &drop[b->p->n_deny + i]);
        drops |= drop[b->p->n_deny + i];
    }
    for (size_t i = 0; i < b->p->n_rules; i++) {
        const struct policy_rule *r = &b->p->rule[i];

        if (r->expires_s != 0 && r->expires_s <= b->now_s)
            build_rule_fault(b, true, r->list, r->number, "%.80s ended %s", r->text,
                             policy_time_print(r->expires_s, when));
    }
    return drops;
}
