/* SPDX-License-Identifier: MIT */
/*
 * Theory. An operation has two halves. The kernel's is done at once and wholly, or not at all;
 * the guard's is waited for. Add: the kernel first (everything refused), then the guard, then it
 * is in force. Reload: the guard first, which cuts what is no longer allowed, then the kernel;
 * when the kernel refuses, the guard is given the old policy again. Remove: the guard first, so
 * that its records are written, then the kernel. A guard that dies meanwhile is started again and
 * given everything, so an operation goes on with the next one until its deadline.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

static void on_deadline(void *arg);
static void on_removed(void *arg);

/* -- small things ----------------------------------------------------------------------------------- */

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

static uint64_t wall_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t); /* this clock is always there */
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void keeper_event(struct keeper *k, const struct kept *s, const char *event,
                  const char *text)
{
    struct audit_record r = {.kind = AUDIT_EVENT, .by = "keeper", .uid = UINT32_MAX};

    r.event = event;
    r.sandbox = s ? s->name : NULL;
    r.hash = s ? policy_hash(s->policy) : NULL;
    r.text = text;
    r.started_ms = r.ended_ms = wall_ms();
    audit_write(k->audit, &r);
    log_notice("egress.event", "what=%s sandbox=%s text=%s", event, s ? s->name : "-",
               text ? log_q(text) : "\"\"");
}

/* -- a sandbox -------------------------------------------------------------------------------------- */

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

static void kept_free(struct kept *s)
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

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = mem_alloc(n);

    return p ? memcpy(p, text, n) : NULL;
}

static struct kept *kept_new(struct keeper *k, const struct keeper_add *a,
                             struct netns **ns)
{
    struct kept *s = mem_zalloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->keeper = k;
    s->rt_fd = s->diag_fd = s->news_fd = s->pid_fd = -1;
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
    if ((a->ns_path && !(s->ns_path = copy_text(a->ns_path))) ||
        (a->iface && !(s->iface = copy_text(a->iface)))) {
        kept_free(s);
        return NULL;
    }
    return s;
}

static void kept_link(struct kept *s)
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

/* -- how operations end ------------------------------------------------------------------------------ */

static void begin(struct kept *s, enum kept_op op, keeper_done_fn *fn, void *arg,
                  uint64_t ms)
{
    s->op = op;
    s->done = fn;
    s->done_arg = arg;
    loop_timer_start(&s->deadline, ms);
}

void kept_end_op(struct kept *s, const struct err *e)
{
    keeper_done_fn *fn = s->done;

    loop_timer_stop(&s->deadline);
    s->op = OP_NONE;
    s->done = NULL;
    if (fn)
        fn(s->done_arg, e);
}

static void drop_rules(struct kept *s)
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
    drop_rules(s);
    begin(s, OP_NONE, NULL, NULL, KEEPER_REMOVE_MS);
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
    kept_end_op(s, &copy);
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
    kept_end_op(s, NULL);
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
        kept_end_op(s, NULL);
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

/* -- the end of a sandbox ---------------------------------------------------------------------------- */

