/* SPDX-License-Identifier: MIT */
/*
 * Theory. A recursive descent over RFC 8259, at most JSON_DEPTH_MAX deep, into a tree whose
 * nodes know their line. Items lie in one array that grows; nobody points into it before the
 * parse has ended. A node is empty or complete at every step, so that json_done() is right
 * for what a failure leaves behind.
 *
 * Why not jansson: 2.14 drops a byte of a token silently when its buffer cannot grow
 * (lex_save() ignores strbuffer_append_byte()) and then reads past the buffer for the quote
 * that it lost; these texts come from agents and browsers. Nor does it know lines.
 */
#include "common/json.h"

#include <stdlib.h>

#include "common/mem.h"
#include "common/secret.h"
#include "common/utf8.h"

struct json {
    enum json_type type;
    unsigned line; /* of a member: of its name */
    char *name;    /* of a member; owned */
    bool boolean;
    int64_t integer;
    char *text;        /* of a string; owned */
    struct json *item; /* of an array or object; owned */
    size_t len, cap;   /* items */
};

struct parser {
    const uint8_t *p, *end;
    unsigned line, depth;
    struct err *e;
};

/* -- reading ------------------------------------------------------------------------- */

static int fail(struct parser *ps, const char *rule)
{
    return err_set(ps->e, ERR_CONFIG, "line %u: %s", ps->line, rule);
}

static int no_memory(struct parser *ps)
{
    return err_set(ps->e, ERR_NOMEM, "no memory for JSON");
}

/* The byte here; 0 at the end, which nothing accepts. */
static uint8_t here(const struct parser *ps)
{
    return ps->p < ps->end ? *ps->p : 0;
}

