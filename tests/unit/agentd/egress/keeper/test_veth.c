/* SPDX-License-Identifier: MIT */
/* In a network namespace of its own as the host, with real interfaces. */
#include "agentd/egress/keeper/veth.h"

#include "tests/support/own_ns.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/kernel/rt.h"
#include "common/sock.h"

#define WORDS 24

extern char **environ;

static void run(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A program with its words: ip(8), by itself or through nsenter(1). */
static void run(const char *fmt, ...)
{
    char text[256], *argv[WORDS] = {NULL};
    va_list ap;
    pid_t child;
    int n = 0, status;

    va_start(ap, fmt);
    assert_true(vsnprintf(text, sizeof text, fmt, ap) < (int)sizeof text);
    va_end(ap);
    for (char *p = strtok(text, " "); p && n < WORDS - 1; p = strtok(NULL, " "))
        argv[n++] = p;
    assert_int_equal(posix_spawnp(&child, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (status != 0)
        fail_msg("%s: status %d", fmt, status);
}

static void write_sysctl(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0) {
        print_message("left out: %s cannot be written\n", path);
        skip();
    }
    assert_int_equal(write(fd, value, 1), 1);
    assert_int_equal(close(fd), 0);
}

/* -- the scene ----------------------------------------------------------------------- */

struct scene {
    pid_t pid; /* lives in the sandbox's namespace */
    struct netns *ns;
    int host; /* rtnetlink */
};

/* A process in a namespace of its own. */
static pid_t begin_sandbox(void)
{
    int ready[2];
    char c;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGTERM, SIG_DFL);
        if (unshare(CLONE_NEWNET) == 0 && write(ready[1], "x", 1) == 1)
            (void)pause();
        _exit(0);
    }
    assert_int_equal(close(ready[1]), 0);
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(close(ready[0]), 0);
    return pid;
}

static int set_up(void **state)
{
    static struct scene s;
    struct err e;

    s.pid = begin_sandbox();
    s.ns = netns_open(NULL, s.pid, &e);
    assert_non_null(s.ns);
    s.host = netns_socket(NULL, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, &e);
    assert_true(s.host >= 0);
    if (rt_tproxy_set(s.host, &e) < 0)
        fail_msg("%s", e.msg);
    *state = &s;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *s = *state;

    static const char *const ours[] = {"vport", "br0"};

    /* A namespace ends some time after its last process: what is left of it goes now. */
    for (size_t i = 0; i < COUNT_OF(ours); i++)
        if (if_nametoindex(ours[i]) != 0)
            run("ip link del %s", ours[i]);
    assert_int_equal(rt_tproxy_drop(s->host, NULL), 0);
    sock_close(&s->host);
    netns_free(s->ns);
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
    return 0;
}

static void set_br_netfilter(const char *value)
{
    write_sysctl("/proc/sys/net/bridge/bridge-nf-call-iptables", value);
    write_sysctl("/proc/sys/net/bridge/bridge-nf-call-ip6tables", value);
}

/* eth0 in the sandbox, vport here, no bridge. */
static void make_pair(const struct scene *s)
{
    run("ip link add vport type veth peer name eth0 netns %d", s->pid);
}

/* The same in bridge br0, as engines do it. */
static void make_bridged(const struct scene *s)
{
    set_br_netfilter("0");
    run("ip link add br0 type bridge");
    run("ip link set br0 address 02:00:00:00:00:01 up");
    run("ip addr add 10.1.0.1/16 dev br0");
    make_pair(s);
    run("ip link set vport master br0 up");
    run("nsenter -t %d -n ip link set eth0 address 02:00:00:00:00:02 up", s->pid);
    run("nsenter -t %d -n ip addr add 10.1.0.2/16 dev eth0", s->pid);
}

static void find_fails(const struct scene *s, const char *iface, enum err_code code,
                       const char *says)
{
    struct err e = {.code = ERR_NONE};
    struct veth_host *h = veth_host_look(&e);
    struct veth v;

    assert_non_null(h);
    if (veth_find(h, s->ns, iface, &v, &e) == 0)
        fail_msg("found %s, not \"%s\"", v.inside, says);
    if (e.code != code || !strstr(e.msg, says))
        fail_msg("code %d, \"%s\", without \"%s\"", e.code, e.msg, says);
    veth_host_free(h);
}

