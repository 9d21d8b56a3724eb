/* SPDX-License-Identifier: MIT */
#include "common/tls.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/buf.h"
#include "common/limits.h"
#include "common/mem.h"

enum {
    ALPN_MAX = 64,
    NAME_TEXT = 65,
    STORE_MAX = 8388608 /* 220 KB in Debian */
};

struct tls_cert {
    atomic_uint refs;
    X509 *leaf;
    STACK_OF(X509) * chain; /* without the leaf */
    EVP_PKEY *key;
};

struct tls_cert_slot {
    pthread_mutex_t lock; /* guards cert, for as long as taking a reference */
    struct tls_cert *cert;
};

struct tls_ctx {
    SSL_CTX *ssl_ctx;
    uint8_t alpn[ALPN_MAX]; /* as on the wire: length, name, length, name */
    unsigned alpn_len;
};

/* -- certificates ------------------------------------------------------------------- */

/* The newest reason OpenSSL has, in words, or `fallback`. Empties its queue. */
static const char *last_reason(const char *fallback)
{
    unsigned long code = ERR_peek_last_error();
    const char *words = code != 0 ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return words != NULL ? words : fallback;
}

/* An encrypted key must fail, not ask on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's */
static int no_password(char *buf, int size, int for_write, void *arg)
{
    UNUSED_ARG(buf);
    UNUSED_ARG(size);
    UNUSED_ARG(for_write);
    UNUSED_ARG(arg);
    return -1;
}

