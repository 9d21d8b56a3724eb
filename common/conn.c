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
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/limits.h"
#include "common/mem.h"

enum {
    RECORD_MAX = 16384, /* plaintext of a TLS record */
    SHORT_READ = 8192,  /* less than OpenSSL asks the socket for: it gave all it had */
    DRAIN_ROUNDS = 4
};

struct conn {
    struct loop *loop;
    int fd;
    struct loop_io *io;
    const struct conn_ops *ops; /* NULL: closed or detached */
    void *owner;
    SSL *ssl;   /* the innermost layer, that we read and write; NULL: plain */
    SSL *outer; /* the layer below it, owned by its BIO; or NULL */
    unsigned want;
    unsigned read_waits, write_waits; /* the event each direction needs to go on */
    unsigned shake_waits;
    bool in_handshake, is_finishing, is_finished, is_lingering, is_closed;
    bool drained,
        full; /* the socket has no more, takes no more, until the poll says so */
    bool has_failed, has_eof;
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
static bool has_inner_bytes(const struct conn *c)
{
    return c->unread.len > c->unread_pos ||
           ((c->has_failed || c->has_eof) && !c->end_told) || tls_has_bytes(c);
}

static void update(struct conn *c)
{
    unsigned events = 0;

    if (c->is_closed)
        return;
    if (c->in_handshake) {
        events = c->shake_waits;
    } else {
        events |= (c->want & LOOP_READ) != 0 ? c->read_waits : 0;
        events |= (c->want & LOOP_WRITE) != 0 ? c->write_waits : 0;
        if ((c->unsent.len > 0 || c->is_finishing) && !c->has_failed)
            events |= LOOP_WRITE;
        if ((c->want & LOOP_READ) != 0 && has_inner_bytes(c))
            loop_job_defer(&c->job);
    }
    loop_io_want(c->io, events);
}

void conn_want(struct conn *c, unsigned events)
{
    c->want = events;
    update(c);
}

/* -- errors --------------------------------------------------------------------------- */

static enum conn_result fail_sys(struct conn *c, const char *what)
{
    (void)err_sys(&c->error, "%s: %s", what, strerror(errno));
    c->has_failed = true;
    c->end_told = true;
    return CONN_ERROR;
}

/* What a TLS call that returned `ret` means; *ret_waits only changes with CONN_AGAIN. */
static enum conn_result tls_result(struct conn *c, int ret, unsigned *ret_waits)
{
    switch (SSL_get_error(c->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
        *ret_waits = LOOP_READ;
        return CONN_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        *ret_waits = LOOP_WRITE;
        return CONN_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        c->has_eof = true;
        return CONN_EOF;
    default:
        tls_explain(c->ssl, ret, c->tls_name, &c->error);
        c->has_failed = true;
        return CONN_ERROR;
    }
}

/* OpenSSL judges by the thread's error queue and errno: nothing old may be in them. */
static void tls_clear(void)
{
    ERR_clear_error();
    errno = 0;
}

/* -- reading -------------------------------------------------------------------------- */

static enum conn_result read_unread(struct conn *c, void *p, size_t cap, size_t *ret_n)
{
    size_t have = c->unread.len - c->unread_pos;
    size_t n = have < cap ? have : cap;

    memcpy(p, c->unread.p + c->unread_pos, n);
    c->unread_pos += n;
    if (n == have) {
        buf_done(&c->unread);
        c->unread_pos = 0;
    }
    *ret_n = n;
    return CONN_OK;
}

static enum conn_result read_plain(struct conn *c, void *p, size_t cap, size_t *ret_n)
{
    ssize_t n;

    do {
        n = recv(c->fd, p, cap, 0);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        return CONN_EOF;
    if (n < 0 && errno != EAGAIN)
        return fail_sys(c, "read");
    c->drained = n < 0 || (size_t)n < cap;
    if (n < 0)
        return CONN_AGAIN;
    *ret_n = (size_t)n;
    return CONN_OK;
}

static enum conn_result read_tls(struct conn *c, uint8_t *p, size_t cap, size_t *ret_n)
{
    BIO *bio = SSL_get_rbio(c->ssl);
    uint64_t before = BIO_number_read(bio);
    enum conn_result r = CONN_OK;
    size_t total = 0, n = 0;

