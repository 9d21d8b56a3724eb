/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/control_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/keeper/asker.h"
#include "agentd/egress/keeper/control_request.h"
#include "agentd/localpath.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    READ_STEP = 65536,
};

struct client {
    struct control_socket *socket; /* borrowed; NULL: gone, the keeper still works */
    struct client *next, **prev;
    int fd;
    struct loop_io *io;
    struct loop_timer deadline;
    struct buf in, out;
    size_t sent;
    bool is_working; /* the keeper has its request and will call on_done() */
    enum control_op op;
    char name[EGRESS_NAME_MAX + 1];
};

struct control_socket {
    struct keeper *keeper; /* borrowed */
    struct loop *loop;     /* borrowed */
    struct localpath path;
    int fd;
    struct loop_io *io;
    struct client *clients;
    unsigned n;
};

/* -- clients ------------------------------------------------------------------------- */

/* Its socket ends; the memory stays while the keeper holds it. */
static void client_close(struct client *c)
{
    loop_timer_stop(&c->deadline);
    if (c->io)
        loop_io_stop(&c->io);
    sock_close(&c->fd);
    buf_done(&c->in);
    buf_done(&c->out);
    if (c->prev) {
        *c->prev = c->next;
        if (c->next)
            c->next->prev = c->prev;
        c->prev = NULL;
        c->socket->n--;
    }
    c->socket = NULL;
    if (!c->is_working)
        mem_free(c);
}

static void on_deadline(void *arg)
{
    client_close(arg);
}

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
                   buf_addf(out, ",\"code\":\"%s\"}\n", code) < 0
               ? -1
               : 0;
}

static void client_send(struct client *c)
{
    ssize_t n = 1;

    while (c->sent < c->out.len && n > 0) {
        do
            n = send(c->fd, c->out.p + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n > 0)
            c->sent += (size_t)n;
    }
    if (c->sent < c->out.len && n < 0 && errno == EAGAIN)
        loop_io_want(c->io, LOOP_WRITE);
    else
        client_close(c);
}

static void client_fail(struct client *c, const struct err *e)
{
    c->out.len = 0;
    if (put_error(&c->out, code_of(e), e->msg) < 0)
        client_close(c);
    else
        client_send(c);
}

/* -- requests ------------------------------------------------------------------------ */

static void on_done(void *arg, const struct err *e)
{
    struct client *c = arg;

    c->is_working = false;
    if (!c->socket) {
        mem_free(c);
        return;
    }
    if (e)
        client_fail(c, e);
    else if (buf_addf(&c->out, "{\"ok\":true,\"name\":\"%s\"}\n", c->name) < 0)
        client_close(c);
    else
        client_send(c);
}

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

static int do_attach(struct client *c, const struct control_request *r, struct policy *p,
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
    return keeper_add(c->socket->keeper, &add, on_done, c, e);
}

static int with_policy(struct client *c, const struct control_request *r, struct err *e)
{
    struct policy *p = read_policy(r->policy, e);
    int rc;

    if (!p)
        return -1;
    rc = r->op == CONTROL_ATTACH
             ? do_attach(c, r, p, e)
             : keeper_reload(c->socket->keeper, r->name, p, on_done, c, e);
    policy_unref(p);
    return rc;
}

static int do_status(struct client *c, const struct control_request *r, struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;

    if (keeper_status(c->socket->keeper, r->name[0] ? r->name : NULL, &text, e) < 0)
        return -1;
    /* What keeper_status() gives is an object: our member goes before its first. */
    if (buf_adds(&c->out, "{\"ok\":true,") < 0 ||
        buf_add(&c->out, text.p + 1, text.len - 1) < 0 || buf_adds(&c->out, "\n") < 0)
        return err_set(e, ERR_NOMEM, "no memory for the status");
    return 0;
}

/* One whole line is there. */
static void client_request(struct client *c, size_t len)
{
    struct control_request r;
    struct err e;
    int rc;

    loop_io_want(c->io, 0);
    if (control_request_parse(span_of(c->in.p, len), &r, &e) < 0) {
        client_fail(c, &e);
        return;
    }
    c->op = r.op;
    memcpy(c->name, r.name, sizeof c->name);
    c->is_working = r.op != CONTROL_STATUS;
    if (r.op == CONTROL_STATUS)
        rc = do_status(c, &r, &e);
    else if (r.op == CONTROL_DETACH)
        rc = keeper_remove(c->socket->keeper, r.name, on_done, c, &e);
    else
        rc = with_policy(c, &r, &e);
    control_request_done(&r);
    if (rc < 0)
        c->is_working = false;
    if (rc < 0)
        client_fail(c, &e);
    else if (r.op == CONTROL_STATUS)
        client_send(c);
    else
        buf_done(&c->in); /* a policy may be large, and was copied */
}

