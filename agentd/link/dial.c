/* SPDX-License-Identifier: MIT */
#include "agentd/link/dial.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agentd/link/dialer.h"
#include "agentd/link/happy.h"
#include "agentd/link/proxy.h"
#include "agentd/link/proxy_connect.h"
#include "agentd/link/resolve.h"
#include "agentd/link/upgrade.h"
#include "common/http1.h"
#include "common/limits.h"
#include "common/mem.h"

/* Who is spoken to over the connection at the moment. */
enum talk {
    TALK_NONE,      /* nobody, or a TLS handshake is under way */
    TALK_TLS_PROXY, /* handshake with the proxy */
    TALK_PROXY,
    TALK_TLS_SERVER, /* handshake with the server */
    TALK_UPGRADE,
};

struct dial {
    struct dialer *dialer;
    const struct dial_ops *ops;
    void *owner;
    enum dial_stage stage;
    enum talk talk;

    struct server_url server;
    char host[HOST_MAX + 1]; /* 0-ID.DOMAIN */
    struct secret token;

    bool has_proxy;
    struct proxy_url proxy;
    struct proxy_connect asking;
    struct sock_addr target[CONNECT_ADDRS_MAX]; /* socks5: the server, resolved by us */
    size_t n_target, next_target;

    struct resolve *resolve;
    struct happy *happy;
    struct conn *conn;
    struct loop_job start;
    struct loop_timer deadline;

    struct buf out; /* the upgrade request; wiped */
    size_t out_pos;
    struct buf in; /* its answer */
    struct http1_scan scan;
    char key[UPGRADE_KEY_LEN + 1];
};

static void reach(struct dial *d);
static void start_tls_server(struct dial *d);

const char *dial_stage_name(enum dial_stage s)
{
    static const char *const name[] = {"name", "connect", "proxy",
                                       "tls",  "upgrade", "token"};

    return name[s];
}

static void wipe(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_done(b);
}

static void destroy(struct dial *d)
{
    loop_job_cancel(&d->start);
    loop_timer_stop(&d->deadline);
    resolve_cancel(&d->resolve);
    happy_cancel(&d->happy);
    conn_close(&d->conn);
    proxy_connect_done(&d->asking);
    proxy_url_done(&d->proxy);
    secret_done(&d->token);
    wipe(&d->out);
    buf_done(&d->in);
    mem_free(d);
}

void dial_cancel(struct dial **d)
{
    if (*d)
        destroy(*d);
    *d = NULL;
}

static void give_up(struct dial *d, const struct dial_failure *why)
{
    const struct dial_ops *ops = d->ops;
    void *owner = d->owner;

    destroy(d);
    ops->failed(owner, why);
}

static void fail(struct dial *d, const struct err *e)
{
    struct dial_failure why = {.stage = d->stage, .err = *e};

    give_up(d, &why);
}

