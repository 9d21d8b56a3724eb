/* SPDX-License-Identifier: MIT */
/**
 * link_upgrade -- an agent's upgrade request, as libwebsockets parsed it: what of it is to
 *                 be judged, and the answer to one that is refused.
 */
#ifndef TUNNELD_TUNNEL_LINK_UPGRADE_H
#define TUNNELD_TUNNEL_LINK_UPGRADE_H

#include "common/host.h"
#include "common/token.h"
#include "tunneld/tunnel/link_server.h"

struct lws;

struct link_upgrade {
    struct link_request rq; /* points at the texts below and into the wsi's TLS */
    char host[HOST_MAX + 16], auth[TOKEN_TEXT_MAX + 16];
};

/** @upgrade  the field of that name, NULL: none. 0, or -1 with *ret_no. */
int link_upgrade_read(struct lws *wsi, bool has_tls, const char *upgrade,
                      struct link_upgrade *ret, struct link_refusal *ret_no);
/** Answer in plain HTTP and hang up: the return value for libwebsockets. */
int link_upgrade_refuse(struct lws *wsi, const struct sock_addr *client,
                        const struct link_refusal *no);

#endif
