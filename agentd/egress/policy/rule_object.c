/* SPDX-License-Identifier: MIT */
/* Rules as objects. */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/log.h"

/* -- limits -------------------------------------------------------------------------- */

/* Of a sandbox; those before RULE_LIMITS of a rule too. */
static const char *const limit_names[] = {
    "bytes",  "bytes_per_s", "connections",     "connects_per_s",
    "labels", "names",       "questions_per_s",
};
enum {
    RULE_LIMITS = 4
};

static void set_limit(struct policy_limits *l, size_t i, int64_t v)
{
    switch (i) {
    case 0:
        l->bytes = (uint64_t)v;
        break;
    case 1:
        l->bytes_per_s = (uint64_t)v;
        break;
    case 2:
        l->connections = (uint32_t)v;
        break;
    case 3:
        l->connects_per_s = (uint32_t)v;
        break;
    case 4:
        l->labels = (uint32_t)v;
        break;
    case 5:
        l->names = (uint32_t)v;
        break;
    default:
        l->questions_per_s = (uint32_t)v;
        break;
    }
}

static int read_limit(struct policy_build *b, const char *path, const char *name,
                      const struct json *v, bool is_sandbox, struct policy_limits *ret)
{
    size_t n = is_sandbox ? COUNT_OF(limit_names) : (size_t)RULE_LIMITS;
    int64_t max;

    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, limit_names[i]) != 0)
            continue;
        max = i < 2 ? INT64_MAX : i == 4 ? 127 : INT32_MAX;
        if (json_type(v) != JSON_INT || json_int(v) < 1 || json_int(v) > max) {
            build_error(b, path, "must be an integer from 1 to %lld; leave it out for %s",
                        (long long)max, i < 4 ? "no limit" : "the default");
            return -1;
        }
        set_limit(ret, i, json_int(v));
        return 0;
    }
    build_unknown(b, path, limit_names, n, name);
    return -1;
}

int rule_read_limits(struct policy_build *b, const char *path, const struct json *v,
                     bool is_sandbox, struct policy_limits *ret)
{
    char at[POLICY_PATH_MAX];
    const struct json *item;
    const char *name;
    size_t pos = 0;
    int rc = 0;

    if (!build_type(b, path, v, JSON_OBJECT))
        return -1;
    while (json_next(v, &pos, &name, &item)) {
        (void)snprintf(at, sizeof at, "%s.%.20s", path, name);
        rc |= read_limit(b, at, name, item, is_sandbox, ret);
    }
    return rc;
}

/* -- members ------------------------------------------------------------------------- */

struct rule_object {
    struct rule_spec spec;
    enum policy_list list;
    const char *group, *preset; /* borrowed from the JSON */
    bool has_to;
};
typedef int member_fn(struct policy_build *b, struct rule_object *o, const char *path,
                      const struct json *v);

static const char *const to_names[] = {"cidr", "domain", "group", "preset"};

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}

static int read_to(struct policy_build *b, struct rule_object *o, const char *path,
                   const struct json *v)
{
    char at[POLICY_PATH_MAX];
    const struct json *item;
    const char *name, *text;
    size_t pos = 0;

    o->has_to = true;
    if (json_type(v) == JSON_STRING)
        return rule_parse_text(b, path, span_str(json_str(v)), &o->spec);
    if (json_type(v) != JSON_OBJECT) {
        build_error(b, path, "must be a string or an object, not %s",
                    json_type_name(json_type(v)));
        return -1;
    }
    if (json_len(v) != 1 || !json_next(v, &pos, &name, &item)) {
        build_error(b, path, "must have exactly one of domain, cidr, group, preset");
        return -1;
    }
    (void)snprintf(at, sizeof at, "%s.%.20s", path, name);
    if (!is_one_of(name, to_names, COUNT_OF(to_names))) {
        build_unknown(b, at, to_names, COUNT_OF(to_names), name);
        return -1;
    }
    text = build_text(b, at, item, 512);
    if (!text)
        return -1;
    if (strcmp(name, "domain") == 0)
        return rule_parse_domain(b, at, span_str(text), &o->spec);
    if (strcmp(name, "cidr") == 0)
        return rule_parse_cidr(b, at, span_str(text), &o->spec);
    *(strcmp(name, "group") == 0 ? &o->group : &o->preset) = text;
    return 0;
}

