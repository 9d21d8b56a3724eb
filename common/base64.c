/* SPDX-License-Identifier: MIT */
#include "common/base64.h"

static const char B64_PLAIN[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char B64_URL[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int encode_base64(struct buf *out, struct span in, const char *abc, bool pads)
{
    size_t i;
    uint8_t *at;

    if (in.len > SIZE_MAX / 2 || buf_reserve(out, (in.len + 2) / 3 * 4, SIZE_MAX) < 0)
        return -1;
    at = out->p + out->len;
    for (i = 0; i < in.len; i += 3) {
        size_t left = in.len - i;
        uint32_t v = (uint32_t)in.p[i] << 16;

        if (left > 1)
            v |= (uint32_t)in.p[i + 1] << 8;
        if (left > 2)
            v |= in.p[i + 2];
        *at++ = (uint8_t)abc[v >> 18];
        *at++ = (uint8_t)abc[v >> 12 & 63];
        if (left > 1 || pads)
            *at++ = left > 1 ? (uint8_t)abc[v >> 6 & 63] : '=';
        if (left > 2 || pads)
            *at++ = left > 2 ? (uint8_t)abc[v & 63] : '=';
    }
    if (in.len > 0)
        out->len = (size_t)(at - out->p);
    return 0;
}

int b64url_encode(struct buf *out, struct span in)
{
    return encode_base64(out, in, B64_URL, false);
}

int b64_encode(struct buf *out, struct span in)
{
    return encode_base64(out, in, B64_PLAIN, true);
}

static int b64url_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-')
        return 62;
    return c == '_' ? 63 : -1;
}

/* One text for one value: no padding, no line ends, and the bits that a last character
 * has too many must be zero (RFC 4648 3.5); else a signature could be written in many
 * ways. */
int b64url_decode(struct buf *out, struct span in)
{
    uint32_t v = 0;
    unsigned bits = 0;
    size_t i;
    size_t start = out->len;

    if (in.len % 4 == 1 || buf_reserve(out, in.len / 4 * 3 + 2, SIZE_MAX) < 0)
        return -1;
    for (i = 0; i < in.len; i++) {
        int c = b64url_value(in.p[i]);

        if (c < 0)
            break;
        v = v << 6 | (uint32_t)c;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out->p[out->len++] = (uint8_t)(v >> bits);
            v &= (1u << bits) - 1;
        }
    }
    if (i < in.len || v != 0) {
        out->len = start;
        return -1;
    }
    return 0;
}
