/* SPDX-License-Identifier: MIT */
/* A body in pieces decodes as the body whole: content, trailers, result, bytes used. */
#include <stdlib.h>

#include "common/http1.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

struct outcome {
    enum http1_result result;
    size_t used;
    struct buf content;
    struct http1_body body;
};

static void decode(struct outcome *o, const uint8_t *p, size_t n, size_t step)
{
    *o = (struct outcome){.result = HTTP1_OK};
    http1_body_init(&o->body, HTTP1_CHUNKED, 0);
    for (size_t at = 0; at < n && !o->body.is_done && o->result == HTTP1_OK; at += step) {
        struct span in = span_of(p + at, n - at < step ? n - at : step), piece;
        size_t len = in.len;

        while (in.len > 0 && !o->body.is_done && o->result == HTTP1_OK) {
            o->result = http1_body_feed(&o->body, &in, &piece);
            MUST(piece.len == 0 || (piece.p >= p && piece.p + piece.len <= p + n));
            if (o->result == HTTP1_OK && piece.len > 0)
                MUST(buf_add(&o->content, piece.p, piece.len) == 0);
        }
        o->used += len - in.len;
    }
    if (o->result == HTTP1_OK)
        o->result = http1_body_end(&o->body);
    MUST(o->body.extra <= HTTP1_CHUNK_EXTRA_MAX + 1);
    MUST(o->body.trailer.len <= HTTP1_TRAILER_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct outcome whole, cut;

    decode(&whole, p, n, n > 0 ? n : 1);
    decode(&cut, p, n, 1 + (n > 0 ? p[n - 1] % 16 : 0));
    MUST(whole.result == cut.result);
    MUST(span_eq(buf_span(&whole.content), buf_span(&cut.content)));
    if (whole.result == HTTP1_OK) {
        MUST(whole.used == cut.used);
        MUST(span_eq(buf_span(&whole.body.trailer), buf_span(&cut.body.trailer)));
    }
    buf_done(&whole.content);
    buf_done(&cut.content);
    http1_body_done(&whole.body);
    http1_body_done(&cut.body);
    return 0;
}
