/* SPDX-License-Identifier: MIT */
#include "tests/support/edge_scene.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"
#include "tests/support/edge_app.h"
#include "tunneld/tunnel/session.h"

enum {
    WIRE = 1 << 17,
    DEADLINE_MS = 20000
};

/* -- the agent ----------------------------------------------------------------------- */

static void on_opened(void *owner, struct mux_stream *stream, const struct mux_open *open)
{
    UNUSED_ARG(open);
    edge_app_opened(owner, stream);
}

static void on_wants_send(void *owner)
{
    struct scene *s = owner;

    loop_job_defer(&s->flush);
}

static const struct mux_ops agent_ops = {.opened = on_opened,
                                         .wants_send = on_wants_send};

static void on_flush(void *arg)
{
    struct scene *s = arg;
    uint8_t out[MUX_BATCH + MUX_SEND_MIN];
    size_t n;

    if (s->dies_at_flush) {
        s->dies_at_flush = false;
        scene_unlink(s);
    }
    while (s->mux && (n = mux_send(s->mux, out, sizeof(out), clock_us())) > 0)
        s->link.user_ops->bytes(s->link.user, span_of(out, n));
}

static uint8_t *link_begin(struct link *l, size_t *ret_cap)
{
    struct scene *s = CONTAINER_OF(l, struct scene, link);

    *ret_cap = WIRE;
    return s->wire;
}

static void link_commit(struct link *l, size_t n)
{
    struct scene *s = CONTAINER_OF(l, struct scene, link);

    if (s->mux && mux_recv(s->mux, span_of(s->wire, n), clock_us()) != MUX_OK)
        s->is_broken = true;
}

static int link_text(struct link *l, struct span json)
{
    struct scene *s = CONTAINER_OF(l, struct scene, link);

    return buf_add(&s->control, json.p, json.len);
}

static void link_close(struct link *l, unsigned status, const char *reason)
{
    CONTAINER_OF(l, struct scene, link)->is_broken = true;
    UNUSED_ARG(status);
    UNUSED_ARG(reason);
}

static const struct link_ops link_ops = {link_begin, link_commit, link_text, link_close};

static void control(struct scene *s, const char *text)
{
    s->link.user_ops->text(s->link.user, span_str(text));
}

static void say(struct scene *s, const struct control_msg *m)
{
    struct buf b = BUF_INIT;

    if (control_print(m, &b) < 0 || buf_add(&b, "", 1) < 0)
        abort();
    control(s, (const char *)b.p);
    buf_done(&b);
}

void scene_link(struct scene *s)
{
    struct mux_conf conf = {.role = MUX_AGENT,
                            .window = MUX_WINDOW,
                            .window_max = MUX_WINDOW_MAX,
                            .max_streams = MUX_STREAMS};
    struct control_msg hello = {.type = CONTROL_HELLO};
    struct sock_addr from = {0};
    struct token *t = mem_zalloc(1, sizeof(*t));

    if (!t)
        abort();
    strcpy(t->sub, "demo");
    t->aud = TOKEN_LINK;
    t->exp = (int64_t)time(NULL) + 3600;
    t->may_public = true;
    s->link.ops = &link_ops;
    (void)sock_parse("127.0.0.1:1", &from, NULL);
    s->mux = mux_new(&conf, &agent_ops, s);
    if (!s->mux || session_new(&s->tunnel, &s->link, &t, &from) < 0)
        abort();
    mux_set_peer(s->mux, MUX_WINDOW, 0);
    s->is_linked = true;
    s->is_broken = false;
    hello.u.hello.version = CONTROL_VERSION;
    strcpy(hello.u.hello.instance, "0123456789abcdef");
    strcpy(hello.u.hello.agent, "agentd/test");
    strcpy(hello.u.hello.hostname, "box");
    hello.u.hello.window = MUX_WINDOW;
    hello.u.hello.max_streams = MUX_STREAMS;
    say(s, &hello);
}

void scene_unlink(struct scene *s)
{
    struct mux *m = s->mux;

    if (!s->is_linked)
        return;
    s->is_linked = false;
    s->mux = NULL;
    s->link.user_ops->closed(s->link.user, "test");
    mux_free(m);
}

void scene_publish(struct scene *s, uint16_t port, bool is_public, bool preserves)
{
    struct control_msg m = {.type = CONTROL_PORT};

    m.u.port.port = port;
    m.u.port.visibility = is_public ? CONTROL_PUBLIC : CONTROL_PRIVATE;
    m.u.port.host_mode = preserves ? CONTROL_PRESERVE : CONTROL_LOCALHOST;
    strcpy(m.u.port.process, "app");
    strcpy(m.u.port.address, "127.0.0.1");
    say(s, &m);
}

