/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agentd/egress/audit.h"
#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/keeper/control_socket.h"
#include "agentd/egress/keeper/role.h"
#include "agentd/egress/tell.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/sock.h"

#define STATE_DIR "/run/agentd/egress"

struct options {
    const char *socket, *audit, *state_dir;
    bool is_json;
    enum log_level level;
};

static int read_options(int argc, char **argv, struct options *o)
{
    const char *format = NULL, *level = NULL;
    const struct cmd_option takes[] = {
        {.name = "--socket", .value = &o->socket},
        {.name = "--audit", .value = &o->audit},
        {.name = "--state", .value = &o->state_dir},
        {.name = "--log-format", .value = &format},
        {.name = "--log-level", .value = &level},
    };

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return -1;
    o->is_json = format && !strcmp(format, "json");
    if (format && !o->is_json && strcmp(format, "text") != 0) {
        tell(argv[0], "--log-format is text or json, not %.60s", format);
        return -1;
    }
    if (level && log_level_parse(level, &o->level) < 0) {
        tell(argv[0], "--log-level: no level %.60s", level);
        return -1;
    }
    if (!o->socket)
        o->socket = CONTROL_SERVE_PATH;
    if (!o->state_dir)
        o->state_dir = STATE_DIR;
    if (o->socket[0] != '/' || o->state_dir[0] != '/') {
        tell(argv[0], "a path that begins with / is wanted, not %.60s",
             o->socket[0] != '/' ? o->socket : o->state_dir);
        return -1;
    }
    return 0;
}

static void on_signal(void *arg, int signo)
{
    log_notice("egress.stopping", "signal=%d", signo);
    loop_stop(arg);
}

/* Each sandbox keeps about ten descriptors. */
static void raise_files(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) < 0)
        return; /* then there are fewer sandboxes */
    l.rlim_cur = l.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &l); /* as above */
}

static void notify(const char *state)
{
    struct err e;

    if (notify_systemd(state, &e) < 0)
        log_warn("egress.notify", "error=%s", log_e(&e));
}

static int serve(const struct options *o, struct loop *l, int audit_fd, struct err *e)
{
    struct keeper_conf conf = {.loop = l, .audit_fd = audit_fd, .host = KEEPER_HOST_ALL};
    struct control_socket *control = NULL;
    struct keeper *k;

    conf.guard_uid = keeper_guard_uid();
    conf.state_dir = o->state_dir;
    if (role_keeper(e) < 0 || loop_signal(l, SIGTERM, on_signal, l, e) < 0 ||
        loop_signal(l, SIGINT, on_signal, l, e) < 0)
        return -1;
    k = keeper_new(&conf, e);
    if (k)
        control = control_socket_new(k, l, o->socket, e);
    if (control) {
        log_notice("egress.ready", "socket=%s pid=%ld", log_q(o->socket), (long)getpid());
        notify("READY=1");
        loop_run(l);
        notify("STOPPING=1");
    }
    control_socket_free(control);
    keeper_free(k);
    return control ? 0 : -1;
}

int cmd_serve(int argc, char **argv)
{
    struct options o = {.level = LOG_INFO};
    struct loop *l = NULL;
    struct err e = {0};
    int audit_fd = -1, rc = 0;

    if (read_options(argc, argv, &o) < 0)
        return EXIT_USAGE;
    log_setup(o.is_json, o.level);
    if (geteuid() != 0) {
        tell(argv[0],
             "only root can rule other users' sandboxes; agentd egress run works "
             "for everybody");
        return EXIT_FAIL;
    }
    raise_files();
    if (o.audit)
        rc = audit_fd = audit_open(o.audit, &e);
    if (rc >= 0) {
        l = loop_new(&e);
        rc = l ? serve(&o, l, audit_fd, &e) : -1;
    }
    loop_free(l);
    sock_close(&audit_fd);
    if (rc < 0)
        log_err("egress.serve", "error=%s", log_e(&e));
    return rc < 0 ? EXIT_FAIL : 0;
}
