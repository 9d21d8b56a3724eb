/* SPDX-License-Identifier: MIT */
/** upgrade -- the HTTP/1.1 request that makes a connection a link's WebSocket (RFC 6455
 * 4), and what its answer means. Pure functions. */
#ifndef AGENTD_LINK_UPGRADE_H
#define AGENTD_LINK_UPGRADE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/http1.h"
#include "common/span.h"

#define UPGRADE_KEY_LEN 24

struct upgrade_request {
    const char *host; /* the Host field: with the port where it is not the scheme's */
    struct span token;
};
/** Appends the request; its random key goes to ret_key. 0, or -1 with ERR_CONFIG (a token
 *  with a byte that no token has) or ERR_NOMEM. The caller wipes the buffer. */
int upgrade_print(const struct upgrade_request *r, struct buf *out,
                  char ret_key[UPGRADE_KEY_LEN + 1], struct err *e);

struct upgrade_answer {
    bool is_refused;         /* 401 or 403: the token */
    uint32_t retry_after_ms; /* 0: not said; at most RETRY_AFTER_MAX_MS */
};
/** 0: the WebSocket is open; -1 with *ret filled and *e: ERR_DENIED (token), ERR_LIMIT
 *  (429), ERR_NOTFOUND (5xx), ERR_PROTO. */
int upgrade_judge(const struct http1_head *h, const char key[UPGRADE_KEY_LEN + 1],
                  struct upgrade_answer *ret, struct err *e);

#endif
