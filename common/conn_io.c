/* SPDX-License-Identifier: MIT */
/* Moving bytes: see conn.c for the theory. */
#include <errno.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/conn.h"
#include "common/conn_impl.h"

enum {
    RECORD_MAX = 16384, /* plaintext of a TLS record */
    SHORT_READ = 32768, /* less than OpenSSL asks the socket for: it gave all it had */
    CORK_MIN = 8192     /* bytes of a write behind which more are likely */
};

/* -- errors --------------------------------------------------------------------------- */

static enum conn_result fail_sys(struct conn *c, const char *what)
{
    (void)err_sys(&c->error, "%s: %s", what, strerror(errno));
    c->has_failed = true;
    c->end_told = true;
    return CONN_ERROR;
}

/* What a TLS call that returned `ret` means; *ret_waits only changes with CONN_AGAIN. */
enum conn_result conn_tls_result(struct conn *c, int ret, unsigned *ret_waits)
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
void conn_tls_clear(void)
{
    if (ERR_peek_error() != 0) /* clearing is slow, and done for each record */
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
    if (n == 0) {
        c->is_read_out = true;
        return CONN_EOF;
    }
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

        conn_tls_clear();
        ret = SSL_read_ex(c->ssl, p + total, cap - total, &n);
        if (ret != 1) {
            r = conn_tls_result(c, ret, &c->read_waits);
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
        conn_update(c);
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
    conn_update(c);
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
enum conn_result conn_flush(struct conn *c)
{
    enum conn_result r;
    size_t n = 0;
    int ret;

    while (c->unsent.len > 0) {
        conn_tls_clear();
        ret = SSL_write_ex(c->ssl, c->unsent.p, c->unsent.len, &n);
        if (ret != 1) {
            r = conn_tls_result(c, ret, &c->write_waits);
            c->full = r == CONN_AGAIN;
            return r == CONN_EOF ? CONN_ERROR : r;
        }
        buf_drop(&c->unsent, n);
    }
    buf_done(&c->unsent);
    c->write_waits = LOOP_WRITE;
    return CONN_OK;
}

/* OpenSSL writes record by record, and each write would go through TCP to the other side
 * and wake it. So the records of a turn are gathered. Neither call fails on TCP; on another
 * socket there is nothing to gain. */
static void cork(struct conn *c)
{
    c->is_corked = true;
    sock_cork(c->fd, true);
    loop_job_defer(&c->job);
}

void conn_uncork(struct conn *c)
{
    c->is_corked = false;
    sock_cork(c->fd, false);
}

static enum conn_result write_tls(struct conn *c, const uint8_t *p, size_t n,
                                  size_t *ret_n)
{
    enum conn_result r = CONN_OK;
    size_t total = 0, piece, got = 0;
    int ret;

    if (c->unsent.len > 0) {
        r = conn_flush(c);
        if (r != CONN_OK) {
            c->end_told |= r == CONN_ERROR;
            return r;
        }
        conn_update(c);
    }
    if (n >= CORK_MIN && !c->is_corked)
        cork(c);
    while (total < n) {
        piece = n - total < RECORD_MAX ? n - total : RECORD_MAX;
        conn_tls_clear();
        ret = SSL_write_ex(c->ssl, p + total, piece, &got);
        if (ret != 1) {
            r = conn_tls_result(c, ret, &c->write_waits);
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
        conn_update(c);
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

    conn_tls_clear();
    ret = SSL_shutdown(ssl);
    if (ret < 0 && SSL_get_error(ssl, ret) == SSL_ERROR_WANT_WRITE)
        return CONN_AGAIN;
    ERR_clear_error(); /* a layer that cannot say good-bye any more does without */
    return CONN_OK;
}

/* True when our direction has ended, or never will. */
bool conn_try_finish(struct conn *c)
{
    if (c->unsent.len > 0 && conn_flush(c) == CONN_AGAIN)
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
    (void)conn_try_finish(c); /* otherwise on_io() goes on */
    conn_update(c);
}
