/* SPDX-License-Identifier: MIT */
/*
 * Through the upstream proxy: the target is resolved and decided before the proxy hears
 * of it, and asked for by address, so that the proxy cannot be led to another one (by
 * name where the policy says so). A proxy that fails is a failure, never a reason to
 * connect directly. With `required` NO_PROXY does not count either.
 *
 * The proxy's own address is the operator's choice and not subject to the
 * policy or the floor.
 */
#include <string.h>

#include "agentd/egress/guard/dns_ask.h"
#include "agentd/egress/guard/flow.h"
#include "agentd/link/resolve.h"
#include "common/tls.h"

static void ask_proxy_addr(struct flow *f, uint16_t type);

void flow_proxy_cancel(struct flow *f)
{
    dns_ask_cancel(&f->proxy_asking);
    proxy_connect_done(&f->proxy_talk);
}

static bool is_bypassed(const struct flow *f, const char *no_proxy)
{
    struct span list = span_str(no_proxy);
    char text[IP_TEXT_MAX];

    if (list.len > PROXY_NO_PROXY_MAX)
        return false;
    if (f->name[0] && proxy_is_bypassed(list, f->name, f->port))
        return true;
    /* A name is where its addresses are only if all of them are. */
    for (size_t i = 0; i < f->n_addr; i++)
        if (!proxy_is_bypassed(list, ip_print(&f->addr[i], text), f->port))
            return false;
    return true;
}

int flow_proxy_choose(struct flow *f, struct err *e)
{
    const struct policy_proxy *p = policy_proxy(f->policy);

    proxy_url_done(&f->proxy);
    f->has_proxy = false;
    if (!p->url || (!p->required && p->no_proxy && is_bypassed(f, p->no_proxy)))
        return 0;
    if (proxy_url_parse(span_str(p->url), &f->proxy, e) < 0)
        return -1;
    f->has_proxy = true;
    return 1;
}

/* -- the proxy's address ------------------------------------------------------------- */

static void fail(struct flow *f, const char *why)
{
    flow_dial_failed(f, FLOW_PROXY, why);
}

static void on_connected(void *arg, int *take_fd, const struct sock_addr *to,
                         const struct err *e);

static void connect_proxy(struct flow *f)
{
    struct happy_conf conf = {.timeout_ms = CONNECT_MS, .fn = on_connected, .arg = f};
    struct flows *fs = f->flows;
    struct sock_addr to[CONNECT_ADDRS_MAX];
    struct err e = {0};

    for (size_t i = 0; i < fs->n_proxy_addr; i++)
        ip_to_sock(&fs->proxy_addr[i], f->proxy.port, &to[i]);
    f->happy = happy_start(flows_loop(fs), to, fs->n_proxy_addr, &conf, &e);
    if (!f->happy)
        fail(f, "no memory");
}

static void keep_proxy_addr(struct flows *fs, const struct flow *f,
                            const struct ip_addr *addr, size_t n)
{
    fs->n_proxy_addr = n < CONNECT_ADDRS_MAX ? n : CONNECT_ADDRS_MAX;
    memcpy(fs->proxy_addr, addr, fs->n_proxy_addr * sizeof(*addr));
    (void)proxy_print(f->proxy.host, f->proxy.port, fs->proxy_key);
    fs->proxy_until_ms = loop_now(flows_loop(fs)) + FLOW_PROXY_CACHE_MS;
}

static void on_proxy_addr(void *arg, const struct dns_answer *a, const struct err *e)
{
    struct flow *f = arg;

    f->proxy_asking = NULL;
    if (a && a->n > 0) {
        keep_proxy_addr(f->flows, f, a->addr, a->n);
        connect_proxy(f);
    } else if (f->asked == AF_INET) {
        ask_proxy_addr(f, DNS_AAAA);
    } else {
        fail(f, a ? "the upstream proxy's name has no address" : e->msg);
    }
}

static void ask_proxy_addr(struct flow *f, uint16_t type)
{
    struct guard *g = f->flows->ward->guard;
    struct err e = {0};

    f->asked = type == DNS_A ? AF_INET : AF_INET6;
    f->proxy_asking =
        dns_ask_start(g->loop, &(struct dns_ask_what){g->resolvers, f->proxy.host, type},
                      on_proxy_addr, f, &e);
    if (!f->proxy_asking)
        fail(f, "the upstream proxy's name cannot be resolved here");
}

void flow_proxy_dial(struct flow *f)
{
    struct flows *fs = f->flows;
    char key[PROXY_TEXT_MAX];
    struct ip_addr a;

    if (ip_parse(span_str(f->proxy.host), &a) == 0) {
        keep_proxy_addr(fs, f, &a, 1);
    } else if (resolve_is_localhost(f->proxy.host)) {
        (void)ip_parse(span_str("127.0.0.1"), &a);
        keep_proxy_addr(fs, f, &a, 1);
    } else if (loop_now(flows_loop(fs)) >= fs->proxy_until_ms ||
               strcmp(fs->proxy_key, proxy_print(f->proxy.host, f->proxy.port, key)) !=
                   0) {
        ask_proxy_addr(f, DNS_A);
        return;
    }
    connect_proxy(f);
}

/* -- asking it for the target -------------------------------------------------------- */

/* Plain HTTP by name needs no tunnel, and many proxies refuse one to port 80: requests go
 * to the proxy itself, in absolute form (RFC 9112 3.2.2). By address that would name the
 * wrong host, and an upgrade needs the tunnel. */
