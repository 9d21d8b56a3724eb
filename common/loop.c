/* SPDX-License-Identifier: MIT */
/*
 * Theory. A turn of libuv is: timers, idle, prepare, poll (descriptors, async, signals),
 * closing. Ours happens in the prepare step, the last one before the loop waits:
 *   1. jobs run, each at most once a turn; one that is deferred again waits for the next;
 *   2. watchers whose wishes changed tell the kernel (all changes of a turn as one);
 *   3. the one uv_timer is set to the earliest of our timers.
 * So starting timers and changing wishes costs no system call in itself.
 *
 * Timers are a pairing heap threaded through their owners: no memory of its own, O(1) to
 * start, and a timer that is pushed back (an idle deadline at each request) stays where
 * it is and is put in its right place only when it comes up.
 *
 * Changing a uv_poll is two system calls (libuv 1.44 removes and adds the descriptor), so
 * LOOP_READ is taken away lazily: only when it fires unwanted. A proxy that stops and
 * starts reading around each request then never tells the kernel. LOOP_WRITE is taken
 * away at once, since a socket is nearly always writable.
 */
#include "common/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

#include <uv.h>

#include "common/mem.h"
#include "common/timerheap.h"

enum {
    SIGNALS_MAX = 8,
    END_TURNS_MAX = 1000
};

struct jobs {
    struct loop_job *head, **tail;
};

struct loop_io {
    uv_poll_t poll;
    struct loop *loop;
    loop_io_fn *fn; /* NULL: stopped */
    void *arg;
    unsigned want;                /* what the owner asks for */
    unsigned armed;               /* what the kernel was told */
    bool drop_read;               /* LOOP_READ fired unwanted: no longer lazy */
    struct loop_io *next, **prev; /* prev != NULL: in loop->changed */
};

struct post {
    struct post *next;
    loop_job_fn *fn;
    void *arg;
};

struct watch_signal {
    uv_signal_t uv;
    loop_signal_fn *fn;
    void *arg;
};

struct loop {
    uv_loop_t uv;
    uv_timer_t timer;
    uv_prepare_t prepare;
    uv_idle_t idle; /* active while jobs wait, so that the loop does not */
    uv_async_t async;
    struct watch_signal signals[SIGNALS_MAX];
    unsigned signal_count;
    unsigned open; /* handles whose close callback has not run */
    bool is_stopped, is_running, in_jobs;
    uint64_t turn;
    struct jobs jobs, later, at_end;
    struct loop_io *changed;
    struct loop_timer *timers; /* root: the earliest */
    uint64_t armed_ms;         /* the uv_timer's due time; 0: off */
    pthread_mutex_t lock;      /* guards posts */
    struct post *posts, **posts_tail;
};

uint64_t clock_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t clock_wall_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts); /* nor for this one */
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int64_t clock_wall_s(void)
{
    return (int64_t)(clock_wall_ms() / 1000);
}

uint64_t loop_now(const struct loop *l)
{
    return uv_now(&l->uv);
}

void *loop_uv(struct loop *l)
{
    return &l->uv;
}

/* -- timers ------------------------------------------------------------------------- */

void loop_timer_init(struct loop_timer *t, struct loop *l, loop_timer_fn *fn, void *arg)
{
    *t = (struct loop_timer){.loop = l, .fn = fn, .arg = arg};
}

void loop_timer_start(struct loop_timer *t, uint64_t ms)
{
    struct loop *l = t->loop;

    if (!l->is_running)
        uv_update_time(&l->uv);
    /* Never due in this very pass over the timers: that could go on for ever. */
    ms = ms > 0 ? ms : 1;
    t->due_ms = ms < UINT64_MAX / 2 ? loop_now(l) + ms : UINT64_MAX / 2;
    if (t->prev != NULL) {
        if (t->due_ms >= t->key_ms)
            return;
        timerheap_cut(&l->timers, t);
    }
    t->key_ms = t->due_ms;
    timerheap_put(&l->timers, t);
}

void loop_timer_stop(struct loop_timer *t)
{
    if (t->prev != NULL)
        timerheap_cut(&t->loop->timers, t);
}

static void on_timer(uv_timer_t *h)
{
    struct loop *l = h->data;
    uint64_t now = loop_now(l);
    struct loop_timer *t;

    l->armed_ms = 0;
    while ((t = l->timers) != NULL && t->key_ms <= now) {
        timerheap_cut(&l->timers, t);
        if (t->due_ms > t->key_ms) { /* was pushed back: now to its right place */
            t->key_ms = t->due_ms;
            timerheap_put(&l->timers, t);
        } else {
            t->fn(t->arg);
        }
    }
}

