/* SPDX-License-Identifier: MIT */
/**
 * lws_peer -- a link's server on libwebsockets in a child process: the independent peer
 *             of our WebSocket client. It takes the token "good.token" on the subprotocol
 *             tunnel.v1 and answers any other with 401.
 */
#ifndef TESTS_SUPPORT_LWS_PEER_H
#define TESTS_SUPPORT_LWS_PEER_H

#include "tests/support/child.h"

#define LWS_PEER_TOKEN "good.token"

enum lws_peer_kind {
    LWS_PEER_ECHO, /* sends each message back; the text "close" makes it close (4001), the
                    * text "die" cuts the connection, "ping" sends a WebSocket ping and
                    * answers its pong by the text "pong" */
    LWS_PEER_SERVER, /* speaks docs/PROTOCOL.md; a PORT message is a command, its port: */
};
enum lws_peer_command {
    LWS_PEER_STREAM =
        1,            /* open a stream to port 3000, send LWS_PEER_BYTES and finish; when
                          * all came back, say so by a URL message for port 1 */
    LWS_PEER_REPLACE, /* goaway replaced */
    LWS_PEER_DRAIN,   /* goaway drain, retry after 1 ms; stays */
    LWS_PEER_CUT,     /* cut the connection */
    LWS_PEER_BAD_FRAME, /* an unknown mux frame */
    LWS_PEER_BAD_JSON,  /* a control message that is none */
    LWS_PEER_TOKEN_END, /* goaway token */
};
#define LWS_PEER_BYTES 300000

/** @cert, @key  NULL: plaintext */
void lws_peer_start(struct child *c, enum lws_peer_kind kind, const char *cert,
                    const char *key);

#endif
