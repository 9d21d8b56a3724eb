/* SPDX-License-Identifier: MIT */
/*
 * One request and its answer. The order of decisions: syntax, authority ours,
 * reserved path, access; then exchange_dial() finds out whether the sandbox is known, its
 * link up, the port published. All that is asked for later is in x.raw, the head as it came.
 */
#include "tunneld/edge/edge_int.h"

#include <time.h>

#include "common/metrics.h"
#include "tunneld/edge/request.h"

#define RESERVED  "/.tunnel/"
#define LINK_PATH "/.tunnel/v1/link"

static bool find_name(void *owner, const char *name, char ret_id[HOST_ID_MAX + 1],
                      uint16_t *ret_port)
{
    struct edge *e = owner;

    return e->ops->find_name(e->owner, name, ret_id, ret_port);
}

static bool publishes(void *owner, const char *id, uint16_t port)
{
    struct edge *e = owner;

    return registry_publishes(e->registry, id, port);
}

static const struct site_ops site_ops = {find_name, publishes};

const struct http1_head *exchange_head(struct client *c)
{
    struct edge *e = c->edge;

    if (e->parsed == c)
        return e->request;
    if (c->x.raw.len == 0)
        return NULL;
    e->parsed = NULL;
    if (http1_parse_request(buf_span(&c->x.raw), e->request) != HTTP1_OK)
        return NULL;
    e->parsed = c;
    return e->request;
}

/* -- the end --------------------------------------------------------------------------- */

void exchange_drop(struct client *c, enum mux_reason why)
{
    struct exchange *x = &c->x;

    dial_cancel(&x->dial);
    upstream_drop(&x->up, why);
    http1_body_done(&x->rq);
    http1_body_done(&x->rs);
    buf_done(&x->pending);
    buf_done(&x->raw);
    if (c->edge->parsed == c)
        c->edge->parsed = NULL;
    *x = (struct exchange){0};
    c->is_behind = false;
}

static struct log_pair number(const char *key, uint64_t n)
{
    return (struct log_pair){.key = key, .kind = LOG_NUMBER, .number = n};
}

static struct log_pair word(const char *key, const char *text)
{
    return (struct log_pair){.key = key, .kind = LOG_WORD, .text = span_str(text)};
}

void exchange_log(struct client *c)
{
    const struct exchange *x = &c->x;
    uint64_t now = loop_now(c->edge->loop);
    char ip[SOCK_TEXT_MAX];

    if (!x->is_running)
        return;
    c->x.is_running = false;
    metric_inc(METRIC_REQUESTS);
    loop_job_defer(&c->edge->log_job);
    struct log_pair pair[] = {
        word("client", sock_print_ip(&x->client, ip)),
        word("sandbox", x->site.id[0] ? x->site.id : "-"),
        number("port", x->site.port),
        word("method", "-"),
        {.key = "path", .kind = LOG_TEXT, .text = x->path},
        number("status", x->status),
        number("up", x->bytes_up),
        number("down", x->bytes_down),
        number("head_ms", x->answered_ms ? x->answered_ms - x->started_ms : 0),
        number("ms", now - x->started_ms),
        word("error", x->error ? x->error : "-"),
        {.key = "rule", .kind = LOG_TEXT, .text = span_str(x->rule ? x->rule : "")},
    };
    if (x->method.len)
        pair[3].text = span_of(x->method.p, x->method.len < 16 ? x->method.len : 16);
    log_access(pair, sizeof(pair) / sizeof(pair[0]) - (x->rule ? 0 : 1));
}

void exchange_done(struct client *c)
{
    struct exchange *x = &c->x;
    const struct upstream *u = x->up;

    x->is_done = true;
    exchange_log(c);
    if (u && u->stream && u->is_accepted && !u->has_eof && x->app_keeps &&
        x->rq.is_done && x->pending.len == 0 && !c->is_shared && !c->edge->is_draining)
        upstream_keep(&x->up);
    else
        upstream_drop(&x->up, MUX_REASON_CANCEL);
    c->is_behind = false;
    if (c->out.len == 0)
        client_next(c);
    else
        client_wait(c, WAIT_FLUSH, c->edge->conf->limits.idle_ms);
}

/* -- answers of our own ---------------------------------------------------------------- */

/* The body of a request that we answer ourselves: when all of it is here, the connection
 * can go on. */
static void skip_body(struct client *c)
{
    struct exchange *x = &c->x;
    struct span in = buf_span(&c->in), piece;

    while (in.len > 0 && !x->rq.is_done)
        if (http1_body_feed(&x->rq, &in, &piece) != HTTP1_OK)
            break;
    buf_drop(&c->in, c->in.len - in.len);
    if (!x->rq.is_done)
        x->keep_alive = false;
}

static struct error_args answer_args(struct client *c, const struct http1_head *h)
{
    struct exchange *x = &c->x;
    struct error_args a = {.form = ERROR_TEXT, .client_minor = x->minor};
    const struct http1_field *origin;

