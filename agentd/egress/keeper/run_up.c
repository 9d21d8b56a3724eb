/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/run_up.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/agent.h"
#include "agentd/egress/keeper/role.h"
#include "agentd/egress/keeper/sandbox_int.h"
#include "agentd/forward/netns.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

static const char *from_env(const char *name)
{
    return getenv(name);
}

/* What agent_identify() wants, by the names that it has here: `run` has no such options. */
static int check_given(const struct options *o, struct err *e)
{
    if (!o->server)
        return err_set(e, ERR_CONFIG, "no server: set TUNNEL_SERVER in the environment");
    if (!o->token_file && o->token.len == 0)
        return err_set(
            e, ERR_CONFIG,
            "no token: set TUNNEL_TOKEN_FILE or TUNNEL_TOKEN in the environment");
    return 0;
}

/* The options as `agentd up` would have them here; NULL with *e. */
static struct options *options_here(struct err *e)
{
    char word[][8] = {"agentd", "up"};
    char *argv[] = {word[0], word[1], NULL};
    struct options *o = mem_zalloc(1, sizeof *o);

    if (!o) {
        (void)err_set(e, ERR_NOMEM, "no memory for the options");
        return NULL;
    }
    if (options_load(o, 2, argv, from_env, e) == 0 && check_given(o, e) == 0 &&
        agent_identify(o, e) == 0)
        return o;
    (void)err_wrap(e, "--up");
    options_done(o);
    mem_free(o);
    return NULL;
}

int run_up_check(struct err *e)
{
    struct options *o = options_here(e);

    if (!o)
        return -1;
    options_done(o);
    mem_free(o);
    return 0;
}

/* Its results are the sandbox's business, its log is ours. */
static int set_streams(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0)
        return -1;
    return close(null);
}

static _Noreturn void life(int go, int maker)
{
    const int keep[] = {go, maker};
    char word[][8] = {"agentd", "up"};
    char *argv[] = {word[0], word[1], NULL};
    struct agent_source source = {.argc = 2, .argv = argv, .env = from_env};
    struct netns *ns = NULL;
    struct options *o;
    struct err e = {.msg = "its descriptors"};
    char byte;

    (void)setpgid(0, 0); /* a terminal's ^C is for COMMAND */
    sandbox_close_others(keep, 2);
    if (set_streams() < 0 || role_guard_before_exec(0, &e) < 0)
        goto failed;
    if (read(go, &byte, 1) != 1)
        _exit(0);    /* there will be no COMMAND */
    (void)close(go); /* nothing was written */
    ns = netns_from_maker(&maker, &e);
    o = ns ? options_here(&e) : NULL;
    if (!o)
        goto failed;
    log_setup(o->log_json, o->log_level);
    source.take_ns = &ns;
    _exit((int)agent_run(&o, &source));
failed:
    log_err("up.start", "why=%s", log_e(&e));
    _exit(1);
}

int run_up_start(struct run_up *u, int *take_maker, struct err *e)
{
    int pair[2];
    pid_t pid;

    if (pipe2(pair, O_CLOEXEC) < 0) {
        sock_close(take_maker);
        return err_sys(e, "make a pipe");
    }
    pid = fork();
    if (pid == 0) {
        (void)close(pair[1]); /* nothing was written */
        life(pair[0], *take_maker);
    }
    (void)close(pair[0]); /* nothing was written */
    sock_close(take_maker);
    if (pid < 0) {
        (void)close(pair[1]); /* nothing was written */
        return err_sys(e, "start the agent");
    }
    u->pid = pid;
    u->go = pair[1];
    return 0;
}

void run_up_go(struct run_up *u)
{
    if (u->go >= 0)
        (void)!write(u->go, "g", 1); /* or it died, and has said why */
    sock_close(&u->go);
}

void run_up_end(struct run_up *u)
{
    struct pollfd p = {.events = POLLIN};

    sock_close(&u->go);
    if (u->pid <= 0)
        return;
    p.fd = (int)syscall(SYS_pidfd_open, u->pid, 0);
    (void)kill(u->pid, SIGTERM); /* ours, and not waited for yet */
    if (p.fd < 0 || poll(&p, 1, RUN_UP_END_MS) != 1)
        (void)kill(u->pid, SIGKILL);
    sock_close(&p.fd);
    while (waitpid(u->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    u->pid = 0;
}
