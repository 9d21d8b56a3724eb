/* SPDX-License-Identifier: MIT */
#include "agentd/link/proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agentd/link/resolve.h"
#include "common/limits.h"
#include "common/sock.h"

static const struct {
    const char *name;
    uint16_t port;
} schemes[] = {
    [PROXY_HTTP] = {"http", 80},
    [PROXY_HTTPS] = {"https", 443},
    [PROXY_SOCKS5] = {"socks5", 1080},
    [PROXY_SOCKS5H] = {"socks5h", 1080},
};

const char *proxy_scheme_name(enum proxy_scheme s)
{
    return schemes[s].name;
}

const char *proxy_print(const char *host, uint16_t port, char out[PROXY_TEXT_MAX])
{
    bool is_v6 = strchr(host, ':') != NULL;

    (void)snprintf(out, PROXY_TEXT_MAX, "%s%s%s:%u", is_v6 ? "[" : "", host,
                   is_v6 ? "]" : "", port);
    return out;
}

/* -- URLs ------------------------------------------------------------------------------
 */

static int hex(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decode. Control characters would end a header line or a C string somewhere. */
static int decode(struct secret *out, struct span text, struct err *e)
{
    uint8_t plain[PROXY_URL_MAX];
    size_t i, n = 0;
    int rc;

    for (i = 0; i < text.len; i++) {
        uint8_t c = text.p[i];

        if (c == '%') {
            if (text.len - i < 3 || hex(text.p[i + 1]) < 0 || hex(text.p[i + 2]) < 0)
                return err_set(e, ERR_CONFIG,
                               "the proxy URL's credentials have a \"%%\" that two hex "
                               "digits do not follow (write %%25 for \"%%\")");
            c = (uint8_t)(hex(text.p[i + 1]) << 4 | hex(text.p[i + 2]));
            i += 2;
        }
        if (c < 0x20 || c == 0x7f)
            return err_set(e, ERR_CONFIG,
                           "the proxy URL's credentials have a control character");
        plain[n++] = c;
    }
    rc = secret_set(out, span_of(plain, n));
    explicit_bzero(plain, sizeof(plain));
    return rc < 0 ? err_set(e, ERR_NOMEM, "reading a proxy URL: no memory") : 0;
}

static int parse_credentials(struct span text, struct proxy_url *ret, struct err *e)
{
    const uint8_t *colon = text.len ? memchr(text.p, ':', text.len) : NULL;
    struct span user = text, password = {0};

    if (text.len == 0)
        return 0;
    if (colon) {
        user.len = (size_t)(colon - text.p);
        password = span_skip(text, user.len + 1);
    }
    ret->has_credentials = true;
    if (decode(&ret->user, user, e) < 0 || decode(&ret->password, password, e) < 0)
        return -1;
    if (ret->user.len && memchr(ret->user.p, ':', ret->user.len) &&
        ret->scheme <= PROXY_HTTPS)
        return err_set(e, ERR_CONFIG,
                       "a proxy user name cannot have a colon (RFC 7617 2)");
    return 0;
}

static int parse_scheme(struct span *text, struct proxy_url *ret, struct err *e)
{
    const uint8_t *mark = memmem(text->p, text->len, "://", 3);
    struct span name = {0};
    size_t i;

    if (!mark) {
        ret->scheme = PROXY_HTTP;
        return 0;
    }
    name = span_of(text->p, (size_t)(mark - text->p));
    for (i = 0; i < COUNT_OF(schemes); i++) {
        if (!span_is(name, schemes[i].name))
            continue;
        ret->scheme = (enum proxy_scheme)i;
        *text = span_skip(*text, name.len + 3);
        return 0;
    }
    return err_set(e, ERR_CONFIG,
                   "the proxy URL's scheme is none of http, https, socks5, socks5h");
}

static int parse_url(struct span text, struct proxy_url *ret, struct err *e)
{
    const uint8_t *at, *slash;
    struct span userinfo = {0};
    struct host host;

    if (text.len == 0)
        return err_set(e, ERR_CONFIG, "the proxy URL is empty");
    if (text.len > PROXY_URL_MAX)
        return err_set(e, ERR_CONFIG, "the proxy URL has over %d bytes", PROXY_URL_MAX);
    if (parse_scheme(&text, ret, e) < 0)
        return -1;
    at = text.len ? memrchr(text.p, '@', text.len) : NULL;
    if (at) {
        userinfo = span_of(text.p, (size_t)(at - text.p));
        text = span_skip(text, userinfo.len + 1);
        /* A host before a slash would be what other programs connect to. */
        if (userinfo.len && (memchr(userinfo.p, '/', userinfo.len) ||
                             memchr(userinfo.p, '?', userinfo.len) ||
                             memchr(userinfo.p, '#', userinfo.len)))
            return err_set(e, ERR_CONFIG,
                           "the proxy URL's credentials have a \"/\", \"?\" or \"#\" "
                           "(write %%2F, %%3F, %%23)");
    }
    slash = text.len ? memchr(text.p, '/', text.len) : NULL;
    if (slash) {
        if (slash + 1 != text.p + text.len)
            return err_set(e, ERR_CONFIG, "the proxy URL has a path");
        text.len--;
    }
    if (host_parse(text, &host) < 0)
        return err_set(e, ERR_CONFIG, "the proxy URL has no valid HOST[:PORT]");
    memcpy(ret->host, host.name, sizeof(ret->host));
    ret->port = host.port ? host.port : schemes[ret->scheme].port;
    return parse_credentials(userinfo, ret, e);
}

int proxy_url_parse(struct span text, struct proxy_url *ret, struct err *e)
{
    memset(ret, 0, sizeof(*ret));
    if (parse_url(text, ret, e) == 0)
        return 0;
    proxy_url_done(ret);
    return -1;
}

void proxy_url_done(struct proxy_url *p)
{
    secret_done(&p->user);
    secret_done(&p->password);
    memset(p, 0, sizeof(*p));
}

/* -- the environment --------------------------------------------------------------------
 */

static const char *env_either(const char *lower, const char *upper)
{
    const char *v = getenv(lower);

    if (!v || !*v)
        v = getenv(upper);
    return v && *v ? v : NULL;
}

void proxy_env_get(struct proxy_env *ret)
{
    ret->https_proxy = env_either("https_proxy", "HTTPS_PROXY");
    ret->all_proxy = env_either("all_proxy", "ALL_PROXY");
    ret->no_proxy = env_either("no_proxy", "NO_PROXY");
}

/* Split ":port" off an entry. False when what looks like a port is none. An IPv6 address
 * or range has colons and no port unless it stands in brackets. */
static bool split_port(struct span *entry, uint16_t *ret_port)
{
    const uint8_t *colon = memrchr(entry->p, ':', entry->len);
    size_t before;

    *ret_port = 0;
    if (entry->p[0] == '[') {
        const uint8_t *close = memchr(entry->p, ']', entry->len);
        size_t len = close ? (size_t)(close - entry->p) : 0;
        struct span rest;

        if (!close)
            return false;
        rest = span_skip(*entry, len + 1);
        *entry = span_of(entry->p + 1, len - 1);
        if (rest.len == 0)
            return true;
        *ret_port = rest.p[0] == ':' ? host_port_parse(span_skip(rest, 1)) : 0;
        return *ret_port != 0;
    }
    if (!colon)
        return true;
    before = (size_t)(colon - entry->p);
    if (before && memchr(entry->p, ':', before))
        return true;
    *ret_port = host_port_parse(span_skip(*entry, before + 1));
    entry->len = before;
    return *ret_port != 0;
}

static bool name_matches(struct span entry, const char *name)
{
    size_t len = strlen(name);
    bool only_below = false;

    if (entry.len >= 2 && entry.p[0] == '*' && entry.p[1] == '.')
        entry = span_skip(entry, 1);
    if (entry.len && entry.p[0] == '.') {
        entry = span_skip(entry, 1);
        only_below = true;
    }
    if (entry.len && entry.p[entry.len - 1] == '.')
        entry.len--;
    if (entry.len == 0 || entry.len > len)
        return false;
    if (strncasecmp(name + len - entry.len, (const char *)entry.p, entry.len) != 0)
        return false;
    if (entry.len == len)
        return !only_below;
    return name[len - entry.len - 1] == '.';
}

static bool entry_matches(struct span entry, const char *name, uint16_t port)
{
    struct sock_addr address;
    struct sock_cidr range;
    uint16_t only_port;

    if (span_is(entry, "*"))
        return true;
    if (!split_port(&entry, &only_port) || (only_port && only_port != port) ||
        entry.len == 0)
        return false;
    if (sock_parse_ip(span_str(name), port, &address) == 0)
        return sock_cidr_parse(entry, &range) == 0 && sock_cidr_has(&range, &address);
    return name_matches(entry, name);
}

static bool is_separator(uint8_t c)
{
    return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool proxy_is_bypassed(struct span no_proxy, const char *name, uint16_t port)
{
    size_t i = 0, start;

    while (i < no_proxy.len) {
        while (i < no_proxy.len && is_separator(no_proxy.p[i]))
            i++;
        start = i;
        while (i < no_proxy.len && !is_separator(no_proxy.p[i]))
            i++;
        if (i > start &&
            entry_matches(span_of(no_proxy.p + start, i - start), name, port))
            return true;
    }
    return false;
}

int proxy_choose(const char *setting, const struct proxy_env *env, const char *name,
                 uint16_t port, struct proxy_url *ret, struct err *e)
{
    const char *url = env->https_proxy ? env->https_proxy : env->all_proxy;

    if (setting && strcmp(setting, "none") == 0)
        return 0;
    if (setting && strcmp(setting, "env") != 0)
        return proxy_url_parse(span_str(setting), ret, e) < 0 ? -1 : 1;
    if (!url)
        return 0;
    if (env->no_proxy) {
        if (strlen(env->no_proxy) > PROXY_NO_PROXY_MAX)
            return err_set(e, ERR_CONFIG, "NO_PROXY has over %d bytes",
                           PROXY_NO_PROXY_MAX);
        if (proxy_is_bypassed(span_str(env->no_proxy), name, port))
            return 0;
    }
    if (proxy_url_parse(span_str(url), ret, e) < 0)
        return err_wrap(e, "%s", env->https_proxy ? "HTTPS_PROXY" : "ALL_PROXY");
    return 1;
}
