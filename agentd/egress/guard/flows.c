/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flows.h"

#include <errno.h>
#include <string.h>

#include "agentd/egress/guard/dns_server.h"
#include "agentd/egress/guard/flow.h"
#include "common/log.h"
#include "common/mem.h"

struct loop *flows_loop(const struct flows *fs)
{
    return fs->ward->guard->loop;
}

/* -- accepting ----------------------------------------------------------------------- */

/* What reached a listener of ours without being meant for somebody else was sent to the
 * listener itself. (A program may; the address it meant is then ours.) */
static bool is_own(const struct flows *fs, const struct sock_addr *to)
{
    struct ip_addr a, b;

    ip_from_sock(to, &a);
    for (int i = 0; i < 2; i++) {
        if (fs->fd[i] < 0 || sock_port(to) != sock_port(&fs->at[i]))
            continue;
        ip_from_sock(&fs->at[i], &b);
        if (ip_eq(&a, &b))
            return true;
    }
    return false;
}

/* Descriptors and memory are all sandboxes', and without any the guard can serve none of
 * them. So when three quarters of what there is are in use, of the last quarter each
 * sandbox has its part. */
static bool has_share(const struct guard *g, size_t all, size_t used, size_t own)
{
    size_t n = g->n_wards > 0 ? g->n_wards : 1;

    return used <= all - all / 4 || own <= all / 4 / n;
}

void flows_hold(struct flows *fs, size_t more, size_t less)
{
    fs->held += more;
    fs->held -= less;
    fs->ward->guard->held += more;
    fs->ward->guard->held -= less;
}

bool flows_hold_much(const struct flows *fs)
{
    const struct guard *g = fs->ward->guard;

    return fs->held > FLOW_HELD_MAX ||
           !has_share(g, FLOW_HELD_ALL_MAX, g->held, fs->held);
}

static bool may_open(const struct flows *fs)
{
    const struct guard *g = fs->ward->guard;

    return g->flows_max == 0 || has_share(g, g->flows_max, g->flows_open, fs->count);
}

/* Before anything is asked or read. False: refused. */
static bool admit(struct flow *f)
{
    struct flows *fs = f->flows;
    const char *limit;
    struct verdict v;
    bool would_refuse;
    char why[64];

    if (is_own(fs, &f->to)) {
        flow_verdict(&v, VERDICT_FLOOR, "floor: the guard's own listener");
        flow_refuse(f, &v);
        return false;
    }
    (void)flow_may(f, NULL, &f->meant, &v, &would_refuse);
    if (v.stage == VERDICT_FLOOR) {
        flow_refuse(f, &v);
        return false;
    }
    if (fs->count > FLOWS_MAX) {
        flow_verdict(&v, VERDICT_LIMIT, "limit of the guard: %d connections at once",
                     FLOWS_MAX);
        flow_refuse(f, &v);
        return false;
    }
    if (!may_open(fs)) {
        flow_verdict(&v, VERDICT_LIMIT,
                     "limit of the guard: this sandbox's part of %zu connections at once",
                     fs->ward->guard->flows_max);
        flow_refuse(f, &v);
        return false;
    }
    limit = flow_limit_enter(fs->all, loop_now(flows_loop(fs)), why);
    if (limit) {
        flow_verdict(&v, VERDICT_LIMIT, "limit of the sandbox: %s", limit);
        flow_refuse(f, &v);
        return false;
    }
    f->is_counted = true;
    return true;
}

void flows_take(struct flows *fs, int *take_fd, const struct sock_addr *from,
                const struct sock_addr *to)
{
    struct flow *f;

    if (sock_port(to) == 53) {
        if (fs->ward->dns)
            dns_server_take_tcp(fs->ward->dns, take_fd);
        sock_reset(take_fd);
        return;
    }
    fs->ward->counts.connects++;
    f = flow_new(fs, take_fd, from, to);
    if (!f)
        return;
    f->check = policy_check(fs->ward->policy, f->port);
    if (!loop_timer_is_on(&fs->tick))
        loop_timer_start(&fs->tick, FLOW_TICK_MS);
    if (admit(f))
        flow_begin(f);
}

static void want_accept(struct flows *fs, bool on)
{
    for (int i = 0; i < 2; i++)
        if (fs->io[i])
            loop_io_want(fs->io[i], on ? LOOP_READ : 0);
}

static void on_accept_pause(void *arg)
{
    want_accept(arg, true);
}

/* Descriptors or memory are used up, here or on the machine. What waits is not lost, and
 * others may have ended in a moment. */
static void pause_accept(struct flows *fs, int error)
{
    log_warn("egress.accept", "sandbox=%s error=%s", fs->ward->name,
             log_q(strerror(error)));
    want_accept(fs, false);
    loop_timer_start(&fs->accept_pause, ACCEPT_PAUSE_MS);
}

static void accept_some(struct flows *fs, int listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sock_addr from, to;
        int fd = sock_accept(listener, &from);

        if (fd < 0) {
            if (errno != EAGAIN)
                pause_accept(fs, errno);
            return;
        }
        if (sock_local(fd, &to) < 0) {
            sock_reset(&fd);
            continue;
        }
        flows_take(fs, &fd, &from, &to);
    }
}

static void on_accept4(void *arg, unsigned events)
{
    struct flows *fs = arg;

    UNUSED_ARG(events);
    accept_some(fs, fs->fd[0]);
}

