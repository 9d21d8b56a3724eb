/* SPDX-License-Identifier: MIT */
/*
 * Theory. A rule is a host and a port. Names beside each other (the same parent, the same
 * port) are one wildcard when there are LEARN_SIBLINGS of them and the parent is
 * somebody's own name; what a wildcard above stands for anyway is left out. So the policy
 * allows what was seen and, with a wildcard, its siblings, and no port that was not seen.
 *
 * What a deny rule names was reached all the same while learning, or is a sibling that was
 * not; whoever wrote that rule wants neither.
 */
#include <stdlib.h>

#include "agentd/egress/policy/decision.h"
#include "agentd/egress/policy/learn.h"
#include "agentd/egress/policy/policy.h"
#include "agentd/egress/policy/suffix.h"
#include "common/json.h"
#include "common/mem.h"

/* Something seen, or a wildcard over some of it: then `name` is what stands
 * after "*.". */
struct row {
    const char *name; /* NULL: an address */
    const char *parent;
    const struct ip_addr *addr;
    uint16_t port;
    bool is_wildcard;
};

struct rows {
    struct row *row; /* things, then wildcards */
    size_t n;        /* things */
    size_t n_wild;
};

static const char *parent_of(const char *name)
{
    const char *dot = strchr(name, '.');

    return dot != NULL ? dot + 1 : "";
}

static int by_port(const struct row *a, const struct row *b)
{
    return (a->port > b->port) - (a->port < b->port);
}

/* Names first, siblings with the same port together. */
static int by_siblings(const void *x, const void *y)
{
    const struct row *a = x, *b = y;
    int d;

    if ((a->name == NULL) != (b->name == NULL))
        return a->name == NULL ? 1 : -1;
    if (a->name == NULL) {
        d = (int)a->addr->family - (int)b->addr->family;
        if (d == 0)
            d = memcmp(a->addr->bytes, b->addr->bytes, sizeof(a->addr->bytes));
        return d != 0 ? d : by_port(a, b);
    }
    d = strcmp(a->parent, b->parent);
    if (d == 0)
        d = by_port(a, b);
    return d != 0 ? d : strcmp(a->name, b->name);
}

static int by_name(const void *x, const void *y)
{
    const struct row *a = x, *b = y;
    int d = strcmp(a->name, b->name);

    return d != 0 ? d : by_port(a, b);
}

/* Nobody but its owner puts names under it. */
static bool may_be_wild(const char *parent)
{
    return strchr(parent, '.') != NULL && suffix_of(parent) == SUFFIX_NONE;
}

static void find_wildcards(struct rows *r)
{
    struct row *wild = r->row + r->n;

    for (size_t i = 0, end; i < r->n && r->row[i].name != NULL; i = end) {
        const struct row *first = &r->row[i];

        for (end = i + 1; end < r->n && r->row[end].name != NULL &&
                          strcmp(r->row[end].parent, first->parent) == 0 &&
                          r->row[end].port == first->port;
             end++)
            ;
        if (end - i >= LEARN_SIBLINGS && may_be_wild(first->parent))
            wild[r->n_wild++] = (struct row){.name = first->parent,
                                             .parent = parent_of(first->parent),
                                             .port = first->port,
                                             .is_wildcard = true};
    }
    qsort(wild, r->n_wild, sizeof(wild[0]), by_name);
}

/* -- what deny rules name ------------------------------------------------------------ */

static bool is_denied(const struct policy *p, const struct learn_thing *t, int64_t now_s)
{
    struct target to = {.name = t->addr.family == 0 ? t->name : NULL,
                        .addr = t->addr,
                        .port = t->port,
                        .protocol = IPPROTO_TCP};
    struct verdict v;

    if (p == NULL)
        return false;
    decide(p, NULL, &to, now_s, &v);
    return v.stage == VERDICT_DENY;
}

static bool has_port(const struct policy_rule *rule, uint16_t port)
{
    for (size_t i = 0; i < rule->n_ports; i++)
        if (port >= rule->ports[i].first && port <= rule->ports[i].last)
            return true;
    return false;
}

static int by_name_only(const void *x, const void *y)
{
    const struct row *a = x, *b = y;

    return strcmp(a->name, b->name);
}

/* Wildcards over `name`, on the rule's ports, are not proposed: their port becomes 0. */
static void strike(const struct rows *r, const char *name, const struct policy_rule *rule)
{
    struct row *wild = r->row + r->n, *end = wild + r->n_wild;
    const struct row key = {.name = name};
    struct row *w = bsearch(&key, wild, r->n_wild, sizeof(*wild), by_name_only);

    if (w == NULL)
        return;
    while (w > wild && strcmp(w[-1].name, name) == 0)
        w--;
    for (; w < end && strcmp(w->name, name) == 0; w++)
        if (has_port(rule, w->port))
            w->port = 0;
}

