/* SPDX-License-Identifier: MIT */
/*
 * Theory. The poll tells when the socket can do more; c->drained and c->full remember that
 * it cannot, so that nobody asks the kernel in vain. Bytes inside the TLS layers (read ahead)
 * or given back by the owner make no poll event, so a deferred job calls readable() for
 * them.
 *
 * SSL_write() that would block has already sealed the bytes into a record and wants the same
 * bytes again. Owners must not have to know that (a repeated chunk header would differ), so
 * we take the bytes, keep a copy in c->unsent, and repeat the write ourselves. It is a true
 * copy, not a dummy pointer: a peer that asks for a key update while the socket is full makes
 * SSL_write() block before it has looked at the bytes.
 *
 * States: handshake -> open -> (finishing -> finished) -> closed; lingering stands between
 * open and closed while unsent bytes are left. After closed only the deferred job is left,
 * which frees the memory. "Dead" to callbacks is c->ops == NULL.
 */
#include "common/conn.h"

#include <ctype.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "common/conn_impl.h"
#include "common/limits.h"
#include "common/mem.h"

enum {
    DRAIN_SIZE = 16384,
    DRAIN_ROUNDS = 4
};

static void on_io(void *arg, unsigned events);
static void on_job(void *arg);
static void on_linger(void *arg);

/* -- what to wait for ----------------------------------------------------------------- */

static bool tls_has_bytes(const struct conn *c)
{
    return c->ssl != NULL && !c->in_handshake && !c->drained &&
           (SSL_has_pending(c->ssl) == 1 ||
            (c->outer != NULL && SSL_has_pending(c->outer) == 1));
}

/* There is something for conn_read() that the poll does not know of. */
bool conn_has_inner(const struct conn *c)
{
    return c->unread.len > c->unread_pos ||
           ((c->has_failed || c->has_eof) && !c->end_told) || tls_has_bytes(c);
}

void conn_update(struct conn *c)
{
    unsigned events = 0;

    if (c->is_closed)
        return;
    if (c->in_handshake) {
        events = c->shake_waits;
    } else {
        events |= (c->want & LOOP_READ) != 0 ? c->read_waits : 0;
        events |= (c->want & LOOP_WRITE) != 0 ? c->write_waits : 0;
        /* Not LOOP_WRITE as such: after half a KeyUpdate OpenSSL reads before it writes, and
         * the socket, which could be written, would wake us again and again. */
        if ((c->unsent.len > 0 || c->is_finishing) && !c->has_failed)
            events |= c->write_waits;
        if ((c->want & LOOP_READ) != 0 && conn_has_inner(c))
            loop_job_defer(&c->job);
    }
    loop_io_want(c->io, events);
}

void conn_want(struct conn *c, unsigned events)
{
    c->want = events;
    conn_update(c);
}

/* -- ending --------------------------------------------------------------------------- */

/* Leaves nothing but the memory, which the job frees: a callback of ours may be below us
 * on the stack. */
static void bury(struct conn *c)
{
    c->is_closed = true;
    c->is_corked = false; /* closing sends all */
    c->ops = NULL;
    loop_timer_stop(&c->linger);
    loop_io_stop(&c->io);
    SSL_free(c->ssl); /* and the layer below, by its BIO */
    c->ssl = c->outer = NULL;
    sock_close(&c->fd);
    buf_done(&c->unread);
    buf_done(&c->unsent);
    mem_free(c->tls_name);
    mem_free(c->server_name);
    c->tls_name = c->server_name = NULL;
    loop_job_cancel(&c->job);
    loop_job_defer(&c->job);
}

/* Closing with unread bytes makes the kernel send a reset, which can overtake what the
 * other side has not read yet. */
static void drain(int fd)
{
    uint8_t scratch[DRAIN_SIZE];
    int i;

    for (i = 0; i < DRAIN_ROUNDS; i++) {
        if (recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT) < (ssize_t)sizeof(scratch))
            return;
    }
}

static void close_now(struct conn *c)
{
    if (!c->is_read_out)
        drain(c->fd);
    bury(c);
}

void conn_close(struct conn **pc)
{
    struct conn *c = *pc;

    if (c == NULL)
        return;
    *pc = NULL;
    c->ops = NULL;
    c->want = 0;
    if (c->ssl != NULL && !c->has_failed && !c->in_handshake && !c->is_finished)
        c->is_finishing = true;
    if (!c->is_finishing || conn_try_finish(c) || c->has_failed) {
        close_now(c);
        return;
    }
    if (c->is_corked)
        conn_uncork(c);
    c->is_lingering = true;
    loop_timer_start(&c->linger, CONN_LINGER_MS);
    loop_job_at_end(&c->job);
    conn_update(c);
}

