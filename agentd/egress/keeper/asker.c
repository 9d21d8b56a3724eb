/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/asker.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/sock.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

enum {
    STATUS_MAX = 8192
};

bool asker_status_is_outside(struct span status)
{
    static const char key[] = "\nNSpid:";
    const uint8_t *at = memmem(status.p, status.len, key, sizeof key - 1), *end;
    bool in_number = false;
    unsigned n = 0;

    if (!at)
        return false;
    end = status.p + status.len;
    for (at += sizeof key - 1; at < end && *at != '\n'; at++) {
        if (*at != ' ' && *at != '\t' && (*at < '0' || *at > '9'))
            return false;
        if (!in_number && *at >= '0')
            n++;
        in_number = *at >= '0';
    }
    return n == 1;
}

static bool status_is_outside(pid_t pid)
{
    char path[64], text[STATUS_MAX];
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof text);
    (void)close(fd); /* opened for reading: nothing can be lost */
    return n > 0 && asker_status_is_outside(span_of(text, (size_t)n));
}

bool asker_is_outside(int fd)
{
    struct pollfd p = {.fd = -1, .events = POLLIN};
    struct ucred who;
    socklen_t n = sizeof who;
    bool is_outside;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0 || who.pid <= 0)
        return false;
    n = sizeof p.fd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &p.fd, &n) < 0)
        p.fd = -1; /* an older kernel: the pid may have been given again meanwhile */
    is_outside = status_is_outside(who.pid);
    if (p.fd >= 0 && poll(&p, 1, 0) != 0)
        is_outside = false; /* it died, so the pid may have been another's */
    sock_close(&p.fd);
    return is_outside;
}
