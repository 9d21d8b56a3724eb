/* SPDX-License-Identifier: MIT */
/*
 * Theory. jansson reads the text; we bound it before and hold its memory.
 *
 * jansson 2.14 does not bear a failed allocation in the middle of a token: lex_save() drops
 * the byte, and the closing quote is then searched past the buffer. So it never sees one:
 * take() jumps out of json_loadb() instead of returning NULL, and what was allocated until
 * then is freed from the list that all blocks of a parse are in. jansson has no state of its
 * own that the jump could leave half changed: no locks, and its one global, the seed of its
 * hash tables, is set without allocating.
 */
#include "common/json.h"

#include <pthread.h>
#include <setjmp.h>
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

/* -- memory -------------------------------------------------------------------------- */

/* A block of jansson's. The list lasts as long as the tree: json_free() may run on another
 * thread and long after the parse. */
struct block {
    struct block *before, *after;
    _Alignas(max_align_t) uint8_t bytes[];
};

struct parse {
    struct block *newest;
    size_t flags; /* jansson's */
    jmp_buf no_memory;
};

/* Whose the blocks are that jansson asks for: it does so in json_loadb() only. */
static _Thread_local struct parse *running;

static void *take(size_t n)
{
    struct block *b = n < SIZE_MAX / 2 ? mem_alloc(sizeof(*b) + n) : NULL;

    if (b == NULL)
        longjmp(running->no_memory, 1);
    b->before = NULL;
    b->after = running->newest;
    if (b->after != NULL)
        b->after->before = b;
    running->newest = b;
    return b->bytes;
}

static void give_back(void *bytes)
{
    struct block *b = CONTAINER_OF(bytes, struct block, bytes);

    if (b->after != NULL)
        b->after->before = b->before;
    if (b->before != NULL)
        b->before->after = b->after;
    else if (running != NULL && running->newest == b)
        running->newest = b->after;
    mem_free(b);
}

static void give_back_all(struct parse *p)
{
    while (p->newest != NULL)
        give_back(p->newest->bytes);
}

static void set_allocator(void)
{
    json_set_alloc_funcs(take, give_back);
}

/* -- reading ------------------------------------------------------------------------- */

/* A value is jansson's json_t under our name. */
static const json_t *raw(const struct json *v)
{
    return (const json_t *)v;
}

static const struct json *wrapped(const json_t *v)
{
    return (const struct json *)v;
}

/* What jansson says is wrong, without the piece of the text that it quotes: that may be half
 * a secret, or anything that a terminal should not see. */
static void set_syntax_error(json_error_t *je, struct err *e)
{
    char *quote = strstr(je->text, " near '");

    if (quote != NULL)
        *quote = '\0';
    err_set(e, ERR_CONFIG, "line %d: %s", je->line > 0 ? je->line : 1, je->text);
}

/* `p` is the caller's: what is local to a function that calls setjmp() is lost in the jump. */
static json_t *load(struct parse *p, struct span text, struct err *e)
{
    json_error_t je;
    json_t *root;

    if (setjmp(p->no_memory) != 0) {
        err_set(e, ERR_NOMEM, "no memory for JSON");
        return NULL;
    }
    /* An empty span may have no pointer, which jansson calls a wrong argument. */
    root = json_loadb(text.len > 0 ? (const char *)text.p : "", text.len, p->flags, &je);
    if (root == NULL)
        set_syntax_error(&je, e);
    return root;
}

static struct json *parse(struct span text, size_t max_bytes, size_t flags, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct parse p = {.newest = NULL, .flags = JSON_REJECT_DUPLICATES | flags};
    json_t *root;

    if (text.len > max_bytes) {
        err_set(e, ERR_LIMIT, "JSON of %zu bytes, at most %zu are read", text.len,
                max_bytes);
        return NULL;
    }
    if (json_check_bounds(text, e) < 0)
        return NULL;
    (void)pthread_once(&once, set_allocator);
    running = &p;
    root = load(&p, text, e);
    if (root == NULL)
        give_back_all(&p);
    running = NULL;
    return (struct json *)root;
}

struct json *json_parse(struct span text, size_t max_bytes, struct err *e)
{
    return parse(text, max_bytes, 0, e);
}

struct json *json_parse_wide(struct span text, size_t max_bytes, struct err *e)
{
    return parse(text, max_bytes, JSON_DECODE_INT_AS_REAL, e);
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

const char *json_get_str(const struct json *obj, const char *name, const char *otherwise)
{
    const struct json *v = json_get(obj, name);

    return v && json_type(v) == JSON_STRING ? json_str(v) : otherwise;
}

/* *pos is jansson's iterator, the member given last. jansson takes json_t * even where it
 * only reads. */
bool json_next(const struct json *obj, size_t *pos, const char **ret_name,
               const struct json **ret_value)
{
    /* NOLINTBEGIN(performance-no-int-to-ptr): the other way to say that is a warning */
    json_t *o = (json_t *)(uintptr_t)obj;
    void *it = *pos == 0 ? json_object_iter(o)
                         : json_object_iter_next(o, (void *)(uintptr_t)*pos);
    /* NOLINTEND(performance-no-int-to-ptr) */

    if (it == NULL)
        return false;
    *pos = (size_t)(uintptr_t)it;
    *ret_name = json_object_iter_key(it);
    *ret_value = wrapped(json_object_iter_value(it));
    return true;
}
