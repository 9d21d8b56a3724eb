/* SPDX-License-Identifier: MIT */
/*
 * The stage: between the caller and init, because a new pid namespace begins with the
 * next child, and because only a process outside of a new user namespace can write more
 * than one id into its map. It blocks all signals: what it does is told by its caller's
 * death and its child's.
 */
#include "agentd/egress/keeper/sandbox_int.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "common/sock.h"

void sandbox_fail(int talk, const struct err *e)
{
    struct sandbox_msg m = {.word = SANDBOX_HAS_FAILED, .value = e->code, .sys = e->sys};

    memcpy(m.text, e->msg, sizeof m.text);
    /* Without a caller there is nobody to tell. */
    (void)send(talk, &m, sizeof m, MSG_NOSIGNAL);
    _exit(1);
}

/* End with the parent, which is `parent` (0: outside our view) unless it is
 * gone already. */
static void tie_to(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
}

static int by_number(const int *keep, size_t n, int above)
{
    int least = -1;
    size_t i;

    for (i = 0; i < n; i++)
        if (keep[i] > above && (least < 0 || keep[i] < least))
            least = keep[i];
    return least;
}

void sandbox_close_others(const int *keep, size_t n)
{
    int from = 3, next;

    for (;;) {
        next = by_number(keep, n, from - 1);
        if (next < 0)
            break;
        if (next > from)
            (void)close_range((unsigned)from, (unsigned)next - 1, 0);
        from = next + 1;
    }
    (void)close_range((unsigned)from, ~0U, 0); /* fails only for wrong ranges */
}

static _Noreturn void maker(int fd, pid_t stage)
{
    tie_to(stage);
    sandbox_close_others(&fd, 1);
    (void)prctl(PR_SET_NAME, "egress-sockets");
    _exit(netns_maker(fd) == 0 ? 0 : 1);
}

static void start_makers(struct sandbox_seed *s, pid_t ret[SANDBOX_MAKERS])
{
    pid_t me = getpid();
    struct err e;
    unsigned i;

    for (i = 0; i < s->conf->makers; i++) {
        ret[i] = fork();
        if (ret[i] < 0) {
            (void)err_sys(&e, "start a process");
            sandbox_fail(s->talk, &e);
        }
        if (ret[i] == 0)
            maker(s->maker[i], me);
        sock_close(&s->maker[i]);
    }
}

static void wait_for(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* They would end with us, but be left for the machine's init to bury. */
static void end_makers(const pid_t *pid)
{
    unsigned i;

    for (i = 0; i < SANDBOX_MAKERS; i++) {
        if (pid[i] <= 0)
            continue;
        (void)kill(pid[i], SIGKILL); /* ours, and not waited for yet */
        wait_for(pid[i]);
    }
}

/* One byte from init: it is in its user namespace. One back: the ids are mapped. */
static void map_ids(struct sandbox_seed *s, pid_t init, int life)
{
    struct err e;
    char byte;

    if (read(life, &byte, 1) != 1)
        return; /* it died, and has said why */
    if (userns_map(init, s->conf->first_id, s->conf->uid, s->conf->gid, &e) < 0)
        sandbox_fail(s->talk, &e);
    (void)!send(life, &byte, 1, MSG_NOSIGNAL); /* or it is gone */
}

void sandbox_stage(struct sandbox_seed *s)
{
    const struct {
        int flag;
        const char *what;
    } spaces[] = {
        {CLONE_NEWNET, "make a network namespace"},
        {CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
         "make ipc, uts, cgroup namespaces"},
        {CLONE_NEWPID, "make a pid namespace"},
    };
    pid_t makers[SANDBOX_MAKERS] = {0};
    int life[2];
    sigset_t all;
    struct err e;
    pid_t init;
    size_t i;

    tie_to(s->caller);
    (void)setpgid(
        0,
        0); /* what a terminal sends to the caller's group is the caller's to pass on */
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)prctl(PR_SET_NAME, "egress-stage");
    for (i = 0; i < COUNT_OF(spaces); i++) {
        if (unshare(spaces[i].flag) < 0) {
            (void)userns_refused(spaces[i].what, &e);
            sandbox_fail(s->talk, &e);
        }
        if (i == 0)
            start_makers(s, makers); /* they are of no other namespace */
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, life) < 0) {
        (void)err_sys(&e, "make a socket pair");
        sandbox_fail(s->talk, &e);
    }
    init = fork();
    if (init < 0) {
        (void)err_sys(&e, "start a process");
        sandbox_fail(s->talk, &e);
    }
    if (init == 0) {
        s->life = life[1];
        sandbox_init(s);
    }
    sock_close(&life[1]);
    map_ids(s, init, life[0]);
    sock_close(&s->talk); /* the caller is to see init's end as the end */
    wait_for(init);
    end_makers(makers);
    _exit(0);
}
