/* SPDX-License-Identifier: MIT */
/*
 * Others' changes of nftables, in the host's namespace and in every sealed sandbox's.
 *
 * Theory. The kernel looks at every socket that listens for such news, whatever its
 * namespace, whenever anybody changes anything: with one in each of a thousand sandboxes
 * every change pays for a thousand. So one listens for all, where we may
 * (CAP_NET_BROADCAST), and knows the namespace by its number here. Who may not
 * (`run` of an ordinary user) has one sandbox, and listens in it.
 *
 * Whose change it was is told by a port id, and that is only one namespace's. So all our
 * nftables sockets have the same: chance, so that nobody has it first or by accident. A
 * namespace where it was taken all the same is listened to by a socket of its own. The
 * listener's own is chance too: a change is not told to the port id that made it, and
 * another namespace's could be that.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/netlink.h>

#include "agentd/egress/kernel/rt.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/sock.h"

enum {
    PORT_LOW = 1 << 30, /* above any process's number, below what the kernel picks */
    NEWS_TURN = 256,    /* messages in a turn of the loop */
    TURNS_PER_S = 100,  /* another namespace's changes are not to keep us from ours */
};

uint32_t news_port(void)
{
    return PORT_LOW + crypto_random_below(PORT_LOW);
}

int news_nft_socket(struct keeper *k, struct netns *ns, struct err *e)
{
    int fd = netns_socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, e);

    if (fd >= 0)
        (void)nft_bind(fd, k->nft_port);
    return fd;
}

/* -- of all -------------------------------------------------------------------------- */

/* Nobody knows whose: the host's now, the sandboxes' soon. */
static void lost(struct keeper *k)
{
    k->hurry = k->n;
    watch_host(k);
}

/* True: something of ours was touched. */
static bool look(struct keeper *k, const struct nft_news *news)
{
    if (news->nsid < 0) {
        k->wants_host_verify =
            k->wants_host_verify || (k->host && nft_news_touches(news, k->host));
        return k->wants_host_verify;
    }
    for (struct kept *s = k->kept; s; s = s->next)
        if (s->nsid == news->nsid) {
            s->wants_verify = s->wants_verify || nft_news_touches(news, s->nft);
            return s->wants_verify;
        }
    return false;
}

static void on_news(void *arg, unsigned events)
{
    struct keeper *k = arg;
    bool is_touched = false;
    struct nft_news news;

    UNUSED_ARG(events);
    for (unsigned i = 0; i < NEWS_TURN; i++) {
        enum nft_got got = nft_monitor_next(k->news_fd, &news);

        if (got == NFT_GOT_NONE)
            break;
        if (got == NFT_GOT_LOST)
            lost(k);
        else
            is_touched = look(k, &news) || is_touched;
    }
    if (!kept_rate_ok(&k->news_rate, loop_now(k->loop), TURNS_PER_S))
        loop_io_want(k->news_io, 0); /* news_resume() goes on */
    if (!is_touched)
        return;
    if (k->wants_host_verify)
        watch_host(k);
    for (struct kept *s = k->kept; s; s = s->next)
        if (s->wants_verify && s->state != KEPT_REMOVING)
            watch_sealed(s);
}

void news_resume(struct keeper *k)
{
    if (k->news_io)
        loop_io_want(k->news_io, LOOP_READ);
}

int news_start(struct keeper *k, struct err *e)
{
    uint32_t own = k->host ? nft_port(k->host) : k->nft_port;

    k->news_fd = netns_socket(NULL, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, e);
    if (k->news_fd < 0)
        return -1;
    if (!nft_bind(k->news_fd, news_port()))
        return err_sys(e, "bind a netlink socket");
    k->has_all_news = (!k->host || own == k->nft_port) && nft_monitor_all(k->news_fd);
    if (!k->host && !k->has_all_news) {
        sock_close(&k->news_fd);
        return 0;
    }
    if (nft_monitor_start(k->news_fd, own, e) < 0)
        return -1;
    k->news_io = loop_io_start(k->loop, k->news_fd, on_news, k, e);
    if (!k->news_io)
        return -1;
    loop_io_want(k->news_io, LOOP_READ);
    return 0;
}

void news_stop(struct keeper *k)
{
    if (k->news_io)
        loop_io_stop(&k->news_io);
    sock_close(&k->news_fd);
}

/* -- of one -------------------------------------------------------------------------- */

static void on_sandbox_news(void *arg, unsigned events)
{
    struct kept *s = arg;

    UNUSED_ARG(events);
    if (nft_monitor_read(s->nft, s->news_fd) != NFT_CHANGE_NONE)
        watch_sealed(s);
}

static int listen_there(struct kept *s, struct err *e)
{
    struct keeper *k = s->keeper;

    s->news_fd = netns_socket(s->ns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, e);
    if (s->news_fd < 0 || nft_monitor_start(s->news_fd, nft_port(s->nft), e) < 0)
        return -1;
    s->news_io = loop_io_start(k->loop, s->news_fd, on_sandbox_news, s, e);
    if (!s->news_io)
        return -1;
    loop_io_want(s->news_io, LOOP_READ);
    return 0;
}

int news_watch(struct kept *s, struct err *e)
{
    struct keeper *k = s->keeper;
    struct err why = {0};

    if (k->has_all_news && netns_fd(s->ns) >= 0 && nft_port(s->nft) == k->nft_port) {
        s->nsid = rt_nsid(k->host_rt_fd, netns_fd(s->ns), &why);
        if (s->nsid >= 0)
            return 0;
        log_warn("news.number", "sandbox=%s error=%s", s->name, log_e(&why));
    }
    return listen_there(s, e);
}

void news_forget(struct kept *s)
{
    if (s->news_io)
        loop_io_stop(&s->news_io);
    sock_close(&s->news_fd);
    s->nsid = -1;
}