static struct veth must_find(const struct scene *s)
{
    struct err e;
    struct veth_host *h = veth_host_look(&e);
    struct veth v;

    if (!h)
        fail_msg("%s", e.msg);
    if (veth_find(h, s->ns, NULL, &v, &e) < 0)
        fail_msg("%s", e.msg);
    veth_host_free(h);
    return v;
}

/* What breaks it now: nothing where `says` is NULL, else just one thing. */
static void breaks(const struct scene *s, const struct veth *was, const char *says)
{
    struct veth_reasons r;
    struct err e;
    struct veth_host *h = veth_host_look(&e);

    assert_non_null(h);
    veth_breakers(h, s->ns, was, &r);
    veth_host_free(h);
    if (r.n != (says != NULL))
        fail_msg("%u reasons, the first \"%s\", wanted \"%s\"", r.n, r.n ? r.text[0] : "",
                 says ? says : "none");
    if (says && !strstr(r.text[0], says))
        fail_msg("\"%s\", without \"%s\"", r.text[0], says);
}

static bool has_addr(const struct veth *v, const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    for (unsigned i = 0; i < v->n_addr; i++)
        if (ip_eq(&v->addr[i], &a))
            return true;
    return false;
}

/* -- finding ------------------------------------------------------------------------- */

static void a_veth_in_a_bridge_is_found_from_both_ends(void **state)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 2}, gateway[6] = {2, 0, 0, 0, 0, 1};
    const struct scene *s = *state;
    struct nft_sandbox rules = {0};
    struct ip_addr a;
    struct veth v;

    make_bridged(s);
    v = must_find(s);
    assert_string_equal(v.inside, "eth0");
    assert_string_equal(v.port, "vport");
    assert_string_equal(v.way, "br0");
    assert_true(v.is_bridged);
    assert_int_equal(v.port_index, if_nametoindex("vport"));
    veth_fill(&v, &rules);
    assert_string_equal(rules.bridge, "br0");
    assert_string_equal(rules.veth, "vport");
    assert_memory_equal(rules.mac, mac, 6);
    assert_memory_equal(rules.gateway_mac, gateway, 6);
    assert_int_equal(rules.n_addr, v.n_addr);
    assert_true(has_addr(&v, "10.1.0.2"));
    assert_true(has_addr(&v, "fe80::ff:fe00:2")); /* there or not: it will be */
    assert_int_equal(ip_parse(span_str("10.1.0.1"), &a), 0);
    assert_true(ip_eq(&rules.gateway4, &a));
    assert_true(veth_is_same(&v, &v));
    breaks(s, &v, NULL);
}

static void a_veth_by_itself_is_its_own_way(void **state)
{
    const struct scene *s = *state;
    struct veth v;

    make_pair(s);
    run("ip link set vport address 02:00:00:00:00:07 up");
    run("ip addr add 10.2.0.1/32 dev vport");
    v = must_find(s);
    assert_string_equal(v.way, "vport");
    assert_false(v.is_bridged);
    assert_int_equal(v.gateway_mac[5], 7);
    assert_int_equal(v.gateway4.bytes[3], 1);
    breaks(s, &v, NULL);
    run("ip addr add 10.2.0.9/32 dev vport"); /* now nobody knows which is meant */
    assert_int_equal(must_find(s).gateway4.family, 0);
}

static void an_interface_that_is_named_must_be_it(void **state)
{
    const struct scene *s = *state;
    struct veth_host *h;
    struct veth v;

    make_pair(s);
    find_fails(s, "eth1", ERR_NOTFOUND, "not eth1");
    h = veth_host_look(NULL);
    assert_non_null(h);
    assert_int_equal(veth_find(h, s->ns, "eth0", &v, NULL), 0);
    assert_int_equal(veth_find(h, s->ns, "vport", &v, NULL), 0);
    veth_host_free(h);
}

