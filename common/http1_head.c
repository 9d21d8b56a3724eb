/* SPDX-License-Identifier: MIT */
/*
 * The scanner finds the end of a head and refuses what no later byte can mend; the
 * parsers then read the whole head once. The parsers do not lean on the scanner: a head
 * with a control byte or a bare LF is refused by both.
 */
#include <string.h>

#include "common/host.h"
#include "common/http1_int.h"

/* -- scanner --------------------------------------------------------------------------
 */

static bool in_first_line(const struct http1_scan *s, const uint8_t *p)
{
    return s->line == 0 || (s->line == 2 && p[0] == '\r');
}

static enum http1_result line_start(const struct http1_scan *s, const uint8_t *p)
{
    uint8_t c = p[s->line];

    if (http1_is_tchar(c) || c == '\r')
        return HTTP1_OK;
    if (c < 0x20 && c != '\t')
        return http1_fail_control(c);
    if (in_first_line(s, p))
        return http1_fail(HTTP1_E_SYNTAX, "first line starts with no token (RFC 9112 3)");
    if (c == ' ' || c == '\t')
        return http1_fail(HTTP1_E_SYNTAX, "folded line (RFC 9112 5.2)");
    if (c == ':')
        return http1_fail(HTTP1_E_SYNTAX, "empty field name (RFC 9110 5.1)");
    return http1_fail(HTTP1_E_SYNTAX, "field name is no token (RFC 9110 5.1)");
}

/* How far this line may be looked at; past that it is too long whatever follows. */
static size_t line_limit(const struct http1_scan *s, const uint8_t *p)
{
    size_t limit = s->line + HTTP1_TARGET_MAX + 1;

    return in_first_line(s, p) && limit < HTTP1_HEAD_MAX ? limit : HTTP1_HEAD_MAX;
}

static enum http1_result too_long(size_t limit)
{
    return limit < HTTP1_HEAD_MAX
               ? http1_fail(HTTP1_E_TARGET_BIG, "first line too long (RFC 9112 3)")
               : http1_fail(HTTP1_E_FIELDS_BIG, "head too long (RFC 6585 5)");
}

/* At a CR with its LF: the end of a line, of the head, or the one empty line that may
 * stand before a request (RFC 9112 2.2). */
static enum http1_result line_end(struct http1_scan *s, const uint8_t *p, size_t cr,
                                  size_t *ret_len)
{
    bool is_empty = cr == s->line, is_first = in_first_line(s, p);

    s->pos = cr + 2;
    if (is_empty && is_first && s->line > 0)
        return http1_fail(HTTP1_E_SYNTAX, "empty lines before the head (RFC 9112 2.2)");
    if (is_empty && !is_first) {
        *ret_len = s->pos;
        return HTTP1_OK;
    }
    s->line = s->pos;
    return HTTP1_MORE;
}

enum http1_result http1_scan(struct http1_scan *s, struct span bytes, size_t *ret_len)
{
    const uint8_t *p = bytes.p;

    while (s->pos < bytes.len) {
        enum http1_result r;
        size_t limit = line_limit(s, p), end, i;

        if (s->pos == s->line) {
            r = line_start(s, p);
            if (r != HTTP1_OK)
                return r;
        }
        end = limit < bytes.len ? limit : bytes.len;
        if (s->pos < end)
            s->pos = (size_t)(http1_find_control(p + s->pos, p + end) - p);
        if (s->pos >= limit)
            return too_long(limit);
        i = s->pos;
        if (i == bytes.len)
            break;
        if (p[i] != '\r')
            return http1_fail_control(p[i]);
        if (i + 1 >= HTTP1_HEAD_MAX)
            return too_long(HTTP1_HEAD_MAX);
        if (i + 1 == bytes.len)
            break; /* one CR is seen again; nothing else ever is */
        if (p[i + 1] != '\n')
            return http1_fail_control('\r');
        r = line_end(s, p, i, ret_len);
        if (r != HTTP1_MORE)
            return r;
        if (s->pos >= HTTP1_HEAD_MAX)
            return too_long(HTTP1_HEAD_MAX);
    }
    return HTTP1_MORE;
}

