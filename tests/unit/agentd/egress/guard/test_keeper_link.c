/* SPDX-License-Identifier: MIT */
/* The test is the keeper, at the other end of a real channel; the loop is turned until
 * something that is waited for has happened. */
#include "agentd/egress/guard/keeper_link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/sock.h"
#include "tests/support/test.h"

enum {
    BOUND_MS = 20000
};

struct scene {
    struct loop *loop;
    struct keeper_link *k;
    int keeper; /* our end */
    struct loop_timer bound;
    bool is_late;
    /* seen */
    unsigned answers, nulls, messages, gone;
    struct channel_msg last;
    int taken_fd;
    bool is_inside; /* a call of ours runs: nothing may call back */
    unsigned until; /* stop when so many things were seen */
};

static void seen(struct scene *s)
{
    assert_false(s->is_inside);
    if (s->until > 0 && --s->until == 0)
        loop_stop(s->loop);
}

static void on_answer(void *arg, struct channel_msg *m)
{
    struct scene *s = arg;

    s->answers++;
    s->nulls += m == NULL;
    if (m != NULL) {
        s->last = *m;
        if (m->type == CHANNEL_REPLY) {
            s->taken_fd = m->fd[CHANNEL_FD_REPLY];
            m->fd[CHANNEL_FD_REPLY] = -1;
        }
    }
    seen(s);
}

static void on_message(void *arg, struct channel_msg *m)
{
    struct scene *s = arg;

    s->messages++;
    s->last = *m;
    seen(s);
}

static void on_gone(void *arg)
{
    struct scene *s = arg;

    s->gone++;
    seen(s);
}

static void on_bound(void *arg)
{
    struct scene *s = arg;

    s->is_late = true;
    loop_stop(s->loop);
}

/* Turn the loop until n more things were seen. */
static void see(struct scene *s, unsigned n)
{
    s->until = n;
    s->is_late = false;
    loop_timer_start(&s->bound, BOUND_MS);
    loop_run(s->loop);
    loop_timer_stop(&s->bound);
    assert_false(s->is_late);
}

static void on_turned(void *arg)
{
    loop_stop(arg);
}

/* Some turns, in which nothing needs to happen. */
static void turn(struct scene *s)
{
    struct loop_timer t;

    loop_timer_init(&t, s->loop, on_turned, s->loop);
    loop_timer_start(&t, 20);
    loop_run(s->loop);
    loop_timer_stop(&t);
}

static int start(void **state)
{
    static struct scene s;
    int pair[2];

    memset(&s, 0, sizeof(s));
    s.taken_fd = -1;
    s.loop = loop_new(NULL);
    if (s.loop == NULL || channel_pair(pair, NULL) < 0)
        return -1;
    s.keeper = pair[0];
    s.k = keeper_link_new(s.loop, &pair[1], on_message, on_gone, &s, NULL);
    loop_timer_init(&s.bound, s.loop, on_bound, &s);
    *state = &s;
    return s.k == NULL || pair[1] != -1;
}

static int stop(void **state)
{
    struct scene *s = *state;

    keeper_link_free(s->k);
    sock_close(&s->keeper);
    sock_close(&s->taken_fd);
    loop_free(s->loop);
    return mem_live() != 0;
}

static struct keeper_request *ask(struct scene *s, enum channel_type type,
                                  struct channel_msg *ret)
{
    struct keeper_request *r;
    struct err e = {0};

    channel_msg_init(ret, type, 7);
    ret->to = ret->from = (struct ip_addr){AF_INET, {192, 0, 2, 1}};
    s->is_inside = true;
    r = keeper_link_ask(s->k, ret, on_answer, s, &e);
    s->is_inside = false;
    return r;
}

/* What the keeper reads. */
static struct channel_msg next(struct scene *s)
{
    struct channel_msg m;
    struct err e = {0};

    assert_int_equal(channel_recv(s->keeper, &m, &e), 1);
    return m;
}

static void say(struct scene *s, enum channel_type type, uint32_t seq, int fd)
{
    struct channel_msg m;

    channel_msg_init(&m, type, 7);
    m.seq = seq;
    m.fd[0] = fd;
    assert_int_equal(channel_send(s->keeper, &m, NULL), 0);
}

/* -- answers ------------------------------------------------------------------------- */

