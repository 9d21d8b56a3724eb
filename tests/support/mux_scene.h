/* SPDX-License-Identifier: MIT */
/**
 * mux_scene -- two engines joined, with users of their streams that write down what they
 *              are told ("accepted eof closed:none") and keep the bytes they took.
 */
#ifndef TESTS_SUPPORT_MUX_SCENE_H
#define TESTS_SUPPORT_MUX_SCENE_H

#include "common/limits.h"
#include "common/mux.h"
#include "tests/support/pair.h"

enum {
    SCENE_WINDOW = 4096,
    SCENE_STREAMS = 8,
    SCENE_USERS = 32
};

struct scene;
struct scene_user {
    struct scene *scene;
    struct mux_stream *s;
    char log[400];
    uint8_t bytes[1 << 17];
    size_t n_bytes;
    size_t take;    /* data() takes up to so many bytes each time */
    const char *on; /* do something in the callback of this name: */
    void (*meddle)(struct scene_user *u);
};
struct scene {
    struct pair pair;
    struct scene_user user[2][SCENE_USERS];
    int n_users[2];
    struct {
        struct scene *scene;
        int side;
        unsigned wants, goaways;
        enum mux_reason goaway;
        bool refuses, ignores, accepts;
        struct mux_open last_open;
    } side[2];
    struct mux_budget budget;
};

extern const struct mux_stream_ops scene_stream_ops;
extern const struct mux_ops scene_mux_ops;

void scene_init(struct scene *sc, uint32_t window, uint32_t window_max);
/* For cmocka: *state is a scene with small windows that do not grow, or with
 * real ones. */
int scene_setup(void **state);
int scene_setup_bulk(void **state);
int scene_teardown(void **state); /* fails when memory is left */

struct scene_user *scene_add_user(struct scene *sc, int side);
struct scene_user *scene_open(struct scene *sc, int side);
struct scene_user *scene_try_open(struct scene *sc, int side, enum mux_result *ret_why);
size_t scene_put(struct scene_user *u, size_t n); /* zeros; how many were taken */
void scene_say(struct scene_user *u, const char *text);
void scene_settle(struct scene *sc);
void scene_reset_user(struct scene_user *u);

#endif
