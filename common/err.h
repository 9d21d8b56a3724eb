/* SPDX-License-Identifier: MIT */
/**
 * err -- what went wrong, in a value on the caller's stack.
 *
 * A function that can fail for more than one reason takes `struct err *e` as
 * its last argument and returns 0, or -1 after filling *e. `e` may be NULL.
 * *e is untouched on success. Nothing here allocates, so there is nothing to
 * free and reporting an out-of-memory error cannot fail.
 */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

#include "common/cdefs.h"

enum err_code {
    ERR_NONE = 0,
    ERR_SYS,      /* a system call failed; .sys holds errno, .msg ends in its text */
    ERR_NOMEM,    /* allocation failed */
    ERR_LIMIT,    /* a configured bound was reached */
    ERR_PROTO,    /* the peer broke the protocol */
    ERR_DENIED,   /* policy or authentication said no */
    ERR_NOTFOUND, /* no such object */
    ERR_CONFIG,   /* the operator's input is wrong */
    ERR_TIMEOUT,  /* a deadline passed */
};

#define ERR_MSG_MAX 200 /* bytes, NUL included */

struct err {
    enum err_code code;
    int sys;               /* errno, or 0 */
    const char *where;     /* "file:line" literal of the first report */
    char msg[ERR_MSG_MAX]; /* NUL-terminated, for people; never parsed */
};

/** Fill *e and return -1, so that callers can write `return err_set(e, ...)`. */
#define err_set(e, code, ...) err_set_at((e), (code), 0, ERR_WHERE, __VA_ARGS__)
/** As err_set() with ERR_SYS and the current errno. */
#define err_sys(e, ...) err_set_at((e), ERR_SYS, errno, ERR_WHERE, __VA_ARGS__)

int err_set_at(struct err *e, enum err_code code, int sys, const char *where,
               const char *fmt, ...) PRINTF_LIKE(5, 6);

/** Put "fmt: " before the message already in *e; returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define ERR_STR2(x) #x
#define ERR_STR(x)  ERR_STR2(x)
#define ERR_WHERE   __FILE__ ":" ERR_STR(__LINE__)

#endif
