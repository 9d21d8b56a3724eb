/* SPDX-License-Identifier: MIT */
/* A policy's JSON, but for its rules and its proxy. */
#include "common/json.h"

#include <stdio.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/log.h"
#include "common/mem.h"

typedef void read_fn(struct policy_build *b, const struct json *v);

static void read_version(struct policy_build *b, const struct json *v)
{
    if (json_type(v) != JSON_INT || json_int(v) != 1)
        build_error(b, "version", "must be 1");
}

static void read_name(struct policy_build *b, const struct json *v)
{
    const char *text = build_text(b, "name", v, POLICY_NAME_MAX);

    if (text && b->depth == 0) /* what is extended keeps its name to itself */
        (void)snprintf(b->p->name, sizeof b->p->name, "%s", text);
}

/* Which of the names this string is; -1 after telling. */
static int read_choice(struct policy_build *b, const char *path, const struct json *v,
                       const char *const *name, size_t n)
{
    const char *near;
    char all[64] = "";

    if (!build_type(b, path, v, JSON_STRING))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (strcmp(json_str(v), name[i]) == 0)
            return (int)i;
    near = build_nearest(name, n, json_str(v));
    if (near) {
        build_error(b, path, "cannot be %s; the nearest is \"%s\"", log_q(json_str(v)),
                    near);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(all);

        (void)snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", name[i]);
    }
    build_error(b, path, "cannot be %s, only %s", log_q(json_str(v)), all);
    return -1;
}

static void read_mode(struct policy_build *b, const struct json *v)
{
    static const char *const name[] = {"enforce", "audit", "learn"};
    int i = read_choice(b, "mode", v, name, COUNT_OF(name));

    if (i >= 0)
        b->p->mode = (enum policy_mode)i;
}

static void read_default(struct policy_build *b, const struct json *v)
{
    static const char *const name[] = {"deny", "allow"};
    int i = read_choice(b, "default", v, name, COUNT_OF(name));

    if (i >= 0)
        b->p->default_allows = i == 1;
}

static void read_list(struct policy_build *b, enum policy_list list, const char *key,
                      const struct json *v)
{
    struct rule_spec base = {0};
    char path[POLICY_PATH_MAX];

    if (!build_type(b, key, v, JSON_ARRAY))
        return;
    base.from = *b->source->file ? b->source->file : NULL;
    for (size_t i = 0; i < json_len(v); i++) {
        (void)snprintf(path, sizeof path, "%s[%zu]", key, i);
        rule_read(b, list, path, json_at(v, i), (uint32_t)i, &base);
    }
}

static void read_allow(struct policy_build *b, const struct json *v)
{
    read_list(b, POLICY_ALLOW, "allow", v);
}

static void read_deny(struct policy_build *b, const struct json *v)
{
    read_list(b, POLICY_DENY, "deny", v);
}

/* -- dns ----------------------------------------------------------------------------- */

static const char *const dns_names[] = {"upstream"};

/* "192.0.2.53", "192.0.2.53:53", "[2001:db8::53]:53", "2001:db8::53". */
static int read_upstream(struct policy_build *b, const char *path, const char *text,
                         struct buf *out)
{
    struct span s = span_str(text);
    struct ip_addr a;
    struct host h = {.port = 0};
    char ip[IP_TEXT_MAX];
    enum ip_class c;

    if (ip_parse(s, &a) < 0 &&
        (host_parse(s, &h) < 0 || !h.is_ip || ip_parse(span_str(h.name), &a) < 0)) {
        build_error(b, path,
                    "%s is no address, such as \"192.0.2.53\" or "
                    "\"[2001:db8::53]:53\"",
                    log_q(text));
        return -1;
    }
    c = ip_classify(&a);
    if (c == IP_MULTICAST || c == IP_UNSPECIFIED) {
        build_error(b, path, "no name server can have %s: it is %s", log_q(text),
                    ip_class_name(c));
        return -1;
    }
    if (buf_addf(out, a.family == AF_INET ? "%s%s:%u" : "%s[%s]:%u", out->len ? "," : "",
                 ip_print(&a, ip), h.port ? h.port : 53) == 0)
        return 0;
    build_no_memory(b);
    return -1;
}

