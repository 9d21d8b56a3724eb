/* SPDX-License-Identifier: MIT */
/*
 * What breaks enforcement is noticed by news where the kernel sends news (nftables, the
 * sandbox's process) and by looking where it does not. Another program's flush is undone
 * at once, and recorded; what cannot be undone is a reason in `status`.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/egress/kernel/rt.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    RESTORES_PER_S =
        5,          /* more wait for the next round: two programs at odds must not spin */
    HURRY_MAX = 64, /* compared in one second when news were lost */
    HOST_ROUNDS =
        10, /* its table is dumped whole, so not in each; news come by themselves */
};

/* -- rules --------------------------------------------------------------------------- */

/* The guard puts its pins there again when it is given its policy. */
static void give_again(struct kept *s)
{
    s->restored++;
    if (s->is_given)
        s->to_send |= SEND_POLICY;
    guard_push(s->keeper);
}

static int restore_sealed(struct kept *s, struct err *e)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct nft_sandbox rules;

    kept_fill(s, s->policy, &rules);
    if (nft_restore(s->nft, &base, &rules, 1, e) < 0)
        return err_wrap(e, "restoring the rules");
    return 0;
}

static void set_reason(struct kept *s, const char *why)
{
    s->is_verified = false;
    (void)snprintf(s->reason, sizeof s->reason, "%s", why);
}

static void verify_sealed(struct kept *s)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct nft_sandbox rules;
    struct err e, why;

    if (!s->has_rules)
        return;
    kept_fill(s, s->policy, &rules);
    if (nft_verify(s->nft, &base, &rules, 1, &why) == 0) {
        s->is_verified = true;
        s->wants_verify = false;
        if (s->is_given)
            s->reason[0] = '\0';
        return;
    }
    set_reason(s, why.msg);
    if (why.code != ERR_DENIED && why.code != ERR_NOTFOUND) {
        log_warn("rules.verify", "sandbox=%s error=%s", s->name, log_e(&why));
        return;
    }
    if (!kept_rate_ok(&s->restore_rate, loop_now(s->keeper->loop), RESTORES_PER_S))
        return; /* wants_verify stays */
    if (restore_sealed(s, &e) < 0) {
        set_reason(s, e.msg);
        log_err("rules.restore", "sandbox=%s error=%s", s->name, log_e(&e));
        return;
    }
    s->is_verified = true;
    s->reason[0] = '\0';
    keeper_event(s->keeper, s, "rules.restored", why.msg);
    give_again(s);
}

static int compare_host(struct keeper *k, struct err *e)
{
    struct nft_base base;
    size_t n;
    struct nft_sandbox *all = host_sandboxes(k, &n);
    int rc;

    if (!all)
        return err_set(e, ERR_NOMEM, "no memory to compare the host's rules");
    host_base(k, &base);
    rc = nft_verify(k->host, &base, all, n, e);
    mem_free(all);
    return rc;
}

static void verify_host(struct keeper *k)
{
    struct err e, why;

    if (!k->host)
        return;
    if (compare_host(k, &why) == 0) {
        k->wants_host_verify = false;
        k->host_reason[0] = '\0';
        return;
    }
    (void)snprintf(k->host_reason, sizeof k->host_reason, "%s", why.msg);
    if (why.code != ERR_DENIED && why.code != ERR_NOTFOUND) {
        log_warn("rules.verify", "sandbox=- error=%s", log_e(&why));
        return;
    }
    if (!kept_rate_ok(&k->restore_rate, loop_now(k->loop), RESTORES_PER_S))
        return;
    if (host_restore(k, &e) < 0) {
        (void)snprintf(k->host_reason, sizeof k->host_reason, "%s", e.msg);
        log_err("rules.restore", "sandbox=- error=%s", log_e(&e));
        return;
    }
    keeper_event(k, NULL, "rules.restored", why.msg);
    for (struct kept *s = k->kept; s; s = s->next)
        if (s->tier == EGRESS_VETH && s->has_rules)
            s->restored++;
}

void watch_sealed(struct kept *s)
{
    s->wants_verify = true;
    verify_sealed(s);
}

void watch_host(struct keeper *k)
{
    k->wants_host_verify = true;
    verify_host(k);
}

/* -- does it still live? ------------------------------------------------------------- */

