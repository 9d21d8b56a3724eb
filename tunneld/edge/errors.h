/* SPDX-License-Identifier: MIT */
/**
 * errors -- the answers that we make ourselves, one row each, in the form that
 *           the client can use.
 */
#ifndef TUNNELD_EDGE_ERRORS_H
#define TUNNELD_EDGE_ERRORS_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/http1.h"

/* ERROR_ROW(id, status, code, Retry-After in s or 0, page waits and reloads, title, advice) */
#define ERROR_MAP(X)                                                                     \
    X(BAD_REQUEST, 400, "bad-request", 0, false, "That was not valid HTTP",              \
      "The request broke a rule of the protocol, so it was not forwarded.")              \
    X(LOGIN_REQUIRED, 401, "login-required", 0, false, "This preview is private",        \
      "Open it with a link that carries an access token, or ask whoever runs it for "    \
      "one.")                                                                            \
    X(FORBIDDEN, 403, "forbidden", 0, false, "Not with this access",                     \
      "Your access token does not cover this port.")                                     \
    X(NO_SUCH_PREVIEW, 404, "no-such-preview", 0, false, "There is no such preview",     \
      "A preview's address starts with its port and the sandbox's id: "                  \
      "3000-id. Check it for a typing error.")                                           \
    X(NOT_FOUND, 404, "not-found", 0, false, "Nothing here",                             \
      "There is nothing at this address.")                                               \
    X(MISDIRECTED, 421, "misdirected", 0, false, "Wrong server",                         \
      "This server does not serve that host, or not on this connection.")                \
    X(BODY_TOO_LARGE, 413, "too-large", 0, false, "Too large",                           \
      "The request's body is larger than this server allows.")                           \
    X(TARGET_TOO_LARGE, 414, "too-large", 0, false, "Too long an address",               \
      "The address is longer than this server allows.")                                  \
    X(FIELDS_TOO_LARGE, 431, "too-large", 0, false, "Too many header fields",            \
      "The request's header is larger than this server allows. Cookies that have piled " \
      "up are a common cause: delete those of this site.")                               \
    X(LIMIT, 429, "limit", 1, true, "Too much at once",                                  \
      "This preview is answering as many requests as it may. Try again in a moment.")    \
    X(PORT_CLOSED, 502, "port-closed", 2, true, "Nothing listens on this port",          \
      "The sandbox is connected, but no program answers on this port.")                  \
    X(BAD_UPSTREAM, 502, "bad-upstream", 0, false, "The app's answer made no sense",     \
      "The program on this port closed the connection early, or what it sent is not "    \
      "valid HTTP. Its own log may say more.")                                           \
    X(AGENT_OFFLINE, 503, "agent-offline", 5, true, "This sandbox is not connected",     \
      "Its agent has no link to this server at the moment.")                             \
    X(UPSTREAM_TIMEOUT, 504, "upstream-timeout", 0, false, "The app did not answer",     \
      "The program on this port took too long to answer.")

#define ERROR_ENUM(id, ...) ERROR_##id,
enum error_code {
    ERROR_MAP(ERROR_ENUM) ERROR_COUNT
};

const char *errors_name(enum error_code c); /* "port-closed" */
unsigned errors_status(enum error_code c);

enum error_form {
    ERROR_BARE, /* status only: for an upgrade that failed */
    ERROR_TEXT, /* curl and the like */
    ERROR_JSON, /* fetch, XHR, subresources */
    ERROR_PAGE, /* a navigation */
};
/** What the client can use. */
enum error_form errors_form(const struct http1_head *h);

struct error_args {
    enum error_form form;
    bool is_head;    /* HEAD: no body */
    bool can_reload; /* GET: the page may ask again by itself */
    bool keep_alive;
    uint8_t client_minor;
    struct span origin; /* another port of the sandbox: may read it (CORS); else empty */
};
/** Append the whole answer. 0, or -1: no memory. */
MUST_USE int errors_write(enum error_code c, const struct error_args *a, struct buf *out);
/** Append the answer for the domain's own first page. */
MUST_USE int errors_write_welcome(const struct error_args *a, struct buf *out);

#endif
