/* SPDX-License-Identifier: MIT */
/**
 * classify -- whose is a connection, from its first bytes, taking no part in it: the server
 *             name of a ClientHello, the Host of a plaintext request.
 *
 * Shape    engine without I/O. Looks at the same first bytes again and again as they grow.
 * Limits   CLIENTHELLO_MAX, CLASSIFY_HEAD_MAX.
 */
#ifndef TUNNELD_EDGE_CLASSIFY_H
#define TUNNELD_EDGE_CLASSIFY_H

#include "common/host.h"
#include "common/http1.h"
#include "common/span.h"

enum classify_result {
    CLASSIFY_READY,   /* *ret_route says whose; FOREIGN, BAD, APEX: nobody's, any edge */
    CLASSIFY_MORE,    /* look again when there are *ret_need bytes */
    CLASSIFY_NOT_TLS, /* on a TLS listener */
    CLASSIFY_BAD,     /* a broken or too big ClientHello */
};

/** @ret_need  more than bytes.len; what the next useful look needs at least */
enum classify_result classify_tls(struct span bytes, const char *domain,
                                  const char *control_host, struct host_route *ret_route,
                                  size_t *ret_need);
/** @scan  zeroed for a new connection. What is no valid head, or too long to look at, is
 *  READY and nobody's: the edge answers it. */
enum classify_result classify_plain(struct http1_scan *scan, struct span bytes,
                                    const char *domain, const char *control_host,
                                    struct host_route *ret_route, size_t *ret_need);

#endif