static int read_port(struct policy_build *b, const char *path, const struct json *v,
                     struct port_list *l)
{
    struct port_list one = {.n = 1};

    if (json_type(v) == JSON_INT && json_int(v) >= 1 && json_int(v) <= UINT16_MAX)
        one.range[0].first = one.range[0].last = (uint16_t)json_int(v);
    else if (json_type(v) != JSON_STRING ||
             port_list_parse(span_str(json_str(v)), &one) < 0) {
        build_error(b, path,
                    "must be a port (1-65535), a range such as \"8000-8999\", or a list "
                    "of these");
        return -1;
    }
    for (unsigned i = 0; i < one.n; i++) {
        if (l->n == PORT_LIST_MAX)
            rule_sort_ports(l);
        if (l->n == PORT_LIST_MAX) {
            build_error(b, path, "a rule has at most %d ports and ranges", PORT_LIST_MAX);
            return -1;
        }
        l->range[l->n++] = one.range[i];
    }
    return 0;
}

static int read_ports(struct policy_build *b, struct rule_object *o, const char *path,
                      const struct json *v)
{
    char at[POLICY_PATH_MAX];
    int rc = 0;

    if (o->spec.has_ports) {
        build_error(b, path, "the rule has its port in \"to\" already");
        return -1;
    }
    o->spec.has_ports = true;
    o->spec.ports.n = 0;
    if (json_type(v) != JSON_ARRAY)
        rc = read_port(b, path, v, &o->spec.ports);
    for (size_t i = 0; json_type(v) == JSON_ARRAY && i < json_len(v) && rc == 0; i++) {
        (void)snprintf(at, sizeof at, "%s[%zu]", path, i);
        rc = read_port(b, at, json_at(v, i), &o->spec.ports);
    }
    if (rc == 0 && o->spec.ports.n == 0) {
        build_error(b, path, "is empty: the rule can never match");
        return -1;
    }
    rule_sort_ports(&o->spec.ports);
    return rc;
}

static int read_tls(struct policy_build *b, struct rule_object *o, const char *path,
                    const struct json *v)
{
    if (!build_type(b, path, v, JSON_BOOL))
        return -1;
    o->spec.is_unchecked = !json_bool(v);
    return 0;
}

static int read_rule_limits(struct policy_build *b, struct rule_object *o,
                            const char *path, const struct json *v)
{
    if (o->list == POLICY_DENY) {
        build_error(b, path, "a deny rule lets nothing through that could be limited");
        return -1;
    }
    o->spec.has_limits = json_type(v) == JSON_OBJECT && json_len(v) > 0;
    return rule_read_limits(b, path, v, false, &o->spec.limits);
}

static int read_expires(struct policy_build *b, struct rule_object *o, const char *path,
                        const struct json *v)
{
    if (!build_type(b, path, v, JSON_STRING))
        return -1;
    o->spec.expires_s = policy_time_parse(json_str(v));
    if (o->spec.expires_s < 0) {
        build_error(b, path,
                    "must be a time such as \"2027-01-31T18:00:00Z\" (RFC 3339)");
        return -1;
    }
    return 0;
}

static int keep_text(struct policy_build *b, const char *path, const struct json *v,
                     size_t max, const char **ret)
{
    const char *text = build_text(b, path, v, max);

    if (!text)
        return -1;
    *ret = arena_text(&b->p->arena, span_str(text));
    if (*ret)
        return 0;
    build_no_memory(b);
    return -1;
}

