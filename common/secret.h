/* SPDX-License-Identifier: MIT */
/** secret -- bytes that are wiped when they are freed. */
#ifndef COMMON_SECRET_H
#define COMMON_SECRET_H

#include <stdint.h>

#include "common/err.h"
#include "common/span.h"

/** Bytes wiped when freed, with no printing function. */
struct secret {
    uint8_t *p;
    size_t len;
};
void secret_done(struct secret *s);
int secret_set(struct secret *s, struct span bytes); /* copies; 0 or -1 */
/** A whole file, trailing newline removed; at most `max` bytes. */
int secret_read(struct secret *s, const char *path, size_t max, struct err *e);
static inline struct span secret_span(const struct secret *s)
{
    return span_of(s->p, s->len);
}

#endif
