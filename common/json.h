/* SPDX-License-Identifier: MIT */
/**
 * json -- JSON text (RFC 8259) into a tree, with our rules: an object or an array at the
 *         root, no duplicate members, no NUL in strings, valid UTF-8, size and depth and
 *         members bounded, errors with their line. Whole numbers are 64 bits.
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
#define JSON_MEMBERS_MAX 256 /* of one object; each is compared with all others */
#define JSON_NAME_MAX    127 /* of a member that json_find() finds */
/** The root; free with json_free(). NULL with ERR_CONFIG/ERR_PROTO ("line 3: ..."). */
struct json *json_parse(struct span text, size_t max_bytes, struct err *e);
struct json *json_parse_file(const char *path, size_t max_bytes, struct err *e);
void json_free(struct json *root);

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
const char *
json_str(const struct json *v);        /* NUL-terminated, valid UTF-8, no NUL inside */
size_t json_len(const struct json *v); /* items of an array, members of an object */
const struct json *json_at(const struct json *arr, size_t i);
const struct json *json_get(const struct json *obj, const char *name); /* NULL: absent */
/** Walk the members: start with *pos = 0; false at the end. */
bool json_next(const struct json *obj, size_t *pos, const char **ret_name,
               const struct json **ret_value);

/** The line, from 1, at which a value stands; a member's is that of its name. */
unsigned json_line(const struct json *v);
/** The value that a path names, as in "listen[1].address"; NULL: none. "" is the root. */
const struct json *json_find(const struct json *v, const char *path);

/* Printing: append a JSON string with its quotes, escaped; invalid UTF-8 becomes U+FFFD.
 */
int json_put_str(struct buf *b, struct span text);

#endif
