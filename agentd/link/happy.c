/* SPDX-License-Identifier: MIT */
#include "agentd/link/happy.h"

#include <errno.h>
#include <string.h>

#include "common/limits.h"
#include "common/mem.h"

struct attempt {
    struct happy *happy; /* borrowed: its owner */
    struct sock_addr to;
    int fd;             /* -1: not started, or failed */
    struct loop_io *io; /* NULL or live */
};

struct happy {
    struct loop *loop;
    happy_fn *fn;
    void *arg;
    struct loop_timer deadline, stagger;
    struct loop_job step; /* start the next attempt, or tell the end */
    size_t n, next;       /* attempts; the next one to start */
    size_t open;          /* attempts under way */
    struct err why;       /* the first failure */
    bool timed_out;
    struct attempt at[];
};

static void attempt_done(struct attempt *a)
{
    loop_io_stop(&a->io);
    if (a->fd >= 0)
        a->happy->open--;
    sock_close(&a->fd);
}

static void destroy(struct happy *h)
{
    size_t i;

    loop_timer_stop(&h->deadline);
    loop_timer_stop(&h->stagger);
    loop_job_cancel(&h->step);
    for (i = 0; i < h->n; i++)
        attempt_done(&h->at[i]);
    mem_free(h);
}

void happy_cancel(struct happy **h)
{
    if (*h)
        destroy(*h);
    *h = NULL;
}

static void fail(struct happy *h)
{
    happy_fn *fn = h->fn;
    void *arg = h->arg;
    struct err e = h->why;
    char where[SOCK_TEXT_MAX];
    int none = -1;

    if (h->timed_out && e.code == ERR_NONE)
        (void)err_set(&e, ERR_TIMEOUT, "connect to %s: no answer",
                      sock_print(&h->at[0].to, where));
    destroy(h);
    fn(arg, &none, NULL, &e);
}

static void note_failure(struct happy *h, const struct attempt *a, int error)
{
    char where[SOCK_TEXT_MAX];

    if (h->why.code != ERR_NONE)
        return;
    errno = error;
    (void)err_sys(&h->why, "connect to %s: %s", sock_print(&a->to, where),
                  strerror(error));
}

static void win(struct attempt *a)
{
    struct happy *h = a->happy;
    happy_fn *fn = h->fn;
    void *arg = h->arg;
    struct sock_addr to = a->to;
    int fd = a->fd;

    loop_io_stop(&a->io);
    a->fd = -1;
    h->open--;
    destroy(h);
    fn(arg, &fd, &to, NULL);
    sock_close(&fd);
}

static void on_io(void *arg, unsigned events)
{
    struct attempt *a = arg;
    struct happy *h = a->happy;
    int error = sock_error(a->fd);

    UNUSED_ARG(events);
    if (!error) {
        win(a);
        return;
    }
    note_failure(h, a, error);
    attempt_done(a);
    loop_job_defer(&h->step);
}

/* 1: done, and with it `h` is gone; 0: under way; -1: failed at once, as without a route
 * to that family. */
static int begin(struct happy *h, struct attempt *a)
{
    struct err e = {0};

    a->fd = sock_connect(&a->to, &e);
    if (a->fd < 0) {
        if (h->why.code == ERR_NONE)
            h->why = e;
        return -1;
    }
    h->open++;
    if (sock_is_connected(a->fd)) { /* a neighbour: no need to wait for the loop */
        win(a);
        return 1;
    }
    a->io = loop_io_start(h->loop, a->fd, on_io, a, &e);
    if (!a->io) {
        if (h->why.code == ERR_NONE)
            h->why = e;
        attempt_done(a);
        return -1;
    }
    loop_io_want(a->io, LOOP_WRITE);
    return 0;
}

static void on_step(void *arg)
{
    struct happy *h = arg;
    int begun = -1;

    if (h->timed_out) {
        fail(h);
        return;
    }
    loop_timer_stop(&h->stagger);
    while (begun < 0 && h->next < h->n)
        begun = begin(h, &h->at[h->next++]);
    if (begun > 0)
        return;
    if (h->open == 0) {
        fail(h);
        return;
    }
    if (h->next < h->n)
        loop_timer_start(&h->stagger, CONNECT_STAGGER_MS);
}

static void on_stagger(void *arg)
{
    struct happy *h = arg;

    loop_job_defer(&h->step);
}

static void on_deadline(void *arg)
{
    struct happy *h = arg;

    h->timed_out = true;
    loop_job_defer(&h->step);
}

struct happy *happy_start(struct loop *l, const struct sock_addr *addr, size_t n,
                          const struct happy_conf *conf, struct err *e)
{
    struct happy *h;
    size_t i;

    if (n > CONNECT_ADDRS_MAX)
        n = CONNECT_ADDRS_MAX;
    h = mem_zalloc(1, sizeof(*h) + n * sizeof(h->at[0]));
    if (!h) {
        (void)err_set(e, ERR_NOMEM, "connect: no memory");
        return NULL;
    }
    h->loop = l;
    h->fn = conf->fn;
    h->arg = conf->arg;
    h->n = n;
    for (i = 0; i < n; i++) {
        h->at[i].happy = h;
        h->at[i].to = addr[i];
        h->at[i].fd = -1;
    }
    loop_timer_init(&h->deadline, l, on_deadline, h);
    loop_timer_init(&h->stagger, l, on_stagger, h);
    loop_job_init(&h->step, l, on_step, h);
    loop_timer_start(&h->deadline, conf->timeout_ms);
    loop_job_defer(&h->step);
    return h;
}
