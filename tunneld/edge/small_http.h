/* SPDX-License-Identifier: MIT */
/**
 * small_http -- one request, one answer, close: for the admin and the redirect listener.
 *
 * Owner    owns its socket and connections. All of the main thread.
 * Limits   SMALL_HTTP_CONNS, SMALL_HTTP_HEAD, HEAD_MS for the request, as much for the rest.
 */
#ifndef TUNNELD_EDGE_SMALL_HTTP_H
#define TUNNELD_EDGE_SMALL_HTTP_H

#include "common/buf.h"
#include "common/err.h"
#include "common/http1.h"
#include "common/loop.h"

struct small_http;

struct small_http_answer {
    unsigned status;
    const char *type;  /* literal; NULL: text/plain */
    struct buf fields; /* whole further field lines, with CRLF */
    struct buf body;
};
/** Fill *ret. The request was valid; its body, if any, is not read. 0, or -1: no memory
 *  (500 is answered). */
typedef int small_http_fn(void *arg, const struct http1_head *rq,
                          struct small_http_answer *ret);

/** Serves the listening socket from now on; takes it in all cases. */
struct small_http *small_http_new(struct loop *l, int *take_fd, small_http_fn *fn,
                                  void *arg, struct err *e);
/** Closes all; NULL is fine. */
void small_http_free(struct small_http *h);

#endif
