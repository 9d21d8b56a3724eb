/* SPDX-License-Identifier: MIT */
#include "tunneld/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/notify.h"
#include "tunneld/admin.h"
#include "tunneld/edge/listener.h"
#include "tunneld/edge/redirect.h"
#include "tunneld/keys.h"
#include "tunneld/systemd.h"

enum {
    EXIT_CONFIG = 2,
    LOOK_MS = 10,       /* how often a server that ends looks whether it may go on */
    HAND_OVER_MS = 500, /* for those who are connected but have not said for whom */
    FD_RESERVE =
        1024, /* descriptors beside limits.connections: files, loops, small_http */
};

enum server_state {
    STARTING,
    SERVING,
    DRAINING,
    ENDING
};

struct server {
    const char *config_path;
    struct loop *loop;
    struct config *conf; /* references */
    struct keys *keys;
    struct tls_cert_slot *certs; /* NULL: no TLS listener */
    struct tls_ctx *tls;
    struct directory *directory;
    struct listeners *listeners;
    struct small_http *redirect[CONFIG_LISTEN_MAX];
    struct small_http *admin;
    struct worker **worker;
    unsigned n_workers, n_running, n_quiet;
    enum server_state state;
    bool is_hurried; /* a second signal came */
    struct loop_timer look;
    uint64_t hand_over_ms;
    struct config_bound bound;
    struct buf listen_text, redirect_text, admin_text; /* for event=ready */
};

struct worker *server_owner(struct server *s, const char *id)
{
    return s->worker[directory_hash(s->directory, id) % s->n_workers];
}

/* -- making -------------------------------------------------------------------------------------- */

static void print_fault(void *arg, const char *place, const char *rule)
{
    const struct server *s = arg;

    if (s->state == STARTING)
        (void)fprintf(stderr, "%s: %s: %s\n", s->config_path, place, rule);
    else
        log_err("reload.fault", "place=%s rule=%s", log_q(place), log_q(rule));
}

static int load_certs(struct server *s, struct err *e)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    struct tls_cert *cert;

    if (!s->conf->tls_cert)
        return 0;
    cert = tls_cert_load(s->conf->tls_cert, s->conf->tls_key, e);
    if (!cert)
        return -1;
    s->certs = tls_cert_slot_new(&cert);
    if (!s->certs)
        return err_set(e, ERR_NOMEM, "certificate");
    s->tls = tls_ctx_server(s->certs, alpn, e);
    return s->tls ? 0 : -1;
}

/* A listening socket for `a`: one that was passed to us, or a new one. Its real address goes
 * to *ret_bound and is appended to `text`. */
static int get_socket(struct systemd_fds *passed, const struct sock_addr *a,
                      struct sock_addr *ret_bound, struct buf *text, struct err *e)
{
    char printed[SOCK_TEXT_MAX];
    int fd = systemd_fds_take(passed, a);

    if (fd < 0)
        fd = sock_listen(a, e);
    if (fd < 0)
        return -1;
    if (sock_local(fd, ret_bound) < 0) {
        (void)err_sys(e, "address of a listener");
        sock_close(&fd);
        return -1;
    }
    if ((text->len > 0 && buf_adds(text, ",") < 0) ||
        buf_adds(text, sock_print(ret_bound, printed)) < 0) {
        sock_close(&fd);
        return err_set(e, ERR_NOMEM, "listener");
    }
    return fd;
}

static void deliver(void *owner, const struct host_route *route,
                    struct worker_guest *take)
{
    struct server *s = owner;
    char id[HOST_ID_MAX + 1] = "";
    char spread[16];
    uint16_t port;

    if (route->kind == HOST_PREVIEW || route->kind == HOST_LINK)
        (void)snprintf(id, sizeof id, "%s", route->id); /* the same bound */
    else if (route->kind != HOST_NAME ||
             !directory_find(s->directory, route->name, id, &port)) {
        /* Nobody's: any worker will do, not always the same. */
        (void)snprintf(spread, sizeof spread, "%d", take->parts.fd); /* fits */
        worker_give(server_owner(s, spread), take);
        return;
    }
    worker_give(server_owner(s, id), take);
}

static int on_redirect(void *arg, const struct http1_head *rq,
                       struct small_http_answer *ret)
{
    const struct server *s = arg;

    return redirect_answer(s->conf, rq, ret);
}

static int on_admin(void *arg, const struct http1_head *rq, struct small_http_answer *ret)
{
    const struct server *s = arg;

    return admin_answer(s->state == SERVING, rq, ret);
}

static int make_public(struct server *s, struct systemd_fds *passed, struct err *e)
{
    s->listeners = listeners_new(s->loop, s->conf, deliver, s, e);
    if (!s->listeners)
        return -1;
    for (unsigned i = 0; i < s->conf->n_listen; i++) {
        int fd = get_socket(passed, &s->conf->listen[i].addr, &s->bound.listen[i],
                            &s->listen_text, e);

        if (fd < 0 || listeners_add(s->listeners, &fd, &s->conf->listen[i], e) < 0)
            return -1;
    }
    return 0;
}