/* -- first lines ----------------------------------------------------------------------
 */

/* Version at p..end; *ret_minor. */
static enum http1_result version_parse(const uint8_t *p, const uint8_t *end,
                                       uint8_t *ret_minor)
{
    if (end - p != 8 || memcmp(p, "HTTP/", 5) != 0 || p[6] != '.' || p[5] < '0' ||
        p[5] > '9' || p[7] < '0' || p[7] > '9')
        return http1_fail(HTTP1_E_SYNTAX, "not a version (RFC 9112 2.3)");
    if (p[5] != '1' || p[7] > '1')
        return http1_fail(HTTP1_E_VERSION, "version not 1.0 or 1.1 (RFC 9112 2.3)");
    *ret_minor = (uint8_t)(p[7] - '0');
    return HTTP1_OK;
}

static enum http1_result target_check(const struct http1_head *h)
{
    struct span t = h->target;

    if (t.len > HTTP1_TARGET_MAX)
        return http1_fail(HTTP1_E_TARGET_BIG, "target too long (RFC 9112 3)");
    for (size_t i = 0; i < t.len; i++)
        if (t.p[i] <= 0x20 || t.p[i] >= 0x7f || t.p[i] == '#')
            return http1_fail(HTTP1_E_TARGET, "byte that no target has (RFC 9112 3.2)");
    if (span_eq(h->method, span_str("CONNECT")))
        return http1_fail(HTTP1_E_TARGET, "CONNECT (RFC 9112 3.2.3)");
    if (t.p[0] == '/')
        return HTTP1_OK;
    if (t.len == 1 && t.p[0] == '*' && span_eq(h->method, span_str("OPTIONS")))
        return HTTP1_OK;
    return http1_fail(HTTP1_E_TARGET, "target not in origin form (RFC 9112 3.2.1)");
}

/* method SP target SP version; p..end without the CRLF. */
static enum http1_result request_line(const uint8_t *p, const uint8_t *end,
                                      struct http1_head *h)
{
    const uint8_t *start = p, *target, *sp;
    enum http1_result r;

    while (p < end && http1_is_tchar(*p))
        p++;
    if (p == start || p == end || *p != ' ')
        return http1_fail(HTTP1_E_SYNTAX, "method is no token (RFC 9112 3.1)");
    h->method = span_of(start, (size_t)(p - start));
    target = p + 1;
    if (target == end || *target == ' ')
        return http1_fail(HTTP1_E_SYNTAX, "not one space in the line (RFC 9112 3)");
    sp = memchr(target, ' ', (size_t)(end - target));
    if (!sp)
        return http1_fail(HTTP1_E_VERSION, "request without version (RFC 9112 3)");
    h->target = span_of(target, (size_t)(sp - target));
    r = version_parse(sp + 1, end, &h->minor);
    return r == HTTP1_OK ? target_check(h) : r;
}

/* version SP 3DIGIT [SP [reason]]; the last space is often left out (RFC 9112 4). */
static enum http1_result status_line(const uint8_t *p, const uint8_t *end,
                                     struct http1_head *h)
{
    enum http1_result r;

    if (end - p < 8)
        return http1_fail(HTTP1_E_SYNTAX, "not a status line (RFC 9112 4)");
    r = version_parse(p, p + 8, &h->minor);
    if (r != HTTP1_OK)
        return r;
    p += 8;
    if (end - p < 4 || p[0] != ' ' || p[1] < '1' || p[1] > '9' || p[2] < '0' ||
        p[2] > '9' || p[3] < '0' || p[3] > '9' || (end - p > 4 && p[4] != ' '))
        return http1_fail(HTTP1_E_SYNTAX, "bad status code (RFC 9112 4)");
    h->status = (unsigned)(p[1] - '0') * 100 + (unsigned)(p[2] - '0') * 10 +
                (unsigned)(p[3] - '0');
    p += end - p > 4 ? 5 : 4;
    h->reason = span_of(p, (size_t)(end - p));
    return HTTP1_OK;
}

