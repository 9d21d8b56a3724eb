/* SPDX-License-Identifier: MIT */
#include "common/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/test.h"

struct world {
    struct loop *l;
    int fd[2];
    struct loop_io *io;
    struct loop_job job, job2;
    struct loop_timer timer, guard;
    unsigned events, calls, calls2, turns_between;
    char log[64];
    unsigned log_len;
};

/* A test that would hang fails instead. */
static void on_guard(void *arg)
{
    struct world *w = arg;

    w->log[w->log_len++] = '!';
    loop_stop(w->l);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    w->l = loop_new(NULL);
    assert_non_null(w->l);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w->fd), 0);
    loop_timer_init(&w->guard, w->l, on_guard, w);
    loop_timer_start(&w->guard, 20000);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    loop_timer_stop(&w->guard);
    loop_io_stop(&w->io);
    loop_free(w->l);
    (void)close(w->fd[0]);
    (void)close(w->fd[1]);
    free(w);
    return 0;
}

static void on_io(void *arg, unsigned events)
{
    struct world *w = arg;

    w->events = events;
    w->calls++;
    loop_stop(w->l);
}

static void note_a(void *arg)
{
    struct world *w = arg;

    w->log[w->log_len++] = 'a';
}

static void note_b_and_stop(void *arg)
{
    struct world *w = arg;

    w->log[w->log_len++] = 'b';
    loop_stop(w->l);
}

static void a_descriptor_tells_only_what_is_wanted(void **state)
{
    struct world *w = *state;

    w->io = loop_io_start(w->l, w->fd[0], on_io, w, NULL);
    assert_int_equal(write(w->fd[1], "x", 1), 1);
    loop_io_want(w->io, LOOP_WRITE);
    loop_run(w->l);
    assert_int_equal(w->events, LOOP_WRITE);
    loop_io_want(w->io, LOOP_READ);
    loop_run(w->l);
    assert_int_equal(w->events, LOOP_READ);
    loop_io_want(w->io, LOOP_READ | LOOP_WRITE);
    loop_run(w->l);
    assert_int_equal(w->events, LOOP_READ | LOOP_WRITE);
}

/* Reading is taken away lazily; unwanted bytes must neither be told nor spin the loop. */
static void an_unwanted_event_is_silent_and_comes_back(void **state)
{
    struct world *w = *state;

    w->io = loop_io_start(w->l, w->fd[0], on_io, w, NULL);
    assert_int_equal(write(w->fd[1], "x", 1), 1);
    loop_io_want(w->io, LOOP_READ);
    loop_run(w->l);
    assert_int_equal(w->calls, 1);
    loop_io_want(w->io, 0);
    loop_timer_init(&w->timer, w->l, note_b_and_stop, w);
    loop_timer_start(&w->timer, 30);
    loop_run(w->l);
    assert_int_equal(w->calls, 1);
    assert_int_equal(w->log[0], 'b');
    loop_io_want(w->io, LOOP_READ);
    loop_run(w->l);
    assert_int_equal(w->calls, 2);
}

static void a_hang_up_is_told_as_what_is_wanted(void **state)
{
    struct world *w = *state;

    w->io = loop_io_start(w->l, w->fd[0], on_io, w, NULL);
    (void)close(w->fd[1]);
    w->fd[1] = -1;
    loop_io_want(w->io, LOOP_WRITE);
    loop_run(w->l);
    assert_int_equal(w->events, LOOP_WRITE);
    loop_io_want(w->io, LOOP_READ);
    loop_run(w->l);
    assert_int_equal(w->events, LOOP_READ);
}

static void on_io_close_all(void *arg, unsigned events)
{
    struct world *w = arg;

    (void)events;
    loop_io_stop(&w->io);
    assert_null(w->io);
    (void)close(w->fd[0]);
    /* The number is used again at once, by another watcher. */
    assert_int_equal(dup2(w->fd[1], w->fd[0]), w->fd[0]);
    w->io = loop_io_start(w->l, w->fd[0], on_io, w, NULL);
    assert_non_null(w->io);
    loop_io_want(w->io, LOOP_READ | LOOP_WRITE);
}

static void a_watcher_may_be_stopped_and_replaced_in_its_callback(void **state)
{
    struct world *w = *state;

    w->io = loop_io_start(w->l, w->fd[0], on_io_close_all, w, NULL);
    loop_io_want(w->io, LOOP_WRITE);
    loop_run(w->l);
    assert_int_equal(w->calls, 1);
}

static void a_bad_descriptor_is_refused(void **state)
{
    struct world *w = *state;
    struct err e = {0};

    assert_null(loop_io_start(w->l, 1 << 20, on_io, w, &e));
    assert_int_equal(e.code, ERR_SYS);
}

