/* SPDX-License-Identifier: MIT */
/**
 * tls -- OpenSSL contexts and certificates, and errors a person can act on.
 *
 * TLS 1.2 at least, TLS 1.3 with AES-128-GCM first, no renegotiation, no compression,
 * SSL_MODE_RELEASE_BUFFERS | PARTIAL_WRITE | MOVING_WRITE_BUFFER.
 */
#ifndef COMMON_TLS_H
#define COMMON_TLS_H

#include "common/err.h"
#include "common/span.h"

struct ssl_ctx_st;
struct ssl_st;

/** A certificate chain and its key. Immutable, reference counted, thread-safe. */
struct tls_cert;
/** Reads PEM files, checks that key and certificate match. NULL with *e naming the file. */
struct tls_cert *tls_cert_load(const char *cert_file, const char *key_file,
                               struct err *e);
struct tls_cert *tls_cert_ref(struct tls_cert *c);
void tls_cert_unref(struct tls_cert *c);
/** Does the certificate cover this DNS name ("a.example.com" or "*.example.com")? */
bool tls_cert_covers(const struct tls_cert *c, const char *name);

/**
 * The certificate in force: a place that many SSL_CTX look at for each handshake, so that
 * a reload reaches them all, libwebsockets' included. Thread-safe.
 */
struct tls_cert_slot;
struct tls_cert_slot *tls_cert_slot_new(struct tls_cert **take_cert);
void tls_cert_slot_free(struct tls_cert_slot *s);
void tls_cert_slot_swap(struct tls_cert_slot *s, struct tls_cert **take_cert);
/** Make this context ask the slot (SSL_CTX_set_cert_cb). The slot outlives the context. */
void tls_cert_slot_attach(struct tls_cert_slot *s, struct ssl_ctx_st *ctx);

/** A context, shared by threads. */
struct tls_ctx;
/** @alpn  protocols we speak, first preferred, e.g. {"http/1.1", NULL}; NULL: none asked. */
struct tls_ctx *tls_ctx_server(struct tls_cert_slot *slot, const char *const *alpn,
                               struct err *e);
/** Verifies the chain against the system's store, and `ca_file` as well unless NULL. */
struct tls_ctx *tls_ctx_client(const char *ca_file, struct err *e);
/** The file of the system's store, for who will not be able to open it later; -1: none. */
int tls_store_open(void);
/** As tls_ctx_client(), with what is trusted read from `store_fd` (borrowed). */
struct tls_ctx *tls_ctx_client_from(int store_fd, struct err *e);
void tls_ctx_free(struct tls_ctx *c);
/** Apply our modes, versions and ciphers to a context somebody else made (libwebsockets). */
void tls_ctx_tune(struct ssl_ctx_st *ctx);

/** For common/conn only. @name: DNS name or address to send (name only) and verify. */
struct ssl_st *tls_session_server(struct tls_ctx *c, struct err *e);
struct ssl_st *tls_session_client(struct tls_ctx *c, const char *name, struct err *e);
/** Words for why a handshake or I/O with `ret` failed; names the issuer when the
 *  certificate is not trusted: "the certificate for X was issued by Y, which is not
 *  trusted here (a TLS-intercepting proxy? give its CA with --ca-file)". */
void tls_explain(struct ssl_st *ssl, int ret, const char *name, struct err *e);

#endif
