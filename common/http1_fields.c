/* SPDX-License-Identifier: MIT */
/* Field lines: bytes, names, lists. Heads and trailers are both made of these. */
#include <string.h>

#include "common/http1_int.h"

/* 1 where RFC 9110 5.6.2 has a tchar. */
const uint8_t http1_tchar[256] = {
    ['!'] = 1,         ['#'] = 1,         ['$'] = 1,        ['%'] = 1, ['&'] = 1,
    ['\''] = 1,        ['*'] = 1,         ['+'] = 1,        ['-'] = 1, ['.'] = 1,
    ['^'] = 1,         ['_'] = 1,         ['`'] = 1,        ['|'] = 1, ['~'] = 1,
    ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1};

/* Each name of HTTP1_FIELD_MAP stands in the row of its length. A unit test finds every
 * name of the map, so that a new one cannot be forgotten here. */
#define LEN_MAX 30
static const uint8_t by_len[LEN_MAX + 1][8] = {
    [2] = {HTTP1_TE},
    [4] = {HTTP1_HOST},
    [6] = {HTTP1_COOKIE, HTTP1_ORIGIN, HTTP1_ACCEPT, HTTP1_EXPECT},
    [7] = {HTTP1_REFERER, HTTP1_UPGRADE, HTTP1_REFRESH, HTTP1_TRAILER},
    [8] = {HTTP1_LOCATION},
    [9] = {HTTP1_X_REAL_IP, HTTP1_FORWARDED},
    [10] = {HTTP1_CONNECTION, HTTP1_KEEP_ALIVE, HTTP1_SET_COOKIE},
    [11] = {HTTP1_RETRY_AFTER},
    [12] = {HTTP1_TUNNEL_ERROR},
    [13] = {HTTP1_AUTHORIZATION},
    [14] = {HTTP1_CONTENT_LENGTH, HTTP1_SEC_FETCH_MODE, HTTP1_SEC_FETCH_DEST,
            HTTP1_SEC_FETCH_SITE, HTTP1_X_TUNNEL_TOKEN, HTTP1_HTTP2_SETTINGS},
    [15] = {HTTP1_X_FORWARDED_FOR},
    [16] = {HTTP1_CONTENT_LOCATION, HTTP1_X_FORWARDED_HOST, HTTP1_X_FORWARDED_PORT,
            HTTP1_PROXY_CONNECTION},
    [17] = {HTTP1_TRANSFER_ENCODING, HTTP1_SEC_WEBSOCKET_KEY, HTTP1_X_FORWARDED_PROTO,
            HTTP1_TUNNEL_PUBLIC_URL},
    [18] = {HTTP1_X_FORWARDED_SERVER, HTTP1_PROXY_AUTHENTICATE},
    [19] = {HTTP1_PROXY_AUTHORIZATION},
    [20] = {HTTP1_SEC_WEBSOCKET_ACCEPT},
    [22] = {HTTP1_SEC_WEBSOCKET_PROTOCOL},
    [27] = {HTTP1_ACCESS_CONTROL_ALLOW_ORIGIN},
    [29] = {HTTP1_ACCESS_CONTROL_REQUEST_METHOD},
};

#define FIELD_NAME(id, name) [HTTP1_##id] = (name),
static const char *const names[HTTP1_FIELD_COUNT] = {HTTP1_FIELD_MAP(FIELD_NAME)};

/* `name` is a token: the only tokens whose bytes fold by |0x20 to a letter, digit or '-'
 * are letters in either case, that digit and '-'. */
static enum http1_field_id field_id(const uint8_t *name, size_t len)
{
    if (len > LEN_MAX)
        return HTTP1_OTHER;
    for (const uint8_t *id = by_len[len]; *id != HTTP1_OTHER; id++) {
        const char *want = names[*id];
        size_t i = 0;

        while (i < len && (name[i] | 0x20) == (uint8_t)want[i])
            i++;
        if (i == len)
            return (enum http1_field_id) * id;
    }
    return HTTP1_OTHER;
}

bool http1_is_disguised(const struct http1_field *f)
{
    uint8_t name[LEN_MAX];
    size_t n = f->name.len;

    if (f->id != HTTP1_OTHER || n > LEN_MAX || !memchr(f->name.p, '_', n))
        return false;
    for (size_t i = 0; i < n; i++)
        name[i] = f->name.p[i] == '_' ? '-' : f->name.p[i];
    return field_id(name, n) != HTTP1_OTHER;
}

/* Eight bytes at a time: heads are mostly longer than anything else we look at per
 * request. The two tests are exact as to whether there is such a byte at all; which one
 * it is is then found byte by byte. */
#define ONES  0x0101010101010101u
#define HIGHS 0x8080808080808080u

static bool has_control(uint64_t w)
{
    uint64_t del = w ^ (ONES * 0x7f);

    return (((w - ONES * 0x20) & ~w) | ((del - ONES) & ~del)) & HIGHS;
}

const uint8_t *http1_find_control(const uint8_t *p, const uint8_t *to)
{
    for (;;) {
        const uint8_t *stop;
        uint64_t w;

        while (to - p >= 8) {
            memcpy(&w, p, 8);
            if (has_control(w))
                break;
            p += 8;
        }
        stop = to - p > 8 ? p + 8 : to;
        for (; p < stop; p++)
            if ((*p < 0x20 && *p != '\t') || *p == 0x7f)
                return p;
        if (p == to)
            return p;
    }
}

