/* SPDX-License-Identifier: MIT */
/*
 * Theory. Every preview is same-site to every other one, so the browser sends a visitor's
 * cookie along with whatever a hostile preview's page asks for. What tells the two apart:
 *   Origin    sent with everything that can be read back or changes something: must be of
 *             this sandbox, unless the visitor is navigating there;
 *   neither   an image, script or no-cors fetch has no Origin. Sec-Fetch-Site then says
 *             whether the asking page is this very origin; for another one Referer must be
 *             of this sandbox. Where the browser sends no Sec-Fetch-Site, nothing is known
 *             and the cookie counts.
 */
#include "tunneld/edge/access.h"

#include <string.h>

#include "common/crypto.h"
#include "common/wire.h"

#define COOKIE_VERSION 1
#define COOKIE_ANY     255
/* Sealing adds nonce and tag (28); then the base64 of all. */
#define COOKIE_PLAIN_MAX                                                                 \
    (1 + 8 + 1 + HOST_ID_MAX + 1 + TOKEN_TENANT_MAX + 1 + PORT_LIST_MAX * 4)
#define COOKIE_TEXT_MAX 1024

/* -- finding credentials --------------------------------------------------------------- */

/* The next '&' part of a query. */
static bool param_next(struct span *query, struct span *ret)
{
    const uint8_t *amp;

    if (!query->p)
        return false;
    amp = query->len ? memchr(query->p, '&', query->len) : NULL;
    *ret = span_of(query->p, amp ? (size_t)(amp - query->p) : query->len);
    *query = amp ? span_skip(*query, ret->len + 1) : span_of(NULL, 0);
    return true;
}

static bool param_is_ours(struct span param)
{
    size_t n = strlen(ACCESS_QUERY);

    return param.len >= n && memcmp(param.p, ACCESS_QUERY, n) == 0 &&
           (param.len == n || param.p[n] == '=');
}

static bool query_of(struct span target, struct span *ret_path, struct span *ret_query)
{
    const uint8_t *q = target.len ? memchr(target.p, '?', target.len) : NULL;

    if (!q)
        return false;
    *ret_path = span_of(target.p, (size_t)(q - target.p));
    *ret_query = span_skip(target, ret_path->len + 1);
    return true;
}

/* How many there are, and the first one's value. */
static unsigned find_param(struct span target, struct span *ret)
{
    struct span path, query, param;
    unsigned n = 0;

    if (!query_of(target, &path, &query))
        return 0;
    while (param_next(&query, &param)) {
        size_t name = strlen(ACCESS_QUERY);

        if (!param_is_ours(param))
            continue;
        if (n++ == 0)
            *ret = param.len > name ? span_skip(param, name + 1) : span_of(param.p, 0);
    }
    return n;
}

bool access_target_has_token(struct span target)
{
    struct span value;

    /* Nearly every target leaves here: no '?', or nothing of ours behind it. */
    return find_param(target, &value) > 0;
}

int access_put_target(struct span target, struct buf *out)
{
    struct span path, query, param;
    char before = '?';

    if (!access_target_has_token(target) || !query_of(target, &path, &query))
        return buf_add(out, target.p, target.len);
    if (buf_add(out, path.p, path.len) < 0)
        return -1;
    while (param_next(&query, &param)) {
        if (param_is_ours(param))
            continue;
        if (buf_add(out, &before, 1) < 0 || buf_add(out, param.p, param.len) < 0)
            return -1;
        before = '&';
    }
    return 0;
}

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = span_skip(s, 1);
    while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The next ';' part of a Cookie value, without white space. */
static bool cookie_next(struct span *list, struct span *ret)
{
    const uint8_t *semi;
    struct span part;

    if (!list->p)
        return false;
    semi = list->len ? memchr(list->p, ';', list->len) : NULL;
    part = span_of(list->p, semi ? (size_t)(semi - list->p) : list->len);
    *list = semi ? span_skip(*list, part.len + 1) : span_of(NULL, 0);
    *ret = trim(part);
    return true;
}

/* A cookie without a name goes out as its bare value, so "=__Host-tunnel=x" set by an app
 * would come back looking like ours. */
static bool cookie_is_ours(struct span cookie, struct span *ret_value)
{
    const uint8_t *eq;

    while (cookie.len > 0 &&
           (cookie.p[0] == '=' || cookie.p[0] == ' ' || cookie.p[0] == '\t'))
        cookie = span_skip(cookie, 1);
    eq = cookie.len ? memchr(cookie.p, '=', cookie.len) : NULL;
    *ret_value =
        eq ? span_skip(cookie, (size_t)(eq - cookie.p) + 1) : span_of(cookie.p, 0);
    if (eq)
        cookie.len = (size_t)(eq - cookie.p);
    return span_is(trim(cookie), ACCESS_COOKIE);
}