static void again(void *arg)
{
    struct world *w = arg;

    if (++w->calls == 5)
        loop_stop(w->l);
    loop_job_defer(&w->job);
    loop_job_defer(&w->job);
}

static void count_write(void *arg, unsigned events)
{
    struct world *w = arg;

    (void)events;
    w->calls2++;
}

static void a_job_that_defers_itself_lets_descriptors_have_their_turn(void **state)
{
    struct world *w = *state;

    w->io = loop_io_start(w->l, w->fd[0], count_write, w, NULL);
    loop_io_want(w->io, LOOP_WRITE);
    loop_job_init(&w->job, w->l, again, w);
    loop_job_defer(&w->job);
    loop_run(w->l);
    assert_true(w->calls >= 5);
    assert_true(w->calls2 >= 3);
    loop_job_cancel(&w->job);
}

static void defer_second(void *arg)
{
    struct world *w = arg;

    w->log[w->log_len++] = '1';
    loop_job_defer(&w->job2);
}

static void a_job_deferred_by_a_job_runs_in_the_same_turn(void **state)
{
    struct world *w = *state;

    loop_job_init(&w->job, w->l, defer_second, w);
    loop_job_init(&w->job2, w->l, note_b_and_stop, w);
    loop_job_defer(&w->job);
    loop_run(w->l);
    assert_string_equal(w->log, "1b");
}

static void cancelled_jobs_do_not_run_and_order_holds(void **state)
{
    struct world *w = *state;
    struct loop_job j[4];
    int i;

    for (i = 0; i < 4; i++) {
        loop_job_init(&j[i], w->l, i == 3 ? note_b_and_stop : note_a, w);
        loop_job_defer(&j[i]);
    }
    loop_job_cancel(&j[0]);
    loop_job_cancel(&j[3]);
    loop_job_cancel(&j[3]);
    loop_job_defer(&j[3]);
    loop_job_cancel(&j[1]);
    loop_run(w->l);
    assert_string_equal(w->log, "ab");
}

static void a_job_for_the_end_runs_only_in_loop_free(void **state)
{
    struct world *w = *state;
    struct loop_job end, cancelled;

    loop_job_init(&end, w->l, note_a, w);
    loop_job_init(&cancelled, w->l, note_b_and_stop, w);
    loop_job_at_end(&end);
    loop_job_at_end(&cancelled);
    loop_job_cancel(&cancelled);
    loop_job_init(&w->job, w->l, note_b_and_stop, w);
    loop_job_defer(&w->job);
    loop_run(w->l);
    assert_string_equal(w->log, "b");
    loop_timer_stop(&w->guard);
    loop_free(w->l);
    assert_string_equal(w->log, "ba");
    w->l = loop_new(NULL);
}

struct nap {
    struct loop_timer t;
    struct world *w;
    uint64_t due;
};

static void on_nap(void *arg)
{
    struct nap *n = arg;

    /* Order: never before one that was due earlier. */
    assert_true(n->due >= n->w->timer.due_ms);
    n->w->timer.due_ms = n->due;
    if (--n->w->calls == 0)
        loop_stop(n->w->l);
}

static void timers_fire_in_order_whatever_was_done_to_them(void **state)
{
    enum {
        N = 500
    };
    struct world *w = *state;
    struct nap *naps = calloc(N, sizeof(*naps));
    unsigned seed = 42, i;

    for (i = 0; i < N; i++) {
        naps[i].w = w;
        loop_timer_init(&naps[i].t, w->l, on_nap, &naps[i]);
    }
    for (i = 0; i < 20 * N; i++) {
        struct nap *n = &naps[(unsigned)rand_r(&seed) % N];

        if (rand_r(&seed) % 4 == 0)
            loop_timer_stop(&n->t);
        else
            loop_timer_start(&n->t, (uint64_t)(rand_r(&seed) % 100));
        n->due = n->t.due_ms;
    }
    for (i = 0; i < N; i++)
        w->calls += loop_timer_is_on(&naps[i].t);
    assert_true(w->calls > N / 2);
    w->timer.due_ms = 0;
    loop_run(w->l);
    assert_int_equal(w->calls, 0);
    for (i = 0; i < N; i++)
        assert_false(loop_timer_is_on(&naps[i].t));
    free(naps);
    assert_int_equal(w->log_len, 0);
}

static void restart_once(void *arg)
{
    struct world *w = arg;

    assert_false(loop_timer_is_on(&w->timer));
    if (++w->calls < 3)
        loop_timer_start(&w->timer, 0);
    else
        loop_stop(w->l);
}

static void a_timer_may_start_itself_again(void **state)
{
    struct world *w = *state;

    loop_timer_init(&w->timer, w->l, restart_once, w);
    loop_timer_start(&w->timer, 1);
    loop_run(w->l);
    assert_int_equal(w->calls, 3);
}

