/* SPDX-License-Identifier: MIT */
#include "common/mux.h"

#include "tests/support/test.h"

#include "common/mux_engine.h"
#include "tests/support/mux_scene.h"

static void open_carries_port_kind_and_client(void **state)
{
    struct scene *sc = *state;
    struct mux_open open = {.port = 8080, .kind = MUX_KIND_TCP}, *got;
    struct scene_user *u = scene_add_user(sc, PAIR_SERVER);
    enum mux_result why;

    open.client.len = sizeof(open.client.u.in6);
    open.client.u.in6.sin6_family = AF_INET6;
    open.client.u.in6.sin6_port = htons(4711);
    open.client.u.in6.sin6_addr = in6addr_loopback;
    u->s = mux_open(sc->pair.mux[PAIR_SERVER], &open, &scene_stream_ops, u, &why);
    assert_int_equal(mux_stream_id(u->s), 2);
    scene_settle(sc);
    got = &sc->side[PAIR_AGENT].last_open;
    assert_int_equal(got->port, 8080);
    assert_int_equal(got->kind, MUX_KIND_TCP);
    assert_int_equal(got->client.len, open.client.len);
    assert_memory_equal(&got->client.u.in6, &open.client.u.in6,
                        sizeof(open.client.u.in6));
    assert_true(mux_stream_is_accepted(u->s));
    assert_string_equal(u->log, "accepted");
}

static void data_may_follow_open_without_waiting(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);

    scene_say(u, "GET / HTTP/1.1\r\n");
    assert_true(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH) > 0);
    assert_int_equal(pair_deliver(&sc->pair, PAIR_SERVER, SIZE_MAX), MUX_OK);
    assert_int_equal(sc->user[PAIR_AGENT][0].n_bytes, 16);
}

static void data_of_the_asked_side_waits_for_its_accept(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u, *a;

    sc->side[PAIR_AGENT].accepts = false;
    u = scene_open(sc, PAIR_SERVER);
    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    scene_say(a, "early");
    mux_stream_finish(a->s);
    scene_settle(sc);
    assert_int_equal(u->n_bytes, 0);
    mux_stream_accept(a->s);
    mux_stream_accept(a->s);
    scene_settle(sc);
    assert_int_equal(u->n_bytes, 5);
    assert_string_equal(u->log, "accepted eof");
}

static void each_direction_ends_for_itself(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;
    size_t n;

    scene_say(u, "ask");
    mux_stream_finish(u->s);
    assert_int_equal(mux_stream_write(u->s, span_str("x"), &n), MUX_E_CLOSED);
    assert_int_equal(mux_stream_room(u->s), 0);
    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    assert_string_equal(a->log, "eof");
    scene_say(a, "answer");
    scene_settle(sc);
    assert_int_equal(u->n_bytes, 6);
    assert_string_equal(u->log, "accepted");
    mux_stream_finish(a->s);
    scene_settle(sc);
    assert_string_equal(a->log, "eof closed:none");
    assert_string_equal(u->log, "accepted eof closed:none");
    assert_int_equal(mux_streams(sc->pair.mux[0]) + mux_streams(sc->pair.mux[1]), 0);
}

static void the_end_waits_until_kept_bytes_are_taken(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;

    u->take = 2;
    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    scene_say(a, "12345");
    mux_stream_finish(a->s);
    mux_stream_finish(u->s);
    scene_settle(sc);
    assert_string_equal(a->log, "eof closed:none");
    assert_string_equal(u->log, "accepted"); /* no eof: three bytes are kept */
    assert_int_equal(mux_stream_peek(u->s).len, 3);
    assert_false(mux_stream_consume(u->s, 2));
    assert_true(mux_stream_consume(u->s, 1));
    assert_true(mux_wants_send(sc->pair.mux[PAIR_SERVER]));
    assert_string_equal(u->log, "accepted"); /* not inside the call */
    scene_settle(sc);
    assert_string_equal(u->log, "accepted closed:none");
}

static void a_reset_tells_the_other_side_why(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;

    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    a->take = 0;
    scene_say(u, "never read");
    scene_settle(sc);
    mux_stream_reset(u->s, MUX_REASON_TIMEOUT);
    assert_string_equal(u->log, "accepted");
    scene_settle(sc);
    assert_string_equal(a->log, "closed:timeout");
    assert_int_equal(mux_memory(sc->pair.mux[PAIR_AGENT]), 0);
}

