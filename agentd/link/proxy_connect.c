/* SPDX-License-Identifier: MIT */
#include "agentd/link/proxy_connect.h"

#include <string.h>

#include "common/base64.h"
#include "common/limits.h"

enum state {
    HTTP_REPLY,
    SOCKS_METHOD, /* greeting sent */
    SOCKS_AUTH,   /* user name and password sent */
    SOCKS_REPLY,  /* request sent */
    ENDED,
};

enum {
    SOCKS_VERSION = 5,
    SOCKS_AUTH_VERSION = 1,
    SOCKS_NO_AUTH = 0,
    SOCKS_PASSWORD = 2,
    SOCKS_NONE_FITS = 0xff,
    SOCKS_CONNECT = 1,
    SOCKS_IPV4 = 1,
    SOCKS_NAME = 3,
    SOCKS_IPV6 = 4,
    SOCKS_FIELD_MAX = 255,
};

/* RFC 1928 6 */
static const char *const socks_reply[] = {
    [1] = "general failure",       [2] = "not allowed by its rules",
    [3] = "network unreachable",   [4] = "host unreachable",
    [5] = "connection refused",    [6] = "TTL expired",
    [7] = "command not supported", [8] = "address type not supported",
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "asking a proxy: no memory");
}

/* Buffers that held credentials. */
static void wipe(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_done(b);
}

void proxy_connect_done(struct proxy_connect *p)
{
    wipe(&p->request);
    wipe(&p->out);
    buf_done(&p->in);
    memset(p, 0, sizeof(*p));
    p->state = ENDED;
}

static const char *proxy_text(const struct proxy_connect *p, char out[PROXY_TEXT_MAX])
{
    return proxy_print(p->proxy->host, p->proxy->port, out);
}

/* -- HTTP
 * -------------------------------------------------------------------------------- */

int proxy_put_basic(struct buf *out, const struct proxy_url *proxy)
{
    struct buf plain = BUF_INIT;
    size_t need = proxy->user.len + 1 + proxy->password.len;
    int rc = -1;

    if (!proxy->has_credentials)
        return 0;
    /* Room for all at once: growth would leave copies behind in freed memory. */
    if (buf_reserve(&plain, need, SIZE_MAX) == 0 &&
        buf_add(&plain, proxy->user.p, proxy->user.len) == 0 &&
        buf_adds(&plain, ":") == 0 &&
        buf_add(&plain, proxy->password.p, proxy->password.len) == 0 &&
        buf_adds(out, "Proxy-Authorization: Basic ") == 0 &&
        b64_encode(out, buf_span(&plain)) == 0)
        rc = buf_adds(out, "\r\n");
    wipe(&plain);
    return rc;
}