static void a_timer_pushed_back_does_not_fire_at_its_old_time(void **state)
{
    struct world *w = *state;
    struct loop_timer late;

    loop_timer_init(&late, w->l, note_a, w);
    loop_timer_start(&late, 5);
    loop_timer_start(&late, 3600000);
    loop_timer_init(&w->timer, w->l, note_b_and_stop, w);
    loop_timer_start(&w->timer, 40);
    loop_run(w->l);
    assert_string_equal(w->log, "b");
    /* ... and forward again it is early. */
    loop_timer_start(&late, 5);
    loop_timer_start(&w->timer, 200);
    loop_run(w->l);
    assert_string_equal(w->log, "bab");
}

enum {
    POSTS = 2000,
    POSTERS = 3
};

static void on_post(void *arg)
{
    struct world *w = arg;

    if (++w->calls == POSTS * POSTERS)
        loop_stop(w->l);
}

static void *poster(void *arg)
{
    struct world *w = arg;
    int i;

    for (i = 0; i < POSTS; i++)
        if (loop_post(w->l, on_post, w) < 0)
            abort();
    return NULL;
}

static void every_post_of_every_thread_arrives(void **state)
{
    struct world *w = *state;
    pthread_t t[POSTERS];
    int i;

    for (i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, poster, w), 0);
    loop_run(w->l);
    for (i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    assert_int_equal(w->calls, POSTS * POSTERS);
}

static void what_was_posted_before_the_stop_still_runs(void **state)
{
    struct world *w = *state;

    loop_job_init(&w->job, w->l, note_b_and_stop, w);
    loop_job_defer(&w->job);
    assert_int_equal(loop_post(w->l, note_a, w), 0);
    loop_run(w->l);
    assert_string_equal(w->log, "ba");
}

static void on_usr1(void *arg, int signo)
{
    struct world *w = arg;

    w->events = (unsigned)signo;
    loop_stop(w->l);
}

static void send_usr1(void *arg)
{
    (void)arg;
    (void)raise(SIGUSR1);
}

static void a_signal_arrives_on_the_loop_and_there_is_a_limit(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    int i;

    assert_int_equal(loop_signal(w->l, SIGUSR1, on_usr1, w, NULL), 0);
    loop_job_init(&w->job, w->l, send_usr1, w);
    loop_job_defer(&w->job);
    loop_run(w->l);
    assert_int_equal(w->events, SIGUSR1);
    for (i = 0; i < 7; i++)
        assert_int_equal(loop_signal(w->l, SIGUSR2, on_usr1, w, NULL), 0);
    assert_int_equal(loop_signal(w->l, SIGUSR2, on_usr1, w, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
}

static void writing_into_a_closed_pipe_does_not_kill(void **state)
{
    struct world *w = *state;
    int p[2];

    (void)w;
    assert_int_equal(pipe(p), 0);
    (void)close(p[0]);
    assert_int_equal(write(p[1], "x", 1), -1);
    (void)close(p[1]);
}

static int make_and_free(void)
{
    struct loop *l = loop_new(NULL);
    struct loop_io *io;
    int ok;

    if (l == NULL)
        return -1;
    io = loop_io_start(l, 0, on_io, NULL, NULL);
    ok = io != NULL && loop_post(l, on_post, NULL) == 0; /* dropped by loop_free() */
    loop_io_stop(&io);
    loop_free(l);
    return ok ? 0 : -1;
}

static void every_allocation_failure_is_clean(void **state)
{
    int p[2], saved = dup(0);

    (void)state;
    assert_int_equal(pipe(p), 0);
    (void)dup2(p[0], 0);
    FAIL_EACH_ALLOC(make_and_free());
    (void)dup2(saved, 0);
    (void)close(saved);
    (void)close(p[0]);
    (void)close(p[1]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_descriptor_tells_only_what_is_wanted),
        T(an_unwanted_event_is_silent_and_comes_back),
        T(a_hang_up_is_told_as_what_is_wanted),
        T(a_watcher_may_be_stopped_and_replaced_in_its_callback),
        T(a_bad_descriptor_is_refused),
        T(a_job_that_defers_itself_lets_descriptors_have_their_turn),
        T(a_job_deferred_by_a_job_runs_in_the_same_turn),
        T(cancelled_jobs_do_not_run_and_order_holds),
        T(a_job_for_the_end_runs_only_in_loop_free),
        T(timers_fire_in_order_whatever_was_done_to_them),
        T(a_timer_may_start_itself_again),
        T(a_timer_pushed_back_does_not_fire_at_its_old_time),
        T(every_post_of_every_thread_arrives),
        T(what_was_posted_before_the_stop_still_runs),
        T(a_signal_arrives_on_the_loop_and_there_is_a_limit),
        T(writing_into_a_closed_pipe_does_not_kill),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/loop", tests, NULL, NULL);
}
