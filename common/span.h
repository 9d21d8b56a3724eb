/* SPDX-License-Identifier: MIT */
/** span -- borrowed bytes: a pointer and a length. Never NUL-terminated, never owned. */
#ifndef COMMON_SPAN_H
#define COMMON_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct span {
    const uint8_t *p; /* NULL only when len is 0 */
    size_t len;
};

static inline struct span span_of(const void *p, size_t len)
{
    return (struct span){p, len};
}

static inline struct span span_str(const char *s)
{
    return (struct span){(const uint8_t *)s, strlen(s)};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/** ASCII case-insensitive comparison with a literal. Not for secrets. */
static inline bool span_is(struct span a, const char *lit)
{
    return a.len == strlen(lit) &&
           (a.len == 0 || strncasecmp((const char *)a.p, lit, a.len) == 0);
}

/** The bytes after the first `n`; `n` must not exceed the length. */
static inline struct span span_skip(struct span a, size_t n)
{
    return (struct span){a.p + n, a.len - n};
}

/** For "%.*s". */
#define SPAN_FMT(s) (int)(s).len, (const char *)(s).p

#endif
