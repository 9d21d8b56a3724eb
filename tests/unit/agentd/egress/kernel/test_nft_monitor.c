/* SPDX-License-Identifier: MIT */
#include "agentd/egress/kernel/nft_int.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>

#include "agentd/egress/kernel/rt.h"
#include "common/sock.h"
#include "tests/support/egress_ns.h"
#include "tests/support/test.h"

enum {
    OURS = 0x50000001, /* port ids */
    LISTENER = 0x50000002,
};

static int netlink(int protocol)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

    NEED(fd >= 0);
    return fd;
}

static void flush_output(struct nft_batch *b)
{
    build_chain_flush(b, "output");
}

/* What waits: how many messages of namespace `nsid`, and is one about n's table? */
static unsigned news(int fd, int nsid, const struct nft *n, bool *ret_touches)
{
    static struct nft_news got;
    unsigned count = 0;

    *ret_touches = false;
    while (nft_monitor_next(fd, &got) == NFT_GOT_NEWS) {
        NEED(got.nsid == nsid);
        *ret_touches = *ret_touches || nft_news_touches(&got, n);
        count++;
    }
    return count;
}

static struct nft *table_of_ours(void)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    int fd = netlink(NETLINK_NETFILTER), second = netlink(NETLINK_NETFILTER);
    struct nft *n;

    NEED(nft_bind(fd, OURS));
    NEED(!nft_bind(second, OURS));
    sock_close(&second);
    NEED_OK((n = nft_open(&fd, &e)) == NULL ? -1 : 0);
    NEED(nft_port(n) == OURS);
    NEED_OK(nft_install(n, &base, &e));
    return n;
}

static void all_namespaces(void)
{
    int rt = netlink(NETLINK_ROUTE), fd = netlink(NETLINK_NETFILTER), ns, id = -1;
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct nft *here, *there;
    bool touches;

    NEED(nft_bind(fd, LISTENER));
    NEED(nft_monitor_all(fd));
    NEED_OK(nft_monitor_start(fd, OURS, &e));
    here = table_of_ours();
    NEED(unshare(CLONE_NEWNET) == 0);
    there = table_of_ours();
    egress_ns_foreign(EGRESS_NFT, flush_output);
    NEED(news(fd, -1, here, &touches) == 0); /* ours, and of one without a number */
    ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    NEED_OK(id = rt_nsid(rt, ns, &e));
    NEED(id >= 0 && rt_nsid(rt, ns, NULL) == id);
    NEED_OK(nft_install(there, &base, &e));
    NEED(news(fd, id, there, &touches) == 0);
    egress_ns_foreign(EGRESS_NFT, flush_output);
    NEED(news(fd, id, there, &touches) > 0 && touches);
    egress_ns_foreign("another", build_table);
    NEED(news(fd, id, there, &touches) > 0 && !touches);
    nft_close(there);
    nft_close(here);
    sock_close(&ns);
    sock_close(&rt);
    sock_close(&fd);
}

static void own_namespace(void)
{
    int fd = netlink(NETLINK_NETFILTER);
    bool touches;
    struct nft *n;

    NEED_OK(nft_monitor_start(fd, OURS, &e));
    n = table_of_ours();
    NEED(news(fd, -1, n, &touches) == 0);
    egress_ns_foreign(EGRESS_NFT, flush_output);
    NEED(news(fd, -1, n, &touches) > 0 && touches);
    nft_close(n);
    sock_close(&fd);
}

static void lost_news(void)
{
    int fd = netlink(NETLINK_NETFILTER), least = 1, more = 65536;
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct nft *n;

    NEED_OK(nft_monitor_start(fd, OURS, &e));
    NEED(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof least) == 0);
    n = table_of_ours();
    for (int i = 0; i < 64; i++)
        egress_ns_foreign(EGRESS_NFT, flush_output);
    NEED(nft_monitor_read(n, fd) == NFT_CHANGE_LOST);
    NEED(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &more, sizeof more) == 0);
    while (nft_monitor_read(n, fd) != NFT_CHANGE_NONE)
        ;
    NEED_OK(nft_install(n, &base, &e)); /* or there is nothing to flush */
    egress_ns_foreign(EGRESS_NFT, flush_output);
    NEED(nft_monitor_read(n, fd) == NFT_CHANGE_OURS_TOUCHED);
    nft_close(n);
    sock_close(&fd);
}

BOTH(one_socket_hears_of_numbered_namespaces_but_not_of_our_own_changes, all_namespaces)
BOTH(a_socket_there_hears_of_others_changes_only, own_namespace)
BOTH(news_that_did_not_fit_are_said_to_be_lost, lost_news)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            one_socket_hears_of_numbered_namespaces_but_not_of_our_own_changes),
        cmocka_unit_test(a_socket_there_hears_of_others_changes_only),
        cmocka_unit_test(news_that_did_not_fit_are_said_to_be_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
