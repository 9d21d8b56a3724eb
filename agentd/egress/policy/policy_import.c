/* SPDX-License-Identifier: MIT */
/*
 * Readers of other tools' forms. Where the meaning differs it is told:
 *
 *   E2B   {"allowOut": [...], "denyOut": [...]}: there allow beats deny and what is in
 *         neither is reachable. Here deny beats allow, and with an allow list that is there,
 *         even an empty one, what it does not name is refused. "0.0.0.0/0" in denyOut is the
 *         default. Names are for ports 80 and 443, networks for all.
 *   list  a rule a line, "#" begins a comment. A line without a port means 443, as in a policy.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/log.h"

static const char *const names[] = {"allowOut", "allow_out", "denyOut", "deny_out"};
/* Who may come in: not our matter. */
static const char *const ingress[] = {"allowPublicTraffic", "allow_public_traffic",
                                      "maskRequestHost", "mask_request_host"};

static const struct json *either(const struct json *root, const char *a, const char *b)
{
    const struct json *v = json_get(root, a);

    return v ? v : json_get(root, b);
}

bool policy_is_e2b(const struct json *root)
{
    if (json_type(root) != JSON_OBJECT || json_get(root, "version"))
        return false;
    return either(root, names[0], names[1]) || either(root, names[2], names[3]);
}

static bool is_all(const char *text)
{
    return strcmp(text, "0.0.0.0/0") == 0 || strcmp(text, "::/0") == 0;
}

static void set_ports(struct rule_spec *s, enum policy_list list)
{
    if (s->has_ports)
        return;
    s->has_ports = true;
    if (s->is_net || list == POLICY_DENY) {
        s->ports.n = 1;
        s->ports.range[0] = (struct port_range){1, UINT16_MAX};
    } else {
        s->ports.n = 2;
        s->ports.range[0] = (struct port_range){80, 80};
        s->ports.range[1] = (struct port_range){443, 443};
    }
}

/* The rules of a list; true when all addresses are among them. */
static bool read_list(struct policy_build *b, enum policy_list list, const struct json *v)
{
    const char *key = b->source->list_name[list];
    char path[POLICY_PATH_MAX];
    bool has_all = false;

    if (!build_type(b, key, v, JSON_ARRAY))
        return false;
    for (size_t i = 0; i < json_len(v); i++) {
        const struct json *item = json_at(v, i);
        struct rule_spec s = {.item = (uint32_t)i};

        s.from = *b->source->file ? b->source->file : NULL;
        (void)snprintf(path, sizeof path, "%s[%zu]", key, i);
        if (!build_type(b, path, item, JSON_STRING))
            continue;
        if (is_all(json_str(item))) {
            has_all = true;
            continue;
        }
        if (rule_parse_text(b, path, span_str(json_str(item)), &s) < 0)
            continue;
        set_ports(&s, list);
        (void)rule_add(b, list, path, &s); /* told there */
    }
    return has_all;
}

static void check_keys(struct policy_build *b, const struct json *root)
{
    const struct json *v;
    const char *name;
    size_t pos = 0, i;

    while (json_next(root, &pos, &name, &v)) {
        for (i = 0; i < COUNT_OF(ingress) && strcmp(name, ingress[i]) != 0; i++)
            ;
        if (i < COUNT_OF(ingress)) {
            build_warn(b, name, "is about who comes in, and left out here");
            continue;
        }
        for (i = 0; i < COUNT_OF(names) && strcmp(name, names[i]) != 0; i++)
            ;
        if (i == COUNT_OF(names)) {
            char path[POLICY_PATH_MAX];

            (void)snprintf(path, sizeof path, "%.60s", name);
            build_unknown(b, path, names, COUNT_OF(names), name);
        } else if (v != either(root, names[i / 2 * 2], names[i / 2 * 2 + 1])) {
            build_error(b, name, "is there in both spellings");
        }
    }
}

void policy_import_e2b(struct policy_build *b, const struct json *root)
{
    const struct json *allow = either(root, names[0], names[1]);
    const struct json *deny = either(root, names[2], names[3]);
    bool allows_all, denies_all;
    size_t n_deny;

    b->source->is_import = true;
    b->source->list_name[POLICY_ALLOW] = json_get(root, names[0]) ? names[0] : names[1];
    b->source->list_name[POLICY_DENY] = json_get(root, names[2]) ? names[2] : names[3];
    check_keys(b, root);
    n_deny = b->n[POLICY_DENY];
    denies_all = deny && read_list(b, POLICY_DENY, deny);
    n_deny = b->n[POLICY_DENY] - n_deny;
    allows_all = allow && read_list(b, POLICY_ALLOW, allow);
    b->p->default_allows = allows_all || (!allow && !denies_all);
    if (allow && !denies_all && !allows_all)
        build_warn(b, b->source->list_name[POLICY_ALLOW],
                   "E2B leaves reachable what is in neither list; here it is refused, as "
                   "with \"0.0.0.0/0\" in denyOut");
    if (allow && n_deny > 0)
        build_warn(b, b->source->list_name[POLICY_DENY],
                   "E2B lets allow win over deny; here deny wins");
    if (b->p->default_allows)
        build_warn(b, "", "private networks, reachable in E2B, stay refused here");
}

/* -- lists --------------------------------------------------------------------------- */

void policy_import_list(struct policy_build *b)
{
    struct span rest = b->source->text, line;
    bool is_told = false;
    uint32_t number = 0;
    char path[POLICY_PATH_MAX];

    b->source->is_import = true;
    b->source->is_list = true;
    while (preset_next_line(&rest, &line)) {
        struct rule_spec s = {.item = ++number};

        if (line.len == 0)
            continue;
        s.from = *b->source->file ? b->source->file : NULL;
        (void)snprintf(path, sizeof path, "line %u", number);
        if (rule_parse_text(b, path, line, &s) < 0)
            continue;
        if (!s.has_ports && !is_told) {
            is_told = true;
            build_warn(b, path,
                       "a line without a port means port 443 alone, here and below; for "
                       "plain HTTP add a line with \":80\"");
        }
        (void)rule_add(b, POLICY_ALLOW, path, &s); /* told there */
    }
}
