/* SPDX-License-Identifier: MIT */
/**
 * site -- what an authority or a URL means here: which sandbox and port, and how that
 *         port's own URL looks. Routing, access and rewriting all ask this one place.
 */
#ifndef TUNNELD_EDGE_SITE_H
#define TUNNELD_EDGE_SITE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/host.h"
#include "common/span.h"
#include "tunneld/config.h"

struct site_ops {
    /* NAME.domain, as struct edge_ops */
    bool (*find_name)(void *owner, const char *name, char ret_id[HOST_ID_MAX + 1],
                      uint16_t *ret_port);
    bool (*publishes)(void *owner, const char *id, uint16_t port);
};

enum site_kind {
    SITE_FOREIGN, /* not ours -> misdirected */
    SITE_APEX,    /* the domain itself */
    SITE_PREVIEW, /* a port of a sandbox, by number or by name */
    SITE_LINK,    /* the host that an agent dials */
    SITE_BAD,     /* under the domain, but neither -> no-such-preview */
};

/** Where a request goes. */
struct site {
    const struct config *conf; /* borrowed from the edge */
    const struct site_ops *ops;
    void *owner;
    enum site_kind kind;
    char host[HOST_MAX + 1]; /* canonical, as in the request */
    uint16_t host_port;      /* as sent; 0: none */
    char id[HOST_ID_MAX + 1];
    uint16_t port;
};

/** Fill what follows from the authority; conf, ops and owner are set already. */
void site_find(struct site *s, struct span authority);
/** "https://3000-id.domain/rest": the port when that is a preview of the same sandbox, and
 *  *ret_rest from the end of the authority; 0 otherwise. Over plain http only where our
 *  own URLs are that: an origin somebody on the way can speak for is not one of ours. */
uint16_t site_sibling(const struct site *s, struct span url, struct span *ret_rest);
/** "http://localhost:3000/rest", "//127.0.0.1:3000/rest": the port when the authority is
 *  this machine as a program in the sandbox sees it and the port is published; else 0. */
uint16_t site_local(const struct site *s, struct span url, struct span *ret_rest);
/** Is the text (an Origin) a preview of the same sandbox? */
bool site_is_origin(const struct site *s, struct span origin);
/** Append "https://3000-id.domain:8443", without a slash at the end. 0, or -1: no memory. */
MUST_USE int site_put_url(const struct site *s, uint16_t port, struct buf *out);
/** Does a cookie of this Domain reach further than the app may: localhost, the base domain
 *  or a parent of it? */
bool site_is_wide_domain(const struct site *s, struct span domain);

#endif
