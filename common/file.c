/* SPDX-License-Identifier: MIT */
#include "common/file.h"

#include <errno.h>
#include <unistd.h>

enum {
    STEP = 16384
};

int file_read(int fd, const char *what, size_t max, struct buf *ret, struct err *e)
{
    while (ret->len <= max) {
        ssize_t n;

        if (buf_reserve(ret, STEP, SIZE_MAX) < 0)
            return err_set(e, ERR_NOMEM, "reading %s: no memory", what);
        n = read(fd, ret->p + ret->len, STEP);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "read %s", what);
        if (n == 0)
            return 0;
        ret->len += (size_t)n;
    }
    return err_set(e, ERR_LIMIT, "%s has more than %zu bytes", what, max);
}
