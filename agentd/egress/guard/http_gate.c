/* SPDX-License-Identifier: MIT */
/*
 * Theory. Two state machines that share the queue of requests that wait for an answer.
 *
 *   requests   HEAD -> (judged) -> BODY -> HEAD ...
 *                            `-> UPGRADE -> TUNNEL     after 101
 *                                     `--> HEAD        after any other final response
 *                            `-> LAST                  after Connection: close: all else is dropped
 *   responses  HEAD -> BODY -> HEAD ...,  or LOST: cannot be followed
 *
 * While UPGRADE stands no request byte is looked at: whether it is HTTP is
 * not decided yet.
 */
#include "agentd/egress/guard/http_gate.h"

#include <stdio.h>
#include <string.h>

#include "common/limits.h"
#include "common/mem.h"

enum request_state {
    HEAD,
    JUDGE, /* between HTTP_GATE_REQUEST and http_gate_pass() */
    BODY,
    UPGRADE,
    TUNNEL,
    LAST,
};
enum answer_state {
    ANSWER_HEAD,
    ANSWER_BODY,
    ANSWER_LOST,
};

void http_gate_init(struct http_gate *g)
{
    *g = (struct http_gate){.state = HEAD, .answer_state = ANSWER_HEAD};
}

void http_gate_done(struct http_gate *g)
{
    http1_body_done(&g->body);
    http1_body_done(&g->answer_body);
    buf_done(&g->held);
    buf_done(&g->answer);
    if (g->proxy_fields.p)
        explicit_bzero(g->proxy_fields.p, g->proxy_fields.cap);
    buf_done(&g->proxy_fields);
}

void http_gate_to_proxy(struct http_gate *g, uint16_t port, struct buf *take_fields)
{
    g->proxy_port = port;
    g->proxy_fields = *take_fields;
    *take_fields = (struct buf)BUF_INIT;
}

static enum http_gate_result fail(struct http_gate *g, enum http1_result r)
{
    g->error = r;
    g->rule = r == HTTP1_E_NOMEM ? "no memory" : http1_rule();
    return HTTP_GATE_ERROR;
}

/* -- a head, written anew ------------------------------------------------------------ */

static int put_host(struct buf *b, const struct host *h)
{
    bool is_ip6 = h->is_ip && strchr(h->name, ':');
    char text[HOST_MAX + 16];

    (void)snprintf(text, sizeof(text), "%s%s%s", is_ip6 ? "[" : "", h->name,
                   is_ip6 ? "]" : "");
    if (h->port)
        return buf_addf(b, "Host: %s:%u\r\n", text, h->port);
    return buf_addf(b, "Host: %s\r\n", text);
}

/* What the connection does next is said for this hop by us (RFC 9110 7.6.1); the answers
 * pass as they are, so the two hops must agree on it. */
