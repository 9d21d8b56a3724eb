/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/refusals.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "agentd/egress/kernel/nflog.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    DGRAM_MAX =
        65536 /* NFLOG gathers packets of 128 bytes in less than a page's multiple */
};

struct refusals {
    struct refusals *next, **prev;
    uint64_t cookie; /* the same for all copies of a socket */
    unsigned users;
    int fd;
    struct loop_io *io;
    refusals_ward_fn *fn;
    void *arg;
    uint8_t dgram[DGRAM_MAX];
};

/* What the kernel's chain says in its prefix, where the policy alone would not
 * have refused. */
static enum verdict_stage stage_of(const char *why)
{
    static const struct {
        const char *why;
        enum verdict_stage stage;
    } rows[] = {
        {"floor", VERDICT_FLOOR}, {"private", VERDICT_FLOOR}, {"guard", VERDICT_FLOOR},
        {"denied", VERDICT_DENY}, {"limit", VERDICT_LIMIT},   {"quota", VERDICT_LIMIT},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strcmp(rows[i].why, why) == 0)
            return rows[i].stage;
    return VERDICT_DEFAULT;
}

/* The rule, where the policy says the same as the kernel did. */
static void verdict_of(const struct ward *w, const struct nflog_packet *p,
                       struct verdict *ret)
{
    struct target t = {.addr = p->to, .port = p->to_port, .protocol = p->protocol};
    enum verdict_stage stage = stage_of(p->why);

    if (stage != VERDICT_LIMIT && t.addr.family != 0) {
        decide(w->policy, &w->guard->floor, &t, clock_wall_s(), ret);
        if (!ret->allowed)
            return;
    }
    *ret = (struct verdict){.stage = stage};
    (void)snprintf(ret->text, sizeof(ret->text), "refused by the kernel: %s",
                   p->why[0] != '\0' ? p->why : "no reason told"); /* fits */
}

static void record(struct refusals *r, const struct nflog_packet *p)
{
    struct ward *w = r->fn(r->arg, p->index);
    struct verdict v;
    struct audit_record a = {.kind = AUDIT_REFUSED,
                             .by = "kernel",
                             .uid = p->uid,
                             .addr = p->to,
                             .port = p->to_port,
                             .protocol = p->protocol,
                             .verdict = &v};

    if (w == NULL)
        return; /* gone meanwhile */
    verdict_of(w, p, &v);
    ward_record_refusal(w, &a);
}

static void on_ready(void *arg, unsigned events)
{
    struct refusals *r = arg;

    UNUSED_ARG(events);
    for (int i = 0; i < REFUSALS_TURN; i++) {
        ssize_t n = recv(r->fd, r->dgram, sizeof(r->dgram), MSG_DONTWAIT);
        struct nflog_packet p;
        size_t pos = 0;

        /* ENOBUFS is told once for what was lost, and what came before can
         * still be read. */
        if (n < 0 && errno != ENOBUFS && errno != EINTR)
            return;
        if (n <= 0)
            continue;
        while (nflog_next(span_of(r->dgram, (size_t)n), &pos, &p))
            record(r, &p);
    }
}

static struct refusals *start(struct refusals **all, struct loop *l, int *take_fd,
                              uint64_t cookie, struct err *e)
{
    struct refusals *r = mem_zalloc(1, sizeof(*r));

    if (r == NULL) {
        err_set(e, ERR_NOMEM, "no memory to read what the kernel refuses");
        return NULL;
    }
    r->io = loop_io_start(l, *take_fd, on_ready, r, e);
    if (r->io == NULL) {
        mem_free(r);
        return NULL;
    }
    loop_io_want(r->io, LOOP_READ);
    r->cookie = cookie;
    r->fd = *take_fd;
    *take_fd = -1;
    r->next = *all;
    r->prev = all;
    if (r->next != NULL)
        r->next->prev = &r->next;
    *all = r;
    return r;
}

struct refusals *refusals_join(struct refusals **all, struct loop *l, int *take_fd,
                               refusals_ward_fn *fn, void *arg, struct err *e)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);
    struct refusals *r = NULL;

    if (getsockopt(*take_fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0) {
        err_sys(e, "look at the socket that tells what the kernel refuses");
    } else {
        for (r = *all; r != NULL && r->cookie != cookie; r = r->next)
            ;
        if (r == NULL)
            r = start(all, l, take_fd, cookie, e);
    }
    sock_close(take_fd);
    if (r == NULL)
        return NULL;
    r->fn = fn;
    r->arg = arg;
    r->users++;
    return r;
}

void refusals_leave(struct refusals **pr)
{
    struct refusals *r = *pr;

    *pr = NULL;
    if (r == NULL || --r->users > 0)
        return;
    loop_io_stop(&r->io);
    sock_close(&r->fd);
    *r->prev = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    mem_free(r);
}
