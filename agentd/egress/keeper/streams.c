/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/streams.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* A local socket that is connected stays so: neither connect() nor a destination of
 * sendto() moves a stream. One of datagrams is not bound to its other end, and a listener
 * gets new ones. */
static int check_socket(int fd, struct err *e)
{
    struct sockaddr_un other;
    socklen_t n = sizeof other;
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
        return err_sys(e, "ask what socket it is");
    size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return err_sys(e, "ask what socket it is");
    if (domain != AF_UNIX)
        return err_set(e, ERR_DENIED,
                       "a socket of the network outside, which a program inside could "
                       "connect to anything: give it a pipe");
    if ((type != SOCK_STREAM && type != SOCK_SEQPACKET) ||
        getpeername(fd, (struct sockaddr *)&other, &n) < 0)
        return err_set(e, ERR_DENIED,
                       "a local socket that is not connected for good: give it a pipe");
    return 0;
}

int stream_check(int fd, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return errno == EBADF ? 0 : err_sys(e, "look at it");
    switch (st.st_mode & S_IFMT) {
    case S_IFREG:
    case S_IFIFO:
    case S_IFCHR:
    case S_IFBLK:
        return 0;
    case S_IFSOCK:
        return check_socket(fd, e);
    case S_IFDIR:
        return err_set(e, ERR_DENIED,
                       "a folder, by which a program inside would see what is covered");
    default:
        return err_set(e, ERR_DENIED, "nothing that is read or written: give it a pipe");
    }
}

int streams_check(struct err *e)
{
    static const char *const name[] = {"standard input", "standard output",
                                       "standard error"};

    for (int fd = 0; fd <= 2; fd++)
        if (stream_check(fd, e) < 0)
            return err_wrap(e, "%s", name[fd]);
    return 0;
}
