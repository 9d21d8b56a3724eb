/* SPDX-License-Identifier: MIT */
/* Frames in pieces tell the same messages as frames whole, from either side. */
#include <stdlib.h>

#include "common/buf.h"
#include "common/limits.h"
#include "common/ws.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* Messages apart from the control frames between their pieces, which a cut may move only
 * against pieces, never against messages' bytes. */
struct outcome {
    enum ws_result result;
    struct buf message, control;
};

static void tell(struct outcome *o, const struct ws_event *e)
{
    struct buf *b = e->opcode >= WS_CLOSE ? &o->control : &o->message;

    MUST(e->opcode < WS_CLOSE || (e->message_end && e->payload.len <= 125));
    MUST(e->opcode != WS_CONT);
    if (e->payload.len > 0)
        MUST(buf_add(b, e->payload.p, e->payload.len) == 0);
    if (e->message_end)
        MUST(buf_addf(b, "|%d|", (int)e->opcode) == 0);
}

static void receive(struct outcome *o, bool from_client, const uint8_t *p, size_t n,
                    size_t step)
{
    struct ws_rx rx;

    *o = (struct outcome){.result = WS_MORE};
    ws_rx_init(&rx, from_client);
    for (size_t at = 0; at < n && o->result == WS_MORE; at += step) {
        AUTO(buf_done)
        struct buf piece = BUF_INIT;
        struct ws_event e;
        size_t left = n - at < step ? n - at : step;
        uint8_t *in;

        MUST(buf_add(&piece, p + at, left) == 0);
        in = piece.p;
        while ((o->result = ws_rx_feed(&rx, &in, &left, &e)) == WS_OK)
            tell(o, &e);
        MUST(o->result != WS_MORE || left == 0);
        MUST(rx.left <= WS_FRAME_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    for (int from_client = 0; from_client < 2; from_client++) {
        struct outcome whole, cut;

        receive(&whole, from_client, p, n, n > 0 ? n : 1);
        receive(&cut, from_client, p, n, 1 + (n > 0 ? p[n - 1] % 16 : 0));
        MUST(whole.result == cut.result);
        MUST(span_eq(buf_span(&whole.message), buf_span(&cut.message)));
        MUST(span_eq(buf_span(&whole.control), buf_span(&cut.control)));
        buf_done(&whole.message);
        buf_done(&whole.control);
        buf_done(&cut.message);
        buf_done(&cut.control);
    }
    return 0;
}
