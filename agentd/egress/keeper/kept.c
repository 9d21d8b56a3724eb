/* SPDX-License-Identifier: MIT */
/* A sandbox as the keeper keeps it: made, changed by the guard's answers, ended. */
#include "agentd/egress/keeper/keeper_int.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

static void on_deadline(void *arg);
static void on_removed(void *arg);

/* -- small things -------------------------------------------------------------------- */

struct kept *keeper_find(struct keeper *k, const char *name)
{
    for (struct kept *s = k->kept; s; s = s->next)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

struct kept *keeper_by_index(struct keeper *k, uint32_t index)
{
    return index <= CHANNEL_INDEX_MAX ? k->by_index[index] : NULL;
}

bool kept_rate_ok(struct kept_rate *r, uint64_t now_ms, unsigned per_s)
{
    if (now_ms - r->window_ms >= 1000) {
        r->window_ms = now_ms;
        r->n = 0;
    }
    if (r->n >= per_s)
        return false;
    r->n++;
    return true;
}

struct nft *kept_nft(const struct kept *s)
{
    return s->tier == EGRESS_SEALED ? s->nft : s->keeper->host;
}

void kept_fill(const struct kept *s, const struct policy *p, struct nft_sandbox *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->index = s->index;
    ret->name = s->name;
    ret->policy = p;
    ret->tcp_port = s->tcp_port;
    ret->udp_port = s->udp_port;
    if (s->tier == EGRESS_VETH)
        veth_fill(&s->veth, ret);
}

void keeper_event(struct keeper *k, const struct kept *s, const char *event,
                  const char *text)
{
    struct audit_record r = {.kind = AUDIT_EVENT, .by = "keeper", .uid = UINT32_MAX};

    r.event = event;
    r.sandbox = s ? s->name : NULL;
    r.hash = s ? policy_hash(s->policy) : NULL;
    r.text = text;
    r.started_ms = r.ended_ms = clock_wall_ms();
    audit_write(k->audit, &r);
    log_notice("egress.event", "what=%s sandbox=%s text=%s", event, s ? s->name : "-",
               text ? log_q(text) : "\"\"");
}

/* -- a sandbox ----------------------------------------------------------------------- */

static uint32_t free_index(struct keeper *k)
{
    uint32_t i = k->last_index;

    /* The longest possible time passes before a number is somebody else's. */
    do
        i = i % CHANNEL_INDEX_MAX + 1;
    while (k->by_index[i]);
    if (i > k->top_index)
        k->top_index = i;
    return k->last_index = i;
}

void kept_free(struct kept *s)
{
    struct keeper *k = s->keeper;

    loop_timer_stop(&s->deadline);
    loop_job_cancel(&s->removed);
    watch_forget(s);
    if (s->prev) {
        *s->prev = s->next;
        if (s->next)
            s->next->prev = s->prev;
        k->by_index[s->index] = NULL;
        k->n--;
    }
    nft_close(s->nft);
    for (size_t i = 0; i < COUNT_OF(s->fd); i++)
        sock_close(&s->fd[i]);
    sock_close(&s->rt_fd);
    sock_close(&s->diag_fd);
    netns_free(s->ns);
    policy_unref(s->policy);
    policy_unref(s->wanted);
    mem_free(s->ns_path);
    mem_free(s->iface);
    mem_free(s);
}

char *kept_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = mem_alloc(n);

    return p ? memcpy(p, text, n) : NULL;
}

struct kept *kept_new(struct keeper *k, const struct keeper_add *a, struct netns **ns)
{
    struct kept *s = mem_zalloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->keeper = k;
    s->rt_fd = s->diag_fd = s->news_fd = s->pid_fd = s->nsid = -1;
    for (size_t i = 0; i < COUNT_OF(s->fd); i++)
        s->fd[i] = -1;
    loop_timer_init(&s->deadline, k->loop, on_deadline, s);
    loop_job_init(&s->removed, k->loop, on_removed, s);
    s->policy = policy_ref(a->policy);
    s->ns = *ns;
    *ns = NULL;
    s->tier = a->tier;
    s->pid = a->pid;
    s->state = KEPT_ADDING;
    (void)snprintf(s->name, sizeof s->name, "%s", a->name); /* checked: it fits */
    if ((a->ns_path && !(s->ns_path = kept_text(a->ns_path))) ||
        (a->iface && !(s->iface = kept_text(a->iface)))) {
        kept_free(s);
        return NULL;
    }
    return s;
}

void kept_link(struct kept *s)
{
    struct keeper *k = s->keeper;

    s->index = free_index(k);
    k->by_index[s->index] = s;
    s->next = k->kept;
    s->prev = &k->kept;
    if (k->kept)
        k->kept->prev = &s->next;
    k->kept = s;
    k->n++;
}

/* -- how operations end -------------------------------------------------------------- */

void kept_begin(struct kept *s, enum kept_op op, keeper_done_fn *fn, void *arg,
                uint64_t ms)
{
    s->op = op;
    s->done = fn;
    s->done_arg = arg;
    loop_timer_start(&s->deadline, ms);
}

/* Tell the waiting caller, once. */
static void end_op(struct kept *s, const struct err *e)
{
    keeper_done_fn *fn = s->done;

    loop_timer_stop(&s->deadline);
    s->op = OP_NONE;
    s->done = NULL;
    if (fn)
        fn(s->done_arg, e);
}

void kept_drop_rules(struct kept *s)
{
    struct nft_sandbox rules;
    struct err e;

    if (!s->has_rules)
        return;
    s->has_rules = false;
    kept_fill(s, s->policy, &rules);
    if (nft_sandbox_drop(kept_nft(s), &rules, &e) < 0)
        log_warn("sandbox.drop", "sandbox=%s error=%s", s->name, log_e(&e));
}