    if (h) {
        origin = http1_find(h, HTTP1_ORIGIN);
        a.form = errors_form(h);
        if (x->is_reserved && a.form != ERROR_BARE)
            a.form = ERROR_JSON;
        a.is_head = x->is_head;
        a.can_reload = span_eq(h->method, span_str("GET"));
        if (origin && x->site.kind == SITE_PREVIEW &&
            site_is_origin(&x->site, origin->value))
            a.origin = origin->value;
    }
    skip_body(c);
    x->keep_alive = x->keep_alive && !c->edge->is_draining;
    a.keep_alive = x->keep_alive;
    return a;
}

/* @r  what writing the answer into e->tx said */
static void send_answer(struct client *c, int r, unsigned status)
{
    struct exchange *x = &c->x;

    if (r < 0) {
        client_cut(c, "no-memory");
        return;
    }
    x->status = status;
    x->answered_ms = loop_now(c->edge->loop);
    x->has_head = x->head_sent = true;
    if (!client_send(c, buf_span(&c->edge->tx)))
        return;
    exchange_done(c);
}

void exchange_fail(struct client *c, enum error_code code)
{
    struct exchange *x = &c->x;
    struct error_args a;

    if (c->state == CLIENT_CLOSED)
        return;
    dial_cancel(&x->dial);
    upstream_drop(&x->up, code == ERROR_UPSTREAM_TIMEOUT ? MUX_REASON_TIMEOUT
                                                         : MUX_REASON_CANCEL);
    if (x->head_sent) {
        client_cut(c, errors_name(code));
        return;
    }
    metric_inc(METRIC_REQUEST_ERRORS);
    x->error = errors_name(code);
    a = answer_args(c, exchange_head(c));
    c->edge->tx.len = 0;
    send_answer(c, errors_write(code, &a, &c->edge->tx), errors_status(code));
}

void exchange_bad_answer(struct client *c, const char *rule)
{
    c->x.rule = rule;
    exchange_fail(c, ERROR_BAD_UPSTREAM);
}

static void start(struct client *c)
{
    struct exchange *x = &c->x;

    c->state = CLIENT_EXCHANGE;
    c->wait = WAIT_NONE;
    x->is_running = true;
    x->started_ms = loop_now(c->edge->loop);
    x->client = c->from;
    x->minor = 1;
    x->site.conf = c->edge->conf;
    x->site.ops = &site_ops;
    x->site.owner = c->edge;
}

void exchange_refuse(struct client *c, enum http1_result r, const char *rule)
{
    enum error_code code = r == HTTP1_E_TARGET_BIG   ? ERROR_TARGET_TOO_LARGE
                           : r == HTTP1_E_FIELDS_BIG ? ERROR_FIELDS_TOO_LARGE
                                                     : ERROR_BAD_REQUEST;

    start(c);
    c->x.rule = rule;
    buf_done(&c->x.raw);
    c->edge->parsed = NULL;
    /* Where the next request would start is not known: not even what came is looked at. */
    http1_body_init(&c->x.rq, HTTP1_UNTIL_CLOSE, 0);
    c->x.keep_alive = false;
    exchange_fail(c, code);
}

static void welcome(struct client *c, const struct http1_head *h)
{
    struct error_args a = answer_args(c, h);

    c->edge->tx.len = 0;
    send_answer(c, errors_write_welcome(&a, &c->edge->tx), 200);
}

static int put_enter(struct client *c, const struct http1_head *h,
                     const struct access *access, struct buf *out)
{
    struct exchange *x = &c->x;
    const struct config *conf = c->edge->conf;
    const struct access_keys keys = {c->edge->keys, c->edge->cookie_key};

    /* The whole URL: a path of two slashes alone would name another host. */
    if (buf_addf(out, "HTTP/1.1 303 See Other\r\nLocation: %s://%s", conf->public_scheme,
                 x->site.host) < 0 ||
        (x->site.host_port && buf_addf(out, ":%u", x->site.host_port) < 0) ||
        access_put_target(h->target, out) < 0 || buf_adds(out, "\r\n") < 0)
        return -1;
    if (access->sets_cookie &&
        (buf_adds(out, "Set-Cookie: " ACCESS_COOKIE "=") < 0 ||
         access_put_cookie(&keys, &x->site, access, (int64_t)time(NULL), out) < 0 ||
         buf_addf(out,
                  "; Path=/; Max-Age=%lld; Secure; HttpOnly; SameSite=None; "
                  "Partitioned\r\n",
                  (long long)conf->limits.cookie_s) < 0))
        return -1;
    return buf_addf(out,
                    "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
                    "Content-Length: 0\r\n%s\r\n",
                    !x->keep_alive  ? "Connection: close\r\n"
                    : x->minor == 0 ? "Connection: keep-alive\r\n"
                                    : "");
}

static void enter(struct client *c, const struct http1_head *h,
                  const struct access *access)
{
    skip_body(c);
    c->edge->tx.len = 0;
    send_answer(c, put_enter(c, h, access, &c->edge->tx), 303);
}

/* -- decisions ------------------------------------------------------------------------- */

static bool starts_with(struct span s, const char *lit)
{
    size_t n = strlen(lit);

    return s.len >= n && memcmp(s.p, lit, n) == 0;
}

