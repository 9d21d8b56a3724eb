/* SPDX-License-Identifier: MIT */
#include "common/mux.h"

#include "tests/support/test.h"

#include <stdlib.h>

#include "common/mux_engine.h"
#include "tests/support/mux_scene.h"

static void a_flood_of_refused_streams_is_an_error(void **state)
{
    struct scene *sc = *state;
    struct mux *m = sc->pair.mux[PAIR_SERVER];
    uint8_t open[12] = {1, 0, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0};
    enum mux_result r = MUX_OK;
    unsigned n = 0;

    sc->side[PAIR_SERVER].refuses = true;
    for (uint32_t id = 1; r == MUX_OK && n < 100000; id += 2, n++) {
        open[6] = (uint8_t)(id >> 8);
        open[7] = (uint8_t)id;
        r = mux_recv(m, span_of(open, sizeof(open)), 1);
    }
    assert_int_equal(r, MUX_E_PROTOCOL);
    assert_string_equal(mux_fault(m), mux_fault_text(MUX_FAULT_FLOOD));
    assert_in_range(n, MUX_REFUSED_MAX, MUX_REFUSED_MAX + 2 * SCENE_STREAMS + 2);
}

static void refused_streams_whose_resets_are_read_are_no_flood(void **state)
{
    struct scene *sc = *state;

    sc->side[PAIR_AGENT].refuses = true;
    for (int i = 0; i < 3 * MUX_REFUSED_MAX; i++) {
        sc->n_users[PAIR_SERVER] = 0;
        (void)scene_open(sc, PAIR_SERVER);
        scene_settle(sc);
    }
}

/* What the server writes for a session with all kinds of frames, recorded. */
static size_t record(struct scene *sc, uint8_t *out, size_t cap)
{
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *v = scene_open(sc, PAIR_SERVER);
    struct scene_user *w = scene_open(sc, PAIR_SERVER);
    size_t n;

    mux_ping(sc->pair.mux[PAIR_SERVER], 1);
    scene_say(u, "some bytes that are cut");
    mux_stream_finish(u->s);
    scene_say(v, "to be reset");
    scene_say(w, "stays");
    n = mux_send(sc->pair.mux[PAIR_SERVER], out, cap, 1);
    mux_stream_reset(v->s, MUX_REASON_IO);
    mux_goaway(sc->pair.mux[PAIR_SERVER], MUX_REASON_DRAIN);
    return n + mux_send(sc->pair.mux[PAIR_SERVER], out + n, cap - n, 1);
}

static void every_cut_gives_the_same_events(void **state)
{
    struct scene *sc = *state;
    uint8_t bytes[MUX_SEND_MIN * 2];
    size_t len = record(sc, bytes, sizeof(bytes));

    /* cut == len: one-byte pieces. */
    for (size_t cut = 0; cut <= len; cut++) {
        struct scene *to = calloc(1, sizeof(*to));
        struct mux *m;
        uint8_t *first, *second;

        assert_non_null(to);
        scene_init(to, SCENE_WINDOW, SCENE_WINDOW);
        m = to->pair.mux[PAIR_AGENT];
        if (cut == len) {
            for (size_t i = 0; i < len; i++)
                assert_int_equal(mux_recv(m, span_of(bytes + i, 1), 1), MUX_OK);
        } else {
            first = malloc(cut + 1);
            second = malloc(len - cut);
            assert_true(first != NULL && second != NULL);
            memcpy(first, bytes, cut);
            memcpy(second, bytes + cut, len - cut);
            assert_int_equal(mux_recv(m, span_of(first, cut), 1), MUX_OK);
            assert_int_equal(mux_recv(m, span_of(second, len - cut), 1), MUX_OK);
            free(first);
            free(second);
        }
        assert_string_equal(to->user[PAIR_AGENT][0].log, "eof");
        assert_memory_equal(to->user[PAIR_AGENT][0].bytes, "some bytes that are cut", 23);
        assert_int_equal(to->user[PAIR_AGENT][0].n_bytes, 23);
        assert_string_equal(to->user[PAIR_AGENT][1].log, "closed:io");
        assert_memory_equal(to->user[PAIR_AGENT][1].bytes, "to be reset", 11);
        assert_int_equal(to->user[PAIR_AGENT][2].n_bytes, 5);
        assert_int_equal(to->side[PAIR_AGENT].goaways, 1);
        assert_true(m->owes_pong);
        pair_done(&to->pair);
        free(to);
    }
}