/* A rule above a wildcard denies the siblings too, and there is no such wildcard then. */
static void strike_denied(struct rows *r, const struct policy *p, int64_t now_s)
{
    size_t n = 0, n_left = 0;
    const struct policy_rule *rule = p != NULL ? policy_rules(p, &n) : NULL;
    struct row *wild = r->row + r->n;

    for (size_t i = 0; i < n && r->n_wild > 0; i++) {
        const char *name = rule[i].name;

        if (rule[i].list != POLICY_DENY || rule[i].is_net ||
            (rule[i].expires_s != 0 && rule[i].expires_s <= now_s))
            continue;
        if (!rule[i].is_wildcard)
            name = parent_of(name);
        for (; name[0] != '\0'; name = parent_of(name))
            strike(r, name, &rule[i]);
    }
    for (size_t i = 0; i < r->n_wild; i++)
        if (wild[i].port != 0)
            wild[n_left++] = wild[i];
    r->n_wild = n_left;
}

/* -- in words ------------------------------------------------------------------------ */

/* Does a wildcard above it, within the labels that one stands for, cover it? */
static bool is_covered(const struct rows *r, const struct row *row)
{
    struct row key = {.port = row->port};
    /* Under "*.a" there is at least one label more than in what it stands for. */
    unsigned labels = row->is_wildcard ? 2 : 1;

    if (row->name == NULL)
        return false;
    for (key.name = parent_of(row->name); key.name[0] != '\0' && labels <= POLICY_LABELS;
         key.name = parent_of(key.name), labels++)
        if (bsearch(&key, r->row + r->n, r->n_wild, sizeof(key), by_name) != NULL)
            return true;
    return false;
}

static int put_rule(const struct row *row, const char *before, struct buf *out)
{
    char addr[IP_TEXT_MAX];
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    int rc;

    if (row->name != NULL)
        rc = buf_addf(&text, "%s%s:%u", row->is_wildcard ? "*." : "", row->name,
                      row->port);
    else if (row->addr->family == AF_INET)
        rc = buf_addf(&text, "%s:%u", ip_print(row->addr, addr), row->port);
    else
        rc = buf_addf(&text, "[%s]:%u", ip_print(row->addr, addr), row->port);
    if (rc < 0 || buf_adds(out, before) < 0)
        return -1;
    return json_put_str(out, buf_span(&text));
}

static int put_rules(const struct rows *r, struct buf *out)
{
    const char *before = "\n    ";

    /* Wildcards, which say most, come first. */
    for (size_t k = 0; k < r->n_wild + r->n; k++) {
        const struct row *row = &r->row[k < r->n_wild ? r->n + k : k - r->n_wild];

        if (is_covered(r, row))
            continue;
        if (put_rule(row, before, out) < 0)
            return -1;
        before = ",\n    ";
    }
    return r->n > 0 ? buf_adds(out, "\n  ") : 0;
}

static int print(const struct rows *r, const char *policy_name, struct buf *out)
{
    if (buf_adds(out, "{\n  \"version\": 1,\n  \"name\": ") < 0 ||
        json_put_str(out, span_str(policy_name)) < 0 ||
        buf_adds(out, ",\n  \"mode\": \"enforce\",\n  \"default\": \"deny\",\n"
                      "  \"allow\": [") < 0)
        return -1;
    if (put_rules(r, out) < 0)
        return -1;
    return buf_adds(out, "]\n}\n");
}

int learn_print(const struct learn *l, const struct policy *under, int64_t now_s,
                const char *policy_name, struct buf *out)
{
    size_t all = learn_count(l), start = out->len;
    struct rows r = {.n = 0};
    int rc;

    /* One wildcard for LEARN_SIBLINGS things is the most there can be. */
    r.row = mem_zalloc(all + all / LEARN_SIBLINGS + 1, sizeof(*r.row));
    if (r.row == NULL)
        return -1;
    for (size_t i = 0; i < all; i++) {
        const struct learn_thing *t = learn_at(l, i);
        struct row *row = &r.row[r.n];

        if (is_denied(under, t, now_s))
            continue;
        row->addr = &t->addr;
        row->port = t->port;
        if (t->addr.family == 0) {
            row->name = t->name;
            row->parent = parent_of(t->name);
        }
        r.n++;
    }
    qsort(r.row, r.n, sizeof(*r.row), by_siblings);
    find_wildcards(&r);
    strike_denied(&r, under, now_s);
    rc = print(&r, policy_name, out);
    if (rc < 0)
        out->len = start;
    mem_free(r.row);
    return rc;
}