void scene_unpublish(struct scene *s, uint16_t port)
{
    struct control_msg m = {.type = CONTROL_GONE};

    m.u.port.port = port;
    say(s, &m);
}

void scene_token(struct scene *s, const char *sub, enum token_aud aud, const char *ports,
                 struct buf *ret)
{
    struct token t = {.aud = aud, .exp = (int64_t)time(NULL) + 200};

    strcpy(t.sub, sub);
    if (ports) {
        t.has_ports = true;
        if (port_list_parse(span_str(ports), &t.ports) < 0)
            abort();
    }
    ret->len = 0;
    if (token_sign(token_keys_find(s->keys, "own"), &t, ret, NULL) < 0 ||
        buf_add(ret, "", 1) < 0)
        abort();
}

/* -- the edge ------------------------------------------------------------------------ */

static bool owns(void *owner, const char *id)
{
    struct scene *s = owner;

    UNUSED_ARG(id);
    return s->owns;
}

static void give(void *owner, const char *id, struct worker_guest *take)
{
    struct scene *s = owner;

    s->given++;
    s->guest = *take;
    strcpy(s->given_id, id);
    *take = (struct worker_guest){.parts = {.fd = -1}};
}

static bool find_name(void *owner, const char *name, char ret_id[HOST_ID_MAX + 1],
                      uint16_t *ret_port)
{
    UNUSED_ARG(owner);
    if (strcmp(name, "shop") != 0)
        return false;
    strcpy(ret_id, "demo");
    *ret_port = 3000;
    return true;
}

static bool find_tenant(void *owner, const char *id,
                        char ret_tenant[TOKEN_TENANT_MAX + 1])
{
    struct scene *s = owner;

    return directory_owner(s->directory, id, ret_tenant);
}

static const struct edge_ops edge_ops = {owns, give, find_name, find_tenant};

static void on_fault(void *arg, const char *place, const char *rule)
{
    UNUSED_ARG(arg);
    fprintf(stderr, "configuration: %s: %s\n", place, rule);
}

static const struct config *load(const char *more)
{
    char path[] = "/tmp/edge_scene.XXXXXX";
    int fd = mkstemp(path);
    struct config *c;
    FILE *f;

    if (fd < 0)
        return NULL;
    f = fdopen(fd, "w");
    if (!f)
        return NULL;
    fprintf(f,
            "{\"domain\":\"preview.test\",\"public_url\":\"https://preview.test:8443\","
            "\"listen\":[{\"address\":\"127.0.0.1:0\",\"tls\":false}],"
            "\"state_dir\":\"/tmp\",\"workers\":1,"
            "\"trusted_proxies\":[\"10.0.0.0/8\"]%s}",
            more);
    fclose(f);
    c = config_load(path, on_fault, NULL);
    unlink(path);
    return c;
}

static void on_deadline(void *arg)
{
    struct scene *s = arg;

    s->is_late = true;
    loop_stop(s->loop);
}

static void on_later(void *arg)
{
    struct scene *s = arg;

    s->later_fn(s);
}

int scene_start(struct scene *s, const char *more)
{
    struct edge_conf ec = {0};
    struct ed25519 *key = ed25519_generate(NULL);

    memset(s, 0, sizeof(*s));
    s->owns = true;
    s->guest.parts.fd = -1;
    for (size_t i = 0; i < COUNT_OF(s->client); i++)
        s->client[i].fd = -1;
    s->wire = mem_alloc(WIRE);
    s->loop = loop_new(NULL);
    s->conf = load(more);
    s->keys = token_keys_new();
    s->directory = directory_new();
    if (!s->conf || !s->keys || token_keys_add(s->keys, "own", &key, NULL) < 0)
        return -1;
    loop_timer_init(&s->deadline, s->loop, on_deadline, s);
    loop_timer_init(&s->later, s->loop, on_later, s);
    loop_job_init(&s->flush, s->loop, on_flush, s);
    s->registry = registry_new(s->loop, s->conf, NULL);
    s->tunnel = (struct tunnel){.loop = s->loop,
                                .conf = s->conf,
                                .keys = s->keys,
                                .directory = s->directory,
                                .registry = s->registry};
    ec.loop = s->loop;
    ec.registry = s->registry;
    ec.config = s->conf;
    ec.keys = s->keys;
    memset(ec.cookie_key, 7, sizeof(ec.cookie_key));
    ec.ops = &edge_ops;
    ec.owner = s;
    s->edge = edge_new(&ec, NULL);
    return s->edge ? 0 : -1;
}

