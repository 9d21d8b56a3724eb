/* SPDX-License-Identifier: MIT */
#include "agentd/line_server.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/localpath.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    STEP_MAX = 65536 /* bytes read in one turn */
};
#define NO_LINE SIZE_MAX

struct client {
    struct line_server *s; /* borrowed: owns us */
    struct client *next, **prev;
    uint64_t ticket; /* 0: no request is being answered */
    int fd;
    struct loop_io *io;
    struct loop_timer deadline;
    struct buf in, out;
    size_t line;  /* bytes before the first newline of `in`, or NO_LINE */
    size_t sent;  /* of `out` */
    bool is_last; /* it ends when `out` is sent */
    bool is_over; /* its timer frees it, in the next turn */
};

struct line_server {
    struct loop *loop;                   /* borrowed */
    const struct line_server_kind *kind; /* borrowed */
    void *owner;                         /* borrowed */
    struct localpath path;
    int fd;
    struct loop_io *io;
    struct loop_timer pause; /* of accepting */
    struct client *clients;
    unsigned n;
    uint64_t last_ticket;
};

/* -- clients ------------------------------------------------------------------------- */

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

static void on_deadline(void *arg)
{
    client_free(arg);
}

static void client_want(struct client *c)
{
    unsigned events = 0;

    if (c->is_over)
        events = 0;
    else if (c->sent < c->out.len)
        events = LOOP_WRITE;
    else if (c->ticket == 0) /* a line that waits is taken in a turn of its own */
        events = c->line != NO_LINE ? LOOP_WRITE : LOOP_READ;
    loop_io_want(c->io, events);
}

static void client_end(struct client *c)
{
    c->is_over = true;
    loop_timer_start(&c->deadline, 0);
}

static void client_send(struct client *c)
{
    ssize_t n;

    while (c->sent < c->out.len) {
        n = send(c->fd, c->out.p + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno != EAGAIN)
                client_end(c);
            return;
        }
        c->sent += (size_t)n;
    }
    c->out.len = c->sent = 0;
    if (c->is_last)
        client_end(c);
}

/* The owner's words, as a line; none without memory. */
static void words(const struct line_server *s, enum line_server_why why, struct buf *out)
{
    if (s->kind->refuse(s->owner, why, out) < 0 ||
        (out->len > 0 && buf_adds(out, "\n") < 0))
        out->len = 0;
}

static void client_refuse(struct client *c, enum line_server_why why)
{
    buf_done(&c->in);
    c->line = NO_LINE;
    c->is_last = true;
    words(c->s, why, &c->out);
    client_send(c);
}

/* Looks for a line's end from there on; before it there is none. */
static void client_scan(struct client *c, size_t from)
{
    const uint8_t *nl =
        c->in.len > from ? memchr(c->in.p + from, '\n', c->in.len - from) : NULL;

    c->line = nl ? (size_t)(nl - c->in.p) : NO_LINE;
}

/* A line that is there becomes a request; what follows it waits for its answer. */
static void client_next(struct client *c)
{
    const struct line_server_kind *kind = c->s->kind;
    size_t n = c->line;

    if (n == NO_LINE || c->ticket != 0 || c->out.len > 0 || c->is_over)
        return;
    c->ticket = ++c->s->last_ticket;
    kind->request(c->s->owner, c->ticket, span_of(c->in.p, n));
    if (kind->is_single)
        buf_done(&c->in); /* it may be large, and the answer long in coming */
    else
        buf_drop(&c->in, n + 1);
    client_scan(c, 0);
}