static void payload_is_given_on_before_its_frame_is_whole(void **state)
{
    static const uint8_t half[] = {1, 0, 0, 4, 0, 0, 0, 2, 0,   1,   0,  0, /* OPEN */
                                   3, 0, 0, 6, 0, 0, 0, 2, 'a', 'b', 'c'};
    struct scene *sc = *state;

    assert_int_equal(mux_recv(sc->pair.mux[PAIR_AGENT], span_of(half, sizeof(half)), 1),
                     MUX_OK);
    assert_int_equal(sc->user[PAIR_AGENT][0].n_bytes, 3);
}

static void no_memory_for_kept_bytes_ends_that_stream_alone(void **state)
{
    struct scene *sc = *state;
    struct scene_user *u = scene_open(sc, PAIR_SERVER), *v = scene_open(sc, PAIR_SERVER);
    struct scene_user *a, *b;

    scene_settle(sc);
    a = &sc->user[PAIR_AGENT][0];
    b = &sc->user[PAIR_AGENT][1];
    a->take = 0;
    scene_say(u, "kept");
    scene_say(v, "taken");
    assert_true(pair_send(&sc->pair, PAIR_SERVER, MUX_BATCH) > 0);
    mem_fault_at(1);
    assert_int_equal(pair_deliver(&sc->pair, PAIR_SERVER, SIZE_MAX), MUX_OK);
    mem_fault_at(0);
    scene_settle(sc);
    assert_string_equal(a->log, "closed:limit");
    assert_string_equal(u->log, "accepted closed:limit");
    assert_string_equal(b->log, "");
    assert_int_equal(b->n_bytes, 5);
}

/* A whole life of two streams; -1 when memory failed in a way that its user saw. */
static int life(void)
{
    static struct scene sc;
    static const struct mux_conf confs[2] = {
        {MUX_AGENT, SCENE_WINDOW, 4 * SCENE_WINDOW, SCENE_STREAMS, NULL},
        {MUX_SERVER, SCENE_WINDOW, 4 * SCENE_WINDOW, SCENE_STREAMS, NULL},
    };
    const struct mux_ops *ops[2] = {&scene_mux_ops, &scene_mux_ops};
    void *owner[2] = {&sc.side[0], &sc.side[1]};
    struct mux_open open = {.port = 1};
    struct scene_user *u, *v;
    enum mux_result why = MUX_OK;
    bool ok;
    size_t n;

    memset(&sc, 0, sizeof(sc));
    sc.side[0].scene = sc.side[1].scene = &sc;
    sc.side[0].accepts = true;
    pair_init(&sc.pair, confs, ops, owner);
    ok = sc.pair.mux[0] != NULL && sc.pair.mux[1] != NULL;
    if (!ok)
        goto out;
    for (int i = 0; i < 2; i++) {
        u = scene_add_user(&sc, PAIR_SERVER);
        u->s = mux_open(sc.pair.mux[PAIR_SERVER], &open, &scene_stream_ops, u, &why);
        ok = ok && u->s != NULL;
        if (u->s == NULL) {
            assert_int_equal(why, MUX_E_NOMEM);
            continue;
        }
        if (mux_stream_write(u->s, span_str("hello"), &n) != MUX_OK) {
            assert_int_equal(n, 0);
            ok = false;
        }
        mux_stream_finish(u->s);
    }
    ok = pair_settle(&sc.pair) == MUX_OK && ok;
    v = &sc.user[PAIR_AGENT][0];
    ok = ok && v->s != NULL && mux_stream_write(v->s, span_str("x"), &n) == MUX_OK;
    ok = pair_settle(&sc.pair) == MUX_OK && ok;
out:
    pair_done(&sc.pair);
    return ok ? 0 : -1;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(life());
}

#define T(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_flood_of_refused_streams_is_an_error),
        T(refused_streams_whose_resets_are_read_are_no_flood),
        T(every_cut_gives_the_same_events),
        T(payload_is_given_on_before_its_frame_is_whole),
        T(no_memory_for_kept_bytes_ends_that_stream_alone),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/mux_recv", tests, NULL, NULL);
}