/* -- what the fields decide -----------------------------------------------------------
 */

struct verdict {
    unsigned hosts, lengths, codings;
    size_t members;                     /* of Connection, empty ones too */
    bool is_close, is_keep, is_upgrade; /* members of Connection */
    bool has_protocol, has_h2c;         /* of Upgrade, HTTP2-Settings */
};

static enum http1_result length_field(struct span v, struct http1_head *h)
{
    uint64_t n = 0;

    if (v.len == 0 || v.len > 19)
        return http1_fail(HTTP1_E_FRAMING, "bad Content-Length (RFC 9110 8.6)");
    for (size_t i = 0; i < v.len; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return http1_fail(HTTP1_E_FRAMING, "bad Content-Length (RFC 9110 8.6)");
        n = n * 10 + (uint64_t)(v.p[i] - '0');
    }
    h->has_length = true;
    h->length = n;
    return HTTP1_OK;
}

/* Each field that is passed on is looked for in this list: it must not be long. No list in
 * earnest names more than there can be fields. */
static enum http1_result connection_field(struct span list, struct verdict *v)
{
    struct span m;

    v->members++;
    for (size_t i = 0; i < list.len; i++)
        v->members += list.p[i] == ',';
    if (v->members > HTTP1_FIELDS_MAX)
        return http1_fail(HTTP1_E_FIELDS_BIG, "Connection too long (RFC 6585 5)");
    while (http1_list_next(&list, &m)) {
        if (span_is(m, "close"))
            v->is_close = true;
        else if (span_is(m, "keep-alive"))
            v->is_keep = true;
        else if (span_is(m, "upgrade"))
            v->is_upgrade = true;
    }
    return HTTP1_OK;
}

static void upgrade_field(struct span list, struct verdict *v)
{
    struct span m;

    while (http1_list_next(&list, &m)) {
        v->has_protocol = true;
        if (m.len >= 3 && span_is(span_of(m.p, 3), "h2c"))
            v->has_h2c = true;
    }
}

static enum http1_result host_field(const struct http1_head *h, struct span value,
                                    struct verdict *v)
{
    struct host host;

    if (v->hosts++ > 0)
        return http1_fail(HTTP1_E_HOST, "two Host fields (RFC 9112 3.2)");
    if (h->is_request && host_parse(value, &host) < 0)
        return http1_fail(HTTP1_E_HOST, "Host is no authority (RFC 9112 3.2)");
    return HTTP1_OK;
}

static enum http1_result field_check(struct http1_head *h, const struct http1_field *f,
                                     struct verdict *v)
{
    switch (f->id) {
    case HTTP1_HOST:
        return host_field(h, f->value, v);
    case HTTP1_CONTENT_LENGTH:
        if (v->lengths++ > 0)
            return http1_fail(HTTP1_E_FRAMING, "two Content-Length (RFC 9112 6.3)");
        return length_field(f->value, h);
    case HTTP1_TRANSFER_ENCODING:
        if (v->codings++ > 0)
            return http1_fail(HTTP1_E_FRAMING, "two Transfer-Encoding (RFC 9112 6.1)");
        if (!span_is(f->value, "chunked"))
            return http1_fail(HTTP1_E_FRAMING, "coding not chunked (RFC 9112 6.1)");
        h->is_chunked = true;
        return HTTP1_OK;
    case HTTP1_CONNECTION:
        return connection_field(f->value, v);
    case HTTP1_UPGRADE:
        upgrade_field(f->value, v);
        return HTTP1_OK;
    case HTTP1_HTTP2_SETTINGS:
        v->has_h2c = true;
        return HTTP1_OK;
    case HTTP1_OTHER:
        if (h->is_request && http1_is_disguised(f))
            return http1_fail(HTTP1_E_SYNTAX,
                              "known field name with _ (RFC 3875 4.1.18)");
        return HTTP1_OK;
    default:
        return HTTP1_OK;
    }
}