static int init_http(struct proxy_connect *p, struct err *e)
{
    const struct proxy_url *proxy = p->proxy;
    size_t credentials = 2 * (proxy->user.len + proxy->password.len);

    p->state = HTTP_REPLY;
    if (buf_reserve(&p->out, credentials + 1024, SIZE_MAX) < 0 ||
        buf_addf(&p->out, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", p->target, p->target) <
            0 ||
        proxy_put_basic(&p->out, proxy) < 0 || buf_adds(&p->out, "\r\n") < 0)
        return no_memory(e);
    return 0;
}

static enum proxy_result http_answer(struct proxy_connect *p, const struct http1_head *h,
                                     struct err *e)
{
    char proxy[PROXY_TEXT_MAX];

    (void)proxy_text(p, proxy);
    if (h->status >= 200 && h->status <= 299)
        return PROXY_OK;
    if (h->status == 407)
        (void)err_set(e, ERR_DENIED, "proxy %s %s (407)", proxy,
                      p->proxy->has_credentials ? "refused the credentials"
                                                : "wants credentials");
    else if (h->status == 401 || h->status == 403)
        (void)err_set(e, ERR_DENIED, "proxy %s does not allow a connection to %s (%u)",
                      proxy, p->target, h->status);
    else if (h->status >= 500)
        (void)err_set(e, ERR_NOTFOUND, "proxy %s could not connect to %s (%u)", proxy,
                      p->target, h->status);
    else
        (void)err_set(e, ERR_PROTO, "proxy %s answered CONNECT with status %u", proxy,
                      h->status);
    return PROXY_ERROR;
}

static enum proxy_result http_bad(const struct proxy_connect *p, enum http1_result r,
                                  struct err *e)
{
    char proxy[PROXY_TEXT_MAX];

    if (r == HTTP1_E_FIELDS_BIG)
        (void)err_set(e, ERR_PROTO, "proxy %s: its reply has over %d bytes",
                      proxy_text(p, proxy), PROXY_REPLY_MAX);
    else
        (void)err_set(e, ERR_PROTO, "proxy %s: its reply is not HTTP: %s",
                      proxy_text(p, proxy), http1_rule());
    return PROXY_ERROR;
}

/* One reply head at the front of p->in. */
static enum proxy_result http_head(struct proxy_connect *p, bool *ret_interim,
                                   struct err *e)
{
    struct http1_head head;
    size_t len;
    enum http1_result r = http1_scan(&p->scan, buf_span(&p->in), &len);

    *ret_interim = false;
    if (r == HTTP1_MORE)
        return p->in.len < PROXY_REPLY_MAX ? PROXY_MORE
                                           : http_bad(p, HTTP1_E_FIELDS_BIG, e);
    if (r == HTTP1_OK)
        r = http1_parse_response(span_of(p->in.p, len), &head);
    if (r != HTTP1_OK)
        return http_bad(p, r, e);
    *ret_interim = head.status < 200;
    buf_drop(&p->in, len);
    p->scan = (struct http1_scan){0};
    return *ret_interim ? PROXY_MORE : http_answer(p, &head, e);
}

static enum proxy_result feed_http(struct proxy_connect *p, struct span *in,
                                   struct err *e)
{
    enum proxy_result r = PROXY_MORE;
    bool interim = false;

    while (in->len && r == PROXY_MORE) {
        size_t n = PROXY_REPLY_MAX - p->in.len;

        n = in->len < n ? in->len : n;
        if (buf_reserve(&p->in, n, PROXY_REPLY_MAX) < 0 ||
            buf_add(&p->in, in->p, n) < 0) {
            (void)no_memory(e);
            return PROXY_ERROR;
        }
        *in = span_skip(*in, n);
        do
            r = http_head(p, &interim, e);
        while (interim && p->in.len);
    }
    /* Of what came last, the part behind the head is not ours. */
    if (r == PROXY_OK) {
        in->p -= p->in.len;
        in->len += p->in.len;
    }
    return r;
}

/* -- SOCKS5
 * ------------------------------------------------------------------------------ */

static int put_byte(struct buf *b, unsigned v)
{
    uint8_t c = (uint8_t)v;

    return buf_add(b, &c, 1);
}

static int put_address(struct buf *b, const struct sock_addr *a)
{
    if (a->u.sa.sa_family == AF_INET)
        return put_byte(b, SOCKS_IPV4) < 0 ? -1 : buf_add(b, &a->u.in.sin_addr, 4);
    return put_byte(b, SOCKS_IPV6) < 0 ? -1 : buf_add(b, &a->u.in6.sin6_addr, 16);
}

static int put_request(struct buf *b, const struct proxy_target *t)
{
    struct sock_addr literal;
    size_t len = strlen(t->name);
    int rc;

    if (put_byte(b, SOCKS_VERSION) < 0 || put_byte(b, SOCKS_CONNECT) < 0 ||
        put_byte(b, 0) < 0)
        return -1;
    if (t->address)
        rc = put_address(b, t->address);
    else if (sock_parse_ip(span_str(t->name), 0, &literal) == 0)
        rc = put_address(b, &literal);
    else if (put_byte(b, SOCKS_NAME) < 0 || put_byte(b, (unsigned)len) < 0)
        rc = -1;
    else
        rc = buf_add(b, t->name, len);
    return rc < 0 || put_byte(b, t->port >> 8) < 0 ? -1 : put_byte(b, t->port & 0xff);
}

static int init_socks(struct proxy_connect *p, const struct proxy_target *t,
                      struct err *e)
{
    static const uint8_t open[] = {SOCKS_VERSION, 1, SOCKS_NO_AUTH};
    static const uint8_t either[] = {SOCKS_VERSION, 2, SOCKS_NO_AUTH, SOCKS_PASSWORD};
    const struct proxy_url *proxy = p->proxy;
    int rc;

    p->state = SOCKS_METHOD;
    if (proxy->user.len > SOCKS_FIELD_MAX || proxy->password.len > SOCKS_FIELD_MAX ||
        (proxy->has_credentials && proxy->user.len == 0))
        return err_set(e, ERR_CONFIG,
                       "a SOCKS5 user name and password have 1 to 255 bytes (RFC 1929)");
    rc = proxy->has_credentials ? buf_add(&p->out, either, sizeof(either))
                                : buf_add(&p->out, open, sizeof(open));
    if (rc < 0 || put_request(&p->request, t) < 0)
        return no_memory(e);
    return 0;
}

static enum proxy_result socks_bad(const struct proxy_connect *p, struct err *e)
{
    char proxy[PROXY_TEXT_MAX];

    (void)err_set(e, ERR_PROTO, "proxy %s: its reply is not SOCKS5",
                  proxy_text(p, proxy));
    return PROXY_ERROR;
}

/* Queue the request in place of what was sent. */
static enum proxy_result send_request(struct proxy_connect *p)
{
    wipe(&p->out);
    p->out_pos = 0;
    p->out = p->request;
    p->request = (struct buf)BUF_INIT;
    p->state = SOCKS_REPLY;
    return PROXY_MORE;
}

static enum proxy_result send_password(struct proxy_connect *p, struct err *e)
{
    const struct proxy_url *proxy = p->proxy;

    wipe(&p->out);
    p->out_pos = 0;
    p->state = SOCKS_AUTH;
    if (buf_reserve(&p->out, 3 + proxy->user.len + proxy->password.len, SIZE_MAX) < 0 ||
        put_byte(&p->out, SOCKS_AUTH_VERSION) < 0 ||
        put_byte(&p->out, (unsigned)proxy->user.len) < 0 ||
        buf_add(&p->out, proxy->user.p, proxy->user.len) < 0 ||
        put_byte(&p->out, (unsigned)proxy->password.len) < 0 ||
        buf_add(&p->out, proxy->password.p, proxy->password.len) < 0) {
        (void)no_memory(e);
        return PROXY_ERROR;
    }
    return PROXY_MORE;
}

static enum proxy_result on_method(struct proxy_connect *p, struct err *e)
{
    char proxy[PROXY_TEXT_MAX];

    if (p->in.p[0] != SOCKS_VERSION)
        return socks_bad(p, e);
    if (p->in.p[1] == SOCKS_NO_AUTH)
        return send_request(p);
    if (p->in.p[1] == SOCKS_PASSWORD && p->proxy->has_credentials)
        return send_password(p, e);
    if (p->in.p[1] != SOCKS_NONE_FITS)
        return socks_bad(p, e);
    (void)err_set(e, ERR_DENIED, "proxy %s %s", proxy_text(p, proxy),
                  p->proxy->has_credentials ? "takes no user name and password"
                                            : "wants credentials");
    return PROXY_ERROR;
}

static enum proxy_result on_auth(struct proxy_connect *p, struct err *e)
{
    char proxy[PROXY_TEXT_MAX];

    if (p->in.p[0] != SOCKS_AUTH_VERSION)
        return socks_bad(p, e);
    if (p->in.p[1] == 0)
        return send_request(p);
    (void)err_set(e, ERR_DENIED, "proxy %s refused the credentials",
                  proxy_text(p, proxy));
    return PROXY_ERROR;
}

static enum proxy_result on_reply(struct proxy_connect *p, struct err *e)
{
    char proxy[PROXY_TEXT_MAX];
    unsigned code = p->in.p[1];
    const char *why = code < COUNT_OF(socks_reply) ? socks_reply[code] : NULL;

    if (code == 0)
        return PROXY_OK;
    (void)err_set(e, code == 2 ? ERR_DENIED : ERR_NOTFOUND,
                  "proxy %s could not connect to %s: %s (SOCKS5 reply %u)",
                  proxy_text(p, proxy), p->target, why ? why : "unknown reason", code);
    return (code >= 3 && code <= 6) || code == 8 ? PROXY_NEXT : PROXY_ERROR;
}

/* How many bytes the current reply has, from those there are; 0: it is broken. */
static size_t socks_need(const struct proxy_connect *p)
{
    const uint8_t *r = p->in.p;

    if (p->state != SOCKS_REPLY)
        return 2;
    if (p->in.len >= 1 && r[0] != SOCKS_VERSION)
        return 0;
    /* A failure is told by its code; what follows it is not waited for. */
    if (p->in.len >= 2 && r[1] != 0)
        return 2;
    if (p->in.len < 5)
        return 5;
    switch (r[3]) {
    case SOCKS_IPV4:
        return 4 + 4 + 2;
    case SOCKS_IPV6:
        return 4 + 16 + 2;
    case SOCKS_NAME:
        return 4 + 1 + (size_t)r[4] + 2;
    default:
        return 0;
    }
}

static enum proxy_result feed_socks(struct proxy_connect *p, struct span *in,
                                    struct err *e)
{
    for (;;) {
        size_t need = socks_need(p), n;
        enum proxy_result r;

        if (need == 0)
            return socks_bad(p, e);
        if (p->in.len < need) {
            if (in->len == 0)
                return PROXY_MORE;
            if (proxy_connect_output(p).len)
                return socks_bad(p, e); /* an answer to what was not yet asked */
            /* Byte by byte where the length depends on them; replies are tiny. */
            n = p->in.len < 5 ? 1 : need - p->in.len;
            n = in->len < n ? in->len : n;
            if (buf_add(&p->in, in->p, n) < 0) {
                (void)no_memory(e);
                return PROXY_ERROR;
            }
            *in = span_skip(*in, n);
            continue;
        }
        if (p->state == SOCKS_METHOD)
            r = on_method(p, e);
        else if (p->state == SOCKS_AUTH)
            r = on_auth(p, e);
        else
            r = on_reply(p, e);
        if (r != PROXY_MORE)
            return r;
        buf_drop(&p->in, need);
    }
}

/* -- both
 * --------------------------------------------------------------------------------- */

int proxy_connect_init(struct proxy_connect *p, const struct proxy_url *proxy,
                       const struct proxy_target *target, struct err *e)
{
    bool is_http = proxy->scheme == PROXY_HTTP || proxy->scheme == PROXY_HTTPS;
    int rc;

    memset(p, 0, sizeof(*p));
    p->proxy = proxy;
    (void)proxy_print(target->name, target->port, p->target);
    rc = is_http ? init_http(p, e) : init_socks(p, target, e);
    if (rc < 0)
        proxy_connect_done(p);
    return rc;
}

struct span proxy_connect_output(const struct proxy_connect *p)
{
    return p->out.len ? span_skip(buf_span(&p->out), p->out_pos) : (struct span){0};
}

void proxy_connect_sent(struct proxy_connect *p, size_t n)
{
    p->out_pos += n;
}

enum proxy_result proxy_connect_feed(struct proxy_connect *p, struct span *in,
                                     struct err *e)
{
    enum proxy_result r;

    if (p->state == ENDED) {
        (void)err_set(e, ERR_PROTO, "asking a proxy: already over");
        return PROXY_ERROR;
    }
    r = p->state == HTTP_REPLY ? feed_http(p, in, e) : feed_socks(p, in, e);
    if (r != PROXY_MORE)
        p->state = ENDED;
    return r;
}
