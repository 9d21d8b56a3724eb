/* SPDX-License-Identifier: MIT */
/**
 * line_server -- answers requests of one line each on a unix socket of ours.
 *
 * Theory. A client is read until a whole line is there, which its owner gets with a
 * ticket; then the client is not read until the ticket is answered and the answer is
 * sent, so what it sends ahead fills the kernel's buffer and no memory of ours. A ticket
 * is a number and no pointer: an owner may answer late, when the client is long gone, and
 * the answer goes nowhere. A client is freed by its timer alone, which its end sets to
 * now, so nothing that a callback holds goes away under it.
 *
 * Who      the same user, or root (localpath_is_one_of_us()), and whom the owner lets.
 * Bounds   a kind's: clients at once, bytes of a line, a client's life from its first
 *          moment to its last. A client that is too slow with any of it is cut off.
 *          Without descriptors nobody is let in for ACCEPT_PAUSE_MS, and none is lost.
 * Refusing what is no request never reaches request(): the owner says in words why not,
 *          or nothing, and the connection ends.
 */
#ifndef AGENTD_LINE_SERVER_H
#define AGENTD_LINE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/loop.h"

enum line_server_why {
    LINE_SERVER_CUT,        /* it ended, or broke, before a whole line was there */
    LINE_SERVER_LONG,       /* a line of more than line_max bytes */
    LINE_SERVER_NO_MEMORY,  /* of ours */
    LINE_SERVER_OTHER_USER, /* or from where the owner lets nobody in */
    LINE_SERVER_TOO_MANY,   /* clients are there already */
};

struct line_server_kind {
    unsigned clients_max;
    size_t line_max;    /* bytes, the newline not counted */
    uint64_t client_ms; /* a client's whole life */
    bool is_single;     /* one request a connection, and its end after the answer */
    /* A whole line, lent, without its newline. Answer by line_server_answer(), now or
     * later. A ticket is used once and never 0. */
    void (*request)(void *owner, uint64_t ticket, struct span line);
    /* What a client is told when there will be no request: added to *out, without a
     * newline; nothing: it is cut off without a word. -1: no memory, likewise. */
    int (*refuse)(void *owner, enum line_server_why why, struct buf *out);
    /* May it ask, being one of us? NULL: all may. */
    bool (*is_allowed)(void *owner, int fd);
};

struct line_server;
/** Listens by localpath_listen(), as it says. @kind borrowed, constant. NULL with *e. */
struct line_server *line_server_new(struct loop *l, const char *path,
                                    const struct line_server_kind *kind, void *owner,
                                    struct err *e);
/** @line  without a newline; empty: there is no answer, the connection ends.
 *  Fine when the client has gone, and inside request(); calls nothing back. -1: no
 *  memory, and the connection ends. */
int line_server_answer(struct line_server *s, uint64_t ticket, struct span line);
/** Ends all clients and removes the socket. Not inside a callback. NULL is fine. */
void line_server_free(struct line_server *s);

#endif
