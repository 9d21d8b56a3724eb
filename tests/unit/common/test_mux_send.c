/* SPDX-License-Identifier: MIT */
#include "common/mux.h"

#include "tests/support/test.h"

#include "common/mux_engine.h"
#include "tests/support/mux_scene.h"

static void a_stalled_reader_holds_its_window_and_nothing_else(void **state)
{
    struct scene *sc = *state;
    struct scene_user *stalled = scene_open(sc, PAIR_SERVER), *other;
    const struct mux *server = sc->pair.mux[PAIR_SERVER],
                     *agent = sc->pair.mux[PAIR_AGENT];
    size_t put_in = 0, n;

    scene_settle(sc);
    sc->user[PAIR_AGENT][0].take = 0;
    do {
        put_in += n = scene_put(stalled, 100000);
        scene_settle(sc);
    } while (n > 0);
    assert_int_equal(mux_memory(agent), SCENE_WINDOW);
    assert_int_equal(mux_memory(server), MUX_WINDOW);
    assert_int_equal(put_in, SCENE_WINDOW + MUX_WINDOW);

    other = scene_open(sc, PAIR_SERVER);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(scene_put(other, SCENE_WINDOW), SCENE_WINDOW);
        scene_settle(sc);
    }
    assert_int_equal(sc->user[PAIR_AGENT][1].n_bytes, 10 * SCENE_WINDOW);

    /* And goes on as soon as it is read. */
    sc->user[PAIR_AGENT][0].take = SIZE_MAX;
    while ((n = mux_stream_peek(sc->user[PAIR_AGENT][0].s).len) > 0)
        (void)mux_stream_consume(sc->user[PAIR_AGENT][0].s, n);
    scene_settle(sc);
    assert_int_equal(mux_memory(agent), 0);
    assert_int_equal(sc->user[PAIR_AGENT][0].n_bytes, MUX_WINDOW);
    assert_non_null(strstr(stalled->log, "writable"));
}

static void credit_goes_out_at_half_a_window_and_not_before(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);
    uint64_t before;

    scene_settle(sc);
    before = sc->pair.wire[PAIR_AGENT].total;
    for (int i = 0; i < SCENE_WINDOW / 2 - 1; i++) {
        assert_int_equal(scene_put(u, 1), 1);
        scene_settle(sc);
    }
    assert_int_equal(sc->pair.wire[PAIR_AGENT].total, before);
    assert_int_equal(scene_put(u, 1), 1);
    scene_settle(sc);
    /* CREDIT, and the PING that measures for it. */
    assert_int_equal(sc->pair.wire[PAIR_AGENT].total, before + 16 + 16);
}

static void a_window_of_one_byte_works(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u;

    pair_done(&sc->pair);
    scene_init(sc, 1, 1);
    u = scene_open(sc, PAIR_SERVER);
    scene_say(u, "byte by byte");
    mux_stream_finish(u->s);
    scene_settle(sc);
    assert_int_equal(sc->user[PAIR_AGENT][0].n_bytes, 12);
    assert_string_equal(sc->user[PAIR_AGENT][0].log, "eof");
}

/* Sends `bytes` to the agent with `rtt_us` there and back; the consumer takes all at once,
 * or a window only every `pause_us`. */
static uint32_t window_after(struct scene *sc, struct scene_user *u, size_t bytes,
                             uint64_t rtt_us, uint64_t pause_us)
{
    struct mux_stream *s = NULL;

    while (bytes > 0) {
        size_t n;

        do { /* all there is credit for */
            bytes -= n = scene_put(u, bytes < MUX_TX_MAX ? bytes : MUX_TX_MAX);
            while (pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH) > 0)
                ;
        } while (n > 0);
        sc->pair.now_us += rtt_us / 2;
        assert_int_equal(pair_deliver(&sc->pair, PAIR_SERVER, SIZE_MAX), MUX_OK);
        sc->pair.now_us += pause_us;
        sc->user[PAIR_AGENT][0].n_bytes = 0;
        while (pair_send(&sc->pair, PAIR_AGENT, MUX_BATCH) > 0)
            ;
        sc->pair.now_us += rtt_us / 2;
        assert_int_equal(pair_deliver(&sc->pair, PAIR_AGENT, SIZE_MAX), MUX_OK);
        s = sc->user[PAIR_AGENT][0].s;
    }
    return s->window;
}