static void finish_remove(struct kept *s)
{
    bool was_adding = s->op != OP_REMOVE; /* fail_add() has dropped its rules */
    keeper_done_fn *fn = s->done;
    struct keeper *k = s->keeper;
    void *arg = s->done_arg;

    if (!was_adding) {
        drop_rules(s);
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

void kept_removed(struct kept *s, uint32_t seq)
{
    UNUSED_ARG(seq); /* a sandbox is removed once */
    if (s->state == KEPT_REMOVING)
        finish_remove(s);
}

static void start_remove(struct kept *s, keeper_done_fn *fn, void *arg)
{
    state_forget(s);
    begin(s, OP_REMOVE, fn, arg, KEEPER_REMOVE_MS);
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
    start_remove(s, NULL, NULL);
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

/* -- add ---------------------------------------------------------------------------------------------- */

static int check_add(struct keeper *k, const struct keeper_add *a, struct err *e)
{
    char id[HOST_ID_MAX + 1];

    if (!a->policy || !*a->take_ns)
        return err_set(e, ERR_CONFIG, "a sandbox needs a policy and a namespace");
    if (host_id_parse(span_str(a->name), id) < 0 || strcmp(id, a->name) != 0)
        return err_set(
            e, ERR_CONFIG,
            "\"%.45s\" is no sandbox name: 1 to 40 of a-z 0-9 -, no - at the ends",
            a->name);
    if (keeper_find(k, a->name))
        return err_set(e, ERR_LIMIT, "a sandbox %s is here already", a->name);
    if (k->n >= KEEPER_SANDBOXES_MAX)
        return err_set(e, ERR_LIMIT, "there are %d sandboxes already",
                       KEEPER_SANDBOXES_MAX);
    if (a->tier == EGRESS_VETH && !k->host)
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
    /* Bound to the way its packets come by: nobody else reaches them. */
    if (sealed_listen(s, NULL, true, s->veth.way, e) < 0)
        return -1;
    if (s->keeper->host_nflog_fd >= 0)
        s->fd[CHANNEL_FD_NFLOG] = fcntl(s->keeper->host_nflog_fd, F_DUPFD_CLOEXEC, 0);
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

int keeper_add(struct keeper *k, const struct keeper_add *a, keeper_done_fn *fn,
               void *arg, struct err *e)
{
    struct netns *ns = NULL;
    struct err why;
    struct kept *s;

    if (check_add(k, a, e) < 0 || check_ns(k, a, e) < 0) {
        netns_free(*a->take_ns);
        *a->take_ns = NULL;
        return -1;
    }
    ns = *a->take_ns;
    *a->take_ns = NULL;
    s = kept_new(k, a, &ns);
    netns_free(ns); /* NULL when it was taken */
    if (!s)
        return err_set(e, ERR_NOMEM, "no memory for a sandbox");
    kept_link(s);
    if (kept_make(s, &why) < 0) {
        drop_rules(s);
        kept_free(s);
        if (e)
            *e = why;
        return -1;
    }
    s->is_verified = true;
    if (host_update(k, &why) < 0)
        log_err("host.update", "error=%s", log_e(&why));
    begin(s, OP_ADD, fn, arg, KEEPER_FORCE_MS);
    s->to_send = SEND_SANDBOX;
    guard_push(k);
    return 0;
}

/* -- after a restart ----------------------------------------------------------------------------------- */

/* Its rules as they were, whatever its interface says now, and even where something breaks them: to
 * give it up would open it. */
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
    if (sealed_listen(s, NULL, true, s->veth.way, e) < 0)
        return -1;
    if (s->keeper->host_nflog_fd >= 0)
        s->fd[CHANNEL_FD_NFLOG] = fcntl(s->keeper->host_nflog_fd, F_DUPFD_CLOEXEC, 0);
    s->has_rules = true; /* host_update() puts them there, all in one batch */
    return 0;
}

int keeper_adopt(struct keeper *k, const struct keeper_add *a, const struct veth *was,
                 struct err *e)
{
    struct netns *ns = NULL;
    struct err why;
    struct kept *s;
    int rc;

    if (check_add(k, a, e) < 0 || check_ns(k, a, e) < 0) {
        netns_free(*a->take_ns);
        *a->take_ns = NULL;
        return -1;
    }
    ns = *a->take_ns;
    *a->take_ns = NULL;
    s = kept_new(k, a, &ns);
    netns_free(ns); /* NULL when it was taken */
    if (!s)
        return err_set(e, ERR_NOMEM, "no memory for a sandbox");
    kept_link(s);
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

/* -- reload, remove ------------------------------------------------------------------------------------ */

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
    begin(s, OP_RELOAD, fn, arg, KEEPER_FORCE_MS);
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
    start_remove(s, fn, arg);
    return 0;
}

/* -- life ---------------------------------------------------------------------------------------------- */

/* The host's table of the last keeper stands until that of all its sandboxes takes its place in
 * one batch; when that cannot be, nothing is touched and all stay closed. */
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
    k->host_news_fd = k->host_rt_fd = k->host_rt_news_fd = k->host_nflog_fd = -1;
    k->by_index = mem_zalloc(CHANNEL_INDEX_MAX + 1, sizeof *k->by_index);
    k->audit = audit_new(conf->audit_fd);
    k->state_dir = conf->state_dir ? copy_text(conf->state_dir) : NULL;
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
