/* SPDX-License-Identifier: MIT */
/**
 * keeper_scene -- a host of our own (a network namespace with a cable), a world at the
 *                 cable's other end, and sandboxes: children in namespaces with nothing
 *                 but lo, which try what they are told to and say how it went.
 *
 *   world 198.51.100.7/24   TCP 8080 and 5432 say "hello"; UDP 53 answers every A question with
 *                           198.51.100.7
 *
 * The test's main() begins with keeper_scene_main(), since the guard is this
 * program again.
 */
#ifndef TESTS_SUPPORT_KEEPER_SCENE_H
#define TESTS_SUPPORT_KEEPER_SCENE_H

#include "agentd/egress/keeper/keeper.h"

#define KEEPER_SCENE_WORLD "198.51.100.7"

/** True: this was the guard; *ret_code is its exit code. False: this is the test, now
 *  in a namespace of its own; *ret_code is not 0 when the kernel refused that (the
 *  reason is printed). */
bool keeper_scene_main(int argc, char **argv, int *ret_code);

struct keeper_scene {
    struct loop *loop;
    struct keeper *keeper;
    struct loop_timer limit; /* a wait of 30 s has failed */
    pid_t world;
    int audit; /* memory file of the records; it may be sealed */
    bool is_done;
    struct err e; /* code 0: it went well */
};
/** @state_dir  NULL: none */
void keeper_scene_open(struct keeper_scene *s, const char *state_dir);
void keeper_scene_close(struct keeper_scene *s);
/** Another keeper in the place of the first. */
void keeper_scene_restart(struct keeper_scene *s, const char *state_dir);
/** Run the loop for so long, or until *flag (NULL: none). */
void keeper_scene_run(struct keeper_scene *s, unsigned ms, const bool *flag);
const char *keeper_scene_records(struct keeper_scene *s, char out[65536]);
const char *keeper_scene_status(struct keeper_scene *s, const char *name,
                                char out[16384]);
/** Run until status holds a text; fails after 10 s. */
void keeper_scene_until_status(struct keeper_scene *s, const char *name,
                               const char *text);
/** Runs a program with its output dropped; its exit code. @pid  in whose network; 0: ours */
int keeper_scene_program(pid_t pid, const char *const argv[]);

struct keeper_box {
    pid_t pid;
    int fd;
};
void keeper_box_open(struct keeper_box *b);
void keeper_box_close(struct keeper_box *b);
/** As keeper_add() and its end: 0 or -1 with s->e. */
int keeper_box_add(struct keeper_scene *s, struct keeper_box *b, const char *name,
                   const char *policy);
int keeper_box_reload(struct keeper_scene *s, const char *name, const char *policy);
/** From inside; the loop runs meanwhile. 0 when "hello" came, else the errno. */
int keeper_box_connect(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                       uint16_t port);
/** The same, open for half a second. */
int keeper_box_linger(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                      uint16_t port);
/** A datagram: 0 or the errno of sending it. */
int keeper_box_send(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                    uint16_t port);
/** A question for A over UDP to `addr`: 0 and the address in `out`, 1000 +
 *  rcode, or an errno. */
int keeper_box_ask(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                   const char *name, char out[64]);

#endif
