/* SPDX-License-Identifier: MIT */
#include "common/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"

enum {
    BACKLOG = 4096
};

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* -- text --------------------------------------------------------------------------- */

/* Digits only, no sign, no leading zero: one text for one number. */
static int parse_number(struct span text, unsigned max, unsigned *ret)
{
    unsigned n = 0;
    size_t i;

    if (text.len == 0 || text.len > 5 || (text.len > 1 && text.p[0] == '0'))
        return -1;
    for (i = 0; i < text.len; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return -1;
        n = n * 10 + (unsigned)(text.p[i] - '0');
    }
    if (n > max)
        return -1;
    *ret = n;
    return 0;
}

int sock_parse_ip(struct span text, uint16_t port, struct sock_addr *ret)
{
    struct sock_addr a = {0};
    char s[INET6_ADDRSTRLEN];

    if (text.len == 0 || text.len >= sizeof(s) || memchr(text.p, 0, text.len) != NULL)
        return -1;
    memcpy(s, text.p, text.len);
    s[text.len] = '\0';
    /* inet_pton() takes neither short forms nor zone ids. */
    if (inet_pton(AF_INET, s, &a.u.in.sin_addr) == 1) {
        a.u.in.sin_family = AF_INET;
        a.u.in.sin_port = htons(port);
        a.len = sizeof(a.u.in);
    } else if (inet_pton(AF_INET6, s, &a.u.in6.sin6_addr) == 1) {
        a.u.in6.sin6_family = AF_INET6;
        a.u.in6.sin6_port = htons(port);
        a.len = sizeof(a.u.in6);
    } else {
        return -1;
    }
    *ret = a;
    return 0;
}

static int parse_unix(const char *path, struct sock_addr *ret, struct err *e)
{
    struct sock_addr a = {0};
    size_t n = strlen(path);

    if (path[0] != '/')
        return err_set(e, ERR_CONFIG, "unix:%.64s is not an absolute path", path);
    if (n >= sizeof(a.u.un.sun_path))
        return err_set(e, ERR_CONFIG, "unix:%.64s... is longer than %zu bytes", path,
                       sizeof(a.u.un.sun_path) - 1);
    a.u.un.sun_family = AF_UNIX;
    memcpy(a.u.un.sun_path, path, n + 1);
    a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    *ret = a;
    return 0;
}

int sock_parse(const char *text, struct sock_addr *ret, struct err *e)
{
    const char *colon = strrchr(text, ':');
    struct span ip;
    struct sock_addr a;
    unsigned port;
    bool in_brackets;

    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, ret, e);
    if (colon == NULL)
        return err_set(e, ERR_CONFIG, "address %.64s has no port", text);
    if (parse_number(span_str(colon + 1), 65535, &port) < 0)
        return err_set(e, ERR_CONFIG, "address %.64s has no port from 0 to 65535", text);
    ip = span_of(text, (size_t)(colon - text));
    in_brackets = ip.len >= 2 && ip.p[0] == '[' && ip.p[ip.len - 1] == ']';
    if (in_brackets)
        ip = span_of(ip.p + 1, ip.len - 2);
    /* Brackets around IPv6 and only there: "::1:80" would be two things. */
    if (sock_parse_ip(ip, (uint16_t)port, &a) < 0 ||
        in_brackets != (a.u.sa.sa_family == AF_INET6))
        return err_set(e, ERR_CONFIG,
                       "address %.64s is not like 127.0.0.1:80, [::1]:80 or unix:/path",
                       text);
    *ret = a;
    return 0;
}

/* inet_ntop() goes through printf(), and each request prints one or two. */
static void print_ip4(const uint8_t *p, char *out)
{
    for (int i = 0; i < 4; i++) {
        if (p[i] >= 100)
            *out++ = (char)('0' + p[i] / 100);
        if (p[i] >= 10)
            *out++ = (char)('0' + p[i] / 10 % 10);
        *out++ = (char)('0' + p[i] % 10);
        *out++ = i < 3 ? '.' : '\0';
    }
}

const char *sock_print_ip(const struct sock_addr *a, char out[SOCK_TEXT_MAX])
{
    out[0] = '\0';
    if (a->len == 0)
        return out;
    /* The room is always enough. */
    if (a->u.sa.sa_family == AF_INET)
        print_ip4((const uint8_t *)&a->u.in.sin_addr, out);
    else if (a->u.sa.sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &a->u.in6.sin6_addr, out, SOCK_TEXT_MAX);
    return out;
}