static int make_side(struct server *s, struct systemd_fds *passed, struct err *e)
{
    int fd;

    for (unsigned i = 0; i < s->conf->n_redirect; i++) {
        fd = get_socket(passed, &s->conf->redirect_listen[i], &s->bound.redirect[i],
                        &s->redirect_text, e);
        if (fd < 0)
            return -1;
        s->redirect[i] = small_http_new(s->loop, &fd, on_redirect, s, e);
        if (!s->redirect[i])
            return -1;
    }
    if (s->conf->admin_listen.len == 0)
        return 0;
    fd = get_socket(passed, &s->conf->admin_listen, &s->bound.admin, &s->admin_text, e);
    if (fd < 0)
        return -1;
    s->admin = small_http_new(s->loop, &fd, on_admin, s, e);
    return s->admin ? 0 : -1;
}

static void on_quiet(struct server *s);
static void on_look(void *arg);

static int make_workers(struct server *s, struct err *e)
{
    struct worker_shared shared = {.server = s,
                                   .directory = s->directory,
                                   .certs = s->certs,
                                   .tls = s->tls,
                                   .quiet = on_quiet};

    s->worker = mem_zalloc(s->conf->workers, sizeof(struct worker *));
    if (!s->worker)
        return err_set(e, ERR_NOMEM, "workers");
    while (s->n_workers < s->conf->workers) {
        s->worker[s->n_workers] = worker_new(&shared, s->conf, s->keys, e);
        if (!s->worker[s->n_workers])
            return -1;
        s->n_workers++;
    }
    return 0;
}

/* All but what serves: nothing is accepted before all of it is there. */
static int make(struct server *s, struct err *e)
{
    struct systemd_fds passed;
    int r;

    s->keys = keys_load(s->conf, e);
    if (!s->keys)
        return -1;
    s->directory = directory_new();
    if (!s->directory)
        return err_set(e, ERR_NOMEM, "directory");
    s->loop = loop_new(e);
    if (!s->loop)
        return -1;
    loop_timer_init(&s->look, s->loop, on_look, s);
    if (load_certs(s, e) < 0)
        return -1;
    systemd_fds_init(&passed);
    r = make_public(s, &passed, e) < 0 || make_side(s, &passed, e) < 0 ? -1 : 0;
    systemd_fds_done(&passed);
    if (r < 0)
        return -1;
    config_settle(s->conf, &s->bound);
    return make_workers(s, e);
}

static void server_done(struct server *s)
{
    for (unsigned i = 0; i < s->n_workers; i++)
        worker_free(s->worker[i]);
    mem_free(s->worker);
    listeners_free(s->listeners);
    for (unsigned i = 0; i < COUNT_OF(s->redirect); i++)
        small_http_free(s->redirect[i]);
    small_http_free(s->admin);
    loop_free(s->loop);
    tls_ctx_free(s->tls);
    tls_cert_slot_free(s->certs);
    directory_free(s->directory);
    keys_unref(s->keys);
    config_unref(s->conf);
    buf_done(&s->listen_text);
    buf_done(&s->redirect_text);
    buf_done(&s->admin_text);
}

/* -- the end ---------------------------------------------------------------------------------------- */

static void all_quiet(void *arg)
{
    struct server *s = arg;

    if (++s->n_quiet < s->n_running)
        return;
    for (unsigned i = 0; i < s->n_running; i++)
        worker_stop(s->worker[i], s->is_hurried ? 0 : LINK_CLOSE_MS);
    loop_stop(s->loop);
}

/* On a worker's thread. */
static void on_quiet(struct server *s)
{
    if (loop_post(s->loop, all_quiet, s) < 0)
        abort(); /* without it the process would never end; no input leads here */
}

static void drain_workers(struct server *s, uint64_t drain_ms)
{
    for (unsigned i = 0; i < s->n_running; i++)
        worker_drain(s->worker[i], drain_ms);
}

/* Those who had connected before the end are handed over first, so that they are served. */
static void on_look(void *arg)
{
    struct server *s = arg;

    if (listeners_pending(s->listeners) > 0 && loop_now(s->loop) < s->hand_over_ms)
        loop_timer_start(&s->look, LOOK_MS);
    else
        drain_workers(s, s->is_hurried ? 0 : (uint64_t)s->conf->limits.drain_ms);
}

static void begin_end(struct server *s)
{
    struct err e = {0};

    s->state = DRAINING;
    if (notify_systemd("STOPPING=1", &e) < 0)
        log_warn("systemd.notify", "why=%s", log_q(e.msg));
    listeners_stop(s->listeners);
    s->hand_over_ms = loop_now(s->loop) + HAND_OVER_MS;
    loop_timer_start(&s->look, 0);
}

static void on_end_signal(void *arg, int signo)
{
    struct server *s = arg;

    if (s->state == SERVING) {
        log_notice("stop", "signal=%d drain_ms=%lld", signo,
                   (long long)s->conf->limits.drain_ms);
        begin_end(s);
    } else {
        s->is_hurried = true;
        s->hand_over_ms = 0;
        drain_workers(s, 0);
    }
}

