/* SPDX-License-Identifier: MIT */
/*
 * Theory. The guard may die at any moment, by its own fault or a sandbox's, and that must
 * cost no more than the connections it held. Everything it needs is here: the channel is
 * made anew, it is greeted, and every sandbox is sent to it again with our copies of the
 * listeners. What is to be sent is not a queue of records but flags on each sandbox, so
 * nothing grows while the guard does not read, and a guard that dies in between leaves
 * nothing half said.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/role.h"
#include "common/log.h"
#include "common/sock.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

enum {
    CHANNEL_AT = 3,   /* the channel's descriptor in the guard */
    STEADY_MS = 1000, /* who lived so long did not die of its start */
    PAUSE_MS = 2,     /* added for each death in a row */
    STOP_MS = 2000,   /* for its last records */
    EXIT_ROLE = 125,  /* its role could not be taken */
};

uid_t keeper_guard_uid(void)
{
    struct passwd room, *found = NULL;
    char text[1024];

    if (geteuid() != 0)
        return 0;
    if (getpwnam_r("agentd-guard", &room, text, sizeof text, &found) == 0 && found &&
        found->pw_uid != 0)
        return found->pw_uid;
    return KEEPER_GUARD_UID;
}

/* -- the process --------------------------------------------------------------------- */

_Noreturn static void become_guard(uid_t uid, int fd)
{
    static char arg0[] = "agentd", arg1[] = "egress", arg2[] = "guard";
    char *argv[] = {arg0, arg1, arg2, NULL};
    char *envp[] = {NULL};
    sigset_t none;
    struct err e = {0};

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL); /* cannot fail */
    /* dup2() leaves close-on-exec behind; when they are the same it does nothing. */
    if (fd == CHANNEL_AT ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, CHANNEL_AT) < 0)
        _exit(EXIT_ROLE);
    /* Ours are all close-on-exec; whoever started us may have left others. */
    (void)syscall(SYS_close_range, CHANNEL_AT + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    if (role_guard_before_exec(uid, &e) < 0) {
        log_err("guard.role", "error=%s", log_e(&e));
        _exit(EXIT_ROLE);
    }
    (void)execve("/proc/self/exe", argv, envp);
    _exit(EXIT_ROLE);
}

static void close_channel(struct keeper_guard *g)
{
    if (g->io)
        loop_io_stop(&g->io);
    sock_close(&g->fd);
    if (g->has_answer)
        channel_msg_done(&g->answer);
    g->has_answer = false;
    g->is_ready = false;
}

static void describe_death(int status, char out[KEEPER_REASON_MAX])
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        (void)snprintf(out, KEEPER_REASON_MAX,
                       "ended by seccomp: it made a call that is not in its list");
    else if (WIFSIGNALED(status))
        (void)snprintf(out, KEEPER_REASON_MAX, "ended by signal %d (%s)",
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)snprintf(out, KEEPER_REASON_MAX, "exited with code %d",
                       WEXITSTATUS(status));
}

static void on_timer(void *arg)
{
    struct keeper *k = arg;
    struct err e;

    if (k->guard.pid != 0) {
        guard_kill(k, "it did not say READY in time");
        return;
    }
    if (guard_start(k, &e) < 0) {
        log_err("guard.start", "error=%s", log_e(&e));
        loop_timer_start(&k->guard.timer, KEEPER_GUARD_WAIT_MS);
    }
}

/* Sandboxes are closed from now on: nobody accepts what the kernel lets through
 * to the guard. */
static void forget_guard(struct keeper *k)
{
    struct keeper_guard *g = &k->guard;

    close_channel(g);
    if (g->pid_io)
        loop_io_stop(&g->pid_io);
    sock_close(&g->pid_fd);
    g->pid = 0;
    for (struct kept *s = k->kept, *next; s; s = next) {
        next = s->next;
        s->is_given = false;
        s->seq = 0;
        if (s->state == KEPT_IN_FORCE)
            s->state = KEPT_CLOSED;
        if (s->state == KEPT_REMOVING) {
            s->to_send = 0;
            loop_job_defer(&s->removed); /* it has nothing of it any more */
        } else {
            s->to_send = SEND_SANDBOX;
        }
    }
}

