/* SPDX-License-Identifier: MIT */
/**
 * http_gate -- the HTTP requests of one connection, one after the other, each to be
 *              judged by its Host before a byte of it goes on; and the responses
 *              watched beside them.
 *
 * Shape    engine without I/O. Requests are parsed strictly and written anew; what is not
 *          understood never passes. Responses pass as they are and are only followed, so
 *          that it is known which request is answered, when words of our own may stand
 *          between two answers, and whether an upgrade was taken.
 * Limits   FLOW_HEAD_MAX by HTTP1_HEAD_MAX; HTTP_GATE_DEPTH requests without their
 *          answers, then no more is taken. A response that cannot be followed is no
 *          error, but nothing of ours can be said from then on.
 */
#ifndef AGENTD_EGRESS_GUARD_HTTP_GATE_H
#define AGENTD_EGRESS_GUARD_HTTP_GATE_H

#include "common/buf.h"
#include "common/host.h"
#include "common/http1.h"

#define HTTP_GATE_DEPTH 64

enum http_gate_result {
    HTTP_GATE_MORE,    /* all was used, or more bytes are needed */
    HTTP_GATE_REQUEST, /* a head was understood: judge it, then http_gate_pass() or end */
    HTTP_GATE_WAIT,    /* a response must come first */
    HTTP_GATE_TUNNEL,  /* the connection was upgraded: bytes pass as they are */
    HTTP_GATE_ERROR,   /* see `error` */
};

struct http_gate {
    /* Of the request that was found last. */
    struct host host;   /* name "": none was sent (HTTP/1.0) */
    bool is_other_host; /* than the first request's */
    bool is_head;
    char method[24]; /* cut */
    unsigned number; /* requests found so far */
    enum http1_result error;
    const char *rule; /* which rule was broken; a literal */

    /* private */
    char first[HOST_MAX + 1]; /* host of the first request */
    unsigned state;
    struct http1_scan scan;
    struct http1_body body;
    struct buf held; /* the head, written anew, until it is judged */
    bool has_body, wants_upgrade, is_last;
    uint64_t length;
    bool is_chunked;

    uint16_t proxy_port; /* 0: requests go to the server itself */
    struct buf proxy_fields;

    unsigned waiting;   /* requests whose final response did not begin */
    uint64_t heads;     /* bit i: the i-th of them was HEAD */
    bool asked_upgrade; /* the one that waits asked for it */
    unsigned answer_state;
    struct buf answer; /* a response head so far */
    struct http1_scan answer_scan;
    struct http1_body answer_body;
};

void http_gate_init(struct http_gate *g);
void http_gate_done(struct http_gate *g);

/**
 * Requests.
 * @in   from the first byte not yet used; *ret_used says how many were. A head is used
 *       when it is whole.
 * @out  bytes for the server are appended
 */
MUST_USE enum http_gate_result http_gate_request(struct http_gate *g, struct span in,
                                                 size_t *ret_used, struct buf *out);
/** The request that was found may pass. 0, or -1 on no memory. */
MUST_USE int http_gate_pass(struct http_gate *g, struct buf *out);
/** Between HTTP_GATE_REQUEST and http_gate_pass(). */
bool http_gate_is_judging(const struct http_gate *g);
/** Would http_gate_request() say HTTP_GATE_WAIT? */
bool http_gate_is_waiting(const struct http_gate *g);
/** Requests go to a proxy, in absolute form, each with these fields (moved,
 *  wiped at the end).
 *  @port  the server's */
void http_gate_to_proxy(struct http_gate *g, uint16_t port, struct buf *take_fields);
/** Bytes of responses that pass. False: a switch of protocols that nobody asked for. */
MUST_USE bool http_gate_response(struct http_gate *g, struct span bytes);
/** Do we stand between two responses, all requests answered, so that words of our own may
 *  be sent and be understood? */
bool http_gate_may_speak(const struct http_gate *g);
/** False: it can never be spoken again. */
bool http_gate_can_follow(const struct http_gate *g);

#endif
