/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/keeper_link.h"

#include <errno.h>
#include <fcntl.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    BUCKETS = 1024, /* a power of two */
    TURN = 64,      /* records read in one turn */
};

struct keeper_request {
    struct keeper_link *k;
    struct keeper_request *next;
    uint32_t seq, sandbox;
    enum channel_type answer;
    keeper_answer_fn *fn;
    void *arg;
    struct loop_timer timer;
};

/* A record that waits. Its descriptors are copies. */
struct waiting {
    struct waiting *next;
    int fd[CHANNEL_FDS];
    size_t n_fds, len;
    uint8_t wire[];
};

struct keeper_link {
    struct loop *loop;
    int fd;
    struct loop_io *io;
    keeper_message_fn *on_message;
    keeper_gone_fn *on_gone;
    void *arg;
    struct loop_job ending; /* tells everybody that the keeper is gone */
    bool is_gone;
    uint32_t seq;
    size_t n_requests;
    struct waiting *first, **last;
    size_t n_waiting, bytes_waiting;
    struct keeper_request *request[BUCKETS];
};

/* -- requests ------------------------------------------------------------------------ */

/* Out of the table and freed: what is called then has no way back to it. */
static void forget(struct keeper_request *r)
{
    struct keeper_request **p = &r->k->request[r->seq % BUCKETS];

    while (*p != r)
        p = &(*p)->next;
    *p = r->next;
    r->k->n_requests--;
    loop_timer_stop(&r->timer);
    mem_free(r);
}

static void answer(struct keeper_request *r, struct channel_msg *m)
{
    keeper_answer_fn *fn = r->fn;
    void *arg = r->arg;

    forget(r);
    fn(arg, m);
}

static void on_late(void *arg)
{
    struct keeper_request *r = arg;

    log_warn("guard.keeper_late", "sandbox=%u wanted=%s", r->sandbox,
             channel_type_name(r->answer));
    answer(r, NULL);
}

static void on_ending(void *arg)
{
    struct keeper_link *k = arg;

    loop_io_stop(&k->io);
    for (size_t i = 0; i < BUCKETS; i++)
        while (k->request[i] != NULL)
            answer(k->request[i], NULL);
    k->on_gone(k->arg);
}

static void gone(struct keeper_link *k)
{
    if (k->is_gone)
        return;
    k->is_gone = true;
    loop_job_defer(&k->ending);
}

/* -- sending ------------------------------------------------------------------------- */

static void drop_first(struct keeper_link *k)
{
    struct waiting *w = k->first;

    k->first = w->next;
    if (k->first == NULL)
        k->last = &k->first;
    k->n_waiting--;
    k->bytes_waiting -= w->len;
    for (size_t i = 0; i < w->n_fds; i++)
        sock_close(&w->fd[i]);
    mem_free(w);
}

static int queue(struct keeper_link *k, const struct channel_msg *m, struct span wire,
                 struct err *e)
{
    struct waiting *w;