static int look_at_ns(const struct kept *s, struct stat *ret)
{
    char path[64];

    if (s->ns_path)
        return stat(s->ns_path, ret);
    (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)s->pid);
    return stat(path, ret);
}

/* What it left in queues, and others that share its network, would outlive the rules. */
static void on_process_end(void *arg, unsigned events)
{
    struct kept *s = arg;
    struct err e;

    UNUSED_ARG(events);
    loop_io_stop(&s->pid_io);
    if (s->tier == EGRESS_VETH &&
        rt_link_down(s->keeper->host_rt_fd, s->veth.port_index, &e) < 0) {
        log_err("sandbox.end", "sandbox=%s error=%s", s->name, log_e(&e));
        return; /* its rules stay */
    }
    kept_vanished(s, "its process ended");
}

static int watch_process(struct kept *s, struct err *e)
{
    s->pid_fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    if (s->pid_fd < 0)
        return err_sys(e, "watch process %ld of the sandbox", (long)s->pid);
    s->pid_start = state_pid_start(s->pid);
    s->pid_io = loop_io_start(s->keeper->loop, s->pid_fd, on_process_end, s, e);
    if (!s->pid_io)
        return -1;
    loop_io_want(s->pid_io, LOOP_READ);
    return 0;
}

int watch_kept(struct kept *s, struct err *e)
{
    if (s->pid > 0 && watch_process(s, e) < 0)
        return -1;
    if ((s->pid > 0 || s->ns_path) && look_at_ns(s, &s->ns_stat) < 0)
        return err_sys(e, "look at the sandbox's namespace");
    return s->tier == EGRESS_SEALED ? news_watch(s, e) : 0;
}

void watch_forget(struct kept *s)
{
    news_forget(s);
    if (s->pid_io)
        loop_io_stop(&s->pid_io);
    sock_close(&s->pid_fd);
}

/* A namespace file that is gone, or another one's now. */
static bool is_gone(const struct kept *s)
{
    struct stat st;

    if (!s->ns_path || s->ns_stat.st_ino == 0)
        return false;
    return stat(s->ns_path, &st) < 0 || st.st_ino != s->ns_stat.st_ino ||
           st.st_dev != s->ns_stat.st_dev;
}

/* -- the round ----------------------------------------------------------------------- */

/* Its interface has changed on our side: the rules follow, so that it is closed at least.
 * Our listeners are bound to the way its packets came by; when that is another now, it
 * stays closed. */
static void follow_veth(const struct veth_host *h, struct kept *s)
{
    struct nft_sandbox rules;
    struct veth now, was = s->veth;
    struct err e;

    if (veth_follow(h, s->ns, &was, &now, &e) < 0 || veth_is_same(&now, &was))
        return;
    s->veth = now;
    kept_fill(s, s->policy, &rules);
    if (nft_sandbox_set(s->keeper->host, &rules, &e) == 0) {
        keeper_event(s->keeper, s, "interface.changed", NULL);
        if (strcmp(now.way, was.way) != 0)
            (void)snprintf(s->reason, sizeof s->reason,
                           "its packets come by %s now: attach it again", now.way);
        return;
    }
    s->veth = was;
    log_err("interface.follow", "sandbox=%s error=%s", s->name, log_e(&e));
}

static void look_at_veths(struct keeper *k)
{
    struct veth_host *h;
    bool has_any = false;
    struct err e;

    for (const struct kept *s = k->kept; s && !has_any; s = s->next)
        has_any = s->tier == EGRESS_VETH && s->has_rules;
    if (!has_any)
        return;
    h = veth_host_look(&e);
    if (!h) {
        log_warn("veth.look", "error=%s", log_e(&e));
        (void)snprintf(k->host_reason, sizeof k->host_reason, "%s", e.msg);
        return;
    }
    for (struct kept *s = k->kept; s; s = s->next) {
        if (s->tier != EGRESS_VETH || !s->has_rules)
            continue;
        veth_breakers(h, s->ns, &s->veth, &s->veth_reasons);
        if (s->veth_reasons.n == 0)
            continue;
        follow_veth(h, s);
        veth_breakers(h, s->ns, &s->veth, &s->veth_reasons);
    }
    veth_host_free(h);
}