enum http1_result http1_fail_control(uint8_t c)
{
    if (c == '\n')
        return http1_fail(HTTP1_E_SYNTAX, "bare LF (RFC 9112 2.2)");
    if (c == '\r')
        return http1_fail(HTTP1_E_SYNTAX, "CR without LF (RFC 9112 2.2)");
    if (c == '\0')
        return http1_fail(HTTP1_E_SYNTAX, "NUL (RFC 9110 5.5)");
    return http1_fail(HTTP1_E_SYNTAX, "control byte (RFC 9110 5.5)");
}

static enum http1_result bad_name(const uint8_t *start, const uint8_t *p,
                                  const uint8_t *end)
{
    if (p == end)
        return http1_fail(HTTP1_E_SYNTAX, "line without colon (RFC 9112 5)");
    if (*p == ' ' || *p == '\t')
        return p == start ? http1_fail(HTTP1_E_SYNTAX, "folded line (RFC 9112 5.2)")
                          : http1_fail(HTTP1_E_SYNTAX,
                                       "white space before colon (RFC 9112 5.1)");
    if (*p == ':')
        return http1_fail(HTTP1_E_SYNTAX, "empty field name (RFC 9110 5.1)");
    if (*p == '\r' && end - p >= 2 && p[1] == '\n')
        return http1_fail(HTTP1_E_SYNTAX, "line without colon (RFC 9112 5)");
    if (*p < 0x20 || *p == 0x7f)
        return http1_fail_control(*p);
    return http1_fail(HTTP1_E_SYNTAX, "field name is no token (RFC 9110 5.1)");
}

enum http1_result http1_field_parse(const uint8_t **line, const uint8_t *end,
                                    struct http1_field *ret)
{
    const uint8_t *start = *line, *p = start, *value, *stop;

    while (p < end && http1_is_tchar(*p))
        p++;
    if (p == start || p == end || *p != ':')
        return bad_name(start, p, end);
    value = p + 1;
    stop = http1_find_control(value, end);
    if (end - stop < 2 || stop[0] != '\r' || stop[1] != '\n')
        return stop == end ? http1_fail(HTTP1_E_SYNTAX, "line without end (RFC 9112 2.1)")
                           : http1_fail_control(*stop);
    *line = stop + 2;
    while (value < stop && (*value == ' ' || *value == '\t'))
        value++;
    while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    ret->name = span_of(start, (size_t)(p - start));
    ret->value = span_of(value, (size_t)(stop - value));
    ret->id = field_id(start, ret->name.len);
    return HTTP1_OK;
}

bool http1_list_next(struct span *list, struct span *ret_member)
{
    while (list->len > 0) {
        const uint8_t *comma = memchr(list->p, ',', list->len);
        struct span m = span_of(list->p, comma ? (size_t)(comma - list->p) : list->len);

        *list = span_skip(*list, m.len + (comma ? 1 : 0));
        while (m.len > 0 && (m.p[0] == ' ' || m.p[0] == '\t'))
            m = span_skip(m, 1);
        while (m.len > 0 && (m.p[m.len - 1] == ' ' || m.p[m.len - 1] == '\t'))
            m.len--;
        if (m.len > 0) { /* empty members mean nothing (RFC 9110 5.6.1.2) */
            *ret_member = m;
            return true;
        }
    }
    return false;
}

const struct http1_field *http1_find(const struct http1_head *h, enum http1_field_id id)
{
    for (unsigned i = 0; i < h->n_fields; i++)
        if (h->field[i].id == id)
            return &h->field[i];
    return NULL;
}

bool http1_has_token(const struct http1_head *h, enum http1_field_id id,
                     const char *token)
{
    for (unsigned i = 0; i < h->n_fields; i++) {
        struct span list = h->field[i].value, m;

        if (h->field[i].id != id)
            continue;
        while (http1_list_next(&list, &m))
            if (span_is(m, token))
                return true;
    }
    return false;
}

static bool connection_names(const struct http1_head *h, struct span name)
{
    for (unsigned i = 0; i < h->n_fields; i++) {
        struct span list = h->field[i].value, m;

        if (h->field[i].id != HTTP1_CONNECTION)
            continue;
        while (http1_list_next(&list, &m))
            if (m.len == name.len &&
                strncasecmp((const char *)m.p, (const char *)name.p, m.len) == 0)
                return true;
    }
    return false;
}

bool http1_is_hop(const struct http1_head *h, const struct http1_field *f)
{
    switch (f->id) {
    case HTTP1_CONNECTION:
    case HTTP1_KEEP_ALIVE:
    case HTTP1_PROXY_CONNECTION:
    case HTTP1_PROXY_AUTHENTICATE:
    case HTTP1_PROXY_AUTHORIZATION:
    case HTTP1_TE:
    case HTTP1_TRANSFER_ENCODING:
    case HTTP1_UPGRADE:
    case HTTP1_HTTP2_SETTINGS:
        return true;
    case HTTP1_HOST:
    case HTTP1_CONTENT_LENGTH:
        /* For every recipient, whatever Connection says: who could name these away would
         * change routing or framing behind us. */
        return false;
    default:
        return connection_names(h, f->name);
    }
}
