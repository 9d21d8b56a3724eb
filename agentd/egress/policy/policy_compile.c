/* SPDX-License-Identifier: MIT */
/* From a text to a policy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/crypto.h"
#include "common/mem.h"

/* -- reading ------------------------------------------------------------------------- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool looks_like_json(struct span text)
{
    size_t i = 0;

    while (i < text.len && is_blank(text.p[i]))
        i++;
    /* Nothing at all is no list that means nothing: it may be a file that was cut. */
    return i == text.len || text.p[i] == '{' || text.p[i] == '[' || text.p[i] == 0xef;
}

/* "line 3: ..." of the JSON parser, as a fault with its line. */
static void syntax_fault(struct policy_build *b, const struct err *e)
{
    struct policy_faults *f = b->faults;
    const char *text = e->msg;
    unsigned long line = 0;
    char *end;

    if (strncmp(text, "line ", 5) == 0) {
        line = strtoul(text + 5, &end, 10);
        text = strncmp(end, ": ", 2) == 0 ? end + 2 : text;
    }
    if (strstr(text, "JSON_ALLOW_NUL"))
        text = "a string has a NUL (\\u0000)";
    build_error(b, "", "%s", text);
    if (line > 0 && f->n > 0)
        f->at[f->n - 1].line = (unsigned)line;
}

void policy_read_source(struct policy_build *b)
{
    struct json *root;
    struct err e;

    if (!looks_like_json(b->source->text)) {
        policy_import_list(b);
        return;
    }
    root = json_parse(b->source->text, POLICY_TEXT_MAX, &e);
    if (!root) {
        syntax_fault(b, &e);
        return;
    }
    if (policy_is_e2b(root))
        policy_import_e2b(b, root);
    else
        policy_json_read(b, root);
    json_free(root);
}

/* -- finishing ----------------------------------------------------------------------- */

/* One array, denied rules first. */
static int join_rules(struct policy_build *b)
{
    struct policy *p = b->p;
    size_t n = b->n[POLICY_DENY] + b->n[POLICY_ALLOW];

    mem_free(p->rule);
    p->rule = mem_zalloc(n ? n : 1, sizeof *p->rule);
    if (!p->rule)
        return -1;
    p->n_deny = b->n[POLICY_DENY];
    p->n_rules = n;
    if (p->n_deny > 0)
        memcpy(p->rule, b->rule[POLICY_DENY], p->n_deny * sizeof *p->rule);
    if (n > p->n_deny)
        memcpy(p->rule + p->n_deny, b->rule[POLICY_ALLOW],
               (n - p->n_deny) * sizeof *p->rule);
    rule_index_done(&p->index[POLICY_DENY]);
    rule_index_done(&p->index[POLICY_ALLOW]);
    if (rule_index_build(&p->index[POLICY_DENY], p->rule, p->n_deny) < 0)
        return -1;
    return rule_index_build(&p->index[POLICY_ALLOW], p->rule + p->n_deny, n - p->n_deny);
}

/* What lint found useless in another tool's list. */
static int drop_rules(struct policy_build *b, const bool *drop)
{
    size_t n = 0;

    for (size_t i = 0; i < b->n[POLICY_ALLOW]; i++) {
        if (drop[b->p->n_deny + i])
            continue;
        b->rule[POLICY_ALLOW][n] = b->rule[POLICY_ALLOW][i];
        b->rule[POLICY_ALLOW][n].number = (uint32_t)n;
        b->place[POLICY_ALLOW][n++] = b->place[POLICY_ALLOW][i];
    }
    b->n[POLICY_ALLOW] = n;
    return join_rules(b);
}

static int lint(struct policy_build *b)
{
    bool *drop = mem_zalloc(b->p->n_rules + 1, sizeof *drop);
    int rc = 0;

    if (!drop)
        return -1;
    if (policy_lint(b, drop))
        rc = drop_rules(b, drop);
    mem_free(drop);
    return rc;
}

static int by_first(const void *a, const void *b)
{
    const struct port_range *x = a, *y = b;

    return x->first != y->first ? (x->first < y->first ? -1 : 1) : 0;
}

static unsigned count_ports(const struct policy_rule *r)
{
    unsigned n = 0;

    for (size_t i = 0; i < r->n_ports; i++)
        n += r->ports[i].last - r->ports[i].first + 1u;
    return n;
}

static bool is_wide(const struct policy_rule *r)
{
    return r->list == POLICY_ALLOW && !r->is_net && count_ports(r) > POLICY_PIN_PORTS;
}