static int put_connection(struct buf *b, const struct http_gate *g, uint8_t minor)
{
    if (g->wants_upgrade)
        return buf_adds(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    if (g->is_last)
        return buf_adds(b, "Connection: close\r\n");
    return minor == 0 ? buf_adds(b, "Connection: keep-alive\r\n") : 0;
}

static int put_head(struct http_gate *g, const struct http1_head *h)
{
    struct buf *b = &g->held;

    buf_drop(b, b->len);
    if (buf_addf(b, "%.*s %.*s HTTP/1.%d\r\n", SPAN_FMT(h->method), SPAN_FMT(h->target),
                 h->minor) < 0)
        return -1;
    if (g->host.name[0] && put_host(b, &g->host) < 0)
        return -1;
    for (unsigned i = 0; i < h->n_fields; i++) {
        const struct http1_field *f = &h->field[i];

        if (f->id == HTTP1_HOST || f->id == HTTP1_CONTENT_LENGTH || http1_is_hop(h, f))
            continue;
        if (http1_put_field(b, f->name, f->value) < 0)
            return -1;
    }
    if (h->is_chunked && buf_adds(b, "Transfer-Encoding: chunked\r\n") < 0)
        return -1;
    if (h->has_length &&
        buf_addf(b, "Content-Length: %llu\r\n", (unsigned long long)h->length) < 0)
        return -1;
    return put_connection(b, g, h->minor) < 0 ? -1 : buf_adds(b, "\r\n");
}

static bool is_websocket(const struct http1_head *h)
{
    const struct http1_field *f = http1_find(h, HTTP1_UPGRADE);

    return f && span_is(f->value, "websocket");
}

static void keep_facts(struct http_gate *g, const struct http1_head *h)
{
    const struct http1_field *host = http1_find(h, HTTP1_HOST);

    g->host = (struct host){.port = 0};
    if (host)
        (void)host_parse(host->value, &g->host); /* the parser has seen that it is one */
    (void)snprintf(g->method, sizeof(g->method), "%.*s",
                   h->method.len < sizeof(g->method) ? (int)h->method.len : 20,
                   (const char *)h->method.p);
    g->is_head = span_eq(h->method, span_str("HEAD"));
    g->is_chunked = h->is_chunked;
    g->has_body = http1_request_framing(h) != HTTP1_NONE;
    g->length = h->length;
    /* A protocol of its own may be chosen only before anything else was said here. */
    g->wants_upgrade =
        h->wants_upgrade && g->number == 0 && !g->has_body && is_websocket(h);
    g->is_last = !h->keep_alive;
    if (g->number == 0)
        memcpy(g->first, g->host.name, sizeof(g->first));
    g->is_other_host = strcmp(g->first, g->host.name) != 0;
    g->number++;
}

/* The first line, when it is there, says whether this is HTTP: what speaks otherwise may
 * never send the empty line that ends a head. */
static bool is_http_line(struct span in)
{
    const uint8_t *lf;

    if (in.len >= 2 && in.p[0] == '\r' && in.p[1] == '\n')
        in = span_skip(in, 2);
    lf = in.len > 0 ? memchr(in.p, '\n', in.len) : NULL;
    return !lf || (lf - in.p >= 10 && memcmp(lf - 9, "HTTP/", 5) == 0);
}

static enum http_gate_result head_step(struct http_gate *g, struct span in,
                                       size_t *ret_used)
{
    struct http1_head h;
    enum http1_result r;
    size_t len = 0;

    *ret_used = 0;
    if (g->waiting == HTTP_GATE_DEPTH)
        return HTTP_GATE_WAIT;
    if (in.len == 0)
        return HTTP_GATE_MORE;
    r = http1_scan(&g->scan, in, &len);
    if (r == HTTP1_MORE) {
        if (is_http_line(in))
            return HTTP_GATE_MORE;
        g->error = HTTP1_E_SYNTAX;
        g->rule = "no HTTP request line (RFC 9112 3)";
        return HTTP_GATE_ERROR;
    }
    if (r == HTTP1_OK)
        r = http1_parse_request(span_of(in.p, len), &h);
    if (r != HTTP1_OK)
        return fail(g, r);
    keep_facts(g, &h);
    if (put_head(g, &h) < 0)
        return fail(g, HTTP1_E_NOMEM);
    g->scan = (struct http1_scan){0};
    *ret_used = len;
    g->state = JUDGE;
    return HTTP_GATE_REQUEST;
}

/* "GET /x HTTP/1.1" CRLF ... becomes "GET http://host:port/x HTTP/1.1" CRLF, fields, ...;
 * what is held was written by us and has these parts. */
static int put_for_proxy(const struct http_gate *g, struct buf *out)
{
    struct span held = buf_span(&g->held), rest;
    const uint8_t *target = (const uint8_t *)memchr(held.p, ' ', held.len) + 1;
    const uint8_t *line = (const uint8_t *)memchr(held.p, '\n', held.len) + 1;

    rest = span_skip(held, (size_t)(target - held.p));
    if (rest.p[0] == '*') /* OPTIONS: of the server as such */
        rest = span_skip(rest, 1);
    if (buf_add(out, held.p, (size_t)(target - held.p)) < 0 ||
        buf_addf(out, "http://%s:%u", g->host.name, g->proxy_port) < 0 ||
        buf_add(out, rest.p, (size_t)(line - rest.p)) < 0 ||
        buf_add(out, g->proxy_fields.p, g->proxy_fields.len) < 0)
        return -1;
    return buf_add(out, line, held.len - (size_t)(line - held.p));
}

static int put_held(const struct http_gate *g, struct buf *out)
{
    return g->proxy_port ? put_for_proxy(g, out) : buf_add(out, g->held.p, g->held.len);
}

int http_gate_pass(struct http_gate *g, struct buf *out)
{
    enum http1_framing framing = g->is_chunked ? HTTP1_CHUNKED
                                 : g->has_body ? HTTP1_LENGTH
                                               : HTTP1_NONE;

    if (put_held(g, out) < 0)
        return -1;
    buf_done(&g->held);
    http1_body_done(&g->body);
    http1_body_init(&g->body, framing, g->length);
    if (g->answer_state != ANSWER_LOST) {
        g->heads |= (uint64_t)g->is_head << g->waiting;
        g->waiting++;
    }
    g->asked_upgrade = g->wants_upgrade;
    if (g->has_body)
        g->state = BODY;
    else if (g->wants_upgrade)
        g->state = UPGRADE;
    else
        g->state = g->is_last ? LAST : HEAD;
    return 0;
}

/* -- a request's body: decoded, and framed anew -------------------------------------- */

static int put_piece(struct http_gate *g, struct span piece, struct buf *out)
{
    char head[HTTP1_CHUNK_HEAD_MAX];

    if (piece.len == 0)
        return 0;
    if (!g->is_chunked)
        return buf_add(out, piece.p, piece.len);
    if (buf_add(out, head, http1_chunk_head(head, piece.len)) < 0 ||
        buf_add(out, piece.p, piece.len) < 0)
        return -1;
    return buf_add(out, "\r\n", 2);
}

static int put_end(struct http_gate *g, struct buf *out)
{
    if (!g->is_chunked)
        return 0;
    if (buf_adds(out, "0\r\n") < 0 ||
        buf_add(out, g->body.trailer.p, g->body.trailer.len) < 0)
        return -1;
    return buf_add(out, "\r\n", 2);
}

static enum http_gate_result body_step(struct http_gate *g, struct span *in,
                                       struct buf *out)
{
    struct span piece;
    enum http1_result r;

    while (in->len > 0 && !g->body.is_done) {
        r = http1_body_feed(&g->body, in, &piece);
        if (r != HTTP1_OK)
            return fail(g, r);
        if (put_piece(g, piece, out) < 0)
            return fail(g, HTTP1_E_NOMEM);
    }
    if (!g->body.is_done)
        return HTTP_GATE_MORE;
    if (put_end(g, out) < 0)
        return fail(g, HTTP1_E_NOMEM);
    http1_body_done(&g->body);
    g->state = g->is_last ? LAST : HEAD;
    return HTTP_GATE_MORE;
}

enum http_gate_result http_gate_request(struct http_gate *g, struct span in,
                                        size_t *ret_used, struct buf *out)
{
    struct span rest = in;
    enum http_gate_result r;
    size_t used;

    *ret_used = 0;
    if (g->state == BODY) {
        r = body_step(g, &rest, out);
        *ret_used = in.len - rest.len;
        if (r != HTTP_GATE_MORE || g->state == BODY)
            return r;
    }
    switch (g->state) {
    case HEAD:
        r = head_step(g, rest, &used);
        *ret_used += used;
        return r;
    case TUNNEL:
        *ret_used = in.len;
        if (buf_add(out, rest.p, rest.len) < 0)
            return fail(g, HTTP1_E_NOMEM);
        return HTTP_GATE_TUNNEL;
    case LAST:
        *ret_used = in.len;
        return HTTP_GATE_MORE;
    default:
        return HTTP_GATE_WAIT;
    }
}

bool http_gate_is_judging(const struct http_gate *g)
{
    return g->state == JUDGE;
}

bool http_gate_is_waiting(const struct http_gate *g)
{
    return g->state == JUDGE || g->state == UPGRADE ||
           (g->state == HEAD && g->waiting == HTTP_GATE_DEPTH);
}

/* -- responses ----------------------------------------------------------------------- */

static void lose(struct http_gate *g)
{
    buf_done(&g->answer);
    http1_body_done(&g->answer_body);
    g->answer_state = ANSWER_LOST;
    g->waiting = 0;
    g->heads = 0;
}

static bool answered(struct http_gate *g, const struct http1_head *h)
{
    enum http1_framing framing = http1_response_framing(h, g->heads & 1);

    if (h->status < 200 && h->status != 101)
        return true;
    if (g->waiting == 0) { /* it answers nothing */
        lose(g);
        return h->status != 101;
    }
    g->waiting--;
    g->heads >>= 1;
    if (h->status == 101) {
        if (!g->asked_upgrade || g->state != UPGRADE)
            return false;
        g->state = TUNNEL;
        return true;
    }
    if (g->state == UPGRADE)
        g->state = g->is_last ? LAST : HEAD;
    http1_body_init(&g->answer_body, framing, h->length);
    if (framing == HTTP1_UNTIL_CLOSE)
        lose(g);
    else if (!g->answer_body.is_done)
        g->answer_state = ANSWER_BODY;
    return true;
}

/* Gathers a head; *bytes advanced past it when it is whole. */
static bool answer_head(struct http_gate *g, struct span *bytes)
{
    size_t before = g->answer.len, room = HTTP1_HEAD_MAX + 1 - before, len = 0;
    size_t n = bytes->len < room ? bytes->len : room;
    struct http1_head h;
    enum http1_result r;

    if (buf_add(&g->answer, bytes->p, n) < 0) {
        lose(g);
        return true;
    }
    r = http1_scan(&g->answer_scan, buf_span(&g->answer), &len);
    if (r == HTTP1_MORE) {
        *bytes = span_skip(*bytes, n);
        return true;
    }
    if (r == HTTP1_OK)
        r = http1_parse_response(span_of(g->answer.p, len), &h);
    if (r != HTTP1_OK) {
        lose(g);
        /* An upgrade whose answer cannot be read was not taken. */
        return g->state != UPGRADE;
    }
    *bytes = span_skip(*bytes, len - before);
    g->answer_scan = (struct http1_scan){0};
    /* The spans of h are not used any more once its numbers are. */
    buf_drop(&g->answer, g->answer.len);
    if (!answered(g, &h))
        return false;
    buf_done(&g->answer);
    return true;
}

static void answer_body(struct http_gate *g, struct span *bytes)
{
    struct span piece;

    if (http1_body_feed(&g->answer_body, bytes, &piece) != HTTP1_OK) {
        lose(g);
        return;
    }
    if (g->answer_body.is_done) {
        http1_body_done(&g->answer_body);
        g->answer_state = ANSWER_HEAD;
    }
}

bool http_gate_response(struct http_gate *g, struct span bytes)
{
    while (bytes.len > 0 && g->answer_state != ANSWER_LOST && g->state != TUNNEL) {
        if (g->answer_state == ANSWER_BODY)
            answer_body(g, &bytes);
        else if (!answer_head(g, &bytes))
            return false;
    }
    return true;
}

bool http_gate_may_speak(const struct http_gate *g)
{
    return g->waiting == 0 && g->answer_state == ANSWER_HEAD && g->answer.len == 0 &&
           g->state != TUNNEL;
}

bool http_gate_can_follow(const struct http_gate *g)
{
    return g->answer_state != ANSWER_LOST && g->state != TUNNEL;
}
