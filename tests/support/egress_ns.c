/* SPDX-License-Identifier: MIT */
#include "tests/support/egress_ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agentd/egress/kernel/nft_int.h"
#include "agentd/egress/kernel/pin.h"
#include "agentd/egress/kernel/rt.h"
#include "tests/support/own_ns.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

enum {
    SKIP = 77
};

void egress_ns_run(void (*body)(void), bool is_user)
{
    int status = -1;
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (own_ns_enter(CLONE_NEWNET | (is_user ? CLONE_NEWUSER : 0)) < 0)
            _exit(SKIP);
        body();
        (void)fflush(NULL);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIP) {
        (void)printf("left out: this kernel gives no network namespace here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static int guard_socket(int family, int type, uint16_t port)
{
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sock_addr a;

    NEED(fd >= 0);
    NEED(sock_parse_ip(span_str(family == AF_INET ? "0.0.0.0" : "::"), port, &a) == 0);
    if (family == AF_INET6) {
        NEED(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) == 0);
        NEED(setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &one, sizeof(one)) == 0);
        NEED(setsockopt(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, &one, sizeof(one)) == 0);
    } else {
        NEED(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one)) == 0);
        NEED(setsockopt(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &one, sizeof(one)) == 0);
    }
    NEED(bind(fd, &a.u.sa, a.len) == 0);
    if (type == SOCK_STREAM)
        NEED(listen(fd, 64) == 0);
    return fd;
}

void egress_ns_listen(int ret_tcp[2], int ret_udp[2], uint16_t *ret_tcp_port,
                      uint16_t *ret_udp_port, bool has_ip6)
{
    struct sock_addr a;

    ret_tcp[0] = guard_socket(AF_INET, SOCK_STREAM, 0);
    NEED(sock_local(ret_tcp[0], &a) == 0);
    *ret_tcp_port = sock_port(&a);
    ret_udp[0] = guard_socket(AF_INET, SOCK_DGRAM, 0);
    NEED(sock_local(ret_udp[0], &a) == 0);
    *ret_udp_port = sock_port(&a);
    ret_tcp[1] = has_ip6 ? guard_socket(AF_INET6, SOCK_STREAM, *ret_tcp_port) : -1;
    ret_udp[1] = has_ip6 ? guard_socket(AF_INET6, SOCK_DGRAM, *ret_udp_port) : -1;
}

void egress_ns_seal(struct egress_ns *s, const char *policy)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

    *s = (struct egress_ns){
        .rt = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE),
        .sandbox = {.index = 1, .name = "demo"},
    };
    NEED(s->rt >= 0 && fd >= 0);
    NEED_OK(rt_seal(s->rt, &s->has_ip6, &e));
    NEED_OK((s->nft = nft_open(&fd, &e)) == NULL ? -1 : 0);
    NEED(fd == -1);
    NEED_OK(nft_install(s->nft, &base, &e));
    egress_ns_listen(s->tcp, s->udp, &s->sandbox.tcp_port, &s->sandbox.udp_port,
                     s->has_ip6);
    egress_ns_policy(s, policy);
}

void egress_ns_policy(struct egress_ns *s, const char *policy)
{
    struct policy *p = policy_text(policy);

    s->sandbox.policy = p;
    NEED_OK(nft_sandbox_set(s->nft, &s->sandbox, &e));
    policy_unref(s->policy);
    s->policy = p;
}

void egress_ns_done(struct egress_ns *s)
{
    nft_close(s->nft);
    policy_unref(s->policy);
    sock_close(&s->rt);
    for (int i = 0; i < 2; i++) {
        sock_close(&s->tcp[i]);
        sock_close(&s->udp[i]);
    }
}

static int dial(const char *to, int type, struct sock_addr *ret)
{
    int fd;

    NEED_OK(sock_parse(to, ret, &e));
    fd = socket(ret->u.sa.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    NEED(fd >= 0);
    return fd;
}

static void keep(int fd, int *ret_fd)
{
    if (ret_fd != NULL)
        *ret_fd = fd;
    else
        (void)close(fd);
}

int egress_ns_connect(const char *to, int *ret_fd)
{
    struct sock_addr a;
    int fd = dial(to, SOCK_STREAM, &a), rc = 0;
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    if (connect(fd, &a.u.sa, a.len) < 0)
        rc = errno;
    if (rc == EINPROGRESS)
        rc = poll(&p, 1, EGRESS_NS_MS) == 1 ? sock_error(fd) : ETIMEDOUT;
    keep(fd, ret_fd);
    return rc;
}

int egress_ns_send(const char *to, int *ret_fd)
{
    struct sock_addr a;
    int fd = dial(to, SOCK_DGRAM, &a), rc = 0;

    NEED(connect(fd, &a.u.sa, a.len) == 0);
    if (send(fd, "x", 1, 0) < 0)
        rc = errno;
    if (rc == 0)
        rc = sock_error(fd);
    keep(fd, ret_fd);
    return rc;
}

int egress_ns_accept(const struct egress_ns *s, const char *to)
{
    struct sock_addr want, got;
    struct pollfd p = {.events = POLLIN};
    int fd;

    NEED_OK(sock_parse(to, &want, &e));
    p.fd = s->tcp[want.u.sa.sa_family == AF_INET6];
    if (poll(&p, 1, EGRESS_NS_MS) != 1)
        return -1;
    fd = accept4(p.fd, NULL, NULL, SOCK_CLOEXEC);
    NEED(fd >= 0 && sock_local(fd, &got) == 0);
    if (got.u.sa.sa_family == want.u.sa.sa_family &&
        sock_port(&got) == sock_port(&want)) {
        struct ip_addr x, y;

        ip_from_sock(&got, &x);
        ip_from_sock(&want, &y);
        if (ip_eq(&x, &y))
            return fd;
    }
    (void)close(fd);
    return -1;
}

bool egress_ns_lands(const struct egress_ns *s, const char *to)
{
    int fd, guard;

    if (egress_ns_connect(to, &fd) != 0) {
        (void)close(fd);
        return false;
    }
    guard = egress_ns_accept(s, to);
    (void)close(fd);
    if (guard >= 0)
        (void)close(guard);
    return guard >= 0;
}

void egress_ns_foreign(const char *table, void (*build)(struct nft_batch *b))
{
    struct nft_batch b;
    struct nft_link link;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

    NEED_OK(link_open(&link, &fd, &e));
    batch_init(&b, table, 1);
    link_begin(&link, &b, table);
    build(&b);
    NEED_OK(link_commit(&link, &b, &e));
    batch_done(&b);
    link_done(&link);
}

void egress_ns_pin(struct nft *n, uint32_t index, const char *to, uint32_t life_s)
{
    struct sock_addr a;
    struct pin pin = {.life_s = life_s};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    NEED_OK(pin_tie(fd, nft_pin_mark(n), &e));
    NEED_OK(sock_parse(to, &a, &e));
    ip_from_sock(&a, &pin.addr);
    pin.port = sock_port(&a);
    NEED(pin_put(fd, nft_tag(n, index), &pin) == 0);
    (void)close(fd);
}
