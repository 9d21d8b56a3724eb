/* SPDX-License-Identifier: MIT */
#include "agentd/oneshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/forward/portrules.h"
#include "agentd/forward/portwatch.h"
#include "agentd/localsock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

/* 1: no agent is there; 0: its answer; -1 with *e. */
static int ask(const struct localsock_request *r, struct json **ret, struct err *e)
{
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    char path[LOCALSOCK_PATH_MAX];
    int n;

    if (localsock_path(getenv("XDG_RUNTIME_DIR"), geteuid(), path, e) < 0) {
        log_warn("local.ask", "why=%s", log_e(e));
        return 1; /* no agent can listen there either */
    }
    n = localsock_ask(path, r, &answer, e);
    if (n != 0)
        return n;
    *ret = json_parse(buf_span(&answer), LOCALSOCK_ANSWER_MAX, e);
    if (*ret && json_type(*ret) != JSON_OBJECT) {
        json_free(*ret);
        *ret = NULL;
        return err_set(e, ERR_PROTO, "the running agent's answer is no object");
    }
    return *ret ? 0 : -1;
}

static bool is_true(const struct json *obj, const char *key)
{
    const struct json *v = json_get(obj, key);

    return v && json_type(v) == JSON_BOOL && json_bool(v);
}

/* -- http --------------------------------------------------------------------------------- */

static int print_url(const struct options *o, const struct json *answer)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (!o->json)
        return puts(json_get_str(answer, "url", "")) < 0 || fflush(stdout) != 0 ? -1 : 0;
    if (buf_addf(&b, "{\"port\":%u,\"url\":", o->http_port) < 0 ||
        json_put_str(&b, span_str(json_get_str(answer, "url", ""))) < 0 ||
        buf_addf(&b, ",\"public\":%s}\n", is_true(answer, "public") ? "true" : "false") <
            0)
        return -1;
    return fwrite(b.p, 1, b.len, stdout) != b.len || fflush(stdout) != 0 ? -1 : 0;
}

static enum agent_exit http_answer(const struct options *o, const struct json *answer)
{
    const char *code = json_get_str(answer, "code", "");

    if (is_true(answer, "ok"))
        return print_url(o, answer) == 0 ? AGENT_DONE : AGENT_FAILED;
    log_err("http", "port=%u code=%s why=%s", o->http_port, log_q(code),
            log_q(json_get_str(answer, "error", "")));
    if (strcmp(code, "refused") == 0)
        return AGENT_REFUSED;
    return strcmp(code, "excluded") == 0 ? AGENT_USAGE : AGENT_FAILED;
}

bool oneshot_http(const struct options *o, enum agent_exit *ret)
{
    struct localsock_request r = {.op = LOCALSOCK_HTTP, .port = o->http_port};
    struct json *answer = NULL;
    struct err e;
    int n;

    r.is_public = o->http_public;
    memcpy(r.name, o->http_name, sizeof r.name);
    if (o->server && strlen(o->server) < sizeof r.server)
        memcpy(r.server, o->server, strlen(o->server) + 1);
    if (o->id)
        memcpy(r.sandbox, o->id, strlen(o->id) + 1);
    n = ask(&r, &answer, &e);
    if (n == 1)
        return false;
    if (n < 0) {
        log_warn("local.ask", "why=%s", log_e(&e));
        *ret = AGENT_FAILED;
        /* Not ours to ask; that must not keep us from our own link. */
        return e.code != ERR_DENIED;
    }
    if (strcmp(json_get_str(answer, "code", ""), "other-link") == 0) {
        json_free(answer);
        return false;
    }
    *ret = http_answer(o, answer);
    json_free(answer);
    return true;
}

/* -- ports --------------------------------------------------------------------------------- */

/* The URL of a published port, "" when it has none yet, NULL when it is not published. */
static const char *url_of(const struct json *answer, uint16_t port)
{
    const struct json *list = answer ? json_get(answer, "ports") : NULL, *p, *v;
    size_t i;

    for (i = 0; list && json_type(list) == JSON_ARRAY && i < json_len(list); i++) {
        p = json_at(list, i);
        v = json_type(p) == JSON_OBJECT ? json_get(p, "port") : NULL;
        if (v && json_type(v) == JSON_INT && json_int(v) == port)
            return json_get_str(p, "url", "");
    }
    return NULL;
}