static size_t take_and_forget(void *user, struct span bytes)
{
    struct scene_user *u = user;

    u->n_bytes += bytes.len;
    return bytes.len;
}

static const struct mux_stream_ops forget_ops = {.data = take_and_forget};

static struct scene_user *bulk_stream(struct scene *sc)
{
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *a;

    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][sc->n_users[PAIR_AGENT] - 1];
    mux_stream_use(a->s, &forget_ops, a);
    return u;
}

static void a_window_grows_while_its_consumer_keeps_up(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = bulk_stream(sc);

    assert_int_equal(window_after(sc, u, 64 << 20, 20000, 0), MUX_WINDOW_MAX);
    assert_int_equal(sc->budget.used_bytes, MUX_WINDOW_MAX - MUX_WINDOW);
    assert_in_range(mux_rtt_us(sc->pair.mux[PAIR_AGENT]), 15000, 25000);
    mux_stream_reset(u->s, MUX_REASON_CANCEL);
    scene_settle(sc);
    assert_int_equal(sc->budget.used_bytes, 0);
}

static void a_window_does_not_grow_for_a_slow_consumer(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = bulk_stream(sc);

    mux_ping(sc->pair.mux[PAIR_AGENT], sc->pair.now_us);
    scene_settle(sc);
    assert_int_equal(window_after(sc, u, 8 << 20, 2000, 20000), MUX_WINDOW);
    assert_int_equal(sc->budget.used_bytes, 0);
}

static void windows_grow_only_from_the_budget(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = bulk_stream(sc);

    sc->budget.max_bytes = 1 << 20;
    assert_int_equal(window_after(sc, u, 64 << 20, 20000, 0), 8 * MUX_WINDOW);
    assert_true(sc->budget.used_bytes <= sc->budget.max_bytes);
    /* What grew does not keep new streams out. */
    (void)scene_open(sc, PAIR_SERVER);
    scene_settle(sc);
    assert_int_equal(mux_streams(sc->pair.mux[PAIR_AGENT]), 2);
}

static void a_used_up_budget_lets_no_stream_in(void **state)
{
    struct scene *sc = *state;
    enum mux_result why;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);

    sc->budget.max_bytes = sc->budget.used_bytes = 1000;
    scene_settle(sc);
    assert_string_equal(u->log, "closed:limit");
    assert_null(scene_try_open(sc, PAIR_SERVER, &why)->s);
    assert_int_equal(why, MUX_E_LIMIT);
    sc->budget.used_bytes = 0;
}

static void what_is_short_overtakes_what_is_bulk(void **state)
{
    struct scene *sc = *state;
    struct scene_user *bulk = scene_open(sc, PAIR_SERVER),
                      *key = scene_open(sc, PAIR_SERVER);

    scene_settle(sc);
    assert_true(scene_put(bulk, 60000) == 60000);
    scene_say(key, "k");
    assert_true(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH) > 0);
    /* Nine bytes are enough to have it. */
    assert_int_equal(pair_deliver(&sc->pair, PAIR_SERVER, 9), MUX_OK);
    assert_int_equal(sc->user[PAIR_AGENT][1].n_bytes, 1);
    assert_int_equal(sc->user[PAIR_AGENT][0].n_bytes, 0);
}