int access_put_cookies(struct span value, struct buf *out, size_t *ret_n)
{
    size_t from = out->len;
    struct span cookie, ours;

    while (cookie_next(&value, &cookie)) {
        if (cookie.len == 0 || cookie_is_ours(cookie, &ours))
            continue;
        if ((out->len > from && buf_add(out, "; ", 2) < 0) ||
            buf_add(out, cookie.p, cookie.len) < 0)
            return -1;
    }
    *ret_n = out->len - from;
    return 0;
}

bool access_is_our_cookie(struct span set_cookie)
{
    struct span first, value;

    return cookie_next(&set_cookie, &first) && cookie_is_ours(first, &value);
}

/* -- where the request comes from ------------------------------------------------------ */

static bool field_is(const struct http1_head *h, enum http1_field_id id, const char *lit)
{
    const struct http1_field *f = http1_find(h, id);

    return f && span_is(f->value, lit);
}

bool access_is_navigation(const struct http1_head *h)
{
    return field_is(h, HTTP1_SEC_FETCH_MODE, "navigate");
}

static bool cookie_counts(const struct site *s, const struct http1_head *h)
{
    const struct http1_field *origin = http1_find(h, HTTP1_ORIGIN);
    const struct http1_field *from;
    struct span rest;

    if (access_is_navigation(h))
        return true;
    if (origin)
        return site_is_origin(s, origin->value);
    if (!field_is(h, HTTP1_SEC_FETCH_SITE, "same-site") &&
        !field_is(h, HTTP1_SEC_FETCH_SITE, "cross-site"))
        return true;
    from = http1_find(h, HTTP1_REFERER);
    return from && site_sibling(s, from->value, &rest) != 0;
}

static bool is_preflight(const struct site *s, const struct http1_head *h)
{
    const struct http1_field *origin = http1_find(h, HTTP1_ORIGIN);

    /* It passes without credentials, so nothing but its fields may come with it. */
    return span_eq(h->method, span_str("OPTIONS")) && origin && !h->wants_upgrade &&
           http1_request_framing(h) == HTTP1_NONE &&
           http1_find(h, HTTP1_ACCESS_CONTROL_REQUEST_METHOD) &&
           site_is_origin(s, origin->value);
}

/* -- the cookie ------------------------------------------------------------------------ */

static void put_uint(uint8_t **p, uint64_t v, unsigned n)
{
    while (n-- > 0)
        *(*p)++ = (uint8_t)(v >> (8 * n));
}

static void put_text(uint8_t **p, const char *text)
{
    size_t n = strlen(text);

    *(*p)++ = (uint8_t)n;
    memcpy(*p, text, n);
    *p += n;
}

int access_put_cookie(const struct access_keys *k, const struct site *s,
                      const struct access *a, int64_t now_s, struct buf *out)
{
    uint8_t plain[COOKIE_PLAIN_MAX], *p = plain;
    AUTO(buf_done)
    struct buf sealed = BUF_INIT;

    put_uint(&p, COOKIE_VERSION, 1);
    put_uint(&p, (uint64_t)(now_s + s->conf->limits.cookie_s), 8);
    put_text(&p, s->id);
    put_text(&p, a->tenant);
    put_uint(&p, a->has_ports ? a->ports.n : COOKIE_ANY, 1);
    for (unsigned i = 0; a->has_ports && i < a->ports.n; i++) {
        put_uint(&p, a->ports.range[i].first, 2);
        put_uint(&p, a->ports.range[i].last, 2);
    }
    if (crypto_seal(k->cookie_key, span_str(s->host), span_of(plain, (size_t)(p - plain)),
                    &sealed) < 0)
        return -1;
    return b64url_encode(out, buf_span(&sealed));
}

static bool read_text(struct wire_rd *r, char *ret, size_t max)
{
    size_t n = wire_rd_uint(r, 1);
    struct wire_rd text;

    if (n > max)
        return false;
    text = wire_rd_sub(r, n);
    if (r->bad || text.bad)
        return false;
    memcpy(ret, text.p, n);
    ret[n] = '\0';
    return true;
}

static bool cookie_read(struct span plain, const struct site *s, int64_t now_s,
                        struct access *ret)
{
    struct wire_rd r = wire_rd_init(plain.p, plain.len);
    char sub[HOST_ID_MAX + 1];
    uint64_t exp;
    unsigned n;

