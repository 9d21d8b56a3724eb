/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/request.h"

#include <stdio.h>
#include <string.h>

#include "tunneld/edge/access.h"

#define LIT(s) span_of("" s, sizeof(s) - 1)

static int put(struct buf *out, struct span s)
{
    return buf_add(out, s.p, s.len);
}

int request_put_field(struct buf *out, const struct http1_field *f)
{
    size_t n = f->name.len + f->value.len + 4;
    uint8_t *p;

    if (buf_reserve(out, n, SIZE_MAX) < 0)
        return -1;
    p = out->p + out->len;
    memcpy(p, f->name.p, f->name.len);
    p += f->name.len;
    *p++ = ':';
    *p++ = ' ';
    if (f->value.len > 0)
        memcpy(p, f->value.p, f->value.len);
    p += f->value.len;
    *p++ = '\r';
    *p = '\n';
    out->len += n;
    return 0;
}

static int put_localhost(struct buf *out, uint16_t port)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "localhost:%u", port);

    return buf_add(out, text, (size_t)n);
}

/* -- single fields --------------------------------------------------------------------- */

static int put_host(const struct http1_head *h, const struct request_args *a,
                    struct buf *out)
{
    const struct http1_field *f = http1_find(h, HTTP1_HOST);

    if (put(out, LIT("Host: ")) < 0)
        return -1;
    if (a->mode == CONTROL_LOCALHOST ? put_localhost(out, a->site->port)
                                     : put(out, f ? f->value : span_str(a->site->host)))
        return -1;
    return put(out, LIT("\r\n"));
}

/* Origin and Referer of this sandbox; false: as sent. The path of a Referer loses a token
 * of ours in any mode. */
static int put_from(const struct http1_field *f, const struct request_args *a,
                    struct buf *out)
{
    struct span rest;
    uint16_t port = site_sibling(a->site, f->value, &rest);
    bool is_origin = f->id == HTTP1_ORIGIN;

    if (port == 0 || (is_origin && rest.len > 0) ||
        (a->mode == CONTROL_PRESERVE && (is_origin || !access_target_has_token(rest))))
        return request_put_field(out, f);
    if (put(out, f->name) < 0 || put(out, LIT(": ")) < 0)
        return -1;
    if (a->mode == CONTROL_PRESERVE) {
        if (buf_add(out, f->value.p, f->value.len - rest.len) < 0)
            return -1;
    } else if (put(out, LIT("http://")) < 0 || put_localhost(out, port) < 0) {
        return -1;
    }
    return access_put_target(rest, out) < 0 ? -1 : put(out, LIT("\r\n"));
}

static int put_cookie(const struct http1_field *f, struct buf *out)
{
    size_t from = out->len, n;

    if (put(out, f->name) < 0 || put(out, LIT(": ")) < 0 ||
        access_put_cookies(f->value, out, &n) < 0)
        return -1;
    if (n == 0) {
        out->len = from;
        return 0;
    }
    return put(out, LIT("\r\n"));
}

static int put_one(const struct http1_head *h, const struct http1_field *f,
                   const struct request_args *a, struct buf *out)
{
    switch (f->id) {
    case HTTP1_HOST: /* ours */
    case HTTP1_CONTENT_LENGTH:
    case HTTP1_FORWARDED:
    case HTTP1_X_FORWARDED_FOR:
    case HTTP1_X_FORWARDED_PROTO:
    case HTTP1_X_FORWARDED_HOST:
    case HTTP1_X_FORWARDED_PORT:
    case HTTP1_X_FORWARDED_SERVER:
    case HTTP1_X_REAL_IP:
    case HTTP1_X_TUNNEL_TOKEN:
    case HTTP1_TUNNEL_ERROR:
    case HTTP1_TUNNEL_PUBLIC_URL:
        return 0;
    default:
        break;
    }
    if (http1_is_hop(h, f) || (f->id == HTTP1_TRAILER && !h->is_chunked))
        return 0;
    if (f->id == HTTP1_ORIGIN || f->id == HTTP1_REFERER)
        return put_from(f, a, out);
    return f->id == HTTP1_COOKIE ? put_cookie(f, out) : request_put_field(out, f);
}

/* -- forwarded fields ------------------------------------------------------------------ */

/* "name: all earlier values, ours\r\n"; earlier ones only from a trusted address. */
static int put_list(const struct http1_head *h, enum http1_field_id id, const char *name,
                    const struct request_args *a, struct span ours, struct buf *out)
{
    if (buf_adds(out, name) < 0 || put(out, LIT(": ")) < 0)
        return -1;
    for (unsigned i = 0; a->is_trusted && i < h->n_fields; i++)
        if (h->field[i].id == id && h->field[i].value.len > 0 &&
            (put(out, h->field[i].value) < 0 || put(out, LIT(", ")) < 0))
            return -1;
    return put(out, ours) < 0 ? -1 : put(out, LIT("\r\n"));
}

static const char *scheme_of(const struct http1_head *h, const struct request_args *a)
{
    const struct http1_field *f =
        a->is_trusted ? http1_find(h, HTTP1_X_FORWARDED_PROTO) : NULL;

    if (f && span_is(f->value, "https"))
        return "https";
    if (f && span_is(f->value, "http"))
        return "http";
    return a->is_tls ? "https" : a->site->conf->public_scheme;
}