static void bulk_streams_take_turns(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u[3];

    for (int i = 0; i < 3; i++)
        u[i] = bulk_stream(sc);
    for (int i = 0; i < 3; i++)
        assert_int_equal(scene_put(u[i], MUX_WINDOW), MUX_WINDOW);
    for (int i = 1; i <= 4; i++) {
        assert_true(pair_send(&sc->pair, PAIR_SERVER, 3 * (MUX_FRAME_MAX + 8)) > 0);
        for (int k = 0; k < 3; k++) { /* frames end with TLS records: a few bytes less */
            size_t sent = MUX_WINDOW - mux_stream_unsent(u[k]->s);

            assert_in_range(sent, i * (MUX_FRAME_MAX - 12), i * MUX_FRAME_MAX);
        }
    }
}

static void many_small_ones_do_not_starve_bulk(void **state)
{
    struct scene *sc = *state;
    struct scene_user *bulk = bulk_stream(sc), *small[4];
    size_t least = MUX_WINDOW;

    for (int i = 0; i < 4; i++)
        small[i] = bulk_stream(sc);
    assert_int_equal(scene_put(bulk, MUX_WINDOW), MUX_WINDOW);
    /* More small bytes than the link takes: each send leaves some. */
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 4; i++)
            if (mux_stream_unsent(small[i]->s) == 0)
                (void)scene_put(small[i], 10000);
        assert_true(pair_send(&sc->pair, PAIR_SERVER, 30000) > 0);
        assert_int_equal(pair_deliver(&sc->pair, PAIR_SERVER, SIZE_MAX), MUX_OK);
        while (pair_send(&sc->pair, PAIR_AGENT, MUX_BATCH) > 0)
            ;
        assert_int_equal(pair_deliver(&sc->pair, PAIR_AGENT, SIZE_MAX), MUX_OK);
        least = mux_stream_unsent(bulk->s);
    }
    assert_true(least <= MUX_WINDOW - 3 * (MUX_FRAME_MAX / 2));
}

static void writable_comes_with_the_frame_that_makes_room(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = bulk_stream(sc);

    assert_int_equal(scene_put(u, MUX_TX_MAX), MUX_WINDOW);
    assert_null(strstr(u->log, "writable"));
    assert_true(pair_send(&sc->pair, PAIR_SERVER, MUX_SEND_MIN) > 0);
    assert_non_null(strstr(u->log, "writable"));
}

static void writable_comes_with_the_credit_that_makes_room(void **state)
{
    static const uint8_t credit[] = {4, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 16, 0, 0};
    struct scene *sc = *state;
    struct scene_user *u = bulk_stream(sc);

    assert_int_equal(scene_put(u, MUX_TX_MAX), MUX_WINDOW);
    assert_int_equal(
        mux_recv(sc->pair.mux[PAIR_SERVER], span_of(credit, sizeof(credit)), 1), MUX_OK);
    assert_non_null(strstr(u->log, "writable"));
    assert_int_equal(mux_stream_room(u->s), MUX_TX_MAX - MUX_WINDOW);
}

static void open_another(struct scene_user *u)
{
    scene_say(scene_open(u->scene, PAIR_SERVER), "next");
}

static void what_an_event_causes_goes_out_in_the_same_call(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = bulk_stream(sc), *a = &sc->user[PAIR_AGENT][0];

    u->take = 0;
    mux_stream_finish(u->s);
    scene_say(a, "x");
    mux_stream_finish(a->s);
    scene_settle(sc);
    assert_int_equal(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH), 0);
    u->on = "closed";
    u->meddle = open_another;
    assert_true(mux_stream_consume(u->s, 1));
    /* Only closed() is due; its OPEN and DATA would wait for ever otherwise. */
    assert_int_equal(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH), 12 + 8 + 4);
}

static void wants_send_is_told_once_until_all_is_sent(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);
    unsigned *wants = &sc->side[PAIR_SERVER].wants;

    assert_int_equal(*wants, 1);
    scene_say(u, "a");
    scene_say(u, "b");
    assert_int_equal(*wants, 1);
    assert_true(mux_wants_send(sc->pair.mux[PAIR_SERVER]));
    scene_settle(sc);
    assert_false(mux_wants_send(sc->pair.mux[PAIR_SERVER]));
    *wants = 0;
    scene_say(u, "c");
    assert_int_equal(*wants, 1);
    mux_nudge(sc->pair.mux[PAIR_SERVER]);
    assert_int_equal(*wants, 2);
    scene_settle(sc);
    mux_nudge(sc->pair.mux[PAIR_SERVER]);
    assert_int_equal(*wants, 2);
}

