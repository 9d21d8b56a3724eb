/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>

#include "agentd/egress/kernel/rt.h"
#include "tests/support/egress_ns.h"
#include "tests/support/test.h"

static int route_socket(int flags)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);

    NEED(fd >= 0);
    return fd;
}

static bool has(int fd, const char *text)
{
    struct ip_net a[RT_ADDRS_MAX];
    struct ip_addr want;
    int n;

    NEED(ip_parse(span_str(text), &want) == 0);
    NEED_OK(n = rt_addrs(fd, 1, a, COUNT_OF(a), &e));
    for (int i = 0; i < n; i++)
        if (ip_eq(&a[i].addr, &want))
            return true;
    return false;
}

/* Whatever the host has chosen for its own paths. */
static void is_local_control(const char *any, const char *to)
{
    struct sock_addr a;
    char name[16] = "";
    socklen_t n = sizeof(name);
    int listener, fd;

    NEED_OK(sock_parse(any, &a, &e));
    NEED_OK(listener = sock_listen(&a, &e));
    NEED(egress_ns_connect(to, &fd) == 0);
    NEED(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n) == 0);
    NEED(strcmp(name, "reno") == 0);
    (void)close(fd);
    (void)close(listener);
}

static void seal(void)
{
    int fd = route_socket(0);
    struct rt_link link[4];
    bool has_ip6 = false;

    for (int i = 0; i < 2; i++) /* the second time is as good */
        NEED_OK(rt_seal(fd, &has_ip6, &e));
    NEED(has(fd, EGRESS_SEALED_IP4) && has_ip6 == has(fd, EGRESS_SEALED_IP6));
    NEED_OK(rt_links(fd, link, COUNT_OF(link), &e));
    NEED(strcmp(link[0].name, "lo") == 0 && link[0].is_up && link[0].index == 1);
    /* Every address is local: something answers everywhere, if only "refused". */
    NEED(egress_ns_connect("93.184.216.34:443", NULL) == ECONNREFUSED);
    if (has_ip6)
        NEED(egress_ns_connect("[2606:2800:220:1::1]:443", NULL) == ECONNREFUSED);
    is_local_control("0.0.0.0:80", "93.184.216.34:80");
    if (has_ip6)
        is_local_control("[::]:80", "[2606:2800:220:1::1]:80");
    (void)close(fd);
}

static void without_ip6(void)
{
    static const char *const off[] = {"/proc/sys/net/ipv6/conf/all/disable_ipv6",
                                      "/proc/sys/net/ipv6/conf/lo/disable_ipv6"};
    int fd = route_socket(0);
    bool has_ip6 = true;

    for (size_t i = 0; i < COUNT_OF(off); i++) {
        int f = open(off[i], O_WRONLY | O_CLOEXEC);

        if (f >= 0) {
            NEED(write(f, "1", 1) == 1);
            (void)close(f);
        }
    }
    NEED_OK(rt_seal(fd, &has_ip6, &e));
    NEED(!has_ip6 && has(fd, EGRESS_SEALED_IP4));
    NEED_OK(rt_tproxy_set(fd, &e));
    NEED_OK(rt_tproxy_verify(fd, &e));
    NEED_OK(rt_tproxy_drop(fd, &e));
    (void)close(fd);
}

static void tproxy(void)
{
    int fd = route_socket(SOCK_NONBLOCK);
    struct err why = {0};
    bool has_ip6;

    NEED_OK(rt_seal(fd, &has_ip6, &e));
    NEED(rt_tproxy_verify(fd, &why) < 0 && why.code == ERR_DENIED);
    for (int i = 0; i < 2; i++)
        NEED_OK(rt_tproxy_set(fd, &e));
    NEED_OK(rt_tproxy_verify(fd, &e));
    for (int i = 0; i < 2; i++)
        NEED_OK(rt_tproxy_drop(fd, &e));
    NEED(rt_tproxy_verify(fd, &why) < 0 && strstr(why.msg, "IPv4") != NULL);
    (void)close(fd);
}

static void monitor(void)
{
    int fd = route_socket(0), news = route_socket(SOCK_NONBLOCK);
    bool has_ip6;

    NEED_OK(rt_monitor_start(news, &e));
    NEED(!rt_monitor_read(news));
    NEED_OK(rt_seal(fd, &has_ip6, &e));
    NEED(rt_monitor_read(news) && !rt_monitor_read(news));
    NEED_OK(rt_tproxy_set(fd, &e));
    NEED(rt_monitor_read(news) && !rt_monitor_read(news));
    NEED_OK(rt_tproxy_drop(fd, &e));
    NEED(rt_monitor_read(news));
    (void)close(fd);
    (void)close(news);
}

/* ip(8), to set the scene. */
static void ip(const char *const *arg)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        (void)execvp("ip", (char *const *)(uintptr_t)arg);
        _exit(1);
    }
    NEED(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

static const struct rt_link *find(const struct rt_link *l, int n, const char *name)
{
    int i = 0;

    while (i < n && strcmp(l[i].name, name) != 0)
        i++;
    NEED(i < n);
    return &l[i];
}

static void links(void)
{
    static const char *const bridge[] = {"ip",   "link",   "add", "br0",
                                         "type", "bridge", NULL};
    static const char *const pair[] = {
        "ip",   "link", "add",  "v1",   "address", "02:00:00:00:00:07",
        "type", "veth", "peer", "name", "v2",      NULL};
    static const char *const port[] = {"ip", "link", "set", "v1", "master", "br0", NULL};
    int fd = route_socket(0), n;
    struct rt_link l[8];
    const struct rt_link *v1, *v2, *br;

    ip(bridge);
    ip(pair);
    ip(port);
    NEED_OK(n = rt_links(fd, l, COUNT_OF(l), &e));
    v1 = find(l, n, "v1");
    v2 = find(l, n, "v2");
    br = find(l, n, "br0");
    NEED(strcmp(v1->kind, "veth") == 0 && strcmp(br->kind, "bridge") == 0);
    NEED(v1->peer_index == v2->index && v2->peer_index == v1->index);
    NEED(v1->master == br->index && v2->master == 0 && !v1->is_up);
    NEED(v1->mac[0] == 2 && v1->mac[5] == 7);
    /* No more than there is room for. */
    NEED_OK(n = rt_links(fd, l, 2, &e));
    NEED(n == 2);
    (void)close(fd);
}

BOTH(a_sealed_namespace_has_every_address, seal)
BOTH(ipv6_switched_off_is_left_out, without_ip6)
BOTH(the_way_to_the_guard_is_set_seen_and_taken_away, tproxy)
BOTH(changes_are_noticed_once, monitor)
BOTH(a_veth_knows_its_other_end_and_its_bridge, links)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sealed_namespace_has_every_address),
        cmocka_unit_test(ipv6_switched_off_is_left_out),
        cmocka_unit_test(the_way_to_the_guard_is_set_seen_and_taken_away),
        cmocka_unit_test(changes_are_noticed_once),
        cmocka_unit_test(a_veth_knows_its_other_end_and_its_bridge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
