/* SPDX-License-Identifier: MIT */
/**
 * ws -- RFC 6455 frames, client and server side, and the two handshake values.
 *
 * Shape    engine without I/O. The receiver yields payload in place as it comes: a message
 *          is never gathered. Client frames are masked with a key from the kernel's random
 *          source (5.3); unmasking and masking go 8 bytes at a time.
 * Limits   control frames 125 bytes (5.5); a frame over WS_FRAME_MAX is an error.
 */
#ifndef COMMON_WS_H
#define COMMON_WS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/cdefs.h"
#include "common/span.h"

enum ws_opcode {
    WS_CONT = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10
};

enum ws_result {
    WS_OK,         /* *ret says what; call again with what is left */
    WS_MORE,       /* all input used, nothing more to tell */
    WS_E_RSV,      /* reserved bits (5.2) */
    WS_E_OPCODE,   /* unknown opcode */
    WS_E_MASK,     /* a client frame unmasked, or a server frame masked (5.1) */
    WS_E_LENGTH,   /* not minimal, top bit set, or over the bound */
    WS_E_CONTROL,  /* control frame fragmented or over 125 bytes */
    WS_E_FRAGMENT, /* continuation of nothing, or a new message inside one (5.4) */
};
const char *ws_result_name(enum ws_result r);

struct ws_event {
    enum ws_opcode opcode; /* of the message: TEXT or BINARY, or a control frame's */
    struct span payload;   /* a piece, unmasked in place; control: always whole */
    bool message_end;      /* the message ends with this piece */
};

/** Receiver. `from_client`: frames must be masked. */
struct ws_rx {
    bool from_client;
    /* private */
    uint8_t head[14];
    uint8_t head_len, head_need;
    uint8_t opcode, message; /* of the frame; of the message it belongs to, 0: none */
    bool fin, in_payload;
    uint8_t mask[4];
    uint64_t left, pos;
    uint8_t control[125];
};
void ws_rx_init(struct ws_rx *rx, bool from_client);
/** @in  advanced past what was used; its bytes are unmasked in place, so it is not const */
MUST_USE enum ws_result ws_rx_feed(struct ws_rx *rx, uint8_t **in, size_t *in_len,
                                   struct ws_event *ret);

#define WS_HEAD_MAX 14
/** Print a frame head, right-aligned to the payload: it ends at `payload` and at most
 *  WS_HEAD_MAX bytes before are used. With mask != NULL the payload is masked in place.
 *  Returns the head's length. */
size_t ws_frame(uint8_t *payload, size_t len, enum ws_opcode op, bool fin,
                const uint8_t mask[4]);
void ws_mask(uint8_t *p, size_t len, const uint8_t mask[4], uint64_t offset);

/** base64(SHA-1(key + GUID)), 28 characters and NUL (RFC 6455 4.2.2); "" for a key that is
 *  not 24 bytes long. */
void ws_accept_key(struct span client_key, char out[29]);

#endif
