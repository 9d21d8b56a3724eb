/* SPDX-License-Identifier: MIT */
/**
 * json -- the parts of jansson we use, with our rules: an object or an array at the root, no
 *         duplicate members, no NUL in strings, size and depth and members bounded, no
 *         memory is an error and nothing else, errors with their line and without what was
 *         read. json.c is the only file that includes <jansson.h>.
 */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/span.h"

struct json; /* a value; borrowed from its root unless said otherwise */

#define JSON_DEPTH_MAX   16
#define JSON_MEMBERS_MAX 256 /* of one object */
/** The root; free with json_free(). NULL with ERR_CONFIG/ERR_PROTO ("line 3: ..."). */
struct json *json_parse(struct span text, size_t max_bytes, struct err *e);
/** As json_parse(), but every number is a JSON_REAL, so that integers of other programs that do
 *  not fit into 64 bits with a sign are taken. For texts of which the numbers are not read. */
struct json *json_parse_wide(struct span text, size_t max_bytes, struct err *e);
struct json *json_parse_file(const char *path, size_t max_bytes, struct err *e);
void json_free(struct json *root);
/** Whether JSON_DEPTH_MAX and JSON_MEMBERS_MAX are kept, as json_parse() asks. 0 or -1. */
int json_check_bounds(struct span text, struct err *e);

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};
enum json_type json_type(const struct json *v);
const char *json_type_name(enum json_type t);
bool json_bool(const struct json *v);
int64_t json_int(const struct json *v);
const char *json_str(const struct json *v); /* NUL-terminated UTF-8, no NUL inside */
size_t json_len(const struct json *v);      /* items of an array, members of an object */
const struct json *json_at(const struct json *arr, size_t i);
const struct json *json_get(const struct json *obj, const char *name); /* NULL: absent */
/** The text of a member; `otherwise` (NULL is fine) when it is absent or no text. */
const char *json_get_str(const struct json *obj, const char *name, const char *otherwise);
/** Walk the members: start with *pos = 0; false at the end. */
bool json_next(const struct json *obj, size_t *pos, const char **ret_name,
               const struct json **ret_value);

/** The line (from 1) at which the member or item stands that `path` names, as in
 *  "listen[1].address"; a member's is that of its name. 0: not found. "" is the root. `text`
 *  must be what json_parse() took. */
unsigned json_line(struct span text, const char *path);

/** The bytes of the value that `path` names, for changing a text in place; same rules. 0, or
 *  -1: not found. */
int json_find(struct span text, const char *path, struct span *ret);

/* Printing: append a JSON string with its quotes, escaped; invalid UTF-8 becomes U+FFFD.
 */
int json_put_str(struct buf *b, struct span text);

#endif
