/* SPDX-License-Identifier: MIT */
/**
 * response -- the head that goes to the client, written anew from the app's:
 *             hop-by-hop fields and what only we may say gone, URLs of this machine
 *             turned into previews.
 */
#ifndef TUNNELD_EDGE_RESPONSE_H
#define TUNNELD_EDGE_RESPONSE_H

#include "common/control.h"
#include "common/http1.h"
#include "tunneld/edge/site.h"

struct response_args {
    const struct site *site;
    enum control_host_mode mode;
    enum http1_framing framing; /* of what we send, not of what came */
    uint8_t client_minor;       /* HTTP/1.0 or 1.1 */
    bool keep_alive;            /* the client's connection goes on */
    struct span origin;         /* of the request; empty: none */
};

/** Append the head with its blank line; 1xx, 101 included, too. 0, or -1: no memory. */
MUST_USE int response_write(const struct http1_head *h, const struct response_args *a,
                            struct buf *out);

#endif
