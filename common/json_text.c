/* SPDX-License-Identifier: MIT */
/* What a JSON text shows without a tree: its bounds, before it is parsed, and the lines of its
 * values, which jansson does not keep. */
#include "common/json.h"

#include <stdlib.h>

/* Length of the string that starts at p[0] == '"', its quotes included; n when it does
 * not end. */
static size_t string_len(const uint8_t *p, size_t n)
{
    size_t i;

    for (i = 1; i < n && p[i] != '"'; i++)
        i += p[i] == '\\';
    return i < n ? i + 1 : n;
}

/* jansson bounds depth only at compile time (2048), and it recurses; the members of an object
 * it does not bound, and its hash is a weak one; a NUL after a number or a word it passes
 * over. Up to the first wrong byte, where jansson stops, strings and brackets and colons are
 * here what they are there. */
int json_check_bounds(struct span text, struct err *e)
{
    unsigned members[JSON_DEPTH_MAX + 1] = {0};
    unsigned depth = 0;
    unsigned line = 1;
    size_t i;

    for (i = 0; i < text.len; i++) {
        uint8_t c = text.p[i];

        if (c == '"') {
            i += string_len(text.p + i, text.len - i) - 1;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_DEPTH_MAX)
                return err_set(e, ERR_LIMIT, "line %u: nested deeper than %d", line,
                               JSON_DEPTH_MAX);
            members[depth] = 0;
        } else if (c == ']' || c == '}') {
            depth -= depth > 0;
        } else if (c == '\0') {
            return err_set(e, ERR_CONFIG, "line %u: a NUL byte", line);
        } else if (c == ':' && ++members[depth] > JSON_MEMBERS_MAX) {
            return err_set(e, ERR_LIMIT, "line %u: more than %d members", line,
                           JSON_MEMBERS_MAX);
        }
        line += c == '\n';
    }
    return 0;
}

/* -- lines --------------------------------------------------------------------------- */

/* A walk over text that json_parse() accepted: so there is no error to find, but every
 * step is bounded all the same. */
struct walk {
    const uint8_t *p, *end;
    unsigned line;
    unsigned found; /* line of the last member or item that was looked for */
};

static uint8_t walk_byte(const struct walk *w)
{
    return w->p < w->end ? *w->p : 0;
}

static void walk_blank(struct walk *w)
{
    while (w->p < w->end && (*w->p == ' ' || *w->p == '\t' || *w->p == '\r' ||
                             *w->p == '\n' || *w->p == ',' || *w->p == ':')) {
        w->line += *w->p == '\n';
        w->p++;
    }
}

/* One value, whatever is in it. Strings hold no raw line ends. */
static void walk_value(struct walk *w)
{
    unsigned depth = 0;

    do {
        uint8_t c = walk_byte(w);

        if (c == '"') {
            w->p += string_len(w->p, (size_t)(w->end - w->p));
        } else if (c == '[' || c == '{') {
            depth++;
            w->p++;
        } else if (c == ']' || c == '}') {
            depth -= depth > 0;
            w->p++;
        } else {
            while (w->p < w->end && memchr(" \t\r\n,]}", *w->p, 7) == NULL)
                w->p++;
        }
        if (depth > 0)
            walk_blank(w);
    } while (depth > 0 && w->p < w->end);
}

/* Into the member called name[0..len) of the object at `w`; false: none. A name that is
 * written with escapes is not found, which costs its line in an error and nothing else.
 */
static bool walk_member(struct walk *w, const char *name, size_t len)
{
    if (walk_byte(w) != '{')
        return false;
    w->p++;
    for (walk_blank(w); walk_byte(w) == '"'; walk_blank(w)) {
        size_t n = string_len(w->p, (size_t)(w->end - w->p));
        bool is_it = n == len + 2 && memcmp(w->p + 1, name, len) == 0;
        unsigned line = w->line;

        w->p += n;
        walk_blank(w);
        if (is_it) {
            w->found = line; /* people look for the name, not for its value */
            return true;
        }
        walk_value(w);
    }
    return false;
}

static bool walk_item(struct walk *w, unsigned long i)
{
    if (walk_byte(w) != '[')
        return false;
    w->p++;
    for (walk_blank(w); i > 0 && w->p < w->end && *w->p != ']'; i--) {
        walk_value(w);
        walk_blank(w);
    }
    w->found = w->line;
    return i == 0 && w->p < w->end && *w->p != ']';
}

/* To the value that `path` names; false: there is none. */
static bool walk_path(struct walk *w, const char *path)
{
    walk_blank(w);
    w->found = w->line;
    while (*path != '\0') {
        if (*path == '[') {
            char *end;

            if (!walk_item(w, strtoul(path + 1, &end, 10)) || *end != ']')
                return false;
            path = end + 1;
        } else {
            size_t n;

            path += *path == '.';
            n = strcspn(path, ".[");
            if (!walk_member(w, path, n))
                return false;
            path += n;
        }
    }
    return true;
}

unsigned json_line(struct span text, const char *path)
{
    struct walk w = {.p = text.p, .end = text.p + text.len, .line = 1};

    return walk_path(&w, path) ? w.found : 0;
}

int json_find(struct span text, const char *path, struct span *ret)
{
    struct walk w = {.p = text.p, .end = text.p + text.len, .line = 1};
    const uint8_t *from;

    if (!walk_path(&w, path))
        return -1;
    from = w.p;
    walk_value(&w);
    *ret = span_of(from, (size_t)(w.p - from));
    return 0;
}
