/* SPDX-License-Identifier: MIT */
/** conn_impl -- what conn.c (life, events) and conn_io.c (bytes) share. Nobody else's. */
#ifndef COMMON_CONN_IMPL_H
#define COMMON_CONN_IMPL_H

#include "common/conn.h"

struct conn {
    struct loop *loop;
    int fd;
    struct loop_io *io;
    const struct conn_ops *ops; /* NULL: closed or detached */
    void *owner;
    struct ssl_st *ssl;   /* the innermost layer, that we read and write; NULL: plain */
    struct ssl_st *outer; /* the layer below it, owned by its BIO; or NULL */
    unsigned want;
    unsigned read_waits, write_waits; /* the event each direction needs to go on */
    unsigned shake_waits;
    bool in_handshake, is_finishing, is_finished, is_lingering, is_closed;
    bool drained,
        full; /* the socket has no more, takes no more, until the poll says so */
    bool has_failed, has_eof;
    bool is_read_out;     /* the socket itself has said its end: nothing comes after it */
    bool is_corked;       /* the kernel gathers records until the job runs */
    bool end_told;        /* the owner has seen the failure or end */
    unsigned shut_layers; /* TLS layers whose close_notify is out */
    struct buf unread;
    size_t unread_pos;
    struct buf unsent;
    char *tls_name;    /* whom a client asked for, for messages */
    char *server_name; /* whom our client asked for, or NULL */
    struct loop_job job;
    struct loop_timer linger;
    struct err error;
};

/** Tell the loop what this connection waits for; call after any change of state. */
void conn_update(struct conn *c);
/** There is something for conn_read() that the poll does not know of. */
bool conn_has_inner(const struct conn *c);
/** OpenSSL judges by the thread's error queue and errno: nothing old may be in them. */
void conn_tls_clear(void);
/** What a TLS call that returned `ret` means; *ret_waits only changes with CONN_AGAIN. */
enum conn_result conn_tls_result(struct conn *c, int ret, unsigned *ret_waits);
/** Send on what was taken before. CONN_OK: nothing is left. */
enum conn_result conn_flush(struct conn *c);
/** Let the kernel send what it gathered. */
void conn_uncork(struct conn *c);
/** Go on ending our direction. True when it has ended, or never will. */
bool conn_try_finish(struct conn *c);

#endif
