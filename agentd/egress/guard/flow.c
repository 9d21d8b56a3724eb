/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/pins.h"
#include "common/log.h"
#include "common/mem.h"

static const char *end_word(enum flow_end end)
{
    static const char *const word[] = {"closed",      "reset", "policy",
                                       "limit",       "guard", "name",
                                       "unreachable", "proxy", "memory"};

    return word[end];
}

static const char *check_name(const struct flow *f)
{
    static const char *const name[] = {"pin", "http", "tls"};

    return name[f->check];
}

void flow_set_state(struct flow *f, enum flow_state s)
{
    f->state = s;
}

static void on_deadline(void *arg)
{
    struct flow *f = arg;

    switch (f->state) {
    case FLOW_LOOK:
        flow_look_deadline(f);
        break;
    case FLOW_REFUSING:
        flow_refuse_now(f);
        break;
    case FLOW_ASK_PROXY:
        flow_dial_failed(f, FLOW_PROXY, "the upstream proxy does not answer");
        break;
    default: /* REPLY: it had its time */
        flow_end(f, FLOW_CLOSED);
        break;
    }
}

/* -- life ---------------------------------------------------------------------------- */

struct flow *flow_new(struct flows *fs, int *take_fd, const struct sock_addr *from,
                      const struct sock_addr *to)
{
    struct flow *f = mem_zalloc(1, sizeof(*f));
    struct err e = {0};

    if (!f) {
        sock_reset(take_fd);
        return NULL;
    }
    f->flows = fs;
    f->from = *from;
    f->to = *to;
    f->port = sock_port(to);
    f->uid = UINT32_MAX;
    f->started_ms = clock_wall_ms();
    ip_from_sock(to, &f->meant);
    loop_timer_init(&f->deadline, flows_loop(fs), on_deadline, f);
    loop_job_init(&f->who_later, flows_loop(fs), flow_ask_who, f);
    f->inner = conn_new(flows_loop(fs), take_fd, &flow_inner_ops, f, &e);
    if (!f->inner) {
        mem_free(f);
        return NULL;
    }
    f->next = fs->open;
    if (f->next)
        f->next->prev = &f->next;
    f->prev = &fs->open;
    fs->open = f;
    fs->count++;
    fs->ward->guard->flows_open++;
    fs->ward->counts.flows++;
    return f;
}

static void to_the_dead(struct flow *f)
{
    struct flows *fs = f->flows;

    *f->prev = f->next;
    if (f->next)
        f->next->prev = f->prev;
    f->prev = NULL;
    f->next = fs->dead;
    fs->dead = f;
    fs->count--;
    fs->ward->guard->flows_open--;
    fs->ward->counts.flows--;
    f->state = FLOW_DEAD;
    loop_job_defer(&fs->reap);
}

static void drop_held(struct flow *f)
{
    struct flow_pump *pump[2] = {&f->up, &f->down};

    for (int i = 0; i < 2; i++) {
        flows_hold(f->flows, 0, pump[i]->held.len);
        buf_done(&pump[i]->held);
        pump[i]->pos = 0;
    }
    buf_done(&f->in);
    flow_count_in(f);
}

static void leave_limits(struct flow *f)
{
    if (f->limit)
        flow_limit_leave(f->limit);
    f->limit = NULL;
    if (f->is_counted)
        flow_limit_leave(f->flows->all);
    f->is_counted = false;
}

/* Everything but the memory and what is in the records. */
static void let_go(struct flow *f, bool in_order)
{
    loop_timer_stop(&f->deadline);
    flow_dial_cancel(f);
    flow_unpause(f);
    loop_job_cancel(&f->who_later);
    keeper_link_cancel(&f->who);
    if (f->is_holding)
        pins_release(f->flows->ward->pins, &f->meant, f->name);
    f->is_holding = false;
    leave_limits(f);
    drop_held(f);
    if (in_order) {
        conn_close(&f->inner);
        conn_close(&f->outer);
    } else {
        conn_abort(&f->inner);
        conn_abort(&f->outer);
    }
}

void flow_free(struct flow *f)
{
    if (f->gate)
        http_gate_done(f->gate);
    mem_free(f->gate);
    buf_done(&f->in);
    buf_done(&f->words);
    policy_unref(f->policy);
    mem_free(f);
}

