/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/agent_int.h"
#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"

static int print_port(struct buf *b, const struct published_port *p)
{
    if (buf_addf(b, "\"port\":%u,\"url\":", p->port) < 0 ||
        json_put_str(b, span_str(p->url)) < 0)
        return -1;
    return buf_addf(b, ",\"public\":%s", p->is_public ? "true" : "false");
}

static void answer_url(struct agent *a, uint64_t ticket, const struct published_port *p)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (p->why[0])
        localsock_refuse(a->local, ticket, "refused", p->why);
    else if (buf_adds(&b, "{\"ok\":true,") == 0 && print_port(&b, p) == 0 &&
             buf_adds(&b, "}") == 0)
        localsock_answer(a->local, ticket, buf_span(&b));
    else
        localsock_refuse(a->local, ticket, "limit", "the agent has no memory");
}

static void answer_ports(struct agent *a, uint64_t ticket)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    int failed = buf_adds(&b, "{\"ok\":true,\"ports\":[");
    size_t i;

    for (i = 0; i < a->table.n && failed == 0; i++) {
        failed = buf_adds(&b, i ? ",{" : "{");
        failed = failed || print_port(&b, a->table.at[i]) < 0 || buf_adds(&b, "}") < 0;
    }
    if (failed || buf_adds(&b, "]}") < 0)
        localsock_refuse(a->local, ticket, "limit", "the agent has no memory");
    else
        localsock_answer(a->local, ticket, buf_span(&b));
}

static bool is_our_link(const struct agent *a, const struct localsock_request *r)
{
    return (!r->server[0] || strcmp(r->server, a->o->server) == 0) &&
           (!r->sandbox[0] || strcmp(r->sandbox, a->o->id) == 0);
}

static void request_http(struct agent *a, uint64_t ticket,
                         const struct localsock_request *r)
{
    struct published_port *p;
    struct err e;
    size_t i;

    if (!is_our_link(a, r)) {
        localsock_refuse(a->local, ticket, "other-link",
                         "this agent serves another server or sandbox");
        return;
    }
    for (i = 0; i < COUNT_OF(a->waiter) && a->waiter[i].ticket != 0; i++)
        ;
    if (i == COUNT_OF(a->waiter)) {
        localsock_refuse(a->local, ticket, "limit", "too many requests wait");
        return;
    }
    p = agent_ports_ask(a, r->port, r->name, r->is_public, &e);
    if (!p) {
        localsock_refuse(a->local, ticket, e.code == ERR_DENIED ? "excluded" : "limit",
                         e.msg);
        return;
    }
    /* Also when the URL is known: name or visibility may be new, and the server answers
     * each PORT. */
    a->waiter[i].ticket = ticket;
    a->waiter[i].port = r->port;
    a->waiter[i].until_ms = loop_now(a->loop) + AGENT_URL_MS;
    if (!loop_timer_is_on(&a->waiting))
        loop_timer_start(&a->waiting, AGENT_URL_MS);
}

static void on_request(void *owner, uint64_t ticket, const struct localsock_request *r)
{
    struct agent *a = owner;

    if (r->op == LOCALSOCK_PORTS)
        answer_ports(a, ticket);
    else
        request_http(a, ticket, r);
}

static const struct localsock_ops local_ops = {on_request};

/* Those whose time is over are told so; the timer is set for the next. */
static void on_waiting(void *arg)
{
    struct agent *a = arg;
    uint64_t now = loop_now(a->loop), next = 0;
    size_t i;

    for (i = 0; i < COUNT_OF(a->waiter); i++) {
        struct agent_waiter *w = &a->waiter[i];
        if (w->ticket == 0)
            continue;
        if (w->until_ms <= now) {
            localsock_refuse(a->local, w->ticket, "timeout",
                             "the server has not answered; the port is published as soon "
                             "as the link is up");
            w->ticket = 0;
        } else if (next == 0 || w->until_ms < next) {
            next = w->until_ms;
        }
    }
    if (next)
        loop_timer_start(&a->waiting, next - now);
}

void agent_local_told(struct agent *a, const struct published_port *p)
{
    size_t i;

    for (i = 0; i < COUNT_OF(a->waiter); i++) {
        if (a->waiter[i].ticket == 0 || a->waiter[i].port != p->port)
            continue;
        answer_url(a, a->waiter[i].ticket, p);
        a->waiter[i].ticket = 0;
    }
}

void agent_local_start(struct agent *a)
{
    char path[LOCALSOCK_PATH_MAX];
    struct err e;

    loop_timer_init(&a->waiting, a->loop, on_waiting, a);
    if (a->o->command != OPTIONS_UP)
        return; /* `http` in the foreground ends with its port */
    /* An agent without a local socket still does its main work, so this is no failure. */
    if (localsock_path(getenv("XDG_RUNTIME_DIR"), geteuid(), path, &e) == 0)
        a->local = localsock_new(a->loop, path, &local_ops, a, &e);
    if (!a->local)
        log_notice("local.absent", "why=%s", log_e(&e));
}
