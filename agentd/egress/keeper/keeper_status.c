/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "agentd/egress/keeper/keeper_int.h"
#include "common/json.h"

static const char *const modes[] = {
    [POLICY_ENFORCE] = "enforce",
    [POLICY_AUDIT] = "audit",
    [POLICY_LEARN] = "learn",
};
static const char *const states[] = {
    [KEPT_ADDING] = "adding",
    [KEPT_IN_FORCE] = "in force",
    [KEPT_CLOSED] = "closed",
    [KEPT_REMOVING] = "removing",
};

/* Each reason is a sentence; how many there are is what decides "enforced". */
struct reasons {
    struct buf *out;
    unsigned n;
    bool bad;
};

static void add_reason(struct reasons *r, const char *text)
{
    r->bad = r->bad || (r->n > 0 && buf_adds(r->out, ",") < 0) ||
             json_put_str(r->out, span_str(text)) < 0;
    r->n++;
}

static void add_veth_reasons(const struct kept *s, struct reasons *r)
{
    const struct keeper *k = s->keeper;
    char mute[KEEPER_MUTE_MAX];

    if (s->tier != EGRESS_VETH)
        return;
    if (keeper_is_mute(s, mute))
        add_reason(r, mute);
    for (unsigned i = 0; i < s->veth_reasons.n; i++)
        add_reason(r, s->veth_reasons.text[i]);
    if (k->host_reason[0])
        add_reason(r, k->host_reason);
    if (k->is_host_stale)
        add_reason(r, "the host's table is not what it should be");
}

static int put_reasons(const struct kept *s, struct buf *out, bool *ret_enforced)
{
    const struct keeper *k = s->keeper;
    struct reasons r = {.out = out};

    if (!k->guard.is_ready)
        add_reason(&r, "the guard is being started");
    else if (!s->is_given)
        add_reason(&r, "the guard does not have it yet");
    if (s->state == KEPT_ADDING)
        add_reason(&r, "it is being added");
    if (s->state == KEPT_REMOVING)
        add_reason(&r, "it is being removed");
    if (s->reason[0])
        add_reason(&r, s->reason);
    else if (s->tier == EGRESS_SEALED && !s->is_verified)
        add_reason(&r, "its rules could not be compared with what they should be");
    if (k->is_floor_cut)
        add_reason(&r, "the host has more addresses than can be kept from it");
    add_veth_reasons(s, &r);
    *ret_enforced = r.n == 0;
    return r.bad ? -1 : 0;
}

static int put_counts(const struct kept *s, struct buf *out)
{
    const struct channel_counts *c = &s->counts;
    struct nft_counts kernel = {0};
    struct nft *nft = kept_nft(s);

    if (nft && s->has_rules)
        (void)nft_counts(nft, s->index, &kernel, NULL); /* they stay 0 */
    return buf_addf(out,
                    "\"counts\":{\"open\":%u,\"connections\":%llu,\"refused\":%llu,"
                    "\"questions\":%llu,\"names_refused\":%llu,\"bytes_up\":%llu,"
                    "\"bytes_down\":%llu,\"pins\":%u,\"kernel_refused_packets\":%llu,"
                    "\"kernel_refused_bytes\":%llu,\"guarded_packets\":%llu,"
                    "\"guarded_bytes\":%llu,\"restored\":%u}",
                    c->flows, (unsigned long long)c->connects,
                    (unsigned long long)c->refused, (unsigned long long)c->questions,
                    (unsigned long long)c->names_refused, (unsigned long long)c->bytes_up,
                    (unsigned long long)c->bytes_down, c->pins,
                    (unsigned long long)kernel.refused_packets,
                    (unsigned long long)kernel.refused_bytes,
                    (unsigned long long)kernel.guarded_packets,
                    (unsigned long long)kernel.guarded_bytes, s->restored);
}

static int put_head(const struct kept *s, struct buf *out)
{
    const char *policy = policy_name(s->policy);

    if (buf_addf(out, "{\"name\":\"%s\",\"tier\":\"%s\",\"state\":\"%s\",", s->name,
                 s->tier == EGRESS_SEALED ? "sealed" : "veth", states[s->state]) < 0 ||
        buf_addf(out, "\"mode\":\"%s\",\"policy\":", modes[policy_mode(s->policy)]) < 0 ||
        json_put_str(out, span_str(policy ? policy : "")) < 0 ||
        buf_addf(out, ",\"hash\":\"%s\",", policy_hash(s->policy)) < 0)
        return -1;
    if (s->pid > 0 && buf_addf(out, "\"pid\":%ld,", (long)s->pid) < 0)
        return -1;
    if (s->tier != EGRESS_VETH)
        return 0;
    return buf_adds(out, "\"interface\":") < 0 ||
                   json_put_str(out, span_str(s->veth.port)) < 0 || buf_adds(out, ",") < 0
               ? -1
               : 0;
}

static int put_one(const struct kept *s, struct buf *out)
{
    const struct keeper_guard *g = &s->keeper->guard;
    bool is_enforced = false;

    if (put_head(s, out) < 0 || buf_adds(out, "\"reasons\":[") < 0 ||
        put_reasons(s, out, &is_enforced) < 0)
        return -1;
    if (buf_addf(out, "],\"enforced\":%s,\"guard\":{\"pid\":%ld,\"restarts\":%u},",
                 is_enforced ? "true" : "false", (long)g->pid, g->restarts) < 0)
        return -1;
    return put_counts(s, out) < 0 || buf_adds(out, "}") < 0 ? -1 : 0;
}

int keeper_status(struct keeper *k, const char *name, struct buf *out, struct err *e)
{
    size_t len = out->len;
    const struct kept *s = name ? keeper_find(k, name) : k->kept;
    uint64_t lost = audit_lost(k->audit) + k->guards_lost + k->guard_lost;
    bool is_first = true, bad;

    if (name && !s)
        return err_set(e, ERR_NOTFOUND, "no sandbox %.45s", name);
    bad = buf_adds(out, "{\"sandboxes\":[") < 0;
    for (; s && !bad; s = name ? NULL : s->next) {
        bad = (!is_first && buf_adds(out, ",") < 0) || put_one(s, out) < 0;
        is_first = false;
    }
    if (bad || buf_addf(out, "],\"audit_lost\":%llu}", (unsigned long long)lost) < 0) {
        out->len = len;
        return err_set(e, ERR_NOMEM, "no memory for the status");
    }
    return 0;
}