/* At most line_max bytes without a line's end are there. False: nothing more comes. */
static bool client_read(struct client *c, enum line_server_why *ret_why)
{
    size_t line_max = c->s->kind->line_max, had = c->in.len;
    size_t step = line_max < STEP_MAX ? line_max : STEP_MAX;
    ssize_t n;

    *ret_why = LINE_SERVER_NO_MEMORY;
    if (buf_reserve(&c->in, step, line_max + step) < 0)
        return false;
    do
        n = recv(c->fd, c->in.p + had, step, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return true;
    *ret_why = LINE_SERVER_CUT;
    if (n <= 0)
        return false;
    c->in.len += (size_t)n;
    client_scan(c, had);
    *ret_why = LINE_SERVER_LONG;
    return c->in.len <= line_max || c->line <= line_max;
}

static void on_client(void *arg, unsigned events)
{
    struct client *c = arg;
    enum line_server_why why;

    UNUSED_ARG(events); /* one is wanted at a time */
    if (c->is_over)
        return;
    if (c->sent < c->out.len)
        client_send(c);
    else if (c->ticket == 0 && c->line == NO_LINE && !client_read(c, &why))
        client_refuse(c, why);
    client_next(c);
    client_want(c);
}

int line_server_answer(struct line_server *s, uint64_t ticket, struct span line)
{
    struct client *c = s->clients;
    int rc = 0;

    while (c && c->ticket != ticket)
        c = c->next;
    if (!c || ticket == 0)
        return 0;
    c->ticket = 0;
    if (line.len > 0 &&
        (buf_add(&c->out, line.p, line.len) < 0 || buf_adds(&c->out, "\n") < 0)) {
        c->out.len = 0;
        rc = -1;
    }
    if (c->out.len > 0)
        client_send(c);
    else
        client_end(c);
    client_want(c);
    return rc;
}

/* -- accepting ----------------------------------------------------------------------- */

static void refuse(const struct line_server *s, int fd, enum line_server_why why)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    words(s, why, &b);
    if (b.len > 0)
        (void)send(fd, b.p, b.len, MSG_NOSIGNAL); /* it fits, or nobody is there */
    sock_close(&fd);
}

static void client_new(struct line_server *s, int fd)
{
    struct client *c = mem_zalloc(1, sizeof *c);

    if (!c) {
        refuse(s, fd, LINE_SERVER_NO_MEMORY);
        return;
    }
    c->s = s;
    c->fd = fd;
    c->line = NO_LINE;
    c->is_last = s->kind->is_single;
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
    loop_timer_start(&c->deadline, s->kind->client_ms);
    client_want(c);
}

static void on_pause(void *arg)
{
    struct line_server *s = arg;

    loop_io_want(s->io, LOOP_READ);
}

/* Descriptors or memory are used up: who waits is not lost, and is not asked for without
 * end either. */
static void pause_accept(struct line_server *s, int error)
{
    log_warn("local.accept", "error=%s", log_q(strerror(error)));
    loop_io_want(s->io, 0);
    loop_timer_start(&s->pause, ACCEPT_PAUSE_MS);
}

static void on_accept(void *arg, unsigned events)
{
    struct line_server *s = arg;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    UNUSED_ARG(events);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            pause_accept(s, errno);
        return;
    }
    if (!localpath_is_one_of_us(fd) ||
        (s->kind->is_allowed && !s->kind->is_allowed(s->owner, fd)))
        refuse(s, fd, LINE_SERVER_OTHER_USER);
    else if (s->n >= s->kind->clients_max)
        refuse(s, fd, LINE_SERVER_TOO_MANY);
    else
        client_new(s, fd);
}

/* -- life ---------------------------------------------------------------------------- */

struct line_server *line_server_new(struct loop *l, const char *path,
                                    const struct line_server_kind *kind, void *owner,
                                    struct err *e)
{
    struct line_server *s = mem_zalloc(1, sizeof *s);

    if (!s) {
        (void)err_set(e, ERR_NOMEM, "no memory for the socket %s", path);
        return NULL;
    }
    s->loop = l;
    s->kind = kind;
    s->owner = owner;
    loop_timer_init(&s->pause, l, on_pause, s);
    s->fd = localpath_listen(path, &s->path, e);
    if (s->fd >= 0)
        s->io = loop_io_start(l, s->fd, on_accept, s, e);
    if (!s->io) {
        line_server_free(s);
        return NULL;
    }
    loop_io_want(s->io, LOOP_READ);
    return s;
}

void line_server_free(struct line_server *s)
{
    if (!s)
        return;
    while (s->clients)
        client_free(s->clients);
    loop_timer_stop(&s->pause);
    if (s->io)
        loop_io_stop(&s->io);
    sock_close(&s->fd);
    localpath_remove(&s->path);
    mem_free(s);
}
