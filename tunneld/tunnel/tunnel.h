/* SPDX-License-Identifier: MIT */
/**
 * tunnel -- what admission, sessions and the registry of one worker work with, and the
 *           admission itself: who may link.
 *
 * Owner    the worker; `conf` and `keys` change only between callbacks, after a reload.
 */
#ifndef TUNNELD_TUNNEL_TUNNEL_H
#define TUNNELD_TUNNEL_TUNNEL_H

#include "common/loop.h"
#include "common/mux.h"
#include "common/token.h"
#include "tunneld/config.h"
#include "tunneld/directory.h"
#include "tunneld/tunnel/link_server.h"
#include "tunneld/tunnel/registry.h"

struct tunnel {
    struct loop *loop; /* all borrowed from the worker */
    const struct config *conf;
    const struct token_keys *keys;
    struct directory *directory;
    struct registry *registry;
    struct mux_budget budget;
    bool is_draining;
};

/** May this request become a link? 0 with *ret_token, or -1 with *ret.
 *  Server name = Host = the token's sub; the id belongs to the token's tenant. */
int admit(struct tunnel *t, const struct link_request *rq, int64_t now_s,
          struct token *ret_token, struct link_refusal *ret);

#endif