const char *sock_print(const struct sock_addr *a, char out[SOCK_TEXT_MAX])
{
    char ip[SOCK_TEXT_MAX];
    size_t head = offsetof(struct sockaddr_un, sun_path);

    out[0] = '\0';
    if (a->len == 0)
        return out;
    if (a->u.sa.sa_family == AF_UNIX) {
        int n = a->len > head ? (int)(a->len - head) : 0;

        (void)snprintf(out, SOCK_TEXT_MAX, "unix:%.*s", n, a->u.un.sun_path);
    } else if (a->u.sa.sa_family == AF_INET6) {
        (void)snprintf(out, SOCK_TEXT_MAX, "[%.64s]:%u", sock_print_ip(a, ip),
                       sock_port(a));
    } else if (a->u.sa.sa_family == AF_INET) {
        (void)snprintf(out, SOCK_TEXT_MAX, "%.64s:%u", sock_print_ip(a, ip),
                       sock_port(a));
    }
    return out;
}

uint16_t sock_port(const struct sock_addr *a)
{
    if (a->len == 0)
        return 0;
    if (a->u.sa.sa_family == AF_INET)
        return ntohs(a->u.in.sin_port);
    if (a->u.sa.sa_family == AF_INET6)
        return ntohs(a->u.in6.sin6_port);
    return 0;
}

/* The address as bytes, an IPv4-mapped one as IPv4; its family, or 0 when it is no IP. */
static int ip_bytes(const struct sock_addr *a, const uint8_t **ret)
{
    if (a->len == 0)
        return 0;
    if (a->u.sa.sa_family == AF_INET) {
        *ret = (const uint8_t *)&a->u.in.sin_addr;
        return AF_INET;
    }
    if (a->u.sa.sa_family != AF_INET6)
        return 0;
    *ret = a->u.in6.sin6_addr.s6_addr;
    if (memcmp(*ret, mapped_prefix, sizeof(mapped_prefix)) != 0)
        return AF_INET6;
    *ret += sizeof(mapped_prefix);
    return AF_INET;
}

bool sock_is_loopback(const struct sock_addr *a)
{
    const uint8_t *ip;
    int family = ip_bytes(a, &ip);

    if (family == AF_INET)
        return ip[0] == 127;
    return family == AF_INET6 && memcmp(ip, &in6addr_loopback, 16) == 0;
}

/* -- ranges ------------------------------------------------------------------------- */

int sock_cidr_parse(struct span text, struct sock_cidr *ret)
{
    const uint8_t *slash = text.len > 0 ? memchr(text.p, '/', text.len) : NULL;
    size_t n = slash != NULL ? (size_t)(slash - text.p) : text.len;
    struct sock_cidr c = {0};
    struct sock_addr a;
    unsigned max;

    if (sock_parse_ip(span_of(text.p, n), 0, &a) < 0)
        return -1;
    c.family = a.u.sa.sa_family;
    max = c.family == AF_INET ? 32 : 128;
    c.bits = max;
    if (slash != NULL && parse_number(span_skip(text, n + 1), max, &c.bits) < 0)
        return -1;
    if (c.family == AF_INET) {
        memcpy(c.addr, &a.u.in.sin_addr, 4);
    } else if (c.bits >= 96 && memcmp(&a.u.in6.sin6_addr, mapped_prefix, 12) == 0) {
        c.family = AF_INET;
        c.bits -= 96;
        memcpy(c.addr, a.u.in6.sin6_addr.s6_addr + 12, 4);
    } else {
        memcpy(c.addr, &a.u.in6.sin6_addr, 16);
    }
    *ret = c;
    return 0;
}

bool sock_cidr_has(const struct sock_cidr *c, const struct sock_addr *a)
{
    const uint8_t *ip = NULL;
    unsigned whole = c->bits / 8, rest = c->bits % 8;
    int family = ip_bytes(a, &ip);

    if (family == 0 || family != c->family)
        return false;
    if (memcmp(c->addr, ip, whole) != 0)
        return false;
    return rest == 0 || ((c->addr[whole] ^ ip[whole]) >> (8 - rest)) == 0;
}

