/* SPDX-License-Identifier: MIT */
/* A stream to the app, as it is used by one exchange after another of one client. */
#include "tunneld/edge/edge_int.h"

#include "common/mem.h"
#include "common/metrics.h"

struct upstream *upstream_new(struct client *c, const struct site *s)
{
    struct upstream *u = mem_zalloc(1, sizeof(*u));

    if (!u)
        return NULL;
    u->client = c;
    u->port = s->port;
    memcpy(u->id, s->id, sizeof(u->id));
    u->is_active = true;
    return u;
}

void upstream_open(struct upstream *u, struct mux_stream *s)
{
    u->stream = s;
    metric_inc(METRIC_STREAMS);
}

static void gone(struct upstream *u)
{
    u->stream = NULL;
    metric_add(METRIC_STREAMS, -1);
}

static void unlink_kept(struct upstream *u)
{
    struct upstream **at = &u->client->kept;

    while (*at != u)
        at = &(*at)->next;
    *at = u->next;
    u->next = NULL;
}

void upstream_drop(struct upstream **take, enum mux_reason why)
{
    struct upstream *u = *take;

    *take = NULL;
    if (!u)
        return;
    if (u->stream) {
        mux_stream_reset(u->stream, why);
        gone(u);
    }
    buf_done(&u->head);
    mem_free(u);
}

static void drop_kept(struct upstream *u)
{
    unlink_kept(u);
    upstream_drop(&u, MUX_REASON_CANCEL);
}

void upstream_drop_kept(struct client *c)
{
    while (c->kept)
        drop_kept(c->kept);
}

struct upstream *upstream_take(struct client *c, const struct site *s, uint64_t max_ms)
{
    uint64_t now = loop_now(c->edge->loop);

    for (struct upstream *u = c->kept; u; u = u->next) {
        if (u->port != s->port || strcmp(u->id, s->id) != 0 || now - u->idle_ms > max_ms)
            continue;
        unlink_kept(u);
        u->is_active = u->is_reused = true;
        u->has_bytes = false;
        return u;
    }
    return NULL;
}

void upstream_keep(struct upstream **take)
{
    struct upstream *u = *take, *last;
    struct client *c = u->client;
    unsigned n = 1;

    *take = NULL;
    buf_done(&u->head);
    u->is_active = false;
    u->idle_ms = loop_now(c->edge->loop);
    u->next = c->kept;
    c->kept = u;
    for (last = u; last->next; last = last->next)
        n++;
    if (n > EDGE_KEPT)
        drop_kept(last);
}

/* -- events ---------------------------------------------------------------------------- */

static void on_accepted(void *user)
{
    struct upstream *u = user;
    struct client *c = u->client;

    u->is_accepted = true;
    if (!u->is_active)
        return;
    exchange_accepted(c);
    client_watch(c);
}

static size_t on_data(void *user, struct span bytes)
{
    struct upstream *u = user;
    struct client *c = u->client;
    enum relay_result r;
    const char *rule;
    size_t used;

    if (!u->is_active) {
        /* An answer nobody asked for would be taken for the next one's. */
        drop_kept(u);
        return bytes.len;
    }
    r = relay_down(c, bytes, &used, &rule);
    relay_act(c, r, rule);
    client_watch(c);
    return used;
}

static void on_eof(void *user)
{
    struct upstream *u = user;
    struct client *c = u->client;

    u->has_eof = true;
    if (!u->is_active) {
        drop_kept(u);
        return;
    }
    relay_eof(c);
    client_watch(c);
}

static void on_writable(void *user)
{
    struct upstream *u = user;

    if (u->is_active)
        relay_up(u->client);
}

static void on_closed(void *user, enum mux_reason why)
{
    struct upstream *u = user;
    struct client *c = u->client;

    gone(u);
    if (!u->is_active) {
        drop_kept(u);
        return;
    }
    exchange_lost(c, why);
    client_watch(c);
}

const struct mux_stream_ops upstream_ops = {
    .accepted = on_accepted,
    .data = on_data,
    .eof = on_eof,
    .writable = on_writable,
    .closed = on_closed,
};
