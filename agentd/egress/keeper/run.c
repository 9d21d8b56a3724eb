/* SPDX-License-Identifier: MIT */
/*
 * In order, and every failure on the way ends the run with nothing started:
 *
 *   policy, name, binds, agent's options   read with the caller's rights
 *   ids (root) or user namespace (others)
 *   sandbox                                namespaces, mounts, roles: all but COMMAND
 *   agent (--up)                           waits
 *   role of the keeper; keeper; control socket
 *   keeper_add                             table, listeners, guard, policy
 *   in force                               sandbox_go: COMMAND's first instruction
 *   COMMAND ended                          keeper_remove: last records; end
 *
 * The sandbox and the agent are forked before the loop is made and before signals are
 * blocked, so that COMMAND gets the caller's dispositions and mask.
 */
#include "agentd/egress/keeper/run.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agentd/egress/audit.h"
#include "agentd/egress/keeper/binds.h"
#include "agentd/egress/keeper/control_socket.h"
#include "agentd/egress/keeper/keeper.h"
#include "agentd/egress/keeper/role.h"
#include "agentd/egress/keeper/run_up.h"
#include "agentd/egress/keeper/sandbox.h"
#include "agentd/egress/keeper/streams.h"
#include "agentd/egress/keeper/userns.h"
#include "agentd/egress/policy/policy.h"
#include "agentd/egress/tell.h"
#include "agentd/link/proxy.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    EXIT_SIGNALLED = 128,
};

struct run {
    const struct run_conf *conf;
    char name[EGRESS_NAME_MAX + 1];
    struct policy *policy;
    struct userns_range range;
    struct sandbox *sandbox;
    struct run_up up;
    int audit, signals; /* -1: none */
    struct loop *loop;
    struct keeper *keeper;
    struct control_socket *control;
    struct loop_io *sandbox_io, *signals_io;
    enum {
        ADDING,
        RUNNING,
        ENDING
    } state;
    int code;
};

/* -- what was asked for -------------------------------------------------------------- */

static int choose_name(struct run *r, struct err *e)
{
    uint32_t number;

    if (r->conf->name) {
        if (sandbox_name_check(r->conf->name, e) < 0)
            return err_wrap(e, "--name");
        (void)snprintf(r->name, sizeof r->name, "%s", r->conf->name); /* it fits */
        return 0;
    }
    crypto_random(&number, sizeof number);
    (void)snprintf(r->name, sizeof r->name, "run-%08x", (unsigned)number);
    return 0;
}

static int load_policy(struct run *r, struct err *e)
{
    r->policy = tell_policy_load("run", r->conf->policy);
    if (!r->policy)
        return err_set(e, ERR_CONFIG,
                       "--policy %.100s: not in order, nothing was started",
                       r->conf->policy);
    return 0;
}

static int prepare(struct run *r, struct err *e)
{
    if (streams_check(e) < 0 || choose_name(r, e) < 0 || load_policy(r, e) < 0)
        return -1;
    if (binds_check(r->conf->bind, r->conf->n_bind, e) < 0)
        return -1;
    if (r->conf->up && run_up_check(e) < 0)
        return -1;
    if (!r->conf->audit)
        return 0;
    r->audit = audit_open(r->conf->audit, e);
    return r->audit < 0 ? err_wrap(e, "--audit") : 0;
}

/* -- processes ----------------------------------------------------------------------- */

/* As the policy's reader finds it: beside the policy. */
static const char *beside_policy(const struct run *r, const char *file,
                                 char out[PATH_MAX])
{
    const char *slash = strrchr(r->conf->policy, '/');

    if (!file || file[0] == '/' || !slash)
        return file;
    (void)snprintf(out, PATH_MAX, "%.*s/%s", (int)(slash - r->conf->policy),
                   r->conf->policy, file); /* it was opened by that name */
    return out;
}

static bool has_credentials(const struct policy *p)
{
    struct proxy_url u;
    const char *url = policy_proxy(p)->url;
    bool has = url && proxy_url_parse(span_str(url), &u, NULL) == 0 && u.has_credentials;

    if (url)
        proxy_url_done(&u);
    return has;
}

