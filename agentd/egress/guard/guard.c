/* SPDX-License-Identifier: MIT */
/*
 * Theory. The guard has what the keeper gave it and nothing else, so there is nothing to
 * tidy when it is killed. It takes its role before it reads the first byte of the
 * channel. A keeper that breaks the protocol, or does not read what it is told, is left:
 * the guard ends, and the keeper starts another.
 *
 * A sandbox is made whole or not at all. A policy is replaced by making the new one
 * first; then names, pins and flows look at it, in this order, because flows ask pins
 * and pins ask names.
 */
#include "agentd/egress/guard/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "agentd/egress/guard/dns_server.h"
#include "agentd/egress/guard/flows.h"
#include "agentd/egress/guard/keeper_link.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins.h"
#include "agentd/egress/guard/refusals.h"
#include "agentd/egress/guard/ward.h"
#include "agentd/egress/keeper/role.h"
#include "agentd/egress/policy/learn.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"
#include "common/tls.h"

struct guard_process {
    struct guard guard; /* what wards see */
    struct ip_net floor[CHANNEL_FLOOR_MAX];
    struct refusals *refusals; /* the watches that wards share */
    int audit_fd;
    bool is_greeted, has_failed;
    struct ward **wards; /* CHANNEL_INDEX_MAX + 1 */
};

/* The channel cannot be kept: fail closed. */
static void stop(struct guard_process *g, const struct err *why)
{
    log_err("guard.stop", "error=%s", log_e(why));
    g->has_failed = true;
    loop_stop(g->guard.loop);
}

static void say(struct guard_process *g, const struct channel_msg *m)
{
    struct err e = {0};

    if (keeper_link_send(g->guard.keeper, m, &e) < 0)
        stop(g, &e);
}

/* The answer to `asked`, without more to say. */
static void answer(struct guard_process *g, enum channel_type type,
                   const struct channel_msg *asked)
{
    struct channel_msg m;

    channel_msg_init(&m, type, asked->sandbox);
    m.seq = asked->seq;
    say(g, &m);
}

static void refuse(struct guard_process *g, const struct channel_msg *asked,
                   const struct err *why)
{
    struct channel_msg m;

    channel_msg_init(&m, CHANNEL_REFUSED, asked->sandbox);
    m.seq = asked->seq;
    memcpy(m.text, why->msg, strnlen(why->msg, sizeof(why->msg) - 1));
    say(g, &m);
}

/* -- policies ------------------------------------------------------------------------ */

/* What the keeper sends is flattened: nothing is read for it. */
static struct policy *policy_in(int fd, struct err *e)
{
    struct buf text = BUF_INIT;
    struct policy_faults *faults = mem_zalloc(1, sizeof(*faults));
    struct policy *p = NULL;

    if (faults == NULL) {
        err_set(e, ERR_NOMEM, "no memory for a policy");
    } else if (channel_text_in(fd, POLICY_TEXT_MAX, &text, e) == 0) {
        p = policy_compile(buf_span(&text), NULL, faults);
        if (p == NULL && policy_faults_err(faults, e) < 0)
            (void)err_wrap(e, "the policy"); /* the caller returns it */
    }
    if (text.len > 0)
        explicit_bzero(text.p, text.len); /* credentials of a proxy are in it */
    buf_done(&text);
    mem_free(faults);
    return p;
}

/* -- what mode learn proposes -------------------------------------------------------- */

static void propose(struct guard_process *g, struct ward *w)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct audit_record r = {.kind = AUDIT_EVENT,
                             .sandbox = w->name,
                             .event = "policy.proposed",
                             .by = "guard"};
    struct channel_msg m;
    struct err e = {0};

    channel_msg_init(&m, CHANNEL_PROPOSAL, w->index);
    if (learn_print(w->learn, w->policy, clock_wall_s(), w->name, &text) < 0 ||
        buf_add(&text, "", 1) < 0) {
        log_err("guard.proposal", "sandbox=%s error=%s", w->name, log_q("no memory"));
        return;
    }
    r.hash = policy_hash(w->policy);
    r.text = (const char *)text.p;
    audit_write(g->guard.audit, &r);
    if (learn_dropped(w->learn) > 0)
        log_warn("guard.proposal", "sandbox=%s left_out=%zu", w->name,
                 learn_dropped(w->learn));
    m.fd[CHANNEL_FD_POLICY] = channel_text_out(text.p, text.len - 1, &e);
    if (m.fd[CHANNEL_FD_POLICY] < 0)
        log_err("guard.proposal", "sandbox=%s error=%s", w->name, log_e(&e));
    else
        say(g, &m);
    channel_msg_done(&m);
}

/* Learning begins, goes on or ends with the policy's mode. */
static int learn_as(struct guard_process *g, struct ward *w, const struct policy *p,
                    struct err *e)
{
    bool wants = policy_mode(p) == POLICY_LEARN;