/* False: nothing more comes. */
static bool client_read(struct client *c, struct err *e)
{
    ssize_t n;

    if (buf_reserve(&c->in, READ_STEP, CONTROL_LINE_MAX + 2 * READ_STEP) < 0)
        return err_set(e, ERR_NOMEM, "no memory for a request"), false;
    do
        n = recv(c->fd, c->in.p + c->in.len, READ_STEP, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return err_set(e, ERR_CONFIG, "a request is one whole line"), false;
    c->in.len += (size_t)n;
    if (c->in.len > CONTROL_LINE_MAX &&
        !memchr(c->in.p, '\n', (size_t)CONTROL_LINE_MAX + 1))
        return err_set(e, ERR_CONFIG, "a request of more than %d bytes",
                       CONTROL_LINE_MAX),
               false;
    return true;
}

static void on_client(void *arg, unsigned events)
{
    struct client *c = arg;
    const uint8_t *nl;
    struct err e;

    UNUSED_ARG(events);
    if (c->out.len > 0) {
        client_send(c);
        return;
    }
    if (c->is_working)
        return;
    if (!client_read(c, &e)) {
        client_fail(c, &e);
        return;
    }
    nl = c->in.len > 0 ? memchr(c->in.p, '\n', c->in.len) : NULL;
    if (nl)
        client_request(c, (size_t)(nl - c->in.p));
}

/* -- accepting ----------------------------------------------------------------------- */

static bool is_allowed(int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
           (who.uid == 0 || who.uid == geteuid()) && asker_is_outside(fd);
}

static void refuse(int fd, const char *code, const char *why)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (put_error(&b, code, why) == 0)
        (void)send(fd, b.p, b.len, MSG_NOSIGNAL); /* it fits, or nobody is there */
    sock_close(&fd);
}

static void client_new(struct control_socket *s, int fd)
{
    struct client *c = mem_zalloc(1, sizeof *c);

    if (!c) {
        refuse(fd, "failed", "no memory");
        return;
    }
    c->socket = s;
    c->fd = fd;
    loop_timer_init(&c->deadline, s->loop, on_deadline, c);
    c->next = s->clients;
    c->prev = &s->clients;
    if (s->clients)
        s->clients->prev = &c->next;
    s->clients = c;
    s->n++;
    c->io = loop_io_start(s->loop, fd, on_client, c, NULL);
    if (!c->io) {
        client_close(c);
        return;
    }
    loop_timer_start(&c->deadline, CONTROL_CLIENT_MS);
    loop_io_want(c->io, LOOP_READ);
}

static void on_accept(void *arg, unsigned events)
{
    struct control_socket *s = arg;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    UNUSED_ARG(events);
    if (fd < 0)
        return;
    if (!is_allowed(fd)) {
        log_warn("control.refused", "why=other-user");
        refuse(fd, "refused", "only root and the keeper's own user are answered");
    } else if (s->n >= CONTROL_CLIENTS_MAX) {
        log_warn("control.refused", "why=limit");
        refuse(fd, "failed", "too many clients");
    } else {
        client_new(s, fd);
    }
}

/* -- life ---------------------------------------------------------------------------- */

/* Folders above the last that are missing; localpath_listen() makes and
 * checks the last. */
static void make_parents(const char *path)
{
    char part[CONTROL_PATH_MAX];

    for (const char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        size_t n = (size_t)(at - path);

        if (n >= sizeof part)
            return;
        memcpy(part, path, n);
        part[n] = '\0';
        (void)mkdir(part, 0700); /* most are there */
    }
}

struct control_socket *control_socket_new(struct keeper *k, struct loop *l,
                                          const char *path, struct err *e)
{
    struct control_socket *s = mem_zalloc(1, sizeof *s);

    if (!s) {
        (void)err_set(e, ERR_NOMEM, "no memory for the control socket");
        return NULL;
    }
    s->keeper = k;
    s->loop = l;
    make_parents(path);
    s->fd = localpath_listen(path, &s->path, e);
    if (s->fd >= 0)
        s->io = loop_io_start(l, s->fd, on_accept, s, e);
    if (!s->io) {
        control_socket_free(s);
        return NULL;
    }
    loop_io_want(s->io, LOOP_READ);
    return s;
}

void control_socket_free(struct control_socket *s)
{
    if (!s)
        return;
    while (s->clients)
        client_close(s->clients);
    if (s->io)
        loop_io_stop(&s->io);
    sock_close(&s->fd);
    localpath_remove(&s->path);
    mem_free(s);
}
