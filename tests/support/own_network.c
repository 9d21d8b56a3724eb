/* SPDX-License-Identifier: MIT */
#include "tests/support/own_network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/support/own_ns.h"

static int add_ip4(int fd, const char *label, const char *addr, const char *mask)
{
    struct ifreq r = {0};
    struct sockaddr_in a = {.sin_family = AF_INET};

    (void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", label);
    (void)inet_pton(AF_INET, addr, &a.sin_addr);
    memcpy(&r.ifr_addr, &a, sizeof(a));
    if (ioctl(fd, SIOCSIFADDR, &r) < 0)
        return -1;
    (void)inet_pton(AF_INET, mask, &a.sin_addr);
    memcpy(&r.ifr_netmask, &a, sizeof(a));
    return ioctl(fd, SIOCSIFNETMASK, &r);
}

static void add_ip6(const char *addr)
{
    union {
        struct in6_ifreq ip6;
        struct ifreq any; /* valgrind expects one of these */
    } r = {.any = {.ifr_name = ""}};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return; /* a kernel without IPv6: nothing listens there then */
    r.ip6.ifr6_prefixlen = 128;
    r.ip6.ifr6_ifindex = 1;
    (void)inet_pton(AF_INET6, addr, &r.ip6.ifr6_addr);
    (void)ioctl(fd, SIOCSIFADDR, &r);
    (void)close(fd);
}

static int set_addresses(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

    rc = fd < 0 || !own_ns_lo_up() ||
         add_ip4(fd, "lo:1", "203.0.113.1", "255.255.255.0") < 0 ||
         add_ip4(fd, "lo:2", "198.51.100.1", "255.255.255.0") < 0 ||
         add_ip4(fd, "lo:3", "10.1.0.1", "255.255.0.0") < 0;
    if (fd >= 0)
        (void)close(fd);
    add_ip6("2001:db8::1");
    return rc ? -1 : 0;
}

bool own_network_enter(void)
{
    int rc = own_ns_enter(CLONE_NEWNET);

    if (rc < 0) /* root of a container without CAP_SYS_ADMIN */
        rc = own_ns_enter(CLONE_NEWNET | CLONE_NEWUSER);
    if (rc < 0 || set_addresses() < 0) {
        (void)printf("skipped: no network namespace here: %s\n", strerror(errno));
        return false;
    }
    return true;
}