static void ask_removal(struct kept *s)
{
    s->state = KEPT_REMOVING;
    s->seq = 0;
    s->to_send = SEND_REMOVE;
    if (s->keeper->guard.is_ready)
        guard_push(s->keeper);
    else
        loop_job_defer(&s->removed); /* it has nothing of it */
}

/* It never came into force: the guard forgets it, the namespace stays closed. */
static void fail_add(struct kept *s, const struct err *e)
{
    keeper_done_fn *fn = s->done;
    void *arg = s->done_arg;
    struct err copy = *e;

    log_err("sandbox.add", "sandbox=%s error=%s", s->name, log_e(&copy));
    kept_drop_rules(s);
    kept_begin(s, OP_NONE, NULL, NULL, KEEPER_REMOVE_MS);
    ask_removal(s);
    if (fn)
        fn(arg, &copy);
}

/* The guard keeps, or gets again, what the kernel has. */
static void fail_reload(struct kept *s, const struct err *e)
{
    struct err copy = *e;

    policy_unref(s->wanted);
    s->wanted = NULL;
    s->to_send |= s->is_given ? SEND_POLICY : SEND_SANDBOX;
    guard_push(s->keeper);
    log_err("policy.reload", "sandbox=%s error=%s", s->name, log_e(&copy));
    end_op(s, &copy);
}

static void finish_reload(struct kept *s)
{
    struct nft_sandbox rules;
    struct policy *old = s->policy;
    struct err e;

    kept_fill(s, s->wanted, &rules);
    if (nft_sandbox_set(kept_nft(s), &rules, &e) < 0) {
        fail_reload(s, &e);
        return;
    }
    s->policy = s->wanted;
    s->wanted = NULL;
    policy_unref(old);
    keeper_event(s->keeper, s, "policy.replaced", NULL);
    state_save(s);
    end_op(s, NULL);
}

void kept_in_force(struct kept *s, uint32_t seq)
{
    if (seq == 0 || seq != s->seq || s->state == KEPT_REMOVING)
        return; /* of what was replaced meanwhile */
    s->seq = 0;
    s->is_given = true;
    if (s->state == KEPT_ADDING || s->state == KEPT_CLOSED)
        s->state = KEPT_IN_FORCE;
    if (s->op == OP_ADD) {
        keeper_event(s->keeper, s, "sandbox.start", NULL);
        state_save(s);
        end_op(s, NULL);
    } else if (s->op == OP_RELOAD && s->wanted) {
        finish_reload(s);
    }
}

void kept_refused(struct kept *s, uint32_t seq, const char *why)
{
    struct err e;

    if (seq == 0 || seq != s->seq || s->state == KEPT_REMOVING)
        return;
    s->seq = 0;
    (void)err_set(&e, ERR_DENIED, "the guard refused it: %.150s", why);
    if (s->op == OP_ADD) {
        fail_add(s, &e);
    } else if (s->op == OP_RELOAD) {
        fail_reload(s, &e);
    } else {
        log_err("sandbox.closed", "sandbox=%s error=%s", s->name, log_e(&e));
        (void)snprintf(s->reason, sizeof s->reason, "%s", e.msg);
    }
}

/* -- the end of a sandbox ------------------------------------------------------------ */

static void finish_remove(struct kept *s)
{
    bool was_adding = s->op != OP_REMOVE; /* fail_add() has dropped its rules */
    keeper_done_fn *fn = s->done;
    struct keeper *k = s->keeper;
    void *arg = s->done_arg;

    if (!was_adding) {
        kept_drop_rules(s);
        keeper_event(k, s, "sandbox.end", s->reason[0] ? s->reason : NULL);
    }
    kept_free(s);
    if (fn)
        fn(arg, NULL);
}

static void on_removed(void *arg)
{
    struct kept *s = arg;

    if (s->state == KEPT_REMOVING)
        finish_remove(s);
}

/* Whatever it answers: a sandbox is removed once. */
void kept_removed(struct kept *s)
{
    if (s->state == KEPT_REMOVING)
        finish_remove(s);
}

void kept_remove(struct kept *s, keeper_done_fn *fn, void *arg)
{
    state_forget(s);
    kept_begin(s, OP_REMOVE, fn, arg, KEEPER_REMOVE_MS);
    ask_removal(s);
}

void kept_vanished(struct kept *s, const char *why)
{
    keeper_done_fn *fn = s->done;
    void *arg = s->done_arg;
    struct err e;

    if (s->state == KEPT_REMOVING)
        return;
    (void)err_set(&e, ERR_NOTFOUND, "%s", why);
    (void)snprintf(s->reason, sizeof s->reason, "%s", why);
    kept_remove(s, NULL, NULL);
    if (fn)
        fn(arg, &e);
}

static void on_deadline(void *arg)
{
    struct kept *s = arg;
    struct keeper *k = s->keeper;
    struct err e;

    if (s->state == KEPT_REMOVING) {
        /* It may still have the sandbox: it must not see its number again. */
        guard_kill(k, "it did not let go of a sandbox in time");
        finish_remove(s);
        return;
    }
    (void)err_set(&e, ERR_TIMEOUT, "the guard did not take it within %d ms",
                  KEEPER_FORCE_MS);
    if (s->op == OP_ADD) {
        fail_add(s, &e);
    } else if (s->op == OP_RELOAD) {
        s->seq = 0;
        guard_kill(k, "it did not take a policy in time");
        fail_reload(s, &e);
    }
}