static void skip_blank(struct parser *ps)
{
    for (;; ps->p++) {
        uint8_t c = here(ps);

        if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
            return;
        ps->line += c == '\n';
    }
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Four hexadecimal digits at p, or -1. */
static int hex4(const uint8_t *p, const uint8_t *end)
{
    int v = 0;
    int i;

    if (end - p < 4)
        return -1;
    for (i = 0; i < 4; i++) {
        uint8_t c = p[i];

        if (is_digit(c))
            v = v << 4 | (c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            v = v << 4 | ((c | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return v;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 63));
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    }
    return out;
}

/* \uXXXX, and its second half if it is the first of a pair; ps->p is after the u. The text
 * never grows: six bytes become at most three, twelve four. */
static int unescape_u(struct parser *ps, const uint8_t *end, char **out)
{
    int high = hex4(ps->p, end);
    int low;
    uint32_t c;

    if (high < 0)
        return fail(ps, "\\u without four hexadecimal digits");
    if (high == 0)
        return fail(ps, "NUL in a string");
    ps->p += 4;
    c = (uint32_t)high;
    if (high >= 0xd800 && high <= 0xdfff) {
        low = end - ps->p >= 6 && ps->p[0] == '\\' && ps->p[1] == 'u'
                  ? hex4(ps->p + 2, end)
                  : -1;
        if (high > 0xdbff || low < 0xdc00 || low > 0xdfff)
            return fail(ps, "half of a surrogate pair");
        ps->p += 6;
        c = 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    }
    *out = put_utf8(*out, c);
    return 0;
}

/* After a backslash. */
static int unescape(struct parser *ps, const uint8_t *end, char **out)
{
    static const char FROM[] = "\"\\/bfnrt";
    static const char TO[] = "\"\\/\b\f\n\r\t";
    uint8_t c = *ps->p++;
    const char *at = c != '\0' ? strchr(FROM, c) : NULL;

    if (c == 'u')
        return unescape_u(ps, end, out);
    if (at == NULL)
        return fail(ps, "unknown escape in a string");
    *(*out)++ = TO[at - FROM];
    return 0;
}

/* What stands between the quotes; `out` has room for as many bytes and a NUL. */
static int decode_string(struct parser *ps, const uint8_t *end, char *out)
{
    while (ps->p < end) {
        size_t n;

        if (*ps->p == '\\') {
            ps->p++;
            if (unescape(ps, end, &out) < 0)
                return -1;
            continue;
        }
        if (*ps->p < 0x20)
            return fail(ps, "control character in a string");
        n = utf8_len(ps->p, (size_t)(end - ps->p));
        if (n == 0)
            return fail(ps, "string is not UTF-8");
        memcpy(out, ps->p, n);
        out += n;
        ps->p += n;
    }
    *out = '\0';
    ps->p = end + 1;
    return 0;
}

/* At a quote. */
static int parse_string(struct parser *ps, char **ret)
{
    const uint8_t *end;

    for (end = ++ps->p; end < ps->end && *end != '"'; end++)
        end += *end == '\\' && end + 1 < ps->end;
    if (end >= ps->end)
        return fail(ps, "string without an end");
    *ret = mem_alloc((size_t)(end - ps->p) + 1);
    if (*ret == NULL)
        return no_memory(ps);
    return decode_string(ps, end, *ret);
}

static int skip_digits(struct parser *ps)
{
    if (!is_digit(here(ps)))
        return fail(ps, "number without a digit");
    while (is_digit(here(ps)))
        ps->p++;
    return 0;
}

/* Whole numbers are kept; of others only the form is checked, nobody reads them. */
static int parse_number(struct parser *ps, struct json *v)
{
    bool is_negative = *ps->p == '-';
    bool is_big = false;

    ps->p += is_negative;
    v->type = JSON_INT;
    if (!is_digit(here(ps)))
        return fail(ps, "number without a digit");
    if (here(ps) == '0' && ps->end - ps->p > 1 && is_digit(ps->p[1]))
        return fail(ps, "number with a leading zero");
    for (; is_digit(here(ps)); ps->p++) {
        int64_t digit = *ps->p - '0';

        is_big =
            is_big || __builtin_mul_overflow(v->integer, 10, &v->integer) ||
            __builtin_add_overflow(v->integer, is_negative ? -digit : digit, &v->integer);
    }
    if (here(ps) == '.') {
        v->type = JSON_REAL;
        ps->p++;
        if (skip_digits(ps) < 0)
            return -1;
    }
    if (here(ps) == 'e' || here(ps) == 'E') {
        v->type = JSON_REAL;
        ps->p++;
        if (here(ps) == '+' || here(ps) == '-')
            ps->p++;
        if (skip_digits(ps) < 0)
            return -1;
    }
    return is_big && v->type == JSON_INT ? fail(ps, "number too big") : 0;
}

static int parse_word(struct parser *ps, struct json *v)
{
    static const struct {
        const char *word;
        enum json_type type;
    } WORDS[] = {{"null", JSON_NULL}, {"true", JSON_BOOL}, {"false", JSON_BOOL}};
    size_t i;

    for (i = 0; i < COUNT_OF(WORDS); i++) {
        size_t n = strlen(WORDS[i].word);

        if ((size_t)(ps->end - ps->p) < n || memcmp(ps->p, WORDS[i].word, n) != 0)
            continue;
        v->type = WORDS[i].type;
        v->boolean = i == 1;
        ps->p += n;
        return 0;
    }
    return fail(ps, "a value is expected");
}

/* Room for one more item, empty; NULL on no memory. */
static struct json *add_item(struct json *v)
{
    struct json *grown;

    if (v->len == v->cap) {
        size_t cap = v->cap > 0 ? 2 * v->cap : 4;

        grown = mem_resize(v->item, cap * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        v->item = grown;
        v->cap = cap;
    }
    v->item[v->len] = (struct json){.type = JSON_NULL};
    return &v->item[v->len++];
}

/* "name": of the object's last item. Each name is compared with those before it, which is why
 * there is a bound. */
static int parse_name(struct parser *ps, struct json *obj)
{
    struct json *member = &obj->item[obj->len - 1];
    const struct json *other;

    if (here(ps) != '"')
        return fail(ps, "a name in quotes is expected");
    if (obj->len > JSON_MEMBERS_MAX)
        return err_set(ps->e, ERR_LIMIT, "line %u: more than %d members", ps->line,
                       JSON_MEMBERS_MAX);
    if (parse_string(ps, &member->name) < 0)
        return -1;
    for (other = obj->item; other < member; other++)
        if (strcmp(other->name, member->name) == 0)
            return fail(ps, "duplicate member");
    skip_blank(ps);
    if (here(ps) != ':')
        return fail(ps, "a colon is expected");
    ps->p++;
    return 0;
}

static int parse_value(struct parser *ps, struct json *v);

/* From its bracket to the other. */
/* NOLINTNEXTLINE(misc-no-recursion): JSON_DEPTH_MAX bounds it */
static int parse_items(struct parser *ps, struct json *v)
{
    uint8_t close = v->type == JSON_ARRAY ? ']' : '}';

    if (++ps->depth > JSON_DEPTH_MAX)
        return err_set(ps->e, ERR_LIMIT, "line %u: nested deeper than %d", ps->line,
                       JSON_DEPTH_MAX);
    ps->p++;
    skip_blank(ps);
    while (here(ps) != close || v->len > 0) { /* after a comma there must be an item */
        struct json *item = add_item(v);

        if (item == NULL)
            return no_memory(ps);
        item->line = ps->line;
        if (v->type == JSON_OBJECT && parse_name(ps, v) < 0)
            return -1;
        skip_blank(ps);
        if (parse_value(ps, item) < 0)
            return -1;
        skip_blank(ps);
        if (here(ps) == close)
            break;
        if (here(ps) != ',')
            return fail(ps, "a comma or the end of the list is expected");
        ps->p++;
        skip_blank(ps);
    }
    ps->p++;
    ps->depth--;
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): JSON_DEPTH_MAX bounds it */
static int parse_value(struct parser *ps, struct json *v)
{
    uint8_t c = here(ps);

    if (c == '{' || c == '[') {
        v->type = c == '{' ? JSON_OBJECT : JSON_ARRAY;
        return parse_items(ps, v);
    }
    if (c == '"') {
        v->type = JSON_STRING;
        return parse_string(ps, &v->text);
    }
    if (c == '-' || is_digit(c))
        return parse_number(ps, v);
    return parse_word(ps, v);
}

static int parse_root(struct parser *ps, struct json *root)
{
    skip_blank(ps);
    root->line = ps->line;
    if (here(ps) != '{' && here(ps) != '[')
        return fail(ps, "an object or an array is expected");
    if (parse_value(ps, root) < 0)
        return -1;
    skip_blank(ps);
    return ps->p == ps->end ? 0 : fail(ps, "more text after the end");
}

struct json *json_parse(struct span text, size_t max_bytes, struct err *e)
{
    struct parser ps = {.p = text.p, .end = text.p + text.len, .line = 1, .e = e};
    struct json *root;

    if (text.len > max_bytes) {
        err_set(e, ERR_LIMIT, "JSON of %zu bytes, at most %zu are read", text.len,
                max_bytes);
        return NULL;
    }
    root = mem_zalloc(1, sizeof(*root));
    if (root == NULL) {
        no_memory(&ps);
        return NULL;
    }
    if (parse_root(&ps, root) == 0)
        return root;
    json_free(root);
    return NULL;
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

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the parse went */
static void json_done(struct json *v)
{
    size_t i;

    for (i = 0; i < v->len; i++)
        json_done(&v->item[i]);
    mem_free(v->item);
    mem_free(v->text);
    mem_free(v->name);
}

void json_free(struct json *root)
{
    if (root == NULL)
        return;
    json_done(root);
    mem_free(root);
}

/* -- looking ------------------------------------------------------------------------- */

enum json_type json_type(const struct json *v)
{
    return v->type;
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
    return v->boolean;
}

int64_t json_int(const struct json *v)
{
    return v->integer;
}

const char *json_str(const struct json *v)
{
    return v->text;
}

size_t json_len(const struct json *v)
{
    return v->len;
}

const struct json *json_at(const struct json *arr, size_t i)
{
    return i < arr->len ? &arr->item[i] : NULL;
}

const struct json *json_get(const struct json *obj, const char *name)
{
    size_t i;

    for (i = 0; obj->type == JSON_OBJECT && i < obj->len; i++)
        if (strcmp(obj->item[i].name, name) == 0)
            return &obj->item[i];
    return NULL;
}

bool json_next(const struct json *obj, size_t *pos, const char **ret_name,
               const struct json **ret_value)
{
    if (obj->type != JSON_OBJECT || *pos >= obj->len)
        return false;
    *ret_value = &obj->item[*pos];
    *ret_name = obj->item[*pos].name;
    (*pos)++;
    return true;
}

unsigned json_line(const struct json *v)
{
    return v->line;
}

const struct json *json_find(const struct json *v, const char *path)
{
    while (*path != '\0' && v != NULL) {
        char name[JSON_NAME_MAX + 1];
        char *end;
        size_t n;

        if (*path == '[') {
            v = v->type == JSON_ARRAY ? json_at(v, strtoul(path + 1, &end, 10)) : NULL;
            if (v != NULL && *end != ']')
                return NULL;
            path = v != NULL ? end + 1 : "";
            continue;
        }
        path += *path == '.';
        n = strcspn(path, ".[");
        if (n >= sizeof(name))
            return NULL;
        memcpy(name, path, n);
        name[n] = '\0';
        v = json_get(v, name);
        path += n;
    }
    return v;
}
