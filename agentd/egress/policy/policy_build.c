/* SPDX-License-Identifier: MIT */
/* Faults and sources while a policy is built. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "common/log.h"
#include "common/mem.h"

/* -- faults -------------------------------------------------------------------------- */

/* For a terminal: members' and files' names are in it as somebody wrote them. */
static void clean(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

PRINTF_LIKE(5, 0)
static void fault_add(struct policy_build *b, const struct policy_source *source,
                      bool is_warning, const char *path, const char *fmt, va_list ap)
{
    struct policy_faults *faults = b->faults;
    struct policy_fault *f;

    is_warning |= b->is_lenient;
    faults->has_error |= !is_warning;
    /* An error is never lost for warnings that came before it. */
    if (faults->n == POLICY_FAULTS_MAX) {
        size_t i = faults->n;

        faults->dropped++;
        while (!is_warning && i > 0 && !faults->at[i - 1].is_warning)
            i--;
        if (is_warning || i == 0)
            return;
        memmove(&faults->at[i - 1], &faults->at[i],
                (faults->n - i) * sizeof faults->at[0]);
        faults->n--;
    }
    f = &faults->at[faults->n++];
    memset(f, 0, sizeof *f);
    f->is_warning = is_warning;
    if (source) {
        (void)snprintf(f->file, sizeof f->file, "%s", source->file);
        if (source->is_list)
            f->line = (unsigned)strtoul(path + sizeof "line", NULL, 10);
        else
            f->line = json_line(source->text, path);
    }
    if (!source || !source->is_list)
        (void)snprintf(f->path, sizeof f->path, "%s", path);
    (void)vsnprintf(f->text, sizeof f->text, fmt, ap);
    clean(f->file);
    clean(f->path);
    clean(f->text);
}

void build_error(struct policy_build *b, const char *path, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fault_add(b, b->source, false, path, fmt, ap);
    va_end(ap);
}

void build_warn(struct policy_build *b, const char *path, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fault_add(b, b->source, true, path, fmt, ap);
    va_end(ap);
}

static void print_place(const struct rule_place *place, enum policy_list list,
                        char out[POLICY_PATH_MAX])
{
    if (place->source->is_list)
        (void)snprintf(out, POLICY_PATH_MAX, "line %u", place->item);
    else
        (void)snprintf(out, POLICY_PATH_MAX, "%s[%u]", place->source->list_name[list],
                       place->item);
}

const char *build_rule_place(const struct policy_build *b, const struct policy_rule *r,
                             const struct policy_rule *from, char out[POLICY_PATH_MAX])
{
    const struct rule_place *place = &b->place[r->list][r->number];
    size_t n;

    print_place(place, r->list, out);
    n = strlen(out);
    if (place->source != b->place[from->list][from->number].source)
        (void)snprintf(out + n, POLICY_PATH_MAX - n, " of %.32s",
                       place->source->file[0] ? place->source->file : "this policy");
    return out;
}

void build_rule_fault(struct policy_build *b, bool is_warning, enum policy_list list,
                      size_t i, const char *fmt, ...)
{
    const struct rule_place *place = &b->place[list][i];
    char path[POLICY_PATH_MAX];
    va_list ap;

    print_place(place, list, path);
    va_start(ap, fmt);
    fault_add(b, place->source, is_warning, path, fmt, ap);
    va_end(ap);
}

void build_no_memory(struct policy_build *b)
{
    b->is_lenient = false;
    build_error(b, "", "no memory for the policy");
}

/* -- values -------------------------------------------------------------------------- */

bool build_type(struct policy_build *b, const char *path, const struct json *v,
                enum json_type type)
{
    if (json_type(v) == type)
        return true;
    build_error(b, path, "must be %s, not %s", json_type_name(type),
                json_type_name(json_type(v)));
    return false;
}

const char *build_text(struct policy_build *b, const char *path, const struct json *v,
                       size_t max)
{
    const char *text;

    if (!build_type(b, path, v, JSON_STRING))
        return NULL;
    text = json_str(v);
    if (*text == '\0') {
        build_error(b, path, "is empty");
        return NULL;
    }
    if (strlen(text) > max) {
        build_error(b, path, "has more than %zu bytes", max);
        return NULL;
    }
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c >= ' ' && *c != 0x7f)
            continue;
        build_error(b, path, "has a control character");
        return NULL;
    }
    return text;
}

/* -- names that are nearly right ----------------------------------------------------- */

#define NEAR_MAX 32

static unsigned distance(const char *a, const char *b)
{
    unsigned row[NEAR_MAX + 1];
    size_t n = strlen(b);

    for (size_t j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (size_t i = 0; a[i]; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < n; j++) {
            unsigned best = diagonal + (a[i] != b[j]);

            diagonal = row[j + 1];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j + 1] + 1 < best)
                best = row[j + 1] + 1;
            row[j + 1] = best;
        }
    }
    return row[n];
}

const char *build_nearest(const char *const *name_list, size_t n_names, const char *name)
{
    unsigned best = (unsigned)(2 + strlen(name) / 3);
    const char *found = NULL;

    if (strlen(name) > NEAR_MAX)
        return NULL;
    for (size_t i = 0; i < n_names; i++) {
        unsigned d = distance(name, name_list[i]);

        if (d >= best)
            continue;
        best = d;
        found = name_list[i];
    }
    return found;
}

void build_unknown(struct policy_build *b, const char *path, const char *const *name_list,
                   size_t n_names, const char *name)
{
    const char *near = build_nearest(name_list, n_names, name);
    char all[128] = "";

    for (size_t i = 0; i < n_names; i++) {
        size_t len = strlen(all);

        (void)snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", name_list[i]);
    }
    if (near)
        build_error(b, path, "there is no %s here; the nearest is \"%s\"", log_q(name),
                    near);
    else
        build_error(b, path, "there is no %s here, only %s", log_q(name), all);
}

/* -- sources ------------------------------------------------------------------------- */

struct policy_source *build_source(struct policy_build *b, const char *file)
{
    struct policy_source *s = arena_alloc(&b->p->arena, sizeof *s);
    char *name = arena_text(&b->p->arena, span_str(file));

    if (!s || !name) {
        build_no_memory(b);
        return NULL;
    }
    s->file = name;
    s->list_name[POLICY_ALLOW] = "allow";
    s->list_name[POLICY_DENY] = "deny";
    s->next = b->all;
    b->all = s;
    b->source = s;
    return s;
}
