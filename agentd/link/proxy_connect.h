/* SPDX-License-Identifier: MIT */
/**
 * proxy_connect -- ask a proxy for a connection: HTTP CONNECT (RFC 9110 9.3.6) with Basic
 *                  credentials (RFC 7617), or SOCKS5 (RFC 1928) with or without user name
 *                  and password (RFC 1929).
 *
 * Shape    engine without I/O: send what proxy_connect_output() gives, feed what comes,
 *          until PROXY_OK or an error. What the proxy sends after its yes stays with
 *          the caller: it is the target's.
 * Limits   a reply of PROXY_REPLY_MAX bytes; the deadline is the caller's.
 */
#ifndef AGENTD_LINK_PROXY_CONNECT_H
#define AGENTD_LINK_PROXY_CONNECT_H

#include "agentd/link/proxy.h"
#include "common/buf.h"
#include "common/cdefs.h"
#include "common/err.h"
#include "common/http1.h"
#include "common/sock.h"

struct proxy_target {
    const char *name; /* canonical, as proxy_url's host; lent */
    uint16_t port;
    const struct sock_addr *address; /* SOCKS: give this instead of the name; or NULL */
};

enum proxy_result {
    PROXY_OK,    /* connected to the target */
    PROXY_MORE,  /* all input was used; send the output, feed what comes */
    PROXY_ERROR, /* *e says why; the connection is of no more use */
    PROXY_NEXT,  /* as ERROR, but another address of the target may fare better */
};

struct proxy_connect {
    /* private */
    unsigned state;
    const struct proxy_url *proxy; /* borrowed until proxy_connect_done() */
    char target[PROXY_TEXT_MAX];   /* for messages */
    struct buf request;            /* SOCKS: the one that follows the greeting */
    struct buf out;
    size_t out_pos;
    struct buf in;
    struct http1_scan scan;
};

/** Append the Proxy-Authorization field with its CRLF; nothing where there are no credentials.
 *  0, or -1 on no memory. */
MUST_USE int proxy_put_basic(struct buf *out, const struct proxy_url *proxy);

/** 0, or -1 with ERR_CONFIG (credentials that the protocol cannot carry) or ERR_NOMEM. */
int proxy_connect_init(struct proxy_connect *p, const struct proxy_url *proxy,
                       const struct proxy_target *target, struct err *e);
/** Wipes and frees; fine on a zeroed struct and after a failed init. */
void proxy_connect_done(struct proxy_connect *p);

/** Bytes for the proxy, good until the next call; then say how many were sent. */
struct span proxy_connect_output(const struct proxy_connect *p);
void proxy_connect_sent(struct proxy_connect *p, size_t n);
/** Bytes from the proxy. @in is advanced past what was used. SOCKS5: bytes that come before
 *  all output was sent are an error. */
MUST_USE enum proxy_result proxy_connect_feed(struct proxy_connect *p, struct span *in,
                                              struct err *e);

#endif