/* All forwarded fields, for `preserve`. */
static int put_forwarded(const struct http1_head *h, const struct request_args *a,
                         const char *from, struct buf *out)
{
    const struct http1_field *host = http1_find(h, HTTP1_HOST);
    struct span authority = host ? host->value : span_str(a->site->host);
    const char *scheme = scheme_of(h, a);
    uint16_t port = a->site->conf->public_port;
    struct sock_addr client;
    char ip[SOCK_TEXT_MAX], text[640];
    int n;

    request_client(h, a->site->conf, a->from, a->is_trusted, &client);
    if (port == 0)
        port = strcmp(scheme, "https") == 0 ? 443 : 80;
    n = snprintf(text, sizeof(text), "for=\"%s%s%s\";host=\"%.*s\";proto=%s",
                 strchr(from, ':') ? "[" : "", from, strchr(from, ':') ? "]" : "",
                 SPAN_FMT(authority), scheme);
    if (n < 0 || (size_t)n >= sizeof(text) ||
        put_list(h, HTTP1_FORWARDED, "Forwarded", a, span_of(text, (size_t)n), out) < 0)
        return -1;
    return buf_addf(out,
                    "X-Forwarded-Proto: %s\r\nX-Forwarded-Host: %.*s\r\n"
                    "X-Forwarded-Port: %u\r\nX-Real-IP: %s\r\n",
                    scheme, SPAN_FMT(authority), port, sock_print_ip(&client, ip));
}

static int put_ours(const struct http1_head *h, const struct request_args *a,
                    struct buf *out)
{
    char from[SOCK_TEXT_MAX];

    (void)sock_print_ip(a->from, from);
    if (put_list(h, HTTP1_X_FORWARDED_FOR, "X-Forwarded-For", a, span_str(from), out) < 0)
        return -1;
    if (a->mode == CONTROL_PRESERVE && put_forwarded(h, a, from, out) < 0)
        return -1;
    if (put(out, LIT("Tunnel-Public-Url: ")) < 0 ||
        site_put_url(a->site, a->site->port, out) < 0)
        return -1;
    return put(out, LIT("\r\n"));
}

/* -- framing and connection ------------------------------------------------------------ */

static int put_upgrade(const struct http1_head *h, struct buf *out)
{
    if (put(out, LIT("Connection: upgrade\r\n")) < 0)
        return -1;
    for (unsigned i = 0; i < h->n_fields; i++)
        if (h->field[i].id == HTTP1_UPGRADE && request_put_field(out, &h->field[i]) < 0)
            return -1;
    return 0;
}

static int put_hop(const struct http1_head *h, struct buf *out)
{
    if (h->is_chunked && put(out, LIT("Transfer-Encoding: chunked\r\n")) < 0)
        return -1;
    if (h->has_length &&
        buf_addf(out, "Content-Length: %llu\r\n", (unsigned long long)h->length) < 0)
        return -1;
    if (h->wants_upgrade)
        return put_upgrade(h, out);
    if (http1_has_token(h, HTTP1_TE, "trailers"))
        return put(out, LIT("TE: trailers\r\nConnection: TE\r\n"));
    return 0;
}

int request_write(const struct http1_head *h, const struct request_args *a,
                  struct buf *out)
{
    /* One growth for the whole head in nearly every case. */
    if (buf_reserve(out, h->len + 512, SIZE_MAX) < 0 || put(out, h->method) < 0 ||
        put(out, LIT(" ")) < 0 || access_put_target(h->target, out) < 0 ||
        put(out, LIT(" HTTP/1.1\r\n")) < 0 || put_host(h, a, out) < 0)
        return -1;
    for (unsigned i = 0; i < h->n_fields; i++)
        if (put_one(h, &h->field[i], a, out) < 0)
            return -1;
    if (put_ours(h, a, out) < 0 || put_hop(h, out) < 0)
        return -1;
    return put(out, LIT("\r\n"));
}

/* -- who it is from -------------------------------------------------------------------- */

/* The last member of a comma list; the list is cut before it. */
static struct span last_member(struct span *list)
{
    struct span m;
    size_t n = list->len;

    while (n > 0 && list->p[n - 1] != ',')
        n--;
    m = span_skip(*list, n);
    list->len = n > 0 ? n - 1 : 0;
    while (m.len > 0 && (m.p[0] == ' ' || m.p[0] == '\t'))
        m = span_skip(m, 1);
    while (m.len > 0 && (m.p[m.len - 1] == ' ' || m.p[m.len - 1] == '\t'))
        m.len--;
    return m;
}

void request_client(const struct http1_head *h, const struct config *conf,
                    const struct sock_addr *from, bool is_trusted, struct sock_addr *ret)
{
    struct sock_addr a;

    *ret = *from;
    if (!is_trusted)
        return;
    for (unsigned i = h->n_fields; i-- > 0;) {
        struct span list = h->field[i].value;

        if (h->field[i].id != HTTP1_X_FORWARDED_FOR)
            continue;
        while (list.len > 0) {
            /* What is no address was not put there by somebody we trust. */
            if (sock_parse_ip(last_member(&list), 0, &a) < 0)
                return;
            *ret = a;
            if (!config_trusts(conf, &a))
                return;
        }
    }
}