static int make_sandbox(struct run *r, struct netns **ret_ns, struct err *e)
{
    char credentials[PATH_MAX];
    const char *file = policy_proxy(r->policy)->credentials_file;
    bool is_root = userns_is_host_root();
    struct sandbox_conf c = {
        .uid = geteuid(),
        .gid = getegid(),
        .bind = r->conf->bind,
        .n_bind = r->conf->n_bind,
        .fixed = {r->conf->policy, r->conf->audit},
        .secret = {getenv("TUNNEL_TOKEN_FILE"), beside_policy(r, file, credentials),
                   !file && has_credentials(r->policy) ? r->conf->policy : NULL},
        .command = r->conf->command,
        .makers = (is_root ? 0 : 1) + (r->conf->up ? 1 : 0)};
    int fd;

    if (is_root) {
        if (userns_range_take(r->name, USERNS_LOCKS, &r->range, e) < 0)
            return -1;
        c.first_id = r->range.first;
    } else if (userns_enter(e) < 0) {
        return -1;
    }
    r->sandbox = sandbox_new(&c, e);
    if (!r->sandbox)
        return -1;
    if (r->conf->up) {
        fd = sandbox_maker(r->sandbox);
        if (run_up_start(&r->up, &fd, e) < 0)
            return -1;
    }
    if (is_root) {
        *ret_ns = netns_open(NULL, sandbox_pid(r->sandbox), e);
    } else {
        fd = sandbox_maker(r->sandbox);
        *ret_ns = netns_from_maker(&fd, e);
    }
    return *ret_ns ? 0 : -1;
}

/* -- the course of events ------------------------------------------------------------ */

static void on_removed(void *arg, const struct err *e)
{
    struct run *r = arg;

    if (e)
        log_warn("run.end", "why=%s", log_e(e));
    loop_stop(r->loop);
}

static void end(struct run *r, int code)
{
    struct err e;

    if (r->state == ENDING) {
        loop_stop(r->loop); /* asked twice: without the last records */
        return;
    }
    r->state = ENDING;
    r->code = code;
    /* Detached meanwhile: there is nothing to wait for. */
    if (keeper_remove(r->keeper, r->name, on_removed, r, &e) < 0)
        loop_stop(r->loop);
}

static void on_added(void *arg, const struct err *e)
{
    struct run *r = arg;
    struct err mine;

    if (r->state != ADDING)
        return; /* a signal was first, and its end is under way */
    if (!e && sandbox_go(r->sandbox, &mine) < 0)
        e = &mine;
    if (e) {
        r->state = ENDING;
        r->code = tell_err("run", e);
        loop_stop(r->loop);
        return;
    }
    r->state = RUNNING;
    run_up_go(&r->up);
    log_debug("run.start", "name=%s", r->name);
}

static void on_sandbox(void *arg, unsigned events)
{
    struct run *r = arg;
    int value = 0;

    UNUSED_ARG(events);
    switch (sandbox_read(r->sandbox, &value)) {
    case SANDBOX_NONE:
        return;
    case SANDBOX_STOPPED:
        sandbox_stopped(r->sandbox, value);
        return;
    case SANDBOX_ENDED:
        loop_io_want(r->sandbox_io, 0);
        end(r, value);
        return;
    }
}

static void on_signal(void *arg, unsigned events)
{
    struct signalfd_siginfo si;
    struct run *r = arg;
    int signo;

    UNUSED_ARG(events);
    if (read(r->signals, &si, sizeof si) != sizeof si)
        return;
    signo = (int)si.ssi_signo;
    if (r->state == RUNNING) {
        sandbox_signal(r->sandbox, signo);
        return;
    }
    if (signo == SIGWINCH || signo == SIGTSTP || signo == SIGUSR1 || signo == SIGUSR2)
        return;
    r->code = EXIT_SIGNALLED + signo;
    r->state = ENDING;
    loop_stop(r->loop);
}

