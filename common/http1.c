/* SPDX-License-Identifier: MIT */
#include "common/http1.h"

#include <string.h>

#include "common/http1_int.h"

/* Thread-local so that the parsers need no error argument per call; only logs read it. */
static _Thread_local const char *last_rule = "";

const char *http1_rule(void)
{
    return last_rule;
}

enum http1_result http1_fail(enum http1_result r, const char *rule)
{
    last_rule = rule;
    return r;
}

const char *http1_result_name(enum http1_result r)
{
    switch (r) {
    case HTTP1_OK:
        return "ok";
    case HTTP1_MORE:
        return "more";
    case HTTP1_E_SYNTAX:
        return "syntax";
    case HTTP1_E_VERSION:
        return "version";
    case HTTP1_E_TARGET_BIG:
        return "target-too-large";
    case HTTP1_E_FIELDS_BIG:
        return "fields-too-large";
    case HTTP1_E_FRAMING:
        return "framing";
    case HTTP1_E_HOST:
        return "host";
    case HTTP1_E_TARGET:
        return "target";
    case HTTP1_E_CHUNK:
        return "chunk";
    case HTTP1_E_CUT:
        return "cut";
    case HTTP1_E_NOMEM:
        return "no-memory";
    }
    return "?";
}

int http1_put_field(struct buf *b, struct span name, struct span value)
{
    const uint8_t *end = value.p + value.len;
    size_t n = name.len + value.len + 4;
    uint8_t *p;

    /* One CR here would let a value write fields of its own. */
    if (name.len == 0 || (value.len > 0 && http1_find_control(value.p, end) != end))
        return -1;
    if (buf_reserve(b, n, SIZE_MAX / 2) < 0)
        return -1;
    p = b->p + b->len;
    memcpy(p, name.p, name.len);
    p += name.len;
    *p++ = ':';
    *p++ = ' ';
    if (value.len > 0)
        memcpy(p, value.p, value.len);
    p += value.len;
    *p++ = '\r';
    *p = '\n';
    b->len += n;
    return 0;
}

int http1_put(struct buf *b, const char *name, struct span value)
{
    return http1_put_field(b, span_str(name), value);
}

size_t http1_chunk_head(char out[HTTP1_CHUNK_HEAD_MAX], uint64_t len)
{
    static const char digit[] = "0123456789abcdef";
    unsigned n = 1;

    while (n < 16 && len >> (4 * n) != 0)
        n++;
    for (unsigned i = 0; i < n; i++)
        out[i] = digit[len >> (4 * (n - 1 - i)) & 15];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}

const char *http1_reason(unsigned status)
{
    static const struct {
        uint16_t status;
        const char *text;
    } reason[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {103, "Early Hints"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < COUNT_OF(reason); i++)
        if (reason[i].status == status)
            return reason[i].text;
    return "Unknown";
}
