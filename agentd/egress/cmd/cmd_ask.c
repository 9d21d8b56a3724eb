/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/keeper/control_socket.h"
#include "agentd/egress/keeper/veth.h"
#include "agentd/egress/tell.h"
#include "common/crypto.h"
#include "common/json.h"

enum {
    RUN_SOCKETS_MAX = 1024, /* asked by one `status` */
};

struct options {
    const char *policy, *netns, *iface, *name, *socket;
    pid_t pid;
    bool is_json;
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

static int check_name(const char *name, struct err *e)
{
    char id[HOST_ID_MAX + 1];

    if (host_id_parse(span_str(name), id) < 0 || strcmp(id, name) != 0)
        return err_set(e, ERR_CONFIG,
                       "\"%.45s\" is no sandbox name: 1 to 40 of a-z 0-9 -, no - at the "
                       "ends, no --",
                       name);
    return 0;
}

/* The keeper that has it: the sandbox's own, or the host's. */
static int ask(const struct options *o, struct span request, struct buf *ret,
               struct err *e)
{
    char path[CONTROL_PATH_MAX];

    if (o->socket)
        return control_call(o->socket, request, ret, e);
    if (o->name && control_run_path(o->name, path, sizeof path, e) == 0) {
        if (control_call(path, request, ret, e) == 0)
            return 0;
        if (e->code != ERR_SYS || e->sys != ECONNREFUSED)
            return -1;
    }
    if (control_call(CONTROL_SERVE_PATH, request, ret, e) == 0)
        return 0;
    if (o->name && e->code == ERR_SYS)
        return err_wrap(
            e,
            "no `run` of yours is called \"%s\", and the host's service cannot be asked",
            o->name);
    return -1;
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
    if (o.name ? check_name(o.name, &e) < 0 : make_name(&o, made) < 0)
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

int cmd_detach(int argc, char **argv)
{
    struct options o = {0};
    const struct cmd_option takes[] = {{.name = "--name", .value = &o.name},
                                       {.name = "--socket", .value = &o.socket}};
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    struct err e = {.msg = "no memory"};

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return EXIT_USAGE;
    if (!o.name) {
        tell(argv[0], "--name ID is missing");
        return EXIT_USAGE;
    }
    if (check_name(o.name, &e) < 0 ||
        buf_addf(&request, "{\"op\":\"detach\",\"name\":\"%s\"}", o.name) < 0 ||
        ask(&o, buf_span(&request), &answer, &e) < 0)
        return tell_err(argv[0], &e);
    return EXIT_DONE;
}

int cmd_reload(int argc, char **argv)
{
    struct options o = {0};
    const struct cmd_option takes[] = {{.name = "--name", .value = &o.name},
                                       {.name = "--policy", .value = &o.policy},
                                       {.name = "--socket", .value = &o.socket}};
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    struct err e = {.msg = "no memory"};

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return EXIT_USAGE;
    if (!o.name || !o.policy) {
        tell(argv[0], "--name ID and --policy FILE are wanted");
        return EXIT_USAGE;
    }
    if (check_name(o.name, &e) < 0 ||
        buf_addf(&request, "{\"op\":\"reload\",\"name\":\"%s\",\"policy\":", o.name) < 0)
        return tell_err(argv[0], &e);
    if (put_policy(argv[0], o.policy, &request) < 0)
        return EXIT_USAGE;
    if (buf_adds(&request, "}") < 0 || ask(&o, buf_span(&request), &answer, &e) < 0)
        return tell_err(argv[0], &e);
    return EXIT_DONE;
}

/* -- status -------------------------------------------------------------------------- */

/* All sandboxes of one keeper, put behind those of the others. */
static int add_sandboxes(const struct buf *answer, struct buf *all)
{
    struct span list;

    if (json_find(buf_span(answer), "sandboxes", &list) < 0 || list.len < 2)
        return -1;
    list = span_of(list.p + 1, list.len - 2);
    if (list.len == 0)
        return 0;
    if (all->len > 0 && buf_adds(all, ",") < 0)
        return -1;
    return buf_add(all, list.p, list.len);
}

/* Nobody there is no fault: there are none then. */
static int add_from(const char *path, struct span request, struct buf *all, struct err *e)
{
    AUTO(buf_done)
    struct buf answer = BUF_INIT;

    if (control_call(path, request, &answer, e) < 0)
        return e->code == ERR_SYS && e->sys == ECONNREFUSED ? 0 : -1;
    return add_sandboxes(&answer, all) < 0
               ? err_set(e, ERR_PROTO, "%s gives no status that can be read", path)
               : 0;
}

/* One that gives no answer, for it is suspended perhaps, is told and hides no other. */
static int add_run_sockets(struct span request, struct buf *all, bool *ret_is_partial,
                           struct err *e)
{
    char dir[CONTROL_PATH_MAX], path[CONTROL_PATH_MAX];
    const struct dirent *de;
    struct err why;
    unsigned n = 0;
    DIR *d;