    if (wants && w->learn == NULL) {
        w->learn = learn_new();
        if (w->learn == NULL)
            return err_set(e, ERR_NOMEM, "no memory to learn");
    } else if (!wants && w->learn != NULL) {
        propose(g, w);
        learn_free(w->learn);
        w->learn = NULL;
    }
    return 0;
}

/* -- wards --------------------------------------------------------------------------- */

static struct ward *ward_at(void *arg, uint32_t index)
{
    struct guard_process *g = arg;

    return index <= CHANNEL_INDEX_MAX ? g->wards[index] : NULL;
}

/* Legal in every state. Flows and questions first: they use the rest. */
static void ward_end(struct ward *w)
{
    dns_server_free(w->dns);
    flows_free(w->flows);
    names_free(w->names);
    pins_free(w->pins);
    refusals_leave(&w->refusals);
    policy_unref(w->policy);
    learn_free(w->learn);
    sock_close(&w->pin_fd);
    mem_free(w);
}

static int take(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* Descriptors that are not used because something failed before are closed
 * with the message. */
static int ward_fill(struct guard_process *g, struct ward *w, struct channel_msg *m,
                     struct err *e)
{
    int two[2];

    w->policy = policy_in(m->fd[CHANNEL_FD_POLICY], e);
    if (w->policy == NULL || learn_as(g, w, w->policy, e) < 0)
        return -1;
    w->pins = pins_new(w, e);
    w->names = w->pins != NULL ? names_new(w, e) : NULL;
    if (w->names == NULL)
        return -1;
    two[0] = take(&m->fd[CHANNEL_FD_TCP4]);
    two[1] = take(&m->fd[CHANNEL_FD_TCP6]);
    w->flows = flows_new(w, two, e);
    if (w->flows == NULL)
        return -1;
    two[0] = take(&m->fd[CHANNEL_FD_UDP4]);
    two[1] = take(&m->fd[CHANNEL_FD_UDP6]);
    w->dns = dns_server_new(w, two, e);
    if (w->dns == NULL)
        return -1;
    if (m->fd[CHANNEL_FD_NFLOG] < 0)
        return 0;
    w->refusals = refusals_join(&g->refusals, g->guard.loop, &m->fd[CHANNEL_FD_NFLOG],
                                ward_at, g, e);
    return w->refusals != NULL ? 0 : -1;
}

static void on_sandbox(struct guard_process *g, struct channel_msg *m)
{
    struct ward *w;
    struct err e = {0};

    if (g->wards[m->sandbox] != NULL) {
        err_set(&e, ERR_PROTO, "there is a sandbox with this index");
        refuse(g, m, &e);
        return;
    }
    w = mem_zalloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(&e, ERR_NOMEM, "no memory for a sandbox");
        refuse(g, m, &e);
        return;
    }
    w->guard = &g->guard;
    w->index = m->sandbox;
    w->tier = m->tier;
    w->tag = m->tag;
    w->pin_fd = take(&m->fd[CHANNEL_FD_PIN]);
    memcpy(w->name, m->name, sizeof(w->name));
    if (ward_fill(g, w, m, &e) < 0) {
        ward_end(w);
        refuse(g, m, &e);
        return;
    }
    g->wards[w->index] = w;
    g->guard.n_wards++;
    answer(g, CHANNEL_IN_FORCE, m);
}

static void ward_reload(struct ward *w)
{
    names_reload(w->names);
    pins_reload(w->pins);
    flows_reload(w->flows);
}

static void on_policy(struct guard_process *g, struct ward *w, struct channel_msg *m)
{
    struct err e = {0};
    struct policy *p = policy_in(m->fd[CHANNEL_FD_POLICY], &e);
    struct policy *old = w->policy;

    if (p == NULL || learn_as(g, w, p, &e) < 0) {
        policy_unref(p);
        refuse(g, m, &e);
        return;
    }
    w->policy = p;
    w->tag = m->tag;
    ward_reload(w);
    policy_unref(old);
    answer(g, CHANNEL_IN_FORCE, m);
}

static void on_remove(struct guard_process *g, struct ward *w,
                      const struct channel_msg *m)
{
    g->wards[w->index] = NULL;
    g->guard.n_wards--;
    if (w->learn != NULL)
        propose(g, w);
    ward_end(w);
    answer(g, CHANNEL_REMOVED, m);
}

static void on_status(struct guard_process *g, const struct ward *w,
                      const struct channel_msg *asked)
{
    struct channel_msg m;

    channel_msg_init(&m, CHANNEL_COUNTS, w->index);
    m.seq = asked->seq;
    m.counts = w->counts;
    m.counts.pins = (uint32_t)pins_count(w->pins);
    m.counts.audit_lost = audit_lost(g->guard.audit);
    say(g, &m);
}

/* -- messages ------------------------------------------------------------------------ */

static void surroundings(struct guard_process *g, const struct channel_msg *m)
{
    memcpy(g->floor, m->floor, m->n_floor * sizeof(m->floor[0]));
    g->guard.floor = (struct floor){.net = g->floor, .n = m->n_floor};
    memcpy(g->guard.resolvers, m->text, sizeof(g->guard.resolvers));
}