static void reserve_and_commit_queue_in_place(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER);
    size_t cap = 0, live;
    uint8_t *p;

    scene_settle(sc);
    live = mem_live();
    p = mux_stream_reserve(u->s, 100, &cap);
    assert_non_null(p);
    assert_true(cap >= 1);
    mux_stream_commit(u->s, 0);
    assert_int_equal(mem_live(), live); /* an idle stream keeps nothing */
    p = mux_stream_reserve(u->s, 100, &cap);
    memcpy(p, "hello", 5);
    mux_stream_commit(u->s, 5);
    scene_settle(sc);
    assert_memory_equal(sc->user[PAIR_AGENT][0].bytes, "hello", 5);
    while (scene_put(u, 10000) > 0)
        ;
    assert_null(mux_stream_reserve(u->s, 1, &cap));
    scene_settle(sc);
    assert_non_null(strstr(u->log, "writable"));
}

static void ping_measures_the_round_trip(void **state)
{
    struct scene *sc = *state;
    struct mux *m = sc->pair.mux[PAIR_SERVER];

    assert_int_equal(mux_rtt_us(m), 0);
    assert_int_equal(mux_last_recv_us(m), 0);
    for (int i = 0; i < 2; i++) {
        mux_ping(m, sc->pair.now_us);
        mux_ping(m, sc->pair.now_us);
        assert_int_equal(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH), 16);
        mux_ping(m, sc->pair.now_us);
        assert_int_equal(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH), 0);
        sc->pair.now_us += i == 0 ? 8000 : 16000;
        scene_settle(sc);
        assert_int_equal(mux_rtt_us(m), i == 0 ? 8000 : 9000);
        assert_int_equal(mux_last_recv_us(m), sc->pair.now_us);
    }
}

static void an_idle_mux_is_small(void **state)
{
    struct scene *sc = *state;
    size_t live = mem_live();

    assert_true(sizeof(struct mux) < 640);
    assert_true(sizeof(struct mux_stream) < 448);
    /* What many streams needed goes with them. */
    for (int i = 0; i < SCENE_STREAMS; i++) {
        (void)scene_open(sc, PAIR_AGENT);
        (void)scene_open(sc, PAIR_SERVER);
    }
    scene_settle(sc);
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < sc->n_users[side]; i++)
            if (sc->user[side][i].s != NULL)
                scene_reset_user(&sc->user[side][i]);
    scene_settle(sc);
    assert_int_equal(mem_live(), live);
}

#define T(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, scene_setup_bulk, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_stalled_reader_holds_its_window_and_nothing_else),
        T(credit_goes_out_at_half_a_window_and_not_before),
        T(a_window_of_one_byte_works),
        B(a_window_grows_while_its_consumer_keeps_up),
        B(a_window_does_not_grow_for_a_slow_consumer),
        B(windows_grow_only_from_the_budget),
        T(a_used_up_budget_lets_no_stream_in),
        B(what_is_short_overtakes_what_is_bulk),
        B(bulk_streams_take_turns),
        B(many_small_ones_do_not_starve_bulk),
        B(writable_comes_with_the_frame_that_makes_room),
        B(writable_comes_with_the_credit_that_makes_room),
        B(what_an_event_causes_goes_out_in_the_same_call),
        T(wants_send_is_told_once_until_all_is_sent),
        T(reserve_and_commit_queue_in_place),
        T(ping_measures_the_round_trip),
        T(an_idle_mux_is_small),
    };

    return cmocka_run_group_tests_name("common/mux_send", tests, NULL, NULL);
}