static void passed(struct dial *d, enum dial_stage stage, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void passed(struct dial *d, enum dial_stage stage, const char *fmt, ...)
{
    char finding[512];
    va_list ap;

    if (!d->ops->passed)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(finding, sizeof(finding), fmt, ap);
    va_end(ap);
    d->ops->passed(d->owner, stage, finding);
}

static void on_deadline(void *arg)
{
    static const char *const doing[] = {
        [TALK_NONE] = "connecting",
        [TALK_TLS_PROXY] = "TLS with the proxy",
        [TALK_PROXY] = "asking the proxy",
        [TALK_TLS_SERVER] = "TLS with the server",
        [TALK_UPGRADE] = "waiting for the answer to the upgrade",
    };
    struct dial *d = arg;
    struct err e = {0};

    (void)err_set(&e, ERR_TIMEOUT, "%s: no answer in time", doing[d->talk]);
    fail(d, &e);
}

/* -- upgrade
 * ----------------------------------------------------------------------------- */

static void open_done(struct dial *d, struct span unread)
{
    const struct dial_ops *ops = d->ops;
    void *owner = d->owner;
    struct conn *c = d->conn;
    struct err e = {0};

    if (conn_unread(c, unread) < 0) {
        (void)err_set(&e, ERR_NOMEM, "upgrade: no memory");
        fail(d, &e);
        return;
    }
    passed(d, DIAL_UPGRADE, "a WebSocket that speaks tunnel.v1");
    passed(d, DIAL_TOKEN, "taken");
    conn_want(c, 0);
    d->conn = NULL;
    destroy(d);
    ops->opened(owner, &c);
}

static void on_upgrade_head(struct dial *d, size_t len)
{
    struct dial_failure why = {.stage = DIAL_UPGRADE};
    struct http1_head head;
    struct upgrade_answer answer;

    if (http1_parse_response(span_of(d->in.p, len), &head) != HTTP1_OK) {
        (void)err_set(&why.err, ERR_PROTO, "the answer to the upgrade is not HTTP: %s",
                      http1_rule());
        give_up(d, &why);
        return;
    }
    if (upgrade_judge(&head, d->key, &answer, &why.err) < 0) {
        why.is_refused = answer.is_refused;
        why.retry_after_ms = answer.retry_after_ms;
        if (answer.is_refused) {
            passed(d, DIAL_UPGRADE, "the server answers");
            why.stage = DIAL_TOKEN;
        }
        give_up(d, &why);
        return;
    }
    open_done(d, span_skip(buf_span(&d->in), len));
}

static void on_upgrade_bytes(struct dial *d, struct span bytes)
{
    struct err e = {0};
    enum http1_result r;
    size_t len;

    if (buf_reserve(&d->in, bytes.len, HTTP1_HEAD_MAX) < 0 ||
        buf_add(&d->in, bytes.p, bytes.len) < 0) {
        (void)err_set(&e, ERR_LIMIT, "the answer to the upgrade has over %d bytes",
                      HTTP1_HEAD_MAX);
        fail(d, &e);
        return;
    }
    r = http1_scan(&d->scan, buf_span(&d->in), &len);
    if (r == HTTP1_OK) {
        on_upgrade_head(d, len);
    } else if (r != HTTP1_MORE) {
        (void)err_set(&e, ERR_PROTO, "the answer to the upgrade is not HTTP: %s",
                      http1_rule());
        fail(d, &e);
    }
}

static void start_upgrade(struct dial *d)
{
    char host[PROXY_TEXT_MAX];
    struct upgrade_request r = {.host = d->host, .token = secret_span(&d->token)};
    struct err e = {0};

    if (d->server.port != (d->server.is_tls ? 443 : 80))
        r.host = proxy_print(d->host, d->server.port, host);
    d->stage = DIAL_UPGRADE;
    d->talk = TALK_UPGRADE;
    loop_timer_start(&d->deadline, UPGRADE_MS);
    if (upgrade_print(&r, &d->out, d->key, &e) < 0) {
        if (e.code == ERR_CONFIG)
            d->stage = DIAL_TOKEN;
        fail(d, &e);
        return;
    }
    conn_want(d->conn, LOOP_READ | LOOP_WRITE);
}

/* -- the connection
 * ------------------------------------------------------------------------ */

static void conn_failed(struct dial *d, enum conn_result r)
{
    struct err e = {0};
    bool is_proxy = d->talk == TALK_PROXY;

    if (r == CONN_EOF)
        (void)err_set(&e, ERR_PROTO, "the %s closed the connection without an answer",
                      is_proxy ? "proxy" : "server");
    else
        e = *conn_error(d->conn);
    fail(d, &e);
}

static void on_proxy_bytes(struct dial *d, struct span bytes)
{
    struct err e = {0};

    switch (proxy_connect_feed(&d->asking, &bytes, &e)) {
    case PROXY_MORE:
        conn_want(d->conn, LOOP_READ | LOOP_WRITE);
        return;
    case PROXY_OK:
        if (conn_unread(d->conn, bytes) < 0) {
            (void)err_set(&e, ERR_NOMEM, "proxy: no memory");
            fail(d, &e);
            return;
        }
        proxy_connect_done(&d->asking);
        start_tls_server(d);
        return;
    case PROXY_NEXT:
        if (++d->next_target < d->n_target) {
            conn_close(&d->conn);
            proxy_connect_done(&d->asking);
            reach(d);
            return;
        }
        fail(d, &e);
        return;
    case PROXY_ERROR:
        fail(d, &e);
        return;
    }
}

static void on_readable(void *owner)
{
    struct dial *d = owner;
    uint8_t bytes[4096];
    size_t n = 0;
    enum conn_result r = conn_read(d->conn, bytes, sizeof(bytes), &n);

    if (r == CONN_AGAIN)
        return;
    if (r != CONN_OK)
        conn_failed(d, r);
    else if (d->talk == TALK_PROXY)
        on_proxy_bytes(d, span_of(bytes, n));
    else if (d->talk == TALK_UPGRADE)
        on_upgrade_bytes(d, span_of(bytes, n));
}

static struct span to_send(const struct dial *d)
{
    if (d->talk == TALK_PROXY)
        return proxy_connect_output(&d->asking);
    if (d->talk == TALK_UPGRADE && d->out.len)
        return span_skip(buf_span(&d->out), d->out_pos);
    return (struct span){0};
}

static void on_writable(void *owner)
{
    struct dial *d = owner;
    struct span bytes = to_send(d);
    enum conn_result r;
    size_t n = 0;

    if (bytes.len == 0) {
        conn_want(d->conn, LOOP_READ);
        return;
    }
    r = conn_write(d->conn, bytes.p, bytes.len, &n);
    if (r == CONN_AGAIN)
        return;
    if (r != CONN_OK) {
        conn_failed(d, r);
        return;
    }
    if (d->talk == TALK_PROXY)
        proxy_connect_sent(&d->asking, n);
    else
        d->out_pos += n;
    if (n == bytes.len)
        conn_want(d->conn, LOOP_READ);
}

static void start_talk_proxy(struct dial *d)
{
    struct proxy_target to = {.name = d->host, .port = d->server.port};
    struct err e = {0};

    if (d->n_target)
        to.address = &d->target[d->next_target];
    d->talk = TALK_PROXY;
    loop_timer_start(&d->deadline, PROXY_MS);
    if (proxy_connect_init(&d->asking, &d->proxy, &to, &e) < 0) {
        fail(d, &e);
        return;
    }
    conn_want(d->conn, LOOP_READ | LOOP_WRITE);
}

static void start_tls(struct dial *d, enum talk talk, const char *name)
{
    struct err e = {0};

    d->talk = talk;
    loop_timer_start(&d->deadline, TLS_MS);
    conn_want(d->conn, 0);
    if (conn_tls_connect(d->conn, d->dialer->tls, name, &e) < 0)
        fail(d, &e);
}

static void start_tls_server(struct dial *d)
{
    char proxy[PROXY_TEXT_MAX];

    if (d->has_proxy)
        passed(d, DIAL_PROXY, "%s proxy %s connects to %s:%u",
               proxy_scheme_name(d->proxy.scheme),
               proxy_print(d->proxy.host, d->proxy.port, proxy), d->host, d->server.port);
    d->stage = DIAL_TLS;
    if (d->server.is_tls)
        start_tls(d, TALK_TLS_SERVER, d->host);
    else
        start_upgrade(d);
}

static void on_secured(void *owner, const struct err *e)
{
    struct dial *d = owner;
    struct err why;

    if (e) {
        why = *e;
        if (d->talk == TALK_TLS_PROXY)
            (void)err_wrap(&why, "TLS with the proxy");
        fail(d, &why);
        return;
    }
    if (d->talk == TALK_TLS_PROXY) {
        start_talk_proxy(d);
        return;
    }
    passed(d, DIAL_TLS, "the certificate for %s is good", d->host);
    start_upgrade(d);
}

static const struct conn_ops conn_ops = {
    .readable = on_readable,
    .writable = on_writable,
    .secured = on_secured,
};

/* -- name and connect
 * ---------------------------------------------------------------------- */

static void on_connected(void *arg, int *take_fd, const struct sock_addr *to,
                         const struct err *e)
{
    struct dial *d = arg;
    struct err why = {0};
    char text[SOCK_TEXT_MAX];

    d->happy = NULL;
    if (e) {
        why = *e;
        if (d->has_proxy)
            (void)err_wrap(&why, "proxy %s", d->proxy.host);
        fail(d, &why);
        return;
    }
    sock_tune_link(*take_fd);
    d->conn = conn_new(d->dialer->loop, take_fd, &conn_ops, d, &why);
    if (!d->conn) {
        fail(d, &why);
        return;
    }
    if (!d->has_proxy) {
        passed(d, DIAL_CONNECT, "%s takes the connection", sock_print(to, text));
        start_tls_server(d);
    } else if (d->proxy.scheme == PROXY_HTTPS) {
        start_tls(d, TALK_TLS_PROXY, d->proxy.host);
    } else {
        start_talk_proxy(d);
    }
}

static void on_hop_resolved(void *arg, const struct sock_addr *addr, size_t n,
                            const struct err *e)
{
    struct dial *d = arg;
    struct happy_conf conf = {.timeout_ms = CONNECT_MS, .fn = on_connected, .arg = d};
    struct err why = {0};
    char text[SOCK_TEXT_MAX];

    d->resolve = NULL;
    if (n == 0) {
        why = *e;
        if (d->has_proxy)
            (void)err_wrap(&why, "proxy");
        fail(d, &why);
        return;
    }
    if (!d->has_proxy) {
        passed(d, DIAL_NAME, "%s is %s%s", d->host, sock_print_ip(&addr[0], text),
               n > 1 ? " and others" : "");
        d->stage = DIAL_CONNECT;
    }
    loop_timer_stop(&d->deadline);
    d->happy = happy_start(d->dialer->loop, addr, n, &conf, &why);
    if (!d->happy)
        fail(d, &why);
}

static int ask_name(struct dial *d, const char *name, uint16_t port, resolve_fn *fn)
{
    struct resolve_conf conf = {.name = name,
                                .port = port,
                                .timeout_ms = NAME_MS,
                                .servers = d->dialer->name_servers};
    struct err e = {0};

    d->talk = TALK_NONE;
    loop_timer_stop(&d->deadline);
    d->resolve = resolve_start(d->dialer->loop, &conf, fn, d, &e);
    if (d->resolve)
        return 0;
    fail(d, &e);
    return -1;
}

/* To the next hop: the proxy, or the server. */
static void reach(struct dial *d)
{
    d->stage = d->has_proxy ? DIAL_PROXY : DIAL_NAME;
    if (d->has_proxy)
        (void)ask_name(d, d->proxy.host, d->proxy.port, on_hop_resolved);
    else
        (void)ask_name(d, d->host, d->server.port, on_hop_resolved);
}

static void on_target_resolved(void *arg, const struct sock_addr *addr, size_t n,
                               const struct err *e)
{
    struct dial *d = arg;
    struct err why;

    d->resolve = NULL;
    if (n == 0) {
        why = *e;
        (void)err_wrap(&why, "socks5:// resolves here (socks5h:// lets the proxy)");
        fail(d, &why);
        return;
    }
    memcpy(d->target, addr, n * sizeof(*addr));
    d->n_target = n;
    passed(d, DIAL_NAME, "%s is known here", d->host);
    reach(d);
}

static void on_start(void *arg)
{
    struct dial *d = arg;
    struct proxy_env env;
    struct err e = {0};
    int rc;

    proxy_env_get(&env);
    rc = proxy_choose(d->dialer->proxy, &env, d->host, d->server.port, &d->proxy, &e);
    if (rc < 0) {
        d->stage = DIAL_PROXY;
        fail(d, &e);
        return;
    }
    d->has_proxy = rc == 1;
    if (d->has_proxy && d->proxy.scheme == PROXY_SOCKS5)
        (void)ask_name(d, d->host, d->server.port, on_target_resolved);
    else
        reach(d);
}

struct dial *dial_start(const struct dial_conf *conf, const struct dial_ops *ops,
                        void *owner, struct err *e)
{
    struct dial *d = mem_zalloc(1, sizeof(*d));

    if (!d) {
        (void)err_set(e, ERR_NOMEM, "dialling: no memory");
        return NULL;
    }
    d->dialer = conf->dialer;
    d->ops = ops;
    d->owner = owner;
    d->server = *conf->server;
    loop_job_init(&d->start, d->dialer->loop, on_start, d);
    loop_timer_init(&d->deadline, d->dialer->loop, on_deadline, d);
    if (server_url_link_host(&d->server, conf->id, d->host, e) < 0) {
        destroy(d);
        return NULL;
    }
    if (secret_set(&d->token, conf->token) < 0) {
        (void)err_set(e, ERR_NOMEM, "dialling: no memory");
        destroy(d);
        return NULL;
    }
    loop_job_defer(&d->start);
    return d;
}