void scene_stop(struct scene *s)
{
    for (unsigned i = 0; i < COUNT_OF(s->client); i++)
        scene_hang_up(s, i);
    edge_free(s->edge);
    scene_unlink(s);
    scene_run(s, 1); /* deferred jobs free what was closed */
    loop_timer_stop(&s->later);
    loop_job_cancel(&s->flush);
    registry_free(s->registry);
    conn_parts_done(&s->guest.parts);
    directory_free(s->directory);
    token_keys_free(s->keys);
    config_unref((struct config *)(uintptr_t)s->conf);
    buf_done(&s->seen);
    buf_done(&s->control);
    mem_free(s->wire);
    loop_free(s->loop);
}

/* -- clients ------------------------------------------------------------------------- */

static void on_client(void *arg, unsigned events)
{
    struct scene_client *c = arg;
    uint8_t in[65536];
    ssize_t n;

    UNUSED_ARG(events);
    n = read(c->fd, in, sizeof(in));
    if (n < 0 && errno == EAGAIN)
        return;
    while (n > 0 && buf_add(&c->got, in, (size_t)n) < 0)
        ; /* a test made this one allocation fail */
    if (n <= 0) {
        c->has_eof = n == 0;
        c->has_reset = n < 0;
        loop_io_want(c->io, 0);
    }
    loop_stop(c->scene->loop);
}

void scene_connect(struct scene *s, unsigned i, bool is_trusted)
{
    struct scene_client *c = &s->client[i];
    struct sock_addr at;
    struct worker_guest g = {.parts = {.fd = -1}, .is_trusted = is_trusted};
    int fd;

    (void)sock_parse("127.0.0.1:0", &at, NULL);
    fd = sock_listen(&at, NULL);
    if (fd < 0 || sock_local(fd, &at) < 0)
        abort();
    c->scene = s;
    c->has_eof = c->has_reset = false;
    c->fd = sock_connect(&at, NULL);
    while ((g.parts.fd = sock_accept(fd, &at)) < 0)
        ;
    close(fd);
    c->io = loop_io_start(s->loop, c->fd, on_client, c, NULL);
    loop_io_want(c->io, LOOP_READ);
    (void)sock_parse(is_trusted ? "10.0.0.1:99" : "203.0.113.9:99", &g.client, NULL);
    g.accepted_ms = loop_now(s->loop);
    edge_accept(s->edge, &g);
}

void scene_hang_up(struct scene *s, unsigned i)
{
    struct scene_client *c = &s->client[i];

    loop_io_stop(&c->io);
    sock_close(&c->fd);
    buf_done(&c->got);
}

void scene_send_bytes(struct scene *s, unsigned i, const void *p, size_t n)
{
    struct scene_client *c = &s->client[i];
    const uint8_t *at = p;

    while (n > 0 && !c->has_reset) {
        ssize_t sent = send(c->fd, at, n, MSG_NOSIGNAL);

        if (sent < 0 && errno != EAGAIN)
            return;
        if (sent < 0) {
            scene_run(s, 2); /* the other side reads */
            continue;
        }
        at += sent;
        n -= (size_t)sent;
    }
}

void scene_send(struct scene *s, unsigned i, const char *text)
{
    scene_send_bytes(s, i, text, strlen(text));
}

static bool has(const struct scene_client *c, const char *text)
{
    return c->got.len > 0 && memmem(c->got.p, c->got.len, text, strlen(text));
}

bool scene_until(struct scene *s, unsigned i, const char *text)
{
    struct scene_client *c = &s->client[i];

    s->is_late = false;
    loop_timer_start(&s->deadline, DEADLINE_MS);
    while (!has(c, text) && !c->has_eof && !c->has_reset && !s->is_late)
        loop_run(s->loop);
    loop_timer_stop(&s->deadline);
    return has(c, text);
}

bool scene_until_end(struct scene *s, unsigned i)
{
    struct scene_client *c = &s->client[i];

    s->is_late = false;
    loop_timer_start(&s->deadline, DEADLINE_MS);
    while (!c->has_eof && !c->has_reset && !s->is_late)
        loop_run(s->loop);
    loop_timer_stop(&s->deadline);
    return c->has_eof || c->has_reset;
}

void scene_run(struct scene *s, uint64_t ms)
{
    s->is_late = false;
    loop_timer_start(&s->deadline, ms);
    while (!s->is_late)
        loop_run(s->loop);
}

const char *scene_got(struct scene *s, unsigned i)
{
    struct buf *b = &s->client[i].got;

    if (buf_reserve(b, 1, SIZE_MAX) < 0)
        abort();
    b->p[b->len] = '\0';
    return (const char *)b->p;
}

void scene_forget(struct scene *s, unsigned i)
{
    s->client[i].got.len = 0;
}

const char *scene_seen(struct scene *s)
{
    if (buf_reserve(&s->seen, 1, SIZE_MAX) < 0)
        abort();
    s->seen.p[s->seen.len] = '\0';
    return (const char *)s->seen.p;
}
