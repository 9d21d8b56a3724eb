/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/site.h"

#include <stdio.h>
#include <string.h>

static void find_preview(const struct site *s, const struct host *h, struct site *ret)
{
    struct host_route r;

    host_route(h, s->conf->domain, s->conf->control_host, &r);
    ret->id[0] = '\0';
    ret->port = 0;
    switch (r.kind) {
    case HOST_FOREIGN:
        ret->kind = SITE_FOREIGN;
        return;
    case HOST_APEX:
        ret->kind = SITE_APEX;
        return;
    case HOST_PREVIEW:
    case HOST_LINK:
        ret->kind = r.kind == HOST_LINK ? SITE_LINK : SITE_PREVIEW;
        memcpy(ret->id, r.id, sizeof(ret->id));
        ret->port = r.port;
        return;
    case HOST_NAME:
        ret->kind = s->ops->find_name(s->owner, r.name, ret->id, &ret->port)
                        ? SITE_PREVIEW
                        : SITE_BAD;
        return;
    case HOST_BAD:
        ret->kind = SITE_BAD;
        return;
    }
}

void site_find(struct site *s, struct span authority)
{
    struct host h;

    s->kind = SITE_FOREIGN;
    s->host[0] = s->id[0] = '\0';
    s->host_port = s->port = 0;
    if (host_parse(authority, &h) < 0)
        return;
    memcpy(s->host, h.name, sizeof(s->host));
    s->host_port = h.port;
    find_preview(s, &h, s);
}

static bool starts_with(struct span s, const char *lit)
{
    size_t n = strlen(lit);

    return s.len >= n && strncasecmp((const char *)s.p, lit, n) == 0;
}

struct url {
    bool is_https;
    struct host host;
    struct span rest; /* path, query, fragment */
};

/* @any_scheme  "//authority" is taken too */
static bool url_parse(struct span text, bool any_scheme, struct url *ret)
{
    size_t n = 0;

    if (starts_with(text, "https://"))
        n = 8;
    else if (starts_with(text, "http://"))
        n = 7;
    else if (any_scheme && starts_with(text, "//"))
        n = 2;
    if (n == 0)
        return false;
    ret->is_https = n == 8;
    text = span_skip(text, n);
    for (n = 0; n < text.len; n++)
        if (text.p[n] == '/' || text.p[n] == '?' || text.p[n] == '#')
            break;
    ret->rest = span_skip(text, n);
    return host_parse(span_of(text.p, n), &ret->host) == 0;
}

uint16_t site_sibling(const struct site *s, struct span url, struct span *ret_rest)
{
    struct site other;
    struct url u;

    if (!url_parse(url, false, &u))
        return 0;
    if (!u.is_https && strcmp(s->conf->public_scheme, "http") != 0)
        return 0;
    find_preview(s, &u.host, &other);
    if (other.kind != SITE_PREVIEW || strcmp(other.id, s->id) != 0)
        return 0;
    *ret_rest = u.rest;
    return other.port;
}

bool site_is_origin(const struct site *s, struct span origin)
{
    struct span rest;

    return site_sibling(s, origin, &rest) != 0 && rest.len == 0;
}

uint16_t site_local(const struct site *s, struct span url, struct span *ret_rest)
{
    static const char *const local[] = {"localhost", "127.0.0.1", "::1", "0.0.0.0"};
    struct url u;
    uint16_t port;
    size_t i;

    if (!url_parse(url, true, &u))
        return 0;
    for (i = 0; i < COUNT_OF(local); i++)
        if (strcmp(u.host.name, local[i]) == 0)
            break;
    if (i == COUNT_OF(local))
        return 0;
    port = u.host.port ? u.host.port : (u.is_https ? 443 : 80);
    if (port != s->port && !s->ops->publishes(s->owner, s->id, port))
        return 0;
    *ret_rest = u.rest;
    return port;
}

int site_put_url(const struct site *s, uint16_t port, struct buf *out)
{
    const struct config *c = s->conf;
    bool is_default =
        c->public_port == 0 ||
        c->public_port == (strcmp(c->public_scheme, "https") == 0 ? 443 : 80);
    char text[HOST_MAX + 64];
    int n;

    if (port == s->port)
        n = snprintf(text, sizeof(text), "%s://%s", c->public_scheme, s->host);
    else
        n = snprintf(text, sizeof(text), "%s://%u-%s.%s", c->public_scheme, port, s->id,
                     c->domain);
    if (n < 0 || (size_t)n >= sizeof(text))
        return -1;
    if (!is_default)
        n += snprintf(text + n, sizeof(text) - (size_t)n, ":%u", c->public_port);
    return buf_add(out, text, (size_t)n);
}

bool site_is_wide_domain(const struct site *s, struct span domain)
{
    size_t len = strlen(s->conf->domain);
    const char *tail;

    if (domain.len > 0 && domain.p[0] == '.')
        domain = span_skip(domain, 1);
    if (domain.len > 0 && domain.p[domain.len - 1] == '.')
        domain.len--;
    if (span_is(domain, "localhost"))
        return true;
    if (domain.len == 0 || domain.len > len)
        return false;
    tail = s->conf->domain + len - domain.len;
    return strncasecmp((const char *)domain.p, tail, domain.len) == 0 &&
           (domain.len == len || tail[-1] == '.');
}