struct row {
    const struct portwatch_port *p;
    const struct process *holder;
    const char *url; /* NULL: not published */
    const char *why; /* not published */
};

static int print_row(bool json, const struct row *r)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    char address[SOCK_TEXT_MAX];

    (void)sock_print_ip(&r->p->listen, address);
    if (!json) {
        if (buf_addf(&b, "%5u  %-24s %-18s %7ld  ", r->p->port, address,
                     r->holder->name[0] ? r->holder->name : "-",
                     (long)r->holder->pid) < 0)
            return -1;
        if (r->url ? buf_addf(&b, "%s\n", r->url[0] ? r->url : "yes") < 0
                   : buf_addf(&b, "no: %s\n", r->why) < 0)
            return -1;
    } else {
        if (buf_addf(&b, "{\"port\":%u,\"address\":", r->p->port) < 0 ||
            json_put_str(&b, span_str(address)) < 0 ||
            buf_adds(&b, ",\"process\":") < 0 ||
            json_put_str(&b, span_str(r->holder->name)) < 0 ||
            buf_addf(&b, ",\"pid\":%ld,\"published\":%s,\"%s\":", (long)r->holder->pid,
                     r->url ? "true" : "false", r->url ? "url" : "why") < 0 ||
            json_put_str(&b, span_str(r->url ? r->url : r->why)) < 0 ||
            buf_adds(&b, "}\n") < 0)
            return -1;
    }
    return fwrite(b.p, 1, b.len, stdout) == b.len ? 0 : -1;
}

static int print_all(const struct options *o, const struct portwatch_port *p, size_t n,
                     const struct json *answer)
{
    struct process holder[PORTWATCH_BATCH];
    uint64_t inode[PORTWATCH_BATCH];
    struct portrules rules = {.has_only = o->has_ports,
                              .only = o->ports,
                              .exclude = o->exclude,
                              .own_pid = getpid()};
    enum portrules_verdict v;
    struct row row;
    size_t i, k, count;

    portrules_ephemeral(&rules, netns_sysctl(NULL, "ipv4/ip_local_port_range", NULL));
    if (!o->json && printf("%5s  %-24s %-18s %7s  %s\n", "PORT", "ADDRESS", "PROCESS",
                           "PID", "PUBLISHED") < 0)
        return -1;
    for (i = 0; i < n; i += count) {
        count = n - i < PORTWATCH_BATCH ? n - i : PORTWATCH_BATCH;
        for (k = 0; k < count; k++)
            inode[k] = p[i + k].inode;
        process_lookup(inode, count, holder);
        for (k = 0; k < count; k++) {
            row.p = &p[i + k];
            row.holder = &holder[k];
            row.url = url_of(answer, row.p->port);
            v = portrules_judge(&rules, row.p->port, row.holder);
            if (v != PORTRULES_PUBLISH)
                row.why = portrules_why(v);
            else
                row.why = answer ? "not by the running agent" : "no agent runs here";
            if (print_row(o->json, &row) < 0)
                return -1;
        }
    }
    return fflush(stdout) == 0 ? 0 : -1;
}

enum agent_exit oneshot_ports(const struct options *o)
{
    struct localsock_request r = {.op = LOCALSOCK_PORTS};
    struct portwatch_port *p = NULL;
    struct json *answer = NULL;
    struct err e;
    size_t n;
    int failed;

    if (portwatch_list(NULL, &p, &n, &e) < 0) {
        log_err("ports", "why=%s", log_e(&e));
        return AGENT_FAILED;
    }
    if (ask(&r, &answer, &e) < 0)
        log_warn("local.ask", "why=%s", log_e(&e));
    failed = print_all(o, p, n, answer);
    json_free(answer);
    mem_free(p);
    return failed ? AGENT_FAILED : AGENT_DONE;
}
