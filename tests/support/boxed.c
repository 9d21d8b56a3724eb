/* SPDX-License-Identifier: MIT */
#include "tests/support/boxed.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/sandbox.h"
#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "tests/support/test.h"

/* -- the supervisor: what `run` is, without the network ------------------------------ */

static volatile sig_atomic_t terminated;

static void on_term(int signo)
{
    terminated = signo;
}

static int live(struct sandbox *s)
{
    struct pollfd p = {.fd = sandbox_fd(s), .events = POLLIN};
    enum sandbox_news news;
    int value = 0;

    for (;;) {
        (void)poll(&p, 1, 100);
        if (terminated) {
            sandbox_signal(s, terminated);
            terminated = 0;
        }
        news = sandbox_read(s, &value);
        if (news == SANDBOX_STOPPED)
            sandbox_stopped(s, value);
        if (news == SANDBOX_ENDED)
            return value;
    }
}

int boxed_become(enum boxed_mode mode, struct userns_range *range, struct err *e)
{
    if (mode == BOXED_ROOT)
        return userns_range_take("test", USERNS_LOCKS, range, e);
    if (getuid() == 0 &&
        (setgroups(0, NULL) < 0 || fchown(1, BOXED_NOBODY, BOXED_NOBODY) < 0 ||
         setresgid(BOXED_NOBODY, BOXED_NOBODY, BOXED_NOBODY) < 0 ||
         setresuid(BOXED_NOBODY, BOXED_NOBODY, BOXED_NOBODY) < 0))
        return err_sys(e, "become an ordinary user");
    /* setresuid() took it: our own files in /proc are ours again. */
    (void)prctl(PR_SET_DUMPABLE, 1);
    return userns_enter(e);
}

void boxed_supervise(const struct boxed *sc)
{
    char *shell[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char *)(uintptr_t)sc->script,
                     NULL};
    struct userns_range range = {.lock = -1};
    struct sandbox_conf conf = {.bind = sc->bind,
                                .n_bind = sc->n_bind,
                                .fixed = {sc->fixed},
                                .makers = 1,
                                .command = sc->command ? sc->command : shell};
    struct sandbox *s = NULL;
    struct err e = {0};
    int code;

    if (chdir("/") <
        0) /* the tests' own folder may be one that a sandbox does not show */
        _exit(BOXED_CANNOT);
    (void)signal(SIGTERM, on_term);
    (void)setenv("TUNNEL_TOKEN", "secret-token", 1);
    (void)setenv("TUNNEL_SERVER", "https://preview.example.com", 1);
    (void)setenv("https_proxy", "http://user:secret-password@proxy.example.com", 1);
    (void)setenv("ALL_PROXY", "http://user:secret-password@proxy.example.com", 1);
    (void)setenv("KEPT", "kept", 1);
    if (sc->before)
        sc->before();
    if (boxed_become(sc->mode, &range, &e) == 0) {
        conf.uid = getuid();
        conf.gid = getgid();
        conf.first_id = range.first;
        s = sandbox_new(&conf, &e);
    }
    if (!s || sandbox_go(s, &e) < 0) {
        (void)dprintf(2, "%s\n", e.msg);
        _exit(e.code == ERR_CONFIG ? 2 : BOXED_CANNOT);
    }
    if (sc->tells_stage)
        (void)dprintf(1, "stage %ld\n", (long)sandbox_pid(s));
    code = live(s);
    sandbox_free(s);
    _exit(code);
}

pid_t boxed_start(const struct boxed *sc, int *ret_out)
{
    int out[2];
    pid_t pid;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (dup2(out[1], 1) < 0 || dup2(out[1], 2) < 0)
            _exit(BOXED_CANNOT);
        boxed_supervise(sc);
    }
    (void)close(out[1]);
    *ret_out = out[0];
    return pid;
}

int boxed_code(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool boxed_read_until(int fd, const char *mark, char *ret)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t n = 0;
    ssize_t got;

    ret[0] = '\0';
    while (n < BOXED_OUTPUT_MAX - 1 && poll(&p, 1, BOXED_WAIT_MS) == 1) {
        got = read(fd, ret + n, BOXED_OUTPUT_MAX - 1 - n);
        if (got <= 0)
            return mark == NULL;
        n += (size_t)got;
        ret[n] = '\0';
        if (mark && strstr(ret, mark))
            return true;
    }
    return false;
}

void boxed_run(const struct boxed *sc, struct boxed_result *ret)
{
    int out;
    pid_t pid = boxed_start(sc, &out);

    assert_true(boxed_read_until(out, NULL, ret->out));
    (void)close(out);
    ret->code = boxed_code(pid);
}

/* The modes that can be tried here, with the reason printed for the others. */
static bool can(enum boxed_mode mode)
{
    struct boxed sc = {.mode = mode, .script = "exit 0"};
    static struct boxed_result r;

    if (mode == BOXED_ROOT && !userns_is_host_root()) {
        print_message("as root: not root here\n");
        return false;
    }
    boxed_run(&sc, &r);
    if (r.code != 0)
        print_message("%s: %s", mode == BOXED_ROOT ? "as root" : "as a user", r.out);
    return r.code == 0;
}

int boxed_find_modes(void **state)
{
    static struct boxed_modes m;
    unsigned i;

    for (i = 0; i < BOXED_MODES; i++)
        m.can[i] = can((enum boxed_mode)i);
    *state = &m;
    return 0;
}

/* Body runs once for each mode that works; skipped when none does. */

/* -- sockets with names -------------------------------------------------------------- */

int boxed_listen(const char *name, bool is_abstract)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len;

    (void)snprintf(a.sun_path + is_abstract, sizeof a.sun_path - 1, "%s", name);
    len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name));
    if (!is_abstract)
        (void)unlink(name);
    return fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && listen(fd, 4) == 0
               ? fd
               : -1;
}

int boxed_connect(const char *name, bool is_abstract)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    (void)snprintf(a.sun_path + is_abstract, sizeof a.sun_path - 1, "%s", name);
    r = connect(
        fd, (struct sockaddr *)&a,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name)));
    r = r < 0 ? errno : 0;
    (void)close(fd);
    return r;
}