/* What a sealed sandbox must not have: an interface. */
static void look_at_sealed(struct kept *s)
{
    struct err e;

    verify_sealed(s);
    if (s->is_verified && veth_none(s->ns, &e) < 0)
        set_reason(s, e.msg);
}

/* In so many steps a second, each short: the guard's questions wait for no more than one
 * of them. */
static unsigned steps(const struct keeper *k)
{
    if (k->n == 0)
        return 1;
    return k->n < KEEPER_VERIFY_MAX ? (unsigned)k->n : KEEPER_VERIFY_MAX;
}

/* Those that could not be restored at once. */
static void verify_touched(struct keeper *k)
{
    for (struct kept *s = k->kept; s; s = s->next)
        if (s->tier == EGRESS_SEALED && s->wants_verify && s->state != KEPT_REMOVING)
            verify_sealed(s);
}

/* The next after those of the last step. */
static void verify_some(struct keeper *k)
{
    uint32_t i = k->verify_at;
    unsigned n = 0, max = k->hurry > 0 ? HURRY_MAX / KEEPER_VERIFY_MAX : 1;

    for (uint32_t looked = 0; k->n > 0 && looked < k->top_index && n < max; looked++) {
        i = i % k->top_index + 1;
        if (k->by_index[i] && k->by_index[i]->tier == EGRESS_SEALED &&
            k->by_index[i]->state != KEPT_REMOVING) {
            look_at_sealed(k->by_index[i]);
            n++;
        }
    }
    k->hurry = k->hurry > n && n > 0 ? k->hurry - n : 0;
    k->verify_at = i;
}

static void ask_counts(struct keeper *k)
{
    uint32_t i = k->ask_at;
    unsigned n = 0, max = (KEEPER_ASK_MAX + steps(k) - 1) / steps(k);

    for (uint32_t looked = 0; k->n > 0 && looked < k->top_index && n < max; looked++) {
        i = i % k->top_index + 1;
        if (k->by_index[i] && k->by_index[i]->is_given) {
            k->by_index[i]->to_send |= SEND_STATUS;
            n++;
        }
    }
    k->ask_at = i;
}

static void look_at_guard(struct keeper *k)
{
    struct keeper_guard *g = &k->guard;
    uint64_t now = loop_now(k->loop);
    bool has_any = false;

    if (!g->is_ready)
        return;
    for (struct kept *s = k->kept; s; s = s->next) {
        has_any = has_any || s->is_given;
        if (!s->is_given && s->seq == 0 && !s->to_send && s->state == KEPT_CLOSED)
            s->to_send =
                SEND_SANDBOX; /* it was refused; what was missing may be there now */
    }
    if (!has_any)
        g->heard_ms = now; /* nothing that it had to answer */
    else if (now - g->heard_ms > KEEPER_ALIVE_MS)
        guard_kill(k, "it answers no more");
}

static void on_step(void *arg)
{
    struct keeper *k = arg;

    loop_timer_start(&k->step, KEEPER_CHECK_MS / steps(k));
    verify_some(k);
    ask_counts(k);
    guard_push(k);
}

static void on_check(void *arg)
{
    struct keeper *k = arg;
    struct err e;

    loop_timer_start(&k->check, KEEPER_CHECK_MS);
    for (struct kept *s = k->kept, *next; s; s = next) {
        next = s->next;
        if (is_gone(s))
            kept_vanished(s, "its namespace is gone");
    }
    if (host_update(k, &e) < 0) {
        log_err("host.update", "error=%s", log_e(&e));
        (void)snprintf(k->host_reason, sizeof k->host_reason, "%s", e.msg);
    }
    if (k->wants_host_verify || ++k->rounds % HOST_ROUNDS == 0)
        verify_host(k);
    look_at_veths(k);
    news_resume(k);
    verify_touched(k);
    look_at_guard(k);
    guard_push(k);
}

void watch_start(struct keeper *k)
{
    loop_timer_init(&k->check, k->loop, on_check, k);
    loop_timer_start(&k->check, KEEPER_CHECK_MS);
    loop_timer_init(&k->step, k->loop, on_step, k);
    loop_timer_start(&k->step, KEEPER_CHECK_MS);
}

void watch_stop(struct keeper *k)
{
    loop_timer_stop(&k->step);
    loop_timer_stop(&k->check);
}
