/* SPDX-License-Identifier: MIT */
/*
 * The host's side: which addresses are its own (floor for every sandbox), which name
 * servers it uses, and, where we may rule its namespace, the table there with what
 * the guard may reach. The table is put there whole, sandboxes and all, whenever one
 * of these changes.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/keeper/resolvers.h"
#include "agentd/egress/kernel/nflog.h"
#include "agentd/egress/kernel/rt.h"
#include "agentd/link/proxy.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

#define RESOLV_CONF  "/etc/resolv.conf"
#define ROUTES_PER_S 5 /* mended so often: two programs at odds must not spin */

/* -- own addresses ------------------------------------------------------------------- */

static void add_floor(struct ip_net *net, size_t *n, bool *ret_cut,
                      const struct ip_addr *a)
{
    if (ip_class_is_floor(ip_classify(a)))
        return; /* it is already */
    for (size_t i = 0; i < *n; i++)
        if (ip_eq(&net[i].addr, a))
            return;
    if (*n == CHANNEL_FLOOR_MAX) {
        *ret_cut = true;
        return;
    }
    net[*n].addr = *a;
    net[*n].bits = ip_bits(a->family);
    (*n)++;
}

/* The host's own addresses, and those of all sandboxes with an interface. */
static int collect_floor(struct keeper *k, struct ip_net *net, size_t *ret_n,
                         bool *ret_cut, struct err *e)
{
    struct ip_net own[CHANNEL_FLOOR_MAX + 1];
    int n = rt_addrs(k->host_rt_fd, 0, own, COUNT_OF(own), e);

    if (n < 0)
        return err_wrap(e, "asking for the host's addresses");
    *ret_n = 0;
    *ret_cut = n > CHANNEL_FLOOR_MAX;
    for (int i = 0; i < n; i++)
        add_floor(net, ret_n, ret_cut, &own[i].addr);
    for (const struct kept *s = k->kept; s; s = s->next)
        for (unsigned i = 0; i < s->veth.n_addr; i++)
            add_floor(net, ret_n, ret_cut, &s->veth.addr[i]);
    return 0;
}

static int update_floor(struct keeper *k, bool *ret_changed, struct err *e)
{
    struct ip_net net[CHANNEL_FLOOR_MAX];
    bool is_cut = false;
    size_t n = 0;

    memset(net, 0, sizeof net); /* compared as bytes */
    if (collect_floor(k, net, &n, &is_cut, e) < 0)
        return -1;
    if (is_cut && !k->is_floor_cut)
        log_err("host.addresses", "why=%s", log_q("more than can be told to the guard"));
    k->is_floor_cut = is_cut;
    if (n == k->n_floor && memcmp(net, k->floor, n * sizeof *net) == 0)
        return 0;
    memcpy(k->floor, net, sizeof net);
    k->n_floor = n;
    *ret_changed = true;
    return 0;
}

/* -- name servers -------------------------------------------------------------------- */

static void update_resolvers(struct keeper *k, bool *ret_changed)
{
    char text[RESOLVERS_TEXT_MAX];
    struct stat st;
    struct err e;

    if (stat(RESOLV_CONF, &st) < 0)
        memset(&st, 0, sizeof st);
    if (k->resolvers[0] && st.st_ino == k->resolv_stat.st_ino &&
        st.st_size == k->resolv_stat.st_size &&
        st.st_mtim.tv_sec == k->resolv_stat.st_mtim.tv_sec &&
        st.st_mtim.tv_nsec == k->resolv_stat.st_mtim.tv_nsec)
        return;
    if (resolvers_read(RESOLV_CONF, text, &e) < 0) {
        log_warn("host.resolvers", "error=%s", log_e(&e));
        if (k->resolvers[0])
            return; /* what was known stays */
        resolvers_parse(span_of(NULL, 0), text);
    }
    k->resolv_stat = st;
    if (strcmp(text, k->resolvers) == 0)
        return;
    memcpy(k->resolvers, text, sizeof text);
    *ret_changed = true;
}