    c->read_waits = LOOP_READ;
    while (total < cap) {
        int ret;

        tls_clear();
        ret = SSL_read_ex(c->ssl, p + total, cap - total, &n);
        if (ret != 1) {
            r = tls_result(c, ret, &c->read_waits);
            c->drained = r == CONN_AGAIN;
            break;
        }
        total += n;
        if (SSL_has_pending(c->ssl) != 1) {
            c->drained = c->outer == NULL && BIO_number_read(bio) - before < SHORT_READ;
            break;
        }
    }
    if (total > 0) {
        *ret_n = total;
        return CONN_OK; /* an end or failure is told by the next call */
    }
    c->end_told = r != CONN_AGAIN;
    if (c->read_waits != LOOP_READ)
        update(c);
    return r;
}

enum conn_result conn_read(struct conn *c, void *p, size_t cap, size_t *ret_n)
{
    if (cap == 0 || c->in_handshake)
        return CONN_AGAIN;
    if (c->unread.len > c->unread_pos)
        return read_unread(c, p, cap, ret_n);
    if (c->has_failed || c->has_eof) {
        c->end_told = true;
        return c->has_failed ? CONN_ERROR : CONN_EOF;
    }
    if (c->drained)
        return CONN_AGAIN;
    return c->ssl != NULL ? read_tls(c, p, cap, ret_n) : read_plain(c, p, cap, ret_n);
}

int conn_unread(struct conn *c, struct span bytes)
{
    struct buf b = BUF_INIT;
    struct span rest = span_skip(buf_span(&c->unread), c->unread_pos);

    if (bytes.len == 0)
        return 0;
    if (buf_reserve(&b, bytes.len + rest.len, SIZE_MAX) < 0 ||
        buf_add(&b, bytes.p, bytes.len) < 0 || buf_add(&b, rest.p, rest.len) < 0) {
        buf_done(&b);
        return -1;
    }
    buf_done(&c->unread);
    c->unread = b;
    c->unread_pos = 0;
    update(c);
    return 0;
}

/* -- writing -------------------------------------------------------------------------- */

static enum conn_result write_plain(struct conn *c, const void *p, size_t n,
                                    size_t *ret_n)
{
    ssize_t sent;

    do {
        sent = send(c->fd, p, n, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN)
        return fail_sys(c, "write");
    c->full = sent < 0 || (size_t)sent < n;
    if (sent < 0)
        return CONN_AGAIN;
    *ret_n = (size_t)sent;
    return CONN_OK;
}

/* Sends on what was taken before. CONN_OK: nothing is left. */
static enum conn_result flush(struct conn *c)
{
    enum conn_result r;
    size_t n = 0;
    int ret;

    while (c->unsent.len > 0) {
        tls_clear();
        ret = SSL_write_ex(c->ssl, c->unsent.p, c->unsent.len, &n);
        if (ret != 1) {
            r = tls_result(c, ret, &c->write_waits);
            c->full = r == CONN_AGAIN;
            return r == CONN_EOF ? CONN_ERROR : r;
        }
        buf_drop(&c->unsent, n);
    }
    buf_done(&c->unsent);
    c->write_waits = LOOP_WRITE;
    return CONN_OK;
}

static enum conn_result write_tls(struct conn *c, const uint8_t *p, size_t n,
                                  size_t *ret_n)
{
    enum conn_result r = CONN_OK;
    size_t total = 0, piece, got = 0;
    int ret;

    if (c->unsent.len > 0) {
        r = flush(c);
        if (r != CONN_OK) {
            c->end_told |= r == CONN_ERROR;
            return r;
        }
        update(c);
    }
    while (total < n) {
        piece = n - total < RECORD_MAX ? n - total : RECORD_MAX;
        tls_clear();
        ret = SSL_write_ex(c->ssl, p + total, piece, &got);
        if (ret != 1) {
            r = tls_result(c, ret, &c->write_waits);
            break;
        }
        total += got;
    }
    if (r == CONN_AGAIN) {
        c->full = true;
        if (buf_add(&c->unsent, p + total, piece) < 0) {
            (void)err_set(&c->error, ERR_NOMEM, "keeping a TLS record");
            c->has_failed = true;
            r = CONN_ERROR;
        } else {
            total += piece;
        }
        update(c);
    }
    if (total > 0) {
        *ret_n = total;
        return CONN_OK;
    }
    c->end_told |= r == CONN_ERROR;
    return r;
}

enum conn_result conn_write(struct conn *c, const void *p, size_t n, size_t *ret_n)
{
    if (c->in_handshake)
        return CONN_AGAIN;
    if (c->has_failed) {
        c->end_told = true;
        return CONN_ERROR;
    }
    if (c->is_finishing || c->is_finished) {
        (void)err_set(&c->error, ERR_PROTO, "written after the end");
        return CONN_ERROR;
    }
    if (n == 0) {
        *ret_n = 0;
        return CONN_OK;
    }
    if (c->full)
        return CONN_AGAIN;
    return c->ssl != NULL ? write_tls(c, p, n, ret_n) : write_plain(c, p, n, ret_n);
}

/* -- ending --------------------------------------------------------------------------- */

/* close_notify of one layer. CONN_AGAIN: the socket is full, call again. */
static enum conn_result shut_layer(SSL *ssl)
{
    int ret;

    tls_clear();
    ret = SSL_shutdown(ssl);
    if (ret < 0 && SSL_get_error(ssl, ret) == SSL_ERROR_WANT_WRITE)
        return CONN_AGAIN;
    ERR_clear_error(); /* a layer that cannot say good-bye any more does without */
    return CONN_OK;
}

/* True when our direction has ended, or never will. */
static bool finish(struct conn *c)
{
    if (c->unsent.len > 0 && flush(c) == CONN_AGAIN)
        return false;
    if (c->ssl != NULL && !c->has_failed) {
        if (c->shut_layers == 0) {
            if (shut_layer(c->ssl) == CONN_AGAIN)
                return false;
            c->shut_layers++;
        }
        if (c->shut_layers == 1 && c->outer != NULL) {
            if (shut_layer(c->outer) == CONN_AGAIN)
                return false;
            c->shut_layers++;
        }
    }
    (void)shutdown(c->fd, SHUT_WR); /* fails only when the other side is gone already */
    c->is_finishing = false;
    c->is_finished = true;
    return true;
}

void conn_finish(struct conn *c)
{
    if (c->in_handshake || c->is_finishing || c->is_finished)
        return;
    c->is_finishing = true;
    (void)finish(c); /* otherwise on_io() goes on */
    update(c);
}

/* Leaves nothing but the memory, which the job frees: a callback of ours may be below us
 * on the stack. */
static void bury(struct conn *c)
{
    c->is_closed = true;
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
    uint8_t scratch[RECORD_MAX];
    int i;

    for (i = 0; i < DRAIN_ROUNDS; i++) {
        if (recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT) < (ssize_t)sizeof(scratch))
            return;
    }
}

static void close_now(struct conn *c)
{
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
    if (!c->is_finishing || finish(c) || c->has_failed) {
        close_now(c);
        return;
    }
    c->is_lingering = true;
    loop_timer_start(&c->linger, CONN_LINGER_MS);
    loop_job_at_end(&c->job);
    update(c);
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
        update(c);
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

    tls_clear();
    ret = SSL_do_handshake(c->ssl);
    if (ret != 1)
        r = tls_result(c, ret, &c->shake_waits);
    if (r == CONN_AGAIN) {
        update(c);
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
    update(c);
    if (c->ops->secured != NULL)
        c->ops->secured(c->owner, c->has_failed ? &c->error : NULL);
    if (c->ops != NULL)
        update(c);
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
            (void)finish(c);
        else if (c->unsent.len > 0 && flush(c) == CONN_ERROR)
            ready |= LOOP_READ; /* whatever it waits for, that is over */
    }
    if (c->is_lingering) {
        if (c->is_finished || c->has_failed)
            close_now(c);
        else
            update(c);
        return;
    }
    tell(c, ready);
}

static void on_job(void *arg)
{
    struct conn *c = arg;

    if (c->is_closed) {
        mem_free(c);
    } else if (c->is_lingering) { /* the loop ends: no more time */
        conn_abort(&c);
    } else if (c->in_handshake) {
        handshake(c);
    } else if (has_inner_bytes(c)) {
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
    update(c);
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
    update(c);
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

const char *conn_server_name(const struct conn *c)
{
    return c->server_name != NULL ? c->server_name : "";
}

const struct err *conn_error(const struct conn *c)
{
    return &c->error;
}
