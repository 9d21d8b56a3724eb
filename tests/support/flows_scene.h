/* SPDX-License-Identifier: MIT */
/**
 * flows_scene -- one sandbox's connections in the guard, with its real names, pins,
 *                records and a keeper's end of the channel, in a network of its own
 *                (own_network.h). One thread: whoever waits turns the loop.
 */
#ifndef TESTS_SUPPORT_FLOWS_SCENE_H
#define TESTS_SUPPORT_FLOWS_SCENE_H

#include "agentd/egress/guard/ward.h"
#include "common/buf.h"
#include "tests/support/pin_sink.h"

#define SCENE_NAMES 16

struct flows_scene {
    struct pin_sink pin_sink;
    struct loop *loop;
    struct loop_timer stop;
    struct guard guard;
    struct ward ward;
    int keeper_fd; /* the keeper's end */
    struct loop_io *keeper_io;
    int dns_fd;
    struct loop_io *dns_io;
    unsigned questions; /* that the name server got */
    struct {
        char name[64];
        struct ip_addr addr;
    } name[SCENE_NAMES];
    size_t n_names;
    int audit_fd;
    struct buf records;
    char policy[4096]; /* for messages */
};

void flows_scene_open(struct flows_scene *s, const char *policy);
void flows_scene_close(struct flows_scene *s);
/** Another policy comes into force. */
void flows_scene_policy(struct flows_scene *s, const char *policy);
void flows_scene_name(struct flows_scene *s, const char *name, const char *addr);
void flows_scene_pin(struct flows_scene *s, const char *name, const char *addr);
/** About `ms` milliseconds of the loop. */
void flows_scene_turn(struct flows_scene *s, unsigned ms);

/** A program's end of a connection that meant `to` ("203.0.113.7:443"); non-blocking. */
int flows_scene_connect(struct flows_scene *s, const char *to);
/** A server; then its end of a connection, -1 when none comes within a second. */
int flows_scene_listen(const char *at);
int flows_scene_accept(struct flows_scene *s, int listener);
void flows_scene_write(struct flows_scene *s, int fd, const void *p, size_t n);
void flows_scene_say(struct flows_scene *s, int fd, const char *text);
/** Reads until `n` bytes or the end; what came is in `ret`. */
void flows_scene_read(struct flows_scene *s, int fd, size_t n, struct buf *ret);
/** Exactly this comes next. */
void flows_scene_expect(struct flows_scene *s, int fd, const char *text);
/** "eof", "reset", or "open" when neither comes within a second. Bytes before it
 *  are read away. */
const char *flows_scene_end(struct flows_scene *s, int fd);
/** Nothing comes for a moment. */
bool flows_scene_is_quiet(struct flows_scene *s, int fd);
/** All records so far, NUL-terminated. */
const char *flows_scene_records(struct flows_scene *s);
/** Waits for a record that has all of these (NULL ends); fails the test without one. */
void flows_scene_recorded(struct flows_scene *s, ...);

/** A ClientHello with this server name ("": without), padded to about `size` bytes and
 *  cut into records of `record` bytes at most. */
void flows_scene_hello(const char *name, size_t size, size_t record, struct buf *ret);

#endif
