/* SPDX-License-Identifier: MIT */
/**
 * loop -- one thread's event loop over libuv: descriptors, timers, deferred jobs, and
 *         messages from other threads.
 *
 * Shape    thin shell over uv_loop_t. Timers and jobs are embedded in their owner and may
 *          be freed as soon as they are stopped. Descriptor watchers are owned by the
 * loop. Threads  everything but loop_post() is for the loop's own thread. Rule nothing
 * calls you back before the call that started it has returned.
 */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct loop;

/** NULL with *e set when the kernel or memory says no. Makes the whole process ignore
 *  SIGPIPE. */
struct loop *loop_new(struct err *e);
/** Only after loop_run() returned and all owners stopped their things. NULL is fine. Jobs
 *  still queued run; what other threads posted after loop_run() returned does not. */
void loop_free(struct loop *l);
/** Runs until loop_stop(), and then what was posted or deferred before. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);
/** The uv_loop_t *, for libwebsockets' foreign loop only. */
void *loop_uv(struct loop *l);
/** Milliseconds, monotonic, cached per turn. */
uint64_t loop_now(const struct loop *l);
/** Microseconds, monotonic, read from the clock now. */
uint64_t clock_us(void);
/** Since 1970, for records and what expires by date; it may jump, so never for a wait. */
uint64_t clock_wall_ms(void);
int64_t clock_wall_s(void);

/* -- descriptors -------------------------------------------------------------------- */

enum {
    LOOP_READ = 1,
    LOOP_WRITE = 2
};
struct loop_io;
/** @events  LOOP_READ | LOOP_WRITE as ready; an error or hang-up is told as both wanted.
 */
typedef void loop_io_fn(void *arg, unsigned events);

/** Watch `fd` (borrowed, non-blocking, must stay open until loop_io_stop()) for nothing
 *  yet; NULL on failure. */
struct loop_io *loop_io_start(struct loop *l, int fd, loop_io_fn *fn, void *arg,
                              struct err *e);
/** Watch for exactly these events from now on; level-triggered. Cheap when unchanged. */
void loop_io_want(struct loop_io *io, unsigned events);
/** No callback after this; *io becomes NULL; the descriptor may be closed at once. */
void loop_io_stop(struct loop_io **io);

/* -- timers ------------------------------------------------------------------------- */

typedef void loop_timer_fn(void *arg);
struct loop_timer {
    struct loop *loop; /* NULL before loop_timer_init() */
    uint64_t due_ms;   /* when it is to fire */
    uint64_t key_ms;   /* <= due_ms: its order in the heap; a later due time is lazy */
    struct loop_timer *child, *next, **prev; /* prev != NULL: running */
    loop_timer_fn *fn;
    void *arg;
};
void loop_timer_init(struct loop_timer *t, struct loop *l, loop_timer_fn *fn, void *arg);
/** (Re)start: fires once, `ms` from now. Needs no memory, never fails. Pushing a running
 *  timer back is O(1). */
void loop_timer_start(struct loop_timer *t, uint64_t ms);
void loop_timer_stop(struct loop_timer *t); /* fine in any state */
static inline bool loop_timer_is_on(const struct loop_timer *t)
{
    return t->prev != NULL;
}

/* -- jobs: later in this turn, before the loop waits again --------------------------- */

typedef void loop_job_fn(void *arg);
struct loop_job {
    struct loop *loop;
    struct loop_job *next, **prev; /* prev != NULL: queued */
    uint64_t turn;                 /* of its last run */
    loop_job_fn *fn;
    void *arg;
};
void loop_job_init(struct loop_job *j, struct loop *l, loop_job_fn *fn, void *arg);
/** Fine when already queued. A job that defers itself runs again in the next turn, after
 *  the descriptors were looked at. */
void loop_job_defer(struct loop_job *j);
/** Run it in loop_free(), not before: for what may outlive its owner. */
void loop_job_at_end(struct loop_job *j);
void loop_job_cancel(struct loop_job *j); /* fine in any state */

/* -- from other threads, and signals --------------------------------------------------
 */

/** Run fn(arg) on the loop's thread. Thread-safe. 0, or -1 on no memory (fn will not
 * run). */
int loop_post(struct loop *l, loop_job_fn *fn, void *arg);

typedef void loop_signal_fn(void *arg, int signo);
/** Call fn on this loop for the signal; at most 8 per loop; stays until loop_free(). */
int loop_signal(struct loop *l, int signo, loop_signal_fn *fn, void *arg, struct err *e);

#endif
