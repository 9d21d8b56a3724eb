/* SPDX-License-Identifier: MIT */
#include "common/json.h"

/* Length of the valid UTF-8 sequence at p (RFC 3629: shortest form, no surrogates, up to
 * U+10FFFF), or 0. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    size_t len = p[0] < 0x80   ? 1
                 : p[0] < 0xc2 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                               : 4;
    size_t i;

    if (p[0] > 0xf4 || len > n)
        return 0;
    for (i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

/* Appends what stands for p[0..) and tells how many bytes of it that was; 0: no memory.
 */
static size_t put_char(struct buf *b, const uint8_t *p, size_t n)
{
    size_t len = utf8_len(p, n);
    int rc;

    if (len == 0)
        rc = buf_adds(b, "\xef\xbf\xbd"); /* U+FFFD */
    else if (*p == '"' || *p == '\\')
        rc = buf_addf(b, "\\%c", *p);
    else if (*p < 0x20 || *p == 0x7f)
        rc = buf_addf(b, "\\u%04x", *p);
    else
        rc = buf_add(b, p, len);
    return rc < 0 ? 0 : len > 0 ? len : 1;
}

int json_put_str(struct buf *b, struct span text)
{
    size_t i = 0;

    if (buf_add(b, "\"", 1) < 0)
        return -1;
    while (i < text.len) {
        size_t plain = i;
        size_t n;

        while (plain < text.len && text.p[plain] >= 0x20 && text.p[plain] < 0x7f &&
               text.p[plain] != '"' && text.p[plain] != '\\')
            plain++;
        if (plain > i && buf_add(b, text.p + i, plain - i) < 0)
            return -1;
        i = plain;
        if (i == text.len)
            break;
        n = put_char(b, text.p + i, text.len - i);
        if (n == 0)
            return -1;
        i += n;
    }
    return buf_add(b, "\"", 1);
}