/* -- what the guard may reach although it is floor ----------------------------------- */

static void add_may(struct keeper *k, const struct sock_addr *a)
{
    char one[SOCK_TEXT_MAX], other[SOCK_TEXT_MAX];

    for (size_t i = 0; i < k->n_may; i++)
        if (strcmp(sock_print(&k->may[i], one), sock_print(a, other)) == 0)
            return;
    if (k->n_may < KEEPER_MAY_MAX)
        k->may[k->n_may++] = *a;
    else
        log_warn("host.may", "why=%s", log_q("too many name servers and proxies"));
}

/* "192.0.2.53:53,[2001:db8::53]:53" */
static void add_list(struct keeper *k, const char *list)
{
    char one[SOCK_TEXT_MAX];
    struct sock_addr a;

    while (list && *list) {
        size_t n = strcspn(list, ",");

        if (n < sizeof one) {
            memcpy(one, list, n);
            one[n] = '\0';
            if (sock_parse(one, &a, NULL) == 0)
                add_may(k, &a);
        }
        list += n + (list[n] == ',');
    }
}

/* A proxy that is given as a name is looked up by the guard; only one on this machine can
 * be floor, and its name is then one of these. */
static void add_proxy(struct keeper *k, const char *url)
{
    struct proxy_url p;
    struct sock_addr a;
    size_t n;

    if (!url || proxy_url_parse(span_str(url), &p, NULL) < 0)
        return;
    n = strlen(p.host);
    if (sock_parse_ip(span_str(p.host), p.port, &a) == 0) {
        add_may(k, &a);
    } else if (strcmp(p.host, "localhost") == 0 ||
               (n > 10 && strcmp(p.host + n - 10, ".localhost") == 0)) {
        if (sock_parse_ip(span_str("127.0.0.1"), p.port, &a) == 0)
            add_may(k, &a);
        if (sock_parse_ip(span_str("::1"), p.port, &a) == 0)
            add_may(k, &a);
    }
    proxy_url_done(&p);
}

static void add_policy(struct keeper *k, const struct policy *p)
{
    const struct policy_proxy *proxy = policy_proxy(p);

    add_list(k, policy_resolvers(p));
    add_proxy(k, proxy ? proxy->url : NULL);
}

static void collect_may(struct keeper *k)
{
    k->n_may = 0;
    add_list(k, k->resolvers);
    for (const struct kept *s = k->kept; s; s = s->next) {
        add_policy(k, s->policy);
        if (s->wanted)
            add_policy(k, s->wanted);
    }
}

/* -- what it may dial of private space ----------------------------------------------- */

static bool allows_net(const struct policy *p)
{
    size_t n;
    const struct policy_rule *r = policy_rules(p, &n);

    for (size_t i = 0; i < n; i++)
        if (r[i].is_net && r[i].list == POLICY_ALLOW)
            return true;
    return false;
}

static void add_guard_for(struct keeper *k, const struct policy *p)
{
    if (!p || !allows_net(p))
        return;
    for (size_t i = 0; i < k->n_guard_for; i++)
        if (k->guard_for[i] == p ||
            strcmp(policy_hash(k->guard_for[i]), policy_hash(p)) == 0)
            return;
    if (k->n_guard_for < KEEPER_FOR_MAX)
        k->guard_for[k->n_guard_for++] = p;
    else
        log_warn("host.guard_for", "why=%s", log_q("too many policies with networks"));
}

/* The different policies of sandboxes in other namespaces; their hashes' sum,
 * whatever the order. */
static uint64_t collect_guard_for(struct keeper *k)
{
    uint64_t sum = 0;

    k->n_guard_for = 0;
    for (const struct kept *s = k->kept; s; s = s->next) {
        if (s->tier != EGRESS_SEALED)
            continue;
        add_guard_for(k, s->policy);
        add_guard_for(k, s->wanted);
    }
    for (size_t i = 0; i < k->n_guard_for; i++) {
        char head[17];

        memcpy(head, policy_hash(k->guard_for[i]), 16);
        head[16] = '\0';
        sum += strtoull(head, NULL, 16);
    }
    return sum;
}

