/* SPDX-License-Identifier: MIT */
/**
 * http1 -- HTTP/1.1 messages, strictly (RFC 9112): refuse, never repair.
 *
 * Shape    engine without I/O. A head is found by a scanner that never looks at a byte
 *          twice, then parsed once, in place, into spans of the caller's buffer. A body
 *          is decoded in place, piece by piece.
 * Limits   HTTP1_HEAD_MAX bytes, HTTP1_FIELDS_MAX fields and as many members of Connection,
 *          HTTP1_TARGET_MAX.
 */
#ifndef COMMON_HTTP1_H
#define COMMON_HTTP1_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/cdefs.h"
#include "common/limits.h"
#include "common/span.h"

enum http1_result {
    HTTP1_OK,
    HTTP1_MORE,
    /* from here on: errors; http1_rule() says which rule, with its RFC section */
    HTTP1_E_SYNTAX,  /* bare LF or CR, NUL, obs-fold, bad token, space before colon... */
    HTTP1_E_VERSION, /* not HTTP/1.0 or 1.1 */
    HTTP1_E_TARGET_BIG, /* -> 414 */
    HTTP1_E_FIELDS_BIG, /* head over the bound or too many fields -> 431 */
    HTTP1_E_FRAMING,    /* two lengths, length with coding, bad length, bad coding */
    HTTP1_E_HOST,       /* none (1.1), two, or not a valid authority */
    HTTP1_E_TARGET,     /* absolute- or authority-form, or a byte no target has */
    HTTP1_E_CHUNK,      /* chunk size with sign, 0x, over 16 digits, missing CRLF... */
    HTTP1_E_CUT,        /* ended in the middle */
    HTTP1_E_NOMEM,      /* no memory for a trailer section */
};
const char *http1_result_name(enum http1_result r);

/** Field names that the code asks for, found in parsing; HTTP1_OTHER for all else. */
#define HTTP1_FIELD_MAP(X)                                                               \
    X(HOST, "host")                                                                      \
    X(CONTENT_LENGTH, "content-length")                                                  \
    X(TRANSFER_ENCODING, "transfer-encoding")                                            \
    X(CONNECTION, "connection")                                                          \
    X(KEEP_ALIVE, "keep-alive")                                                          \
    X(PROXY_CONNECTION, "proxy-connection")                                              \
    X(PROXY_AUTHENTICATE, "proxy-authenticate")                                          \
    X(PROXY_AUTHORIZATION, "proxy-authorization")                                        \
    X(TE, "te")                                                                          \
    X(TRAILER, "trailer")                                                                \
    X(UPGRADE, "upgrade")                                                                \
    X(HTTP2_SETTINGS, "http2-settings")                                                  \
    X(EXPECT, "expect")                                                                  \
    X(COOKIE, "cookie")                                                                  \
    X(SET_COOKIE, "set-cookie")                                                          \
    X(ORIGIN, "origin")                                                                  \
    X(REFERER, "referer")                                                                \
    X(LOCATION, "location")                                                              \
    X(CONTENT_LOCATION, "content-location")                                              \
    X(REFRESH, "refresh")                                                                \
    X(ACCESS_CONTROL_ALLOW_ORIGIN, "access-control-allow-origin")                        \
    X(ACCESS_CONTROL_REQUEST_METHOD, "access-control-request-method")                    \
    X(ACCEPT, "accept")                                                                  \
    X(AUTHORIZATION, "authorization")                                                    \
    X(SEC_FETCH_MODE, "sec-fetch-mode")                                                  \
    X(SEC_FETCH_DEST, "sec-fetch-dest")                                                  \
    X(SEC_FETCH_SITE, "sec-fetch-site")                                                  \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key")                                            \
    X(SEC_WEBSOCKET_ACCEPT, "sec-websocket-accept")                                      \
    X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol")                                  \
    X(FORWARDED, "forwarded")                                                            \
    X(X_FORWARDED_FOR, "x-forwarded-for")                                                \
    X(X_FORWARDED_PROTO, "x-forwarded-proto")                                            \
    X(X_FORWARDED_HOST, "x-forwarded-host")                                              \
    X(X_FORWARDED_PORT, "x-forwarded-port")                                              \
    X(X_FORWARDED_SERVER, "x-forwarded-server")                                          \
    X(X_REAL_IP, "x-real-ip")                                                            \
    X(X_TUNNEL_TOKEN, "x-tunnel-token")                                                  \
    X(TUNNEL_ERROR, "tunnel-error")                                                      \
    X(TUNNEL_PUBLIC_URL, "tunnel-public-url")                                            \
    X(RETRY_AFTER, "retry-after")
#define HTTP1_FIELD_ENUM(id, name) HTTP1_##id,
enum http1_field_id {
    HTTP1_OTHER,
    HTTP1_FIELD_MAP(HTTP1_FIELD_ENUM) HTTP1_FIELD_COUNT
};

