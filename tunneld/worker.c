/* SPDX-License-Identifier: MIT */
/*
 * Theory: how a worker ends, in three steps that the server orders for all workers together,
 * so that none gives a connection to one that is gone.
 *
 *   SERVING   worker_drain(): the edge takes no new requests, the listener none at all
 *   DRAINING  exchanges finish, at most drain_ms; then the edge is freed, the agents are told,
 *             and the server hears quiet()
 *   QUIET     worker_stop(): links get a moment to close in order, then libwebsockets goes
 *   ENDED     the loop stops, the thread ends
 */
#include "tunneld/worker.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "tunneld/edge/edge.h"
#include "tunneld/keys.h"
#include "tunneld/server.h"
#include "tunneld/tunnel/session.h"

enum {
    LOOK_MS = 20
}; /* how often a worker that ends looks whether it may go on */

enum worker_state {
    SERVING,
    DRAINING,
    QUIET,
    ENDED
};

struct worker {
    struct worker_shared shared;
    struct loop *loop;
    struct config *conf; /* references */
    struct keys *keys;
    struct tunnel tunnel;
    struct registry *registry;
    struct link_server *links;
    struct edge *edge; /* NULL from QUIET on */
    pthread_t thread;
    bool has_thread;
    enum worker_state state;
    struct loop_timer look;
    uint64_t until_ms; /* of DRAINING, of QUIET */
};

/* What is posted to a worker. */
struct letter {
    struct worker *w;
    struct worker_guest guest;
    struct config *conf; /* references, or NULL */
    struct keys *keys;
    uint64_t ms;
};

/* -- what the link server asks ------------------------------------------------------------------ */

static int on_admit(void *owner, const struct link_request *rq, void **ret_pass,
                    struct link_refusal *ret)
{
    struct worker *w = owner;
    struct token *token = mem_alloc(sizeof *token);

    if (!token) {
        *ret = (struct link_refusal){503, "limit", 10, "the server has no memory"};
        return -1;
    }
    if (admit(&w->tunnel, rq, (int64_t)time(NULL), token, ret) < 0) {
        mem_free(token);
        return -1;
    }
    *ret_pass = token;
    return 0;
}

static int on_opened(void *owner, struct link *l, void *pass,
                     const struct sock_addr *client)
{
    struct worker *w = owner;
    struct token *token = pass;

    return session_new(&w->tunnel, l, &token, client);
}

static void on_dropped(void *owner, void *pass)
{
    UNUSED_ARG(owner);
    mem_free(pass);
}

static const struct link_server_ops links_ops = {on_admit, on_opened, on_dropped};

/* -- what the edge asks -------------------------------------------------------------------------- */

static bool on_owns(void *owner, const char *id)
{
    struct worker *w = owner;

    return server_owner(w->shared.server, id) == w;
}

static void on_give(void *owner, const char *id, struct worker_guest *take)
{
    struct worker *w = owner;

    worker_give(server_owner(w->shared.server, id), take);
}

static bool on_find_name(void *owner, const char *name, char ret_id[HOST_ID_MAX + 1],
                         uint16_t *ret_port)
{
    struct worker *w = owner;

    return directory_find(w->shared.directory, name, ret_id, ret_port);
}

static bool on_find_tenant(void *owner, const char *id,
                           char ret_tenant[TOKEN_TENANT_MAX + 1])
{
    struct worker *w = owner;

    return directory_owner(w->shared.directory, id, ret_tenant);
}

static const struct edge_ops worker_edge_ops = {on_owns, on_give, on_find_name,
                                                on_find_tenant};

/* -- making --------------------------------------------------------------------------------------- */

static void set_budget(struct worker *w)
{
    w->tunnel.budget.max_bytes =
        (size_t)w->conf->limits.buffer_bytes / (w->conf->workers ? w->conf->workers : 1);
}