static void reasons_that_are_not_for_the_wire_become_cancel(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);

    scene_settle(sc);
    mux_stream_reset(u->s, MUX_REASON_LINK);
    scene_settle(sc);
    assert_string_equal(sc->user[PAIR_AGENT][0].log, "closed:cancel");
}

static void frames_that_crossed_a_reset_are_ignored(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;

    sc->side[PAIR_AGENT].accepts = false;
    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    /* Both sides write before they hear of each other. */
    scene_say(u, "down");
    assert_int_equal(scene_put(u, SCENE_WINDOW - 4), SCENE_WINDOW - 4);
    assert_true(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH) > 0);
    assert_int_equal(pair_deliver(&sc->pair, PAIR_SERVER, SIZE_MAX), MUX_OK);
    mux_stream_accept(a->s);
    scene_say(a, "up");
    assert_true(pair_send(&sc->pair, PAIR_AGENT, MUX_BATCH) > 8 + 16); /* with CREDIT */
    mux_stream_reset(u->s, MUX_REASON_CANCEL);
    mux_stream_reset(a->s, MUX_REASON_IO);
    scene_settle(sc);
    assert_string_equal(u->log, "");
    assert_string_equal(a->log, "");
    u = scene_open(sc, PAIR_SERVER);
    scene_settle(sc);
    assert_int_equal(mux_streams(sc->pair.mux[PAIR_AGENT]), 1);
}

static void reset_after_both_finished_does_not_cut_what_the_other_reads(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;

    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    a->take = 0;
    u->take = 0;
    scene_say(u, "slow reading");
    scene_say(a, "x");
    mux_stream_finish(u->s);
    mux_stream_finish(a->s);
    scene_settle(sc);
    mux_stream_reset(u->s, MUX_REASON_CANCEL);
    scene_settle(sc);
    assert_int_equal(mux_stream_peek(a->s).len, 12);
    assert_true(mux_stream_consume(a->s, 12));
    scene_settle(sc);
    assert_string_equal(a->log, "closed:none");
}

static void a_stream_nobody_uses_is_refused(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);

    sc->side[PAIR_AGENT].ignores = true;
    scene_settle(sc);
    assert_string_equal(u->log, "closed:refused");
    sc->side[PAIR_AGENT].ignores = false;
    sc->side[PAIR_AGENT].refuses = true;
    u = scene_open(sc, PAIR_SERVER);
    scene_say(u, "dropped");
    scene_settle(sc);
    assert_string_equal(u->log, "closed:not-published");
}

static void opens_end_at_the_other_sides_limit(void **state)
{
    struct scene *sc = *state;
    enum mux_result why;
    struct scene_user *u;

    for (int i = 0; i < SCENE_STREAMS; i++)
        u = scene_open(sc, PAIR_SERVER);
    assert_null(scene_try_open(sc, PAIR_SERVER, &why)->s);
    assert_int_equal(why, MUX_E_LIMIT);
    scene_settle(sc);
    assert_int_equal(mux_streams(sc->pair.mux[PAIR_AGENT]), SCENE_STREAMS);
    mux_stream_reset(u->s, MUX_REASON_CANCEL);
    (void)scene_open(sc, PAIR_SERVER);
    scene_settle(sc);
    assert_int_equal(mux_streams(sc->pair.mux[PAIR_AGENT]), SCENE_STREAMS);
}

static void an_open_above_our_limit_is_reset_and_no_error(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u;

    mux_set_peer(sc->pair.mux[PAIR_SERVER], SCENE_WINDOW, SCENE_STREAMS + 1);
    for (int i = 0; i < SCENE_STREAMS; i++)
        (void)scene_open(sc, PAIR_SERVER);
    u = scene_open(sc, PAIR_SERVER);
    scene_settle(sc);
    assert_string_equal(u->log, "closed:limit");
    assert_string_equal(sc->user[PAIR_SERVER][0].log, "accepted");
}

static void nothing_opens_before_the_hello_or_after_goaway(void **state)
{
    struct scene *sc = *state;
    struct mux_conf conf = {.role = MUX_AGENT, .window = 1, .max_streams = 1};
    struct mux *m = mux_new(&conf, &scene_mux_ops, &sc->side[0]);
    struct mux_open open = {.port = 1};
    enum mux_result why = MUX_OK;
    struct scene_user *old = scene_open(sc, PAIR_SERVER);

    assert_null(mux_open(m, &open, &scene_stream_ops, NULL, &why));
    assert_int_equal(why, MUX_E_CLOSED);
    mux_free(m);

    scene_settle(sc);
    mux_goaway(sc->pair.mux[PAIR_AGENT], MUX_REASON_DRAIN);
    scene_settle(sc);
    assert_int_equal(sc->side[PAIR_SERVER].goaways, 1);
    assert_int_equal(sc->side[PAIR_SERVER].goaway, MUX_REASON_DRAIN);
    assert_null(scene_try_open(sc, PAIR_SERVER, &why)->s);
    assert_int_equal(why, MUX_E_CLOSED);
    scene_say(old, "goes on");
    scene_settle(sc);
    assert_int_equal(sc->user[PAIR_AGENT][0].n_bytes, 7);
    /* The other direction is not closed. */
    (void)scene_open(sc, PAIR_AGENT);
    scene_settle(sc);
    assert_int_equal(mux_streams(sc->pair.mux[PAIR_SERVER]), 2);
}