void conn_abort(struct conn **pc)
{
    struct conn *c = *pc;

    if (c == NULL)
        return;
    *pc = NULL;
    loop_io_stop(&c->io); /* before the descriptor goes */
    sock_reset(&c->fd);
    bury(c);
}

/* -- events --------------------------------------------------------------------------- */

static void tell(struct conn *c, unsigned ready)
{
    if ((ready & c->want & LOOP_READ) != 0)
        c->ops->readable(c->owner);
    if (c->ops != NULL && !c->in_handshake && (ready & c->want & LOOP_WRITE) != 0 &&
        c->unsent.len == 0)
        c->ops->writable(c->owner);
    if (c->ops != NULL)
        conn_update(c);
}

/* The name comes from the client: OpenSSL has refused NUL bytes in it, and it is only
 * compared and printed as text of a host. */
static int keep_server_name(struct conn *c)
{
    const char *name = SSL_is_server(c->ssl)
                           ? SSL_get_servername(c->ssl, TLSEXT_NAMETYPE_host_name)
                           : NULL;
    size_t i, n;

    if (name == NULL)
        return 0;
    n = strlen(name);
    mem_free(c->server_name); /* of the layer below */
    c->server_name = mem_alloc(n + 1);
    if (c->server_name == NULL)
        return err_set(&c->error, ERR_NOMEM, "keeping a server name");
    for (i = 0; i <= n; i++)
        c->server_name[i] = (char)tolower((unsigned char)name[i]);
    return 0;
}

static void handshake(struct conn *c)
{
    enum conn_result r = CONN_OK;
    int ret;

    conn_tls_clear();
    ret = SSL_do_handshake(c->ssl);
    if (ret != 1)
        r = conn_tls_result(c, ret, &c->shake_waits);
    if (r == CONN_AGAIN) {
        conn_update(c);
        return;
    }
    if (r == CONN_EOF)
        (void)err_set(&c->error, ERR_PROTO, "closed during the TLS handshake");
    if (r != CONN_OK || keep_server_name(c) < 0) {
        c->has_failed = true;
        c->end_told = true;
    }
    c->in_handshake = false;
    c->drained = false;
    c->read_waits = LOOP_READ;
    c->write_waits = LOOP_WRITE;
    conn_update(c);
    if (c->ops->secured != NULL)
        c->ops->secured(c->owner, c->has_failed ? &c->error : NULL);
    if (c->ops != NULL)
        conn_update(c);
}

static void on_io(void *arg, unsigned events)
{
    struct conn *c = arg;
    unsigned ready = 0;

    if (c->in_handshake) {
        handshake(c);
        return;
    }
    if ((events & c->read_waits) != 0) {
        c->drained = false;
        ready |= LOOP_READ;
    }
    if ((events & c->write_waits) != 0) {
        c->full = false;
        ready |= LOOP_WRITE;
        if (c->is_finishing)
            (void)conn_try_finish(c);
        else if (c->unsent.len > 0 && conn_flush(c) == CONN_ERROR)
            ready |= LOOP_READ; /* whatever it waits for, that is over */
    }
    if (c->is_lingering) {
        if (c->is_finished || c->has_failed)
            close_now(c);
        else
            conn_update(c);
        return;
    }
    tell(c, ready);
}

static void on_job(void *arg)
{
    struct conn *c = arg;

    if (c->is_corked)
        conn_uncork(c);
    if (c->is_closed) {
        mem_free(c);
    } else if (c->is_lingering) { /* the loop ends: no more time */
        conn_abort(&c);
    } else if (c->in_handshake) {
        handshake(c);
    } else if (conn_has_inner(c)) {
        tell(c, LOOP_READ);
    }
}

static void on_linger(void *arg)
{
    struct conn *c = arg;

    conn_abort(&c); /* it must not look like an end in order */
}

/* -- making and moving ---------------------------------------------------------------- */

