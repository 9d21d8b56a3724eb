/* SPDX-License-Identifier: MIT */
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

void secret_done(struct secret *s)
{
    if (s->p != NULL)
        explicit_bzero(s->p, s->len);
    mem_free(s->p);
    *s = (struct secret){0};
}

int secret_set(struct secret *s, struct span bytes)
{
    uint8_t *p = mem_alloc(bytes.len);

    if (p == NULL)
        return -1;
    if (bytes.len > 0)
        memcpy(p, bytes.p, bytes.len);
    secret_done(s);
    *s = (struct secret){.p = p, .len = bytes.len};
    return 0;
}

/* Fills `p` up to `cap` or the end of the file; -1 with errno. */
static ssize_t read_whole(int fd, uint8_t *p, size_t cap)
{
    size_t len = 0;

    while (len < cap) {
        ssize_t n = read(fd, p + len, cap - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static int read_into(struct secret *s, int fd, const char *path, size_t max,
                     struct err *e)
{
    size_t cap = max + 3; /* a line end, and one more byte to see that there is more */
    uint8_t *p = mem_alloc(cap);
    ssize_t n;
    int rc = -1;

    if (p == NULL)
        return err_set(e, ERR_NOMEM, "no memory to read %s", path);
    n = read_whole(fd, p, cap);
    if (n < 0) {
        rc = err_sys(e, "read %s", path);
        goto out;
    }
    if (n > 0 && p[n - 1] == '\n')
        n--;
    if (n > 0 && p[n - 1] == '\r')
        n--;
    if ((size_t)n > max)
        rc = err_set(e, ERR_LIMIT, "%s is longer than %zu bytes", path, max);
    else if (secret_set(s, span_of(p, (size_t)n)) < 0)
        rc = err_set(e, ERR_NOMEM, "no memory to read %s", path);
    else
        rc = 0;
out:
    explicit_bzero(p, cap);
    mem_free(p);
    return rc;
}

int secret_read(struct secret *s, const char *path, size_t max, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    rc = read_into(s, fd, path, max, e);
    (void)close(fd); /* it was only read */
    return rc;
}
