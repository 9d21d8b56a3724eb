/* SPDX-License-Identifier: MIT */
/* Presets, which are policies as any other, and groups, which stand for lists of this
 * machine's. */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/log.h"

static const char *const names[] = {"build", "development", "full-isolation",
                                    "production"};
static const char *const texts[] = {
    "{\"version\": 1,\n"
    " \"allow\": [{\"to\": {\"group\": \"registries\"}}]}\n",
    "{\"version\": 1,\n"
    " \"allow\": [{\"to\": {\"group\": \"local-networks\"}, \"ports\": \"1-65535\"}]}\n",
    "{\"version\": 1}\n",
    "{\"version\": 1,\n"
    " \"default\": \"allow\"}\n",
};
static const char *const groups[] = {"local-networks", "private", "registries"};

const char *preset_text(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(name, names[i]) == 0)
            return texts[i];
    return NULL;
}

const char *const *preset_names(size_t *ret_n)
{
    *ret_n = COUNT_OF(names);
    return names;
}

/* -- groups -------------------------------------------------------------------------- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next line without blanks at its ends and without a comment. */
bool preset_next_line(struct span *rest, struct span *ret)
{
    const uint8_t *end = rest->len ? memchr(rest->p, '\n', rest->len) : NULL;
    size_t len = end ? (size_t)(end - rest->p) : rest->len;
    const uint8_t *hash;

    if (rest->len == 0)
        return false;
    *ret = span_of(rest->p, len);
    *rest = span_skip(*rest, end ? len + 1 : len);
    hash = ret->len ? memchr(ret->p, '#', ret->len) : NULL;
    if (hash)
        ret->len = (size_t)(hash - ret->p);
    while (ret->len > 0 && is_blank(ret->p[ret->len - 1]))
        ret->len--;
    while (ret->len > 0 && is_blank(ret->p[0]))
        *ret = span_skip(*ret, 1);
    return true;
}

static void add_all_ports(struct rule_spec *s)
{
    if (s->has_ports)
        return;
    s->has_ports = true;
    s->ports.n = 1;
    s->ports.range[0] = (struct port_range){1, UINT16_MAX};
}

/* Each line of `text` as a rule; all else is as in s. */
static void expand_lines(struct policy_build *b, enum policy_list list, const char *path,
                         struct span text, const struct rule_spec *s)
{
    struct span line;
    unsigned n = 0;

    while (preset_next_line(&text, &line)) {
        struct rule_spec one = *s;
        int rc;

        if (line.len == 0)
            continue;
        n++;
        one.is_expanded = true;
        b->is_lenient = s->is_optional;
        if (s->has_ports)
            rc = rule_parse_cidr(b, path, line, &one);
        else
            rc = rule_parse_text(b, path, line, &one);
        b->is_lenient = false;
        if (rc == 0)
            (void)rule_add(b, list, path, &one); /* told there */
        if (b->faults->has_error)
            return;
    }
    if (n == 0)
        build_warn(b, path, "stands for nothing on this machine");
}

static void expand_private(struct policy_build *b, enum policy_list list,
                           const char *path, const struct rule_spec *s)
{
    static const char text[] = "10.0.0.0/8\n100.64.0.0/10\n172.16.0.0/12\n"
                               "192.168.0.0/16\nfc00::/7\n";

    expand_lines(b, list, path, span_str(text), s);
}

static void expand_read(struct policy_build *b, enum policy_list list, const char *path,
                        bool is_networks, const struct rule_spec *s)
{
    const struct policy_reader *r = b->reader;
    int (*read)(void *, struct buf *, struct err *) = !r            ? NULL
                                                      : is_networks ? r->networks
                                                                    : r->registries;
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct err e;

    if (!read)
        build_error(b, path, "%s cannot be found out here",
                    is_networks ? "the local networks" : "the package registries");
    else if (read(r->arg, &text, &e) < 0)
        build_error(b, path, "%s", e.msg);
    else
        expand_lines(b, list, path, buf_span(&text), s);
}

void preset_expand_group(struct policy_build *b, enum policy_list list, const char *path,
                         const char *group, const struct rule_spec *s)
{
    struct rule_spec all = *s;

    for (size_t i = 0; i < COUNT_OF(groups) && !all.from; i++)
        if (strcmp(group, groups[i]) == 0)
            all.from = groups[i];
    if (strcmp(group, "registries") == 0) {
        if (s->has_ports) {
            build_error(b, path, "the package registries have ports of their own");
            return;
        }
        /* A mirror on this machine's loopback is of no use to a sandbox, and no fault. */
        all.is_optional = true;
        expand_read(b, list, path, false, &all);
        return;
    }
    add_all_ports(&all);
    if (strcmp(group, "local-networks") == 0)
        expand_read(b, list, path, true, &all);
    else if (strcmp(group, "private") == 0)
        expand_private(b, list, path, &all);
    else
        build_unknown(b, path, groups, COUNT_OF(groups), group);
}

/* -- presets ------------------------------------------------------------------------- */

void preset_expand(struct policy_build *b, enum policy_list list, const char *path,
                   const char *preset, const struct rule_spec *s)
{
    const char *text = preset_text(preset);
    const struct json *rules;
    struct rule_spec base = *s;
    struct json *root;

    if (!text) {
        build_unknown(b, path, names, COUNT_OF(names), preset);
        return;
    }
    if (s->has_ports) {
        build_error(b, path, "a preset has ports of its own");
        return;
    }
    root = json_parse(span_str(text), POLICY_TEXT_MAX, NULL);
    if (!root) {
        build_no_memory(b);
        return;
    }
    rules = json_get(root, "allow");
    if (!rules)
        build_error(b, path,
                    "preset \"%s\" has no rules; it can be meant by \"extends\" only",
                    preset);
    base.is_expanded = true;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(preset, names[i]) == 0)
            base.from = names[i];
    for (size_t i = 0; rules && i < json_len(rules); i++)
        rule_read(b, list, path, json_at(rules, i), s->item, &base);
    json_free(root);
}
