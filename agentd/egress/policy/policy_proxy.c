/* SPDX-License-Identifier: MIT */
/* The member "proxy" of a policy. */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "agentd/link/proxy.h"
#include "common/limits.h"
#include "common/log.h"

struct proxy_spec {
    const char *url, *no_proxy, *file; /* borrowed from the JSON */
    bool required, has_by, by_name;
};

static const char *const names[] = {"by", "credentials_file", "no_proxy", "required",
                                    "url"};

const char *const *policy_proxy_keys(size_t *ret_n)
{
    *ret_n = COUNT_OF(names);
    return names;
}

static int read_member(struct policy_build *b, const char *path, const char *name,
                       const struct json *v, struct proxy_spec *s)
{
    if (strcmp(name, "required") == 0) {
        s->required = json_bool(v);
        return build_type(b, path, v, JSON_BOOL) ? 0 : -1;
    }
    if (strcmp(name, "url") == 0)
        return (s->url = build_text(b, path, v, PROXY_URL_MAX)) ? 0 : -1;
    if (strcmp(name, "credentials_file") == 0)
        return (s->file = build_text(b, path, v, 255)) ? 0 : -1;
    if (strcmp(name, "no_proxy") == 0) {
        if (json_type(v) == JSON_STRING && *json_str(v) == '\0') {
            s->no_proxy = "";
            return 0;
        }
        return (s->no_proxy = build_text(b, path, v, PROXY_NO_PROXY_MAX)) ? 0 : -1;
    }
    if (strcmp(name, "by") == 0) {
        if (!build_type(b, path, v, JSON_STRING))
            return -1;
        s->has_by = true;
        s->by_name = strcmp(json_str(v), "name") == 0;
        if (s->by_name || strcmp(json_str(v), "address") == 0)
            return 0;
        build_error(b, path, "must be \"address\" or \"name\"");
        return -1;
    }
    build_unknown(b, path, names, COUNT_OF(names), name);
    return -1;
}

/* -- the URL ------------------------------------------------------------------------- */

static int put_escaped(struct buf *out, const struct secret *s)
{
    for (size_t i = 0; i < s->len; i++) {
        char c = (char)s->p[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || (c && strchr("-._~", c));

        if ((is_plain ? buf_add(out, &c, 1) : buf_addf(out, "%%%02X", s->p[i])) < 0)
            return -1;
    }
    return 0;
}

/* The URL in one form, whatever was written. */
static int put_url(struct buf *out, const struct proxy_url *u)
{
    char at[PROXY_TEXT_MAX];

    if (buf_addf(out, "%s://", proxy_scheme_name(u->scheme)) < 0)
        return -1;
    if (u->has_credentials &&
        (put_escaped(out, &u->user) < 0 || buf_adds(out, ":") < 0 ||
         put_escaped(out, &u->password) < 0 || buf_adds(out, "@") < 0))
        return -1;
    return buf_adds(out, proxy_print(u->host, u->port, at));
}

/* "user:password" and nothing else, as written: no percent signs are looked at. */
static int add_credentials(struct policy_build *b, const char *path, const char *file,
                           struct proxy_url *u)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    const uint8_t *colon;
    struct err e;
    int rc = -1;

    if (u->has_credentials) {
        build_error(b, path, "the URL has credentials already");
        return -1;
    }
    if (!b->reader || !b->reader->file) {
        build_error(b, path, "files cannot be read out here");
        return -1;
    }
    if (b->reader->file(b->reader->arg, file, &text, &e) < 0) {
        build_error(b, path, "%s", e.msg);
        return -1;
    }
    while (text.len > 0 && (text.p[text.len - 1] == '\n' || text.p[text.len - 1] == '\r'))
        text.len--;
    colon = text.len ? memchr(text.p, ':', text.len) : NULL;
    for (size_t i = 0; i < text.len && colon; i++)
        if (text.p[i] < ' ' || text.p[i] == 0x7f)
            colon = NULL;
    if (!colon || text.len > PROXY_URL_MAX / 4) {
        build_error(b, path, "the file must hold one line, user:password");
    } else if (secret_set(&u->user, span_of(text.p, (size_t)(colon - text.p))) < 0 ||
               secret_set(&u->password,
                          span_skip(buf_span(&text), (size_t)(colon - text.p) + 1)) < 0) {
        build_no_memory(b);
    } else {
        u->has_credentials = true;
        rc = 0;
    }
    if (text.p)
        explicit_bzero(text.p, text.cap);
    return rc;
}

