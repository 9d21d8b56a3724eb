/* SPDX-License-Identifier: MIT */
#include "tunneld/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

enum {
    FIRST_FD = 3
}; /* SD_LISTEN_FDS_START */

/* A decimal number in 0..max, nothing else; -1 otherwise. */
static long number(const char *text, long max)
{
    char *end;
    long n;

    if (!text || text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    n = strtol(text, &end, 10);
    return errno != 0 || *end != '\0' || n > max ? -1 : n;
}

unsigned systemd_count(const char *listen_pid, const char *listen_fds, long pid)
{
    long n = number(listen_fds, 1 << 20);

    if (number(listen_pid, 1L << 30) != pid || n <= 0)
        return 0;
    return n > SYSTEMD_FDS_MAX ? SYSTEMD_FDS_MAX : (unsigned)n;
}

static bool is_listening(int fd)
{
    int yes = 0;
    socklen_t len = sizeof yes;

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

void systemd_fds_init(struct systemd_fds *s)
{
    unsigned n =
        systemd_count(getenv("LISTEN_PID"), getenv("LISTEN_FDS"), (long)getpid());

    s->n = 0;
    for (int fd = FIRST_FD; fd < FIRST_FD + (int)n; fd++) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || !is_listening(fd) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
            fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
            log_warn("systemd.socket", "fd=%d why=%s", fd,
                     log_q("not a listening socket"));
            continue;
        }
        s->fd[s->n++] = fd;
    }
    /* Not for our children, and not for a second look. */
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

void systemd_fds_done(struct systemd_fds *s)
{
    char text[SOCK_TEXT_MAX];
    struct sock_addr a;

    for (unsigned i = 0; i < s->n; i++) {
        if (s->fd[i] < 0)
            continue;
        log_warn("systemd.socket", "address=%s why=%s",
                 sock_local(s->fd[i], &a) == 0 ? sock_print(&a, text) : "unknown",
                 log_q("no listener of the configuration is for it"));
        sock_close(&s->fd[i]);
    }
    s->n = 0;
}

static bool is_any(const struct sock_addr *a)
{
    static const struct in6_addr any6 = IN6ADDR_ANY_INIT;

    if (a->u.sa.sa_family == AF_INET)
        return a->u.in.sin_addr.s_addr == htonl(INADDR_ANY);
    return a->u.sa.sa_family == AF_INET6 && memcmp(&a->u.in6.sin6_addr, &any6, 16) == 0;
}

static bool serves(const struct sock_addr *passed, const struct sock_addr *wanted)
{
    char a[SOCK_TEXT_MAX], b[SOCK_TEXT_MAX];

    if (strcmp(sock_print(passed, a), sock_print(wanted, b)) == 0)
        return true;
    return is_any(passed) &&
           (wanted->u.sa.sa_family == AF_INET || wanted->u.sa.sa_family == AF_INET6) &&
           sock_port(passed) == sock_port(wanted);
}

int systemd_fds_take(struct systemd_fds *s, const struct sock_addr *a)
{
    struct sock_addr local;

    for (unsigned i = 0; i < s->n; i++) {
        int fd = s->fd[i];

        if (fd >= 0 && sock_local(fd, &local) == 0 && serves(&local, a)) {
            s->fd[i] = -1;
            return fd;
        }
    }
    return -1;
}
