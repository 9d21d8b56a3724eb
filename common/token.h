/* SPDX-License-Identifier: MIT */
/**
 * token -- JSON Web Tokens (RFC 7519, compact JWS), EdDSA (RFC 8037) and HS256 (RFC
 * 7518), the algorithm pinned to the key and never taken from the token.
 */
#ifndef COMMON_TOKEN_H
#define COMMON_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/host.h"
#include "common/token_keys.h"

enum token_aud {
    TOKEN_LINK,
    TOKEN_ACCESS
}; /* "tunnel:link", "tunnel:access" */

#define TOKEN_TEXT_MAX  8192
#define TOKEN_NAMES_MAX 16

struct token {
    enum token_aud aud;
    char sub[HOST_ID_MAX + 1];
    int64_t exp, nbf; /* seconds since 1970; nbf 0: none */
    char jti[64 + 1];
    bool has_ports;
    struct port_list ports;
    bool may_public;
    char names[TOKEN_NAMES_MAX][HOST_LABEL_MAX + 1];
    unsigned n_names;
    char tenant[TOKEN_TENANT_MAX + 1];
    char kid[64 + 1];
};

/** Checks everything: form, kid, algorithm, signature, aud (exactly `want`), exp, nbf,
 *  lifetime at most `max_ttl_s` from now, sub, tenant. 0, or -1 with ERR_DENIED and the
 *  rule in words; never a byte of the token. */
int token_verify(const struct token_keys *keys, struct span text, enum token_aud want,
                 int64_t now_s, int64_t max_ttl_s, struct token *ret, struct err *e);
/** Signs; the text, without newline, is appended to out. */
int token_sign(const struct token_key *key, const struct token *t, struct buf *out,
               struct err *e);
bool token_allows_port(const struct token *t, uint16_t port);
/** Claims without any check of the signature: for the agent, which only wants `sub` and
 *  `exp` of its own token. */
int token_peek(struct span text, struct token *ret, struct err *e);

#endif
