/* SPDX-License-Identifier: MIT */
/**
 * conn -- one non-blocking byte connection: a socket, bare or under TLS (or TLS in TLS,
 *         for a proxy that is itself spoken to over TLS).
 *
 * Shape    pull: the owner says what it waits for, is told when to try, and reads and
 *          writes its own buffers. So back-pressure is: do not want.
 *          A read or write that moved less than it was given room for says AGAIN at once
 *          when repeated, until the poll tells more: one call per event is enough, and
 *          calling until AGAIN costs no system call.
 * Writing  bytes that conn_write() took are gone from the owner, and it may offer others
 *          next: the rest of a TLS record that the socket did not take (at most 16 KiB)
 *          is kept here and sent on without the owner, also after conn_close(), which then
 *          takes up to CONN_LINGER_MS in the background.
 * Owner    conn_close() may be called anywhere, also inside a callback, and frees in a
 *          deferred job; no callback comes after it.
 */
#ifndef COMMON_CONN_H
#define COMMON_CONN_H

#include "common/buf.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/sock.h"
#include "common/tls.h"

struct conn;

struct conn_ops {
    void (*readable)(void *owner); /* conn_read() may give something (or an end) */
    void (*writable)(void *owner); /* conn_write() may take something */
    /* A TLS handshake that was started has ended: e is NULL, or says why not. Only then
     * may the owner read and write. NULL where the owner starts no TLS. */
    void (*secured)(void *owner, const struct err *e);
};

enum conn_result {
    CONN_OK,    /* *ret_n > 0 bytes were moved */
    CONN_AGAIN, /* nothing now: conn_want() and wait */
    CONN_EOF,   /* the other side ended its direction in order */
    CONN_ERROR, /* reset, TLS failure, cut without close_notify: conn_error() says */
};

/** Takes a connected socket. Callbacks go to ops(owner); wants nothing yet. */
struct conn *conn_new(struct loop *l, int *take_fd, const struct conn_ops *ops,
                      void *owner, struct err *e);
/** Change who is told. */
void conn_set_owner(struct conn *c, const struct conn_ops *ops, void *owner);
/** Start TLS over what is there (also over TLS, once). Ends in ops->secured(), never inside
 *  this call. ctx must outlive the connection. The owner keeps the deadline. Refused while
 *  bytes are unread: what came before the handshake must not pass for what came under it. */
int conn_tls_accept(struct conn *c, struct tls_ctx *ctx, struct err *e);
int conn_tls_connect(struct conn *c, struct tls_ctx *ctx, const char *name,
                     struct err *e);

/** What to be told of, exactly; LOOP_READ | LOOP_WRITE. Level-triggered: readable() is
 *  called again while bytes are there, those inside the TLS layer included. */
void conn_want(struct conn *c, unsigned events);
MUST_USE enum conn_result conn_read(struct conn *c, void *p, size_t cap, size_t *ret_n);
MUST_USE enum conn_result conn_write(struct conn *c, const void *p, size_t n,
                                     size_t *ret_n);
/** Give bytes back: the next conn_read() yields them first. 0, or -1 on no memory. */
MUST_USE int conn_unread(struct conn *c, struct span bytes);
/** End our direction: close_notify under TLS, FIN. */
void conn_finish(struct conn *c);
/** Close in order (close_notify best effort) and free; *c becomes NULL; NULL is fine. */
void conn_close(struct conn **c);
/** Close so that the client sees a cut, never a clean end: no close_notify, TCP reset. */
void conn_abort(struct conn **c);

int conn_fd(const struct conn *c); /* borrowed; for socket options and addresses only */
bool conn_is_tls(const struct conn *c);
/** No TLS, and nothing read or taken that its socket does not have: who moves bytes by conn_fd()
 *  leaves none out. */
bool conn_is_bare(const struct conn *c);
/** The TLS server name the client sent, lower case, or "" . */
const char *conn_server_name(const struct conn *c);
/** The last CONN_ERROR in words. */
const struct err *conn_error(const struct conn *c);

/** A connection without a loop, to carry it to another thread. */
struct conn_parts {
    int fd;
    struct ssl_st *ssl; /* NULL: plain */
    struct buf unread;  /* read from the socket, not yet by an owner */
    struct buf unsent;  /* a TLS record's plaintext that the socket did not take whole */
};
/** Take the connection apart; *c becomes NULL. Only between handshakes. */
void conn_detach(struct conn **c, struct conn_parts *ret);
struct conn *conn_attach(struct loop *l, struct conn_parts *take,
                         const struct conn_ops *ops, void *owner, struct err *e);
void conn_parts_done(struct conn_parts *p);

#endif
