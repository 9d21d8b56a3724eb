/* SPDX-License-Identifier: MIT */
#include "tunneld/config_value.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

enum {
    PATH_CAP = 192,
    NAME_CAP = 40, /* longer than every key */
};

/* -- faults ---------------------------------------------------------------------------- */

void config_fault(struct config_reader *r, const char *path, const char *fmt, ...)
{
    unsigned line = path[0] != '\0' ? json_line(r->text, path) : 0;
    char place[4096 + PATH_CAP];
    char at_line[16] = "";
    char rule[256];
    va_list ap;

    if (line > 0)
        (void)snprintf(at_line, sizeof(at_line), ":%u", line);
    (void)snprintf(place, sizeof(place), "%s%s%s%s", r->file, at_line,
                   path[0] != '\0' ? ": " : "", path);
    va_start(ap, fmt);
    (void)vsnprintf(rule, sizeof(rule), fmt, ap);
    va_end(ap);
    r->n_faults++;
    r->fault(r->arg, place, rule);
}

/* A member's path. Its name comes from the file: a terminal must bear it. */
static void join(char out[PATH_CAP], const char *path, const char *name)
{
    char *p;

    (void)snprintf(out, PATH_CAP, "%s%s%.64s", path, path[0] != '\0' ? "." : "", name);
    for (p = out; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

/* Levenshtein's distance of two short names. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NAME_CAP + 1];
    size_t n = strlen(b);
    size_t i, j;

    for (j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (i = 0; a[i] != '\0'; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i + 1;
        for (j = 0; j < n; j++) {
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

/* The row whose name is nearest, or NULL when none is near. */
static const char *nearest(const struct config_row *rows, size_t n, const char *name)
{
    size_t len = strlen(name);
    unsigned best = (unsigned)(1 + len / 3);
    const char *found = NULL;
    size_t i;

    if (len > NAME_CAP)
        return NULL;
    for (i = 0; i < n; i++) {
        unsigned d = distance(name, rows[i].name);

        if (d <= best) {
            best = d - (d > 0);
            found = rows[i].name;
        }
    }
    return found;
}

/* -- values ---------------------------------------------------------------------------- */

bool config_has_type(struct config_reader *r, const char *path, const struct json *v,
                     enum json_type type)
{
    if (json_type(v) == type)
        return true;
    config_fault(r, path, "must be %s", json_type_name(type));
    return false;
}

/* A text that is not empty and holds no control characters, or NULL. */
const char *config_get_text(struct config_reader *r, const char *path,
                            const struct json *v)
{
    const char *p;

    if (!config_has_type(r, path, v, JSON_STRING))
        return NULL;
    for (p = json_str(v); *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            config_fault(r, path, "holds a control character");
            return NULL;
        }
    }
    if (p == json_str(v)) {
        config_fault(r, path, "must not be empty");
        return NULL;
    }
    return json_str(v);
}

void config_get_copy(struct config_reader *r, const char *path, const struct json *v,
                     char **ret)
{
    const char *s = config_get_text(r, path, v);
    size_t n;

    if (s == NULL)
        return;
    n = strlen(s) + 1;
    mem_free(*ret);
    *ret = mem_alloc(n);
    if (*ret == NULL)
        config_fault(r, path, "no memory");
    else
        memcpy(*ret, s, n);
}

void config_get_bounded(struct config_reader *r, const char *path, const struct json *v,
                        char *ret, size_t cap)
{
    const char *s = config_get_text(r, path, v);

    if (s == NULL)
        return;
    if (strlen(s) >= cap)
        config_fault(r, path, "has more than %zu bytes", cap - 1);
    else
        memcpy(ret, s, strlen(s) + 1);
}

int64_t config_get_int(struct config_reader *r, const char *path, const struct json *v,
                       int64_t min, int64_t max)
{
    if (!config_has_type(r, path, v, JSON_INT))
        return min;
    if (json_int(v) < min || json_int(v) > max) {
        config_fault(r, path, "must be %" PRId64 " to %" PRId64, min, max);
        return min;
    }
    return json_int(v);
}

bool config_get_bool(struct config_reader *r, const char *path, const struct json *v,
                     bool otherwise)
{
    return config_has_type(r, path, v, JSON_BOOL) ? json_bool(v) : otherwise;
}

/* 0 or 1 for the one of two words; the first when it is neither. */
unsigned config_get_word(struct config_reader *r, const char *path, const struct json *v,
                         const char *const word[2])
{
    const char *s = config_get_text(r, path, v);

    if (s != NULL && strcmp(s, word[0]) != 0 && strcmp(s, word[1]) != 0)
        config_fault(r, path, "must be \"%s\" or \"%s\"", word[0], word[1]);
    return s != NULL && strcmp(s, word[1]) == 0;
}

static void fault_unknown(struct config_reader *r, const char *path, const char *near)
{
    if (near != NULL)
        config_fault(r, path, "unknown key; the nearest is \"%s\"", near);
    else
        config_fault(r, path, "unknown key");
}

/* In the order of the rows, not of the file: what a row is checked against comes first. */
void config_read_object(struct config_reader *r, const char *path, const struct json *obj,
                        const struct config_row *rows, size_t n)
{
    const struct json *v;
    const char *name;
    char at[PATH_CAP];
    size_t pos = 0;
    size_t i;

    if (!config_has_type(r, path, obj, JSON_OBJECT))
        return;
    for (i = 0; i < n; i++) {
        v = json_get(obj, rows[i].name);
        join(at, path, rows[i].name);
        if (v != NULL)
            rows[i].read(r, at, v);
        else if (rows[i].is_needed)
            config_fault(r, path, "\"%s\" is missing", rows[i].name);
    }
    while (json_next(obj, &pos, &name, &v)) {
        for (i = 0; i < n && strcmp(rows[i].name, name) != 0; i++)
            ;
        if (i < n)
            continue;
        join(at, path, name);
        fault_unknown(r, at, nearest(rows, n, name));
    }
}

/* Items of an array, each by `read`, at most `max`. */
void config_read_array(struct config_reader *r, const char *path, const struct json *arr,
                       size_t max, config_read_fn *read)
{
    char at[PATH_CAP + 24];
    size_t i;

    if (!config_has_type(r, path, arr, JSON_ARRAY))
        return;
    if (json_len(arr) > max) {
        config_fault(r, path, "has more than %zu items", max);
        return;
    }
    for (i = 0; i < json_len(arr); i++) {
        (void)snprintf(at, sizeof(at), "%s[%zu]", path, i);
        read(r, at, json_at(arr, i));
    }
}
