/* SPDX-License-Identifier: MIT */
/* Heads from the app: found, judged, and written anew for the client. */
#include "tunneld/edge/edge_int.h"

#include "tunneld/edge/response.h"

static enum relay_result bad(const char **ret_rule, const char *rule)
{
    *ret_rule = rule;
    return RELAY_BAD;
}

static enum relay_result write_head(struct client *c, const struct http1_head *h)
{
    struct exchange *x = &c->x;
    struct response_args a = {
        .site = &x->site,
        .mode = x->mode,
        .framing = x->rs_out,
        .client_minor = x->minor,
        .keep_alive = x->keep_alive,
    };
    const struct http1_field *origin = NULL;

    if (x->mode == CONTROL_LOCALHOST &&
        http1_find(h, HTTP1_ACCESS_CONTROL_ALLOW_ORIGIN) && exchange_head(c))
        origin = http1_find(c->edge->request, HTTP1_ORIGIN);
    if (origin)
        a.origin = origin->value;
    if (response_write(h, &a, &c->edge->tx) < 0) {
        client_cut(c, "no-memory");
        return RELAY_CLOSED;
    }
    return RELAY_MORE;
}

static enum relay_result switched(struct client *c, const struct http1_head *h,
                                  const char **ret_rule)
{
    struct exchange *x = &c->x;

    if (!x->wants_upgrade || !h->wants_upgrade || !x->rq.is_done)
        return bad(ret_rule, "101 that was not asked for (RFC 9110 7.8)");
    x->has_head = true;
    x->status = 101;
    x->answered_ms = loop_now(c->edge->loop);
    x->keep_alive = false;
    c->state = CLIENT_TUNNEL;
    client_wait(c, WAIT_NONE, 0);
    return write_head(c, h);
}

static enum relay_result final(struct client *c, const struct http1_head *h)
{
    struct exchange *x = &c->x;
    enum http1_framing framing = http1_response_framing(h, x->is_head);

    x->has_head = true;
    x->status = h->status;
    x->answered_ms = loop_now(c->edge->loop);
    x->app_keeps = h->keep_alive;
    x->rs_out = framing;
    if (framing == HTTP1_CHUNKED || framing == HTTP1_UNTIL_CLOSE)
        x->rs_out = x->minor == 1 ? HTTP1_CHUNKED : HTTP1_UNTIL_CLOSE;
    if (x->rs_out == HTTP1_UNTIL_CLOSE || c->edge->is_draining)
        x->keep_alive = false;
    http1_body_init(&x->rs, framing, h->length);
    if (x->rq.is_done)
        client_wait(c, WAIT_NONE, 0);
    return write_head(c, h);
}

static enum relay_result one_head(struct client *c, const struct http1_head *h,
                                  const char **ret_rule)
{
    struct exchange *x = &c->x;

    if (h->status == 101)
        return switched(c, h, ret_rule);
    if (h->status >= 200)
        return final(c, h);
    if (++x->interim > EDGE_INTERIM)
        return bad(ret_rule, "more 1xx answers than EDGE_INTERIM");
    return x->minor == 1 ? write_head(c, h) : RELAY_MORE;
}

/* The next head's bytes: *bytes advanced past them; NULL p: more are needed. */
static enum relay_result find_head(struct upstream *u, struct span *bytes,
                                   struct span *ret, const char **ret_rule)
{
    size_t before = u->head.len, len = 0;
    struct span all = *bytes;
    enum http1_result r;

    *ret = span_of(NULL, 0);
    if (before > 0) {
        if (buf_add(&u->head, bytes->p, bytes->len) < 0)
            return bad(ret_rule, "no memory");
        all = buf_span(&u->head);
    }
    r = http1_scan(&u->scan, all, &len);
    if (r == HTTP1_MORE) {
        if (before == 0 && buf_add(&u->head, bytes->p, bytes->len) < 0)
            return bad(ret_rule, "no memory");
        *bytes = span_skip(*bytes, bytes->len);
        return RELAY_MORE;
    }
    if (r != HTTP1_OK)
        return bad(ret_rule, http1_rule());
    u->scan = (struct http1_scan){0};
    *ret = span_of(all.p, len);
    *bytes = span_skip(*bytes, len - before);
    return RELAY_MORE;
}

enum relay_result answer_head(struct client *c, struct span *bytes, const char **ret_rule)
{
    struct http1_head *h = c->edge->response;

    while (!c->x.has_head && bytes->len > 0) {
        struct upstream *u = c->x.up;
        struct span head;
        enum relay_result r = find_head(u, bytes, &head, ret_rule);

        if (r != RELAY_MORE || !head.p)
            return r;
        if (http1_parse_response(head, h) != HTTP1_OK)
            return bad(ret_rule, http1_rule());
        r = one_head(c, h, ret_rule);
        if (r != RELAY_MORE)
            return r;
        u->head.len = 0; /* what lay there is written */
    }
    return RELAY_MORE;
}