struct conn *conn_attach(struct loop *l, struct conn_parts *take,
                         const struct conn_ops *ops, void *owner, struct err *e)
{
    struct conn *c = mem_zalloc(1, sizeof(*c));

    if (c == NULL) {
        conn_parts_done(take);
        (void)err_set(e, ERR_NOMEM, "making a connection");
        return NULL;
    }
    c->loop = l;
    c->ops = ops;
    c->owner = owner;
    c->read_waits = LOOP_READ;
    c->write_waits = LOOP_WRITE;
    c->fd = take->fd;
    c->ssl = take->ssl;
    c->unread = take->unread;
    c->unsent = take->unsent;
    *take = (struct conn_parts){.fd = -1};
    if (c->ssl != NULL) /* leaves NULL alone when the layer is on the socket itself */
        (void)BIO_get_ssl(SSL_get_rbio(c->ssl), &c->outer);
    loop_job_init(&c->job, l, on_job, c);
    loop_timer_init(&c->linger, l, on_linger, c);
    c->io = loop_io_start(l, c->fd, on_io, c, e);
    if (c->io == NULL || (c->ssl != NULL && keep_server_name(c) < 0)) {
        if (c->io != NULL && e != NULL)
            *e = c->error;
        bury(c);
        return NULL;
    }
    conn_update(c);
    return c;
}

struct conn *conn_new(struct loop *l, int *take_fd, const struct conn_ops *ops,
                      void *owner, struct err *e)
{
    struct conn_parts parts = {.fd = *take_fd};

    *take_fd = -1;
    return conn_attach(l, &parts, ops, owner, e);
}

void conn_detach(struct conn **pc, struct conn_parts *ret)
{
    struct conn *c = *pc;

    *pc = NULL;
    if (c->is_corked)
        conn_uncork(c);
    buf_drop(&c->unread, c->unread_pos);
    *ret = (struct conn_parts){
        .fd = c->fd, .ssl = c->ssl, .unread = c->unread, .unsent = c->unsent};
    loop_io_stop(&c->io); /* while the descriptor is still this thread's */
    c->fd = -1;
    c->ssl = NULL;
    c->unread = c->unsent = (struct buf)BUF_INIT;
    bury(c);
}

void conn_parts_done(struct conn_parts *p)
{
    SSL_free(p->ssl);
    sock_close(&p->fd);
    buf_done(&p->unread);
    buf_done(&p->unsent);
    *p = (struct conn_parts){.fd = -1};
}

void conn_set_owner(struct conn *c, const struct conn_ops *ops, void *owner)
{
    c->ops = ops;
    c->owner = owner;
}

/* Puts the layer `ssl` (moved to us) on top. */
static int add_layer(struct conn *c, SSL *ssl, struct err *e)
{
    BIO *bio;

    if (c->in_handshake || c->outer != NULL || c->has_failed || c->is_finishing ||
        c->is_finished)
        goto refuse;
    if (c->unread.len > c->unread_pos || c->unsent.len > 0)
        goto refuse;
    if (c->ssl == NULL) {
        if (SSL_set_fd(ssl, c->fd) != 1)
            goto no_memory;
    } else {
        bio = BIO_new(BIO_f_ssl());
        if (bio == NULL)
            goto no_memory;
        (void)BIO_set_ssl(bio, c->ssl, BIO_CLOSE);
        SSL_set_bio(ssl, bio, bio);
        c->outer = c->ssl;
    }
    c->ssl = ssl;
    c->in_handshake = true;
    c->shake_waits = 0;
    c->drained = c->full = false;
    loop_job_defer(&c->job);
    conn_update(c);
    return 0;
no_memory:
    SSL_free(ssl);
    return err_set(e, ERR_NOMEM, "starting TLS");
refuse:
    SSL_free(ssl);
    return err_set(e, ERR_PROTO, "TLS cannot start in the middle of other bytes");
}

int conn_tls_accept(struct conn *c, struct tls_ctx *ctx, struct err *e)
{
    SSL *ssl = tls_session_server(ctx, e);

    return ssl != NULL ? add_layer(c, ssl, e) : -1;
}

int conn_tls_connect(struct conn *c, struct tls_ctx *ctx, const char *name, struct err *e)
{
    size_t n = strlen(name) + 1;
    char *copy = mem_alloc(n);
    SSL *ssl;

    if (copy == NULL)
        return err_set(e, ERR_NOMEM, "starting TLS");
    memcpy(copy, name, n);
    mem_free(c->tls_name);
    c->tls_name = copy;
    ssl = tls_session_client(ctx, name, e);
    return ssl != NULL ? add_layer(c, ssl, e) : -1;
}

/* -- looking -------------------------------------------------------------------------- */

int conn_fd(const struct conn *c)
{
    return c->fd;
}

bool conn_is_tls(const struct conn *c)
{
    return c->ssl != NULL;
}

bool conn_is_bare(const struct conn *c)
{
    return c->ssl == NULL && c->unread.len == c->unread_pos && c->unsent.len == 0 &&
           !c->has_failed && !c->has_eof;
}

const char *conn_server_name(const struct conn *c)
{
    return c->server_name != NULL ? c->server_name : "";
}

const struct err *conn_error(const struct conn *c)
{
    return &c->error;
}
