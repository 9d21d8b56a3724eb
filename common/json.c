/* SPDX-License-Identifier: MIT */
#include "common/json.h"

#include <limits.h>
#include <stdlib.h>

/* jansson's type and its values have the names of ours: rename them while it is read. Its
 * json_is_*() macros must not be used here, they would mean our values. */
#define json_type   jansson_type
#define JSON_NULL   JANSSON_NULL
#define JSON_REAL   JANSSON_REAL
#define JSON_STRING JANSSON_STRING
#define JSON_ARRAY  JANSSON_ARRAY
#define JSON_OBJECT JANSSON_OBJECT
#include <jansson.h>
#undef json_type
#undef JSON_NULL
#undef JSON_REAL
#undef JSON_STRING
#undef JSON_ARRAY
#undef JSON_OBJECT

#include "common/mem.h"
#include "common/secret.h"

/* jansson keeps its allocator in two globals: set before any thread exists. */
__attribute__((constructor)) static void set_allocator(void)
{
    json_set_alloc_funcs(mem_alloc, mem_free);
}

/* A value is jansson's json_t under our name. jansson takes json_t * even where it only
 * reads, hence the cast through an integer. */
static json_t *raw(const struct json *v)
{
    return (json_t *)(uintptr_t)v;
}

static const struct json *wrapped(const json_t *v)
{
    return (const struct json *)v;
}

/* -- reading ------------------------------------------------------------------------- */

/* Length of the string that starts at p[0] == '"', its quotes included; n when it does
 * not end. */
static size_t string_len(const uint8_t *p, size_t n)
{
    size_t i;

    for (i = 1; i < n && p[i] != '"'; i++)
        i += p[i] == '\\';
    return i < n ? i + 1 : n;
}

/* The line that is too deep, or 0. jansson bounds depth only at compile time (2048), and
 * it recurses. */
static unsigned too_deep_line(struct span text)
{
    unsigned depth = 0;
    unsigned line = 1;
    size_t i;

    for (i = 0; i < text.len; i++) {
        uint8_t c = text.p[i];

        if (c == '"')
            i += string_len(text.p + i, text.len - i) - 1;
        else if ((c == '[' || c == '{') && ++depth > JSON_DEPTH_MAX)
            return line;
        else if ((c == ']' || c == '}') && depth > 0)
            depth--;
        else if (c == '\n')
            line++;
    }
    return 0;
}

/* jansson quotes what it read: cut it to what a line of log can hold. */
static void set_syntax_error(const json_error_t *je, struct err *e)
{
    char text[sizeof(je->text)];
    size_t i;

    for (i = 0; i + 1 < sizeof(text) && je->text[i] != '\0'; i++) {
        char c = je->text[i];

        text[i] = c < ' ' || c > '~' ? '?' : c;
    }
    text[i] = '\0';
    err_set(e, ERR_CONFIG, "line %d: %s", je->line > 0 ? je->line : 1, text);
}

struct json *json_parse(struct span text, size_t max_bytes, struct err *e)
{
    json_error_t je;
    json_t *root;
    unsigned line;
    unsigned failures = mem_failures();

    if (text.len > max_bytes) {
        err_set(e, ERR_LIMIT, "JSON of %zu bytes, at most %zu are read", text.len,
                max_bytes);
        return NULL;
    }
    line = too_deep_line(text);
    if (line > 0) {
        err_set(e, ERR_LIMIT, "line %u: nested deeper than %d", line, JSON_DEPTH_MAX);
        return NULL;
    }
    /* An empty span may have no pointer, which jansson calls a wrong argument. */
    root = json_loadb(text.len > 0 ? (const char *)text.p : "", text.len,
                      JSON_REJECT_DUPLICATES, &je);
    if (root == NULL && mem_failures() != failures)
        err_set(e, ERR_NOMEM, "no memory for JSON");
    else if (root == NULL)
        set_syntax_error(&je, e);
    return (struct json *)root;
}

struct json *json_parse_file(const char *path, size_t max_bytes, struct err *e)
{
    AUTO(secret_done)
    struct secret text = {0};
    struct json *root;

    if (secret_read(&text, path, max_bytes, e) < 0)
        return NULL;
    root = json_parse(secret_span(&text), max_bytes, e);
    if (root == NULL)
        err_wrap(e, "%s", path);
    return root;
}

void json_free(struct json *root)
{
    json_decref((json_t *)root);
}

/* -- looking ------------------------------------------------------------------------- */

