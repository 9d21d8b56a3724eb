/* SPDX-License-Identifier: MIT */
/**
 * edge_scene -- an edge with all that is behind it in one process and on one loop:
 *               registry, session, two muxes, and an agent whose app answers by the
 *               request's path. The client is a real TCP connection over loopback.
 */
#ifndef TESTS_SUPPORT_EDGE_SCENE_H
#define TESTS_SUPPORT_EDGE_SCENE_H

#include "common/buf.h"
#include "common/link.h"
#include "common/loop.h"
#include "tunneld/edge/edge.h"
#include "tunneld/tunnel/tunnel.h"

#define SCENE_PORTS 8

struct scene_client {
    struct scene *scene;
    int fd;
    struct loop_io *io;
    struct buf got;
    bool has_eof, has_reset;
};

struct scene {
    struct loop *loop;
    const struct config *conf;
    struct token_keys *keys;
    struct directory *directory;
    struct registry *registry;
    struct tunnel tunnel;
    struct edge *edge;
    bool owns; /* what the edge is told */
    unsigned given;
    struct worker_guest guest; /* the last one given away */
    char given_id[HOST_ID_MAX + 1];
    struct scene_client client[4];
    struct loop_timer deadline;
    struct loop_timer later; /* does `fn` at a later time */
    void (*later_fn)(struct scene *s);
    bool is_late;
    struct app *resetting; /* edge_app.c's: the stream that `later` resets */
    /* the agent */
    struct link link;
    bool is_linked;
    bool is_broken; /* one of the link's ends had to give up: unlink */
    struct mux *mux;
    struct loop_job flush;
    uint8_t *wire;
    unsigned opened;         /* streams opened to it */
    unsigned refusals;       /* so many of the next streams are refused */
    enum mux_reason refusal; /* with this; NONE: REFUSED */
    bool dies_at_flush;      /* the link goes before the agent's next frames are sent */
    struct buf seen;         /* the last request head the app saw */
    struct buf control;      /* what the server said */
};

/** @more  further members for the configuration, with a comma in front, or "" */
int scene_start(struct scene *s, const char *more);
void scene_stop(struct scene *s);

/** Link the sandbox "demo", tenant "". */
void scene_link(struct scene *s);
void scene_unlink(struct scene *s);
void scene_publish(struct scene *s, uint16_t port, bool is_public, bool preserves);
void scene_unpublish(struct scene *s, uint16_t port);
/** An access token for a sandbox. */
void scene_token(struct scene *s, const char *sub, enum token_aud aud, const char *ports,
                 struct buf *ret);

/** Connect client `i`; from an address that is trusted, or not. */
void scene_connect(struct scene *s, unsigned i, bool is_trusted);
void scene_hang_up(struct scene *s, unsigned i);
void scene_send(struct scene *s, unsigned i, const char *text);
void scene_send_bytes(struct scene *s, unsigned i, const void *p, size_t n);
/** Run until the client got this text (then true), or its connection or the
 *  time ended. */
bool scene_until(struct scene *s, unsigned i, const char *text);
/** Run until the client's connection ended. */
bool scene_until_end(struct scene *s, unsigned i);
/** Run for so long. */
void scene_run(struct scene *s, uint64_t ms);
/** What the client got, as text; forget() empties it. */
const char *scene_got(struct scene *s, unsigned i);
void scene_forget(struct scene *s, unsigned i);
const char *scene_seen(struct scene *s);

#endif
