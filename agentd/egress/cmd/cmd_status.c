/* SPDX-License-Identifier: MIT */
/*
 * Theory. Each `run` and the host's service keep sandboxes of their own, so all of them
 * are asked, one after the other, and their lists are put behind each other. What is of
 * a whole keeper stands in a second list, one row for each that there is. One that gives
 * no answer, for it is suspended perhaps, hides no other: it has a row that says so. Each
 * has time of its own to answer; when several did not take theirs, little is left.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_keeper.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/keeper/control_socket.h"
#include "agentd/egress/sandbox_name.h"
#include "agentd/egress/tell.h"
#include "common/json.h"
#include "common/loop.h"

enum {
    RUN_SOCKETS_MAX = 1024, /* asked by one `status` */
    RUN_MS = 2000,          /* one `run` has one sandbox to tell of */
    ALL_MS = 10000,         /* of waiting; then each has */
    LEAST_MS = 100,
};

struct options {
    const char *name, *socket;
    bool is_json;
};

struct report {
    struct buf sandboxes, services; /* JSON objects, with commas between */
    uint64_t started_us;
    bool is_partial; /* one gave no answer, and was told */
};

/* -- gathering ----------------------------------------------------------------------- */

static int add_comma(struct buf *list)
{
    return list->len > 0 ? buf_adds(list, ",") : 0;
}

/* All sandboxes of one keeper, put behind those of the others. */
static int add_sandboxes(const struct buf *answer, struct buf *all)
{
    struct span list;

    if (json_find(buf_span(answer), "sandboxes", &list) < 0 || list.len < 2)
        return -1;
    list = span_of(list.p + 1, list.len - 2);
    if (list.len == 0)
        return 0;
    return add_comma(all) < 0 ? -1 : buf_add(all, list.p, list.len);
}

/* Its digits as they came; "0" from one that does not count. */
static struct span lost_of(const struct buf *answer)
{
    struct span n;

    if (json_find(buf_span(answer), "audit_lost", &n) < 0 || n.len == 0)
        return span_str("0");
    for (size_t i = 0; i < n.len; i++)
        if (n.p[i] < '0' || n.p[i] > '9')
            return span_str("0");
    return n;
}

static int put_service(struct report *r, const char *path, const struct buf *answer)
{
    return add_comma(&r->services) < 0 || buf_adds(&r->services, "{\"socket\":") < 0 ||
                   json_put_str(&r->services, span_str(path)) < 0 ||
                   buf_addf(&r->services, ",\"audit_lost\":%.*s}",
                            SPAN_FMT(lost_of(answer))) < 0
               ? -1
               : 0;
}

static int add_answer(struct report *r, const char *path, const struct buf *answer,
                      struct err *e)
{
    if (add_sandboxes(answer, &r->sandboxes) < 0)
        return err_set(e, ERR_PROTO, "%s gives no status that can be read", path);
    if (put_service(r, path, answer) < 0)
        return err_set(e, ERR_NOMEM, "no memory for the status");
    return 0;
}

static int add_silent(struct report *r, const char *path, const struct err *why)
{
    const char *text = why->code == ERR_TIMEOUT ? "does not answer" : why->msg;

    tell("status", "%s", why->msg);
    r->is_partial = true;
    return add_comma(&r->services) < 0 || buf_adds(&r->services, "{\"socket\":") < 0 ||
                   json_put_str(&r->services, span_str(path)) < 0 ||
                   buf_adds(&r->services, ",\"error\":") < 0 ||
                   json_put_str(&r->services, span_str(text)) < 0 ||
                   buf_adds(&r->services, "}") < 0
               ? -1
               : 0;
}

static unsigned time_left(const struct report *r, unsigned ms)
{
    uint64_t spent_ms = (clock_us() - r->started_us) / 1000;
    uint64_t left = spent_ms < ALL_MS ? ALL_MS - spent_ms : 0;

    if (left < ms)
        ms = (unsigned)left;
    return ms > LEAST_MS ? ms : LEAST_MS;
}

/* Nobody there is no fault: there are none then. */
static int add_from(const char *path, struct span request, unsigned ms, struct report *r,
                    struct err *e)
{
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    struct err why = {0};

    if (control_call_within(path, request, time_left(r, ms), &answer, &why) == 0 &&
        add_answer(r, path, &answer, &why) == 0)
        return 0;
    if (control_is_absent(&why))
        return 0;
    return add_silent(r, path, &why) < 0 ? err_set(e, ERR_NOMEM, "no memory") : 0;
}

