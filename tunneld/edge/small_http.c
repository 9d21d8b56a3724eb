/* SPDX-License-Identifier: MIT */
/*
 * A connection is READING its head, then WRITING the answer, then ENDING: our direction is
 * finished and what the client still sends is thrown away until it ends too, because closing
 * over unread bytes resets the connection and can take the answer with it.
 */
#include "tunneld/edge/small_http.h"

#include <errno.h>
#include <string.h>

#include "common/conn.h"
#include "common/limits.h"
#include "common/mem.h"

enum client_state {
    READING,
    WRITING,
    ENDING
};

struct client {
    struct small_http *http;
    struct client *next, **prev;
    struct conn *conn;
    enum client_state state;
    struct loop_timer timer;
    struct http1_scan scan;
    struct buf in, out;
};

struct small_http {
    struct loop *loop; /* borrowed */
    int fd;
    struct loop_io *io;
    small_http_fn *fn;
    void *arg;
    struct client *first;
    unsigned n;
    struct loop_timer pause;
};

static void client_free(struct client *c)
{
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->http->n--;
    loop_timer_stop(&c->timer);
    conn_close(&c->conn);
    buf_done(&c->in);
    buf_done(&c->out);
    mem_free(c);
}

static void on_deadline(void *arg)
{
    client_free(arg);
}

/* -- answers ---------------------------------------------------------------------------------- */

static int print_answer(struct buf *out, const struct small_http_answer *a, bool is_head)
{
    if (buf_addf(out,
                 "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                 "Connection: close\r\n",
                 a->status, http1_reason(a->status),
                 a->type ? a->type : "text/plain; charset=utf-8", a->body.len) < 0 ||
        buf_add(out, a->fields.p, a->fields.len) < 0 || buf_adds(out, "\r\n") < 0)
        return -1;
    return is_head ? 0 : buf_add(out, a->body.p, a->body.len);
}

static void answer_done(struct small_http_answer *a)
{
    buf_done(&a->fields);
    buf_done(&a->body);
}

/* The status when the request was not valid. */
static unsigned status_of(enum http1_result r)
{
    if (r == HTTP1_E_TARGET_BIG)
        return 414;
    return r == HTTP1_E_FIELDS_BIG ? 431 : 400;
}

static int build(struct client *c, enum http1_result r, const struct http1_head *head)
{
    AUTO(answer_done)
    struct small_http_answer a = {.status = 500};
    bool is_head = r == HTTP1_OK && span_eq(head->method, span_str("HEAD"));

    if (r != HTTP1_OK) {
        a.status = status_of(r);
        if (buf_adds(&a.fields, a.status == 400 ? "Tunnel-Error: bad-request\r\n"
                                                : "Tunnel-Error: too-large\r\n") < 0 ||
            buf_addf(&a.body, "%s\n", http1_reason(a.status)) < 0)
            return -1;
    } else if (c->http->fn(c->http->arg, head, &a) < 0) {
        answer_done(&a);
        a.status = 500;
    }
    return print_answer(&c->out, &a, is_head);
}

static void client_write(struct client *c);

static void client_answer(struct client *c, enum http1_result r,
                          const struct http1_head *head)
{
    c->state = WRITING;
    loop_timer_start(&c->timer, HEAD_MS);
    if (build(c, r, head) < 0)
        client_free(c);
    else
        client_write(c);
}

/* -- bytes -------------------------------------------------------------------------------------- */

static void client_write(struct client *c)
{
    size_t n;

    while (c->out.len > 0) {
        enum conn_result r = conn_write(c->conn, c->out.p, c->out.len, &n);

        if (r == CONN_OK) {
            buf_drop(&c->out, n);
        } else if (r == CONN_AGAIN) {
            conn_want(c->conn, LOOP_WRITE);
            return;
        } else {
            client_free(c);
            return;
        }
    }
    c->state = ENDING;
    conn_finish(c->conn);
    conn_want(c->conn, LOOP_READ);
}

static void client_parse(struct client *c)
{
    struct http1_head head;
    enum http1_result r;
    size_t len;

    r = http1_scan(&c->scan, buf_span(&c->in), &len);
    if (r == HTTP1_OK)
        r = http1_parse_request(span_of(c->in.p, len), &head);
    else if (r == HTTP1_MORE && c->in.len >= SMALL_HTTP_HEAD)
        r = HTTP1_E_FIELDS_BIG;
    if (r != HTTP1_MORE)
        client_answer(c, r, &head);
}

static void on_readable(void *owner)
{
    struct client *c = owner;
    uint8_t sink[4096];
    enum conn_result r;
    size_t n = 0;

    r = conn_read(c->conn, sink, sizeof sink, &n);
    if (r == CONN_AGAIN)
        return;
    if (r != CONN_OK) {
        client_free(c);
        return;
    }
    if (c->state != READING)
        return;
    if (buf_add(&c->in, sink, n) < 0)
        client_free(c);
    else
        client_parse(c);
}

static void on_writable(void *owner)
{
    client_write(owner);
}

static const struct conn_ops client_ops = {on_readable, on_writable, NULL};

/* -- the listener --------------------------------------------------------------------------------- */

static void client_new(struct small_http *h, int *take_fd)
{
    struct client *c = h->n < SMALL_HTTP_CONNS ? mem_zalloc(1, sizeof *c) : NULL;

    if (!c) {
        sock_close(take_fd);
        return;
    }
    c->conn = conn_new(h->loop, take_fd, &client_ops, c, NULL);
    if (!c->conn) {
        mem_free(c);
        return;
    }
    c->http = h;
    c->next = h->first;
    c->prev = &h->first;
    if (c->next)
        c->next->prev = &c->next;
    h->first = c;
    h->n++;
    loop_timer_init(&c->timer, h->loop, on_deadline, c);
    loop_timer_start(&c->timer, HEAD_MS);
    conn_want(c->conn, LOOP_READ);
}

static void on_connection(void *arg, unsigned events)
{
    struct small_http *h = arg;
    struct sock_addr client;

    UNUSED_ARG(events);
    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        int fd = sock_accept(h->fd, &client);

        if (fd >= 0) {
            client_new(h, &fd);
            continue;
        }
        if (errno != EAGAIN) { /* no descriptors, mostly: never spin */
            loop_io_want(h->io, 0);
            loop_timer_start(&h->pause, ACCEPT_PAUSE_MS);
        }
        return;
    }
}

static void on_pause_over(void *arg)
{
    struct small_http *h = arg;

    loop_io_want(h->io, LOOP_READ);
}

struct small_http *small_http_new(struct loop *l, int *take_fd, small_http_fn *fn,
                                  void *arg, struct err *e)
{
    struct small_http *h = mem_zalloc(1, sizeof *h);

    if (!h) {
        sock_close(take_fd);
        (void)err_set(e, ERR_NOMEM, "small_http");
        return NULL;
    }
    h->loop = l;
    h->fd = *take_fd;
    *take_fd = -1;
    h->fn = fn;
    h->arg = arg;
    loop_timer_init(&h->pause, l, on_pause_over, h);
    h->io = loop_io_start(l, h->fd, on_connection, h, e);
    if (!h->io) {
        small_http_free(h);
        return NULL;
    }
    loop_io_want(h->io, LOOP_READ);
    return h;
}

void small_http_free(struct small_http *h)
{
    if (!h)
        return;
    while (h->first)
        client_free(h->first);
    loop_timer_stop(&h->pause);
    loop_io_stop(&h->io);
    sock_close(&h->fd);
    mem_free(h);
}
