/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/control_socket.h"

#include <stdio.h>
#include <string.h>

#include "agentd/egress/keeper/asker.h"
#include "agentd/egress/keeper/control_request.h"
#include "agentd/line_server.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

/* What the keeper works on: it outlives us where the keeper does. */
struct job {
    struct control_socket *socket; /* borrowed; NULL: gone */
    struct job *next, **prev;
    uint64_t ticket;
    char name[EGRESS_NAME_MAX + 1];
};

struct control_socket {
    struct keeper *keeper; /* borrowed */
    struct line_server *lines;
    struct job *jobs;
};

/* -- answers ------------------------------------------------------------------------- */

static const char *code_of(const struct err *e)
{
    switch (e->code) {
    case ERR_NOTFOUND:
        return "not-found";
    case ERR_DENIED:
        return "refused";
    case ERR_CONFIG:
    case ERR_PROTO:
        return "config";
    default:
        return "failed";
    }
}

static int put_error(struct buf *out, const char *code, const char *text)
{
    return buf_adds(out, "{\"ok\":false,\"error\":") < 0 ||
                   json_put_str(out, span_str(text)) < 0 ||
                   buf_addf(out, ",\"code\":\"%s\"}", code) < 0
               ? -1
               : 0;
}

/* @rc  of writing *text: what was not written for want of memory is not said, and the
 *      connection ends. */
static void answer(struct control_socket *s, uint64_t ticket, int rc, struct buf *text)
{
    if (rc < 0)
        text->len = 0;
    if (line_server_answer(s->lines, ticket, buf_span(text)) < 0)
        log_warn("control.answer", "why=no-memory");
}

static void answer_error(struct control_socket *s, uint64_t ticket, const struct err *e)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    answer(s, ticket, put_error(&b, code_of(e), e->msg), &b);
}

static void job_free(struct job *j)
{
    if (j->socket) {
        *j->prev = j->next;
        if (j->next)
            j->next->prev = j->prev;
    }
    mem_free(j);
}

static struct job *job_new(struct control_socket *s, uint64_t ticket, const char *name,
                           struct err *e)
{
    struct job *j = mem_zalloc(1, sizeof *j);

    if (!j) {
        (void)err_set(e, ERR_NOMEM, "no memory for a request");
        return NULL;
    }
    j->socket = s;
    j->ticket = ticket;
    memcpy(j->name, name, strlen(name) + 1);
    j->next = s->jobs;
    j->prev = &s->jobs;
    if (j->next)
        j->next->prev = &j->next;
    s->jobs = j;
    return j;
}

static void on_done(void *arg, const struct err *e)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct job *j = arg;

    if (j->socket && e)
        answer_error(j->socket, j->ticket, e);
    else if (j->socket)
        answer(j->socket, j->ticket,
               buf_addf(&b, "{\"ok\":true,\"name\":\"%s\"}", j->name), &b);
    job_free(j);
}

/* -- requests ------------------------------------------------------------------------ */

static struct policy *read_policy(struct span text, struct err *e)
{
    struct policy_faults *faults = mem_zalloc(1, sizeof *faults);
    struct policy *p = faults ? policy_compile(text, NULL, faults) : NULL;

    if (!faults)
        (void)err_set(e, ERR_NOMEM, "no memory for a policy"); /* NULL says it */
    else if (!p && policy_faults_err(faults, e) < 0)
        (void)err_wrap(e, "policy"); /* the same */
    mem_free(faults);
    return p;
}

static int do_attach(struct job *j, const struct control_request *r, struct policy *p,
                     struct err *e)
{
    struct keeper_add add = {.name = r->name, .tier = r->tier, .policy = p};
    struct netns *ns = netns_open(r->netns, r->pid, e);

    if (!ns)
        return err_wrap(e, "the sandbox's namespace");
    add.take_ns = &ns;
    add.ns_path = r->netns;
    add.iface = r->iface;
    add.pid = r->pid;
    return keeper_add(j->socket->keeper, &add, on_done, j, e);
}

