/* SPDX-License-Identifier: MIT */
/*
 * Theory. A connection carries messages with two bytes of length before each (RFC
 * 7766). It is read while fewer than DNS_TCP_PIPELINE of its questions are in work and
 * its answers are taken; answers go out in the order in which they are ready.
 * DNS_TCP_IDLE_MS without a whole question or a taken answer ends it, so one byte at a
 * time keeps nothing open.
 *
 * It is freed only by its own socket, timer or job: never inside dns_server_question() or
 * dns_conn_send(), which may stand on the stack above.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/guard/dns_int.h"
#include "common/buf.h"
#include "common/mem.h"

enum {
    MESSAGE_MIN = 12 /* a header */
};

struct dns_conn {
    struct dns_conn *next, **prev;
    struct dns_tcp *tcp; /* borrowed: owner */
    int fd;
    struct loop_io *io;
    struct loop_timer idle;
    struct loop_job flush;
    struct bufq out;
    unsigned n_open; /* questions in work */
    bool has_ended;  /* the client sends no more */
    bool is_broken;  /* to be closed */
    size_t len;
    uint8_t in[2 + DNSMSG_QUESTION_MAX];
};

struct dns_tcp {
    struct ward *ward;         /* borrowed */
    struct dns_server *server; /* borrowed: owner */
    struct dns_conn *conns;
    unsigned n;
};

static void conn_free(struct dns_conn *c)
{
    dns_server_forget(c->tcp->server, c);
    loop_timer_stop(&c->idle);
    loop_job_cancel(&c->flush);
    loop_io_stop(&c->io);
    sock_close(&c->fd);
    bufq_done(&c->out);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->tcp->n--;
    mem_free(c);
}

static void write_out(struct dns_conn *c)
{
    while (c->out.len > 0 && !c->is_broken) {
        struct span s = bufq_peek(&c->out);
        ssize_t n = send(c->fd, s.p, s.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            c->is_broken = errno != EAGAIN;
            return;
        }
        bufq_consume(&c->out, (size_t)n);
        loop_timer_start(&c->idle, DNS_TCP_IDLE_MS);
    }
}

static bool may_read(const struct dns_conn *c)
{
    return !c->has_ended && !c->is_broken && c->n_open < DNS_TCP_PIPELINE &&
           c->out.len < DNS_TCP_OUT_MAX;
}

/* The messages that are whole. */
static void take_messages(struct dns_conn *c)
{
    while (c->len >= 2 && may_read(c)) {
        size_t len = (size_t)c->in[0] << 8 | c->in[1];
        struct dns_client from = {.conn = c};

        if (len < MESSAGE_MIN || len > DNSMSG_QUESTION_MAX) {
            c->is_broken = true;
            return;
        }
        if (c->len < 2 + len)
            return;
        loop_timer_start(&c->idle, DNS_TCP_IDLE_MS);
        c->n_open++;
        dns_server_question(c->tcp->server, span_of(c->in + 2, len), &from);
        c->len -= 2 + len;
        memmove(c->in, c->in + 2 + len, c->len);
    }
}

static void read_in(struct dns_conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, sizeof(c->in) - c->len, MSG_DONTWAIT);

    if (n > 0)
        c->len += (size_t)n;
    else if (n == 0)
        c->has_ended = true;
    else if (errno != EAGAIN && errno != EINTR)
        c->is_broken = true;
}

/* What to wait for next; the connection may be gone after it. */
static void settle(struct dns_conn *c)
{
    if (c->is_broken || (c->has_ended && c->n_open == 0 && c->out.len == 0)) {
        conn_free(c);
        return;
    }
    loop_io_want(c->io, (may_read(c) ? LOOP_READ : 0u) | (c->out.len ? LOOP_WRITE : 0u));
}

static void on_io(void *arg, unsigned events)
{
    struct dns_conn *c = arg;

    if (events & LOOP_WRITE)
        write_out(c);
    if (events & LOOP_READ && may_read(c)) {
        read_in(c);
        take_messages(c);
    }
    settle(c);
}

/* Answers became ready; and there may be messages that had to wait for that. */
static void on_flush(void *arg)
{
    struct dns_conn *c = arg;

    write_out(c);
    take_messages(c);
    settle(c);
}

static void on_idle(void *arg)
{
    struct dns_conn *c = arg;

    if (c->n_open > 0 && c->out.len == 0)
        loop_timer_start(&c->idle, DNS_TCP_IDLE_MS); /* it waits for us */
    else
        conn_free(c);
}

void dns_conn_send(struct dns_conn *c, struct span reply)
{
    uint8_t len[2] = {(uint8_t)(reply.len >> 8), (uint8_t)reply.len};

    c->n_open--;
    if (reply.len > 0 && (bufq_add(&c->out, len, sizeof(len)) < 0 ||
                          bufq_add(&c->out, reply.p, reply.len) < 0))
        c->is_broken = true;
    loop_job_defer(&c->flush);
}

void dns_tcp_take(struct dns_tcp *t, int *take_fd)
{
    struct dns_conn *c = t->n < DNS_TCP_MAX ? mem_zalloc(1, sizeof(*c)) : NULL;

    if (!c) {
        sock_reset(take_fd);
        return;
    }
    c->tcp = t;
    c->fd = *take_fd;
    *take_fd = -1;
    c->prev = &t->conns;
    c->next = t->conns;
    if (c->next)
        c->next->prev = &c->next;
    t->conns = c;
    t->n++;
    loop_timer_init(&c->idle, t->ward->guard->loop, on_idle, c);
    loop_job_init(&c->flush, t->ward->guard->loop, on_flush, c);
    c->io = loop_io_start(t->ward->guard->loop, c->fd, on_io, c, NULL);
    if (!c->io) {
        conn_free(c);
        return;
    }
    loop_timer_start(&c->idle, DNS_TCP_IDLE_MS);
    loop_io_want(c->io, LOOP_READ);
}

struct dns_tcp *dns_tcp_new(struct ward *w, struct dns_server *d, struct err *e)
{
    struct dns_tcp *t = mem_zalloc(1, sizeof(*t));

    if (!t) {
        (void)err_set(e, ERR_NOMEM, "the name server of \"%s\": no memory", w->name);
        return NULL;
    }
    t->ward = w;
    t->server = d;
    return t;
}

void dns_tcp_free(struct dns_tcp *t)
{
    if (!t)
        return;
    while (t->conns)
        conn_free(t->conns);
    mem_free(t);
}