/* -- records ------------------------------------------------------------------------- */

static void fill(const struct flow *f, struct audit_record *r, const char *name)
{
    *r = (struct audit_record){
        .pid = f->pid,
        .comm = f->pid ? f->comm : NULL,
        .uid = f->uid,
        .name = name && name[0] ? name : NULL,
        .addr = f->meant,
        .port = f->port,
        .protocol = IPPROTO_TCP,
        .check = check_name(f),
        .started_ms = f->started_ms,
        .ended_ms = clock_wall_ms(),
    };
}

void flow_record_refusal(struct flow *f, const struct verdict *v, const char *name)
{
    struct audit_record r;

    fill(f, &r, name);
    r.verdict = v;
    ward_record_refusal(f->flows->ward, &r);
}

static void record_end(struct flow *f, enum flow_end end)
{
    struct audit_record r;
    char via[PROXY_TEXT_MAX];

    fill(f, &r, f->name);
    r.dialed = f->dialed;
    r.bytes_up = f->up.bytes;
    r.bytes_down = f->down.bytes;
    r.would_refuse = f->would_refuse;
    r.end = end_word(end);
    r.verdict = &f->verdict;
    if (f->has_proxy)
        r.via = proxy_print(f->proxy.host, f->proxy.port, via);
    ward_record_connection(f->flows->ward, &r);
}

void flow_record(struct flow *f, enum flow_end end)
{
    struct verdict v;

    if (f->is_recorded)
        return;
    f->is_recorded = true;
    if (f->by != FLOW_BY_NOTHING) {
        record_end(f, end);
        return;
    }
    flow_verdict(&v, VERDICT_GUARD, "ended before it said what it wants");
    flow_record_refusal(f, &v, NULL);
}

void flow_end(struct flow *f, enum flow_end end)
{
    if (f->state == FLOW_DEAD)
        return;
    flow_record(f, end);
    let_go(f, end == FLOW_CLOSED);
    proxy_url_done(&f->proxy);
    to_the_dead(f);
}

/* -- verdicts ------------------------------------------------------------------------ */

bool flow_may(const struct flow *f, const char *name, const struct ip_addr *addr,
              struct verdict *ret, bool *ret_would_refuse)
{
    struct target t = {.name = name, .port = f->port, .protocol = IPPROTO_TCP};

    if (addr)
        t.addr = *addr;
    ward_decide(f->flows->ward, &t, ret, ret_would_refuse);
    return ret->allowed;
}

void flow_verdict(struct verdict *ret, enum verdict_stage stage, const char *fmt, ...)
{
    va_list ap;

    *ret = (struct verdict){.stage = stage};
    va_start(ap, fmt);
    (void)vsnprintf(ret->text, sizeof(ret->text), fmt, ap);
    va_end(ap);
}

static void keep_verdict(struct flow *f, const struct verdict *v, bool would_refuse)
{
    struct policy *old = f->policy;

    f->policy = policy_ref(f->flows->ward->policy);
    f->verdict = *v;
    f->would_refuse = would_refuse;
    policy_unref(old);
}

/* Where a rule's connections and bytes are counted, for as long as the rule is. NULL: it
 * has no limits. *ret_ok false: no memory. */
static struct flow_limit *find_limit(struct flows *fs, const struct policy_rule *r,
                                     bool *ret_ok)
{
    struct flow_limit *l;

    *ret_ok = true;
    if (!r || !r->has_limits)
        return NULL;
    for (l = fs->rule; l; l = l->next)
        if (l->list == r->list && strcmp(l->rule, r->text) == 0)
            break;
    if (l) {
        l->limits = r->limits;
        return l;
    }
    l = flow_limit_new(r, &r->limits);
    if (!l) {
        *ret_ok = false;
        return NULL;
    }
    l->next = fs->rule;
    fs->rule = l;
    return l;
}

