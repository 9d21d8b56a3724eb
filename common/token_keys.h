/* SPDX-License-Identifier: MIT */
/** token_keys -- the keys that tokens are checked with: an algorithm, a key, a tenant. */
#ifndef COMMON_TOKEN_KEYS_H
#define COMMON_TOKEN_KEYS_H

#include "common/crypto.h"
#include "common/err.h"

enum token_alg {
    TOKEN_EDDSA,
    TOKEN_HS256
};

#define TOKEN_TENANT_MAX 64
#define TOKEN_HMAC_MIN   32 /* RFC 7518 3.2: as long as the hash */
#define TOKEN_HMAC_MAX   4096

struct token_key {
    char kid[64 + 1];
    enum token_alg alg;
    struct ed25519 *ed;                /* EDDSA; owned */
    struct secret hmac;                /* HS256, at least 32 bytes */
    char tenant[TOKEN_TENANT_MAX + 1]; /* "": the server's own */
};
/** The keys in force: immutable once built, shared by reference between threads. */
struct token_keys;
struct token_keys *token_keys_new(void);
/** Adds a key read from `file`; a second one with the same kid is an error. */
int token_keys_add_file(struct token_keys *k, const char *kid, enum token_alg alg,
                        const char *file, const char *tenant, struct err *e);
/** Adds the server's own key (taken). */
int token_keys_add(struct token_keys *k, const char *kid, struct ed25519 **take,
                   struct err *e);
const struct token_key *token_keys_find(const struct token_keys *k, const char *kid);
void token_keys_free(struct token_keys *k);

#endif
