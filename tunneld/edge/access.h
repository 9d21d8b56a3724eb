/* SPDX-License-Identifier: MIT */
/**
 * access -- may this request see this preview, and how our credentials are taken off it.
 *
 * Credentials: an access token in `?_tunnel=` or in X-Tunnel-Token, and the
 * cookie `__Host-tunnel`, sealed and bound to the host it was given for.
 *
 * Cookie   b64url(seal(key, aad = host, plain)); plain is
 *            | 1 | exp 8 | len sub | len tenant | 255: any port, else n, n x (first 2, last 2) |
 *          big-endian. It counts only where no other site can have sent it.
 */
#ifndef TUNNELD_EDGE_ACCESS_H
#define TUNNELD_EDGE_ACCESS_H

#include "common/http1.h"
#include "common/token.h"
#include "tunneld/edge/site.h"

#define ACCESS_COOKIE "__Host-tunnel"
#define ACCESS_QUERY  "_tunnel"

struct access_keys {
    const struct token_keys *tokens;
    const uint8_t *cookie_key; /* 32 bytes */
};

enum access_kind {
    ACCESS_NONE,      /* -> login-required, unless the port is public */
    ACCESS_FORBIDDEN, /* known, but not for this port -> forbidden */
    ACCESS_OK,
    ACCESS_ENTER,     /* a token in the query: 303 to the URL without it */
    ACCESS_PREFLIGHT, /* a CORS preflight from another port of the sandbox */
};

struct access {
    enum access_kind kind;
    bool sets_cookie;                  /* ENTER: put the token's access into a cookie */
    char tenant[TOKEN_TENANT_MAX + 1]; /* whose key it was; "": the server's own */
    struct port_list ports;
    bool has_ports;
};

void access_decide(const struct access_keys *k, const struct site *s,
                   const struct http1_head *h, int64_t now_s, struct access *ret);
/** Is the access of a key of tenant `mine` good for a sandbox of tenant `owner`? */
bool access_tenant_is_ok(const char *mine, const char *owner);
/** Append the cookie's sealed value. 0, or -1: no memory. */
MUST_USE int access_put_cookie(const struct access_keys *k, const struct site *s,
                               const struct access *a, int64_t now_s, struct buf *out);

/** Append the target without our parameter. */
MUST_USE int access_put_target(struct span target, struct buf *out);
bool access_target_has_token(struct span target);
/** Append a Cookie value without ours; *ret_n bytes were added (0: nothing is left). */
MUST_USE int access_put_cookies(struct span value, struct buf *out, size_t *ret_n);
/** Would this Set-Cookie value set ours? */
bool access_is_our_cookie(struct span set_cookie);
/** Navigation as the browser itself says (scripts cannot set Sec-Fetch-*). */
bool access_is_navigation(const struct http1_head *h);

#endif
