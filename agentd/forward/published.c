/* SPDX-License-Identifier: MIT */
#include "agentd/forward/published.h"

#include <string.h>

#include "common/mem.h"

void published_done(struct published *t)
{
    size_t i;

    for (i = 0; i < t->n; i++)
        mem_free(t->at[i]);
    mem_free(t->at);
    memset(t, 0, sizeof *t);
}

/* Where the port is, or would be. */
static size_t place(const struct published *t, uint16_t port)
{
    size_t low = 0, high = t->n, mid;

    while (low < high) {
        mid = low + (high - low) / 2;
        if (t->at[mid]->port < port)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct published_port *published_find(const struct published *t, uint16_t port)
{
    size_t i = place(t, port);

    return i < t->n && t->at[i]->port == port ? t->at[i] : NULL;
}

struct published_port *published_add(struct published *t, uint16_t port)
{
    size_t i = place(t, port), cap;
    struct published_port **at, *p;

    if (i < t->n && t->at[i]->port == port)
        return t->at[i];
    if (port == 0 || t->n >= CONTROL_PORTS_MAX)
        return NULL;
    if (t->n == t->cap) {
        cap = t->cap ? t->cap * 2 : 8;
        at = mem_resize(t->at, cap * sizeof(struct published_port *));
        if (!at)
            return NULL;
        t->at = at;
        t->cap = cap;
    }
    p = mem_zalloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->port = port;
    (void)sock_parse_ip(span_str("127.0.0.1"), port, &p->dial); /* a valid address */
    p->listen = p->dial;
    memmove(t->at + i + 1, t->at + i, (t->n - i) * sizeof(struct published_port *));
    t->at[i] = p;
    t->n++;
    return p;
}

void published_drop(struct published *t, uint16_t port)
{
    size_t i = place(t, port);

    if (i == t->n || t->at[i]->port != port)
        return;
    mem_free(t->at[i]);
    t->n--;
    memmove(t->at + i, t->at + i + 1, (t->n - i) * sizeof(struct published_port *));
}