static int add_run_sockets(struct span request, struct report *r, struct err *e)
{
    char dir[CONTROL_PATH_MAX], path[CONTROL_PATH_MAX];
    const struct dirent *de;
    unsigned n = 0;
    int rc = 0;
    DIR *d;

    if (control_run_dir(dir, sizeof dir, e) < 0)
        return -1;
    control_run_sweep();
    d = opendir(dir);
    while (d && rc == 0 && n < RUN_SOCKETS_MAX && (de = readdir(d)) != NULL) {
        size_t len = strlen(de->d_name);

        if (len < 6 || strcmp(de->d_name + len - 5, ".sock") != 0 ||
            snprintf(path, sizeof path, "%s/%s", dir, de->d_name) >= (int)sizeof path)
            continue;
        n++;
        rc = add_from(path, request, RUN_MS, r, e);
    }
    if (d)
        (void)closedir(d); /* opened for reading */
    return rc;
}

static int collect_one(const struct options *o, struct report *r, struct err *e)
{
    struct cmd_keeper k = {.socket = o->socket, .name = o->name, .ms = CONTROL_STATUS_MS};
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;

    if (buf_adds(&request, "{\"op\":\"status\"") < 0 ||
        (o->name && buf_addf(&request, ",\"name\":\"%s\"", o->name) < 0) ||
        buf_adds(&request, "}") < 0)
        return err_set(e, ERR_NOMEM, "no memory");
    if (cmd_keeper_ask(&k, buf_span(&request), &answer, e) < 0)
        return -1;
    return add_answer(r, k.asked, &answer, e);
}

static int collect(const struct options *o, struct report *r, struct err *e)
{
    struct span every = span_str("{\"op\":\"status\"}");

    if (o->name || o->socket)
        return collect_one(o, r, e);
    /* An ordinary user is not answered by the host's keeper, and has no sandbox there. */
    if (geteuid() == 0 &&
        add_from(CONTROL_SERVE_PATH, every, CONTROL_STATUS_MS, r, e) < 0)
        return -1;
    return add_run_sockets(every, r, e);
}

static int print_report(const struct report *r, struct buf *out)
{
    return buf_adds(out, "{\"sandboxes\":[") < 0 ||
                   buf_add(out, r->sandboxes.p, r->sandboxes.len) < 0 ||
                   buf_adds(out, "],\"services\":[") < 0 ||
                   buf_add(out, r->services.p, r->services.len) < 0 ||
                   buf_adds(out, "]}") < 0
               ? -1
               : 0;
}

/* -- as text ------------------------------------------------------------------------- */

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

static int print_service(const struct json *s)
{
    long long lost = number_of(s, "audit_lost");

    if (lost == 0)
        return 0;
    return printf("%s: %lld audit records were lost since it started; its log says why "
                  "(audit.lost)\n",
                  json_get_str(s, "socket", ""), lost);
}

static int print_list(const struct json *list, int (*print)(const struct json *))
{
    int rc = 0;

    for (size_t i = 0; rc >= 0 && i < json_len(list); i++)
        rc = json_type(json_at(list, i)) == JSON_OBJECT ? print(json_at(list, i)) : 0;
    return rc;
}

static int print_table(struct span text, struct err *e)
{
    struct json *o = json_parse(text, CONTROL_ANSWER_MAX, e);
    const struct json *list = o ? json_get(o, "sandboxes") : NULL;
    const struct json *services = o ? json_get(o, "services") : NULL;
    int rc = 0;

    if (!list || json_type(list) != JSON_ARRAY || !services ||
        json_type(services) != JSON_ARRAY) {
        json_free(o);
        return o ? err_set(e, ERR_PROTO, "a status that cannot be read") : -1;
    }
    if (json_len(list) > 0)
        rc = printf("%-24s %-7s %-9s %-8s %6s %9s %9s  %s\n", "NAME", "TIER", "ENFORCED",
                    "MODE", "OPEN", "TAKEN", "REFUSED", "POLICY");
    if (rc >= 0)
        rc = print_list(list, print_one);
    if (rc >= 0)
        rc = print_list(services, print_service);
    json_free(o);
    return rc < 0 || fflush(stdout) != 0 ? err_sys(e, "write to stdout") : 0;
}

int cmd_status(int argc, char **argv)
{
    struct options o = {0};
    const struct cmd_option takes[] = {{.name = "--name", .value = &o.name},
                                       {.name = "--json", .is_set = &o.is_json},
                                       {.name = "--socket", .value = &o.socket}};
    struct report r = {
        .sandboxes = BUF_INIT, .services = BUF_INIT, .started_us = clock_us()};
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct err e = {.msg = "no memory"};
    int rc;

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return EXIT_USAGE;
    rc = o.name ? sandbox_name_check(o.name, &e) : 0;
    if (rc == 0)
        rc = collect(&o, &r, &e);
    if (rc == 0)
        rc = print_report(&r, &text);
    buf_done(&r.sandboxes);
    buf_done(&r.services);
    if (rc < 0 || (!o.is_json && print_table(buf_span(&text), &e) < 0))
        return tell_err(argv[0], &e);
    rc = o.is_json ? printf("%.*s\n", SPAN_FMT(buf_span(&text))) : 0;
    return rc < 0 || fflush(stdout) != 0 || r.is_partial ? EXIT_FAIL : EXIT_DONE;
}