/* -- reload ------------------------------------------------------------------------------------------- */

static int reload_certs(struct server *s, const struct config *conf, struct err *e)
{
    struct tls_cert *cert;

    if (!s->certs)
        return 0;
    cert = tls_cert_load(conf->tls_cert, conf->tls_key, e);
    if (!cert)
        return -1;
    tls_cert_slot_swap(s->certs, &cert);
    return 0;
}

/* Everything new is loaded before anything of it is used, certificates last. */
static int reload(struct server *s, struct config *conf, struct err *e)
{
    const char *fixed;
    struct keys *keys;

    config_settle(conf, &s->bound);
    fixed = config_fixed_change(s->conf, conf);
    if (fixed)
        return err_set(e, ERR_CONFIG, "%s cannot be changed without a restart", fixed);
    keys = keys_load(conf, e);
    if (!keys)
        return -1;
    if (reload_certs(s, conf, e) < 0) {
        keys_unref(keys);
        return -1;
    }
    keys_unref(s->keys);
    s->keys = keys;
    config_unref(s->conf);
    s->conf = config_ref(conf);
    log_setup(conf->log_json, conf->log_level);
    listeners_set_config(s->listeners, conf);
    for (unsigned i = 0; i < s->n_running; i++)
        worker_reload(s->worker[i], conf, keys);
    return 0;
}

static void on_reload_signal(void *arg, int signo)
{
    struct server *s = arg;
    struct config *conf;
    struct err e = {0};

    UNUSED_ARG(signo);
    if (s->state != SERVING)
        return;
    conf = config_load(s->config_path, print_fault, s);
    if (!conf) {
        log_err("reload", "why=%s",
                log_q("the configuration has faults; the old one stays"));
        return;
    }
    if (reload(s, conf, &e) < 0)
        log_err("reload", "why=%s", log_q(e.msg));
    else
        log_notice("reload", "config=%s", log_q(s->config_path));
    config_unref(conf);
}

/* -- running --------------------------------------------------------------------------------------------- */

static const char *text_of(const struct buf *b, char out[1024])
{
    (void)snprintf(out, 1024, "%.*s", b->len ? (int)b->len : 1,
                   b->len ? (char *)b->p : "-");
    return out;
}

static void say_ready(struct server *s)
{
    char a[1024], b[1024], c[1024];
    struct err e = {0};

    log_notice("ready", "listen=%s redirect=%s admin=%s workers=%u",
               text_of(&s->listen_text, a), text_of(&s->redirect_text, b),
               text_of(&s->admin_text, c), s->n_workers);
    if (notify_systemd("READY=1", &e) < 0)
        log_warn("systemd.notify", "why=%s", log_q(e.msg));
}

static int start(struct server *s, struct err *e)
{
    if (loop_signal(s->loop, SIGTERM, on_end_signal, s, e) < 0 ||
        loop_signal(s->loop, SIGINT, on_end_signal, s, e) < 0 ||
        loop_signal(s->loop, SIGHUP, on_reload_signal, s, e) < 0)
        return -1;
    while (s->n_running < s->n_workers) {
        if (worker_start(s->worker[s->n_running], e) < 0)
            return -1;
        s->n_running++;
    }
    return 0;
}

/* 0, or -1 with *e when it could not start. */
static int serve(struct server *s, struct err *e)
{
    int r = start(s, e);

    if (r == 0) {
        s->state = SERVING;
        listeners_start(s->listeners);
        say_ready(s);
    } else {
        s->is_hurried = true;
        begin_end(s);
    }
    if (s->n_running > 0)
        loop_run(s->loop);
    s->state = ENDING;
    for (unsigned i = 0; i < s->n_running; i++)
        worker_join(s->worker[i]);
    return r;
}

/* Shells and service managers start programs with 1,024. Before the contexts of libwebsockets,
 * whose tables have the limit of that moment; no more than needed, because each has that size. */
static void raise_descriptors(const struct config *c)
{
    rlim_t want = (rlim_t)c->limits.connections + FD_RESERVE;
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= want)
        return;
    r.rlim_cur = r.rlim_max < want ? r.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur < want)
        log_warn("start.descriptors", "wanted=%llu why=%s", (unsigned long long)want,
                 log_q("the hard limit allows fewer than limits.connections needs"));
}

int server_run(const char *config_path)
{
    struct server s = {.config_path = config_path};
    struct err e = {0};
    int r;

    s.conf = config_load(config_path, print_fault, &s);
    if (!s.conf)
        return EXIT_CONFIG;
    log_setup(s.conf->log_json, s.conf->log_level);
    raise_descriptors(s.conf);
    r = make(&s, &e) < 0 ? -1 : serve(&s, &e);
    if (r < 0)
        log_err("start", "why=%s", log_q(e.msg));
    else
        log_notice("stopped", "config=%s", log_q(config_path));
    server_done(&s);
    if (r == 0)
        return EXIT_SUCCESS;
    return e.code == ERR_CONFIG ? EXIT_CONFIG : EXIT_FAILURE;
}
