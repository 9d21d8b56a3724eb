/* SPDX-License-Identifier: MIT */
#include "agentd/localsock.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/localpath.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

struct client {
    struct localsock *s; /* borrowed: owns us */
    struct client *next, **prev;
    uint64_t ticket; /* 0: no request is being answered */
    int fd;
    struct loop_io *io;
    struct loop_timer deadline;
    struct buf in, out;
    size_t sent;
    bool is_ended; /* sends no more requests */
};

struct localsock {
    struct loop *loop;
    const struct localsock_ops *ops;
    void *owner;
    struct localpath path;
    int fd;
    struct loop_io *io;
    struct loop_job again; /* clients with a whole request left in their buffer */
    struct client *clients;
    unsigned n;
    uint64_t last_ticket;
};

/* -- clients ------------------------------------------------------------------------------ */

static void client_free(struct client *c)
{
    loop_timer_stop(&c->deadline);
    if (c->io)
        loop_io_stop(&c->io);
    sock_close(&c->fd);
    buf_done(&c->in);
    buf_done(&c->out);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->s->n--;
    mem_free(c);
}

static void client_want(struct client *c)
{
    unsigned events = 0;

    if (c->sent < c->out.len)
        events = LOOP_WRITE;
    else if (c->ticket == 0 && !c->is_ended)
        events = LOOP_READ;
    loop_io_want(c->io, events);
}

/* The first whole line becomes a request; the rest waits for its answer. */
static void client_next(struct client *c)
{
    struct localsock *s = c->s;
    struct localsock_request r;
    struct err e;
    const uint8_t *nl;
    size_t n;
    int bad;

    nl = c->in.len > 0 ? memchr(c->in.p, '\n', c->in.len) : NULL;
    if (!nl)
        return;
    n = (size_t)(nl - c->in.p);
    c->ticket = ++s->last_ticket;
    bad = localsock_parse(span_of(c->in.p, n), &r, &e);
    buf_drop(&c->in, n + 1);
    if (bad < 0)
        localsock_refuse(s, c->ticket, "bad-request", e.msg);
    else
        s->ops->request(s->owner, c->ticket, &r);
}

/* false: the client is gone. */
static bool client_read(struct client *c)
{
    ssize_t n;

    if (buf_reserve(&c->in, 1024, LOCALSOCK_LINE_MAX + 1024) < 0)
        return false;
    do {
        n = recv(c->fd, c->in.p + c->in.len, 1024, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN;
    if (n == 0) {
        c->is_ended = true;
        return false;
    }
    c->in.len += (size_t)n;
    return c->in.len <= LOCALSOCK_LINE_MAX || memchr(c->in.p, '\n', c->in.len);
}

static bool client_write(struct client *c)
{
    ssize_t n;

    do {
        n = send(c->fd, c->out.p + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN;
    c->sent += (size_t)n;
    if (c->sent == c->out.len) {
        c->out.len = c->sent = 0;
        loop_job_defer(&c->s->again);
    }
    return true;
}

static void on_client(void *arg, unsigned events)
{
    struct client *c = arg;
    bool is_alive = true;

    if ((events & LOOP_WRITE) && c->sent < c->out.len)
        is_alive = client_write(c);
    else if ((events & LOOP_READ) && c->ticket == 0)
        is_alive = client_read(c);
    if (!is_alive) {
        client_free(c);
        return;
    }
    if (c->ticket == 0 && c->out.len == 0)
        client_next(c);
    client_want(c);
}

static void on_again(void *arg)
{
    struct localsock *s = arg;
    struct client *c;

    for (c = s->clients; c; c = c->next) {
        if (c->ticket == 0 && c->out.len == 0)
            client_next(c);
        client_want(c);
    }
}

static void on_deadline(void *arg)
{
    client_free(arg);
}

static bool is_one_of_us(int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
           (who.uid == geteuid() || who.uid == 0);
}

static void client_new(struct localsock *s, int fd)
{
    struct client *c = mem_zalloc(1, sizeof *c);

    if (!c) {
        sock_close(&fd);
        return;
    }
    c->s = s;
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
        client_free(c);
        return;
    }
    loop_timer_start(&c->deadline, LOCALSOCK_MS);
    client_want(c);
}

static void on_accept(void *arg, unsigned events)
{
    struct localsock *s = arg;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    UNUSED_ARG(events);
    if (fd < 0)
        return;
    if (s->n >= LOCALSOCK_CLIENTS || !is_one_of_us(fd)) {
        log_warn("local.refused", "why=%s",
                 s->n >= LOCALSOCK_CLIENTS ? "limit" : "other-user");
        sock_close(&fd);
        return;
    }
    client_new(s, fd);
}

/* -- answers ------------------------------------------------------------------------------- */

void localsock_answer(struct localsock *s, uint64_t ticket, struct span json)
{
    struct client *c;

    for (c = s->clients; c; c = c->next) {
        if (c->ticket == ticket)
            break;
    }
    if (!c || ticket == 0)
        return;
    c->ticket = 0;
    if (buf_add(&c->out, json.p, json.len) < 0 || buf_adds(&c->out, "\n") < 0) {
        log_warn("local.answer", "why=no-memory");
        c->out.len = 0;
        c->is_ended = true;
        loop_timer_start(&c->deadline, 0);
        return;
    }
    client_want(c);
}

void localsock_refuse(struct localsock *s, uint64_t ticket, const char *code,
                      const char *why)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    /* Without memory the client gets its deadline for an answer. */
    if (buf_adds(&b, "{\"ok\":false,\"code\":") == 0 &&
        json_put_str(&b, span_str(code)) == 0 && buf_adds(&b, ",\"error\":") == 0 &&
        json_put_str(&b, span_str(why)) == 0 && buf_adds(&b, "}") == 0)
        localsock_answer(s, ticket, buf_span(&b));
}

/* -- life ---------------------------------------------------------------------------------- */

void localsock_free(struct localsock *s)
{
    if (!s)
        return;
    loop_job_cancel(&s->again);
    while (s->clients)
        client_free(s->clients);
    if (s->io)
        loop_io_stop(&s->io);
    sock_close(&s->fd);
    localpath_remove(&s->path);
    mem_free(s);
}

struct localsock *localsock_new(struct loop *l, const char *path,
                                const struct localsock_ops *ops, void *owner,
                                struct err *e)
{
    struct localsock *s = mem_zalloc(1, sizeof *s);

    if (!s) {
        (void)err_set(e, ERR_NOMEM, "no memory for the local socket");
        return NULL;
    }
    s->loop = l;
    s->ops = ops;
    s->owner = owner;
    s->fd = localpath_listen(path, &s->path, e);
    loop_job_init(&s->again, l, on_again, s);
    if (s->fd >= 0)
        s->io = loop_io_start(l, s->fd, on_accept, s, e);
    if (!s->io) {
        localsock_free(s);
        return NULL;
    }
    loop_io_want(s->io, LOOP_READ);
    return s;
}