static void on_death(void *arg, unsigned events)
{
    struct keeper *k = arg;
    struct keeper_guard *g = &k->guard;
    char why[KEEPER_REASON_MAX];
    uint64_t lived = loop_now(k->loop) - g->started_ms;
    int status = 0;
    unsigned pause;
    pid_t r;

    UNUSED_ARG(events);
    do
        r = waitpid(g->pid, &status, WNOHANG);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return;
    if (r < 0)
        (void)snprintf(why, sizeof why, "gone, and somebody else waited for it");
    else
        describe_death(status, why);
    log_warn("guard.died", "pid=%ld lived_ms=%llu why=%s", (long)g->pid,
             (unsigned long long)lived, log_q(why));
    forget_guard(k);
    keeper_event(k, NULL, "guard.died", why);
    g->restarts++;
    g->deaths = lived >= STEADY_MS ? 0 : g->deaths + 1;
    pause = g->deaths * PAUSE_MS;
    loop_timer_start(&g->timer,
                     pause > KEEPER_GUARD_WAIT_MS ? KEEPER_GUARD_WAIT_MS : pause);
}

static void kill_guard(struct keeper *k)
{
    close_channel(&k->guard);
    loop_timer_stop(&k->guard.timer);
    (void)kill(k->guard.pid, SIGKILL); /* ours, and not waited for yet */
}

void guard_kill(struct keeper *k, const char *why)
{
    if (k->guard.pid == 0)
        return;
    log_err("guard.ended", "pid=%ld why=%s", (long)k->guard.pid, log_q(why));
    kill_guard(k);
}

/* -- sending ------------------------------------------------------------------------- */

static int send_to_guard(struct keeper *k, const struct channel_msg *m, struct err *e)
{
    return channel_send(k->guard.fd, m, e);
}

static void fill_floor(const struct keeper *k, struct channel_msg *m)
{
    memcpy(m->floor, k->floor, k->n_floor * sizeof *m->floor);
    m->n_floor = (uint32_t)k->n_floor;
    memcpy(m->text, k->resolvers, sizeof m->text);
}

static int greet(struct keeper *k, struct err *e)
{
    struct channel_msg m;

    channel_msg_init(&m, CHANNEL_HELLO, 0);
    m.fd[CHANNEL_FD_AUDIT] = k->conf.audit_fd;
    fill_floor(k, &m);
    return send_to_guard(k, &m, e);
}

static int send_floor(struct keeper *k, struct err *e)
{
    struct channel_msg m;

    channel_msg_init(&m, CHANNEL_FLOOR, 0);
    fill_floor(k, &m);
    return send_to_guard(k, &m, e);
}

/* SANDBOX and POLICY, with the policy that the guard is to have. */
static int send_policy(struct kept *s, enum channel_type type, struct err *e)
{
    struct keeper *k = s->keeper;
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct channel_msg m;
    int fd, rc;

    if (policy_print(s->wanted ? s->wanted : s->policy, &text) < 0)
        return err_set(e, ERR_NOMEM, "no memory for a policy's text");
    fd = channel_text_out(text.p, text.len, e);
    if (fd < 0)
        return -1;
    channel_msg_init(&m, type, s->index);
    m.tier = s->tier;
    m.tag = kept_nft(s) ? nft_tag(kept_nft(s), s->index) : 0;
    memcpy(m.name, s->name, sizeof s->name);
    if (type == CHANNEL_SANDBOX)
        memcpy(m.fd, s->fd, sizeof s->fd);
    m.fd[CHANNEL_FD_POLICY] = fd;
    if (++k->seq == 0)
        k->seq = 1;
    m.seq = k->seq;
    rc = send_to_guard(k, &m, e);
    sock_close(&fd);
    if (rc == 0)
        s->seq = m.seq;
    return rc;
}

