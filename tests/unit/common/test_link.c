/* SPDX-License-Identifier: MIT */
#include "common/link.h"

#include "tests/support/test.h"

#include "tests/support/mux_scene.h"

/* A link that takes `places` messages, then says it has enough; what is committed goes to
 * the other mux at once. */
struct short_link {
    struct link link;
    struct mux *to;
    uint8_t place[MUX_BATCH];
    unsigned places, begun, committed;
    size_t bytes;
};

static uint8_t *begin(struct link *l, size_t *ret_cap)
{
    struct short_link *sl = CONTAINER_OF(l, struct short_link, link);

    sl->begun++;
    if (sl->committed >= sl->places)
        return NULL;
    *ret_cap = sizeof(sl->place);
    return sl->place;
}

static void commit(struct link *l, size_t n)
{
    struct short_link *sl = CONTAINER_OF(l, struct short_link, link);

    assert_in_range(n, 1, sizeof(sl->place));
    sl->committed++;
    sl->bytes += n;
    if (sl->to != NULL)
        assert_int_equal(mux_recv(sl->to, span_of(sl->place, n), 1), MUX_OK);
}

static const struct link_ops link_ops = {.begin = begin, .commit = commit};

static struct short_link make(struct scene *sc, unsigned places)
{
    return (struct short_link){
        .link = {.ops = &link_ops},
        .to = sc->pair.mux[PAIR_AGENT],
        .places = places,
    };
}

static void nothing_to_send_asks_for_no_place(void **state)
{
    struct scene *sc = *state;
    struct short_link sl = make(sc, 1);

    link_pump(&sl.link, sc->pair.mux[PAIR_SERVER], 1);
    assert_int_equal(sl.begun, 0);
}

static void pumps_until_the_mux_has_no_more(void **state)
{
    struct scene *sc = *state;
    struct short_link sl = make(sc, 100);

    for (int i = 0; i < 3; i++)
        assert_int_equal(scene_put(scene_open(sc, PAIR_SERVER), MUX_WINDOW), MUX_WINDOW);
    link_pump(&sl.link, sc->pair.mux[PAIR_SERVER], 1);
    assert_false(mux_wants_send(sc->pair.mux[PAIR_SERVER]));
    assert_int_equal(sl.committed, 4); /* three windows and their heads */
    assert_int_equal(sl.begun, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sc->user[PAIR_AGENT][i].n_bytes, MUX_WINDOW);
}

static void stops_when_the_link_has_enough_and_goes_on_later(void **state)
{
    struct scene *sc = *state;
    struct short_link sl = make(sc, 1);

    for (int i = 0; i < 3; i++)
        assert_int_equal(scene_put(scene_open(sc, PAIR_SERVER), MUX_WINDOW), MUX_WINDOW);
    link_pump(&sl.link, sc->pair.mux[PAIR_SERVER], 1);
    assert_int_equal(sl.committed, 1);
    assert_int_equal(sl.begun, 2);
    assert_true(mux_wants_send(sc->pair.mux[PAIR_SERVER]));
    sl.places = 100;
    link_pump(&sl.link, sc->pair.mux[PAIR_SERVER], 1);
    assert_false(mux_wants_send(sc->pair.mux[PAIR_SERVER]));
    for (int i = 0; i < 3; i++)
        assert_int_equal(sc->user[PAIR_AGENT][i].n_bytes, MUX_WINDOW);
}

/* A user that writes whenever there is room: the pump would never end by itself. */
static void write_more(struct scene_user *u)
{
    (void)scene_put(u, MUX_TX_MAX);
    u->on = "writable";
    u->log[0] = '\0';
}

static void yields_after_a_bounded_number_and_asks_to_be_called_again(void **state)
{
    struct scene *sc = *state;
    struct short_link sl = make(sc, UINT32_MAX);
    struct mux *server = sc->pair.mux[PAIR_SERVER];
    unsigned *wants = &sc->side[PAIR_SERVER].wants;
    struct scene_user *u;

    mux_set_peer(server, 1 << 30, SCENE_STREAMS);
    u = scene_open(sc, PAIR_SERVER);
    sl.to = NULL;
    u->on = "writable";
    u->meddle = write_more;
    (void)scene_put(u, MUX_TX_MAX);
    *wants = 0;
    link_pump(&sl.link, server, 1);
    assert_int_equal(sl.committed, LINK_PUMP_MAX);
    assert_true(mux_wants_send(server));
    assert_int_equal(*wants, 1);
}

#define B(f) cmocka_unit_test_setup_teardown(f, scene_setup_bulk, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        B(nothing_to_send_asks_for_no_place),
        B(pumps_until_the_mux_has_no_more),
        B(stops_when_the_link_has_enough_and_goes_on_later),
        B(yields_after_a_bounded_number_and_asks_to_be_called_again),
    };

    return cmocka_run_group_tests_name("common/link", tests, NULL, NULL);
}