struct http1_field {
    enum http1_field_id id;
    struct span name, value; /* value without surrounding white space */
};

struct http1_head {
    bool is_request;
    uint8_t minor;              /* HTTP/1.minor: 0 or 1 */
    struct span method, target; /* request; target is origin-form, or "*" for OPTIONS */
    unsigned status;            /* response: 100..999 */
    struct span reason;
    struct http1_field field[HTTP1_FIELDS_MAX];
    unsigned n_fields;
    size_t len; /* bytes of the head with its blank line */

    /* Decided from the fields (6.1 to 6.3, 9.3, 7.8 of RFC 9110) */
    bool keep_alive; /* the connection may go on after this message; false for a response
                        whose body ends with the connection */
    bool is_chunked;
    bool has_length;
    uint64_t length;
    bool wants_upgrade; /* Connection: upgrade, and an Upgrade field that is not h2c */
};

/** Where the scanner stands; zero it for each new head. */
struct http1_scan {
    size_t pos;
    size_t line; /* start of the current line */
};
/**
 * Find the end of the head in `bytes` (from the head's first byte; the buffer may have
 * moved since the last call). Reports syntax that no later byte can mend at once.
 * HTTP1_OK with *ret_len, HTTP1_MORE, or an error. Cost over a head: O(its length).
 */
enum http1_result http1_scan(struct http1_scan *s, struct span bytes, size_t *ret_len);
/** Parse a whole head, bytes.len as http1_scan() gave it. Spans point into `bytes`. */
enum http1_result http1_parse_request(struct span bytes, struct http1_head *ret);
enum http1_result http1_parse_response(struct span bytes, struct http1_head *ret);
/** The rule that the last parse on this thread broke: a literal, "two Host fields (RFC
 *  9112 3.2)". For logs. */
const char *http1_rule(void);

/** The first field with that id, or NULL. */
const struct http1_field *http1_find(const struct http1_head *h, enum http1_field_id id);
/** Is `token` in the comma list of every such field (case-insensitive)? */
bool http1_has_token(const struct http1_head *h, enum http1_field_id id,
                     const char *token);
/** Hop-by-hop: of the fixed set (RFC 9110 7.6.1), or named by Connection, which cannot
 * name Host or Content-Length. Trailer is not: trailers are passed on. */
bool http1_is_hop(const struct http1_head *h, const struct http1_field *f);

/* -- bodies ---------------------------------------------------------------------------
 */

enum http1_framing {
    HTTP1_NONE,
    HTTP1_LENGTH,
    HTTP1_CHUNKED,
    HTTP1_UNTIL_CLOSE
};
enum http1_framing http1_request_framing(const struct http1_head *h);
/** @is_head  the request was HEAD; CONNECT is not ours. */
enum http1_framing http1_response_framing(const struct http1_head *h, bool is_head);

struct http1_body {
    enum http1_framing framing;
    uint64_t left; /* LENGTH: bytes to come; CHUNKED: of this chunk */
    bool is_done;
    /* private */
    uint8_t state, digits;
    unsigned fields;    /* trailer fields so far */
    size_t extra;       /* bytes of chunk extensions so far */
    size_t line;        /* start of the trailer line that is being gathered */
    struct buf trailer; /* the trailer section, field lines with CRLF; "" when none */
};
void http1_body_init(struct http1_body *b, enum http1_framing framing, uint64_t length);
void http1_body_done(struct http1_body *b);
/**
 * Take bytes. @in advanced past what was used; *ret_data the next piece of content,
 * inside `in`'s bytes, maybe empty. HTTP1_OK: call again while in->len > 0 and
 * !b->is_done. Trailer fields are checked like any others; framing, routing and our own
 * fields in trailers are an error (RFC 9110 6.5.1).
 */
enum http1_result http1_body_feed(struct http1_body *b, struct span *in,
                                  struct span *ret_data);
/** The connection ended here: HTTP1_OK, or HTTP1_E_CUT. */
enum http1_result http1_body_end(struct http1_body *b);

/** "1a2b\r\n" into out; its length. A chunk is this, the data, and "\r\n". */
#define HTTP1_CHUNK_HEAD_MAX 18
size_t http1_chunk_head(char out[HTTP1_CHUNK_HEAD_MAX], uint64_t len);

/* -- writing --------------------------------------------------------------------------
 */

/** Append "name: value\r\n". 0, or -1: no memory, or a control byte in the value. */
MUST_USE int http1_put(struct buf *b, const char *name, struct span value);
MUST_USE int http1_put_field(struct buf *b, struct span name, struct span value);
const char *http1_reason(unsigned status); /* "Not Found", or "Unknown" */

#endif