    if (k->n_waiting >= KEEPER_QUEUE_MAX || k->bytes_waiting > KEEPER_QUEUE_BYTES)
        return err_set(e, ERR_LIMIT, "the keeper does not read: %zu records wait",
                       k->n_waiting);
    w = mem_alloc(sizeof(*w) + wire.len);
    if (w == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a record");
    w->next = NULL;
    w->n_fds = 0;
    w->len = wire.len;
    memcpy(w->wire, wire.p, wire.len);
    for (size_t i = 0; i < CHANNEL_FDS; i++) {
        if (m->fd[i] < 0)
            continue;
        w->fd[w->n_fds] = fcntl(m->fd[i], F_DUPFD_CLOEXEC, 0);
        if (w->fd[w->n_fds] < 0) {
            err_sys(e, "keep a descriptor for the keeper");
            while (w->n_fds > 0)
                sock_close(&w->fd[--w->n_fds]);
            mem_free(w);
            return -1;
        }
        w->n_fds++;
    }
    *k->last = w;
    k->last = &w->next;
    k->n_waiting++;
    k->bytes_waiting += w->len;
    loop_io_want(k->io, LOOP_READ | LOOP_WRITE);
    return 0;
}

static void send_waiting(struct keeper_link *k)
{
    struct err e = {0};

    while (k->first != NULL) {
        struct waiting *w = k->first;

        if (channel_send_wire(k->fd, w->wire, w->len, w->fd, w->n_fds, &e) < 0) {
            if (e.sys != EAGAIN)
                gone(k);
            return;
        }
        drop_first(k);
    }
    loop_io_want(k->io, LOOP_READ);
}

int keeper_link_send(struct keeper_link *k, const struct channel_msg *m, struct err *e)
{
    uint8_t wire[CHANNEL_WIRE_MAX];
    struct err why = {0};
    int len;

    if (k->is_gone)
        return err_set(e, ERR_NOTFOUND, "the keeper is gone");
    len = channel_encode(m, wire, e);
    if (len < 0)
        return -1;
    if (k->first == NULL) {
        if (channel_send(k->fd, m, &why) == 0)
            return 0;
        if (why.sys != EAGAIN) {
            gone(k);
            if (e != NULL)
                *e = why;
            return -1;
        }
    }
    return queue(k, m, span_of(wire, (size_t)len), e);
}

static enum channel_type answer_of(enum channel_type t)
{
    switch (t) {
    case CHANNEL_WANT_REPLY:
        return CHANNEL_REPLY;
    case CHANNEL_ASK_WHO:
        return CHANNEL_WHO;
    default:
        return CHANNEL_NONE;
    }
}

struct keeper_request *keeper_link_ask(struct keeper_link *k, struct channel_msg *m,
                                       keeper_answer_fn *fn, void *arg, struct err *e)
{
    struct keeper_request *r = NULL;

    if (answer_of(m->type) == CHANNEL_NONE)
        err_set(e, ERR_PROTO, "%s has no answer", channel_type_name(m->type));
    else if (k->n_requests >= KEEPER_REQUESTS_MAX)
        err_set(e, ERR_LIMIT, "%zu requests wait for the keeper", k->n_requests);
    else if ((r = mem_zalloc(1, sizeof(*r))) == NULL)
        err_set(e, ERR_NOMEM, "no memory for a request");
    if (r == NULL)
        return NULL;
    k->seq = k->seq == UINT32_MAX ? 1 : k->seq + 1; /* 0 is no request's */
    m->seq = k->seq;
    if (keeper_link_send(k, m, e) < 0) {
        mem_free(r);
        return NULL;
    }
    r->k = k;
    r->seq = m->seq;
    r->sandbox = m->sandbox;
    r->answer = answer_of(m->type);
    r->fn = fn;
    r->arg = arg;
    r->next = k->request[r->seq % BUCKETS];
    k->request[r->seq % BUCKETS] = r;
    k->n_requests++;
    loop_timer_init(&r->timer, k->loop, on_late, r);
    loop_timer_start(&r->timer, KEEPER_ANSWER_MS);
    return r;
}

void keeper_link_cancel(struct keeper_request **r)
{
    if (*r != NULL)
        forget(*r);
    *r = NULL;
}

/* -- receiving ----------------------------------------------------------------------- */

static bool is_answer(enum channel_type t)
{
    return t == CHANNEL_REPLY || t == CHANNEL_WHO;
}

/* False: the keeper has broken the protocol. An answer that nobody waits for any
 * more is fine. */
static bool took(struct keeper_link *k, struct channel_msg *m)
{
    struct keeper_request *r = k->request[m->seq % BUCKETS];

    if (!channel_is_keepers(m->type))
        return false;
    if (!is_answer(m->type)) {
        k->on_message(k->arg, m);
        return true;
    }
    while (r != NULL && r->seq != m->seq)
        r = r->next;
    if (r == NULL)
        return true;
    if (r->answer != m->type || r->sandbox != m->sandbox)
        return false;
    answer(r, m);
    return true;
}

static void on_ready(void *arg, unsigned events)
{
    struct keeper_link *k = arg;
    struct channel_msg m;
    struct err e = {0};

    if ((events & LOOP_WRITE) != 0)
        send_waiting(k);
    for (int i = 0; i < TURN && !k->is_gone; i++) {
        int rc = channel_recv(k->fd, &m, &e);
        bool is_good = rc > 0 && took(k, &m);

        if (rc == 0)
            return;
        if (rc > 0 && !is_good)
            err_set(&e, ERR_PROTO, "%s is not what was asked", channel_type_name(m.type));
        channel_msg_done(&m);
        if (!is_good) {
            if (e.code == ERR_PROTO)
                log_err("guard.channel", "error=%s", log_e(&e));
            gone(k);
        }
    }
}

struct keeper_link *keeper_link_new(struct loop *l, int *take_fd,
                                    keeper_message_fn *on_message,
                                    keeper_gone_fn *on_gone, void *arg, struct err *e)
{
    struct keeper_link *k = mem_zalloc(1, sizeof(*k));

    if (k == NULL) {
        err_set(e, ERR_NOMEM, "no memory for the keeper's link");
        sock_close(take_fd);
        return NULL;
    }
    *k = (struct keeper_link){.loop = l,
                              .fd = *take_fd,
                              .on_message = on_message,
                              .on_gone = on_gone,
                              .arg = arg};
    *take_fd = -1;
    k->last = &k->first;
    loop_job_init(&k->ending, l, on_ending, k);
    k->io = loop_io_start(l, k->fd, on_ready, k, e);
    if (k->io == NULL) {
        keeper_link_free(k);
        return NULL;
    }
    loop_io_want(k->io, LOOP_READ);
    return k;
}

void keeper_link_free(struct keeper_link *k)
{
    if (k == NULL)
        return;
    loop_job_cancel(&k->ending);
    loop_io_stop(&k->io);
    while (k->first != NULL)
        drop_first(k);
    for (size_t i = 0; i < BUCKETS; i++)
        while (k->request[i] != NULL)
            forget(k->request[i]);
    sock_close(&k->fd);
    mem_free(k);
}