    if (wire_rd_uint(&r, 1) != COOKIE_VERSION)
        return false;
    exp = (uint64_t)wire_rd_uint(&r, 4) << 32;
    exp |= wire_rd_uint(&r, 4);
    if (!read_text(&r, sub, HOST_ID_MAX) || !read_text(&r, ret->tenant, TOKEN_TENANT_MAX))
        return false;
    n = wire_rd_uint(&r, 1);
    ret->has_ports = n != COOKIE_ANY;
    ret->ports.n = 0;
    if (ret->has_ports && n > PORT_LIST_MAX)
        return false;
    for (unsigned i = 0; ret->has_ports && i < n; i++) {
        ret->ports.range[i].first = (uint16_t)wire_rd_uint(&r, 2);
        ret->ports.range[i].last = (uint16_t)wire_rd_uint(&r, 2);
        ret->ports.n++;
    }
    return !r.bad && wire_rd_left(&r) == 0 && (uint64_t)now_s < exp &&
           strcmp(sub, s->id) == 0;
}

static bool cookie_open(const struct access_keys *k, const struct site *s,
                        struct span text, int64_t now_s, struct access *ret)
{
    AUTO(buf_done)
    struct buf sealed = BUF_INIT;
    AUTO(buf_done)
    struct buf plain = BUF_INIT;

    if (text.len == 0 || text.len > COOKIE_TEXT_MAX || b64url_decode(&sealed, text) < 0 ||
        crypto_open(k->cookie_key, span_str(s->host), buf_span(&sealed), &plain) < 0)
        return false;
    return cookie_read(buf_span(&plain), s, now_s, ret);
}

static bool by_cookie(const struct access_keys *k, const struct site *s,
                      const struct http1_head *h, int64_t now_s, struct access *ret)
{
    struct span list, cookie, value;

    for (unsigned i = 0; i < h->n_fields; i++) {
        if (h->field[i].id != HTTP1_COOKIE)
            continue;
        list = h->field[i].value;
        while (cookie_next(&list, &cookie))
            if (cookie_is_ours(cookie, &value) && cookie_counts(s, h) &&
                cookie_open(k, s, value, now_s, ret))
                return true;
    }
    return false;
}

/* -- tokens ---------------------------------------------------------------------------- */

static bool by_token(const struct access_keys *k, const struct site *s, struct span text,
                     int64_t now_s, struct access *ret)
{
    struct token t;

    if (text.len == 0 || text.len > TOKEN_TEXT_MAX ||
        token_verify(k->tokens, text, TOKEN_ACCESS, now_s, s->conf->limits.access_token_s,
                     &t, NULL) < 0 ||
        strcmp(t.sub, s->id) != 0)
        return false;
    memcpy(ret->tenant, t.tenant, sizeof(ret->tenant));
    ret->has_ports = t.has_ports;
    ret->ports = t.ports;
    return true;
}

static bool by_header(const struct access_keys *k, const struct site *s,
                      const struct http1_head *h, int64_t now_s, struct access *ret)
{
    const struct http1_field *f = http1_find(h, HTTP1_X_TUNNEL_TOKEN);

    if (!f)
        return false;
    for (unsigned i = 0; i < h->n_fields; i++)
        if (h->field[i].id == HTTP1_X_TUNNEL_TOKEN && &h->field[i] != f)
            return false;
    return by_token(k, s, f->value, now_s, ret);
}

bool access_tenant_is_ok(const char *mine, const char *owner)
{
    return mine[0] == '\0' || strcmp(mine, owner) == 0;
}

void access_decide(const struct access_keys *k, const struct site *s,
                   const struct http1_head *h, int64_t now_s, struct access *ret)
{
    struct span text;
    unsigned n = find_param(h->target, &text);
    bool can_redirect = !h->wants_upgrade && (span_eq(h->method, span_str("GET")) ||
                                              span_eq(h->method, span_str("HEAD")));

    ret->kind = ACCESS_OK;
    ret->tenant[0] = '\0';
    ret->has_ports = false;
    ret->ports.n = 0;
    ret->sets_cookie = n == 1 && by_token(k, s, text, now_s, ret);
    if (!ret->sets_cookie && !by_header(k, s, h, now_s, ret) &&
        !by_cookie(k, s, h, now_s, ret))
        ret->kind = is_preflight(s, h) ? ACCESS_PREFLIGHT : ACCESS_NONE;
    else if (ret->has_ports && !port_list_has(&ret->ports, s->port))
        ret->kind = ACCESS_FORBIDDEN;
    else if (n > 0 && can_redirect)
        ret->kind = ACCESS_ENTER;
}
