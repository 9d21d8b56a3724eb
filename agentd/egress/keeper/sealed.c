/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "agentd/egress/kernel/nflog.h"
#include "agentd/egress/kernel/pin.h"
#include "agentd/egress/kernel/rt.h"
#include "common/sock.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif
#ifndef IPV6_RECVORIGDSTADDR
#define IPV6_RECVORIGDSTADDR 74
#endif

enum {
    PORT_TRIES = 32,
    BACKLOG = 4096,
};

/* -- listeners ----------------------------------------------------------------------- */

static int set(int fd, int level, int option, const char *what, struct err *e)
{
    int on = 1;

    return setsockopt(fd, level, option, &on, sizeof on) < 0
               ? err_sys(e, "set %s on a listener", what)
               : 0;
}

/* What it accepts has the same. Without it it is slower. */
static void tune(int fd)
{
    static const char control[] = EGRESS_CONTROL;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, control, sizeof control - 1);
}

static int own_as(uid_t uid, struct err *e)
{
    (void)setfsuid(uid); /* it does not say whether it did */
    return (uid_t)setfsuid((uid_t)-1) == uid
               ? 0
               : err_set(e, ERR_DENIED, "no socket can be made for user %u", uid);
}

/* On a host it is the guard's own by its owner too, or the floor for the guard's sockets
 * (`meta skuid`) would not hold the very ones it was given. */
int kept_socket(const struct kept *s, int family, int type, struct err *e)
{
    uid_t guard = s->keeper->conf.guard_uid;
    int fd;

    if (s->tier == EGRESS_SEALED)
        return netns_socket(s->ns, family, type, 0, e);
    if (guard != 0 && own_as(guard, e) < 0)
        return -1;
    fd = netns_socket(NULL, family, type, 0, e);
    if (guard != 0 && own_as(geteuid(), e) < 0)
        sock_close(&fd);
    return fd;
}

static int make(const struct kept *s, int family, int type, const char *device,
                struct err *e)
{
    bool is6 = family == AF_INET6;
    int fd = kept_socket(s, family, type, e);
    int rc = 0;

    if (fd < 0)
        return -1;
    if (is6)
        rc = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY", e);
    if (rc == 0)
        rc = is6 ? set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, "IPV6_TRANSPARENT", e)
                 : set(fd, IPPROTO_IP, IP_TRANSPARENT, "IP_TRANSPARENT", e);
    if (rc == 0 && type == SOCK_DGRAM)
        rc = is6 ? set(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, "IPV6_RECVORIGDSTADDR", e)
                 : set(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR", e);
    if (type == SOCK_STREAM)
        tune(fd);
    if (rc == 0 && device &&
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device)) <
            0)
        rc = err_sys(e, "bind a listener to %s", device);
    if (rc < 0)
        sock_close(&fd);
    return fd;
}

/* Neither SO_REUSEADDR nor SO_REUSEPORT: nobody shares the port. */
static int bind_to(int fd, int family, int type, uint16_t port, struct err *e)
{
    struct sock_addr a = {0};

    if (family == AF_INET6) {
        a.u.in6.sin6_family = AF_INET6;
        a.u.in6.sin6_port = htons(port);
        a.len = sizeof a.u.in6;
    } else {
        a.u.in.sin_family = AF_INET;
        a.u.in.sin_port = htons(port);
        a.len = sizeof a.u.in;
    }
    if (bind(fd, &a.u.sa, a.len) < 0)
        return err_sys(e, "bind a listener to port %u", port);
    if (type == SOCK_STREAM && listen(fd, BACKLOG) < 0)
        return err_sys(e, "listen on port %u", port);
    return 0;
}