static void an_open_that_crossed_goaway_is_reset_with_its_reason(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);

    mux_goaway(sc->pair.mux[PAIR_AGENT], MUX_REASON_TOKEN);
    scene_settle(sc);
    assert_string_equal(u->log, "closed:token");
}

static void freeing_tells_every_stream(void **state)
{
    struct scene *sc = *state;
    struct scene_user *a = scene_open(sc, PAIR_AGENT), *b;

    scene_settle(sc);
    b = scene_open(sc, PAIR_AGENT);
    scene_say(b, "unsent");
    mux_free(sc->pair.mux[PAIR_AGENT]);
    sc->pair.mux[PAIR_AGENT] = NULL;
    assert_string_equal(a->log, "accepted closed:link");
    assert_string_equal(b->log, "closed:link");
    mux_free(NULL);
}

static void reset_others(struct scene_user *u)
{
    struct scene *sc = u->scene;

    for (int i = 0; i < sc->n_users[PAIR_AGENT]; i++) {
        struct scene_user *v = &sc->user[PAIR_AGENT][i];

        if (v != u && v->s != NULL)
            mux_stream_reset(v->s, MUX_REASON_CANCEL);
        v->s = NULL;
    }
}

static void closed_may_reset_other_streams_while_freeing(void **state)
{
    struct scene *sc = *state;

    for (int i = 0; i < 6; i++) {
        struct scene_user *u = scene_open(sc, PAIR_AGENT);

        u->on = "closed";
        u->meddle = reset_others;
    }
    mux_free(sc->pair.mux[PAIR_AGENT]);
    sc->pair.mux[PAIR_AGENT] = NULL;
}

static void a_stream_may_be_reset_inside_each_of_its_callbacks(void **state)
{
    static const char *const callbacks[] = {"accepted", "data", "eof", "writable"};
    struct scene *sc = *state;

    for (size_t i = 0; i < COUNT_OF(callbacks); i++) {
        struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;

        u->on = callbacks[i];
        u->meddle = scene_reset_user;
        (void)scene_put(u, MUX_WINDOW); /* fills the room: writable comes */
        scene_settle(sc);
        a = &sc->user[PAIR_AGENT][i];
        if (a->s != NULL) {
            scene_say(a, "x");
            mux_stream_finish(a->s);
        }
        scene_settle(sc);
        assert_null(u->on); /* it came */
        assert_null(u->s);
        assert_string_equal(a->log + strlen(a->log) - 13, "closed:cancel");
    }
    assert_int_equal(mux_streams(sc->pair.mux[0]) + mux_streams(sc->pair.mux[1]), 0);
    assert_int_equal(mux_memory(sc->pair.mux[0]) + mux_memory(sc->pair.mux[1]), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(open_carries_port_kind_and_client),
        T(data_may_follow_open_without_waiting),
        T(data_of_the_asked_side_waits_for_its_accept),
        T(each_direction_ends_for_itself),
        T(the_end_waits_until_kept_bytes_are_taken),
        T(a_reset_tells_the_other_side_why),
        T(reasons_that_are_not_for_the_wire_become_cancel),
        T(frames_that_crossed_a_reset_are_ignored),
        T(reset_after_both_finished_does_not_cut_what_the_other_reads),
        T(a_stream_nobody_uses_is_refused),
        T(opens_end_at_the_other_sides_limit),
        T(an_open_above_our_limit_is_reset_and_no_error),
        T(nothing_opens_before_the_hello_or_after_goaway),
        T(an_open_that_crossed_goaway_is_reset_with_its_reason),
        T(freeing_tells_every_stream),
        T(closed_may_reset_other_streams_while_freeing),
        T(a_stream_may_be_reset_inside_each_of_its_callbacks),
    };

    return cmocka_run_group_tests_name("common/mux", tests, NULL, NULL);
}