static int with_policy(struct job *j, const struct control_request *r, struct err *e)
{
    struct policy *p = read_policy(r->policy, e);
    int rc;

    if (!p)
        return -1;
    rc = r->op == CONTROL_ATTACH
             ? do_attach(j, r, p, e)
             : keeper_reload(j->socket->keeper, r->name, p, on_done, j, e);
    policy_unref(p);
    return rc;
}

/* The keeper begins with it, and calls on_done(). */
static int begin(struct control_socket *s, uint64_t ticket,
                 const struct control_request *r, struct err *e)
{
    struct job *j = job_new(s, ticket, r->name, e);
    int rc;

    if (!j)
        return -1;
    rc = r->op == CONTROL_DETACH ? keeper_remove(s->keeper, r->name, on_done, j, e)
                                 : with_policy(j, r, e);
    if (rc < 0)
        job_free(j);
    return rc;
}

static int do_status(struct control_socket *s, uint64_t ticket,
                     const struct control_request *r, struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (keeper_status(s->keeper, r->name[0] ? r->name : NULL, &text, e) < 0)
        return -1;
    /* What keeper_status() gives is an object: our member goes before its first. */
    if (buf_adds(&b, "{\"ok\":true,") < 0 || buf_add(&b, text.p + 1, text.len - 1) < 0)
        return err_set(e, ERR_NOMEM, "no memory for the status");
    answer(s, ticket, 0, &b);
    return 0;
}

static void on_request(void *owner, uint64_t ticket, struct span line)
{
    struct control_socket *s = owner;
    struct control_request r;
    struct err e;
    int rc;

    if (control_request_parse(line, &r, &e) < 0) {
        answer_error(s, ticket, &e);
        return;
    }
    rc = r.op == CONTROL_STATUS ? do_status(s, ticket, &r, &e) : begin(s, ticket, &r, &e);
    control_request_done(&r);
    if (rc < 0)
        answer_error(s, ticket, &e);
}

/* -- who is not answered ------------------------------------------------------------- */

static bool is_outside(void *owner, int fd)
{
    UNUSED_ARG(owner);
    return asker_is_outside(fd);
}

static int on_refused(void *owner, enum line_server_why why, struct buf *out)
{
    char text[64];

    UNUSED_ARG(owner);
    switch (why) {
    case LINE_SERVER_CUT:
        return put_error(out, "config", "a request is one whole line");
    case LINE_SERVER_LONG:
        (void)snprintf(text, sizeof text, "a request of more than %d bytes",
                       CONTROL_LINE_MAX); /* it fits */
        return put_error(out, "config", text);
    case LINE_SERVER_NO_MEMORY:
        return put_error(out, "failed", "no memory for a request");
    case LINE_SERVER_OTHER_USER:
        log_warn("control.refused", "why=other-user");
        return put_error(out, "refused",
                         "only root and the keeper's own user are answered");
    case LINE_SERVER_TOO_MANY:
        log_warn("control.refused", "why=limit");
        return put_error(out, "failed", "too many clients");
    }
    return 0;
}

static const struct line_server_kind kind = {
    .clients_max = CONTROL_CLIENTS_MAX,
    .line_max = CONTROL_LINE_MAX,
    .client_ms = CONTROL_CLIENT_MS,
    .is_single = true,
    .request = on_request,
    .refuse = on_refused,
    .is_allowed = is_outside,
};

/* -- life ---------------------------------------------------------------------------- */

struct control_socket *control_socket_new(struct keeper *k, struct loop *l,
                                          const char *path, struct err *e)
{
    struct control_socket *s = mem_zalloc(1, sizeof *s);

    if (!s) {
        (void)err_set(e, ERR_NOMEM, "no memory for the control socket");
        return NULL;
    }
    s->keeper = k;
    /* What cannot be made the next misses, and says so. */
    (void)file_make_parents(path, 0700, NULL);
    s->lines = line_server_new(l, path, &kind, s, e);
    if (!s->lines) {
        control_socket_free(s);
        return NULL;
    }
    return s;
}

void control_socket_free(struct control_socket *s)
{
    if (!s)
        return;
    line_server_free(s->lines);
    for (struct job *j = s->jobs; j; j = j->next)
        j->socket = NULL;
    mem_free(s);
}