static bool update_guard_for(struct keeper *k)
{
    uint64_t sum = k->host ? collect_guard_for(k) : 0;
    bool is_changed = sum != k->guard_for_sum;

    k->guard_for_sum = sum;
    return is_changed;
}

static bool update_may(struct keeper *k)
{
    char one[SOCK_TEXT_MAX], other[SOCK_TEXT_MAX];
    struct sock_addr was[KEEPER_MAY_MAX];
    size_t n = k->n_may;

    memcpy(was, k->may, n * sizeof *was);
    collect_may(k);
    if (n != k->n_may)
        return true;
    for (size_t i = 0; i < n; i++)
        if (strcmp(sock_print(&was[i], one), sock_print(&k->may[i], other)) != 0)
            return true;
    return false;
}

/* -- the table ----------------------------------------------------------------------- */

void host_base(struct keeper *k, struct nft_base *ret)
{
    memset(ret, 0, sizeof *ret);
    (void)collect_guard_for(k); /* these are borrowed from sandboxes that come and go */
    ret->guard_for = k->guard_for;
    ret->n_guard_for = k->n_guard_for;
    ret->tier = EGRESS_VETH;
    ret->own = k->floor;
    ret->n_own = k->n_floor;
    ret->guard_uid = k->conf.guard_uid;
    ret->is_guard_only = k->conf.host == KEEPER_HOST_GUARD;
    ret->guard_may = k->may;
    ret->n_guard_may = k->n_may;
}

/* All sandboxes whose rules are in the host's namespace. */
struct nft_sandbox *host_sandboxes(struct keeper *k, size_t *ret_n)
{
    struct nft_sandbox *all = mem_zalloc(k->n + 1, sizeof *all);

    *ret_n = 0;
    for (const struct kept *s = k->kept; s && all; s = s->next)
        if (s->tier == EGRESS_VETH && s->has_rules)
            kept_fill(s, s->policy, &all[(*ret_n)++]);
    return all;
}

int host_restore(struct keeper *k, struct err *e)
{
    struct nft_base base;
    struct nft_sandbox *all;
    size_t n;
    int rc;

    if (!k->host)
        return 0;
    k->is_host_stale = true;
    all = host_sandboxes(k, &n);
    if (!all)
        return err_set(e, ERR_NOMEM, "no memory for the host's rules");
    host_base(k, &base);
    rc = nft_restore(k->host, &base, all, n, e);
    mem_free(all);
    if (rc < 0)
        return err_wrap(e, "installing the host's table");
    k->is_host_stale = false;
    k->host_reason[0] = '\0';
    /* Pins began anew: the guard puts its own there again. */
    for (struct kept *s = k->kept; s; s = s->next)
        if (s->tier == EGRESS_VETH && s->has_rules && s->is_given)
            s->to_send |= SEND_POLICY;
    guard_push(k);
    return 0;
}

/* What brings marked packets to the guard, put there again when somebody took it away:
 * until then the rules drop them. */
static int mend_routes(struct keeper *k, struct err *e)
{
    struct err why;

    if (k->conf.host != KEEPER_HOST_ALL || rt_tproxy_verify(k->host_rt_fd, &why) == 0)
        return 0;
    if (why.code == ERR_DENIED &&
        !kept_rate_ok(&k->restore_rate, loop_now(k->loop), ROUTES_PER_S))
        return 0; /* the next round */
    if (rt_tproxy_set(k->host_rt_fd, e) < 0)
        return err_wrap(e, "restoring (%s)", why.msg);
    keeper_event(k, NULL, "rules.restored", why.msg);
    return 0;
}

int host_update(struct keeper *k, struct err *e)
{
    bool is_floor = false, is_resolvers = false, is_may;

    if (mend_routes(k, e) < 0)
        return -1;
    if (update_floor(k, &is_floor, e) < 0)
        return -1;
    update_resolvers(k, &is_resolvers);
    is_may = update_may(k);
    is_may = update_guard_for(k) || is_may;
    if (is_floor || is_resolvers) {
        k->guard.wants_floor = true;
        guard_push(k);
    }
    k->is_host_stale = k->is_host_stale || is_floor || is_may;
    return k->is_host_stale && !k->is_loading ? host_restore(k, e) : 0;
}