/* -- descriptors -------------------------------------------------------------------- */

/* Options whose failure only costs speed are set without looking. */
static void set_int(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static int new_socket(const struct sock_addr *a, struct err *e)
{
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_sys(e, "make a socket");
    return fd;
}

/* A path that is a socket and that nobody answers at was left by a process that died. */
static bool is_stale(const struct sock_addr *a)
{
    struct stat st;
    bool stale;
    int fd;

    if (a->u.sa.sa_family != AF_UNIX || lstat(a->u.un.sun_path, &st) < 0 ||
        !S_ISSOCK(st.st_mode))
        return false;
    fd = new_socket(a, NULL);
    if (fd < 0)
        return false;
    stale = connect(fd, &a->u.sa, a->len) < 0 && errno == ECONNREFUSED;
    sock_close(&fd);
    return stale;
}

int sock_listen(const struct sock_addr *a, struct err *e)
{
    char text[SOCK_TEXT_MAX];
    int fd = new_socket(a, e);
    int on = 1, r;

    if (fd < 0)
        return -1;
    if (a->u.sa.sa_family != AF_UNIX &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        goto fail;
    if (a->u.sa.sa_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
        goto fail;
    r = bind(fd, &a->u.sa, a->len);
    if (r < 0 && errno == EADDRINUSE) {
        if (is_stale(a) && unlink(a->u.un.sun_path) == 0)
            r = bind(fd, &a->u.sa, a->len);
        else
            errno = EADDRINUSE;
    }
    if (r < 0 || listen(fd, BACKLOG) < 0)
        goto fail;
    return fd;
fail:
    (void)err_sys(e, "listen at %s: %s", sock_print(a, text), strerror(errno));
    sock_close(&fd);
    return -1;
}

int sock_accept(int fd, struct sock_addr *ret_client)
{
    struct sock_addr a;
    int got;

    for (;;) {
        memset(&a, 0, sizeof(a));
        a.len = sizeof(a.u);
        got = accept4(fd, &a.u.sa, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (got >= 0)
            break;
        /* A client that is gone already is not a reason to stop accepting. */
        if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
            return -1;
    }
    if (a.u.sa.sa_family != AF_UNIX)
        set_int(got, IPPROTO_TCP, TCP_NODELAY, 1);
    if (ret_client != NULL)
        *ret_client = a;
    return got;
}

int sock_connect(const struct sock_addr *a, struct err *e)
{
    int fd = new_socket(a, e);

    return fd < 0 ? -1 : sock_connect_by(&fd, a, e);
}

int sock_connect_by(int *take_fd, const struct sock_addr *a, struct err *e)
{
    char text[SOCK_TEXT_MAX];
    int fd = *take_fd;

    *take_fd = -1;
    if (a->u.sa.sa_family != AF_UNIX)
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    /* An interrupted connect goes on in the background like one in progress. */
    if (connect(fd, &a->u.sa, a->len) < 0 && errno != EINPROGRESS && errno != EINTR) {
        (void)err_sys(e, "connect to %s: %s", sock_print(a, text), strerror(errno));
        sock_close(&fd);
        return -1;
    }
    return fd;
}

int sock_error(int fd)
{
    int value = 0;
    socklen_t n = sizeof(value);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &n) < 0)
        return errno;
    return value;
}

bool sock_is_connected(int fd)
{
    struct sock_addr a = {.len = sizeof(a.u)};

    return getpeername(fd, &a.u.sa, &a.len) == 0;
}

int sock_local(int fd, struct sock_addr *ret)
{
    struct sock_addr a = {.len = sizeof(a.u)};

    if (getsockname(fd, &a.u.sa, &a.len) < 0)
        return -1;
    *ret = a;
    return 0;
}

void sock_tune_link(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, MUX_NOTSENT_LOWAT);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, SILENCE_MS);
}

void sock_cork(int fd, bool on)
{
    set_int(fd, IPPROTO_TCP, TCP_CORK, on);
}

size_t sock_unsent(int fd)
{
    int n = 0;

    if (ioctl(fd, SIOCOUTQNSD, &n) < 0 || n < 0)
        return 0;
    return (size_t)n;
}

void sock_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* whatever it says, the descriptor is gone */
    *fd = -1;
}

void sock_reset(int *fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (*fd >= 0)
        (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    sock_close(fd);
}
