/* SPDX-License-Identifier: MIT */
/*
 * A flow joins a stream (s) and a connection to the program (fd).
 *
 *   CONNECTING --connected--> OPEN --both directions ended, or either side broke--> DEAD
 *       |                       |
 *       |                       +--program broke, its last bytes still queued--> FLUSHING
 *       +--refused, deadline--> DEAD                                                |
 *                                 ^------------ queue empty, FORWARD_FLUSH_MS ------+
 *
 * A flow may die inside any call into the mux, so whatever follows such a call looks at
 * the state first. The memory goes in a deferred job, when no caller can be on the stack.
 *
 * A program may answer and close without reading what is still being sent to it (413, a
 * `Connection: close`): its kernel then sends a reset behind the answer. Writes fail from
 * then on, yet the answer must arrive: what comes for the program is thrown away, the
 * socket is read to its end, and the stream is reset only when all of that is on its way.
 */
#include "agentd/forward/forward.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/mem.h"

enum state {
    CONNECTING,
    OPEN,
    FLUSHING,
    DEAD
};

struct flow {
    struct forward *forward; /* borrowed: outlives the flow */
    struct flow *next, **prev;
    struct mux_stream *s; /* NULL once it is over */
    int fd;               /* -1: not open */
    struct loop_io *io;
    struct loop_timer timer; /* CONNECTING: the deadline; FLUSHING: the next look */
    struct loop_job reap;
    uint64_t flush_until_ms;
    enum state state;
    size_t read_max; /* bytes of the next read */
    uint16_t port;
    bool app_ended;    /* the program sent its FIN, or broke: nothing to read */
    bool app_deaf;     /* writing failed: what comes for it is thrown away */
    bool remote_ended; /* all bytes for the program came, and it was told */
    bool wants_write;  /* the socket is full, bytes are kept in the stream */
};

struct forward {
    struct loop *loop;
    struct forward_conf conf;
    struct flow *flows;
    unsigned n;
    struct log_rate rate;
};

/* -- ending ---------------------------------------------------------------------------
 */

static void flow_free(struct flow *fl)
{
    loop_timer_stop(&fl->timer);
    loop_job_cancel(&fl->reap);
    *fl->prev = fl->next;
    if (fl->next)
        fl->next->prev = fl->prev;
    fl->forward->n--;
    mem_free(fl);
}

static void on_reap(void *arg)
{
    flow_free(arg);
}

/* Let go of everything but the memory. `broken`: the program sees a reset. */
static void flow_end(struct flow *fl, bool broken)
{
    fl->state = DEAD;
    fl->s = NULL;
    loop_timer_stop(&fl->timer);
    if (fl->io)
        loop_io_stop(&fl->io);
    if (broken)
        sock_reset(&fl->fd);
    else
        sock_close(&fl->fd);
    loop_job_defer(&fl->reap);
}

static void flow_fail(struct flow *fl, enum mux_reason why)
{
    struct mux_stream *s = fl->s;

    log_debug("flow.reset", "port=%u why=%s", fl->port, mux_reason_name(why));
    flow_end(fl, true);
    mux_stream_reset(s, why);
}

/* -- what is wanted, from the state
 * ------------------------------------------------------ */

static void flow_want(struct flow *fl)
{
    unsigned events = 0;

    if (!fl->io)
        return;
    if (fl->state == CONNECTING) {
        events = LOOP_WRITE;
    } else if (fl->state == OPEN) {
        if (!fl->app_ended && mux_stream_room(fl->s) > 0)
            events |= LOOP_READ;
        if (fl->wants_write)
            events |= LOOP_WRITE;
    }
    loop_io_want(fl->io, events);
}

/* -- program -> link
 * --------------------------------------------------------------------- */

static void on_timer(void *arg);

/* The program is gone: give the link what it had said, then break the stream. */
static void app_broke(struct flow *fl)
{
    if (mux_stream_unsent(fl->s) == 0) {
        flow_fail(fl, MUX_REASON_IO);
        return;
    }
    fl->state = FLUSHING;
    fl->app_ended = fl->app_deaf = true;
    fl->wants_write = false;
    fl->flush_until_ms = loop_now(fl->forward->loop) + FORWARD_FLUSH_MS;
    loop_io_stop(&fl->io);
    loop_timer_start(&fl->timer, 10);
}

