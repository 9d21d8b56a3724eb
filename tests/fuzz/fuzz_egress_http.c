/* SPDX-License-Identifier: MIT */
/*
 * One connection through the HTTP gate: the first byte says how the rest is cut and
 * where requests end and responses begin. What comes out must be what a second gate,
 * fed with it whole, reads as the same requests: hosts and all. Cutting must not
 * change what passes.
 */
#include <stdlib.h>

#include "agentd/egress/guard/http_gate.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

enum {
    HOSTS_MAX = 64
};
struct seen {
    struct host host[HOSTS_MAX];
    unsigned n;
    bool is_error;
    struct buf out;
};

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* Lets through what may pass of `in`. */
static void take(struct http_gate *g, struct buf *in, struct seen *s)
{
    enum http_gate_result r = HTTP_GATE_REQUEST;

    while (r == HTTP_GATE_REQUEST && s->n < HOSTS_MAX) {
        size_t before = s->out.len, used = 0;

        r = http_gate_request(g, buf_span(in), &used, &s->out);
        MUST(used <= in->len);
        buf_drop(in, used);
        s->is_error = r == HTTP_GATE_ERROR;
        if (s->is_error)
            return;
        MUST((r == HTTP_GATE_REQUEST) == http_gate_is_judging(g));
        MUST(r == HTTP_GATE_REQUEST || (r == HTTP_GATE_WAIT) == http_gate_is_waiting(g));
        if (r != HTTP_GATE_REQUEST)
            return;
        MUST(s->n > 0 || s->out.len == before);
        s->host[s->n++] = g->host;
        MUST(http_gate_pass(g, &s->out) == 0);
    }
}

static void run(struct span up, struct span down, size_t piece, struct seen *s)
{
    struct http_gate g;
    struct buf in = BUF_INIT;

    *s = (struct seen){.out = BUF_INIT};
    http_gate_init(&g);
    while (up.len > 0 && !s->is_error) {
        size_t n = piece < up.len ? piece : up.len;

        MUST(buf_add(&in, up.p, n) == 0);
        up = span_skip(up, n);
        take(&g, &in, s);
    }
    while (down.len > 0 && !s->is_error) {
        size_t n = piece < down.len ? piece : down.len;

        if (!http_gate_response(&g, span_of(down.p, n)))
            break;
        MUST(!http_gate_may_speak(&g) || http_gate_can_follow(&g));
        if (!http_gate_is_judging(&g))
            take(&g, &in, s);
        down = span_skip(down, n);
    }
    buf_done(&in);
    http_gate_done(&g);
}

static void compare(const struct seen *a, const struct seen *b)
{
    MUST(a->n == b->n);
    for (unsigned i = 0; i < a->n; i++) {
        MUST(a->host[i].port == b->host[i].port);
        MUST(span_eq(span_str(a->host[i].name), span_str(b->host[i].name)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static struct seen whole, cut, again;
    struct span none = {NULL, 0}, up;

    if (n < 2)
        return 0;
    up = span_of(p + 2, (n - 2) * p[0] / 255);
    run(up, none, SIZE_MAX, &whole);
    run(up, none, (size_t)p[1] + 1, &cut);
    MUST(whole.is_error == cut.is_error);
    compare(&whole, &cut);
    if (!whole.is_error && whole.n < HOSTS_MAX) {
        run(buf_span(&whole.out), none, SIZE_MAX, &again);
        MUST(!again.is_error);
        MUST(span_eq(buf_span(&again.out), buf_span(&whole.out)) || again.n != whole.n);
        buf_done(&again.out);
    }
    buf_done(&whole.out);
    buf_done(&cut.out);
    run(up, span_skip(span_of(p + 2, n - 2), up.len), (size_t)p[1] + 1, &cut);
    buf_done(&cut.out);
    return 0;
}
