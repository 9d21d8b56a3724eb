/* SPDX-License-Identifier: MIT */
/*
 * Bodies. The chunked decoder (RFC 9112 7.1):
 *
 *   SIZE -> DATA -> DATA_CR -> DATA_LF -> SIZE ...
 *     \  \-> EXT <-> QUOTED <-> ESCAPED
 *      \      |
 *       `-> SIZE_LF (size 0) -> TRAILER -> done
 *
 * Lines end with CRLF and nothing else, sizes are hex digits and nothing else: two
 * recipients that read a size differently are what request smuggling lives from.
 */
#include "common/http1_int.h"

enum body_state {
    SIZE,
    EXT,
    QUOTED,
    ESCAPED,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
};

#define SIZE_DIGITS_MAX 16

void http1_body_init(struct http1_body *b, enum http1_framing framing, uint64_t length)
{
    *b = (struct http1_body){.framing = framing, .trailer = BUF_INIT};
    if (framing == HTTP1_LENGTH)
        b->left = length;
    b->is_done = framing == HTTP1_NONE || (framing == HTTP1_LENGTH && length == 0);
}

void http1_body_done(struct http1_body *b)
{
    buf_done(&b->trailer);
}

static enum http1_result bad_chunk(const char *rule)
{
    return http1_fail(HTTP1_E_CHUNK, rule);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum http1_result count_ext(struct http1_body *b)
{
    if (++b->extra > HTTP1_CHUNK_EXTRA_MAX)
        return bad_chunk("too much in chunk extensions (RFC 9112 7.1.1)");
    return HTTP1_OK;
}

static enum http1_result size_byte(struct http1_body *b, uint8_t c)
{
    int digit = hex_digit(c);