static int set_guarded(struct policy *p)
{
    size_t cap = p->n_checks + 1, n = 0, out = 0;

    for (size_t i = 0; i < p->n_rules; i++)
        cap += is_wide(&p->rule[i]) ? p->rule[i].n_ports : 0;
    p->guarded = mem_zalloc(cap, sizeof *p->guarded);
    if (!p->guarded)
        return -1;
    if (p->default_allows || p->mode != POLICY_ENFORCE)
        p->guarded[n++] = (struct port_range){1, UINT16_MAX};
    for (size_t i = 0; i < p->n_checks; i++)
        if (p->checks[i].check != POLICY_CHECK_NONE)
            p->guarded[n++] = (struct port_range){p->checks[i].port, p->checks[i].port};
    for (size_t i = 0; i < p->n_rules; i++)
        for (size_t j = 0; is_wide(&p->rule[i]) && j < p->rule[i].n_ports; j++)
            p->guarded[n++] = p->rule[i].ports[j];
    qsort(p->guarded, n, sizeof *p->guarded, by_first);
    for (size_t i = 0; i < n; i++) {
        struct port_range *last = out > 0 ? &p->guarded[out - 1] : NULL;

        if (!last || p->guarded[i].first > last->last + 1u)
            p->guarded[out++] = p->guarded[i];
        else if (p->guarded[i].last > last->last)
            last->last = p->guarded[i].last;
    }
    p->n_guarded = out;
    return 0;
}

static void set_defaults(struct policy_limits *l)
{
    if (l->questions_per_s == 0)
        l->questions_per_s = POLICY_QUESTIONS_PER_S;
    if (l->names == 0)
        l->names = POLICY_NAMES;
    if (l->labels == 0)
        l->labels = POLICY_LABELS;
}

/* -1: no memory. */
static int finish(struct policy_build *b)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    uint8_t digest[32];

    b->source = b->all; /* for faults of the whole; the policy itself is the last */
    while (b->source && b->source->next)
        b->source = b->source->next;
    set_defaults(&b->p->limits);
    if (join_rules(b) < 0)
        return -1;
    if (!b->faults->has_error && lint(b) < 0)
        return -1;
    if (set_guarded(b->p) < 0 || policy_show(b->p, &text) < 0)
        return -1;
    if (text.len > POLICY_TEXT_MAX)
        build_error(b, "",
                    "the policy has more than %d bytes with all that it stands for",
                    POLICY_TEXT_MAX);
    crypto_sha256(buf_span(&text), digest);
    for (size_t i = 0; i < sizeof digest; i++)
        (void)snprintf(b->p->hash + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

/* -- the ways in --------------------------------------------------------------------- */

static int start(struct policy_build *b, const struct policy_reader *reader,
                 struct policy_faults *faults)
{
    static const struct policy_port_check usual[] = {{80, POLICY_CHECK_HTTP},
                                                     {443, POLICY_CHECK_TLS}};
    struct policy *p;

    memset(faults, 0, sizeof *faults);
    memset(b, 0, sizeof *b);
    b->reader = reader;
    b->faults = faults;
    b->now_s = (int64_t)time(NULL);
    p = b->p = mem_zalloc(1, sizeof *p);
    if (!p) {
        build_no_memory(b);
        return -1;
    }
    p->refs = 1;
    p->checks = arena_alloc(&p->arena, POLICY_PROTOCOLS * sizeof *p->checks);
    if (!p->checks || !build_source(b, "")) {
        faults->has_error = true;
        return -1;
    }
    memcpy(p->checks, usual, sizeof usual);
    p->n_checks = COUNT_OF(usual);
    return 0;
}

static struct policy *done(struct policy_build *b)
{
    struct policy *p = b->p;

    for (struct policy_source *s = b->all; s; s = s->next)
        buf_done(&s->own);
    for (int i = 0; i < 2; i++) {
        mem_free(b->rule[i]);
        mem_free(b->place[i]);
    }
    if (!b->faults->has_error)
        return p;
    policy_unref(p);
    return NULL;
}

struct policy *policy_compile(struct span text, const struct policy_reader *reader,
                              struct policy_faults *faults)
{
    struct policy_build b;

    if (start(&b, reader, faults) < 0)
        return done(&b);
    if (text.len > POLICY_TEXT_MAX) {
        build_error(&b, "", "the policy has more than %d bytes", POLICY_TEXT_MAX);
        return done(&b);
    }
    b.source->text = text;
    b.bytes = text.len;
    b.source->is_open = true;
    policy_read_source(&b);
    if (finish(&b) < 0)
        build_no_memory(&b);
    return done(&b);
}

struct policy *policy_preset(const char *name, const struct policy_reader *reader,
                             struct policy_faults *faults)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct policy *p;

    if (!preset_text(name) ||
        buf_addf(&text, "{\"version\": 1, \"name\": \"%s\", \"extends\": \"%s\"}", name,
                 name) < 0) {
        memset(faults, 0, sizeof *faults);
        faults->has_error = true;
        faults->n = 1;
        (void)snprintf(faults->at[0].text, sizeof faults->at[0].text,
                       preset_text(name) ? "no memory" : "there is no preset \"%.40s\"",
                       name);
        return NULL;
    }
    p = policy_compile(buf_span(&text), reader, faults);
    return p;
}
