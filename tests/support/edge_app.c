/* SPDX-License-Identifier: MIT */
/* Tests make one allocation fail, wherever it is: the app itself just tries again. */
#include "tests/support/edge_app.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct app {
    struct scene *scene;
    struct mux_stream *stream;
    struct buf in;
    bool in_tunnel;
    size_t body_left; /* of "/upload" */
    struct buf body;
    struct span rest; /* still to be written, when the stream has no room */
    struct buf big;
};

struct answer {
    const char *path, *bytes;
    char then; /* 'k' keep, 'f' finish, 'r' reset */
};

static const struct answer answers[] = {
    {"/hello", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 'k'},
    {"/chunked",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
     "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n",
     'k'},
    {"/until-close", "HTTP/1.1 200 OK\r\n\r\nall of it", 'f'},
    {"/half", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 'f'},
    {"/half-reset", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 'r'},
    {"/half-chunked",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 'f'},
    {"/garbage", "garbage, no HTTP at all\r\n\r\n", 'k'},
    {"/two-lengths",
     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 'k'},
    {"/switch",
     "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
     "Upgrade: websocket\r\n\r\n",
     'k'},
    {"/extra", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", 'k'},
    {"/interim",
     "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
     'k'},
    {"/nothing", "HTTP/1.1 204 No Content\r\n\r\n", 'k'},
    {"/drop", "", 'f'},
    {"/silent", "", 'k'},
    {"/forge",
     "HTTP/1.1 200 OK\r\nTunnel-Error: port-closed\r\nSet-Cookie: __Host-tunnel=x\r\n"
     "Set-Cookie: a=b; Domain=localhost; Path=/\r\nLocation: http://localhost:3000/x\r\n"
     "Content-Length: 0\r\n\r\n",
     'k'},
    {"/then-close", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 'f'},
};

static void write_rest(struct app *a)
{
    size_t n = 0;

    while (a->rest.len > 0 && mux_stream_write(a->stream, a->rest, &n) != MUX_OK)
        ;
    a->rest = span_skip(a->rest, n);
}

static void say(struct app *a, struct span bytes)
{
    while (buf_add(&a->big, bytes.p, bytes.len) < 0)
        ;
    a->rest = buf_span(&a->big);
    write_rest(a);
}

static void app_free(struct app *a)
{
    buf_done(&a->in);
    buf_done(&a->body);
    buf_done(&a->big);
    mem_free(a);
}

/* "/bytes/N": so many of them. */
static void say_bytes(struct app *a, size_t n)
{
    char head[64];

    a->big.len = 0;
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                   n);
    while (buf_adds(&a->big, head) < 0 || buf_reserve(&a->big, n, SIZE_MAX) < 0)
        ;
    for (size_t i = 0; i < n; i++)
        a->big.p[a->big.len++] = (uint8_t)('a' + i % 26);
    a->rest = buf_span(&a->big);
    write_rest(a);
}

/* "/body": the request's head and body as they came are the answer's body. */
static void say_back(struct app *a)
{
    char head[64];

    a->big.len = 0;
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                   a->in.len);
    while (buf_adds(&a->big, head) < 0)
        ;
    say(a, buf_span(&a->in));
}

static bool starts(struct span s, const char *lit)
{
    return s.len >= strlen(lit) && memcmp(s.p, lit, strlen(lit)) == 0;
}

static void *find(const struct buf *b, const char *text)
{
    return memmem(b->p, b->len, text, strlen(text));
}

/* A whole request is here when its head is, and with "/body" its body: chunked to the
 * last chunk, or as long as it says. */
static bool is_whole(const struct app *a)
{
    const char *end = find(&a->in, "\r\n\r\n"), *len;

    if (!end)
        return false;
    if (find(&a->in, "Transfer-Encoding: chunked"))
        return find(&a->in, "\r\n0\r\n") != NULL;
    len = find(&a->in, "Content-Length: ");
    return !len || a->in.len - (size_t)(end + 4 - (const char *)a->in.p) >=
                       strtoul(len + 16, NULL, 10);
}

static void reset_app(struct scene *s)
{
    mux_stream_reset(s->resetting->stream, MUX_REASON_IO);
    app_free(s->resetting);
}

static void answer(struct app *a)
{
    const char *sp = memchr(a->in.p, ' ', a->in.len);
    struct span path = span_of(sp + 1, strcspn(sp + 1, " ?"));

    a->scene->seen.len = 0;
    while (buf_add(&a->scene->seen, a->in.p, a->in.len) < 0)
        ;
    a->big.len = 0;
    if (starts(path, "/bytes/")) {
        say_bytes(a, strtoul((const char *)path.p + 7, NULL, 10));
    } else if (starts(path, "/body")) {
        say_back(a);
    } else {
        for (size_t i = 0; i < COUNT_OF(answers); i++) {
            if (!span_eq(path, span_str(answers[i].path)))
                continue;
            a->in_tunnel = span_eq(path, span_str("/switch"));
            say(a, span_str(answers[i].bytes));
            if (answers[i].then == 'f')
                mux_stream_finish(a->stream);
            if (answers[i].then == 'r') { /* when those bytes are on their way */
                a->scene->resetting = a;
                a->scene->later_fn = reset_app;
                loop_timer_start(&a->scene->later, 20);
            }
        }
    }
}

static size_t on_data(void *user, struct span bytes)
{
    struct app *a = user;
    size_t n = 0;

    if (a->in_tunnel) {
        while (mux_stream_write(a->stream, bytes, &n) != MUX_OK)
            ;
        return n;
    }
    while (buf_add(&a->in, bytes.p, bytes.len) < 0)
        ;
    if (is_whole(a)) {
        answer(a);
        a->in.len = 0;
    }
    return bytes.len;
}

static void on_writable(void *user)
{
    write_rest(user);
}

static void on_eof(void *user)
{
    struct app *a = user;

    mux_stream_finish(a->stream);
}

static void on_closed(void *user, enum mux_reason why)
{
    UNUSED_ARG(why);
    app_free(user);
}

static const struct mux_stream_ops app_ops = {
    .data = on_data, .writable = on_writable, .eof = on_eof, .closed = on_closed};

void edge_app_opened(struct scene *s, struct mux_stream *stream)
{
    struct app *a;

    s->opened++;
    if (s->refusals > 0) {
        s->refusals--;
        mux_stream_reset(stream, s->refusal ? s->refusal : MUX_REASON_REFUSED);
        return;
    }
    while (!(a = mem_zalloc(1, sizeof(*a))))
        ;
    a->scene = s;
    a->stream = stream;
    mux_stream_use(stream, &app_ops, a);
    mux_stream_accept(stream);
}