/* Counts it for the verdict's rule. NULL, or which limit says no, in `why`. */
static const char *enter_rule(struct flow *f, const struct verdict *v, char why[64])
{
    bool has_memory;
    struct flow_limit *l = find_limit(f->flows, v->rule, &has_memory);
    const char *limit = NULL;

    if (!has_memory)
        return "no memory";
    if (l == f->limit)
        return NULL;
    if (l)
        limit = flow_limit_enter(l, loop_now(flows_loop(f->flows)), why);
    if (limit)
        return limit;
    if (f->limit)
        flow_limit_leave(f->limit);
    f->limit = l;
    return NULL;
}

bool flow_adopt(struct flow *f, const struct verdict *v, bool would_refuse)
{
    struct verdict no;
    char why[64];
    const char *limit;

    keep_verdict(f, v, would_refuse);
    limit = enter_rule(f, v, why);
    if (!limit)
        return true;
    flow_verdict(&no, VERDICT_LIMIT, "limit of allow rule %u \"%.100s\": %s",
                 v->rule->number + 1, v->rule->text, limit);
    no.rule = v->rule;
    flow_refuse(f, &no);
    return false;
}

static void refuse(struct flow *f, const struct verdict *v)
{
    AUTO(buf_done)
    struct buf words = BUF_INIT;
    const char *name = f->name;
    struct verdict kept = *v; /* it may be the flow's own */

    if (!f->is_recorded)
        flow_record_refusal(f, &kept, name);
    f->is_recorded = true;
    if (f->gate && flow_words_refused(f, &kept, &words) == 0 && flow_http_say(f, &words))
        return;
    flow_end(f, FLOW_GUARD);
}

void flow_refuse_now(struct flow *f)
{
    loop_timer_stop(&f->deadline);
    refuse(f, &f->verdict);
}

void flow_refuse(struct flow *f, const struct verdict *v)
{
    /* The kernel tells whose a connection is only while it is open. */
    if ((f->state != FLOW_LOOK && f->state != FLOW_NAMES) || f->is_recorded || f->pid ||
        !flow_ask_who_first(f)) {
        refuse(f, v);
        return;
    }
    keep_verdict(f, v, false);
    flow_set_state(f, FLOW_REFUSING);
    conn_want(f->inner, 0);
    loop_timer_start(&f->deadline, FLOW_WHO_MS);
}

/* -- the policy, or the time, has changed -------------------------------------------- */

/* Does it go the way, and was it looked at, as the policy wants it now? */
static bool is_checked(const struct flow *f, const struct verdict *v)
{
    const struct policy *p = f->flows->ward->policy;
    enum policy_check now = policy_check(p, f->port);

    if (policy_proxy(p)->required && f->state >= FLOW_DIAL && !f->has_proxy)
        return false;
    if (now == POLICY_CHECK_NONE || f->would_refuse || f->by == FLOW_BY_ADDR)
        return true;
    if (v->rule && (v->rule->is_unchecked || v->rule->is_net))
        return true;
    return f->by == FLOW_BY_NAME && now == f->check;
}

bool flow_may_still(const struct flow *f, struct verdict *ret, bool *ret_would_refuse)
{
    const struct ip_addr *addr = f->dialed.family ? &f->dialed : NULL;
    const char *name = f->name[0] ? f->name : NULL;

    if (f->by != FLOW_BY_NAME)
        addr = &f->meant;
    /* What went by the address alone may go on by the address alone, whatever
     * name was read. */
    if (f->by == FLOW_BY_ADDR && f->verdict.stage != VERDICT_ALLOW)
        name = NULL;
    return flow_may(f, name, addr, ret, ret_would_refuse);
}

void flow_decide_again(struct flow *f)
{
    struct verdict v;
    bool would_refuse;
    char why[64];

    if (f->state == FLOW_DEAD || f->state == FLOW_REPLY || f->state == FLOW_REFUSING)
        return;
    if (f->by == FLOW_BY_NOTHING) {
        if (f->check != policy_check(f->flows->ward->policy, f->port))
            flow_end(f, FLOW_POLICY);
        return;
    }
    if (!flow_may_still(f, &v, &would_refuse) || !is_checked(f, &v)) {
        flow_end(f, FLOW_POLICY);
        return;
    }
    keep_verdict(f, &v, would_refuse);
    if (enter_rule(f, &v, why))
        flow_end(f, FLOW_LIMIT);
}