/* -- life ---------------------------------------------------------------------------- */

static int open_table(struct keeper *k, struct err *e)
{
    int fd = news_nft_socket(k, NULL, e);
    char table[NFT_TABLE_MAX];

    if (fd < 0)
        return -1;
    k->host = nft_open(&fd, e);
    if (!k->host)
        return -1;
    if (k->conf.host == KEEPER_HOST_GUARD) {
        (void)snprintf(table, sizeof table, "agentd_guard_%u",
                       k->conf.guard_uid); /* it fits */
        nft_own_table(k->host, table);
    } else {
        nft_keep_table(k->host);
    }
    k->is_host_stale = true;
    return 0;
}

static int open_nflog(struct keeper *k, struct err *e)
{
    k->host_nflog_fd = netns_socket(NULL, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, e);
    if (k->host_nflog_fd < 0)
        return -1;
    /* One process has the group, and with it the host. */
    if (nflog_bind(k->host_nflog_fd, EGRESS_NFLOG, e) < 0)
        return err_wrap(e, "is another agentd egress serve here?");
    return 0;
}

static void on_links(void *arg, unsigned events)
{
    struct keeper *k = arg;
    struct err e;

    UNUSED_ARG(events);
    if (rt_monitor_read(k->host_rt_news_fd) && host_update(k, &e) < 0)
        log_err("host.update", "error=%s", log_e(&e));
}

int host_start(struct keeper *k, struct err *e)
{
    struct err why = {0};

    k->host_rt_fd = netns_socket(NULL, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, e);
    if (k->host_rt_fd < 0)
        return -1;
    k->host_rt_news_fd = netns_socket(NULL, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, e);
    if (k->host_rt_news_fd < 0 || rt_monitor_start(k->host_rt_news_fd, e) < 0)
        return -1;
    k->host_rt_io = loop_io_start(k->loop, k->host_rt_news_fd, on_links, k, e);
    if (!k->host_rt_io)
        return -1;
    loop_io_want(k->host_rt_io, LOOP_READ);
    k->is_loading = k->conf.host == KEEPER_HOST_ALL && k->state_dir;
    if (k->conf.host != KEEPER_HOST_NONE && open_table(k, e) < 0)
        return err_wrap(e, "taking the host's rules");
    if (k->conf.host == KEEPER_HOST_ALL &&
        (open_nflog(k, e) < 0 || rt_tproxy_set(k->host_rt_fd, e) < 0))
        return err_wrap(e, "taking the host's rules");
    if (host_update(k, &why) < 0) {
        if (k->conf.host != KEEPER_HOST_GUARD || why.sys != EPERM) {
            *e = why;
            return -1;
        }
        /* Root of a container, say. The guard checks by itself all the same. */
        log_warn("guard.unruled", "error=%s", log_e(&why));
        nft_close(k->host);
        k->host = NULL;
    }
    return news_start(k, e);
}

void host_leave(struct keeper *k)
{
    struct err e;

    for (const struct kept *s = k->kept; s; s = s->next)
        if (s->tier == EGRESS_VETH)
            return;
    if (k->conf.host != KEEPER_HOST_ALL || k->is_host_stale)
        return;
    if (nft_uninstall(k->host, &e) < 0 || rt_tproxy_drop(k->host_rt_fd, &e) < 0)
        log_warn("host.leave", "error=%s", log_e(&e));
}

void host_stop(struct keeper *k)
{
    if (k->host_rt_io)
        loop_io_stop(&k->host_rt_io);
    news_stop(k);
    sock_close(&k->host_nflog_fd);
    sock_close(&k->host_rt_fd);
    sock_close(&k->host_rt_news_fd);
    nft_close(k->host);
    k->host = NULL;
}