static void read_upstreams(struct policy_build *b, const struct json *v)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    char path[POLICY_PATH_MAX];

    if (json_type(v) == JSON_STRING && strcmp(json_str(v), "system") == 0) {
        b->p->resolvers = NULL;
        return;
    }
    if (json_type(v) != JSON_ARRAY || json_len(v) == 0 ||
        json_len(v) > POLICY_UPSTREAMS) {
        build_error(b, "dns.upstream",
                    "must be \"system\" or a list of 1 to %d addresses",
                    POLICY_UPSTREAMS);
        return;
    }
    for (size_t i = 0; i < json_len(v); i++) {
        const struct json *item = json_at(v, i);

        (void)snprintf(path, sizeof path, "dns.upstream[%zu]", i);
        if (!build_type(b, path, item, JSON_STRING) ||
            read_upstream(b, path, json_str(item), &out) < 0)
            return;
    }
    b->p->resolvers = arena_text(&b->p->arena, buf_span(&out));
    if (!b->p->resolvers)
        build_no_memory(b);
}

static void read_dns(struct policy_build *b, const struct json *v)
{
    char path[POLICY_PATH_MAX];
    const struct json *item;
    const char *name;
    size_t pos = 0;

    if (!build_type(b, "dns", v, JSON_OBJECT))
        return;
    while (json_next(v, &pos, &name, &item)) {
        (void)snprintf(path, sizeof path, "dns.%.40s", name);
        if (strcmp(name, dns_names[0]) == 0)
            read_upstreams(b, item);
        else
            build_unknown(b, path, dns_names, COUNT_OF(dns_names), name);
    }
}

/* -- protocols ----------------------------------------------------------------------- */

/* The table stays sorted. */
static void set_check(struct policy_build *b, uint16_t port, enum policy_check check)
{
    struct policy *p = b->p;
    size_t i = 0;

    while (i < p->n_checks && p->checks[i].port < port)
        i++;
    if (i == p->n_checks || p->checks[i].port != port) {
        if (p->n_checks == POLICY_PROTOCOLS) {
            build_error(b, "protocols", "more than %d ports", POLICY_PROTOCOLS);
            return;
        }
        memmove(&p->checks[i + 1], &p->checks[i],
                (p->n_checks - i) * sizeof p->checks[0]);
        p->n_checks++;
    }
    p->checks[i] = (struct policy_port_check){port, check};
}

static void read_protocols(struct policy_build *b, const struct json *v)
{
    static const char *const name[] = {"none", "http", "tls"};
    char path[POLICY_PATH_MAX];
    const struct json *item;
    const char *key;
    size_t pos = 0;
    uint16_t port;
    int i;

    if (!build_type(b, "protocols", v, JSON_OBJECT))
        return;
    while (json_next(v, &pos, &key, &item)) {
        (void)snprintf(path, sizeof path, "protocols.%.40s", key);
        port = host_port_parse(span_str(key));
        if (port == 0 || port == 53) {
            build_error(b, path, "%s is no port (1-65535)%s", log_q(key),
                        port ? " of a program's: it is the name server's" : "");
            continue;
        }
        i = read_choice(b, path, item, name, COUNT_OF(name));
        if (i >= 0)
            set_check(b, port, (enum policy_check)i);
    }
}

static void read_limits(struct policy_build *b, const struct json *v)
{
    (void)rule_read_limits(b, "limits", v, true, &b->p->limits); /* told there */
}

/* -- extends ------------------------------------------------------------------------- */

/* Puts `file` in the folder of the file that names it, without "./" and "//". Two names
 * for one file that are left ("x/../") cost a circle its name only: it ends at
 * POLICY_EXTEND_MAX. */
static int join(const char *base, const char *file, struct buf *out)
{
    const char *slash = strrchr(base, '/');
    AUTO(buf_done)
    struct buf whole = BUF_INIT;
    const char *p;

    if (*file != '/' && slash && buf_add(&whole, base, (size_t)(slash - base) + 1) < 0)
        return -1;
    if (buf_adds(&whole, file) < 0 || buf_add(&whole, "", 1) < 0)
        return -1;
    p = (const char *)whole.p;
    if (*p == '/' && buf_adds(out, "/") < 0)
        return -1;
    while (*p) {
        size_t len;

        p += strspn(p, "/");
        len = strcspn(p, "/");
        if (len == 0 || (len == 1 && p[0] == '.')) {
            p += len;
            continue;
        }
        if (out->len > 0 && out->p[out->len - 1] != '/' && buf_adds(out, "/") < 0)
            return -1;
        if (buf_add(out, p, len) < 0)
            return -1;
        p += len;
    }
    return buf_add(out, "", 1);
}

static bool is_known(struct policy_build *b, const char *file, bool *ret_is_open)
{
    for (struct policy_source *s = b->all; s; s = s->next)
        if (strcmp(s->file, file) == 0) {
            *ret_is_open = s->is_open;
            return true;
        }
    return false;
}

/* Reads b->source, which was just made, and goes back to `before`. */
static void read_extended(struct policy_build *b, struct policy_source *before)
{
    struct policy_source *s = b->source;

    b->depth++;
    s->is_open = true;
    policy_read_source(b);
    s->is_open = false;
    b->depth--;
    b->source = before;
}

