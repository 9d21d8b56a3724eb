/* SPDX-License-Identifier: MIT */
/*
 * Theory. An operation has two halves. The kernel's is done at once and wholly, or not at
 * all; the guard's is waited for. Add: the kernel first (everything refused), then the
 * guard, then it is in force. Reload: the guard first, which cuts what is no longer
 * allowed, then the kernel; when the kernel refuses, the guard is given the old policy
 * again. Remove: the guard first, so that its records are written, then the kernel. A
 * guard that dies meanwhile is started again and given everything, so an operation goes
 * on with the next one until its deadline.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"

/* -- add ----------------------------------------------------------------------------- */

static int check_add(struct keeper *k, const struct keeper_add *a, struct err *e)
{
    if (!a->policy || !*a->take_ns)
        return err_set(e, ERR_CONFIG, "a sandbox needs a policy and a namespace");
    if (sandbox_name_check(a->name, e) < 0)
        return -1;
    if (keeper_find(k, a->name))
        return err_set(e, ERR_LIMIT, "a sandbox %s is here already", a->name);
    if (k->n >= KEEPER_SANDBOXES_MAX)
        return err_set(e, ERR_LIMIT, "there are %d sandboxes already",
                       KEEPER_SANDBOXES_MAX);
    if (a->tier == EGRESS_VETH && k->conf.host != KEEPER_HOST_ALL)
        return err_set(e, ERR_DENIED,
                       "a sandbox with an interface needs the host's rules, which only "
                       "agentd egress serve keeps");
    return 0;
}

static int find_veth(struct kept *s, struct err *e)
{
    struct veth_host *h = veth_host_look(e);
    int rc;

    if (!h)
        return err_wrap(e, "looking at the host's interfaces");
    rc = veth_find(h, s->ns, s->iface, &s->veth, e);
    if (rc == 0)
        veth_breakers(h, s->ns, &s->veth, &s->veth_reasons);
    veth_host_free(h);
    return rc;
}

/* Bound to the way its packets come by: nobody else reaches them. */
static int listen_on_host(struct kept *s, struct err *e)
{
    if (sealed_listen(s, true, s->veth.way, e) < 0)
        return -1;
    if (s->keeper->host_nflog_fd >= 0)
        s->fd[CHANNEL_FD_NFLOG] = fcntl(s->keeper->host_nflog_fd, F_DUPFD_CLOEXEC, 0);
    return 0;
}

static int make_veth(struct kept *s, struct err *e)
{
    struct nft_sandbox rules;

    if (find_veth(s, e) < 0)
        return -1;
    if (s->veth_reasons.n > 0)
        return err_set(e, ERR_DENIED, "it could not be enforced: %.150s",
                       s->veth_reasons.text[0]);
    if (host_update(s->keeper, e) < 0)
        return -1;
    if (listen_on_host(s, e) < 0)
        return -1;
    kept_fill(s, s->policy, &rules);
    if (nft_sandbox_set(s->keeper->host, &rules, e) < 0)
        return -1;
    s->has_rules = true;
    return 0;
}

static int kept_make(struct kept *s, struct err *e)
{
    int rc = s->tier == EGRESS_SEALED ? sealed_make(s, e) : make_veth(s, e);

    if (rc == 0)
        rc = watch_kept(s, e);
    return rc;
}

/* One namespace, one sandbox: the rules of a second would be put in the place of the first's
 * (containers may share one: `--network container:X`). */
static int check_ns(const struct keeper *k, const struct keeper_add *a, struct err *e)
{
    char path[64];
    struct stat st;

    if (!a->ns_path && a->pid <= 0)
        return 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)a->pid);
    if (stat(a->ns_path ? a->ns_path : path, &st) < 0)
        return err_sys(e, "look at the sandbox's namespace");
    for (const struct kept *s = k->kept; s; s = s->next)
        if (s->ns_stat.st_ino == st.st_ino && s->ns_stat.st_dev == st.st_dev)
            return err_set(e, ERR_DENIED, "its network namespace is sandbox %s's already",
                           s->name);
    return 0;
}

/* It is one of ours from now on, with nothing made for it yet. NULL with *e; its namespace
 * is taken in all cases. */
static struct kept *take(struct keeper *k, const struct keeper_add *a, struct err *e)
{
    struct kept *s = NULL;

    if (check_add(k, a, e) == 0 && check_ns(k, a, e) == 0) {
        s = kept_new(k, a, a->take_ns);
        if (!s)
            (void)err_set(e, ERR_NOMEM, "no memory for a sandbox"); /* NULL says it */
    }
    netns_free(*a->take_ns); /* NULL when it is the sandbox's now */
    *a->take_ns = NULL;
    if (s)
        kept_link(s);
    return s;
}

int keeper_add(struct keeper *k, const struct keeper_add *a, keeper_done_fn *fn,
               void *arg, struct err *e)
{
    struct kept *s = take(k, a, e);
    struct err why;

    if (!s)
        return -1;
    if (kept_make(s, &why) < 0) {
        kept_drop_rules(s);
        kept_free(s);
        if (e)
            *e = why;
        return -1;
    }
    s->is_verified = true;
    if (host_update(k, &why) < 0)
        log_err("host.update", "error=%s", log_e(&why));
    kept_begin(s, OP_ADD, fn, arg, KEEPER_FORCE_MS);
    s->to_send = SEND_SANDBOX;
    guard_push(k);
    return 0;
}

/* -- after a restart ----------------------------------------------------------------- */

