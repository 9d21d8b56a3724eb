/* SPDX-License-Identifier: MIT */
/*
 * Theory. Bytes are looked at with MSG_PEEK. A byte that stays in the socket keeps it
 * readable, and a level-triggered poll would spin on it (470,000 wake-ups a second, seen). So
 * after each look that was not enough, SO_RCVLOWAT is set to what the next useful look needs;
 * the kernel then wakes us for that many bytes, or for the end of the stream. It is set back
 * to 1 before the hand-over. The PROXY header is consumed first, exactly its bytes.
 */
#include "tunneld/edge/arrival.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/proxyproto.h"
#include "tunneld/edge/classify.h"

struct arrival {
    struct arrivals *list;
    struct arrival *next, **prev;
    int fd;
    struct loop_io *io;
    struct loop_timer timer;
    struct sock_addr client; /* the socket's peer, then what the PROXY header says */
    struct http1_scan scan;
    size_t seen;    /* bytes in the socket at the last look */
    unsigned stray; /* wake-ups that showed nothing new */
    bool has_tls, needs_proxy_header, is_trusted;
    uint64_t accepted_ms;
};

/* What one look can lead to. */
enum look {
    LOOK_AGAIN,
    LOOK_MORE,
    LOOK_OVER
};

static void arrival_free(struct arrival *a)
{
    *a->prev = a->next;
    if (a->next)
        a->next->prev = a->prev;
    a->list->n--;
    loop_timer_stop(&a->timer);
    loop_io_stop(&a->io);
    sock_close(&a->fd);
    mem_free(a);
}

static void give_up(struct arrival *a, const char *why)
{
    char text[SOCK_TEXT_MAX];
    unsigned dropped;

    metric_inc(METRIC_CONNS_REFUSED);
    if (log_rate_ok(&a->list->bad_rate, loop_now(a->list->loop), &dropped))
        log_info("conn.refused", "client=%s why=%s dropped=%u",
                 sock_print(&a->client, text), log_q(why), dropped);
    arrival_free(a);
}

static void set_lowat(int fd, size_t n)
{
    int lowat = (int)n;

    /* Best effort: without it the stray counter ends what would spin. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof lowat);
}

static void hand_over(struct arrival *a, const struct host_route *route)
{
    struct worker_guest g = {.parts = {.fd = a->fd},
                             .client = a->client,
                             .is_trusted = a->is_trusted,
                             .has_tls = a->has_tls,
                             .is_link = route->kind == HOST_LINK,
                             .accepted_ms = a->accepted_ms};
    listener_deliver_fn *deliver = a->list->deliver;
    void *owner = a->list->owner;

    set_lowat(a->fd, 1);
    loop_io_stop(&a->io);
    a->fd = -1;
    arrival_free(a);
    deliver(owner, route, &g);
}

static void hand_to_anybody(struct arrival *a)
{
    struct host_route nobody = {.kind = HOST_FOREIGN};

    hand_over(a, &nobody);
}

/* For a person who typed http:// with a TLS port. Best effort, and never waits. */
static void say_use_https(struct arrival *a, struct span bytes)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nTunnel-Error: bad-request\r\n"
                               "Content-Type: text/plain\r\nConnection: close\r\n"
                               "Content-Length: 34\r\n\r\n"
                               "This port speaks TLS: use https://";
    uint8_t sink[1024];

    if (bytes.len == 0 || bytes.p[0] < 'A' || bytes.p[0] > 'Z')
        return;
    /* Unread bytes would turn the close into a reset, which can overtake the answer. */
    (void)!recv(a->fd, sink, sizeof sink, MSG_DONTWAIT);
    (void)!send(a->fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The PROXY header: LOOK_AGAIN when it was consumed. */
static enum look look_proxy(struct arrival *a, struct span bytes, size_t *ret_need)
{
    uint8_t sink[PROXYPROTO_MAX];
    struct sock_addr client;
    size_t len;

    switch (proxyproto_parse(bytes, &len, &client)) {
    case PROXYPROTO_MORE:
        *ret_need = bytes.len + 1;
        return LOOK_MORE;
    case PROXYPROTO_OK:
        if (len <= sizeof sink && recv(a->fd, sink, len, 0) == (ssize_t)len)
            break;
        give_up(a, "PROXY header cannot be read");
        return LOOK_OVER;
    case PROXYPROTO_BAD:
        give_up(a, "no valid PROXY header");
        return LOOK_OVER;
    }
    if (client.len > 0)
        a->client = client;
    a->needs_proxy_header = false;
    a->seen = 0;
    set_lowat(a->fd, 1);
    return LOOK_AGAIN;
}

static enum look look(struct arrival *a, struct span bytes, size_t *ret_need)
{
    const struct config *conf = a->list->conf;
    enum classify_result r;
    struct host_route route;

    if (a->needs_proxy_header)
        return look_proxy(a, bytes, ret_need);
    r = a->has_tls
            ? classify_tls(bytes, conf->domain, conf->control_host, &route, ret_need)
            : classify_plain(&a->scan, bytes, conf->domain, conf->control_host, &route,
                             ret_need);
    switch (r) {
    case CLASSIFY_READY:
        hand_over(a, &route);
        return LOOK_OVER;
    case CLASSIFY_MORE:
        return LOOK_MORE;
    case CLASSIFY_NOT_TLS:
        say_use_https(a, bytes);
        give_up(a, "not TLS");
        return LOOK_OVER;
    case CLASSIFY_BAD:
        break;
    }
    give_up(a, "not a valid ClientHello");
    return LOOK_OVER;
}

static bool has_ended(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLERR | POLLHUP));
}

