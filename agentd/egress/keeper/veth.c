/* SPDX-License-Identifier: MIT */
/*
 * Theory. The rules stand on the host's side, so what counts is that all a sandbox can
 * send comes out of one interface here, that this is the one the rules name, and that
 * what the rules hand to IP arrives where TPROXY needs it.
 *
 * Both ends are taken to be one veth when each names the other's index and the kernel
 * says that the inner one's other end is in our namespace: indices alone are small
 * numbers that repeat in every namespace.
 */
#include "agentd/egress/keeper/veth.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/egress/keeper/veth_int.h"
#include "agentd/egress/keeper/veth_wire.h"
#include "common/mem.h"

#define LOOPBACK_INDEX 1 /* in every namespace: the kernel makes it first */

/* -- our own namespace --------------------------------------------------------------- */

static void home_done(struct veth_home *h)
{
    sock_close(&h->fd);
    sock_close(&h->ns);
}

/* Call home_done() also when it fails. */
static int home_open(struct veth_home *h, struct err *e)
{
    h->ns = -1;
    h->fd = netns_socket(NULL, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, e);
    if (h->fd < 0)
        return -1;
    h->ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return h->ns < 0 ? err_sys(e, "open our own network namespace") : 0;
}

void veth_host_free(struct veth_host *h)
{
    if (!h)
        return;
    home_done(&h->home);
    mem_free(h->link);
    mem_free(h);
}

static int look(struct veth_host *h, struct err *e)
{
    int n;

    if (home_open(&h->home, e) < 0)
        return -1;
    h->link = mem_zalloc(VETH_LINKS_MAX, sizeof *h->link);
    if (!h->link)
        return err_set(e, ERR_NOMEM, "no memory for %d links", VETH_LINKS_MAX);
    n = rt_links(h->home.fd, h->link, VETH_LINKS_MAX, e);
    if (n < 0)
        return err_wrap(e, "the host's interfaces");
    if (n >= VETH_LINKS_MAX)
        return err_set(e, ERR_LIMIT, "%d interfaces here or more: not all are seen",
                       VETH_LINKS_MAX);
    h->n = (size_t)n;
    h->tproxy = (struct err){.code = ERR_NONE};
    (void)rt_tproxy_verify(h->home.fd, &h->tproxy); /* what it says becomes a reason */
    return 0;
}

struct veth_host *veth_host_look(struct err *e)
{
    struct veth_host *h = mem_zalloc(1, sizeof *h);

    if (!h) {
        (void)err_set(e, ERR_NOMEM, "no memory for the host's interfaces");
        return NULL;
    }
    h->home = (struct veth_home){-1, -1};
    if (look(h, e) < 0) {
        veth_host_free(h);
        return NULL;
    }
    return h;
}

static const struct rt_link *link_at(const struct veth_host *h, int index)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->link[i].index == index)
            return &h->link[i];
    return NULL;
}

/* -- the sandbox's namespace --------------------------------------------------------- */

/* What the kernel puts into a new namespace when these modules are loaded
 * (net.core.fb_tunnels_only_for_init_net). They need another interface to leave by. */
static bool is_kernels_own(const struct rt_link *l)
{
    static const char *const own[] = {"tunl0",   "sit0",     "ip6tnl0",
                                      "gre0",    "gretap0",  "erspan0",
                                      "ip_vti0", "ip6_vti0", "ip6gre0"};

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (!strcmp(l->name, own[i]))
            return l->peer_index == 0;
    return false;
}

/* The one interface that may lead out; more than one is refused with both names. */
static int choose(struct veth_inside *in, struct err *e)
{
    in->only = NULL;
    for (int i = 0; i < in->n; i++) {
        const struct rt_link *l = &in->link[i];

        if (l->index == LOOPBACK_INDEX || is_kernels_own(l))
            continue;
        if (in->only)
            return err_set(e, ERR_DENIED,
                           "the sandbox has interfaces %s and %s, and rules are for one",
                           in->only->name, l->name);
        in->only = l;
    }
    return 0;
}

static int look_by(struct veth_inside *in, int fd, int own_ns, struct err *e)
{
    int rc;

    in->n = rt_links(fd, in->link, VETH_INSIDE_LINKS, e);
    if (in->n < 0)
        return err_wrap(e, "the sandbox's interfaces");
    if (in->n >= VETH_INSIDE_LINKS)
        return err_set(e, ERR_DENIED, "the sandbox has %d interfaces or more",
                       VETH_INSIDE_LINKS);
    if (choose(in, e) < 0)
        return -1;
    if (!in->only)
        return 0;
    rc = veth_wire_ends_in(fd, in->only->index, own_ns, e);
    if (rc < 0)
        return -1;
    in->ends_here = rc;
    in->n_addr = rt_addrs(fd, in->only->index, in->addr, RT_ADDRS_MAX, e);
    return in->n_addr < 0 ? err_wrap(e, "the sandbox's addresses") : 0;
}

