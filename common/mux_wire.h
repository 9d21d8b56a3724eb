/* SPDX-License-Identifier: MIT */
/**
 * mux_wire -- the frames of the mux as bytes: pure functions, used by common/mux*.c only.
 *
 *   0        1        2                 4                                   8
 *   +--------+--------+--------+--------+--------+--------+--------+--------+
 *   |  type  | flags  |     length      |              stream               |
 *   +--------+--------+--------+--------+--------+--------+--------+--------+
 *
 * Big-endian; `length` bytes of payload follow.
 *
 * Source   docs/PROTOCOL.md 5 and 6.
 */
#ifndef COMMON_MUX_WIRE_H
#define COMMON_MUX_WIRE_H

#include <stdint.h>

#include "common/mux.h"

enum mux_type {
    MUX_TYPE_OPEN = 1,
    MUX_TYPE_ACCEPT,
    MUX_TYPE_DATA,
    MUX_TYPE_CREDIT,
    MUX_TYPE_RESET,
    MUX_TYPE_PING,
    MUX_TYPE_PONG,
    MUX_TYPE_GOAWAY,
    MUX_TYPE_COUNT
};

enum {
    MUX_FLAG_FIN = 1,
    MUX_HEAD_LEN = 8,
    MUX_OPEN_MAX = 22, /* the longest payload that is not DATA */
};
#define MUX_OFFSET_MAX ((UINT64_C(1) << 62) - 1)

/** The rules a peer can break. One row and one vector each in docs/PROTOCOL.md 9. */
#define MUX_FAULT_MAP(X)                                                                 \
    X(EARLY, "frame before the hello")                                                   \
    X(TYPE, "unknown frame type")                                                        \
    X(FLAGS, "reserved flag set")                                                        \
    X(LENGTH, "length not allowed for the frame type")                                   \
    X(ON_LINK, "stream frame on stream 0")                                               \
    X(ON_STREAM, "link frame on a stream")                                               \
    X(OPEN_ID, "OPEN with an id that is not the next")                                   \
    X(OPEN_PORT, "OPEN of port 0")                                                       \
    X(OPEN_KIND, "OPEN of an unknown kind")                                              \
    X(OPEN_CLIENT, "OPEN with a malformed client address")                               \
    X(NEVER, "frame for a stream never opened")                                          \
    X(ACCEPT_OWN, "ACCEPT by the side that opened")                                      \
    X(ACCEPT_TWICE, "ACCEPT twice")                                                      \
    X(DATA_EMPTY, "empty DATA without FIN")                                              \
    X(DATA_EARLY, "DATA before ACCEPT")                                                  \
    X(DATA_FIN, "DATA after FIN")                                                        \
    X(DATA_CREDIT, "DATA beyond the credit")                                             \
    X(CREDIT_SHRINK, "CREDIT that shrinks")                                              \
    X(CREDIT_BIG, "CREDIT beyond the greatest offset")                                   \
    X(REASON, "reason not in the table")                                                 \
    X(PING_TWICE, "PING before the last was answered")                                   \
    X(PONG, "PONG that answers no PING")                                                 \
    X(FLOOD, "too many streams opened and refused")

#define MUX_FAULT_ENUM(id, text) MUX_FAULT_##id,
enum mux_fault_id {
    MUX_FAULT_NONE,
    MUX_FAULT_MAP(MUX_FAULT_ENUM) MUX_FAULT_COUNT
};
const char *mux_fault_text(enum mux_fault_id f); /* "" for NONE */

struct mux_head {
    uint8_t type, flags;
    uint16_t len;
    uint32_t stream;
};

/** Checks what can be checked without knowing any stream. */
enum mux_fault_id mux_head_parse(const uint8_t in[MUX_HEAD_LEN], struct mux_head *ret);
void mux_head_put(uint8_t out[MUX_HEAD_LEN], struct mux_head h);

/** OPEN's payload; its length. A client address that is neither IPv4 nor IPv6 is left
 * out. */
size_t mux_open_put(uint8_t out[MUX_OPEN_MAX], const struct mux_open *open);
enum mux_fault_id mux_open_parse(const uint8_t *in, size_t len, struct mux_open *ret);

/** May this reason stand in a RESET or GOAWAY? */
bool mux_reason_is_wire(unsigned reason);

uint64_t mux_u64(const uint8_t in[8]);
void mux_u64_put(uint8_t out[8], uint64_t v);

#endif