    if (digit >= 0) {
        if (b->digits == SIZE_DIGITS_MAX)
            return bad_chunk("chunk size over 16 digits (RFC 9112 7.1)");
        b->digits++;
        b->left = b->left << 4 | (unsigned)digit;
        return HTTP1_OK;
    }
    if (b->digits == 0 || (c != ';' && c != '\r'))
        return bad_chunk("chunk size is no hex number (RFC 9112 7.1)");
    b->state = c == ';' ? EXT : SIZE_LF;
    return c == ';' ? count_ext(b) : HTTP1_OK;
}

static bool is_text(uint8_t c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

/* Extensions are read only to find their end, quoted strings with ';' in them included,
 * and then dropped (RFC 9112 7.1.1). */
static enum http1_result ext_byte(struct http1_body *b, uint8_t c)
{
    switch (b->state) {
    case EXT:
        if (c == '\r') {
            b->state = SIZE_LF;
            return HTTP1_OK;
        }
        if (c == '"')
            b->state = QUOTED;
        else if (!http1_is_tchar(c) && c != ';' && c != '=' && c != ' ' && c != '\t')
            return bad_chunk("byte that no chunk extension has (RFC 9112 7.1.1)");
        break;
    case QUOTED:
        if (!is_text(c))
            return bad_chunk("byte that no chunk extension has (RFC 9112 7.1.1)");
        if (c == '"')
            b->state = EXT;
        else if (c == '\\')
            b->state = ESCAPED;
        break;
    default: /* ESCAPED */
        if (!is_text(c))
            return bad_chunk("byte that no chunk extension has (RFC 9112 7.1.1)");
        b->state = QUOTED;
        break;
    }
    return count_ext(b);
}

/* All that stands between the pieces of content: one byte of it. */
static enum http1_result chunk_byte(struct http1_body *b, uint8_t c)
{
    switch (b->state) {
    case SIZE:
        return size_byte(b, c);
    case EXT:
    case QUOTED:
    case ESCAPED:
        return ext_byte(b, c);
    case SIZE_LF:
        if (c != '\n')
            return bad_chunk("CR without LF after chunk size (RFC 9112 7.1)");
        b->digits = 0;
        b->state = b->left > 0 ? DATA : TRAILER;
        return HTTP1_OK;
    case DATA_CR:
        if (c != '\r')
            return bad_chunk("no CRLF after chunk (RFC 9112 7.1)");
        b->state = DATA_LF;
        return HTTP1_OK;
    default: /* DATA_LF */
        if (c != '\n')
            return bad_chunk("no CRLF after chunk (RFC 9112 7.1)");
        b->state = SIZE;
        return HTTP1_OK;
    }
}

/* Whoever reads a trailer reads it after having decided on the head, so what decides must
 * not come there: every field that we know decides something. */
static bool is_forbidden_trailer(const struct http1_field *f)
{
    return f->id != HTTP1_OTHER || span_is(f->name, "content-encoding") ||
           span_is(f->name, "content-type") || span_is(f->name, "content-range");
}

static enum http1_result trailer_line(struct http1_body *b)
{
    const uint8_t *p = b->trailer.p + b->line, *end = b->trailer.p + b->trailer.len;
    struct http1_field f;
    enum http1_result r;

    if (end - p == 2 && p[0] == '\r') {
        b->trailer.len -= 2;
        b->is_done = true;
        return HTTP1_OK;
    }
    r = http1_field_parse(&p, end, &f);
    if (r != HTTP1_OK)
        return r;
    if (is_forbidden_trailer(&f))
        return http1_fail(HTTP1_E_SYNTAX,
                          "field not allowed in trailers (RFC 9110 6.5.1)");
    if (++b->fields > HTTP1_FIELDS_MAX)
        return http1_fail(HTTP1_E_FIELDS_BIG, "too many trailer fields (RFC 6585 5)");
    b->line = b->trailer.len;
    return HTTP1_OK;
}

static enum http1_result trailer_feed(struct http1_body *b, struct span *in)
{
    while (in->len > 0 && !b->is_done) {
        const uint8_t *lf = memchr(in->p, '\n', in->len);
        size_t n = lf ? (size_t)(lf - in->p) + 1 : in->len;
        enum http1_result r;

        if (b->trailer.len + n > HTTP1_TRAILER_MAX)
            return http1_fail(HTTP1_E_FIELDS_BIG, "trailers too long (RFC 6585 5)");
        if (buf_add(&b->trailer, in->p, n) < 0)
            return http1_fail(HTTP1_E_NOMEM, "no memory for trailers");
        *in = span_skip(*in, n);
        r = lf ? trailer_line(b) : HTTP1_OK;
        if (r != HTTP1_OK)
            return r;
    }
    return HTTP1_OK;
}

static void take(struct http1_body *b, struct span *in, struct span *ret_data)
{
    size_t n = b->left < in->len ? (size_t)b->left : in->len;

    *ret_data = span_of(in->p, n);
    *in = span_skip(*in, n);
    b->left -= n;
}

static enum http1_result chunked_feed(struct http1_body *b, struct span *in,
                                      struct span *ret_data)
{
    while (in->len > 0 && b->state != TRAILER) {
        enum http1_result r;

        if (b->state == DATA) {
            take(b, in, ret_data);
            if (b->left == 0)
                b->state = DATA_CR;
            return HTTP1_OK;
        }
        r = chunk_byte(b, in->p[0]);
        if (r != HTTP1_OK)
            return r;
        *in = span_skip(*in, 1);
    }
    return b->state == TRAILER ? trailer_feed(b, in) : HTTP1_OK;
}

enum http1_result http1_body_feed(struct http1_body *b, struct span *in,
                                  struct span *ret_data)
{
    *ret_data = span_of(in->p, 0);
    if (b->is_done)
        return HTTP1_OK;
    switch (b->framing) {
    case HTTP1_CHUNKED:
        return chunked_feed(b, in, ret_data);
    case HTTP1_LENGTH:
        take(b, in, ret_data);
        b->is_done = b->left == 0;
        return HTTP1_OK;
    case HTTP1_UNTIL_CLOSE:
        *ret_data = *in;
        *in = span_skip(*in, in->len);
        return HTTP1_OK;
    case HTTP1_NONE:
        break;
    }
    return HTTP1_OK;
}

enum http1_result http1_body_end(struct http1_body *b)
{
    if (b->framing == HTTP1_UNTIL_CLOSE)
        b->is_done = true;
    return b->is_done ? HTTP1_OK
                      : http1_fail(HTTP1_E_CUT, "body ended in the middle (RFC 9112 8)");
}
