/* SPDX-License-Identifier: MIT */
#include "agentd/link/cares.h"

#include "common/mem.h"

/* One of the channel's sockets. */
struct cares_socket {
    struct cares_socket *next;
    struct cares *cares; /* borrowed: its owner */
    struct loop_io *io;
    int fd; /* c-ares' */
};

void cares_arm(struct cares *c)
{
    struct timeval tv;

    if (!ares_timeout(c->channel, NULL, &tv)) {
        loop_timer_stop(&c->tick);
        return;
    }
    loop_timer_start(&c->tick,
                     (uint64_t)tv.tv_sec * 1000 + (uint64_t)(tv.tv_usec + 999) / 1000);
}

/* c-ares names its next time-out after each step; without the timer no query
 * is repeated. */
static void on_tick(void *arg)
{
    struct cares *c = arg;

    ares_process_fd(c->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    cares_arm(c);
}

static void on_io(void *arg, unsigned events)
{
    const struct cares_socket *s = arg;
    struct cares *c = s->cares;
    int fd = s->fd; /* the socket may die in the next call */

    ares_process_fd(c->channel, events & LOOP_READ ? fd : ARES_SOCKET_BAD,
                    events & LOOP_WRITE ? fd : ARES_SOCKET_BAD);
    cares_arm(c);
}

static struct cares_socket *watch(struct cares *c, int fd)
{
    struct cares_socket *s = mem_zalloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->cares = c;
    s->fd = fd;
    s->io = loop_io_start(c->loop, fd, on_io, s, NULL);
    if (!s->io) {
        mem_free(s);
        return NULL;
    }
    s->next = c->sockets;
    c->sockets = s;
    return s;
}

static void unwatch(struct cares_socket **at)
{
    struct cares_socket *s = *at;

    *at = s->next;
    loop_io_stop(&s->io);
    mem_free(s);
}

/* Both flags zero: c-ares closes the socket next. */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct cares *c = arg;
    struct cares_socket **at = &c->sockets, *s;

    while (*at && (*at)->fd != fd)
        at = &(*at)->next;
    if (!readable && !writable) {
        if (*at)
            unwatch(at);
        return;
    }
    s = *at ? *at : watch(c, fd);
    if (s) /* else no memory: the asker's deadline ends it */
        loop_io_want(s->io, (readable ? LOOP_READ : 0u) | (writable ? LOOP_WRITE : 0u));
}

void cares_init(struct cares *c, struct loop *l)
{
    *c = (struct cares){.loop = l};
    loop_timer_init(&c->tick, l, on_tick, c);
}

int cares_open(struct cares *c, struct ares_options *opt, int mask, const char *servers,
               struct err *e)
{
    int rc;

    opt->sock_state_cb = on_socket;
    opt->sock_state_cb_data = c;
    rc = ares_init_options(&c->channel, opt, mask | ARES_OPT_SOCK_STATE_CB);
    if (rc != ARES_SUCCESS) {
        c->channel = NULL;
        return err_set(e, rc == ARES_ENOMEM ? ERR_NOMEM : ERR_CONFIG,
                       "setting up the resolver: %s", ares_strerror(rc));
    }
    rc = servers ? ares_set_servers_ports_csv(c->channel, servers) : ARES_SUCCESS;
    if (rc != ARES_SUCCESS)
        return err_set(e, ERR_CONFIG, "name servers \"%s\": %s", servers,
                       ares_strerror(rc));
    return 0;
}

void cares_done(struct cares *c)
{
    loop_timer_stop(&c->tick);
    if (c->channel)
        ares_destroy(c->channel);
    c->channel = NULL;
    while (c->sockets)
        unwatch(&c->sockets);
}
