/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "tunneld/edge/arrival.h"

struct listener {
    struct listeners *set;
    int fd;
    struct loop_io *io;
    struct config_listen how;
};

struct listeners {
    struct loop *loop;   /* borrowed */
    struct config *conf; /* a reference */
    struct arrivals arrivals;
    struct listener one[CONFIG_LISTEN_MAX];
    unsigned n;
    int reserve;             /* a descriptor to give up when all are used, or -1 */
    struct loop_timer pause; /* runs: no accepting until it fires */
    struct log_rate untrusted_rate, full_rate;
};

static void want_all(struct listeners *ls, unsigned events)
{
    for (unsigned i = 0; i < ls->n; i++)
        if (ls->one[i].io)
            loop_io_want(ls->one[i].io, events);
}

static void on_pause_over(void *arg)
{
    want_all(arg, LOOP_READ);
}

static void reserve_open(struct listeners *ls)
{
    if (ls->reserve < 0)
        ls->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

struct listeners *listeners_new(struct loop *l, const struct config *conf,
                                listener_deliver_fn *deliver, void *owner, struct err *e)
{
    struct listeners *ls = mem_zalloc(1, sizeof *ls);

    if (!ls) {
        (void)err_set(e, ERR_NOMEM, "listeners");
        return NULL;
    }
    ls->loop = l;
    ls->conf = config_ref(conf);
    ls->arrivals = (struct arrivals){
        .loop = l, .conf = ls->conf, .deliver = deliver, .owner = owner};
    ls->reserve = -1;
    loop_timer_init(&ls->pause, l, on_pause_over, ls);
    reserve_open(ls);
    return ls;
}

void listeners_set_config(struct listeners *ls, const struct config *conf)
{
    config_unref(ls->conf);
    ls->conf = config_ref(conf);
    ls->arrivals.conf = ls->conf;
}

/* No descriptor left. The connection that waits is taken with the reserve and closed, so that
 * its client knows; then a pause, because level-triggered readiness would spin. */
static void no_descriptors(struct listeners *ls, int fd)
{
    struct sock_addr client;
    unsigned dropped;
    int victim;

    if (log_rate_ok(&ls->full_rate, loop_now(ls->loop), &dropped))
        log_warn("accept.full", "why=%s dropped=%u", log_q("no file descriptors left"),
                 dropped);
    sock_close(&ls->reserve);
    victim = sock_accept(fd, &client);
    if (victim >= 0) {
        metric_inc(METRIC_CONNS_REFUSED);
        sock_reset(&victim);
    }
    reserve_open(ls);
    want_all(ls, 0);
    loop_timer_start(&ls->pause, ACCEPT_PAUSE_MS);
}

/* Plaintext and PROXY listeners serve only the balancers that the operator named. */
static bool may_come(struct listeners *ls, const struct listener *l,
                     const struct sock_addr *client)
{
    char text[SOCK_TEXT_MAX];
    unsigned dropped;

    if ((l->how.has_tls && !l->how.has_proxy_protocol) || config_trusts(ls->conf, client))
        return true;
    if (log_rate_ok(&ls->untrusted_rate, loop_now(ls->loop), &dropped))
        log_warn("accept.untrusted", "client=%s why=%s dropped=%u",
                 sock_print(client, text), log_q("not in trusted_proxies"), dropped);
    return false;
}

static bool has_room(struct listeners *ls)
{
    unsigned dropped;
    int64_t open = (int64_t)ls->arrivals.n +
                   atomic_load(&metrics_value[METRIC_CONNS_OPEN]) +
                   atomic_load(&metrics_value[METRIC_LINKS]);

    if (open < ls->conf->limits.connections)
        return true;
    if (log_rate_ok(&ls->full_rate, loop_now(ls->loop), &dropped))
        log_warn("accept.full", "why=%s dropped=%u", log_q("limits.connections"),
                 dropped);
    return false;
}

static void on_connection(void *arg, unsigned events)
{
    struct listener *l = arg;
    struct listeners *ls = l->set;
    struct sock_addr client;

    UNUSED_ARG(events);
    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        int fd = sock_accept(l->fd, &client);

        if (fd < 0 &&
            (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            no_descriptors(ls, l->fd);
            return;
        }
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0)
            continue; /* the connection is gone already: accept(2) */
        metric_inc(METRIC_CONNS_ACCEPTED);
        if (!may_come(ls, l, &client) || !has_room(ls)) {
            metric_inc(METRIC_CONNS_REFUSED);
            sock_close(&fd);
            continue;
        }
        arrival_start(&ls->arrivals, &fd, &l->how, &client);
    }
}

int listeners_add(struct listeners *ls, int *take_fd, const struct config_listen *how,
                  struct err *e)
{
    struct listener *l = &ls->one[ls->n];
    int fd = *take_fd;

    *take_fd = -1;
    if (ls->n == CONFIG_LISTEN_MAX) {
        sock_close(&fd);
        return err_set(e, ERR_LIMIT, "more than %d listeners", CONFIG_LISTEN_MAX);
    }
    *l = (struct listener){.set = ls, .fd = fd, .how = *how};
    l->io = loop_io_start(ls->loop, fd, on_connection, l, e);
    if (!l->io) {
        sock_close(&l->fd);
        return -1;
    }
    ls->n++;
    return 0;
}

void listeners_start(struct listeners *ls)
{
    want_all(ls, LOOP_READ);
}

/* Those who have connected by now are served; only the sockets are closed. One that a service
 * manager passed stays open there, with its queue. */
void listeners_stop(struct listeners *ls)
{
    loop_timer_stop(&ls->pause);
    for (unsigned i = 0; i < ls->n; i++) {
        if (ls->one[i].io)
            on_connection(&ls->one[i], LOOP_READ);
        loop_timer_stop(&ls->pause);
        loop_io_stop(&ls->one[i].io);
        sock_close(&ls->one[i].fd);
    }
}

unsigned listeners_pending(const struct listeners *ls)
{
    return ls->arrivals.n;
}

void listeners_free(struct listeners *ls)
{
    if (!ls)
        return;
    loop_timer_stop(&ls->pause);
    for (unsigned i = 0; i < ls->n; i++) {
        loop_io_stop(&ls->one[i].io);
        sock_close(&ls->one[i].fd);
    }
    arrivals_done(&ls->arrivals);
    sock_close(&ls->reserve);
    config_unref(ls->conf);
    mem_free(ls);
}