static int load_chain(struct tls_cert *c, BIO *in)
{
    X509 *x;

    c->leaf = PEM_read_bio_X509(in, NULL, no_password, NULL);
    c->chain = sk_X509_new_null();
    if (c->leaf == NULL || c->chain == NULL)
        return -1;
    while ((x = PEM_read_bio_X509(in, NULL, no_password, NULL)) != NULL) {
        if (sk_X509_push(c->chain, x) <= 0) {
            X509_free(x);
            return -1;
        }
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return -1;
    ERR_clear_error();
    return 0;
}

struct tls_cert *tls_cert_load(const char *cert_file, const char *key_file, struct err *e)
{
    struct tls_cert *c = mem_zalloc(1, sizeof(*c));
    const char *file = cert_file, *what = "certificate";
    BIO *in;

    if (c == NULL) {
        (void)err_set(e, ERR_NOMEM, "loading %.80s", cert_file);
        return NULL;
    }
    atomic_init(&c->refs, 1);
    ERR_clear_error();
    in = BIO_new_file(cert_file, "r");
    if (in == NULL || load_chain(c, in) < 0)
        goto fail;
    BIO_free(in);
    file = key_file;
    what = "key";
    in = BIO_new_file(key_file, "r");
    if (in != NULL)
        c->key = PEM_read_bio_PrivateKey(in, NULL, no_password, NULL);
    if (c->key == NULL)
        goto fail;
    if (X509_check_private_key(c->leaf, c->key) != 1)
        goto fail;
    BIO_free(in);
    return c;
fail:
    BIO_free(in);
    (void)err_set(e, ERR_CONFIG, "%s %.100s: %s", what, file,
                  last_reason("cannot be read"));
    tls_cert_unref(c);
    return NULL;
}

struct tls_cert *tls_cert_ref(struct tls_cert *c)
{
    (void)atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_cert_unref(struct tls_cert *c)
{
    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    EVP_PKEY_free(c->key);
    mem_free(c);
}

bool tls_cert_covers(const struct tls_cert *c, const char *name)
{
    /* As browsers: the alternative names only, never the common name. */
    return X509_check_host(c->leaf, name, strlen(name),
                           X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
}

struct tls_cert_slot *tls_cert_slot_new(struct tls_cert **take_cert)
{
    struct tls_cert_slot *s = mem_zalloc(1, sizeof(*s));

    if (s == NULL) {
        tls_cert_unref(*take_cert);
    } else {
        (void)pthread_mutex_init(&s->lock,
                                 NULL); /* cannot fail with default attributes */
        s->cert = *take_cert;
    }
    *take_cert = NULL;
    return s;
}

void tls_cert_slot_free(struct tls_cert_slot *s)
{
    if (s == NULL)
        return;
    tls_cert_unref(s->cert);
    (void)pthread_mutex_destroy(&s->lock); /* fails only when locked */
    mem_free(s);
}

void tls_cert_slot_swap(struct tls_cert_slot *s, struct tls_cert **take_cert)
{
    struct tls_cert *old;

    (void)pthread_mutex_lock(&s->lock); /* fails only on misuse */
    old = s->cert;
    s->cert = *take_cert;
    (void)pthread_mutex_unlock(&s->lock);
    *take_cert = NULL;
    tls_cert_unref(old);
}

static int on_cert_wanted(SSL *ssl, void *arg)
{
    struct tls_cert_slot *s = arg;
    struct tls_cert *c;
    int ok;

    (void)pthread_mutex_lock(&s->lock);
    c = tls_cert_ref(s->cert);
    (void)pthread_mutex_unlock(&s->lock);
    ok = SSL_use_cert_and_key(ssl, c->leaf, c->key, c->chain, 1);
    tls_cert_unref(c);
    return ok == 1;
}

void tls_cert_slot_attach(struct tls_cert_slot *s, struct ssl_ctx_st *ctx)
{
    SSL_CTX_set_cert_cb(ctx, on_cert_wanted, s);
}

/* -- contexts ----------------------------------------------------------------------- */

void tls_ctx_tune(struct ssl_ctx_st *ctx)
{
    /* The texts are constants that this OpenSSL knows: neither call can fail. */
    (void)SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                        "TLS_CHACHA20_POLY1305_SHA256");
    (void)SSL_CTX_set_cipher_list(
        ctx, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
             "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
             "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305");
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static struct tls_ctx *ctx_new(const SSL_METHOD *method, struct err *e)
{
    struct tls_ctx *c = mem_zalloc(1, sizeof(*c));

    if (c == NULL) {
        (void)err_set(e, ERR_NOMEM, "making a TLS context");
        return NULL;
    }
    ERR_clear_error();
    c->ssl_ctx = SSL_CTX_new(method);
    if (c->ssl_ctx == NULL) {
        (void)err_set(e, ERR_NOMEM, "making a TLS context: %s", last_reason("no memory"));
        mem_free(c);
        return NULL;
    }
    tls_ctx_tune(c->ssl_ctx);
    /* Only here, not in contexts of others: common/conn knows that bytes may wait inside
     * the TLS layer that SSL_pending() does not count. */
    SSL_CTX_set_read_ahead(c->ssl_ctx, 1);
    SSL_CTX_set_default_read_buffer_len(c->ssl_ctx, TLS_READ_AHEAD);
    return c;
}

/* RFC 7301 3.2: our preference among what the client offers; nothing in common is fatal. */
static int on_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    const struct tls_ctx *c = arg;
    unsigned i, k;

    UNUSED_ARG(ssl);
    for (i = 0; i < c->alpn_len; i += 1u + c->alpn[i]) {
        for (k = 0; k < in_len; k += 1u + in[k]) {
            if (in_len - k > in[k] && in[k] == c->alpn[i] &&
                memcmp(in + k + 1, c->alpn + i + 1, in[k]) == 0) {
                *ret = c->alpn + i + 1;
                *ret_len = c->alpn[i];
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Any name is taken here; who may be reached by it is decided on the request. Saying OK
 * makes OpenSSL keep the name with a resumable TLS 1.2 session. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    UNUSED_ARG(ssl);
    UNUSED_ARG(alert);
    UNUSED_ARG(arg);
    return SSL_TLSEXT_ERR_OK;
}

static int set_alpn(struct tls_ctx *c, const char *const *alpn, struct err *e)
{
    for (; *alpn != NULL; alpn++) {
        size_t n = strlen(*alpn);

        if (n == 0 || n > 255 || n + 1 > ALPN_MAX - c->alpn_len)
            return err_set(e, ERR_LIMIT, "too many protocols for ALPN");
        c->alpn[c->alpn_len++] = (uint8_t)n;
        memcpy(c->alpn + c->alpn_len, *alpn, n);
        c->alpn_len += (unsigned)n;
    }
    SSL_CTX_set_alpn_select_cb(c->ssl_ctx, on_alpn, c);
    return 0;
}

struct tls_ctx *tls_ctx_server(struct tls_cert_slot *slot, const char *const *alpn,
                               struct err *e)
{
    struct tls_ctx *c = ctx_new(TLS_server_method(), e);

    if (c == NULL)
        return NULL;
    if (alpn != NULL && set_alpn(c, alpn, e) < 0) {
        tls_ctx_free(c);
        return NULL;
    }
    /* Tickets, sealed by a key of this context: nothing is kept here for a session. */
    (void)SSL_CTX_set_session_cache_mode(c->ssl_ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(c->ssl_ctx, 1); /* cannot fail */
    (void)SSL_CTX_set_tlsext_servername_callback(c->ssl_ctx, on_server_name);
    tls_cert_slot_attach(slot, c->ssl_ctx);
    return c;
}

struct tls_ctx *tls_ctx_client(const char *ca_file, struct err *e)
{
    struct tls_ctx *c = ctx_new(TLS_client_method(), e);

    if (c == NULL)
        return NULL;
    /* No store on this system is no error: ca_file may be all there is. */
    (void)SSL_CTX_set_default_verify_paths(c->ssl_ctx);
    ERR_clear_error();
    if (ca_file != NULL && SSL_CTX_load_verify_file(c->ssl_ctx, ca_file) != 1) {
        (void)err_set(e, ERR_CONFIG, "CA file %.100s: %s", ca_file,
                      last_reason("cannot be read"));
        tls_ctx_free(c);
        return NULL;
    }
    SSL_CTX_set_verify(c->ssl_ctx, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(c->ssl_ctx, SSL_SESS_CACHE_OFF);
    return c;
}

int tls_store_open(void)
{
    const char *path = getenv(X509_get_default_cert_file_env());

    return open(path != NULL ? path : X509_get_default_cert_file(), O_RDONLY | O_CLOEXEC);
}

/* The certificates of a PEM file into the context's store; how many. */
static unsigned add_trusted(SSL_CTX *ctx, struct span pem)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.len);
    X509 *x;
    unsigned n = 0;

    while (bio != NULL && (x = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)) != NULL) {
        n += X509_STORE_add_cert(store, x) == 1;
        X509_free(x);
    }
    (void)BIO_free(bio);
    ERR_clear_error(); /* the end of the file is one */
    return n;
}

static int read_store(int fd, struct buf *ret, struct err *e)
{
    ssize_t n = 1;

    while (n > 0) {
        if (buf_reserve(ret, 65536, STORE_MAX) < 0)
            return err_set(e, ERR_LIMIT,
                           "the store of trusted certificates is too large");
        n = pread(fd, ret->p + ret->len, ret->cap - ret->len, (off_t)ret->len);
        if (n < 0)
            return err_sys(e, "read the store of trusted certificates");
        ret->len += (size_t)n;
    }
    return 0;
}

struct tls_ctx *tls_ctx_client_from(int store_fd, struct err *e)
{
    AUTO(buf_done)
    struct buf pem = BUF_INIT;
    struct tls_ctx *c = NULL;

    if (read_store(store_fd, &pem, e) == 0)
        c = ctx_new(TLS_client_method(), e);
    if (c == NULL)
        return NULL;
    if (add_trusted(c->ssl_ctx, buf_span(&pem)) == 0) {
        (void)err_set(e, ERR_CONFIG, "no trusted certificates on this system");
        tls_ctx_free(c);
        return NULL;
    }
    SSL_CTX_set_verify(c->ssl_ctx, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(c->ssl_ctx, SSL_SESS_CACHE_OFF);
    return c;
}

void tls_ctx_free(struct tls_ctx *c)
{
    if (c == NULL)
        return;
    SSL_CTX_free(c->ssl_ctx);
    mem_free(c);
}

/* -- sessions ----------------------------------------------------------------------- */

struct ssl_st *tls_session_server(struct tls_ctx *c, struct err *e)
{
    SSL *ssl;

    ERR_clear_error();
    ssl = SSL_new(c->ssl_ctx);
    if (ssl == NULL)
        (void)err_set(e, ERR_NOMEM, "starting TLS: %s", last_reason("no memory"));
    else
        SSL_set_accept_state(ssl);
    return ssl;
}

/* Addresses are verified as addresses and never sent as a server name (RFC 6066 3). */
static int set_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    uint8_t ip[16];

    if (inet_pton(AF_INET, name, ip) == 1)
        return X509_VERIFY_PARAM_set1_ip(param, ip, 4);
    if (inet_pton(AF_INET6, name, ip) == 1)
        return X509_VERIFY_PARAM_set1_ip(param, ip, 16);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    /* An empty name would switch the check off, ".x" would take every name below x. */
    if (name[0] == '\0' || name[0] == '.' ||
        X509_VERIFY_PARAM_set1_host(param, name, strlen(name)) != 1)
        return 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* in OpenSSL's macro; clang tells */
    return (int)SSL_set_tlsext_host_name(ssl, name);
#pragma GCC diagnostic pop
}

struct ssl_st *tls_session_client(struct tls_ctx *c, const char *name, struct err *e)
{
    SSL *ssl;

    ERR_clear_error();
    ssl = SSL_new(c->ssl_ctx);
    if (ssl == NULL || set_name(ssl, name) != 1) {
        (void)err_set(e, ssl == NULL ? ERR_NOMEM : ERR_CONFIG, "TLS to %.64s: %s", name,
                      last_reason("not a name"));
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

/* -- why it failed ------------------------------------------------------------------ */

/* A certificate's common name, or the whole name; another's bytes, so made harmless. */
static void name_text(const X509_NAME *name, char out[NAME_TEXT])
{
    char line[256] = "";
    char *p;

    if (X509_NAME_get_text_by_NID(name, NID_commonName, line, sizeof(line)) <= 0)
        (void)X509_NAME_oneline(name, line, sizeof(line));
    (void)snprintf(out, NAME_TEXT, "%.64s", line[0] != '\0' ? line : "(no name)");
    for (p = out; *p != '\0'; p++) {
        if (!isprint((unsigned char)*p) || *p == '"')
            *p = '?';
    }
}

static int explain_verify(SSL *ssl, long why, const char *name, struct err *e)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    X509 *leaf = chain != NULL ? sk_X509_value(chain, 0) : NULL;
    char subject[NAME_TEXT] = "(none)", issuer[NAME_TEXT] = "(none)";

    if (leaf != NULL) {
        name_text(X509_get_subject_name(leaf), subject);
        name_text(X509_get_issuer_name(leaf), issuer);
    }
    switch (why) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_UNTRUSTED:
        return err_set(
            e, ERR_DENIED,
            "the certificate for %.40s was issued by %.50s, which is not trusted "
            "here (a TLS-intercepting proxy? give its CA with --ca-file)",
            name, issuer);
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return err_set(e, ERR_DENIED,
                       "the certificate is for %.50s (issued by %.50s), not "
                       "for %.64s",
                       subject, issuer, name);
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return err_set(
            e, ERR_DENIED,
            "the certificate for %.64s (issued by %.50s) %s; is the clock right?", name,
            issuer,
            why == X509_V_ERR_CERT_HAS_EXPIRED ? "has expired" : "is not valid yet");
    default:
        return err_set(e, ERR_DENIED, "the certificate for %.64s (issued by %.50s): %s",
                       name, issuer, X509_verify_cert_error_string(why));
    }
}

void tls_explain(struct ssl_st *ssl, int ret, const char *name, struct err *e)
{
    int sys = errno;
    int kind = SSL_get_error(ssl, ret);
    unsigned long code = ERR_peek_last_error();
    long verify = SSL_get_verify_result(ssl);
    /* Not SSL_is_init_finished(): a failure makes that false again. */
    bool is_open = SSL_get_peer_finished(ssl, NULL, 0) > 0;

    if (name == NULL || name[0] == '\0')
        name = "the client";
    if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
        ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK)
        (void)explain_verify(ssl, verify, name, e);
    else if (kind == SSL_ERROR_SYSCALL && sys != 0)
        (void)err_set_at(e, ERR_SYS, sys, ERR_WHERE, "TLS with %.64s: %s", name,
                         strerror(sys));
    else if (kind == SSL_ERROR_SYSCALL || kind == SSL_ERROR_ZERO_RETURN ||
             ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        (void)err_set(e, ERR_PROTO,
                      is_open ? "TLS with %.64s was cut without close_notify"
                              : "%.64s closed during the TLS handshake",
                      name);
    else if (ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER)
        (void)err_set(e, ERR_PROTO, "%.64s does not speak TLS 1.2 or 1.3 there", name);
    else
        (void)err_set(e, ERR_PROTO, "TLS with %.64s: %s", name,
                      last_reason("unknown fault"));
    ERR_clear_error();
}
