/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/sandbox_int.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/sock.h"

struct sandbox {
    pid_t stage; /* 0: none */
    int talk, tty;
    int maker[SANDBOX_MAKERS];
    bool has_ended;
    bool gave_tty; /* COMMAND has the terminal's foreground */
};

/* -- the terminal -------------------------------------------------------------------- */

static bool has_foreground(const struct sandbox *s)
{
    return s->tty >= 0 && tcgetpgrp(s->tty) == getpgrp();
}

static void take_back(struct sandbox *s)
{
    sigset_t ttou, old;

    if (!s->gave_tty)
        return;
    s->gave_tty = false;
    (void)sigemptyset(&ttou);
    (void)sigaddset(&ttou, SIGTTOU);
    (void)sigprocmask(SIG_BLOCK, &ttou, &old); /* or we are stopped for asking */
    (void)tcsetpgrp(s->tty, getpgrp());        /* a terminal that hung up meanwhile */
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
}

/* -- talk ---------------------------------------------------------------------------- */

static int tell(const struct sandbox *s, enum sandbox_word word, int value, struct err *e)
{
    struct sandbox_msg m = {.word = word, .value = value};

    if (send(s->talk, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof m)
        return err_sys(e, "tell the sandbox");
    return 0;
}

/* 1: a message, 0: none yet, -1: the other end is closed. */
static int hear(const struct sandbox *s, struct sandbox_msg *ret)
{
    ssize_t n = recv(s->talk, ret, sizeof *ret, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n == sizeof *ret ? 1 : -1;
}

static int wait_until_ready(const struct sandbox *s, struct err *e)
{
    uint64_t now = clock_us(), end = now + (uint64_t)SANDBOX_BUILD_MS * 1000;
    struct pollfd p = {.fd = s->talk, .events = POLLIN};
    struct sandbox_msg m;
    int r;

    for (; now < end; now = clock_us()) {
        if (poll(&p, 1, (int)((end - now) / 1000) + 1) < 0 && errno != EINTR)
            return err_sys(e, "wait for the sandbox");
        r = hear(s, &m);
        if (r < 0)
            return err_set(e, ERR_NOTFOUND, "the sandbox died while it was made");
        if (r == 0)
            continue;
        if (m.word == SANDBOX_IS_READY)
            return 0;
        m.text[sizeof m.text - 1] = '\0';
        return err_set_at(e, (enum err_code)m.value, m.sys, ERR_WHERE, "%s", m.text);
    }
    return err_set(e, ERR_TIMEOUT, "the sandbox was not made within %d ms",
                   SANDBOX_BUILD_MS);
}

/* -- life ---------------------------------------------------------------------------- */

/* It ends when the kernel has ended everything inside. */
static void end_stage(pid_t stage)
{
    struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, stage, 0), .events = POLLIN};

    if (p.fd < 0 || poll(&p, 1, SANDBOX_END_MS) != 1)
        (void)kill(stage, SIGKILL); /* and by the parent-death signal init */
    while (waitpid(stage, NULL, 0) < 0 && errno == EINTR)
        continue;
    sock_close(&p.fd);
}

void sandbox_free(struct sandbox *s)
{
    unsigned i;

    if (!s)
        return;
    sock_close(&s->talk); /* which ends init, and with it all inside */
    if (s->stage > 0)
        end_stage(s->stage);
    take_back(s);
    for (i = 0; i < SANDBOX_MAKERS; i++)
        sock_close(&s->maker[i]);
    sock_close(&s->tty);
    mem_free(s);
}

static int make_pairs(struct sandbox *s, struct sandbox_seed *seed, struct err *e)
{
    int pair[2];
    unsigned i;

    for (i = 0; i <= seed->conf->makers; i++) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
            return err_sys(e, "make a socket pair");
        if (i < seed->conf->makers) {
            s->maker[i] = pair[0];
            seed->maker[i] = pair[1];
        } else {
            s->talk = pair[0];
            seed->talk = pair[1];
        }
    }
    return 0;
}

