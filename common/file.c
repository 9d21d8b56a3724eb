/* SPDX-License-Identifier: MIT */
#include "common/file.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
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

int file_make_parents(const char *path, mode_t mode, struct err *e)
{
    char part[PATH_MAX];
    struct stat st;

    for (const char *at = path; *at && (at = strchr(at + 1, '/')) != NULL;) {
        size_t n = (size_t)(at - path);
        int why;

        if (n >= sizeof part)
            return err_set(e, ERR_CONFIG, "%.64s... is too long", path);
        memcpy(part, path, n);
        part[n] = '\0';
        if (mkdir(part, mode) == 0 || errno == EEXIST)
            continue;
        /* Where nothing may be made, it says so even of what is there. */
        why = errno;
        if (stat(part, &st) < 0 || !S_ISDIR(st.st_mode)) {
            errno = why;
            return err_sys(e, "make folder %s", part);
        }
    }
    return 0;
}
