/* SPDX-License-Identifier: MIT */
/** sandbox_int -- what sandbox.c, sandbox_stage.c, sandbox_init.c, sandbox_mounts.c and
 *  sandbox_etc.c share. */
#ifndef AGENTD_EGRESS_KEEPER_SANDBOX_INT_H
#define AGENTD_EGRESS_KEEPER_SANDBOX_INT_H

#include <limits.h>
#include <signal.h>

#include "agentd/egress/keeper/sandbox.h"
#include "common/buf.h"

enum sandbox_word {
    /* init, or stage, to the caller */
    SANDBOX_IS_READY,
    SANDBOX_HAS_FAILED, /* value: enum err_code; sys: errno; text */
    SANDBOX_HAS_STOPPED,
    SANDBOX_HAS_ENDED,
    /* the caller to init */
    SANDBOX_GO, /* value: give COMMAND the foreground */
    SANDBOX_SIGNAL,
    SANDBOX_CONTINUE, /* value: as GO */
};
struct sandbox_msg {
    enum sandbox_word word;
    int32_t value, sys;
    char text[200]; /* as in struct err */
};

/* What the forked processes know; descriptors are -1 where there is none. */
struct sandbox_seed {
    const struct sandbox_conf *conf;
    pid_t caller;
    int talk; /* SOCK_SEQPACKET to the caller */
    int life; /* init: a socket to the stage, which maps ids and whose end is ours */
    int tty;  /* the terminal, or -1 */
    int maker[SANDBOX_MAKERS];
    sigset_t signals; /* to be blocked in COMMAND */
    char cwd[PATH_MAX];
    struct buf sockets; /* sandbox_sockets_find()'s */
};

/* Each is the whole life of a process. */
_Noreturn void sandbox_stage(struct sandbox_seed *s);
_Noreturn void sandbox_init(struct sandbox_seed *s);

/** Tell the caller what went wrong, and end. */
_Noreturn void sandbox_fail(int talk, const struct err *e);
/** Close all descriptors above 2 but these. */
void sandbox_close_others(const int *keep, size_t n);

/** In a new mount namespace: what is private, what is ours, what is shown again. */
int sandbox_mounts(const struct sandbox_seed *s, struct err *e);
/** Sockets with names that somebody listens at in the caller's network namespace (called
 *  there): absolute paths, each with its NUL. */
int sandbox_sockets_find(struct buf *ret, struct err *e);
/** Cover those, and what shows the host's processes or devices at other places than the
 *  usual. The caller's mounts, before anything else is covered; not where a bind shows
 *  it on purpose. */
int sandbox_holes_cover(const struct sandbox_seed *s, struct err *e);
/** Before /tmp is covered: make resolv.conf and nsswitch.conf; descriptors of
 *  detached mounts. */
#define SANDBOX_ETC_FILES 2
int sandbox_etc_make(int ret[SANDBOX_ETC_FILES], struct err *e);
/** After it: put them in place. Takes the descriptors. */
int sandbox_etc_place(int fd[SANDBOX_ETC_FILES], struct err *e);

/* sandbox_mounts.c, for sandbox_etc.c */
/** A copy of the mount at `path`, with what is mounted below; -1. */
int sandbox_mount_copy(const char *path, struct err *e);
/** Put it at `path`, which is there. Takes the descriptor. */
int sandbox_mount_put(int *take_fd, const char *path, struct err *e);
int sandbox_tmpfs(const char *path, const char *options, unsigned long flags,
                  struct err *e);
/** An empty file or folder to mount at, unless something is there. */
int sandbox_mount_point(const char *path, bool is_folder, struct err *e);

#endif