static void on_accept6(void *arg, unsigned events)
{
    struct flows *fs = arg;

    UNUSED_ARG(events);
    accept_some(fs, fs->fd[1]);
}

/* -- time and change ----------------------------------------------------------------- */

static void on_reap(void *arg)
{
    struct flows *fs = arg;
    struct flow *f;

    while ((f = fs->dead) != NULL) {
        fs->dead = f->next;
        flow_free(f);
    }
}

/* A flow that is decided again may end, and then only itself leaves the list. */
static void each_open(struct flows *fs, bool (*which)(const struct flow *, int64_t now_s))
{
    int64_t now_s = clock_wall_s();
    struct flow *f, *next;

    for (f = fs->open; f; f = next) {
        next = f->next;
        if (which(f, now_s))
            flow_decide_again(f);
    }
}

static bool has_expired(const struct flow *f, int64_t now_s)
{
    const struct policy_rule *r = f->verdict.rule;

    return r && r->expires_s && now_s >= r->expires_s;
}

static bool is_any(const struct flow *f, int64_t now_s)
{
    UNUSED_ARG(f);
    UNUSED_ARG(now_s);
    return true;
}

static void on_tick(void *arg)
{
    struct flows *fs = arg;

    each_open(fs, has_expired);
    if (fs->open)
        loop_timer_start(&fs->tick, FLOW_TICK_MS);
}

/* Those that find nothing left wait again. Reads are small where there is a rate, so no
 * one takes all of it. */
static void on_refill(void *arg)
{
    struct flows *fs = arg;
    struct flow *f;

    while ((f = fs->paused) != NULL) {
        flow_unpause(f);
        flow_want(f);
    }
}

static bool names_rule(const struct policy *p, const struct flow_limit *l)
{
    size_t n, i;
    const struct policy_rule *r = policy_rules(p, &n);

    for (i = 0; i < n; i++)
        if (r[i].has_limits && r[i].list == l->list && strcmp(r[i].text, l->rule) == 0)
            return true;
    return false;
}

/* What a rule has used up stays used up while the rule stands in the policy. */
static void drop_limits(struct flows *fs)
{
    struct flow_limit **at = &fs->rule, *l;

    while ((l = *at) != NULL) {
        if (l->open > 0 || names_rule(fs->ward->policy, l)) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        flow_limit_free(l);
    }
}

void flows_reload(struct flows *fs)
{
    fs->all->limits = *policy_limits(fs->ward->policy);
    fs->proxy_until_ms = 0;
    each_open(fs, is_any);
    drop_limits(fs);
}

/* -- making -------------------------------------------------------------------------- */

static int listen_at(struct flows *fs, int i, loop_io_fn *fn, struct err *e)
{
    if (fs->fd[i] < 0)
        return 0;
    if (sock_local(fs->fd[i], &fs->at[i]) < 0)
        return err_sys(e, "flows: a listener has no address: %s", strerror(errno));
    fs->io[i] = loop_io_start(flows_loop(fs), fs->fd[i], fn, fs, e);
    if (!fs->io[i])
        return -1;
    loop_io_want(fs->io[i], LOOP_READ);
    return 0;
}

struct flows *flows_new(struct ward *w, int take_tcp[2], struct err *e)
{
    struct flows *fs = mem_zalloc(1, sizeof(*fs));

    if (!fs) {
        sock_close(&take_tcp[0]);
        sock_close(&take_tcp[1]);
        (void)err_set(e, ERR_NOMEM, "flows: no memory");
        return NULL;
    }
    fs->ward = w;
    fs->pipe[0] = fs->pipe[1] = -1;
    for (int i = 0; i < 2; i++) {
        fs->fd[i] = take_tcp[i];
        take_tcp[i] = -1;
    }
    loop_timer_init(&fs->accept_pause, w->guard->loop, on_accept_pause, fs);
    loop_timer_init(&fs->tick, w->guard->loop, on_tick, fs);
    loop_timer_init(&fs->refill, w->guard->loop, on_refill, fs);
    loop_job_init(&fs->reap, w->guard->loop, on_reap, fs);
    fs->all = flow_limit_new(NULL, policy_limits(w->policy));
    if (!fs->all)
        (void)err_set(e, ERR_NOMEM, "flows: no memory");
    if (!fs->all || listen_at(fs, 0, on_accept4, e) < 0 ||
        listen_at(fs, 1, on_accept6, e) < 0) {
        flows_free(fs);
        return NULL;
    }
    return fs;
}

void flows_free(struct flows *fs)
{
    struct flow_limit *l;

    if (!fs)
        return;
    while (fs->open)
        flow_end(fs->open, FLOW_GUARD);
    loop_job_cancel(&fs->reap);
    on_reap(fs);
    loop_timer_stop(&fs->accept_pause);
    loop_timer_stop(&fs->tick);
    loop_timer_stop(&fs->refill);
    for (int i = 0; i < 2; i++) {
        loop_io_stop(&fs->io[i]);
        sock_close(&fs->fd[i]);
    }
    while ((l = fs->rule) != NULL) {
        fs->rule = l->next;
        flow_limit_free(l);
    }
    flow_limit_free(fs->all);
    tls_ctx_free(fs->proxy_tls);
    buf_done(&fs->out);
    flow_pipe_done(fs);
    mem_free(fs);
}