static void set_proxy(struct policy_build *b, const struct proxy_spec *s,
                      struct proxy_url *u)
{
    struct policy_proxy *to = &b->p->proxy;
    AUTO(buf_done)
    struct buf url = BUF_INIT;

    if (s->file && add_credentials(b, "proxy.credentials_file", s->file, u) < 0)
        return;
    *to = (struct policy_proxy){
        .required = s->required,
        .by_name = s->has_by ? s->by_name : u->scheme == PROXY_SOCKS5H,
    };
    if (put_url(&url, u) == 0)
        to->url = arena_text(&b->p->arena, buf_span(&url));
    if (s->file)
        to->credentials_file = arena_text(&b->p->arena, span_str(s->file));
    if (s->no_proxy && *s->no_proxy)
        to->no_proxy = arena_text(&b->p->arena, span_str(s->no_proxy));
    if (!to->url || (s->file && !to->credentials_file) ||
        (s->no_proxy && *s->no_proxy && !to->no_proxy))
        build_no_memory(b);
    if (url.p)
        explicit_bzero(url.p, url.cap);
}

/* "env": what the environment says now. False: there is no proxy in it, or it
 * cannot be. */
static bool from_env(struct policy_build *b, struct proxy_spec *s)
{
    struct proxy_env env;

    proxy_env_get(&env);
    s->url = env.https_proxy ? env.https_proxy : env.all_proxy;
    if (!s->no_proxy)
        s->no_proxy = env.no_proxy;
    if (s->no_proxy && strlen(s->no_proxy) > PROXY_NO_PROXY_MAX) {
        build_error(b, "proxy.url", "NO_PROXY has over %d bytes", PROXY_NO_PROXY_MAX);
        return false;
    }
    if (s->url)
        return true;
    if (s->required)
        build_error(b, "proxy.url",
                    "a proxy is required, and neither HTTPS_PROXY nor ALL_PROXY is set");
    else
        build_warn(b, "proxy.url",
                   "neither HTTPS_PROXY nor ALL_PROXY is set: connects directly");
    return false;
}

void policy_proxy_read(struct policy_build *b, const struct json *v)
{
    struct proxy_spec s = {.url = NULL};
    char path[POLICY_PATH_MAX];
    const struct json *item;
    struct proxy_url u;
    const char *name;
    size_t pos = 0;
    struct err e;
    int rc = 0;

    if (!build_type(b, "proxy", v, JSON_OBJECT))
        return;
    while (json_next(v, &pos, &name, &item)) {
        (void)snprintf(path, sizeof path, "proxy.%.40s", name);
        rc |= read_member(b, path, name, item, &s);
    }
    if (rc == 0 && !s.url) {
        build_error(b, "proxy", "a proxy has \"url\"");
        return;
    }
    b->p->proxy = (struct policy_proxy){.url = NULL};
    if (rc < 0 || (strcmp(s.url, "env") == 0 && !from_env(b, &s)))
        return;
    if (proxy_url_parse(span_str(s.url), &u, &e) < 0) {
        build_error(b, "proxy.url", "%s", e.msg);
        return;
    }
    if (u.scheme == PROXY_SOCKS5H && s.has_by && !s.by_name)
        build_error(b, "proxy.by", "socks5h:// asks by name; write socks5://");
    else
        set_proxy(b, &s, &u);
    proxy_url_done(&u);
}