static void answers_find_their_questions_in_any_order(void **state)
{
    struct scene *s = *state;
    struct channel_msg first, who, reply;
    int file = open("/dev/null", O_RDWR | O_CLOEXEC);

    assert_non_null(ask(s, CHANNEL_ASK_WHO, &first));
    assert_non_null(ask(s, CHANNEL_ASK_WHO, &who));
    assert_non_null(ask(s, CHANNEL_WANT_REPLY, &reply));
    assert_int_equal(next(s).seq, first.seq);
    assert_int_equal(next(s).seq, who.seq);
    assert_int_equal(next(s).seq, reply.seq);
    assert_int_not_equal(first.seq, who.seq);
    say(s, CHANNEL_REPLY, reply.seq, file);
    see(s, 1);
    assert_int_equal(s->last.type, CHANNEL_REPLY);
    assert_true(s->taken_fd >= 0);
    say(s, CHANNEL_WHO, who.seq, -1);
    say(s, CHANNEL_WHO, first.seq, -1);
    see(s, 2);
    assert_int_equal(s->last.type, CHANNEL_WHO);
    assert_int_equal(s->last.seq, first.seq);
    assert_int_equal(s->answers, 3);
    assert_int_equal(s->nulls, 0);
    (void)close(file);
}

static void what_is_no_answer_is_a_message(void **state)
{
    struct scene *s = *state;

    say(s, CHANNEL_REMOVE, 9, -1);
    say(s, CHANNEL_STATUS, 10, -1);
    see(s, 2);
    assert_int_equal(s->last.type, CHANNEL_STATUS);
    assert_int_equal(s->last.seq, 10);
    assert_int_equal(s->messages, 2);
}

static void an_answer_too_late_or_cancelled_reaches_nobody(void **state)
{
    struct scene *s = *state;
    struct channel_msg m, other;
    struct keeper_request *r = ask(s, CHANNEL_WANT_REPLY, &m);
    int file = open("/dev/null", O_RDWR | O_CLOEXEC), probe;

    keeper_link_cancel(&r);
    assert_null(r);
    keeper_link_cancel(&r); /* fine */
    assert_non_null(ask(s, CHANNEL_ASK_WHO, &other));
    say(s, CHANNEL_REPLY, m.seq, file);
    say(s, CHANNEL_WHO, other.seq, -1);
    see(s, 1);
    assert_int_equal(s->answers, 1);
    assert_int_equal(s->last.type, CHANNEL_WHO);
    assert_int_equal(s->gone, 0);
    probe = dup(file); /* its descriptor was closed: the number is free again */
    assert_true(probe == file + 1);
    (void)close(probe);
    (void)close(file);
}

static void a_keeper_that_is_silent_is_an_answer_too(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    assert_non_null(ask(s, CHANNEL_ASK_WHO, &m));
    see(s, 1); /* after KEEPER_ANSWER_MS */
    assert_int_equal(s->nulls, 1);
    assert_int_equal(s->gone, 0);
    say(s, CHANNEL_WHO, m.seq, -1); /* too late */
    turn(s);
    assert_int_equal(s->answers, 1);
    assert_int_equal(s->gone, 0);
}

/* -- the end ------------------------------------------------------------------------- */

static void when_the_keeper_goes_every_question_is_answered_first(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;
    struct err e = {0};

    for (int i = 0; i < 5; i++)
        assert_non_null(ask(s, CHANNEL_ASK_WHO, &m));
    sock_close(&s->keeper);
    see(s, 6);
    assert_int_equal(s->nulls, 5);
    assert_int_equal(s->gone, 1);
    turn(s);
    assert_int_equal(s->gone, 1);
    assert_null(ask(s, CHANNEL_ASK_WHO, &m));
    channel_msg_init(&m, CHANNEL_READY, 0);
    assert_int_equal(keeper_link_send(s->k, &m, &e), -1);
}

static void a_keeper_gone_is_noticed_by_sending(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    assert_non_null(ask(s, CHANNEL_ASK_WHO, &m));
    sock_close(&s->keeper);
    assert_null(ask(s, CHANNEL_ASK_WHO, &m)); /* not told inside */
    assert_int_equal(s->answers, 0);
    see(s, 2);
    assert_int_equal(s->nulls, 1);
    assert_int_equal(s->gone, 1);
}

static void another_answer_than_was_asked_for_is_a_break(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;

    assert_non_null(ask(s, CHANNEL_WANT_REPLY, &m));
    say(s, CHANNEL_WHO, m.seq, -1);
    see(s, 2);
    assert_int_equal(s->nulls, 1);
    assert_int_equal(s->gone, 1);
}

static void a_record_of_the_guards_own_side_is_a_break(void **state)
{
    struct scene *s = *state;

    say(s, CHANNEL_IN_FORCE, 1, -1);
    see(s, 1);
    assert_int_equal(s->gone, 1);
    assert_int_equal(s->messages, 0);
}

static void an_answer_for_another_sandbox_is_a_break(void **state)
{
    struct scene *s = *state;
    struct channel_msg m, a;

    assert_non_null(ask(s, CHANNEL_ASK_WHO, &m));
    channel_msg_init(&a, CHANNEL_WHO, 8);
    a.seq = m.seq;
    assert_int_equal(channel_send(s->keeper, &a, NULL), 0);
    see(s, 2);
    assert_int_equal(s->gone, 1);
}