static void arm_timer(struct loop *l)
{
    uint64_t now = loop_now(l);

    if (l->timers == NULL) {
        if (l->armed_ms != 0)
            (void)uv_timer_stop(&l->timer); /* only fails on a bad handle */
        l->armed_ms = 0;
    } else if (l->armed_ms != l->timers->key_ms) {
        l->armed_ms = l->timers->key_ms;
        /* Only fails while closing. */
        (void)uv_timer_start(&l->timer, on_timer,
                             l->armed_ms > now ? l->armed_ms - now : 0, 0);
    }
}

/* -- jobs --------------------------------------------------------------------------- */

static void jobs_init(struct jobs *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static void jobs_push(struct jobs *q, struct loop_job *j)
{
    j->next = NULL;
    j->prev = q->tail;
    *q->tail = j;
    q->tail = &j->next;
}

static void jobs_cut(struct jobs *q, struct loop_job *j)
{
    *j->prev = j->next;
    if (j->next != NULL)
        j->next->prev = j->prev;
    else
        q->tail = j->prev;
    j->prev = NULL;
}

static struct loop_job *jobs_pop(struct jobs *q)
{
    struct loop_job *j = q->head;

    if (j == NULL)
        return NULL;
    q->head = j->next;
    if (j->next != NULL)
        j->next->prev = &q->head;
    else
        q->tail = &q->head;
    j->prev = NULL;
    return j;
}

/* All of `from` goes before what `q` has. */
static void jobs_put_first(struct jobs *q, struct jobs *from)
{
    if (from->head == NULL)
        return;
    *from->tail = q->head;
    if (q->head != NULL)
        q->head->prev = from->tail;
    else
        q->tail = from->tail;
    q->head = from->head;
    q->head->prev = &q->head;
    jobs_init(from);
}

void loop_job_init(struct loop_job *j, struct loop *l, loop_job_fn *fn, void *arg)
{
    *j = (struct loop_job){.loop = l, .fn = fn, .arg = arg};
}

void loop_job_defer(struct loop_job *j)
{
    struct loop *l = j->loop;

    if (j->prev != NULL)
        return;
    jobs_push(l->in_jobs && j->turn == l->turn ? &l->later : &l->jobs, j);
}

void loop_job_at_end(struct loop_job *j)
{
    loop_job_cancel(j);
    jobs_push(&j->loop->at_end, j);
}

void loop_job_cancel(struct loop_job *j)
{
    struct loop *l = j->loop;

    if (j->prev == NULL)
        return;
    /* Which list it is in matters only for the last one, whose link is that list's tail.
     */
    if (l->later.tail == &j->next)
        jobs_cut(&l->later, j);
    else if (l->at_end.tail == &j->next)
        jobs_cut(&l->at_end, j);
    else
        jobs_cut(&l->jobs, j);
}

static void run_jobs(struct loop *l)
{
    struct loop_job *j;

    l->turn++;
    jobs_put_first(&l->jobs, &l->later);
    l->in_jobs = true;
    while ((j = jobs_pop(&l->jobs)) != NULL) {
        j->turn = l->turn;
        j->fn(j->arg); /* may free the job */
    }
    l->in_jobs = false;
}

/* -- descriptors -------------------------------------------------------------------- */

static void io_mark(struct loop_io *io)
{
    struct loop *l = io->loop;

    if (io->prev != NULL)
        return;
    io->next = l->changed;
    if (io->next != NULL)
        io->next->prev = &io->next;
    io->prev = &l->changed;
    l->changed = io;
}

static void io_unmark(struct loop_io *io)
{
    if (io->prev == NULL)
        return;
    *io->prev = io->next;
    if (io->next != NULL)
        io->next->prev = io->prev;
    io->prev = NULL;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct loop_io *io = h->data;
    unsigned ready = 0;

    if (io->fn == NULL)
        return;
    if (status < 0) { /* an error on the descriptor: libuv has stopped watching it */
        io->armed = 0;
        io_mark(io);
        ready = LOOP_READ | LOOP_WRITE;
    } else {
        ready |= (events & UV_READABLE) != 0 ? LOOP_READ : 0;
        ready |= (events & UV_WRITABLE) != 0 ? LOOP_WRITE : 0;
        if ((ready & LOOP_READ & ~io->want) != 0) {
            io->drop_read = true;
            io_mark(io);
        }
    }
    ready &= io->want;
    if (ready != 0)
        io->fn(io->arg, ready);
}

static void io_apply(struct loop_io *io)
{
    unsigned lazy = io->drop_read ? 0 : io->armed & LOOP_READ;
    unsigned arm = io->want | lazy;
    int events = ((arm & LOOP_READ) != 0 ? UV_READABLE : 0) |
                 ((arm & LOOP_WRITE) != 0 ? UV_WRITABLE : 0);

    io->drop_read = false;
    if (arm == io->armed)
        return;
    io->armed = arm;
    /* Both fail only for a descriptor that is not ours (EEXIST), which is checked when
     * the watch starts. */
    if (arm == 0)
        (void)uv_poll_stop(&io->poll);
    else
        (void)uv_poll_start(&io->poll, events, on_poll);
}

static void apply_changes(struct loop *l)
{
    struct loop_io *io;

    while ((io = l->changed) != NULL) {
        io_unmark(io);
        io_apply(io);
    }
}

struct loop_io *loop_io_start(struct loop *l, int fd, loop_io_fn *fn, void *arg,
                              struct err *e)
{
    struct loop_io *io = mem_zalloc(1, sizeof(*io));
    int r;

    if (io == NULL) {
        (void)err_set(e, ERR_NOMEM, "watching a descriptor");
        return NULL;
    }
    io->loop = l;
    io->fn = fn;
    io->arg = arg;
    r = uv_poll_init(&l->uv, &io->poll, fd);
    if (r < 0) {
        mem_free(io);
        (void)err_set_at(e, ERR_SYS, -r, ERR_WHERE, "watch descriptor %d: %s", fd,
                         uv_strerror(r));
        return NULL;
    }
    io->poll.data = io;
    l->open++;
    return io;
}

void loop_io_want(struct loop_io *io, unsigned events)
{
    if (events == io->want)
        return;
    io->want = events;
    /* Taking LOOP_READ away alone waits until it fires. */
    if ((events | (io->armed & LOOP_READ)) != io->armed || io->drop_read)
        io_mark(io);
}

static void on_io_closed(uv_handle_t *h)
{
    struct loop_io *io = h->data;

    io->loop->open--;
    mem_free(io);
}

void loop_io_stop(struct loop_io **pio)
{
    struct loop_io *io = *pio;

    if (io == NULL)
        return;
    *pio = NULL;
    io_unmark(io);
    io->fn = NULL;
    uv_close((uv_handle_t *)&io->poll, on_io_closed);
}

/* -- from other threads, and signals --------------------------------------------------
 */

int loop_post(struct loop *l, loop_job_fn *fn, void *arg)
{
    struct post *p = mem_alloc(sizeof(*p));
    bool was_empty;

    if (p == NULL)
        return -1;
    *p = (struct post){.fn = fn, .arg = arg};
    (void)pthread_mutex_lock(&l->lock); /* fails only on misuse */
    was_empty = l->posts == NULL;
    *l->posts_tail = p;
    l->posts_tail = &p->next;
    if (was_empty)
        (void)uv_async_send(&l->async); /* inside: loop_free() may follow the last post */
    (void)pthread_mutex_unlock(&l->lock);
    return 0;
}

static struct post *take_posts(struct loop *l)
{
    struct post *p;

    (void)pthread_mutex_lock(&l->lock);
    p = l->posts;
    l->posts = NULL;
    l->posts_tail = &l->posts;
    (void)pthread_mutex_unlock(&l->lock);
    return p;
}

static void run_posts(struct loop *l)
{
    struct post *p = take_posts(l);

    while (p != NULL) {
        struct post post = *p;

        mem_free(p);
        post.fn(post.arg);
        p = post.next;
    }
}

static void on_async(uv_async_t *h)
{
    run_posts(h->data);
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct watch_signal *s = h->data;

    s->fn(s->arg, signo);
}

int loop_signal(struct loop *l, int signo, loop_signal_fn *fn, void *arg, struct err *e)
{
    struct watch_signal *s;
    int r;

    if (l->signal_count == SIGNALS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d signals", SIGNALS_MAX);
    s = &l->signals[l->signal_count];
    r = uv_signal_init(&l->uv, &s->uv);
    if (r < 0)
        return err_set_at(e, ERR_SYS, -r, ERR_WHERE, "watch signals: %s", uv_strerror(r));
    l->signal_count++;
    l->open++;
    s->fn = fn;
    s->arg = arg;
    s->uv.data = s;
    r = uv_signal_start(&s->uv, on_signal, signo);
    if (r < 0)
        return err_set_at(e, ERR_SYS, -r, ERR_WHERE, "watch signal %d: %s", signo,
                          uv_strerror(r));
    return 0;
}

/* -- the loop ----------------------------------------------------------------------- */

static void on_idle(uv_idle_t *h)
{
    UNUSED_ARG(h); /* being active is all it is for */
}

static void on_prepare(uv_prepare_t *h)
{
    struct loop *l = h->data;

    run_jobs(l);
    apply_changes(l);
    arm_timer(l);
    /* Neither fails with a callback given. */
    if (l->later.head != NULL)
        (void)uv_idle_start(&l->idle, on_idle);
    else
        (void)uv_idle_stop(&l->idle);
}

struct loop *loop_new(struct err *e)
{
    struct loop *l = mem_zalloc(1, sizeof(*l));
    int r;

    if (l == NULL) {
        (void)err_set(e, ERR_NOMEM, "making an event loop");
        return NULL;
    }
    r = uv_loop_init(&l->uv);
    if (r < 0) {
        mem_free(l);
        (void)err_set_at(e, ERR_SYS, -r, ERR_WHERE, "make an event loop: %s",
                         uv_strerror(r));
        return NULL;
    }
    (void)signal(SIGPIPE, SIG_IGN);           /* cannot fail for this signal */
    (void)pthread_mutex_init(&l->lock, NULL); /* cannot fail with default attributes */
    l->posts_tail = &l->posts;
    jobs_init(&l->jobs);
    jobs_init(&l->later);
    jobs_init(&l->at_end);
    l->timer.data = l->prepare.data = l->idle.data = l->async.data = l;
    (void)uv_timer_init(&l->uv, &l->timer); /* these three cannot fail */
    (void)uv_prepare_init(&l->uv, &l->prepare);
    (void)uv_idle_init(&l->uv, &l->idle);
    (void)uv_prepare_start(&l->prepare, on_prepare); /* fails only without a callback */
    l->open = 3;
    r = uv_async_init(&l->uv, &l->async, on_async);
    if (r < 0) {
        l->async.data = NULL;
        loop_free(l);
        (void)err_set_at(e, ERR_SYS, -r, ERR_WHERE, "make an event loop: %s",
                         uv_strerror(r));
        return NULL;
    }
    l->open++;
    return l;
}

void loop_run(struct loop *l)
{
    l->is_running = true;
    /* libwebsockets stops a loop that it was lent when its context ends: go on. */
    while (!l->is_stopped)
        (void)uv_run(&l->uv, UV_RUN_DEFAULT);
    l->is_stopped = false;
    l->is_running = false;
    /* What was handed to this loop before must not be lost: it may own descriptors. */
    run_posts(l);
    run_jobs(l);
}

void loop_stop(struct loop *l)
{
    l->is_stopped = true;
    uv_stop(&l->uv);
}

static void on_closed(uv_handle_t *h)
{
    struct loop *l = h->data;

    l->open--;
}

static void close_handles(struct loop *l)
{
    unsigned i;

    uv_close((uv_handle_t *)&l->timer, on_closed);
    uv_close((uv_handle_t *)&l->prepare, on_closed);
    uv_close((uv_handle_t *)&l->idle, on_closed);
    if (l->async.data != NULL)
        uv_close((uv_handle_t *)&l->async, on_closed);
    for (i = 0; i < l->signal_count; i++) {
        l->signals[i].uv.data = l;
        uv_close((uv_handle_t *)&l->signals[i].uv, on_closed);
    }
}

void loop_free(struct loop *l)
{
    struct post *p;
    int turns;

    if (l == NULL)
        return;
    jobs_put_first(&l->jobs, &l->at_end);
    for (turns = 0; turns < END_TURNS_MAX && (l->jobs.head || l->later.head); turns++)
        run_jobs(l);
    close_handles(l);
    /* Handles that others left open (libwebsockets closes its own over some turns) get a
     * bounded number of turns. A loop that is still in use then is leaked, not freed. */
    for (turns = 0; turns < END_TURNS_MAX; turns++) {
        (void)uv_run(&l->uv, UV_RUN_NOWAIT);
        if (l->open == 0 && uv_loop_close(&l->uv) == 0)
            break;
    }
    for (p = take_posts(l); p != NULL;) {
        struct post *next = p->next;

        mem_free(p);
        p = next;
    }
    if (turns == END_TURNS_MAX)
        return;
    (void)pthread_mutex_destroy(&l->lock); /* fails only when locked */
    mem_free(l);
}