static void what_is_no_single_veth_to_here_is_refused(void **state)
{
    const struct scene *s = *state;
    struct err e;

    find_fails(s, NULL, ERR_NOTFOUND, "no interface");
    assert_int_equal(veth_any(s->ns, &e), -1);
    assert_int_equal(veth_none(s->ns, &e), 0);

    run("nsenter -t %d -n ip link add d0 type bridge", s->pid);
    find_fails(s, NULL, ERR_DENIED, "d0 is a bridge");
    assert_int_equal(veth_any(s->ns, &e), 0);
    assert_int_equal(veth_none(s->ns, &e), -1);
    assert_non_null(strstr(e.msg, "d0"));
    run("nsenter -t %d -n ip link del d0", s->pid);

    run("ip link add lower type bridge");
    run("ip link add mac0 link lower type macvlan mode bridge");
    run("ip link set mac0 netns %d", s->pid);
    find_fails(s, NULL, ERR_DENIED, "mac0 is a macvlan");
    run("nsenter -t %d -n ip link del mac0", s->pid);
    run("ip link del lower");

    run("nsenter -t %d -n ip link add eth0 type veth peer name eth1", s->pid);
    find_fails(s, NULL, ERR_DENIED, "eth");
    run("nsenter -t %d -n ip link del eth0", s->pid);
}

/* Indices are small numbers that repeat: here each names the other, and neither
 * is the other's. */
static void an_end_in_a_third_namespace_is_not_taken_for_ours(void **state)
{
    const struct scene *s = *state;
    pid_t other = begin_sandbox();

    run("nsenter -t %d -n ip link add eth0 index 77 type veth peer name far index 88 "
        "netns %d",
        s->pid, other);
    run("ip link add decoy index 88 type veth peer name near index 77 netns %d", other);
    find_fails(s, NULL, ERR_DENIED, "not in this namespace");
    assert_int_equal(kill(other, SIGKILL), 0);
    assert_int_equal(waitpid(other, NULL, 0), other);
}

static void our_own_namespace_is_no_sandbox(void **state)
{
    struct err e;
    struct netns *ns = netns_open(NULL, getpid(), &e);

    (void)state;
    assert_non_null(ns);
    assert_int_equal(veth_none(ns, &e), -1);
    assert_int_equal(e.code, ERR_DENIED);
    assert_non_null(strstr(e.msg, "own network namespace"));
    assert_int_equal(veth_any(ns, &e), -1);
    netns_free(ns);
}

static void devices_that_the_kernel_makes_by_itself_count_for_nothing(void **state)
{
    const struct scene *s = *state;

    make_pair(s);
    /* No tunnel of the sandbox's own, but the name and kind of the kernel's. */
    run("nsenter -t %d -n ip link add name tunl0 type bridge", s->pid);
    (void)must_find(s);
}

/* -- what breaks it ------------------------------------------------------------------ */

