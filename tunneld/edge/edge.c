/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/edge.h"

#include <string.h>

#include "common/mem.h"
#include "common/metrics.h"
#include "tunneld/edge/edge_int.h"

static void on_log(void *arg)
{
    UNUSED_ARG(arg);
    log_flush();
}

struct edge *edge_new(const struct edge_conf *c, struct err *e)
{
    struct edge *edge = mem_zalloc(1, sizeof(*edge));

    if (!edge) {
        (void)err_set(e, ERR_NOMEM, "edge");
        return NULL;
    }
    edge->loop = c->loop;
    loop_job_init(&edge->log_job, c->loop, on_log, NULL);
    edge->registry = c->registry;
    edge->conf = config_ref(c->config);
    edge->tls = c->tls;
    edge->keys = c->keys;
    memcpy(edge->cookie_key, c->cookie_key, sizeof(edge->cookie_key));
    edge->ops = c->ops;
    edge->owner = c->owner;
    edge->rx = mem_alloc(EDGE_RX);
    edge->request = mem_zalloc(1, sizeof(*edge->request));
    edge->response = mem_zalloc(1, sizeof(*edge->response));
    if (!edge->rx || !edge->request || !edge->response) {
        edge_free(edge);
        (void)err_set(e, ERR_NOMEM, "edge");
        return NULL;
    }
    return edge;
}

void edge_free(struct edge *e)
{
    if (!e)
        return;
    while (e->clients) {
        struct client *c = e->clients;

        client_cut(c, "server-stopped");
        client_free(c);
    }
    loop_job_cancel(&e->log_job);
    log_flush();
    config_unref(e->conf);
    mem_free(e->rx);
    mem_free(e->request);
    mem_free(e->response);
    buf_done(&e->tx);
    explicit_bzero(e->cookie_key, sizeof(e->cookie_key));
    mem_free(e);
}

void edge_accept(struct edge *e, struct worker_guest *take)
{
    int64_t open =
        atomic_load_explicit(&metrics_value[METRIC_CONNS_OPEN], memory_order_relaxed);

    if (open >= e->conf->limits.connections) {
        metric_inc(METRIC_CONNS_REFUSED);
        conn_parts_done(&take->parts);
        return;
    }
    (void)client_new(e, take);
}

void edge_set_config(struct edge *e, const struct config *config)
{
    struct config *old = e->conf;

    e->conf = config_ref(config);
    for (struct client *c = e->clients; c; c = c->next)
        c->x.site.conf = e->conf;
    config_unref(old);
}

void edge_set_keys(struct edge *e, const struct token_keys *keys)
{
    e->keys = keys;
}

/* A client that has connected, or was told that its connection stays, may have its next request
 * on the way: it is answered with `Connection: close`. One that is quiet for a while has none. */
void edge_drain(struct edge *e)
{
    struct client *c;

    e->is_draining = true;
    for (c = e->clients; c; c = c->next)
        if (c->state == CLIENT_HEAD && c->in.len == 0)
            client_wait_idle(c);
}

bool edge_is_idle(const struct edge *e)
{
    return !e->clients;
}
