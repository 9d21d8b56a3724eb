/* SPDX-License-Identifier: MIT */
#include "tests/support/mux_scene.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/test.h"

static void note(struct scene_user *u, const char *what)
{
    size_t n = strlen(u->log);

    (void)snprintf(u->log + n, sizeof(u->log) - n, "%s%s", n > 0 ? " " : "", what);
    if (u->on != NULL && strncmp(what, u->on, strlen(u->on)) == 0) {
        u->on = NULL;
        u->meddle(u);
    }
}

static void on_accepted(void *user)
{
    note(user, "accepted");
}

static size_t on_data(void *user, struct span bytes)
{
    struct scene_user *u = user;
    size_t n = bytes.len < u->take ? bytes.len : u->take;

    assert_true(u->n_bytes + n <= sizeof(u->bytes));
    memcpy(u->bytes + u->n_bytes, bytes.p, n);
    u->n_bytes += n;
    if (u->on != NULL && strcmp(u->on, "data") == 0)
        note(u, "data");
    return n;
}

static void on_eof(void *user)
{
    note(user, "eof");
}

static void on_writable(void *user)
{
    note(user, "writable");
}

static void on_closed(void *user, enum mux_reason why)
{
    struct scene_user *u = user;
    char text[40];

    (void)snprintf(text, sizeof(text), "closed:%s", mux_reason_name(why));
    note(u, text);
    u->s = NULL;
}

const struct mux_stream_ops scene_stream_ops = {
    .accepted = on_accepted,
    .data = on_data,
    .eof = on_eof,
    .writable = on_writable,
    .closed = on_closed,
};

struct scene_user *scene_add_user(struct scene *sc, int side)
{
    struct scene_user *u = &sc->user[side][sc->n_users[side]++];

    assert_true(sc->n_users[side] <= SCENE_USERS);
    u->scene = sc;
    u->take = SIZE_MAX;
    return u;
}

static int side_of(const struct scene *sc, const void *owner)
{
    return owner == &sc->side[0] ? 0 : 1;
}

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    struct scene *sc = *(struct scene **)owner;
    int i = side_of(sc, owner);
    struct scene_user *u;

    sc->side[i].last_open = *open;
    if (sc->side[i].ignores)
        return;
    if (sc->side[i].refuses) {
        mux_stream_reset(s, MUX_REASON_NOT_PUBLISHED);
        return;
    }
    u = scene_add_user(sc, i);
    u->s = s;
    mux_stream_use(s, &scene_stream_ops, u);
    if (sc->side[i].accepts)
        mux_stream_accept(s);
}

static void on_wants_send(void *owner)
{
    struct scene *sc = *(struct scene **)owner;

    sc->side[side_of(sc, owner)].wants++;
}

static void on_goaway(void *owner, enum mux_reason why)
{
    struct scene *sc = *(struct scene **)owner;

    sc->side[side_of(sc, owner)].goaways++;
    sc->side[side_of(sc, owner)].goaway = why;
}

const struct mux_ops scene_mux_ops = {
    .opened = on_opened,
    .wants_send = on_wants_send,
    .goaway = on_goaway,
};

void scene_init(struct scene *sc, uint32_t window, uint32_t window_max)
{
    struct mux_conf conf[2];
    const struct mux_ops *ops[2] = {&scene_mux_ops, &scene_mux_ops};
    void *owner[2] = {&sc->side[0], &sc->side[1]};

    for (int i = 0; i < 2; i++) {
        sc->side[i].scene = sc;
        sc->side[i].side = i;
        sc->side[i].accepts = true;
        conf[i] = (struct mux_conf){
            .role = i == PAIR_AGENT ? MUX_AGENT : MUX_SERVER,
            .window = window,
            .window_max = window_max,
            .max_streams = SCENE_STREAMS,
            .budget = &sc->budget,
        };
    }
    pair_init(&sc->pair, conf, ops, owner);
    assert_non_null(sc->pair.mux[0]);
    assert_non_null(sc->pair.mux[1]);
}

int scene_setup(void **state)
{
    struct scene *sc = calloc(1, sizeof(*sc));

    if (sc == NULL)
        return -1;
    scene_init(sc, SCENE_WINDOW, SCENE_WINDOW);
    *state = sc;
    return 0;
}

int scene_setup_bulk(void **state)
{
    struct scene *sc = calloc(1, sizeof(*sc));

    if (sc == NULL)
        return -1;
    sc->budget.max_bytes = 1 << 30;
    scene_init(sc, MUX_WINDOW, MUX_WINDOW_MAX);
    *state = sc;
    return 0;
}

int scene_teardown(void **state)
{
    struct scene *sc = *state;

    mem_fault_at(0);
    pair_done(&sc->pair);
    free(sc);
    return mem_live() == 0 ? 0 : -1;
}

struct scene_user *scene_try_open(struct scene *sc, int side, enum mux_result *ret_why)
{
    struct mux_open open = {.port = 3000, .kind = MUX_KIND_TCP};
    struct scene_user *u = scene_add_user(sc, side);

    u->s = mux_open(sc->pair.mux[side], &open, &scene_stream_ops, u, ret_why);
    return u;
}

struct scene_user *scene_open(struct scene *sc, int side)
{
    enum mux_result why = MUX_E_CLOSED;
    struct scene_user *u = scene_try_open(sc, side, &why);

    assert_non_null(u->s);
    assert_int_equal(why, MUX_OK);
    return u;
}

size_t scene_put(struct scene_user *u, size_t n)
{
    static const uint8_t zeros[1 << 20];
    size_t took = 0;

    assert_int_equal(mux_stream_write(u->s, span_of(zeros, n), &took), MUX_OK);
    return took;
}

void scene_say(struct scene_user *u, const char *text)
{
    size_t n = 0;

    assert_int_equal(mux_stream_write(u->s, span_str(text), &n), MUX_OK);
    assert_int_equal(n, strlen(text));
}

void scene_settle(struct scene *sc)
{
    assert_int_equal(pair_settle(&sc->pair), MUX_OK);
}

void scene_reset_user(struct scene_user *u)
{
    mux_stream_reset(u->s, MUX_REASON_CANCEL);
    u->s = NULL;
}
