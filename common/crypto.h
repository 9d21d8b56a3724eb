/* SPDX-License-Identifier: MIT */
/**
 * crypto -- the few primitives we need, all from OpenSSL.
 */
#ifndef COMMON_CRYPTO_H
#define COMMON_CRYPTO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base64.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/secret.h"
#include "common/span.h"

/** From the kernel; aborts the process if the kernel has none (never seen). */
void crypto_random(void *p, size_t n);
/** Uniform in 0..n-1; n >= 1. For jitter and shuffling too. */
uint32_t crypto_random_below(uint32_t n);

/** Compares in time that depends on the lengths only. */
bool crypto_equal(struct span a, struct span b);

void crypto_sha1(struct span in, uint8_t out[20]);
void crypto_sha256(struct span in, uint8_t out[32]);
void crypto_hmac_sha256(struct span key, struct span in, uint8_t out[32]);
/** HKDF-SHA256 with a label, 32 bytes out. 0 or -1. */
int crypto_derive(struct span secret, const char *label, uint8_t out[32]);
/** AES-256-GCM with a random nonce: nonce | ciphertext | tag appended to out. */
int crypto_seal(const uint8_t key[32], struct span aad, struct span plain,
                struct buf *out);
/** -1: not ours, changed, or for other aad. */
int crypto_open(const uint8_t key[32], struct span aad, struct span sealed,
                struct buf *out);

/** An Ed25519 key pair or public key. */
struct ed25519;
struct ed25519 *ed25519_generate(struct err *e);
/** PEM, private (PKCS#8) or public (SPKI). */
struct ed25519 *ed25519_load(const char *path, struct err *e);
/** Private key as PEM, created 0600 with O_EXCL. */
int ed25519_save(const struct ed25519 *k, const char *path, struct err *e);
void ed25519_free(struct ed25519 *k);
bool ed25519_can_sign(const struct ed25519 *k);
int ed25519_sign(const struct ed25519 *k, struct span in, uint8_t out[64]);
bool ed25519_verify(const struct ed25519 *k, struct span in, struct span sig);
/** The raw public key (RFC 8032), for a key id. 0 or -1. */
int ed25519_public(const struct ed25519 *k, uint8_t out[32]);
/** A secret derived from the private key, for sealing cookies. */
int ed25519_derive(const struct ed25519 *k, const char *label, uint8_t out[32]);

#endif
