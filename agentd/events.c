/* SPDX-License-Identifier: MIT */
#include "agentd/events.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

#define PIECE 4096 /* PIPE_BUF: so much never blocks on a pipe that is writable */

struct events {
    struct loop *loop;
    int fd;
    bool is_json;
    bool is_broken; /* nobody reads any more */
    struct buf out;
    struct loop_timer retry;
    unsigned dropped;
};

/* Write what can be written without waiting. */
static void flush(struct events *ev)
{
    struct pollfd p = {.fd = ev->fd, .events = POLLOUT};
    size_t len;
    ssize_t n;

    while (ev->out.len > 0 && !ev->is_broken) {
        if (poll(&p, 1, 0) != 1)
            break;
        len = ev->out.len < PIECE ? ev->out.len : PIECE;
        n = write(ev->fd, ev->out.p, len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            break;
        if (n < 0) {
            log_warn("events.broken", "errno=%d", errno);
            ev->is_broken = true;
            break;
        }
        buf_drop(&ev->out, (size_t)n);
    }
    if (ev->is_broken)
        ev->out.len = 0;
    else if (ev->out.len > 0)
        loop_timer_start(&ev->retry, EVENTS_RETRY_MS);
}

static void on_retry(void *arg)
{
    flush(arg);
}

static int put_time(struct buf *b)
{
    struct timespec t;
    struct tm tm;

    (void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail */
    (void)gmtime_r(&t.tv_sec, &tm);          /* nor this, before the year 2^31 */
    return buf_addf(b, "\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\"",
                    tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                    tm.tm_sec, t.tv_nsec / 1000000);
}

static int put_member(struct buf *b, const char *key, const char *value)
{
    if (buf_addf(b, ",\"%s\":", key) < 0)
        return -1;
    return json_put_str(b, span_str(value));
}

static int begin(struct buf *b, const char *event)
{
    return buf_addf(b, "{\"event\":\"%s\",", event) < 0 || put_time(b) < 0 ? -1 : 0;
}

/* A whole line, or nothing of it. */
static void tell(struct events *ev, struct buf *line, int failed)
{
    if (ev->is_broken)
        return;
    if (failed || ev->out.len + line->len + 1 > EVENTS_MAX ||
        buf_reserve(&ev->out, line->len + 1, EVENTS_MAX) < 0) {
        ev->dropped++;
        if ((ev->dropped & (ev->dropped - 1)) == 0) /* 1, 2, 4, 8, ... */
            log_warn("events.dropped", "count=%u", ev->dropped);
        return;
    }
    if (buf_add(&ev->out, line->p, line->len) < 0 || buf_adds(&ev->out, "\n") < 0)
        return; /* reserved above */
    flush(ev);
}

void events_link_up(struct events *ev, const char *server, const char *id)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (ev->is_json)
        tell(ev, &b,
             begin(&b, "link.up") < 0 || put_member(&b, "server", server) < 0 ||
                 put_member(&b, "sandbox", id) < 0 || buf_adds(&b, "}") < 0);
}

void events_link_down(struct events *ev, const char *why, bool was_up, uint32_t retry_ms)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (ev->is_json)
        tell(ev, &b,
             begin(&b, "link.down") < 0 || put_member(&b, "why", why) < 0 ||
                 buf_addf(&b, ",\"was_up\":%s,\"retry_ms\":%u}",
                          was_up ? "true" : "false", (unsigned)retry_ms) < 0);
}

void events_link_replaced(struct events *ev, const char *by, const char *at)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (ev->is_json)
        tell(ev, &b,
             begin(&b, "link.replaced") < 0 || put_member(&b, "by", by) < 0 ||
                 put_member(&b, "at", at) < 0 || buf_adds(&b, "}") < 0);
}

void events_port_opened(struct events *ev, const struct published_port *p)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    char address[SOCK_TEXT_MAX];

    if (!ev->is_json) {
        tell(ev, &b, buf_adds(&b, p->url));
        return;
    }
    tell(ev, &b,
         begin(&b, "port.opened") < 0 || buf_addf(&b, ",\"port\":%u", p->port) < 0 ||
             put_member(&b, "url", p->url) < 0 ||
             put_member(&b, "address", sock_print_ip(&p->listen, address)) < 0 ||
             put_member(&b, "process", p->holder.name) < 0 ||
             buf_addf(&b, ",\"pid\":%ld,\"public\":%s}", (long)p->holder.pid,
                      p->is_public ? "true" : "false") < 0);
}

void events_port_closed(struct events *ev, uint16_t port)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (ev->is_json)
        tell(ev, &b,
             begin(&b, "port.closed") < 0 || buf_addf(&b, ",\"port\":%u}", port) < 0);
}

void events_port_refused(struct events *ev, uint16_t port, const char *why)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (ev->is_json)
        tell(ev, &b,
             begin(&b, "port.refused") < 0 || buf_addf(&b, ",\"port\":%u", port) < 0 ||
                 put_member(&b, "why", why) < 0 || buf_adds(&b, "}") < 0);
}

struct events *events_new(struct loop *l, int fd, bool json)
{
    struct events *ev = mem_zalloc(1, sizeof *ev);

    if (!ev)
        return NULL;
    ev->loop = l;
    ev->fd = fd;
    ev->is_json = json;
    loop_timer_init(&ev->retry, l, on_retry, ev);
    return ev;
}

void events_free(struct events *ev)
{
    struct pollfd p = {.events = POLLOUT};
    uint64_t until = clock_us() + EVENTS_LAST_MS * UINT64_C(1000);

    if (!ev)
        return;
    p.fd = ev->fd;
    flush(ev);
    while (ev->out.len > 0 && clock_us() < until) {
        (void)poll(&p, 1, EVENTS_RETRY_MS); /* flush() looks again */
        flush(ev);
    }
    loop_timer_stop(&ev->retry);
    buf_done(&ev->out);
    mem_free(ev);
}
