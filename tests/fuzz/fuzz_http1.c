/* SPDX-License-Identifier: MIT */
/* Scanning in two pieces equals scanning whole; what one of scanner and parser refuses as
 * bytes the other does not let pass; a parsed head, written anew, parses to the same. */
#include <stdlib.h>

#include "common/http1.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct http1_head first, second;

static size_t pick_cut(const uint8_t *p, size_t n)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 16777619u;
    return h % (n + 1);
}

static void write_head(struct buf *b, const struct http1_head *h)
{
    int r;

    if (h->is_request)
        r = buf_addf(b, "%.*s %.*s HTTP/1.%d\r\n", SPAN_FMT(h->method),
                     SPAN_FMT(h->target), h->minor);
    else
        r = buf_addf(b, "HTTP/1.%d %u %.*s\r\n", h->minor, h->status,
                     SPAN_FMT(h->reason));
    MUST(r == 0);
    for (unsigned i = 0; i < h->n_fields; i++) {
        MUST(http1_put_field(b, h->field[i].name, h->field[i].value) == 0);
        (void)http1_is_hop(h, &h->field[i]);
    }
    MUST(buf_adds(b, "\r\n") == 0);
}

static void compare(const struct http1_head *a, const struct http1_head *b)
{
    MUST(span_eq(a->method, b->method) && span_eq(a->target, b->target));
    MUST(a->status == b->status && span_eq(a->reason, b->reason));
    MUST(a->n_fields == b->n_fields && a->length == b->length);
    MUST(a->keep_alive == b->keep_alive && a->is_chunked == b->is_chunked);
    MUST(a->has_length == b->has_length && a->wants_upgrade == b->wants_upgrade);
    for (unsigned i = 0; i < a->n_fields; i++) {
        MUST(a->field[i].id == b->field[i].id);
        MUST(span_eq(a->field[i].name, b->field[i].name));
        MUST(span_eq(a->field[i].value, b->field[i].value));
    }
}

static void parse(struct span head, bool is_request)
{
    enum http1_result (*parse_head)(struct span, struct http1_head *) =
        is_request ? http1_parse_request : http1_parse_response;
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct http1_scan s = {0};
    size_t len = 0;

    if (parse_head(head, &first) != HTTP1_OK)
        return;
    MUST(http1_scan(&s, head, &len) == HTTP1_OK && len == head.len);
    MUST(!(first.is_chunked && first.has_length));
    /* A field without its white space may be longer once written with one space. */
    if (head.len + 4 * HTTP1_FIELDS_MAX > HTTP1_HEAD_MAX)
        return;
    write_head(&b, &first);
    MUST(parse_head(buf_span(&b), &second) == HTTP1_OK);
    compare(&first, &second);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct http1_scan whole = {0}, cut = {0};
    size_t whole_len = 0, cut_len = 0;
    enum http1_result a, b;

    a = http1_scan(&whole, span_of(p, n), &whole_len);
    b = http1_scan(&cut, span_of(p, pick_cut(p, n)), &cut_len);
    if (b == HTTP1_MORE)
        b = http1_scan(&cut, span_of(p, n), &cut_len);
    MUST(a == b && whole_len == cut_len);
    MUST(whole_len <= n && whole_len <= HTTP1_HEAD_MAX);
    parse(span_of(p, n), true);
    parse(span_of(p, n), false);
    if (a == HTTP1_OK) {
        parse(span_of(p, whole_len), true);
        parse(span_of(p, whole_len), false);
    }
    return 0;
}
