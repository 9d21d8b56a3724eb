/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/dnsname.h"

#include <stdio.h>

#include "common/host.h"

enum {
    HEADER = 12,
    LABEL_MAX = 63,
    POINTER = 0xc0
};

static uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

size_t dnsname_read(struct span msg, size_t pos, bool may_point, struct dnsname *out)
{
    size_t run = pos; /* where the labels began that are being read */
    size_t end = 0, n = 0;

    for (;;) {
        uint8_t len;

        if (pos >= msg.len)
            return 0;
        len = msg.p[pos];
        if (len >= POINTER) {
            size_t to;

            if (!may_point || msg.len - pos < 2)
                return 0;
            to = (size_t)(len & 0x3f) << 8 | msg.p[pos + 1];
            if (to < HEADER || to >= run)
                return 0;
            end = end ? end : pos + 2;
            pos = run = to;
            continue;
        }
        if (len > LABEL_MAX || len >= msg.len - pos ||
            n + 1 + len > DNSNAME_WIRE_MAX - !!len)
            return 0;
        memcpy(out->wire + n, msg.p + pos, 1u + len);
        n += 1u + len;
        pos += 1u + len;
        if (len == 0)
            break;
    }
    out->len = (uint8_t)n;
    return end ? end : pos;
}

bool dnsname_eq(const struct dnsname *a, const struct dnsname *b)
{
    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++)
        if (fold(a->wire[i]) != fold(b->wire[i]))
            return false;
    return true;
}

void dnsname_print(const uint8_t *wire, char out[DNSNAME_TEXT_MAX])
{
    size_t n = 0;

    if (!*wire)
        out[n++] = '.';
    for (; *wire; wire += 1 + *wire) {
        if (n)
            out[n++] = '.';
        for (uint8_t i = 1; i <= *wire; i++) {
            uint8_t c = fold(wire[i]);

            if (c <= ' ' || c >= 0x7f || c == '.' || c == '\\' || c == '"') {
                (void)snprintf(out + n, 5, "\\%03u", c);
                n += 4;
            } else {
                out[n++] = (char)c;
            }
        }
    }
    out[n] = '\0';
}

bool dnsname_is_host(const char *text)
{
    char canonical[HOST_MAX + 1];

    return host_name_parse(span_str(text), canonical) == 0 &&
           strcmp(canonical, text) == 0;
}

bool dnsname_write(const char *text, struct dnsname *out)
{
    size_t n = 0;

    for (;;) {
        size_t len = strcspn(text, ".");

        if (len == 0 || len > LABEL_MAX || n + 2 + len > DNSNAME_WIRE_MAX)
            return false;
        out->wire[n++] = (uint8_t)len;
        memcpy(out->wire + n, text, len);
        n += len;
        text += len;
        if (*text == '\0')
            break;
        text++;
    }
    out->wire[n++] = 0;
    out->len = (uint8_t)n;
    return true;
}