static void extend_preset(struct policy_build *b, const char *name)
{
    struct policy_source *before = b->source;
    bool is_open;

    if (is_known(b, name, &is_open))
        return;
    if (!build_source(b, name))
        return;
    b->source->text = span_str(preset_text(name));
    read_extended(b, before);
}

static void extend_file(struct policy_build *b, const char *path, const char *name)
{
    struct policy_source *before = b->source;
    AUTO(buf_done)
    struct buf file = BUF_INIT;
    struct buf text = BUF_INIT;
    struct policy_source *s;
    bool is_open = false;
    struct err e;

    if (join(before->file, name, &file) < 0) {
        build_no_memory(b);
    } else if (is_known(b, (const char *)file.p, &is_open)) {
        if (is_open)
            build_error(b, path, "extends in a circle: %s is being read already",
                        log_q((const char *)file.p));
    } else if (b->depth + 1 > POLICY_EXTEND_MAX || b->n_files == POLICY_FILES_MAX) {
        build_error(b, path, "extends deeper than %d, or more than %d files",
                    POLICY_EXTEND_MAX, POLICY_FILES_MAX);
    } else if (!b->reader || !b->reader->file) {
        build_error(b, path, "%s: files cannot be read out here", log_q(name));
    } else if (b->reader->file(b->reader->arg, (const char *)file.p, &text, &e) < 0) {
        build_error(b, path, "%s", e.msg);
    } else if (text.len > POLICY_TEXT_MAX - b->bytes) {
        build_error(b, path, "the policy has more than %d bytes with what it extends",
                    POLICY_TEXT_MAX);
    } else if ((s = build_source(b, (const char *)file.p))) {
        b->n_files++;
        b->bytes += text.len;
        s->own = text;
        s->text = buf_span(&text);
        read_extended(b, before);
        return;
    }
    buf_done(&text);
}

static void extend_one(struct policy_build *b, const char *path, const struct json *v)
{
    const char *name = build_text(b, path, v, 255);
    const char *const *presets;
    size_t n;

    if (!name)
        return;
    if (preset_text(name))
        extend_preset(b, name);
    else if (strchr(name, '/') || strchr(name, '.'))
        extend_file(b, path, name);
    else {
        presets = preset_names(&n);
        build_unknown(b, path, presets, n, name);
    }
}

static void read_extends(struct policy_build *b, const struct json *v)
{
    char path[POLICY_PATH_MAX];

    if (json_type(v) == JSON_STRING) {
        extend_one(b, "extends", v);
        return;
    }
    if (!build_type(b, "extends", v, JSON_ARRAY))
        return;
    for (size_t i = 0; i < json_len(v); i++) {
        (void)snprintf(path, sizeof path, "extends[%zu]", i);
        extend_one(b, path, json_at(v, i));
    }
}

/* -- the root ------------------------------------------------------------------------ */

static const char *const root_names[] = {"allow",     "default", "deny",   "dns",
                                         "extends",   "limits",  "mode",   "name",
                                         "protocols", "proxy",   "version"};
static read_fn *const root_members[] = {
    read_allow,     read_default,      read_deny,    read_dns,
    NULL,           read_limits,       read_mode,    read_name,
    read_protocols, policy_proxy_read, read_version,
};

void policy_json_read(struct policy_build *b, const struct json *root)
{
    const struct json *v = json_get(root, "extends");
    const char *name;
    size_t pos = 0;

    if (json_type(root) != JSON_OBJECT) {
        build_error(b, "", "a policy is an object");
        return;
    }
    if (!json_get(root, "version"))
        build_error(b, "", "\"version\": 1 is missing");
    if (v) /* first: what this policy says itself beats it */
        read_extends(b, v);
    while (json_next(root, &pos, &name, &v)) {
        size_t i = 0;

        while (i < COUNT_OF(root_names) && strcmp(name, root_names[i]) != 0)
            i++;
        if (i == COUNT_OF(root_names)) {
            char path[POLICY_PATH_MAX];

            (void)snprintf(path, sizeof path, "%.60s", name);
            build_unknown(b, path, root_names, COUNT_OF(root_names), name);
        } else if (root_members[i]) {
            root_members[i](b, v);
        }
    }
}

const char *const *policy_keys(const char *where, size_t *ret_n)
{
    if (*where == '\0') {
        *ret_n = COUNT_OF(root_names);
        return root_names;
    }
    if (strcmp(where, "dns") == 0) {
        *ret_n = COUNT_OF(dns_names);
        return dns_names;
    }
    return strcmp(where, "proxy") == 0 ? policy_proxy_keys(ret_n)
                                       : rule_keys(where, ret_n);
}