/* Its rules as they were, whatever its interface says now, and even where something
 * breaks them: to give it up would open it. */
static int adopt_veth(struct kept *s, const struct veth *was, struct err *e)
{
    struct veth_host *h = veth_host_look(e);
    struct veth now;
    struct err why;

    if (!h)
        return err_wrap(e, "looking at the host's interfaces");
    s->veth = *was;
    if (veth_follow(h, s->ns, was, &now, &why) == 0 && strcmp(now.way, was->way) == 0)
        s->veth = now;
    veth_breakers(h, s->ns, &s->veth, &s->veth_reasons);
    veth_host_free(h);
    if (listen_on_host(s, e) < 0)
        return -1;
    s->has_rules = true; /* host_update() puts them there, all in one batch */
    return 0;
}

int keeper_adopt(struct keeper *k, const struct keeper_add *a, const struct veth *was,
                 struct err *e)
{
    struct kept *s = take(k, a, e);
    struct err why;
    int rc;

    if (!s)
        return -1;
    rc = s->tier == EGRESS_SEALED ? sealed_make(s, &why) : adopt_veth(s, was, &why);
    if (rc < 0 || watch_kept(s, &why) < 0) {
        kept_free(s); /* a sealed one's table stays there, without a guard */
        if (e)
            *e = why;
        return -1;
    }
    s->is_verified = true;
    s->state = KEPT_CLOSED;
    s->to_send = SEND_SANDBOX;
    return 0;
}

/* -- reload, remove ------------------------------------------------------------------ */

static struct kept *find_idle(struct keeper *k, const char *name, struct err *e)
{
    struct kept *s = keeper_find(k, name);

    if (!s || s->state == KEPT_REMOVING) {
        (void)err_set(e, ERR_NOTFOUND, "no sandbox %.45s", name);
        return NULL;
    }
    if (s->op != OP_NONE) {
        (void)err_set(e, ERR_LIMIT, "sandbox %s is being changed already", s->name);
        return NULL;
    }
    return s;
}

int keeper_reload(struct keeper *k, const char *name, struct policy *p,
                  keeper_done_fn *fn, void *arg, struct err *e)
{
    struct kept *s = find_idle(k, name, e);
    struct err why;

    if (!s)
        return -1;
    s->wanted = policy_ref(p);
    if (host_update(k, &why) < 0) /* what it lets the guard reach is more, never less */
        log_err("host.update", "error=%s", log_e(&why));
    kept_begin(s, OP_RELOAD, fn, arg, KEEPER_FORCE_MS);
    if (!(s->to_send & SEND_SANDBOX))
        s->to_send |= SEND_POLICY;
    guard_push(k);
    return 0;
}

int keeper_remove(struct keeper *k, const char *name, keeper_done_fn *fn, void *arg,
                  struct err *e)
{
    struct kept *s = find_idle(k, name, e);

    if (!s)
        return -1;
    kept_remove(s, fn, arg);
    return 0;
}

/* -- life ---------------------------------------------------------------------------- */

/* The host's table of the last keeper stands until that of all its sandboxes takes its
 * place in one batch; when that cannot be, nothing is touched and all stay closed. */
static int adopt(struct keeper *k, struct err *e)
{
    int rc = state_load(k, e);

    k->is_loading = false;
    if (rc < 0) {
        k->is_host_stale = true; /* keeper_free() leaves what stands */
        return err_wrap(e, "taking over the sandboxes of the last keeper");
    }
    return host_update(k, e);
}

struct keeper *keeper_new(const struct keeper_conf *conf, struct err *e)
{
    struct keeper *k = mem_zalloc(1, sizeof *k);

    if (!k) {
        (void)err_set(e, ERR_NOMEM, "no memory for the keeper");
        return NULL;
    }
    k->loop = conf->loop;
    k->conf = *conf;
    k->guard.fd = k->guard.pid_fd = -1;
    k->news_fd = k->host_rt_fd = k->host_rt_news_fd = k->host_nflog_fd = -1;
    k->nft_port = news_port();
    k->by_index = mem_zalloc(CHANNEL_INDEX_MAX + 1, sizeof(void *));
    k->audit = audit_new(conf->audit_fd);
    k->state_dir = conf->state_dir ? kept_text(conf->state_dir) : NULL;
    k->conf.state_dir = NULL; /* ours is the copy */
    if (!k->by_index || !k->audit || (conf->state_dir && !k->state_dir)) {
        (void)err_set(e, ERR_NOMEM, "no memory for the keeper");
        keeper_free(k);
        return NULL;
    }
    if (host_start(k, e) < 0 || guard_start(k, e) < 0) {
        keeper_free(k);
        return NULL;
    }
    watch_start(k);
    if (k->state_dir && adopt(k, e) < 0) {
        keeper_free(k);
        return NULL;
    }
    return k;
}

void keeper_free(struct keeper *k)
{
    struct err e;

    if (!k)
        return;
    watch_stop(k);
    guard_stop(k);
    host_leave(k);
    (void)err_set(&e, ERR_SYS, "the keeper ends");
    while (k->kept) {
        struct kept *s = k->kept;
        keeper_done_fn *fn = s->done;
        void *arg = s->done_arg;
        bool is_done = s->op == OP_REMOVE;

        kept_free(s);
        if (fn)
            fn(arg, is_done ? NULL : &e);
    }
    host_stop(k);
    audit_free(k->audit);
    mem_free(k->by_index);
    mem_free(k->state_dir);
    mem_free(k);
}
