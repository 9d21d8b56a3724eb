/* SPDX-License-Identifier: MIT */
/**
 * request -- the head that goes to the app, written anew from the parsed one:
 *            hop-by-hop fields and our credentials gone, the host mode applied.
 */
#ifndef TUNNELD_EDGE_REQUEST_H
#define TUNNELD_EDGE_REQUEST_H

#include "common/control.h"
#include "common/http1.h"
#include "common/sock.h"
#include "tunneld/edge/site.h"

struct request_args {
    const struct site *site;
    enum control_host_mode mode;
    const struct sock_addr *from; /* who is at the other end of the connection */
    bool is_trusted;              /* so that what it says of its clients is believed */
    bool is_tls;
};

/** Append the head with its blank line. 0, or -1: no memory. */
MUST_USE int request_write(const struct http1_head *h, const struct request_args *a,
                           struct buf *out);
/** The client's address: `from`, or the rightmost untrusted one of X-Forwarded-For. */
void request_client(const struct http1_head *h, const struct config *conf,
                    const struct sock_addr *from, bool is_trusted, struct sock_addr *ret);

/** Append "name: value\r\n" of a parsed field. 0, or -1: no memory. */
MUST_USE int request_put_field(struct buf *out, const struct http1_field *f);

#endif