static enum http1_result decide(struct http1_head *h, const struct verdict *v)
{
    if (h->is_chunked && h->has_length)
        return http1_fail(HTTP1_E_FRAMING,
                          "Content-Length with Transfer-Encoding (RFC 9112 6.3)");
    if (h->is_chunked && h->minor == 0)
        return http1_fail(HTTP1_E_FRAMING,
                          "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)");
    if (h->is_request && h->minor == 1 && v->hosts == 0)
        return http1_fail(HTTP1_E_HOST, "no Host (RFC 9112 3.2)");
    h->keep_alive =
        !v->is_close && (h->minor == 1 || v->is_keep) &&
        (h->is_request || http1_response_framing(h, false) != HTTP1_UNTIL_CLOSE);
    h->wants_upgrade = h->minor == 1 && v->is_upgrade && v->has_protocol && !v->has_h2c;
    return HTTP1_OK;
}

/* -- heads ----------------------------------------------------------------------------
 */

static enum http1_result fields_parse(const uint8_t *p, const uint8_t *end,
                                      struct http1_head *h)
{
    struct verdict v = {0};

    for (;;) {
        struct http1_field *f = &h->field[h->n_fields];
        enum http1_result r;

        if (end - p >= 2 && p[0] == '\r' && p[1] == '\n')
            break;
        if (h->n_fields == HTTP1_FIELDS_MAX)
            return http1_fail(HTTP1_E_FIELDS_BIG, "too many fields (RFC 6585 5)");
        r = http1_field_parse(&p, end, f);
        if (r == HTTP1_OK)
            r = field_check(h, f, &v);
        if (r != HTTP1_OK)
            return r;
        h->n_fields++;
    }
    if (end - p != 2)
        return http1_fail(HTTP1_E_SYNTAX, "bytes after the head (RFC 9112 2.1)");
    return decide(h, &v);
}

static enum http1_result head_parse(struct span bytes, bool is_request,
                                    struct http1_head *h)
{
    const uint8_t *p = bytes.p, *end = bytes.p + bytes.len, *stop;
    enum http1_result r;

    h->is_request = is_request;
    h->minor = 0;
    h->method = h->target = h->reason = span_of(NULL, 0);
    h->status = 0;
    h->n_fields = 0;
    h->len = bytes.len;
    h->keep_alive = h->is_chunked = h->has_length = h->wants_upgrade = false;
    h->length = 0;

    if (bytes.len > HTTP1_HEAD_MAX)
        return too_long(HTTP1_HEAD_MAX);
    if (is_request && bytes.len >= 2 && p[0] == '\r' && p[1] == '\n')
        p += 2;
    stop = http1_find_control(p, end);
    if (end - stop < 2)
        return http1_fail(HTTP1_E_SYNTAX, "line without end (RFC 9112 2.1)");
    if (stop[0] != '\r' || stop[1] != '\n')
        return http1_fail_control(*stop);
    r = is_request ? request_line(p, stop, h) : status_line(p, stop, h);
    return r == HTTP1_OK ? fields_parse(stop + 2, end, h) : r;
}

enum http1_result http1_parse_request(struct span bytes, struct http1_head *ret)
{
    return head_parse(bytes, true, ret);
}

enum http1_result http1_parse_response(struct span bytes, struct http1_head *ret)
{
    return head_parse(bytes, false, ret);
}

enum http1_framing http1_request_framing(const struct http1_head *h)
{
    if (h->is_chunked)
        return HTTP1_CHUNKED;
    return h->has_length && h->length > 0 ? HTTP1_LENGTH : HTTP1_NONE;
}

enum http1_framing http1_response_framing(const struct http1_head *h, bool is_head)
{
    /* Whatever the fields say (RFC 9112 6.3, 1). */
    if (is_head || h->status < 200 || h->status == 204 || h->status == 304)
        return HTTP1_NONE;
    if (h->is_chunked)
        return HTTP1_CHUNKED;
    return h->has_length ? HTTP1_LENGTH : HTTP1_UNTIL_CLOSE;
}
