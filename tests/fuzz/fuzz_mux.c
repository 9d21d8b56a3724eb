/* SPDX-License-Identifier: MIT */
/* The mux against hostile bytes, in both roles, with streams of our own open. The input's
 * first byte chooses role and pieces; the rest is what the other side sends. Users read a
 * little, answer, finish and reset by what they are given. */
#include <stdlib.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/mux.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

struct session {
    struct mux *mux;
    struct mux_stream *s[64];
};
struct user {
    struct session *session;
    unsigned i;
};

static struct user *user_new(struct session *ss, struct mux_stream *s)
{
    unsigned i = mux_stream_id(s) % 64;
    struct user *u;

    if (ss->s[i] != NULL)
        return NULL;
    u = malloc(sizeof(*u));
    if (u == NULL)
        abort();
    ss->s[i] = s;
    *u = (struct user){ss, i};
    return u;
}

static size_t on_data(void *user, struct span bytes)
{
    struct user *u = user;
    struct mux_stream *s = u->session->s[u->i];
    size_t n;

    if (bytes.len == 0 || mux_stream_peek(s).len != 0)
        abort();
    switch (bytes.p[0]) {
    case 'w':
        if (mux_stream_write(s, bytes, &n) == MUX_E_PROTOCOL)
            abort();
        break;
    case 'f':
        mux_stream_finish(s);
        break;
    case 'r':
        mux_stream_reset(s, MUX_REASON_CANCEL);
        u->session->s[u->i] = NULL;
        free(u);
        return 0;
    case 'a':
        mux_stream_accept(s);
        break;
    default:
        break;
    }
    return bytes.len - (bytes.p[0] & 1 ? 0 : bytes.len / 2);
}

static void on_closed(void *user, enum mux_reason why)
{
    struct user *u = user;

    if ((unsigned)why >= MUX_REASON_COUNT)
        abort();
    u->session->s[u->i] = NULL;
    free(u);
}

static const struct mux_stream_ops stream_ops = {.data = on_data, .closed = on_closed};

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    struct user *u = user_new(owner, s);

    if (open->port == 0)
        abort();
    if (u == NULL)
        return; /* refused */
    mux_stream_use(s, &stream_ops, u);
    if (open->port & 1)
        mux_stream_accept(s);
}

static const struct mux_ops mux_ops = {.opened = on_opened};

static void read_kept(struct session *ss)
{
    for (unsigned i = 0; i < 64; i++) {
        struct span k;

        if (ss->s[i] == NULL)
            continue;
        k = mux_stream_peek(ss->s[i]);
        if (k.len > 100)
            (void)mux_stream_consume(ss->s[i], k.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static uint8_t out[MUX_BATCH];
    struct mux_budget budget = {.max_bytes = 100000};
    struct mux_conf conf = {
        .window = 300, .window_max = 4096, .max_streams = 6, .budget = &budget};
    struct session ss = {0};
    enum mux_result r = MUX_OK, why;
    size_t piece, live = mem_live();
    uint64_t now = 1;

    if (len == 0)
        return 0;
    conf.role = p[0] & 1 ? MUX_SERVER : MUX_AGENT;
    piece = 1 + (p[0] >> 1) * 3u;
    ss.mux = mux_new(&conf, &mux_ops, &ss);
    mux_set_peer(ss.mux, 300, 4);
    for (int i = 0; i < 3; i++) {
        struct mux_open open = {.port = 80};
        struct mux_stream *s = mux_open(ss.mux, &open, &stream_ops, NULL, &why);
        size_t n;

        mux_stream_use(s, &stream_ops, user_new(&ss, s));
        (void)!mux_stream_write(s, span_of(out, 200), &n);
    }
    mux_ping(ss.mux, now);
    (void)mux_send(ss.mux, out, sizeof(out), now);
    for (size_t at = 1; at < len && r == MUX_OK; at += piece) {
        r = mux_recv(ss.mux, span_of(p + at, len - at < piece ? len - at : piece), now++);
        if (mux_memory(ss.mux) > 9 * (4096 + MUX_TX_MAX) || mux_streams(ss.mux) > 10)
            abort();
        if (at % 7 == 0)
            read_kept(&ss);
        if (at % 3 == 0)
            (void)mux_send(ss.mux, out, sizeof(out), now);
    }
    if ((r == MUX_E_PROTOCOL) != (mux_fault(ss.mux)[0] != '\0'))
        abort();
    mux_free(ss.mux);
    if (budget.used_bytes != 0 || mem_live() != live)
        abort();
    return 0;
}
