/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/response.h"

#include <stdio.h>
#include <string.h>

#include "tunneld/edge/access.h"
#include "tunneld/edge/request.h"

#define LIT(s) span_of("" s, sizeof(s) - 1)

static int put(struct buf *out, struct span s)
{
    return buf_add(out, s.p, s.len);
}

static int put_name(struct buf *out, const struct http1_field *f)
{
    return put(out, f->name) < 0 ? -1 : put(out, LIT(": "));
}

/* Location, Content-Location, Access-Control-Allow-Origin: one URL. */
static int put_url(const struct http1_field *f, const struct response_args *a,
                   struct buf *out)
{
    struct span rest, sent;
    uint16_t port = site_local(a->site, f->value, &rest);

    if (port == 0)
        return request_put_field(out, f);
    if (put_name(out, f) < 0)
        return -1;
    /* The very Origin that we rewrote comes back as the browser sent it, whatever port it
     * reached us by. */
    if (f->id == HTTP1_ACCESS_CONTROL_ALLOW_ORIGIN &&
        site_sibling(a->site, a->origin, &sent) == port && sent.len == 0) {
        if (put(out, a->origin) < 0)
            return -1;
    } else if (site_put_url(a->site, port, out) < 0) {
        return -1;
    }
    return put(out, rest) < 0 ? -1 : put(out, LIT("\r\n"));
}

/* "5; url=http://localhost:3000/x", the URL perhaps in quotes. */
static int put_refresh(const struct http1_field *f, const struct response_args *a,
                       struct buf *out)
{
    struct span v = f->value, rest;
    size_t i = 0;
    uint16_t port;

    while (i < v.len && v.p[i] != ';' && v.p[i] != ',')
        i++;
    while (i < v.len &&
           (v.p[i] == ';' || v.p[i] == ',' || v.p[i] == ' ' || v.p[i] == '\t'))
        i++;
    if (v.len - i > 3 && strncasecmp((const char *)v.p + i, "url", 3) == 0) {
        size_t j = i + 3;

        while (j < v.len && (v.p[j] == ' ' || v.p[j] == '\t'))
            j++;
        if (j < v.len && v.p[j] == '=')
            i = j + 1;
        while (i < v.len && (v.p[i] == ' ' || v.p[i] == '\t'))
            i++;
    }
    if (i < v.len && (v.p[i] == '"' || v.p[i] == '\''))
        i++;
    port = i < v.len ? site_local(a->site, span_skip(v, i), &rest) : 0;
    if (port == 0)
        return request_put_field(out, f);
    if (put_name(out, f) < 0 || buf_add(out, v.p, i) < 0 ||
        site_put_url(a->site, port, out) < 0 || put(out, rest) < 0)
        return -1;
    return put(out, LIT("\r\n"));
}

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = span_skip(s, 1);
    while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool is_wide_domain(const struct response_args *a, struct span attribute)
{
    const uint8_t *eq = attribute.len ? memchr(attribute.p, '=', attribute.len) : NULL;

    return eq &&
           span_is(trim(span_of(attribute.p, (size_t)(eq - attribute.p))), "domain") &&
           site_is_wide_domain(
               a->site, trim(span_skip(attribute, (size_t)(eq - attribute.p) + 1)));
}

static int put_set_cookie(const struct http1_field *f, const struct response_args *a,
                          struct buf *out)
{
    struct span list = f->value;
    bool is_first = true;

    if (access_is_our_cookie(f->value))
        return 0;
    if (a->mode == CONTROL_PRESERVE)
        return request_put_field(out, f);
    if (put_name(out, f) < 0)
        return -1;
    while (list.p) {
        const uint8_t *semi = list.len ? memchr(list.p, ';', list.len) : NULL;
        struct span part = span_of(list.p, semi ? (size_t)(semi - list.p) : list.len);

        list = semi ? span_skip(list, part.len + 1) : span_of(NULL, 0);
        if (!is_first && is_wide_domain(a, part))
            continue;
        if ((!is_first && put(out, LIT(";")) < 0) || put(out, part) < 0)
            return -1;
        is_first = false;
    }
    return put(out, LIT("\r\n"));
}

static int put_one(const struct http1_head *h, const struct http1_field *f,
                   const struct response_args *a, struct buf *out)
{
    switch (f->id) {
    case HTTP1_CONTENT_LENGTH: /* ours */
    case HTTP1_TUNNEL_ERROR:
        return 0;
    case HTTP1_SET_COOKIE:
        return http1_is_hop(h, f) ? 0 : put_set_cookie(f, a, out);
    case HTTP1_TRAILER:
        if (a->framing != HTTP1_CHUNKED)
            return 0;
        break;
    default:
        break;
    }
    if (http1_is_hop(h, f))
        return 0;
    if (a->mode == CONTROL_LOCALHOST) {
        if (f->id == HTTP1_LOCATION || f->id == HTTP1_CONTENT_LOCATION ||
            f->id == HTTP1_ACCESS_CONTROL_ALLOW_ORIGIN)
            return put_url(f, a, out);
        if (f->id == HTTP1_REFRESH)
            return put_refresh(f, a, out);
    }
    return request_put_field(out, f);
}

static int put_number(struct buf *out, struct span before, uint64_t n)
{
    char text[24], *p = text + sizeof(text);

    *--p = '\n';
    *--p = '\r';
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    return put(out, before) < 0 ? -1 : buf_add(out, p, (size_t)(text + sizeof(text) - p));
}

static int put_framing(const struct http1_head *h, const struct response_args *a,
                       struct buf *out)
{
    bool is_bare = h->status < 200 || h->status == 204; /* RFC 9110 8.6, RFC 9112 6.1 */

    if (is_bare)
        return 0;
    if (h->has_length)
        return put_number(out, LIT("Content-Length: "), h->length);
    if (a->framing == HTTP1_CHUNKED ||
        (a->framing == HTTP1_NONE && h->is_chunked && a->client_minor == 1))
        return put(out, LIT("Transfer-Encoding: chunked\r\n"));
    return 0;
}

static int put_connection(const struct http1_head *h, const struct response_args *a,
                          struct buf *out)
{
    if (h->status == 101) {
        if (put(out, LIT("Connection: upgrade\r\n")) < 0)
            return -1;
        for (unsigned i = 0; i < h->n_fields; i++)
            if (h->field[i].id == HTTP1_UPGRADE &&
                request_put_field(out, &h->field[i]) < 0)
                return -1;
        return 0;
    }
    if (h->status < 200)
        return 0;
    if (!a->keep_alive)
        return put(out, LIT("Connection: close\r\n"));
    return a->client_minor == 0 ? put(out, LIT("Connection: keep-alive\r\n")) : 0;
}

int response_write(const struct http1_head *h, const struct response_args *a,
                   struct buf *out)
{
    char line[16];
    int n = snprintf(line, sizeof(line), "HTTP/1.1 %u ", h->status % 1000);

    if (buf_reserve(out, h->len + 256, SIZE_MAX) < 0 ||
        buf_add(out, line, (size_t)n) < 0 || put(out, h->reason) < 0 ||
        put(out, LIT("\r\n")) < 0)
        return -1;
    for (unsigned i = 0; i < h->n_fields; i++)
        if (put_one(h, &h->field[i], a, out) < 0)
            return -1;
    if (put_framing(h, a, out) < 0 || put_connection(h, a, out) < 0)
        return -1;
    return put(out, LIT("\r\n"));
}
