/* SPDX-License-Identifier: MIT */
/* Compiler attributes and a few macros that every file uses. No code. */
#ifndef COMMON_CDEFS_H
#define COMMON_CDEFS_H

#include <stddef.h>

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_USE               __attribute__((warn_unused_result))
#define UNUSED_ARG(x)          ((void)(x))
#define COUNT_OF(a)            (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member)                                                  \
    ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Run `fn` on the variable when it leaves scope:
 * AUTO(buf_done) struct buf b = BUF_INIT; */
#define AUTO(fn) __attribute__((cleanup(fn)))

#endif