static int make_edge(struct worker *w, struct err *e)
{
    struct edge_conf c = {.loop = w->loop,
                          .registry = w->registry,
                          .config = w->conf,
                          .tls = w->shared.tls,
                          .keys = keys_tokens(w->keys),
                          .ops = &worker_edge_ops,
                          .owner = w};

    if (keys_derive(w->keys, "cookie", c.cookie_key) < 0)
        return err_set(e, ERR_SYS, "derive the key for cookies");
    w->edge = edge_new(&c, e);
    return w->edge ? 0 : -1;
}

static void on_look(void *arg);

static int make(struct worker *w, struct err *e)
{
    w->loop = loop_new(e);
    if (!w->loop)
        return -1;
    loop_timer_init(&w->look, w->loop, on_look, w);
    w->registry = registry_new(w->loop, w->conf, e);
    if (!w->registry)
        return -1;
    w->tunnel = (struct tunnel){.loop = w->loop,
                                .conf = w->conf,
                                .keys = keys_tokens(w->keys),
                                .directory = w->shared.directory,
                                .registry = w->registry};
    set_budget(w);
    w->links = link_server_new(w->loop, w->shared.certs, &links_ops, w, e);
    return w->links ? make_edge(w, e) : -1;
}

struct worker *worker_new(const struct worker_shared *shared, const struct config *conf,
                          struct keys *keys, struct err *e)
{
    struct worker *w = mem_zalloc(1, sizeof *w);

    if (!w) {
        (void)err_set(e, ERR_NOMEM, "worker");
        return NULL;
    }
    w->shared = *shared;
    w->conf = config_ref(conf);
    w->keys = keys_ref(keys);
    if (make(w, e) < 0) {
        worker_free(w);
        return NULL;
    }
    return w;
}

/* When it never ran, or its thread has ended. */
void worker_free(struct worker *w)
{
    if (!w)
        return;
    edge_free(w->edge);
    link_server_free(w->links);
    registry_free(w->registry);
    if (w->loop)
        loop_timer_stop(&w->look);
    loop_free(w->loop);
    keys_unref(w->keys);
    config_unref(w->conf);
    mem_free(w);
}

static void *thread_main(void *arg)
{
    struct worker *w = arg;

    loop_run(w->loop);
    log_flush();
    return NULL;
}