static int send_plain(struct kept *s, enum channel_type type, struct err *e)
{
    struct channel_msg m;

    channel_msg_init(&m, type, s->index);
    m.seq = s->keeper->seq;
    return send_to_guard(s->keeper, &m, e);
}

/* What this sandbox needs most; one record. */
static int send_next(struct kept *s, struct err *e)
{
    unsigned done = SEND_SANDBOX | SEND_POLICY;
    int rc;

    if (s->to_send & SEND_REMOVE) {
        rc = send_plain(s, CHANNEL_REMOVE, e);
        done = ~0U;
    } else if (s->to_send & SEND_SANDBOX) {
        rc = send_policy(s, CHANNEL_SANDBOX, e);
    } else if (s->to_send & SEND_POLICY) {
        rc = send_policy(s, CHANNEL_POLICY, e);
    } else {
        rc = send_plain(s, CHANNEL_STATUS, e);
        done = SEND_STATUS;
    }
    if (rc == 0)
        s->to_send &= ~done;
    return rc;
}

/* False: the channel is full, or memory is; the rest is sent later. */
static bool send_all(struct keeper *k, struct err *e)
{
    if (k->guard.wants_floor) {
        if (send_floor(k, e) < 0)
            return false;
        k->guard.wants_floor = false;
    }
    for (struct kept *s = k->kept; s; s = s->next)
        while (s->to_send)
            if (send_next(s, e) < 0)
                return false;
    return true;
}

/* What is left to be sent; with a thousand sandboxes the search is not for every record. */
static void go_on(struct keeper *k)
{
    struct keeper_guard *g = &k->guard;
    struct err e = {0};
    bool is_waiting = g->has_answer;

    if (!g->is_ready || !g->io)
        return;
    if (g->has_more && !is_waiting)
        g->has_more = !send_all(k, &e);
    if (g->has_more && !is_waiting) {
        if (e.code == ERR_SYS && (e.sys == EPIPE || e.sys == ECONNRESET))
            return; /* its end is told by the other descriptor */
        is_waiting = e.code == ERR_SYS && e.sys == EAGAIN;
        if (!is_waiting) /* memory or descriptors: the next round tries again */
            log_warn("guard.send", "error=%s", log_e(&e));
    }
    loop_io_want(g->io,
                 g->has_answer ? LOOP_WRITE : LOOP_READ | (is_waiting ? LOOP_WRITE : 0));
}

void guard_push(struct keeper *k)
{
    k->guard.has_more = true;
    go_on(k);
}

static bool flush_answer(struct keeper *k)
{
    struct keeper_guard *g = &k->guard;
    struct err e = {0};

    if (!g->has_answer)
        return true;
    if (send_to_guard(k, &g->answer, &e) < 0 && e.code == ERR_SYS && e.sys == EAGAIN)
        return false;
    if (e.code != ERR_NONE)
        log_warn("guard.answer", "error=%s", log_e(&e));
    channel_msg_done(&g->answer);
    g->has_answer = false;
    return true;
}

void guard_answer(struct keeper *k, struct channel_msg *m)
{
    struct keeper_guard *g = &k->guard;
    struct err e = {0};

    if (!g->io || g->has_answer) { /* never both: nothing is read while one waits */
        channel_msg_done(m);
        return;
    }
    if (send_to_guard(k, m, &e) == 0 || e.code != ERR_SYS || e.sys != EAGAIN) {
        if (e.code != ERR_NONE)
            log_warn("guard.answer", "error=%s", log_e(&e));
        channel_msg_done(m);
        return;
    }
    g->answer = *m;
    g->has_answer = true;
    loop_io_want(g->io, LOOP_WRITE);
}

/* -- receiving ----------------------------------------------------------------------- */

