/* SPDX-License-Identifier: MIT */
#include "common/ws.h"

#include <string.h>

#include "common/crypto.h"
#include "common/limits.h"

#define WS_FIN  0x80
#define WS_RSV  0x70
#define WS_MASK 0x80

const char *ws_result_name(enum ws_result r)
{
    switch (r) {
    case WS_OK:
        return "ok";
    case WS_MORE:
        return "more";
    case WS_E_RSV:
        return "reserved bit set (RFC 6455 5.2)";
    case WS_E_OPCODE:
        return "unknown opcode (RFC 6455 5.2)";
    case WS_E_MASK:
        return "wrong masking (RFC 6455 5.1)";
    case WS_E_LENGTH:
        return "bad frame length (RFC 6455 5.2)";
    case WS_E_CONTROL:
        return "bad control frame (RFC 6455 5.5)";
    case WS_E_FRAGMENT:
        return "bad fragment (RFC 6455 5.4)";
    }
    return "?";
}

void ws_mask(uint8_t *p, size_t len, const uint8_t mask[4], uint64_t offset)
{
    uint8_t key[8];
    uint64_t k, w[4];

    for (unsigned i = 0; i < 8; i++)
        key[i] = mask[(offset + i) & 3];
    memcpy(&k, key, 8);
    for (; len >= sizeof(w); p += sizeof(w), len -= sizeof(w)) {
        memcpy(w, p, sizeof(w));
        for (unsigned i = 0; i < 4; i++)
            w[i] ^= k;
        memcpy(p, w, sizeof(w));
    }
    for (size_t i = 0; i < len; i++)
        p[i] ^= key[i & 3];
}

size_t ws_frame(uint8_t *payload, size_t len, enum ws_opcode op, bool fin,
                const uint8_t mask[4])
{
    uint8_t head[WS_HEAD_MAX];
    size_t n = 2;

    head[0] = (uint8_t)((fin ? WS_FIN : 0) | (unsigned)op);
    if (len < 126) {
        head[1] = (uint8_t)len;
    } else if (len <= UINT16_MAX) {
        head[1] = 126;
        head[n++] = (uint8_t)(len >> 8);
        head[n++] = (uint8_t)len;
    } else {
        head[1] = 127;
        for (unsigned shift = 64; shift > 0; shift -= 8)
            head[n++] = (uint8_t)((uint64_t)len >> (shift - 8));
    }
    if (mask) {
        head[1] |= WS_MASK;
        memcpy(head + n, mask, 4);
        n += 4;
        ws_mask(payload, len, mask, 0);
    }
    memcpy(payload - n, head, n);
    return n;
}

void ws_rx_init(struct ws_rx *rx, bool from_client)
{
    *rx = (struct ws_rx){.from_client = from_client, .head_need = 2};
}

static bool is_control(uint8_t opcode)
{
    return opcode >= WS_CLOSE;
}

/* Each byte is judged as it comes: a fault is told before its frame is complete. */
static enum ws_result first_byte(struct ws_rx *rx, uint8_t c)
{
    rx->fin = (c & WS_FIN) != 0;
    rx->opcode = c & 0x0f;
    if (c & WS_RSV)
        return WS_E_RSV;
    switch (rx->opcode) {
    case WS_CONT:
        return rx->message ? WS_OK : WS_E_FRAGMENT;
    case WS_TEXT:
    case WS_BINARY:
        if (rx->message)
            return WS_E_FRAGMENT;
        rx->message = rx->opcode;
        return WS_OK;
    case WS_CLOSE:
    case WS_PING:
    case WS_PONG:
        return rx->fin ? WS_OK : WS_E_CONTROL;
    default:
        return WS_E_OPCODE;
    }
}

static enum ws_result second_byte(struct ws_rx *rx, uint8_t c)
{
    uint8_t len = c & 0x7f;

    if (((c & WS_MASK) != 0) != rx->from_client)
        return WS_E_MASK;
    if (is_control(rx->opcode) && len > 125)
        return WS_E_CONTROL;
    rx->head_need = (uint8_t)(2 +
                              (len == 126   ? 2
                               : len == 127 ? 8
                                            : 0) +
                              (rx->from_client ? 4 : 0));
    return WS_OK;
}

static enum ws_result head_end(struct ws_rx *rx)
{
    uint8_t len = rx->head[1] & 0x7f;
    unsigned n = len == 126 ? 2 : len == 127 ? 8 : 0;
    uint64_t v = 0;

