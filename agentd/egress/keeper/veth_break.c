/* SPDX-License-Identifier: MIT */
/* What breaks the rules of a sandbox with an interface: see veth.h. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/keeper/veth_int.h"
#include "agentd/egress/keeper/veth_wire.h"

static void say(struct veth_reasons *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void say(struct veth_reasons *r, const char *fmt, ...)
{
    va_list ap;

    if (r->n == VETH_REASONS_MAX)
        return; /* one is enough to be not enforced */
    va_start(ap, fmt);
    (void)vsnprintf(r->text[r->n++], VETH_REASON_MAX, fmt, ap);
    va_end(ap);
}

/* 1, 0; -1: there is no such switch. */
static int sysctl_is_set(const char *path)
{
    char c = '0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -1;
    n = read(fd, &c, 1);
    (void)close(fd); /* opened for reading */
    return n == 1 && c != '0';
}

static void check_bridge(const struct veth_host *h, const struct veth *v,
                         struct veth_reasons *r)
{
    static const char four[] = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    static const char six[] = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
    struct veth_wire_bridge own;
    struct err e;

    if (veth_wire_bridge(h->home.fd, v->way_index, &own, &e) < 0) {
        say(r, "%s: %s", v->way, e.msg);
        return;
    }
    if (sysctl_is_set(four) > 0)
        say(r,
            "net.bridge.bridge-nf-call-iptables is 1: what crosses bridge %s is judged "
            "too early to reach the guard; set it to 0",
            v->way);
    if (sysctl_is_set(six) > 0)
        say(r,
            "net.bridge.bridge-nf-call-ip6tables is 1: what crosses bridge %s is judged "
            "too early to reach the guard; set it to 0",
            v->way);
    if (own.calls_iptables || own.calls_ip6tables)
        say(r, "bridge %s has nf_call_iptables or nf_call_ip6tables set; set it to 0",
            v->way);
}

/* With src_valid_mark the mark counts when the way back is looked for, which then is
 * local delivery: the kernel drops the packet as one from nowhere. */
static void check_mark(const char *dev, struct veth_reasons *r)
{
    char path[80];

    (void)snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/src_valid_mark", dev);
    if (sysctl_is_set(path) > 0)
        say(r,
            "net.ipv4.conf.%s.src_valid_mark is 1: marked packets are dropped; set it "
            "to 0",
            dev);
}

static void compare(const struct veth *was, const struct veth *now,
                    struct veth_reasons *r)
{
    if (was->port_index != now->port_index || was->inside_index != now->inside_index)
        say(r, "the sandbox has another interface than its rules: %s (%s here)",
            now->inside, now->port);
    else if (strcmp(was->port, now->port) != 0)
        say(r, "interface %s was renamed to %s, and rules go by the name", was->port,
            now->port);
    else if (was->way_index != now->way_index || strcmp(was->way, now->way) != 0)
        say(r, "interface %s was moved from %s to %s", now->port, was->way, now->way);
    else if (memcmp(was->gateway_mac, now->gateway_mac, sizeof was->gateway_mac) != 0)
        say(r, "the hardware address of %s has changed", now->way);
}

void veth_breakers(const struct veth_host *h, struct netns *ns, const struct veth *was,
                   struct veth_reasons *ret)
{
    struct veth_inside in;
    struct veth now;
    struct err e;

    ret->n = 0;
    if (h->tproxy.code != ERR_NONE)
        say(ret, "%s", h->tproxy.msg);
    if (veth_look_inside(&in, ns, &h->home, &e) < 0 ||
        veth_join(h, &in, NULL, &now, &e) < 0) {
        say(ret, "%s", e.msg);
        return;
    }
    compare(was, &now, ret);
    if (now.is_bridged)
        check_bridge(h, &now, ret);
    check_mark("all", ret);
    check_mark(now.way, ret);
    if (in.has_embedded_resolver)
        say(ret,
            "Docker's embedded resolver is in the sandbox (127.0.0.11, a user network): "
            "it asks from the host's side; use the default bridge");
}
