/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_keeper.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/keeper/control_socket.h"
#include "agentd/egress/keeper/veth.h"
#include "agentd/egress/sandbox_name.h"
#include "agentd/egress/tell.h"
#include "common/crypto.h"
#include "common/json.h"

struct options {
    const char *policy, *netns, *iface, *name, *socket;
    pid_t pid;
};

/* -- words of a command line --------------------------------------------------------- */

static pid_t read_pid(const char *text)
{
    char *end;
    long n;

    if (text[0] < '1' || text[0] > '9')
        return 0;
    errno = 0;
    n = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && n <= INT_MAX ? (pid_t)n : 0;
}

/* -- requests ------------------------------------------------------------------------ */

/* Its canonical text, read with our own rights. What is wrong with it is told. */
static int put_policy(const char *cmd, const char *name, struct buf *out)
{
    struct policy *p = tell_policy_load(cmd, name);
    int rc = p ? policy_print(p, out) : -1;

    if (p && rc < 0)
        tell(cmd, "no memory");
    policy_unref(p);
    return rc;
}

static int put_member(struct buf *out, const char *key, const char *text)
{
    return buf_addf(out, ",\"%s\":", key) < 0 || json_put_str(out, span_str(text)) < 0
               ? -1
               : 0;
}

/* -- attach -------------------------------------------------------------------------- */

/* Sealed is what has nothing but lo; whether it can be a veth the keeper says. */
static int find_tier(const struct options *o, enum egress_tier *ret, struct err *e)
{
    struct netns *ns = netns_open(o->netns, o->pid, e);
    struct err why = {0};
    int rc;

    if (!ns)
        return err_wrap(e, "the sandbox's namespace");
    rc = veth_none(ns, &why);
    netns_free(ns);
    if (rc < 0 && why.code != ERR_DENIED) {
        *e = why;
        return -1;
    }
    *ret = rc == 0 ? EGRESS_SEALED : EGRESS_VETH;
    return 0;
}

static int make_name(const struct options *o, char ret[EGRESS_NAME_MAX + 1])
{
    uint8_t r[4];

    if (o->pid > 0)
        return snprintf(ret, EGRESS_NAME_MAX + 1, "pid-%ld", (long)o->pid) < 0 ? -1 : 0;
    crypto_random(r, sizeof r);
    return snprintf(ret, EGRESS_NAME_MAX + 1, "x%02x%02x%02x%02x", r[0], r[1], r[2],
                    r[3]) < 0
               ? -1
               : 0;
}

static int put_attach(const struct options *o, const char *name, enum egress_tier tier,
                      struct buf *out)
{
    char path[PATH_MAX];

    if (buf_addf(out, "{\"op\":\"attach\",\"name\":\"%s\",\"tier\":\"%s\"", name,
                 tier == EGRESS_SEALED ? "sealed" : "veth") < 0)
        return -1;
    if (o->pid > 0 && buf_addf(out, ",\"pid\":%ld", (long)o->pid) < 0)
        return -1;
    /* The keeper has another working directory. */
    if (o->netns && (!realpath(o->netns, path) || put_member(out, "netns", path) < 0))
        return -1;
    return o->iface ? put_member(out, "iface", o->iface) : 0;
}

static int attach_options(int argc, char **argv, struct options *o)
{
    const char *pid = NULL;
    const struct cmd_option takes[] = {
        {.name = "--policy", .value = &o->policy},
        {.name = "--pid", .value = &pid},
        {.name = "--netns", .value = &o->netns},
        {.name = "--iface", .value = &o->iface},
        {.name = "--name", .value = &o->name},
        {.name = "--socket", .value = &o->socket},
    };

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return -1;
    if (pid && (o->pid = read_pid(pid)) == 0) {
        tell(argv[0], "no process id: %.60s", pid);
        return -1;
    }
    if (!o->policy) {
        tell(argv[0], "--policy FILE is missing");
        return -1;
    }
    if ((o->pid > 0) == (o->netns != NULL)) {
        tell(argv[0], "either --pid N or --netns PATH is wanted");
        return -1;
    }
    return 0;
}

int cmd_attach(int argc, char **argv)
{
    struct options o = {0};
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    char made[EGRESS_NAME_MAX + 1];
    enum egress_tier tier = EGRESS_SEALED;
    struct err e = {0};

    if (attach_options(argc, argv, &o) < 0)
        return EXIT_USAGE;
    if (geteuid() != 0) {
        tell(argv[0], "only root may attach a policy to a sandbox");
        return EXIT_FAIL;
    }
    if (o.name ? sandbox_name_check(o.name, &e) < 0 : make_name(&o, made) < 0)
        return tell_err(argv[0], &e);
    if (find_tier(&o, &tier, &e) < 0)
        return tell_err(argv[0], &e);
    if (put_attach(&o, o.name ? o.name : made, tier, &request) < 0 ||
        buf_adds(&request, ",\"policy\":") < 0) {
        tell(argv[0], "no memory, or no such path");
        return EXIT_FAIL;
    }
    if (put_policy(argv[0], o.policy, &request) < 0)
        return EXIT_USAGE;
    if (buf_adds(&request, "}") < 0 ||
        control_call(o.socket ? o.socket : CONTROL_SERVE_PATH, buf_span(&request),
                     &answer, &e) < 0)
        return tell_err(argv[0], &e);
    return printf("%s\n", o.name ? o.name : made) < 0 || fflush(stdout) != 0 ? EXIT_FAIL
                                                                             : EXIT_DONE;
}

/* -- detach, reload ------------------------------------------------------------------ */

/* Of one sandbox that is there; the new policy with it, where the operation has one. */
static int change(int argc, char **argv, const char *op, bool has_policy)
{
    struct options o = {0};
    const struct cmd_option takes[] = {{.name = "--name", .value = &o.name},
                                       {.name = "--socket", .value = &o.socket},
                                       {.name = "--policy", .value = &o.policy}};
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    struct err e = {.msg = "no memory"};
    struct cmd_keeper k;

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes) - !has_policy) < 0)
        return EXIT_USAGE;
    if (!o.name || (has_policy && !o.policy)) {
        tell(argv[0], has_policy ? "--name ID and --policy FILE are wanted"
                                 : "--name ID is missing");
        return EXIT_USAGE;
    }
    k = (struct cmd_keeper){.socket = o.socket, .name = o.name};
    if (sandbox_name_check(o.name, &e) < 0 ||
        buf_addf(&request, "{\"op\":\"%s\",\"name\":\"%s\"", op, o.name) < 0 ||
        (has_policy && buf_adds(&request, ",\"policy\":") < 0))
        return tell_err(argv[0], &e);
    if (has_policy && put_policy(argv[0], o.policy, &request) < 0)
        return EXIT_USAGE;
    if (buf_adds(&request, "}") < 0 ||
        cmd_keeper_ask(&k, buf_span(&request), &answer, &e) < 0)
        return tell_err(argv[0], &e);
    return EXIT_DONE;
}

int cmd_detach(int argc, char **argv)
{
    return change(argc, argv, "detach", false);
}

int cmd_reload(int argc, char **argv)
{
    return change(argc, argv, "reload", true);
}
