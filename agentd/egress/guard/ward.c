/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/ward.h"

#include "agentd/egress/policy/learn.h"

void ward_decide(const struct ward *w, const struct target *t, struct verdict *ret,
                 bool *ret_would_refuse)
{
    decide(w->policy, &w->guard->floor, t, clock_wall_s(), ret);
    *ret_would_refuse = !ret->allowed && ret->stage != VERDICT_FLOOR &&
                        policy_mode(w->policy) != POLICY_ENFORCE;
    ret->allowed |= *ret_would_refuse;
}

void ward_learn(struct ward *w, const struct target *t)
{
    struct verdict v;

    if (w->learn == NULL || t->port == 0)
        return;
    decide(w->policy, &w->guard->floor, t, clock_wall_s(), &v);
    if (v.stage == VERDICT_DENY)
        return; /* a network's rule too, which the name alone does not tell */
    if (t->name != NULL)
        learn_name(w->learn, t->name, t->port);
    else if (t->addr.family != 0)
        learn_addr(w->learn, &t->addr, t->port);
}

static void fill(const struct ward *w, struct audit_record *r)
{
    r->sandbox = w->name;
    r->hash = policy_hash(w->policy);
    if (r->by == NULL)
        r->by = r->kind == AUDIT_NAME ? "dns" : "guard";
    if (r->ended_ms == 0)
        r->ended_ms = clock_wall_ms();
    if (r->started_ms == 0)
        r->started_ms = r->ended_ms;
}

void ward_record_refusal(struct ward *w, struct audit_record *r)
{
    if (r->kind == AUDIT_NAME) {
        w->counts.names_refused += !r->would_refuse;
    } else {
        r->kind = AUDIT_REFUSED;
        if (r->by == NULL) { /* the kernel counts its own, and all of them */
            w->counts.refused++;
            r->protocol = IPPROTO_TCP; /* all that is the guard's to refuse */
        }
    }
    fill(w, r);
    audit_write(w->guard->audit, r);
}

void ward_record_connection(struct ward *w, struct audit_record *r)
{
    r->kind = AUDIT_CONNECTION;
    if (r->protocol == 0)
        r->protocol = IPPROTO_TCP;
    fill(w, r);
    audit_write(w->guard->audit, r);
}