enum json_type json_type(const struct json *v)
{
    switch (json_typeof(raw(v))) {
    case JANSSON_OBJECT:
        return JSON_OBJECT;
    case JANSSON_ARRAY:
        return JSON_ARRAY;
    case JANSSON_STRING:
        return JSON_STRING;
    case JSON_INTEGER:
        return JSON_INT;
    case JANSSON_REAL:
        return JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return JSON_BOOL;
    case JANSSON_NULL:
        break;
    }
    return JSON_NULL;
}

const char *json_type_name(enum json_type t)
{
    static const char *const NAME[] = {
        [JSON_NULL] = "null",        [JSON_BOOL] = "true or false",
        [JSON_INT] = "an integer",   [JSON_REAL] = "a number",
        [JSON_STRING] = "a string",  [JSON_ARRAY] = "an array",
        [JSON_OBJECT] = "an object",
    };

    return NAME[t];
}

bool json_bool(const struct json *v)
{
    return json_typeof(raw(v)) == JSON_TRUE;
}

int64_t json_int(const struct json *v)
{
    return json_integer_value(raw(v));
}

const char *json_str(const struct json *v)
{
    return json_string_value(raw(v));
}

size_t json_len(const struct json *v)
{
    return json_type(v) == JSON_ARRAY ? json_array_size(raw(v))
                                      : json_object_size(raw(v));
}

const struct json *json_at(const struct json *arr, size_t i)
{
    return wrapped(json_array_get(raw(arr), i));
}

const struct json *json_get(const struct json *obj, const char *name)
{
    return wrapped(json_object_get(raw(obj), name));
}

/* *pos is jansson's iterator, the member given last. */
bool json_next(const struct json *obj, size_t *pos, const char **ret_name,
               const struct json **ret_value)
{
    void *it = *pos == 0 ? json_object_iter(raw(obj))
                         : json_object_iter_next(raw(obj), (void *)(uintptr_t)*pos);

    if (it == NULL)
        return false;
    *pos = (size_t)(uintptr_t)it;
    *ret_name = json_object_iter_key(it);
    *ret_value = wrapped(json_object_iter_value(it));
    return true;
}

/* -- where a value stands --------------------------------------------------------------
 */

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
            while (w->p < w->end && strchr(" \t\r\n,]}", *w->p) == NULL)
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

unsigned json_line(struct span text, const char *path)
{
    struct walk w = {.p = text.p, .end = text.p + text.len, .line = 1};

    walk_blank(&w);
    w.found = w.line;
    while (*path != '\0') {
        if (*path == '[') {
            char *end;

            if (!walk_item(&w, strtoul(path + 1, &end, 10)) || *end != ']')
                return 0;
            path = end + 1;
        } else {
            size_t n;

            path += *path == '.';
            n = strcspn(path, ".[");
            if (!walk_member(&w, path, n))
                return 0;
            path += n;
        }
    }
    return w.found;
}

/* -- writing ------------------------------------------------------------------------- */

/* Length of the valid UTF-8 sequence at p (RFC 3629: shortest form, no surrogates, up to
 * U+10FFFF), or 0. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    size_t len = p[0] < 0x80   ? 1
                 : p[0] < 0xc2 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                               : 4;
    size_t i;

    if (p[0] > 0xf4 || len > n)
        return 0;
    for (i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

/* Appends what stands for p[0..) and tells how many bytes of it that was; 0: no memory.
 */
static size_t put_char(struct buf *b, const uint8_t *p, size_t n)
{
    size_t len = utf8_len(p, n);
    int rc;

    if (len == 0)
        rc = buf_adds(b, "\xef\xbf\xbd"); /* U+FFFD */
    else if (*p == '"' || *p == '\\')
        rc = buf_addf(b, "\\%c", *p);
    else if (*p < 0x20 || *p == 0x7f)
        rc = buf_addf(b, "\\u%04x", *p);
    else
        rc = buf_add(b, p, len);
    return rc < 0 ? 0 : len > 0 ? len : 1;
}

int json_put_str(struct buf *b, struct span text)
{
    size_t i = 0;

    if (buf_add(b, "\"", 1) < 0)
        return -1;
    while (i < text.len) {
        size_t plain = i;
        size_t n;

        while (plain < text.len && text.p[plain] >= 0x20 && text.p[plain] < 0x7f &&
               text.p[plain] != '"' && text.p[plain] != '\\')
            plain++;
        if (plain > i && buf_add(b, text.p + i, plain - i) < 0)
            return -1;
        i = plain;
        if (i == text.len)
            break;
        n = put_char(b, text.p + i, text.len - i);
        if (n == 0)
            return -1;
        i += n;
    }
    return buf_add(b, "\"", 1);
}