    if (n == 0)
        v = len;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | rx->head[2 + i];
    if ((n == 2 && v < 126) || (n == 8 && v <= UINT16_MAX) || v > WS_FRAME_MAX)
        return WS_E_LENGTH;
    if (rx->from_client)
        memcpy(rx->mask, rx->head + rx->head_need - 4, 4);
    rx->left = v;
    rx->pos = 0;
    rx->in_payload = true;
    return WS_OK;
}

static enum ws_result head_feed(struct ws_rx *rx, uint8_t **in, size_t *in_len)
{
    enum ws_result r = WS_OK;

    while (rx->head_len<rx->head_need && * in_len> 0) {
        uint8_t c = *(*in)++;

        --*in_len;
        rx->head[rx->head_len++] = c;
        if (rx->head_len == 1)
            r = first_byte(rx, c);
        else if (rx->head_len == 2)
            r = second_byte(rx, c);
        if (r != WS_OK)
            return r;
    }
    return rx->head_len == rx->head_need ? head_end(rx) : WS_MORE;
}

static void frame_end(struct ws_rx *rx)
{
    rx->in_payload = false;
    rx->head_len = 0;
    rx->head_need = 2;
    if (rx->fin && !is_control(rx->opcode))
        rx->message = 0;
}

/* A control frame may be split over reads but is told as a whole. */
static bool control_feed(struct ws_rx *rx, const uint8_t *p, size_t n,
                         struct ws_event *ret)
{
    memcpy(rx->control + rx->pos, p, n);
    rx->pos += n;
    rx->left -= n;
    if (rx->left > 0)
        return false;
    if (rx->from_client)
        ws_mask(rx->control, rx->pos, rx->mask, 0);
    *ret = (struct ws_event){.opcode = (enum ws_opcode)rx->opcode,
                             .payload = span_of(rx->control, rx->pos),
                             .message_end = true};
    frame_end(rx);
    return true;
}

static bool piece_feed(struct ws_rx *rx, uint8_t *p, size_t n, struct ws_event *ret)
{
    bool ends;

    if (rx->from_client)
        ws_mask(p, n, rx->mask, rx->pos);
    rx->pos += n;
    rx->left -= n;
    ends = rx->left == 0 && rx->fin;
    *ret = (struct ws_event){.opcode = (enum ws_opcode)rx->message,
                             .payload = span_of(p, n),
                             .message_end = ends};
    if (rx->left == 0)
        frame_end(rx);
    return n > 0 || ends; /* an empty fragment tells nothing */
}

enum ws_result ws_rx_feed(struct ws_rx *rx, uint8_t **in, size_t *in_len,
                          struct ws_event *ret)
{
    for (;;) {
        uint8_t *p;
        size_t n;
        bool has_event;

        if (!rx->in_payload) {
            enum ws_result r = head_feed(rx, in, in_len);

            if (r != WS_OK)
                return r;
        }
        if (*in_len == 0 && rx->left > 0)
            return WS_MORE;
        p = *in;
        n = rx->left < *in_len ? (size_t)rx->left : *in_len;
        *in += n;
        *in_len -= n;
        has_event = is_control(rx->opcode) ? control_feed(rx, p, n, ret)
                                           : piece_feed(rx, p, n, ret);
        if (has_event)
            return WS_OK;
    }
}

#define WS_GUID    "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define WS_KEY_LEN 24 /* base64 of 16 bytes (RFC 6455 4.1) */

void ws_accept_key(struct span client_key, char out[29])
{
    static const char digit[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t text[WS_KEY_LEN + sizeof(WS_GUID) - 1], sum[21];

    out[0] = '\0';
    if (client_key.len != WS_KEY_LEN)
        return;
    memcpy(text, client_key.p, WS_KEY_LEN);
    memcpy(text + WS_KEY_LEN, WS_GUID, sizeof(WS_GUID) - 1);
    crypto_sha1(span_of(text, sizeof(text)), sum);
    sum[20] = 0; /* 20 bytes are six groups of three and one of two: one '=' */
    for (unsigned i = 0, o = 0; i < 21; i += 3) {
        unsigned v = (unsigned)sum[i] << 16 | (unsigned)sum[i + 1] << 8 | sum[i + 2];

        out[o++] = digit[v >> 18];
        out[o++] = digit[v >> 12 & 63];
        out[o++] = digit[v >> 6 & 63];
        out[o++] = digit[v & 63];
    }
    out[27] = '=';
    out[28] = '\0';
}