static void on_ready(struct keeper *k)
{
    loop_timer_stop(&k->guard.timer);
    k->guard.is_ready = k->guard.has_more = true;
    k->guard.wants_floor = false;
    log_info("guard.ready", "pid=%ld restarts=%u", (long)k->guard.pid, k->guard.restarts);
}

static bool dispatch(struct keeper *k, struct channel_msg *m)
{
    bool ok = true;

    k->guard.heard_ms = loop_now(k->loop);
    if (m->type == CHANNEL_READY && !k->guard.is_ready)
        on_ready(k);
    else if (k->guard.is_ready && m->type != CHANNEL_READY)
        ok = keeper_request(k, m);
    else
        ok = false;
    channel_msg_done(m);
    return ok;
}

static void on_channel(void *arg, unsigned events)
{
    struct keeper *k = arg;
    struct keeper_guard *g = &k->guard;
    struct channel_msg m;
    struct err e = {0};
    int got = 1;

    UNUSED_ARG(events);
    if (!flush_answer(k))
        return;
    for (unsigned i = 0; i < KEEPER_TURN && g->io && !g->has_answer; i++) {
        got = channel_recv(g->fd, &m, &e);
        if (got <= 0)
            break;
        if (!dispatch(k, &m)) {
            guard_kill(k, "it sent a record out of turn");
            return;
        }
    }
    if (!g->io)
        return;
    if (got < 0 && e.code == ERR_NOTFOUND) {
        kill_guard(k); /* it ended; why, its exit tells */
        return;
    }
    if (got < 0) {
        guard_kill(k, e.msg);
        return;
    }
    go_on(k);
}

/* -- life ---------------------------------------------------------------------------- */

static int watch_process(struct keeper *k, struct err *e)
{
    struct keeper_guard *g = &k->guard;

    g->pid_fd = (int)syscall(SYS_pidfd_open, g->pid, 0);
    if (g->pid_fd < 0)
        return err_sys(e, "watch the guard");
    g->pid_io = loop_io_start(k->loop, g->pid_fd, on_death, k, e);
    if (!g->pid_io)
        return -1;
    loop_io_want(g->pid_io, LOOP_READ);
    g->io = loop_io_start(k->loop, g->fd, on_channel, k, e);
    if (!g->io)
        return -1;
    loop_io_want(g->io, LOOP_READ);
    return greet(k, e);
}

static void end_process(struct keeper *k)
{
    struct pollfd p = {.fd = k->guard.pid_fd, .events = POLLIN};
    pid_t pid = k->guard.pid, r;

    close_channel(&k->guard);
    if (pid == 0)
        return;
    if (p.fd < 0 || poll(&p, 1, STOP_MS) <= 0)
        (void)kill(pid, SIGKILL); /* ours, and not waited for yet */
    do
        r = waitpid(pid, NULL, 0);
    while (r < 0 && errno == EINTR);
    forget_guard(k);
}

int guard_start(struct keeper *k, struct err *e)
{
    struct keeper_guard *g = &k->guard;
    int pair[2];

    if (!g->timer.loop)
        loop_timer_init(&g->timer, k->loop, on_timer, k);
    if (channel_pair(pair, e) < 0)
        return -1;
    log_flush();
    g->pid = fork();
    if (g->pid == 0)
        become_guard(k->conf.guard_uid, pair[1]);
    sock_close(&pair[1]);
    g->fd = pair[0];
    g->started_ms = g->heard_ms = loop_now(k->loop);
    if (g->pid < 0) {
        g->pid = 0;
        sock_close(&g->fd);
        return err_sys(e, "start the guard");
    }
    if (watch_process(k, e) < 0) {
        (void)kill(g->pid, SIGKILL); /* ours, and not waited for yet */
        end_process(k);
        return -1;
    }
    loop_timer_start(&g->timer, KEEPER_READY_MS);
    return 0;
}

void guard_stop(struct keeper *k)
{
    loop_timer_stop(&k->guard.timer);
    end_process(k);
}

pid_t keeper_guard_pid(const struct keeper *k)
{
    return k->guard.pid;
}