static void move(struct client *c, bool is_link)
{
    upstream_drop_kept(c);
    c->x.is_running = false;
    c->moves_link = is_link;
    c->state = CLIENT_MOVING;
    loop_job_defer(&c->job);
}

static void at_link_host(struct client *c, const struct http1_head *h)
{
    if (!c->x.is_reserved)
        exchange_fail(c, ERROR_NO_SUCH_PREVIEW);
    else if (!span_eq(c->x.path, span_str(LINK_PATH)) || !h->wants_upgrade)
        exchange_fail(c, ERROR_NOT_FOUND);
    else if (conn_is_tls(c->conn))
        exchange_fail(c, ERROR_MISDIRECTED);
    else
        move(c, true);
}

static void at_preview(struct client *c, const struct http1_head *h)
{
    struct edge *e = c->edge;
    struct exchange *x = &c->x;
    const struct access_keys keys = {e->keys, e->cookie_key};
    struct registry_port look;
    struct access a;
    bool is_public;

    access_decide(&keys, &x->site, h, (int64_t)time(NULL), &a);
    registry_look(e->registry, x->site.id, x->site.port, &look);
    is_public = look.is_published ? look.is_public : e->conf->default_public;
    /* A foreign tenant's access is none, whether the agent is here or not. */
    if (a.kind != ACCESS_PREFLIGHT &&
        (look.is_linked || e->ops->find_tenant(e->owner, x->site.id, look.tenant)) &&
        !access_tenant_is_ok(a.tenant, look.tenant))
        a.kind = ACCESS_NONE;
    /* Without access of its own, a preflight learns no more than any other request. */
    if (a.kind == ACCESS_PREFLIGHT && !look.is_published)
        a.kind = ACCESS_NONE;
    x->access = a.kind;
    memcpy(x->tenant, a.tenant, sizeof(x->tenant));
    if (a.kind == ACCESS_ENTER)
        enter(c, h, &a);
    else if (a.kind == ACCESS_NONE && !is_public)
        exchange_fail(c, ERROR_LOGIN_REQUIRED);
    else if (a.kind == ACCESS_FORBIDDEN && !is_public)
        exchange_fail(c, ERROR_FORBIDDEN);
    else
        exchange_dial(c);
}

static void at_apex(struct client *c, const struct http1_head *h)
{
    if (span_eq(c->x.path, span_str("/")))
        welcome(c, h);
    else
        exchange_fail(c, ERROR_NOT_FOUND);
}

static void decide(struct client *c, const struct http1_head *h)
{
    struct exchange *x = &c->x;
    int64_t max = c->edge->conf->limits.body_bytes;

    if (x->site.kind == SITE_FOREIGN)
        exchange_fail(c, ERROR_MISDIRECTED);
    else if (x->site.kind == SITE_BAD)
        exchange_fail(c, ERROR_NO_SUCH_PREVIEW);
    else if (x->site.kind == SITE_LINK)
        at_link_host(c, h);
    else if (x->is_reserved)
        exchange_fail(c, ERROR_NOT_FOUND);
    else if (x->site.kind == SITE_APEX)
        at_apex(c, h);
    else if (!c->edge->ops->owns(c->edge->owner, x->site.id))
        move(c, false);
    else if (max > 0 && h->has_length && h->length > (uint64_t)max)
        exchange_fail(c, ERROR_BODY_TOO_LARGE);
    else
        at_preview(c, h);
}

static bool is_repeatable(const struct http1_head *h)
{
    static const char *const safe[] = {"GET",   "HEAD", "OPTIONS",
                                       "TRACE", "PUT",  "DELETE"};

    for (size_t i = 0; i < COUNT_OF(safe); i++)
        if (span_eq(h->method, span_str(safe[i])))
            return http1_request_framing(h) == HTTP1_NONE;
    return false;
}

void exchange_begin(struct client *c)
{
    struct exchange *x = &c->x;
    const struct http1_field *host;
    const struct http1_head *h;
    enum http1_result r = http1_parse_request(buf_span(&x->raw), c->edge->request);
    const uint8_t *q;

    if (r != HTTP1_OK) {
        exchange_refuse(c, r, http1_rule());
        return;
    }
    c->edge->parsed = c;
    h = c->edge->request;
    start(c);
    x->method = h->method;
    q = memchr(h->target.p, '?', h->target.len);
    x->path = span_of(h->target.p, q ? (size_t)(q - h->target.p) : h->target.len);
    x->minor = h->minor;
    x->is_head = span_eq(h->method, span_str("HEAD"));
    x->wants_upgrade = h->wants_upgrade;
    x->keep_alive = h->keep_alive;
    x->is_repeatable = is_repeatable(h);
    http1_body_init(&x->rq, http1_request_framing(h), h->length);
    request_client(h, c->edge->conf, &c->from, c->is_trusted, &x->client);
    x->is_reserved = starts_with(h->target, RESERVED);
    host = http1_find(h, HTTP1_HOST);
    site_find(&x->site, host ? host->value : span_of(NULL, 0));
    decide(c, h);
}