int worker_start(struct worker *w, struct err *e)
{
    sigset_t all, before;
    int r;

    /* Signals are for the main thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    r = pthread_create(&w->thread, NULL, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return err_set_at(e, ERR_SYS, r, ERR_WHERE, "start a thread: %s", strerror(r));
    w->has_thread = true;
    return 0;
}

void worker_join(struct worker *w)
{
    if (w->has_thread)
        pthread_join(w->thread, NULL);
    w->has_thread = false;
}

/* -- letters ---------------------------------------------------------------------------------------- */

void worker_guest_done(struct worker_guest *g)
{
    conn_parts_done(&g->parts);
}

static void letter_free(struct letter *m)
{
    worker_guest_done(&m->guest);
    config_unref(m->conf);
    keys_unref(m->keys);
    mem_free(m);
}

static void on_guest(void *arg)
{
    struct letter *m = arg;
    struct worker *w = m->w;
    struct worker_guest *g = &m->guest;

    if (!w->edge) {
        /* too late: closed with the letter */
    } else if (!g->is_link) {
        edge_accept(w->edge, g);
    } else if (!g->parts.ssl) {
        link_server_take(w->links, &g->parts.fd, g->has_tls, buf_span(&g->parts.unread),
                         &g->client);
    }
    letter_free(m);
}

static struct letter *letter_new(struct worker *w)
{
    struct letter *m = mem_zalloc(1, sizeof *m);

    if (m) {
        m->w = w;
        m->guest.parts.fd = -1;
    }
    return m;
}

void worker_give(struct worker *w, struct worker_guest *take)
{
    struct letter *m = letter_new(w);
    struct worker_guest g = *take;

    memset(take, 0, sizeof *take);
    take->parts.fd = -1;
    if (!m) {
        worker_guest_done(&g);
        return;
    }
    m->guest = g;
    if (loop_post(w->loop, on_guest, m) < 0)
        letter_free(m);
}

static void on_reload(void *arg)
{
    struct letter *m = arg;
    struct worker *w = m->w;
    struct config *conf = w->conf;
    struct keys *keys = w->keys;

    w->conf = m->conf;
    w->keys = m->keys;
    w->tunnel.conf = w->conf;
    w->tunnel.keys = keys_tokens(w->keys);
    set_budget(w);
    registry_set_config(w->registry, w->conf);
    if (w->edge) {
        edge_set_config(w->edge, w->conf);
        edge_set_keys(w->edge, keys_tokens(w->keys));
    }
    m->conf = conf; /* the old ones go with the letter */
    m->keys = keys;
    letter_free(m);
}

void worker_reload(struct worker *w, const struct config *conf, struct keys *keys)
{
    struct letter *m = letter_new(w);

    if (!m) {
        log_err("reload.worker", "why=%s", log_q("no memory; it keeps the old set"));
        return;
    }
    m->conf = config_ref(conf);
    m->keys = keys_ref(keys);
    if (loop_post(w->loop, on_reload, m) < 0)
        letter_free(m);
}

/* -- the end ------------------------------------------------------------------------------------------ */

static void end_session(struct session *s, void *arg)
{
    UNUSED_ARG(arg);
    session_end(s, MUX_REASON_DRAIN);
}

static void become_quiet(struct worker *w)
{
    struct edge *edge = w->edge;

    w->state = QUIET;
    w->edge = NULL;
    edge_free(edge);
    registry_each(w->registry, end_session, NULL);
    w->shared.quiet(w->shared.server);
}

static void on_links_gone(void *arg)
{
    struct worker *w = arg;

    loop_stop(w->loop);
}

static void on_look(void *arg)
{
    struct worker *w = arg;
    bool is_late = loop_now(w->loop) >= w->until_ms;

    switch (w->state) {
    case DRAINING:
        if (is_late || edge_is_idle(w->edge))
            become_quiet(w);
        else
            loop_timer_start(&w->look, LOOK_MS);
        return;
    case ENDED:
        if (is_late || registry_links(w->registry) == 0)
            link_server_stop(w->links, on_links_gone, w);
        else
            loop_timer_start(&w->look, LOOK_MS);
        return;
    case SERVING:
    case QUIET:
        return;
    }
}

static void on_drain(void *arg)
{
    struct letter *m = arg;
    struct worker *w = m->w;

    if (w->state <= DRAINING) {
        w->until_ms = loop_now(w->loop) + m->ms;
        if (w->state == SERVING) {
            w->state = DRAINING;
            w->tunnel.is_draining = true;
            edge_drain(w->edge);
        }
        loop_timer_start(&w->look, 0);
    } else if (w->state == ENDED && m->ms == 0) {
        w->until_ms = 0;
    }
    letter_free(m);
}

static void on_stop(void *arg)
{
    struct letter *m = arg;
    struct worker *w = m->w;

    w->state = ENDED;
    w->until_ms = loop_now(w->loop) + m->ms;
    loop_timer_start(&w->look, 0);
    letter_free(m);
}

static void post_ms(struct worker *w, loop_job_fn *fn, uint64_t ms)
{
    struct letter *m = letter_new(w);

    if (m)
        m->ms = ms;
    if (!m || loop_post(w->loop, fn, m) < 0) {
        log_err("stop.worker", "why=%s", log_q("no memory"));
        if (m)
            letter_free(m);
    }
}

void worker_drain(struct worker *w, uint64_t drain_ms)
{
    post_ms(w, on_drain, drain_ms);
}

void worker_stop(struct worker *w, uint64_t grace_ms)
{
    post_ms(w, on_stop, grace_ms);
}