static void bytes_that_are_no_record_are_a_break(void **state)
{
    struct scene *s = *state;

    assert_int_equal(send(s->keeper, "hello", 5, 0), 5);
    see(s, 1);
    assert_int_equal(s->gone, 1);
}

/* -- bounds -------------------------------------------------------------------------- */

static void a_full_channel_is_a_queue_in_order_with_its_descriptors(void **state)
{
    struct scene *s = *state;
    struct channel_msg m, got;
    struct err e = {0};
    int text = channel_text_out("policy", 6, NULL);
    unsigned sent = 0, proposals = 0;

    for (; sent < 2000; sent++) {
        channel_msg_init(&m, sent % 10 == 9 ? CHANNEL_PROPOSAL : CHANNEL_IN_FORCE, 7);
        m.seq = sent;
        if (m.type == CHANNEL_PROPOSAL)
            m.fd[CHANNEL_FD_POLICY] = text;
        s->is_inside = true;
        assert_int_equal(keeper_link_send(s->k, &m, &e), 0);
        s->is_inside = false;
    }
    (void)close(text);
    for (unsigned i = 0; i < sent;) {
        int rc = channel_recv(s->keeper, &got, &e);

        if (rc == 0) {
            turn(s);
            continue;
        }
        assert_int_equal(rc, 1);
        assert_int_equal(got.seq, i++);
        if (got.type == CHANNEL_PROPOSAL) {
            AUTO(buf_done)
            struct buf b = BUF_INIT;

            assert_int_equal(channel_text_in(got.fd[CHANNEL_FD_POLICY], 6, &b, NULL), 0);
            proposals++;
        }
        channel_msg_done(&got);
    }
    assert_int_equal(proposals, sent / 10);
}

static void a_keeper_that_never_reads_is_refused_more(void **state)
{
    struct scene *s = *state;
    struct channel_msg m;
    struct err e = {0};
    unsigned n = 0;

    channel_msg_init(&m, CHANNEL_IN_FORCE, 7);
    while (keeper_link_send(s->k, &m, &e) == 0)
        n++;
    assert_int_equal(e.code, ERR_LIMIT);
    assert_in_range(n, KEEPER_QUEUE_MAX, KEEPER_QUEUE_MAX + 4096);
}

static void questions_are_bounded(void **state)
{
    struct scene *s = *state;
    struct channel_msg m, got;
    unsigned n = 0;

    while (ask(s, CHANNEL_ASK_WHO, &m) != NULL)
        n++;
    assert_int_equal(n, KEEPER_REQUESTS_MAX);
    got = next(s);
    say(s, CHANNEL_WHO, got.seq, -1);
    see(s, 1);
    assert_non_null(ask(s, CHANNEL_ASK_WHO, &m)); /* one place is free again */
    assert_null(ask(s, CHANNEL_ASK_WHO, &m));
    channel_msg_init(&m, CHANNEL_READY, 0);
    assert_null(keeper_link_ask(s->k, &m, on_answer, s, NULL)); /* has no answer */
}

static int one_life(void)
{
    struct loop *l;
    struct keeper_link *k;
    struct keeper_request *r = NULL;
    struct channel_msg m;
    int pair[2], rc = -1;

    if (channel_pair(pair, NULL) < 0)
        return -2;
    l = loop_new(NULL);
    k = l != NULL ? keeper_link_new(l, &pair[1], on_message, on_gone, NULL, NULL) : NULL;
    if (k != NULL) {
        channel_msg_init(&m, CHANNEL_WANT_REPLY, 1);
        m.to = (struct ip_addr){AF_INET, {192, 0, 2, 1}};
        r = keeper_link_ask(k, &m, on_answer, NULL, NULL);
        rc = r != NULL ? 0 : -1;
    }
    keeper_link_free(k);
    loop_free(l);
    sock_close(&pair[0]);
    sock_close(&pair[1]);
    return rc;
}

static void without_memory_nothing_is_left_behind(void **state)
{
    UNUSED_ARG(state);
    FAIL_EACH_ALLOC(one_life());
}

#define SCENE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(answers_find_their_questions_in_any_order),
        SCENE(what_is_no_answer_is_a_message),
        SCENE(an_answer_too_late_or_cancelled_reaches_nobody),
        SCENE(a_keeper_that_is_silent_is_an_answer_too),
        SCENE(when_the_keeper_goes_every_question_is_answered_first),
        SCENE(a_keeper_gone_is_noticed_by_sending),
        SCENE(another_answer_than_was_asked_for_is_a_break),
        SCENE(a_record_of_the_guards_own_side_is_a_break),
        SCENE(an_answer_for_another_sandbox_is_a_break),
        SCENE(bytes_that_are_no_record_are_a_break),
        SCENE(a_full_channel_is_a_queue_in_order_with_its_descriptors),
        SCENE(a_keeper_that_never_reads_is_refused_more),
        SCENE(questions_are_bounded),
        cmocka_unit_test(without_memory_nothing_is_left_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