static int open_inside(struct netns *ns, int own_fd, int ret[2], struct err *e)
{
    int rc;

    ret[1] = -1;
    ret[0] = netns_socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, e);
    if (ret[0] < 0)
        return -1;
    rc = veth_wire_is_same_ns(ret[0], own_fd, e);
    if (rc > 0)
        return err_set(e, ERR_DENIED,
                       "the sandbox is in the host's own network namespace");
    if (rc < 0)
        return -1;
    ret[1] = netns_socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, e);
    return ret[1] < 0 ? -1 : 0;
}

int veth_look_inside(struct veth_inside *in, struct netns *ns,
                     const struct veth_home *own, struct err *e)
{
    static const uint8_t embedded[4] = {127, 0, 0, 11};
    int fd[2];
    int rc = open_inside(ns, own->fd, fd, e);
    int listens = 0;

    in->n = in->n_addr = 0;
    in->only = NULL;
    in->ends_here = false;
    if (rc == 0)
        rc = look_by(in, fd[0], own->ns, e);
    if (rc == 0) {
        listens = veth_wire_listens(fd[1], embedded, e);
        rc = listens < 0 ? -1 : 0;
    }
    sock_close(&fd[0]);
    sock_close(&fd[1]);
    in->has_embedded_resolver = listens > 0;
    return rc;
}

static int look_only(struct veth_inside *in, struct netns *ns, struct err *e)
{
    struct veth_home own;
    int rc = home_open(&own, e);

    in->only = NULL;
    if (rc == 0)
        rc = veth_look_inside(in, ns, &own, e);
    home_done(&own);
    return rc;
}

int veth_none(struct netns *ns, struct err *e)
{
    struct veth_inside in;

    if (look_only(&in, ns, e) < 0)
        return -1;
    if (in.only)
        return err_set(e, ERR_DENIED,
                       "the sandbox has interface %s, and a sealed one has none",
                       in.only->name);
    return 0;
}

int veth_any(struct netns *ns, struct err *e)
{
    struct veth_inside in;

    if (look_only(&in, ns, e) < 0)
        return -1;
    return in.only ? 0 : err_set(e, ERR_NOTFOUND, "the sandbox has no interface");
}

/* -- both together ------------------------------------------------------------------- */

/* The inner end's partner here. */
static const struct rt_link *partner(const struct veth_host *h, const struct rt_link *l,
                                     bool ends_here, struct err *e)
{
    const struct rt_link *port;

    if (strcmp(l->kind, "veth") != 0) {
        (void)err_set(e, ERR_DENIED,
                      "interface %s is a %s, no veth: there is no end of it on the host "
                      "to rule",
                      l->name, l->kind[0] ? l->kind : "device");
        return NULL;
    }
    port = ends_here ? link_at(h, l->peer_index) : NULL;
    if (!port || port->peer_index != l->index || strcmp(port->kind, "veth") != 0) {
        (void)err_set(e, ERR_DENIED,
                      "the other end of interface %s is not in this namespace", l->name);
        return NULL;
    }
    return port;
}

/* The address that an interface makes for itself from its hardware address (RFC 4291
 * appendix A): it may not be there yet when a container is about to begin. */
static void add_link_local(struct veth *v)
{
    struct ip_addr a = {.family = AF_INET6, .bytes = {0xfe, 0x80}};

    for (unsigned i = 0; i < v->n_addr; i++)
        if (v->addr[i].family == AF_INET6 && v->addr[i].bytes[0] == 0xfe &&
            (v->addr[i].bytes[1] & 0xc0) == 0x80)
            return;
    if (v->n_addr == VETH_ADDRS_MAX)
        return;
    memcpy(a.bytes + 8, v->mac, 3);
    a.bytes[8] ^= 2;
    a.bytes[11] = 0xff;
    a.bytes[12] = 0xfe;
    memcpy(a.bytes + 13, v->mac + 3, 3);
    v->addr[v->n_addr++] = a;
}

static int take_addrs(const struct veth_inside *in, struct veth *v, struct err *e)
{
    if (in->n_addr > VETH_ADDRS_MAX)
        return err_set(e, ERR_LIMIT, "%s has %d addresses, at most %d can be ruled",
                       in->only->name, in->n_addr, VETH_ADDRS_MAX);
    for (int i = 0; i < in->n_addr; i++)
        v->addr[i] = in->addr[i].addr;
    v->n_addr = (unsigned)in->n_addr;
    add_link_local(v);
    return 0;
}

/* Whom the sandbox may ask for by ARP, when there is just one. */
static int take_gateway(const struct veth_host *h, struct veth *v, struct err *e)
{
    struct ip_net net[RT_ADDRS_MAX];
    int n = rt_addrs(h->home.fd, v->way_index, net, RT_ADDRS_MAX, e);
    int found = 0;

    if (n < 0)
        return err_wrap(e, "addresses of %s", v->way);
    for (int i = 0; i < n; i++) {
        if (net[i].addr.family != AF_INET)
            continue;
        v->gateway4 = net[i].addr;
        found++;
    }
    if (found > 1)
        v->gateway4 = (struct ip_addr){.family = 0};
    return 0;
}