static int read_reason(struct policy_build *b, struct rule_object *o, const char *path,
                       const struct json *v)
{
    return keep_text(b, path, v, POLICY_REASON_MAX, &o->spec.reason);
}

static int read_from(struct policy_build *b, struct rule_object *o, const char *path,
                     const struct json *v)
{
    return keep_text(b, path, v, 255, &o->spec.from);
}

static const char *const rule_names[] = {"expires", "from", "limits", "ports",
                                         "reason",  "tls",  "to"};
static member_fn *const rule_members[] = {read_expires, read_from,   read_rule_limits,
                                          read_ports,   read_reason, read_tls,
                                          read_to};

static int read_member(struct policy_build *b, struct rule_object *o, const char *path,
                       const char *name, const struct json *v)
{
    for (size_t i = 0; i < COUNT_OF(rule_names); i++)
        if (strcmp(name, rule_names[i]) == 0)
            return rule_members[i](b, o, path, v);
    build_unknown(b, path, rule_names, COUNT_OF(rule_names), name);
    return -1;
}

static int read_object(struct policy_build *b, struct rule_object *o, const char *path,
                       const struct json *v)
{
    const struct json *to = json_get(v, "to"), *item;
    char at[POLICY_PATH_MAX];
    const char *name;
    size_t pos = 0;
    int rc = 0;

    if (!to) {
        build_error(b, path, "a rule has \"to\": what it is about");
        rc = -1;
    } else { /* before "ports", whatever comes first in the text */
        (void)snprintf(at, sizeof at, "%s.to", path);
        rc = read_to(b, o, at, to);
    }
    while (json_next(v, &pos, &name, &item)) {
        (void)snprintf(at, sizeof at, "%s.%.20s", path, name);
        if (item != to)
            rc |= read_member(b, o, at, name, item);
    }
    return rc;
}

/* A rule that a preset holds, in place of the rule that names the preset. */
static void inherit(struct rule_spec *s, const struct rule_spec *base)
{
    s->is_unchecked |= base->is_unchecked;
    if (!s->reason)
        s->reason = base->reason;
    if (base->expires_s > 0 && (s->expires_s == 0 || base->expires_s < s->expires_s))
        s->expires_s = base->expires_s;
    if (!s->has_limits) {
        s->has_limits = base->has_limits;
        s->limits = base->limits;
    }
}

void rule_read(struct policy_build *b, enum policy_list list, const char *path,
               const struct json *v, uint32_t item, const struct rule_spec *base)
{
    struct rule_object o = {.list = list};
    char at[POLICY_PATH_MAX];
    int rc = -1;

    o.spec.from = base ? base->from : NULL; /* unless it says so itself */
    o.spec.item = item;
    if (json_type(v) == JSON_STRING)
        rc = rule_parse_text(b, path, span_str(json_str(v)), &o.spec);
    else if (json_type(v) == JSON_OBJECT)
        rc = read_object(b, &o, path, v);
    else
        build_error(b, path, "a rule is a string or an object, not %s",
                    json_type_name(json_type(v)));
    if (rc < 0)
        return;
    if (base)
        inherit(&o.spec, base);
    (void)snprintf(at, sizeof at, "%s.to.%s", path, o.group ? "group" : "preset");
    if (base && base->is_expanded) /* the rule stands in a preset, not in the policy */
        (void)snprintf(at, sizeof at, "%s", path);
    if (o.group)
        preset_expand_group(b, list, at, o.group, &o.spec);
    else if (o.preset)
        preset_expand(b, list, at, o.preset, &o.spec);
    else
        (void)rule_add(b, list, path, &o.spec); /* told there */
}

const char *const *rule_keys(const char *where, size_t *ret_n)
{
    if (strcmp(where, "to") == 0) {
        *ret_n = COUNT_OF(to_names);
        return to_names;
    }
    if (strcmp(where, "limits") == 0) {
        *ret_n = COUNT_OF(limit_names);
        return limit_names;
    }
    *ret_n = COUNT_OF(rule_names);
    return rule_names;
}