static bool is_plain_request(const struct flow *f)
{
    return f->gate && policy_proxy(f->policy)->by_name && f->by == FLOW_BY_NAME &&
           !f->gate->wants_upgrade &&
           (f->proxy.scheme == PROXY_HTTP || f->proxy.scheme == PROXY_HTTPS);
}

static void ask_plainly(struct flow *f)
{
    AUTO(buf_done)
    struct buf credentials = BUF_INIT;

    if (proxy_put_basic(&credentials, &f->proxy) < 0) {
        flow_end(f, FLOW_NO_MEMORY);
        return;
    }
    http_gate_to_proxy(f->gate, f->port, &credentials);
    f->dialed = f->addr[0];
    flow_relay_start(f);
}

static void start_talk(struct flow *f)
{
    bool by_name = policy_proxy(f->policy)->by_name && f->name[0];
    const struct ip_addr *a = &f->addr[f->next_addr];
    struct proxy_target to = {.port = f->port};
    char text[IP_TEXT_MAX];
    struct sock_addr address;
    struct err e = {0};

    if (is_plain_request(f)) {
        ask_plainly(f);
        return;
    }
    to.name = by_name ? f->name : ip_print(a, text);
    ip_to_sock(a, f->port, &address);
    if (!by_name)
        to.address = &address;
    flow_set_state(f, FLOW_ASK_PROXY);
    loop_timer_start(&f->deadline, PROXY_MS);
    if (proxy_connect_init(&f->proxy_talk, &f->proxy, &to, &e) < 0) {
        fail(f, e.msg);
        return;
    }
    conn_want(f->outer, LOOP_READ | LOOP_WRITE);
    flow_proxy_writable(f);
}

static void start_tls(struct flow *f)
{
    struct flows *fs = f->flows;
    struct err e = {0};
    int store = fs->ward->guard->store_fd;

    /* The sealed guard opens nothing any more. */
    if (!fs->proxy_tls)
        fs->proxy_tls =
            store > 0 ? tls_ctx_client_from(store, &e) : tls_ctx_client(NULL, &e);
    flow_set_state(f, FLOW_ASK_PROXY);
    loop_timer_start(&f->deadline, TLS_MS);
    conn_want(f->outer, 0);
    if (!fs->proxy_tls ||
        conn_tls_connect(f->outer, fs->proxy_tls, f->proxy.host, &e) < 0)
        fail(f, e.msg);
}

void flow_proxy_secured(struct flow *f, const struct err *e)
{
    if (e)
        fail(f, e->msg);
    else
        start_talk(f);
}

static void on_connected(void *arg, int *take_fd, const struct sock_addr *to,
                         const struct err *e)
{
    struct flow *f = arg;
    struct err why = {0};

    UNUSED_ARG(to);
    f->happy = NULL;
    if (*take_fd < 0) {
        f->flows->proxy_until_ms = 0;
        fail(f, e->msg);
        return;
    }
    f->outer = conn_new(flows_loop(f->flows), take_fd, &flow_outer_ops, f, &why);
    if (!f->outer)
        flow_end(f, FLOW_NO_MEMORY);
    else if (f->proxy.scheme == PROXY_HTTPS)
        start_tls(f);
    else
        start_talk(f);
}

void flow_proxy_writable(struct flow *f)
{
    struct span bytes = proxy_connect_output(&f->proxy_talk);
    size_t n = 0;

    if (bytes.len > 0) {
        switch (conn_write(f->outer, bytes.p, bytes.len, &n)) {
        case CONN_OK:
            proxy_connect_sent(&f->proxy_talk, n);
            break;
        case CONN_AGAIN:
            break;
        default:
            fail(f, conn_error(f->outer)->msg);
            return;
        }
    }
    conn_want(f->outer, LOOP_READ | (n < bytes.len ? LOOP_WRITE : 0));
}

static void on_bytes(struct flow *f, struct span bytes)
{
    struct err e = {0};

    switch (proxy_connect_feed(&f->proxy_talk, &bytes, &e)) {
    case PROXY_MORE:
        flow_proxy_writable(f);
        return;
    case PROXY_OK:
        loop_timer_stop(&f->deadline);
        proxy_connect_done(&f->proxy_talk);
        f->dialed = f->addr[f->next_addr];
        if (conn_unread(f->outer, bytes) < 0)
            flow_end(f, FLOW_NO_MEMORY);
        else
            flow_relay_start(f);
        return;
    case PROXY_NEXT:
        if (++f->next_addr < f->n_addr && !policy_proxy(f->policy)->by_name) {
            proxy_connect_done(&f->proxy_talk);
            conn_close(&f->outer);
            flow_set_state(f, FLOW_DIAL);
            loop_timer_stop(&f->deadline);
            flow_proxy_dial(f);
            return;
        }
        fail(f, e.msg);
        return;
    case PROXY_ERROR:
        fail(f, e.msg);
        return;
    }
}

void flow_proxy_readable(struct flow *f)
{
    uint8_t bytes[4096];
    size_t n = 0;

    switch (conn_read(f->outer, bytes, sizeof(bytes), &n)) {
    case CONN_OK:
        on_bytes(f, span_of(bytes, n));
        break;
    case CONN_AGAIN:
        break;
    case CONN_EOF:
        fail(f, "the upstream proxy closed the connection without an answer");
        break;
    case CONN_ERROR:
        fail(f, conn_error(f->outer)->msg);
        break;
    }
}