static void on_hello(struct guard_process *g, struct channel_msg *m)
{
    struct channel_msg ready;
    struct err e = {0};

    g->audit_fd = take(&m->fd[CHANNEL_FD_AUDIT]);
    g->guard.audit = audit_new(g->audit_fd);
    if (g->guard.audit == NULL) {
        err_set(&e, ERR_NOMEM, "no memory for the audit");
        stop(g, &e);
        return;
    }
    surroundings(g, m);
    g->is_greeted = true;
    channel_msg_init(&ready, CHANNEL_READY, 0);
    say(g, &ready);
}

static void on_floor(struct guard_process *g, const struct channel_msg *m)
{
    surroundings(g, m);
    for (size_t i = 0; i <= CHANNEL_INDEX_MAX; i++)
        if (g->wards[i] != NULL)
            ward_reload(g->wards[i]);
}

static void on_ward_message(struct guard_process *g, struct channel_msg *m)
{
    struct ward *w = g->wards[m->sandbox];
    struct err e = {0};

    if (w == NULL) {
        err_set(&e, ERR_NOTFOUND, "the guard has no such sandbox");
        refuse(g, m, &e);
    } else if (m->type == CHANNEL_POLICY) {
        on_policy(g, w, m);
    } else if (m->type == CHANNEL_REMOVE) {
        on_remove(g, w, m);
    } else {
        on_status(g, w, m);
    }
}

static void on_message(void *arg, struct channel_msg *m)
{
    struct guard_process *g = arg;
    struct err e = {0};

    if (g->is_greeted == (m->type == CHANNEL_HELLO)) {
        err_set(&e, ERR_PROTO, "%s where none is due", channel_type_name(m->type));
        stop(g, &e);
        return;
    }
    switch (m->type) {
    case CHANNEL_HELLO:
        on_hello(g, m);
        break;
    case CHANNEL_FLOOR:
        on_floor(g, m);
        break;
    case CHANNEL_SANDBOX:
        on_sandbox(g, m);
        break;
    default:
        on_ward_message(g, m);
        break;
    }
}

static void on_gone(void *arg)
{
    struct guard_process *g = arg;

    loop_stop(g->guard.loop);
}

/* -- the process --------------------------------------------------------------------- */

/* The keeper says when it is over, not a terminal or a service manager that
 * means it too. */
static int ignore_signals(struct err *e)
{
    static const int signals[] = {SIGINT, SIGHUP, SIGTERM, SIGPIPE, SIGXFSZ};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    for (size_t i = 0; i < COUNT_OF(signals); i++)
        if (sigaction(signals[i], &ignore, NULL) < 0)
            return err_sys(e, "ignore signal %d", signals[i]);
    return 0;
}

/* How many there may be the keeper has decided. Each connection is two, and a third while
 * addresses are tried; the rest is for listeners, names, and what the keeper sends. */
static void use_all_descriptors(struct guard *g)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return; /* with too few, connections wait */
    r.rlim_cur = r.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &r); /* as above */
    g->flows_max = (size_t)(r.rlim_cur - r.rlim_cur / 4) / 3;
}

static int start(struct guard_process *g, int *take_fd, struct err *e)
{
    if (fcntl(*take_fd, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(*take_fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
        return err_sys(e, "look at the channel");
    if (ignore_signals(e) < 0)
        return -1;
    use_all_descriptors(&g->guard);
    g->guard.store_fd = tls_store_open(); /* for proxies that are spoken TLS with */
    if (role_guard_seal(e) < 0)
        return -1;
    g->wards = mem_zalloc(CHANNEL_INDEX_MAX + 1, sizeof(struct ward *));
    if (g->wards == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the guard");
    g->guard.loop = loop_new(e);
    if (g->guard.loop == NULL)
        return -1;
    g->guard.keeper = keeper_link_new(g->guard.loop, take_fd, on_message, on_gone, g, e);
    return g->guard.keeper != NULL ? 0 : -1;
}

static void end(struct guard_process *g)
{
    for (size_t i = 0; g->wards != NULL && i <= CHANNEL_INDEX_MAX; i++)
        if (g->wards[i] != NULL)
            ward_end(g->wards[i]);
    mem_free(g->wards);
    keeper_link_free(g->guard.keeper);
    loop_free(g->guard.loop);
    audit_free(g->guard.audit);
    sock_close(&g->audit_fd);
    if (g->guard.store_fd > 0)
        sock_close(&g->guard.store_fd);
}

int guard_main(int fd)
{
    struct guard_process g = {.audit_fd = -1};
    struct err e = {0};
    bool has_failed = start(&g, &fd, &e) < 0;

    if (has_failed)
        log_err("guard.start", "error=%s", log_e(&e));
    else
        loop_run(g.guard.loop);
    has_failed |= g.has_failed;
    end(&g);
    sock_close(&fd);
    return has_failed ? 1 : 0;
}