static int describe(const struct veth_host *h, const struct rt_link *l,
                    const struct rt_link *port, struct veth *v, struct err *e)
{
    const struct rt_link *way = port->master ? link_at(h, port->master) : port;

    if (!way || (port->master && strcmp(way->kind, "bridge") != 0))
        return err_set(e, ERR_DENIED, "%s is part of a %s, no bridge", port->name,
                       way ? way->kind : "link that is gone");
    *v = (struct veth){.inside_index = l->index,
                       .port_index = port->index,
                       .way_index = way->index,
                       .is_bridged = port->master != 0};
    memcpy(v->inside, l->name, sizeof v->inside);
    memcpy(v->port, port->name, sizeof v->port);
    memcpy(v->way, way->name, sizeof v->way);
    memcpy(v->mac, l->mac, sizeof v->mac);
    memcpy(v->gateway_mac, way->mac, sizeof v->gateway_mac);
    return take_gateway(h, v, e);
}

int veth_join(const struct veth_host *h, const struct veth_inside *in, const char *iface,
              struct veth *ret, struct err *e)
{
    const struct rt_link *l = in->only, *port;
    struct veth v = {.n_addr = 0};

    if (!l)
        return err_set(e, ERR_NOTFOUND, "the sandbox has no interface");
    port = partner(h, l, in->ends_here, e);
    if (!port)
        return -1;
    if (iface && strcmp(iface, l->name) != 0 && strcmp(iface, port->name) != 0)
        return err_set(e, ERR_NOTFOUND,
                       "the sandbox's interface is %s, and %s here: not %.15s", l->name,
                       port->name, iface);
    if (describe(h, l, port, &v, e) < 0)
        return -1;
    *ret = v;
    return 0;
}

int veth_find(const struct veth_host *h, struct netns *ns, const char *iface,
              struct veth *ret, struct err *e)
{
    struct veth_inside in;
    struct veth v = {.n_addr = 0};

    if (veth_look_inside(&in, ns, &h->home, e) < 0 ||
        veth_join(h, &in, iface, &v, e) < 0 || take_addrs(&in, &v, e) < 0)
        return -1;
    *ret = v;
    return 0;
}

static void keep_inside(const struct veth *was, struct veth *now)
{
    memcpy(now->mac, was->mac, sizeof now->mac);
    memcpy(now->addr, was->addr, sizeof now->addr);
    now->n_addr = was->n_addr;
}

int veth_follow(const struct veth_host *h, struct netns *ns, const struct veth *was,
                struct veth *ret, struct err *e)
{
    struct veth_inside in;
    struct veth v = {.n_addr = 0};

    if (veth_look_inside(&in, ns, &h->home, e) < 0 || veth_join(h, &in, NULL, &v, e) < 0)
        return -1;
    if (v.port_index != was->port_index || v.inside_index != was->inside_index)
        return err_set(e, ERR_DENIED,
                       "the sandbox has another interface than its rules: %s (%s here)",
                       v.inside, v.port);
    keep_inside(was, &v);
    *ret = v;
    return 0;
}

void veth_fill(const struct veth *v, struct nft_sandbox *s)
{
    s->bridge = v->way;
    s->veth = v->port;
    memcpy(s->mac, v->mac, sizeof s->mac);
    memcpy(s->gateway_mac, v->gateway_mac, sizeof s->gateway_mac);
    _Static_assert(VETH_ADDRS_MAX == sizeof s->addr / sizeof s->addr[0],
                   "as many addresses as rules hold");
    memcpy(s->addr, v->addr, sizeof s->addr);
    s->n_addr = v->n_addr;
    s->gateway4 = v->gateway4;
}

static bool has_addr(const struct veth *v, const struct ip_addr *a)
{
    for (unsigned i = 0; i < v->n_addr; i++)
        if (ip_eq(&v->addr[i], a))
            return true;
    return false;
}

bool veth_is_same(const struct veth *a, const struct veth *b)
{
    if (a->inside_index != b->inside_index || a->port_index != b->port_index ||
        a->way_index != b->way_index || strcmp(a->port, b->port) != 0 ||
        strcmp(a->way, b->way) != 0 || a->n_addr != b->n_addr)
        return false;
    for (unsigned i = 0; i < a->n_addr; i++)
        if (!has_addr(b, &a->addr[i]))
            return false;
    return !memcmp(a->mac, b->mac, sizeof a->mac) && ip_eq(&a->gateway4, &b->gateway4) &&
           !memcmp(a->gateway_mac, b->gateway_mac, sizeof a->gateway_mac);
}