static int start_stage(struct sandbox *s, struct sandbox_seed *seed, struct err *e)
{
    sigset_t all;
    unsigned i;

    /* Until the stage has blocked them itself, no signal may meet it. */
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &seed->signals);
    s->stage = fork();
    if (s->stage == 0) {
        /* Of the caller's ends nothing may stay open there: their closing says
         * that it died. */
        sock_close(&s->talk);
        for (i = 0; i < SANDBOX_MAKERS; i++)
            sock_close(&s->maker[i]);
        sandbox_stage(seed);
    }
    (void)sigprocmask(SIG_SETMASK, &seed->signals, NULL);
    if (s->stage < 0) {
        s->stage = 0;
        return err_sys(e, "start a process");
    }
    return 0;
}

struct sandbox *sandbox_new(const struct sandbox_conf *conf, struct err *e)
{
    struct sandbox *s = mem_zalloc(1, sizeof *s);
    struct sandbox_seed *seed = mem_zalloc(1, sizeof *seed);
    unsigned i;
    int r = -1;

    if (!s || !seed) {
        (void)err_set(e, ERR_NOMEM, "no memory for a sandbox");
        mem_free(s);
        mem_free(seed);
        return NULL;
    }
    s->talk = -1;
    seed->conf = conf;
    seed->caller = getpid();
    seed->talk = seed->life = -1;
    for (i = 0; i < SANDBOX_MAKERS; i++)
        s->maker[i] = seed->maker[i] = -1;
    s->tty = seed->tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (!getcwd(seed->cwd, sizeof seed->cwd))
        seed->cwd[0] = '\0'; /* a folder that was removed: told when COMMAND starts */
    if (sandbox_sockets_find(&seed->sockets, e) == 0 && make_pairs(s, seed, e) == 0 &&
        start_stage(s, seed, e) == 0) {
        sock_close(&seed->talk);
        r = wait_until_ready(s, e);
    }
    sock_close(&seed->talk);
    for (i = 0; i < SANDBOX_MAKERS; i++)
        sock_close(&seed->maker[i]);
    buf_done(&seed->sockets);
    mem_free(seed);
    if (r < 0) {
        sandbox_free(s);
        return NULL;
    }
    return s;
}

pid_t sandbox_pid(const struct sandbox *s)
{
    return s->stage;
}

int sandbox_maker(struct sandbox *s)
{
    unsigned i;
    int fd;

    for (i = 0; i < SANDBOX_MAKERS; i++) {
        fd = s->maker[i];
        s->maker[i] = -1;
        if (fd >= 0)
            return fd;
    }
    return -1;
}

int sandbox_fd(const struct sandbox *s)
{
    return s->talk;
}

/* -- COMMAND ------------------------------------------------------------------------- */

int sandbox_go(struct sandbox *s, struct err *e)
{
    /* In a pipeline the others of our group read and write the terminal too: then COMMAND
     * gets it only when it asks (SIGTTIN). */
    s->gave_tty = has_foreground(s) && isatty(0) && isatty(1);
    return tell(s, SANDBOX_GO, s->gave_tty, e);
}

enum sandbox_news sandbox_read(struct sandbox *s, int *ret)
{
    struct sandbox_msg m;
    int r;

    if (s->has_ended)
        return SANDBOX_NONE;
    r = hear(s, &m);
    if (r == 0)
        return SANDBOX_NONE;
    if (r > 0 && m.word == SANDBOX_HAS_STOPPED) {
        *ret = m.value;
        return SANDBOX_STOPPED;
    }
    s->has_ended = true;
    *ret = r > 0 && m.word == SANDBOX_HAS_ENDED ? m.value : 128 + SIGKILL;
    return SANDBOX_ENDED;
}

void sandbox_signal(struct sandbox *s, int signo)
{
    (void)tell(s, SANDBOX_SIGNAL, signo, NULL); /* or it ended, which is told soon */
}

void sandbox_stopped(struct sandbox *s, int signo)
{
    if (s->tty < 0)
        return; /* somebody's SIGSTOP, and his SIGCONT to come */
    if (signo == SIGTTIN || signo == SIGTTOU) {
        if (has_foreground(s)) {
            s->gave_tty = true;
            (void)tell(s, SANDBOX_CONTINUE, 1, NULL); /* as above */
            return;
        }
    }
    take_back(s);
    (void)raise(SIGSTOP);
    s->gave_tty = has_foreground(s);
    (void)tell(s, SANDBOX_CONTINUE, s->gave_tty, NULL); /* as above */
}
