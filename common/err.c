/* SPDX-License-Identifier: MIT */
#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ": No such file or directory", unless the caller has put it there. */
static void add_reason(struct err *e)
{
    const char *why = strerrordesc_np(e->sys);
    size_t n = strlen(e->msg);

    if (why != NULL && strstr(e->msg, why) == NULL)
        (void)snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", why);
}

int err_set_at(struct err *e, enum err_code code, int sys, const char *where,
               const char *fmt, ...)
{
    va_list ap;

    if (e == NULL)
        return -1;
    e->code = code;
    e->sys = sys;
    e->where = where;
    va_start(ap, fmt);
    (void)vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    if (sys != 0)
        add_reason(e);
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char head[ERR_MSG_MAX / 2];
    va_list ap;
    size_t n;

    if (e == NULL)
        return -1;
    va_start(ap, fmt);
    (void)vsnprintf(head, sizeof(head) - 2, fmt, ap);
    va_end(ap);
    n = strlen(head);
    head[n++] = ':';
    head[n++] = ' ';

    /* Shift the old message right; what does not fit is cut at the end. */
    memmove(e->msg + n, e->msg, sizeof(e->msg) - n - 1);
    memcpy(e->msg, head, n);
    e->msg[sizeof(e->msg) - 1] = '\0';
    return -1;
}