static void each_thing_that_breaks_it_is_said_and_only_that(void **state)
{
    const struct scene *s = *state;
    struct veth v;

    make_bridged(s);
    v = must_find(s);
    breaks(s, &v, NULL);

    write_sysctl("/proc/sys/net/bridge/bridge-nf-call-iptables", "1");
    breaks(s, &v, "bridge-nf-call-iptables is 1");
    set_br_netfilter("0");
    write_sysctl("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "1");
    breaks(s, &v, "bridge-nf-call-ip6tables is 1");
    set_br_netfilter("0");
    run("ip link set br0 type bridge nf_call_iptables 1");
    breaks(s, &v, "nf_call_iptables");
    run("ip link set br0 type bridge nf_call_iptables 0");

    write_sysctl("/proc/sys/net/ipv4/conf/all/src_valid_mark", "1");
    breaks(s, &v, "src_valid_mark");
    write_sysctl("/proc/sys/net/ipv4/conf/all/src_valid_mark", "0");

    run("ip rule del fwmark 0x%x", EGRESS_MARK);
    breaks(s, &v, "rule");
    assert_int_equal(rt_tproxy_set(s->host, NULL), 0);
    run("ip route flush table %d", EGRESS_TABLE);
    breaks(s, &v, "route");
    assert_int_equal(rt_tproxy_set(s->host, NULL), 0);

    run("ip link set vport nomaster");
    breaks(s, &v, "moved from br0");
    run("ip link set vport master br0");
    run("ip link set br0 address 02:00:00:00:00:05");
    breaks(s, &v, "hardware address of br0");
    run("ip link set br0 address 02:00:00:00:00:01");
    run("ip link set vport down");
    run("ip link set vport name wport up");
    breaks(s, &v, "renamed to wport");
    run("ip link set wport down");
    run("ip link set wport name vport up");
    breaks(s, &v, NULL);

    run("nsenter -t %d -n ip link add d0 type bridge", s->pid);
    breaks(s, &v, "eth0 and d0");
    run("nsenter -t %d -n ip link del d0", s->pid);
    run("ip link del vport");
    breaks(s, &v, "no interface");
    make_pair(s);
    breaks(s, &v, "another interface");
}

static void what_the_sandbox_does_to_its_own_end_changes_no_rule(void **state)
{
    const struct scene *s = *state;
    struct veth_host *h;
    struct veth v, now;
    struct err e;

    make_bridged(s);
    v = must_find(s);
    run("nsenter -t %d -n ip link set eth0 down", s->pid);
    run("nsenter -t %d -n ip link set eth0 name x address 02:00:00:00:00:99 up", s->pid);
    run("nsenter -t %d -n ip addr add 10.1.0.77/16 dev x", s->pid);
    breaks(s, &v, NULL);

    run("ip link set br0 address 02:00:00:00:00:05");
    h = veth_host_look(&e);
    assert_non_null(h);
    if (veth_follow(h, s->ns, &v, &now, &e) < 0)
        fail_msg("%s", e.msg);
    veth_host_free(h);
    assert_false(veth_is_same(&v, &now));
    assert_int_equal(now.gateway_mac[5], 5);
    assert_int_equal(now.mac[5], 2);
    assert_int_equal(now.n_addr, v.n_addr);
    assert_false(has_addr(&now, "10.1.0.77"));
    breaks(s, &now, NULL);
}

static void dockers_resolver_is_found_by_its_socket(void **state)
{
    const struct sockaddr_in at = {.sin_family = AF_INET,
                                   .sin_addr = {htonl(0x7f00000b)}};
    const struct scene *s = *state;
    struct veth v;
    struct err e;
    int fd;

    make_pair(s);
    run("nsenter -t %d -n ip link set lo up", s->pid);
    v = must_find(s);
    fd = netns_socket(s->ns, AF_INET, SOCK_STREAM, 0, &e);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof at), 0);
    breaks(s, &v, NULL); /* bound only: nothing can ask it */
    assert_int_equal(listen(fd, 1), 0);
    breaks(s, &v, "embedded resolver");
    sock_close(&fd);
    breaks(s, &v, NULL);
}

static int look_and_free(void)
{
    struct err e = {.code = ERR_NONE};
    struct veth_host *h = veth_host_look(&e);

    veth_host_free(h);
    return h ? 0 : -1;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(look_and_free());
}

int main(void)
{
#define SCENE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SCENE_TEST(a_veth_in_a_bridge_is_found_from_both_ends),
        SCENE_TEST(a_veth_by_itself_is_its_own_way),
        SCENE_TEST(an_interface_that_is_named_must_be_it),
        SCENE_TEST(what_is_no_single_veth_to_here_is_refused),
        SCENE_TEST(an_end_in_a_third_namespace_is_not_taken_for_ours),
        SCENE_TEST(our_own_namespace_is_no_sandbox),
        SCENE_TEST(devices_that_the_kernel_makes_by_itself_count_for_nothing),
        SCENE_TEST(each_thing_that_breaks_it_is_said_and_only_that),
        SCENE_TEST(what_the_sandbox_does_to_its_own_end_changes_no_rule),
        SCENE_TEST(dockers_resolver_is_found_by_its_socket),
        SCENE_TEST(every_allocation_failure_is_clean),
    };

    if (setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1) < 0 ||
        own_ns_enter(CLONE_NEWNET) < 0) {
        (void)printf("left out: this kernel lets us make no network namespace\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