static int watch(struct run *r, struct err *e)
{
    static const int wanted[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT,
                                 SIGUSR1, SIGUSR2, SIGTSTP, SIGWINCH};
    static const int terminals[] = {SIGINT, SIGHUP, SIGQUIT, SIGTSTP};
    sigset_t set;
    size_t i;

    (void)sigemptyset(&set);
    for (i = 0; i < COUNT_OF(wanted); i++)
        (void)sigaddset(&set, wanted[i]);
    /* Blocked signals are told even where they are ignored; the guard, which is in our
     * group and unblocks all, inherits that a terminal's are not for it. */
    for (i = 0; i < COUNT_OF(terminals); i++)
        (void)signal(terminals[i], SIG_IGN); /* fails only for wrong numbers */
    r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r->signals < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return err_sys(e, "watch for signals");
    r->signals_io = loop_io_start(r->loop, r->signals, on_signal, r, e);
    if (!r->signals_io)
        return -1;
    r->sandbox_io = loop_io_start(r->loop, sandbox_fd(r->sandbox), on_sandbox, r, e);
    if (!r->sandbox_io)
        return -1;
    loop_io_want(r->signals_io, LOOP_READ);
    loop_io_want(r->sandbox_io, LOOP_READ);
    return 0;
}

/* What mode learn saw, as a policy to begin with. */
static void on_proposal(void *arg, const char *name, struct span policy)
{
    UNUSED_ARG(arg);
    (void)fprintf(stderr,
                  "agentd egress run: the smallest policy for what %s did:\n%.*s\n", name,
                  SPAN_FMT(policy)); /* nowhere else to say it */
}

/* Without a folder for it the sandbox cannot be asked, and is as closed as with one. */
static int start_control(struct run *r, struct err *e)
{
    char path[sizeof((struct sockaddr_un *)NULL)->sun_path];
    struct err why;

    control_run_sweep();
    if (control_run_path(r->name, path, sizeof path, &why) == 0)
        r->control = control_socket_new(r->keeper, r->loop, path, &why);
    if (r->control)
        return 0;
    if (r->conf
            ->name) { /* perhaps another has it, and asking by name would ask that one */
        if (e)
            *e = why;
        return err_wrap(e, "--name %s", r->name);
    }
    log_warn("run.control", "name=%s why=%s", r->name, log_e(&why));
    return 0;
}

static int keep(struct run *r, struct netns **take_ns, struct err *e)
{
    /* The host's table is that of `serve`: two keepers would undo each other's. */
    struct keeper_conf kc = {.audit_fd = r->audit,
                             .guard_uid = r->range.guard,
                             .host =
                                 r->range.guard ? KEEPER_HOST_GUARD : KEEPER_HOST_NONE,
                             .on_proposal = on_proposal,
                             .arg = r};
    struct keeper_add add = {.name = r->name,
                             .tier = EGRESS_SEALED,
                             .policy = r->policy,
                             .take_ns = take_ns,
                             .pid = sandbox_pid(r->sandbox)};

    r->loop = loop_new(e);
    if (!r->loop || watch(r, e) < 0)
        return -1;
    kc.loop = r->loop;
    r->keeper = keeper_new(&kc, e);
    if (!r->keeper)
        return -1;
    if (start_control(r, e) < 0)
        return -1;
    return keeper_add(r->keeper, &add, on_added, r, e);
}

static void finish(struct run *r)
{
    if (r->sandbox_io)
        loop_io_stop(&r->sandbox_io);
    if (r->signals_io)
        loop_io_stop(&r->signals_io);
    run_up_end(&r->up);
    sandbox_free(r->sandbox);
    control_socket_free(r->control);
    keeper_free(r->keeper);
    loop_free(r->loop);
    sock_close(&r->signals);
    sock_close(&r->audit);
    policy_unref(r->policy);
    userns_range_done(&r->range);
}

int run_main(const struct run_conf *conf)
{
    struct run r = {.conf = conf,
                    .range = {.lock = -1},
                    .up = {.go = -1},
                    .audit = -1,
                    .signals = -1,
                    .code = EXIT_FAIL};
    struct netns *ns = NULL;
    struct err e = {0};

    log_setup(false, LOG_WARN); /* stderr is COMMAND's; what happens is in the audit */
    if (prepare(&r, &e) < 0 || make_sandbox(&r, &ns, &e) < 0 || role_keeper(&e) < 0 ||
        keep(&r, &ns, &e) < 0)
        r.code = tell_err("run", &e);
    else
        loop_run(r.loop);
    netns_free(ns);
    finish(&r);
    return r.code;
}
