/* SPDX-License-Identifier: MIT */
#include "tests/support/own_ns.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

    if (fd >= 0)
        (void)close(fd); /* the write is what counts */
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

int own_ns_enter(int flags)
{
    char uids[32], gids[32];

    if (geteuid() == 0 && !(flags & CLONE_NEWUSER))
        return unshare(flags);
    (void)snprintf(uids, sizeof(uids), "0 %u 1", (unsigned)geteuid());
    (void)snprintf(gids, sizeof(gids), "0 %u 1", (unsigned)getegid());
    if (unshare(flags | CLONE_NEWUSER) < 0)
        return -1;
    return put_file("/proc/self/setgroups", "deny") < 0 ||
                   put_file("/proc/self/uid_map", uids) < 0 ||
                   put_file("/proc/self/gid_map", gids) < 0
               ? -1
               : 0;
}

bool own_ns_lo_up(void)
{
    struct ifreq r = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok;

    r.ifr_flags = IFF_UP | IFF_RUNNING;
    ok = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    if (fd >= 0)
        (void)close(fd);
    return ok;
}