/* 1: there may be more, 0: not now, -1: no flow any more. */
static int read_once(struct flow *fl)
{
    size_t cap = 0;
    uint8_t *p = mux_stream_reserve(fl->s, fl->read_max, &cap);
    ssize_t n;

    if (!p) {
        if (mux_stream_room(fl->s) == 0)
            return 0; /* on_writable() comes */
        flow_fail(fl, MUX_REASON_LIMIT);
        return -1;
    }
    do {
        n = recv(fl->fd, p, cap, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (n < 0 || (n == 0 && fl->app_deaf)) {
        app_broke(fl);
        return -1;
    }
    if (n == 0) {
        fl->app_ended = true;
        mux_stream_finish(fl->s);
        return fl->state == OPEN ? 0 : -1;
    }
    /* Not more memory than the program's answers need: they wait for the end of the turn,
     * and there may be hundreds. */
    fl->read_max = (size_t)n == cap       ? FORWARD_READ_MAX
                   : n < FORWARD_READ_MIN ? FORWARD_READ_MIN
                                          : fl->read_max;
    mux_stream_commit(fl->s, (size_t)n);
    return fl->state == OPEN ? (size_t)n == cap : -1;
}

static void app_read(struct flow *fl)
{
    unsigned i;
    int r = 1;

    for (i = 0; r == 1 && i < FORWARD_READS; i++)
        r = read_once(fl);
}

/* -- link -> program
 * --------------------------------------------------------------------- */

/* How many bytes the program took. Never fails: a deaf program takes all. */
static size_t app_write(struct flow *fl, struct span bytes)
{
    ssize_t n;

    if (fl->app_deaf)
        return bytes.len;
    do {
        n = send(fl->fd, bytes.p, bytes.len, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return (size_t)n;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return 0;
    fl->app_deaf = true;
    return bytes.len;
}

static void remote_end(struct flow *fl)
{
    fl->remote_ended = true;
    if (!fl->app_deaf)
        (void)shutdown(fl->fd, SHUT_WR); /* ENOTCONN: its end is seen by reading */
}

/* Write what the stream keeps for the program. */
static void drain(struct flow *fl)
{
    struct span kept;
    size_t n;

    fl->wants_write = false;
    while (fl->state == OPEN && (kept = mux_stream_peek(fl->s)).len > 0) {
        n = app_write(fl, kept);
        if (n < kept.len)
            fl->wants_write = true;
        if (n > 0 && mux_stream_consume(fl->s, n) && fl->state == OPEN)
            remote_end(fl);
        if (fl->wants_write)
            break;
    }
}

/* -- events of the stream
 * ------------------------------------------------------------------ */

static size_t on_data(void *user, struct span bytes)
{
    struct flow *fl = user;
    size_t n;

    if (fl->state == FLUSHING)
        return bytes.len;
    if (fl->state != OPEN)
        return 0;
    n = app_write(fl, bytes);
    if (n < bytes.len)
        fl->wants_write = true;
    flow_want(fl);
    return n;
}

static void on_eof(void *user)
{
    struct flow *fl = user;

    if (fl->state == OPEN)
        remote_end(fl);
    else
        fl->remote_ended = true; /* told when connected */
}

static void on_writable(void *user)
{
    flow_want(user);
}

static void on_closed(void *user, enum mux_reason why)
{
    struct flow *fl = user;

    flow_end(fl, why != MUX_REASON_NONE);
}

static const struct mux_stream_ops stream_ops = {
    .data = on_data,
    .eof = on_eof,
    .writable = on_writable,
    .closed = on_closed,
};

/* -- connecting
 * --------------------------------------------------------------------------- */

static enum mux_reason reason_of(int sys)
{
    switch (sys) {
    case ECONNREFUSED:
    case ENOENT: /* a unix socket that is not there yet */
    case EAGAIN: /* a unix socket with a full backlog */
        return MUX_REASON_REFUSED;
    case ETIMEDOUT:
        return MUX_REASON_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        return MUX_REASON_LIMIT;
    default:
        return MUX_REASON_UNREACHABLE;
    }
}

static void connected(struct flow *fl)
{
    loop_timer_stop(&fl->timer);
    fl->state = OPEN;
    mux_stream_accept(fl->s);
    if (fl->state == OPEN)
        drain(fl);
    if (fl->state == OPEN && fl->remote_ended)
        remote_end(fl);
    if (fl->state == OPEN)
        flow_want(fl);
}

static void on_io(void *arg, unsigned events)
{
    struct flow *fl = arg;
    int sys;

    if (fl->state == CONNECTING) {
        sys = sock_error(fl->fd);
        if (sys != 0)
            flow_fail(fl, reason_of(sys));
        else if (events & LOOP_WRITE)
            connected(fl);
        return;
    }
    if ((events & LOOP_WRITE) && fl->state == OPEN)
        drain(fl);
    if ((events & LOOP_READ) && fl->state == OPEN && !fl->app_ended)
        app_read(fl);
    if (fl->state == OPEN)
        flow_want(fl);
}

static void on_timer(void *arg)
{
    struct flow *fl = arg;

    if (fl->state == CONNECTING) {
        flow_fail(fl, MUX_REASON_TIMEOUT);
    } else if (mux_stream_unsent(fl->s) == 0 ||
               loop_now(fl->forward->loop) >= fl->flush_until_ms) {
        flow_fail(fl, MUX_REASON_IO);
    } else {
        loop_timer_start(&fl->timer, 10);
    }
}

/* On loopback the handshake is over when connect() returns, so ask rather than wait. */
static bool is_connected_now(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 0) == 1 && p.revents == POLLOUT;
}

/* A unix socket is found by its path, whatever the namespace. */
static int connect_there(struct netns *ns, const struct sock_addr *to, struct err *e)
{
    int fd;

    if (to->u.sa.sa_family == AF_UNIX)
        return sock_connect(to, e);
    fd = netns_socket(ns, to->u.sa.sa_family, SOCK_STREAM, 0, e);
    return fd < 0 ? -1 : sock_connect_by(&fd, to, e);
}

static int flow_connect(struct flow *fl, const struct sock_addr *to, struct err *e)
{
    struct forward *f = fl->forward;

    fl->fd = connect_there(f->conf.ns, to, e);
    if (fl->fd < 0)
        return -1;
    fl->io = loop_io_start(f->loop, fl->fd, on_io, fl, e);
    if (!fl->io)
        return -1;
    loop_timer_start(&fl->timer, FORWARD_CONNECT_MS);
    return 0;
}

static struct flow *flow_new(struct forward *f, struct mux_stream *s, uint16_t port)
{
    struct flow *fl = mem_zalloc(1, sizeof *fl);

    if (!fl)
        return NULL;
    fl->forward = f;
    fl->s = s;
    fl->fd = -1;
    fl->port = port;
    fl->read_max = FORWARD_READ_MIN;
    loop_timer_init(&fl->timer, f->loop, on_timer, fl);
    loop_job_init(&fl->reap, f->loop, on_reap, fl);
    fl->next = f->flows;
    fl->prev = &f->flows;
    if (f->flows)
        f->flows->prev = &fl->next;
    f->flows = fl;
    f->n++;
    return fl;
}

/* Say why a stream was turned away, and do it. */
static void refuse(struct forward *f, struct mux_stream *s, uint16_t port,
                   enum mux_reason why)
{
    unsigned dropped;

    if (log_rate_ok(&f->rate, loop_now(f->loop), &dropped))
        log_warn("stream.refused", "port=%u why=%s dropped=%u", port,
                 mux_reason_name(why), dropped);
    mux_stream_reset(s, why);
}

void forward_opened(struct forward *f, struct mux_stream *s, const struct mux_open *open)
{
    const struct published_port *p = published_find(f->conf.table, open->port);
    struct err e = {0};
    struct flow *fl;

    if (!p) {
        refuse(f, s, open->port, MUX_REASON_NOT_PUBLISHED);
        return;
    }
    fl = f->n < f->conf.max_flows ? flow_new(f, s, open->port) : NULL;
    if (!fl) {
        refuse(f, s, open->port, MUX_REASON_LIMIT);
        return;
    }
    if (flow_connect(fl, &p->dial, &e) < 0) {
        log_debug("flow.connect", "port=%u why=%s", open->port, log_q(e.msg));
        flow_fail(fl, e.code == ERR_SYS ? reason_of(e.sys) : MUX_REASON_LIMIT);
        return;
    }
    mux_stream_use(s, &stream_ops, fl);
    if (is_connected_now(fl->fd))
        connected(fl);
    else
        flow_want(fl);
}

/* -- life ---------------------------------------------------------------------------- */

struct forward *forward_new(struct loop *l, const struct forward_conf *conf)
{
    struct forward *f = mem_zalloc(1, sizeof *f);

    if (!f)
        return NULL;
    f->loop = l;
    f->conf = *conf;
    return f;
}

unsigned forward_flows(const struct forward *f)
{
    return f->n;
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    while (f->flows) {
        if (f->flows->s)
            flow_fail(f->flows, MUX_REASON_CANCEL);
        flow_free(f->flows);
    }
    mem_free(f);
}