/* After a look that was not enough: wait for more. */
static void wait_more(struct arrival *a, size_t n, size_t need)
{
    /* Awake without a new byte: the end of the stream, or a kernel short of memory. */
    if (n == a->seen && (has_ended(a->fd) || ++a->stray > CLASSIFY_STRAY)) {
        give_up(a, "ended early");
        return;
    }
    a->seen = n;
    set_lowat(a->fd, need);
    loop_io_want(a->io, LOOP_READ);
}

static void arrival_look(struct arrival *a)
{
    uint8_t bytes[CLIENTHELLO_MAX];
    enum look next;
    size_t need = 0;
    ssize_t n;

    do {
        n = recv(a->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            give_up(a, n == 0 ? "closed without a word" : "reset");
            return;
        }
        if (n < 0) {
            loop_io_want(a->io, LOOP_READ);
            return;
        }
        next = look(a, span_of(bytes, (size_t)n), &need);
    } while (next == LOOK_AGAIN);
    if (next == LOOK_MORE)
        wait_more(a, (size_t)n, need);
}

static void on_io(void *arg, unsigned events)
{
    UNUSED_ARG(events);
    arrival_look(arg);
}

static void on_deadline(void *arg)
{
    struct arrival *a = arg;

    /* The edge can answer a head that does not end; it cannot talk to a client that has not
     * begun, nor before the PROXY header. */
    if (!a->has_tls && !a->needs_proxy_header && a->seen > 0)
        hand_to_anybody(a);
    else
        give_up(a, "too slow");
}

void arrival_start(struct arrivals *list, int *take_fd, const struct config_listen *how,
                   const struct sock_addr *client)
{
    struct arrival *a = mem_zalloc(1, sizeof *a);
    struct err e;

    if (!a) {
        metric_inc(METRIC_CONNS_REFUSED);
        sock_close(take_fd);
        return;
    }
    a->list = list;
    a->fd = *take_fd;
    *take_fd = -1;
    a->client = *client;
    a->has_tls = how->has_tls;
    a->needs_proxy_header = how->has_proxy_protocol;
    a->is_trusted = config_trusts(list->conf, client);
    a->accepted_ms = loop_now(list->loop);
    a->next = list->first;
    a->prev = &list->first;
    if (a->next)
        a->next->prev = &a->next;
    list->first = a;
    list->n++;
    loop_timer_init(&a->timer, list->loop, on_deadline, a);
    loop_timer_start(&a->timer, CLASSIFY_MS);
    a->io = loop_io_start(list->loop, a->fd, on_io, a, &e);
    if (!a->io) {
        give_up(a, e.msg);
        return;
    }
    arrival_look(a); /* most have said something by now */
}

void arrivals_done(struct arrivals *list)
{
    while (list->first)
        arrival_free(list->first);
}