/* Both families on one port, which the kernel chooses. */
static int pair_once(const struct kept *s, int type, bool has_ip6, const char *device,
                     int ret[2], struct err *e)
{
    struct sock_addr local;

    ret[0] = make(s, AF_INET, type, device, e);
    if (ret[0] < 0 || bind_to(ret[0], AF_INET, type, 0, e) < 0)
        return -1;
    if (!has_ip6)
        return 0;
    ret[1] = make(s, AF_INET6, type, device, e);
    if (ret[1] < 0)
        return -1;
    if (sock_local(ret[0], &local) < 0)
        return err_sys(e, "ask a listener for its port");
    return bind_to(ret[1], AF_INET6, type, sock_port(&local), e);
}

static int pair(const struct kept *s, int type, bool has_ip6, const char *device,
                int ret[2], struct err *e)
{
    struct err why = {0};

    for (unsigned i = 0; i < PORT_TRIES; i++) {
        ret[0] = ret[1] = -1;
        if (pair_once(s, type, has_ip6, device, ret, &why) == 0)
            return 0;
        sock_close(&ret[0]);
        sock_close(&ret[1]);
        if (why.sys != EADDRINUSE)
            break;
    }
    if (e)
        *e = why;
    return -1;
}

static int open_pins(struct kept *s, struct err *e)
{
    int *fd = &s->fd[CHANNEL_FD_PIN];

    *fd = kept_socket(s, AF_INET, SOCK_DGRAM, e);
    if (*fd < 0)
        return -1;
    /* A host's table may not stand yet, when one is taken up again. */
    return pin_tie(*fd, s->tier == EGRESS_VETH ? EGRESS_PIN_MARK : nft_pin_mark(s->nft),
                   e);
}

int sealed_listen(struct kept *s, bool has_ip6, const char *device, struct err *e)
{
    int tcp[2], udp[2];
    struct sock_addr a;

    if (pair(s, SOCK_STREAM, has_ip6, device, tcp, e) < 0)
        return -1;
    s->fd[CHANNEL_FD_TCP4] = tcp[0];
    s->fd[CHANNEL_FD_TCP6] = tcp[1];
    if (pair(s, SOCK_DGRAM, has_ip6, device, udp, e) < 0)
        return -1;
    s->fd[CHANNEL_FD_UDP4] = udp[0];
    s->fd[CHANNEL_FD_UDP6] = udp[1];
    if (sock_local(tcp[0], &a) < 0)
        return err_sys(e, "ask a listener for its port");
    s->tcp_port = sock_port(&a);
    if (sock_local(udp[0], &a) < 0)
        return err_sys(e, "ask a listener for its port");
    s->udp_port = sock_port(&a);
    return open_pins(s, e);
}

/* -- the namespace ------------------------------------------------------------------- */

static int make_table(struct kept *s, struct err *e)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    int fd = news_nft_socket(s->keeper, s->ns, e);

    if (fd < 0)
        return -1;
    s->nft = nft_open(&fd, e);
    return s->nft ? nft_install(s->nft, &base, e) : -1;
}

int sealed_make(struct kept *s, struct err *e)
{
    bool has_ip6 = false;
    struct nft_sandbox rules;
    int fd;

    s->rt_fd = netns_socket(s->ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, e);
    if (s->rt_fd < 0)
        return err_wrap(e, "entering the sandbox");
    if (veth_none(s->ns, e) < 0)
        return err_wrap(e, "the sandbox is not sealed");
    if (make_table(s, e) < 0)
        return err_wrap(e, "making the sandbox's table");
    if (rt_seal(s->rt_fd, &has_ip6, e) < 0)
        return err_wrap(e, "sealing the sandbox");
    fd = netns_socket(s->ns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, e);
    if (fd < 0)
        return -1;
    s->fd[CHANNEL_FD_NFLOG] = fd;
    if (nflog_bind(fd, EGRESS_NFLOG, e) < 0)
        return err_wrap(e, "listening to refused packets");
    if (sealed_listen(s, has_ip6, NULL, e) < 0)
        return err_wrap(e, "listening in the sandbox");
    kept_fill(s, s->policy, &rules);
    if (nft_sandbox_set(s->nft, &rules, e) < 0)
        return err_wrap(e, "installing the sandbox's rules");
    s->has_rules = true;
    return 0;
}
