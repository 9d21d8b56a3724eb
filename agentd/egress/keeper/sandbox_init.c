/* SPDX-License-Identifier: MIT */
/*
 * The sandbox's pid 1. In order: mounts; its own user namespace, so that it loses every
 * capability over all the other namespaces; ids; role (capabilities, no_new_privs,
 * seccomp). From then on it has no more rights than COMMAND. Then it waits for the word
 * to start COMMAND, reaps, passes signals on, and ends with COMMAND, with the stage, or
 * with the caller: whichever is first.
 */
#include "agentd/egress/keeper/sandbox_int.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/role.h"
#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "common/sock.h"

enum {
    EXIT_CANNOT_RUN = 126,
    EXIT_NOT_FOUND = 127,
    EXIT_SIGNAL = 128,
};

/* -- what COMMAND is not told -------------------------------------------------------- */

static bool is_hidden(const char *entry)
{
    static const char *const names[] = {"http_proxy", "https_proxy", "ftp_proxy",
                                        "all_proxy",  "no_proxy",    "rsync_proxy"};
    size_t n = strcspn(entry, "="), i;

    if (!strncmp(entry, "TUNNEL_", 7)) /* the link is of outside, all of it */
        return true;
    for (i = 0; i < COUNT_OF(names); i++)
        if (n == strlen(names[i]) && !strncasecmp(entry, names[i], n))
            return true;
    return false;
}

/* Also wiped: the strings stand where /proc/1/environ shows them. */
static void clean_environment(void)
{
    char **from, **to = environ;

    for (from = environ; *from; from++) {
        if (is_hidden(*from))
            explicit_bzero(*from, strlen(*from));
        else
            *to++ = *from;
    }
    *to = NULL;
}

/* -- becoming what COMMAND may be ---------------------------------------------------- */

static int is_alive(int life, struct err *e)
{
    struct pollfd p = {.fd = life, .events = POLLIN};

    if (poll(&p, 1, 0) != 0)
        return err_set(e, ERR_NOTFOUND, "the sandbox's parent process is gone");
    return 0;
}

/* Credentials that change take the parent-death signal away (prctl(2)); and as the parent
 * is outside of our pid namespace, getppid() cannot tell whether it died just before. */
static int tie_again(int life, struct err *e)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return err_sys(e, "set the parent-death signal");
    return is_alive(life, e);
}