    if (control_run_dir(dir, sizeof dir, e) < 0)
        return -1;
    d = opendir(dir);
    while (d && n < RUN_SOCKETS_MAX && (de = readdir(d)) != NULL) {
        size_t len = strlen(de->d_name);

        if (len < 6 || strcmp(de->d_name + len - 5, ".sock") != 0 ||
            snprintf(path, sizeof path, "%s/%s", dir, de->d_name) >= (int)sizeof path)
            continue;
        n++;
        if (add_from(path, request, all, &why) < 0) {
            tell("status", "%s", why.msg);
            *ret_is_partial = true;
        }
    }
    if (d)
        (void)closedir(d); /* opened for reading */
    return 0;
}

static int collect(const struct options *o, struct buf *all, bool *ret_is_partial,
                   struct err *e)
{
    struct span every = span_str("{\"op\":\"status\"}");
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;

    if (!o->name && o->socket) {
        if (control_call(o->socket, every, &answer, e) < 0)
            return -1;
        return add_sandboxes(&answer, all);
    }
    if (!o->name) {
        /* An ordinary user is not answered by the host's keeper, and has no
         * sandbox there. */
        if (geteuid() == 0 && add_from(CONTROL_SERVE_PATH, every, all, e) < 0)
            return -1;
        return add_run_sockets(every, all, ret_is_partial, e);
    }
    if (buf_addf(&request, "{\"op\":\"status\",\"name\":\"%s\"}", o->name) < 0)
        return err_set(e, ERR_NOMEM, "no memory");
    if (ask(o, buf_span(&request), &answer, e) < 0)
        return -1;
    return add_sandboxes(&answer, all);
}

static long long number_of(const struct json *o, const char *key)
{
    const struct json *v = o ? json_get(o, key) : NULL;

    return v && json_type(v) == JSON_INT ? (long long)json_int(v) : 0;
}

static int print_one(const struct json *s)
{
    const struct json *enforced = json_get(s, "enforced"), *why = json_get(s, "reasons");
    const struct json *counts = json_get(s, "counts");
    bool is_enforced =
        enforced && json_type(enforced) == JSON_BOOL && json_bool(enforced);
    int rc =
        printf("%-24.40s %-7.7s %-9s %-8.8s %6lld %9lld %9lld  %.64s\n",
               json_get_str(s, "name", ""), json_get_str(s, "tier", ""),
               is_enforced ? "yes" : "NO", json_get_str(s, "mode", ""),
               number_of(counts, "open"), number_of(counts, "connections"),
               number_of(counts, "refused") + number_of(counts, "kernel_refused_packets"),
               json_get_str(s, "policy", ""));

    for (size_t i = 0;
         rc >= 0 && why && json_type(why) == JSON_ARRAY && i < json_len(why); i++)
        if (json_type(json_at(why, i)) == JSON_STRING)
            rc = printf("  not enforced: %s\n", json_str(json_at(why, i)));
    return rc < 0 ? -1 : 0;
}

static int print_table(struct span text, struct err *e)
{
    struct json *o = json_parse(text, CONTROL_ANSWER_MAX, e);
    const struct json *list = o ? json_get(o, "sandboxes") : NULL;
    int rc = 0;

    if (!list || json_type(list) != JSON_ARRAY) {
        json_free(o);
        return o ? err_set(e, ERR_PROTO, "a status that cannot be read") : -1;
    }
    if (json_len(list) > 0)
        rc = printf("%-24s %-7s %-9s %-8s %6s %9s %9s  %s\n", "NAME", "TIER", "ENFORCED",
                    "MODE", "OPEN", "TAKEN", "REFUSED", "POLICY");
    for (size_t i = 0; rc >= 0 && i < json_len(list); i++)
        rc = json_type(json_at(list, i)) == JSON_OBJECT ? print_one(json_at(list, i)) : 0;
    json_free(o);
    return rc < 0 || fflush(stdout) != 0 ? err_sys(e, "write to stdout") : 0;
}

int cmd_status(int argc, char **argv)
{
    struct options o = {0};
    const struct cmd_option takes[] = {{.name = "--name", .value = &o.name},
                                       {.name = "--json", .is_set = &o.is_json},
                                       {.name = "--socket", .value = &o.socket}};
    AUTO(buf_done)
    struct buf all = BUF_INIT;
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct err e = {.msg = "no memory"};
    bool is_partial = false;
    int rc;

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return EXIT_USAGE;
    if ((o.name && check_name(o.name, &e) < 0) || collect(&o, &all, &is_partial, &e) < 0)
        return tell_err(argv[0], &e);
    if (buf_adds(&text, "{\"sandboxes\":[") < 0 ||
        (all.len > 0 && buf_add(&text, all.p, all.len) < 0) || buf_adds(&text, "]}") < 0)
        return tell_err(argv[0], &e);
    if (!o.is_json && print_table(buf_span(&text), &e) < 0)
        return tell_err(argv[0], &e);
    rc = o.is_json ? printf("%.*s\n", SPAN_FMT(buf_span(&text))) : 0;
    return rc < 0 || fflush(stdout) != 0 || is_partial ? EXIT_FAIL : EXIT_DONE;
}