static int become_unprivileged(struct sandbox_seed *s, struct err *e)
{
    char byte = 'm';

    if (unshare(CLONE_NEWUSER) < 0)
        return userns_refused("make the sandbox's user namespace", e);
    if (write(s->life, &byte, 1) != 1 || read(s->life, &byte, 1) != 1)
        return err_set(e, ERR_NOTFOUND, "the ids of the sandbox were not mapped");
    if (s->conf->first_id &&
        (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
        return err_sys(e, "take the sandbox's ids");
    if (sandbox_role(s->conf->first_id != 0 || s->conf->uid == 0, e) < 0)
        return -1;
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return err_sys(e, "make the sandbox's init undumpable");
    return tie_again(s->life, e);
}

/* /dev/stdout opens the pipe anew, which its mode then must allow to the ids inside.
 * Files and terminals stay the caller's. */
static void give_pipes(uint32_t first_id)
{
    struct statfs st;
    int fd;

    for (fd = 0; fd <= 2; fd++)
        if (fstatfs(fd, &st) == 0 && st.f_type == PIPEFS_MAGIC)
            (void)!fchown(fd, first_id,
                          first_id); /* without it only /dev/stdout is closed */
}

static int prepare(struct sandbox_seed *s, struct err *e)
{
    if (tie_again(s->life, e) < 0)
        return -1;
    if (s->conf->first_id)
        give_pipes(s->conf->first_id);
    if (unshare(CLONE_NEWNS) < 0)
        return err_sys(e, "make a mount namespace");
    if (sandbox_mounts(s, e) < 0)
        return -1;
    clean_environment();
    (void)prctl(PR_SET_NAME, "egress-init");
    return become_unprivileged(s, e);
}

/* -- COMMAND ------------------------------------------------------------------------- */

static void say(const char *text, const char *what, int sys)
{
    (void)dprintf(2, "agentd egress run: %s: %s%s%s\n", what, text, sys ? ": " : "",
                  sys ? strerror(sys) : ""); /* nowhere else to say it */
}

/* The same folder, or / when it is covered or closed to the sandbox's user. */
static void enter_folder(const char *cwd)
{
    if (cwd[0] == '/' && chdir(cwd) == 0)
        return;
    say("not there or not open to the sandbox: starting in / (see --bind)",
        cwd[0] == '/' ? cwd : "the working directory", 0);
    if (chdir("/") < 0)
        _exit(EXIT_CANNOT_RUN);
}

static void take_foreground(int tty)
{
    sigset_t ttou;

    /* Blocked, or the kernel stops who asks from the background. */
    (void)sigemptyset(&ttou);
    (void)sigaddset(&ttou, SIGTTOU);
    (void)sigprocmask(SIG_BLOCK, &ttou, NULL);
    (void)tcsetpgrp(tty, getpgrp()); /* a terminal that hung up meanwhile */
}

static _Noreturn void command(const struct sandbox_seed *s, bool foreground)
{
    char *const *argv = s->conf->command;
    int sys;

    (void)setpgid(0, 0);
    if (foreground && s->tty >= 0)
        take_foreground(s->tty);
    enter_folder(s->cwd);
    (void)close_range(3, ~0U, 0); /* fails only for wrong ranges */
    (void)sigprocmask(SIG_SETMASK, &s->signals, NULL);
    (void)execvp(argv[0], argv);
    sys = errno;
    say("cannot run", argv[0], sys);
    _exit(sys == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

/* -- pid 1 --------------------------------------------------------------------------- */

struct init {
    struct sandbox_seed *s;
    int signals; /* signalfd: SIGCHLD */
    pid_t command;
};

static void tell(const struct init *in, enum sandbox_word word, int value)
{
    struct sandbox_msg m = {.word = word, .value = value};

    (void)send(in->s->talk, &m, sizeof m, MSG_NOSIGNAL); /* or the caller is gone */
}

static void reap(struct init *in)
{
    struct signalfd_siginfo one;
    int status, code;
    pid_t pid;

    (void)!read(in->signals, &one, sizeof one); /* several children, one signal */
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (pid != in->command)
            continue;
        if (WIFSTOPPED(status)) {
            tell(in, SANDBOX_HAS_STOPPED, WSTOPSIG(status));
            continue;
        }
        code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status);
        tell(in, SANDBOX_HAS_ENDED, code);
        _exit(code); /* and the kernel ends whatever is left */
    }
}

static void give_foreground(const struct init *in)
{
    if (in->s->tty >= 0)
        (void)tcsetpgrp(in->s->tty, in->command); /* SIGTTOU is blocked */
}

/* What a terminal sends goes to a whole group, so it does here. */
static bool is_of_terminal(int signo)
{
    return signo == SIGINT || signo == SIGQUIT || signo == SIGHUP || signo == SIGTSTP ||
           signo == SIGWINCH || signo == SIGCONT;
}

static void obey(struct init *in, const struct sandbox_msg *m)
{
    switch (m->word) {
    case SANDBOX_GO:
        if (in->command)
            return;
        in->command = fork();
        if (in->command == 0)
            command(in->s, m->value);
        if (in->command < 0) {
            say("cannot start a process", in->s->conf->command[0], errno);
            tell(in, SANDBOX_HAS_ENDED, EXIT_CANNOT_RUN);
            _exit(EXIT_CANNOT_RUN);
        }
        (void)setpgid(in->command, in->command); /* whoever of the two is first */
        return;
    case SANDBOX_SIGNAL:
        if (in->command > 0 && m->value > 0)
            (void)kill(is_of_terminal(m->value) ? -in->command : in->command, m->value);
        return;
    case SANDBOX_CONTINUE:
        if (m->value)
            give_foreground(in);
        if (in->command > 0)
            (void)kill(-in->command, SIGCONT);
        return;
    default:
        return;
    }
}

static _Noreturn void live(struct init *in)
{
    struct pollfd p[] = {
        {.fd = in->s->talk, .events = POLLIN},
        {.fd = in->s->life, .events = POLLIN},
        {.fd = in->signals, .events = POLLIN},
    };
    struct sandbox_msg m;
    ssize_t n;

    for (;;) {
        if (poll(p, COUNT_OF(p), -1) < 0 && errno != EINTR)
            _exit(1);
        if (p[2].revents)
            reap(in);
        if (p[1].revents)
            _exit(1); /* the stage died */
        if (!p[0].revents)
            continue;
        n = recv(in->s->talk, &m, sizeof m, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            _exit(1); /* the caller died */
        if (n == sizeof m)
            obey(in, &m);
    }
}

void sandbox_init(struct sandbox_seed *s)
{
    const int keep[] = {s->talk, s->life, s->tty};
    struct init in = {.s = s, .signals = -1};
    sigset_t children;
    struct err e;

    sandbox_close_others(keep, COUNT_OF(keep));
    (void)sigemptyset(&children);
    (void)sigaddset(&children, SIGCHLD);
    in.signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (in.signals < 0) {
        (void)err_sys(&e, "make a signalfd");
        sandbox_fail(s->talk, &e);
    }
    if (prepare(s, &e) < 0)
        sandbox_fail(s->talk, &e);
    tell(&in, SANDBOX_IS_READY, 0);
    live(&in);
}
