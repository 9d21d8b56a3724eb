/* SPDX-License-Identifier: MIT */
#include "tests/support/lws_peer.h"

#include <libwebsockets.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/control.h"
#include "common/limits.h"
#include "common/mux.h"

enum {
    QUEUE_MAX = 256,
    MESSAGE_MAX = 1 << 17
};

struct message {
    unsigned char *p; /* LWS_PRE before it */
    size_t len;
    enum lws_write_protocol how;
};

struct session {
    struct lws *wsi;
    struct mux *mux;
    struct message queue[QUEUE_MAX];
    unsigned head, tail;
    unsigned char *in; /* a message under way */
    size_t in_len;
    bool cut, close;
    size_t sent, received;
    struct mux_stream *stream;
    bool is_wrong;
};

static enum lws_peer_kind kind;

static uint64_t now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void put(struct session *s, const void *p, size_t len, enum lws_write_protocol how)
{
    struct message *m = &s->queue[s->tail++ % QUEUE_MAX];

    m->p = malloc(LWS_PRE + len + 1);
    memcpy(m->p + LWS_PRE, p, len);
    m->len = len;
    m->how = how;
    lws_callback_on_writable(s->wsi);
}

static void put_text(struct session *s, const char *text)
{
    put(s, text, strlen(text), LWS_WRITE_TEXT);
}

static void put_control(struct session *s, const struct control_msg *m)
{
    struct buf b = BUF_INIT;

    if (control_print(m, &b) == 0)
        put(s, b.p, b.len, LWS_WRITE_TEXT);
    buf_done(&b);
}

/* -- the mux ------------------------------------------------------------------------- */

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 8));
}

static void write_stream(struct session *s)
{
    uint8_t bytes[8192];
    size_t i, n;

    while (s->stream && s->sent < LWS_PEER_BYTES) {
        n = LWS_PEER_BYTES - s->sent < sizeof(bytes) ? LWS_PEER_BYTES - s->sent
                                                     : sizeof(bytes);
        for (i = 0; i < n; i++)
            bytes[i] = byte_at(s->sent + i);
        if (mux_stream_write(s->stream, span_of(bytes, n), &n) != MUX_OK || n == 0)
            return;
        s->sent += n;
        if (s->sent == LWS_PEER_BYTES)
            mux_stream_finish(s->stream);
    }
}

static void on_writable(void *user)
{
    write_stream(user);
}

static size_t on_data(void *user, struct span bytes)
{
    struct session *s = user;
    size_t i;

    for (i = 0; i < bytes.len; i++)
        s->is_wrong |= bytes.p[i] != byte_at(s->received + i);
    s->received += bytes.len;
    return bytes.len;
}

static void on_eof(void *user)
{
    struct session *s = user;
    struct control_msg m = {.type = CONTROL_URL};

    m.u.url.port = 1;
    (void)snprintf(m.u.url.url, sizeof(m.u.url.url), "https://%s/",
                   s->received == LWS_PEER_BYTES && !s->is_wrong ? "all" : "wrong");
    put_control(s, &m);
}

static void on_closed(void *user, enum mux_reason why)
{
    struct session *s = user;

    (void)why;
    s->stream = NULL;
}

static const struct mux_stream_ops stream_ops = {
    .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};

static void on_opened(void *owner, struct mux_stream *st, const struct mux_open *open)
{
    (void)owner;
    (void)open;
    mux_stream_reset(st, MUX_REASON_CANCEL);
}

static void on_wants_send(void *owner)
{
    struct session *s = owner;

    lws_callback_on_writable(s->wsi);
}

static const struct mux_ops mux_ops = {.opened = on_opened, .wants_send = on_wants_send};

static void say_goaway(struct session *s, enum mux_reason why)
{
    struct control_msg m = {.type = CONTROL_GOAWAY};

    (void)snprintf(m.u.goaway.reason, sizeof(m.u.goaway.reason), "%s",
                   mux_reason_name(why));
    (void)snprintf(m.u.goaway.by, sizeof(m.u.goaway.by), "other");
    m.u.goaway.retry_after_ms = 1;
    put_control(s, &m);
    mux_goaway(s->mux, why);
}

static void command(struct session *s, unsigned port)
{
    struct mux_open open = {.port = 3000, .kind = MUX_KIND_TCP};
    static const uint8_t bad_frame[8] = {0xff};
    enum mux_result why;

    switch (port) {
    case LWS_PEER_STREAM:
        s->sent = s->received = 0;
        s->stream = mux_open(s->mux, &open, &stream_ops, s, &why);
        write_stream(s);
        break;
    case LWS_PEER_REPLACE:
        say_goaway(s, MUX_REASON_REPLACED);
        break;
    case LWS_PEER_DRAIN:
        say_goaway(s, MUX_REASON_DRAIN);
        break;
    case LWS_PEER_TOKEN_END:
        say_goaway(s, MUX_REASON_TOKEN);
        break;
    case LWS_PEER_CUT:
        s->cut = true;
        break;
    case LWS_PEER_BAD_FRAME:
        put(s, bad_frame, sizeof(bad_frame), LWS_WRITE_BINARY);
        break;
    case LWS_PEER_BAD_JSON:
        put_text(s, "{\"type\":\"url\",\"port\":-1}");
        break;
    default:
        break;
    }
    lws_callback_on_writable(s->wsi);
}

static void on_control(struct session *s, struct span text)
{
    struct mux_conf conf = {.role = MUX_SERVER,
                            .window = MUX_WINDOW,
                            .window_max = MUX_WINDOW_MAX,
                            .max_streams = 10};
    struct control_msg m, welcome = {.type = CONTROL_WELCOME};

    if (control_parse(text, &m, NULL) != 0)
        return;
    if (m.type == CONTROL_PORT)
        command(s, m.u.port.port);
    if (m.type != CONTROL_HELLO)
        return;
    s->mux = mux_new(&conf, &mux_ops, s);
    mux_set_peer(s->mux, m.u.hello.window, m.u.hello.max_streams);
    welcome.u.welcome.version = 1;
    welcome.u.welcome.window = MUX_WINDOW;
    welcome.u.welcome.max_streams = 10;
    (void)snprintf(welcome.u.welcome.url_form, sizeof(welcome.u.welcome.url_form),
                   "https://{port}-%s.preview.localhost/", m.u.hello.instance);
    put_control(s, &welcome);
}

/* -- libwebsockets ------------------------------------------------------------------- */

static void echo(struct session *s, bool is_text)
{
    const char *text = (const char *)s->in;

    if (is_text && s->in_len == 5 && memcmp(text, "close", 5) == 0)
        s->close = true;
    else if (is_text && s->in_len == 3 && memcmp(text, "die", 3) == 0)
        s->cut = true;
    else if (is_text && s->in_len == 4 && memcmp(text, "ping", 4) == 0)
        put(s, "abc", 3, LWS_WRITE_PING);
    else
        put(s, s->in, s->in_len, is_text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY);
    lws_callback_on_writable(s->wsi);
}

static int on_receive(struct session *s, const void *p, size_t len)
{
    bool is_binary = lws_frame_is_binary(s->wsi);

    if (kind == LWS_PEER_SERVER && is_binary)
        return s->mux && mux_recv(s->mux, span_of(p, len), now_us()) == MUX_OK ? 0 : -1;
    if (s->in_len + len > MESSAGE_MAX)
        return -1;
    memcpy(s->in + s->in_len, p, len);
    s->in_len += len;
    if (!lws_is_final_fragment(s->wsi) || lws_remaining_packet_payload(s->wsi))
        return 0;
    if (kind == LWS_PEER_SERVER)
        on_control(s, span_of(s->in, s->in_len));
    else
        echo(s, !is_binary);
    s->in_len = 0;
    return 0;
}

static int on_can_write(struct session *s)
{
    static unsigned char out[LWS_PRE + MUX_BATCH];
    struct message *m;
    size_t n;

    if (s->cut)
        return -1;
    if (s->close) {
        lws_close_reason(s->wsi, 4001, NULL, 0);
        return -1;
    }
    if (s->head != s->tail) {
        m = &s->queue[s->head++ % QUEUE_MAX];
        n = m->len;
        if (lws_write(s->wsi, m->p + LWS_PRE, n, m->how) < (int)n)
            return -1;
        free(m->p);
    } else if (s->mux && (n = mux_send(s->mux, out + LWS_PRE, MUX_BATCH, now_us())) > 0) {
        if (lws_write(s->wsi, out + LWS_PRE, n, LWS_WRITE_BINARY) < (int)n)
            return -1;
    }
    if (s->head != s->tail || (s->mux && mux_wants_send(s->mux)))
        lws_callback_on_writable(s->wsi);
    return 0;
}

static int check_token(struct lws *wsi)
{
    char text[256] = "";

    (void)lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_HTTP_AUTHORIZATION);
    if (strcmp(text, "Bearer " LWS_PEER_TOKEN) == 0)
        return 0;
    (void)lws_return_http_status(wsi, 401, NULL);
    return -1;
}

static int callback(struct lws *wsi, enum lws_callback_reasons why, void *user, void *in,
                    size_t len)
{
    struct session *s = user;

    switch (why) {
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return check_token(wsi);
    case LWS_CALLBACK_ESTABLISHED:
        memset(s, 0, sizeof(*s));
        s->wsi = wsi;
        s->in = malloc(MESSAGE_MAX);
        return 0;
    case LWS_CALLBACK_RECEIVE:
        return on_receive(s, in, len);
    case LWS_CALLBACK_RECEIVE_PONG:
        put_text(s, len == 3 && memcmp(in, "abc", 3) == 0 ? "pong" : "wrong pong");
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return on_can_write(s);
    default:
        return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {"tunnel.v1", callback, sizeof(struct session), 65536, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static void serve(int port_to, const char *cert, const char *key)
{
    struct lws_context_creation_info info = {0};
    struct lws_context *lws;
    uint16_t port;

    lws_set_log_level(0, NULL);
    info.iface = "127.0.0.1";
    info.protocols = protocols;
    info.vhost_name = "peer";
    info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DISABLE_IPV6;
    if (cert)
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    info.ssl_cert_filepath = cert;
    info.ssl_private_key_filepath = key;
    lws = lws_create_context(&info);
    if (!lws)
        _exit(1);
    port = (uint16_t)lws_get_vhost_listen_port(lws_create_vhost(lws, &info));
    if (write(port_to, &port, sizeof(port)) != (ssize_t)sizeof(port))
        _exit(1);
    for (;;)
        (void)lws_service(lws, 0);
}

void lws_peer_start(struct child *c, enum lws_peer_kind what, const char *cert,
                    const char *key)
{
    int fd[2];

    kind = what;
    if (pipe(fd) < 0 || (c->pid = fork()) < 0)
        abort();
    if (c->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fd[1], cert, key);
    }
    close(fd[1]);
    if (read(fd[0], &c->port, sizeof(c->port)) != (ssize_t)sizeof(c->port)) {
        (void)fprintf(stderr, "the libwebsockets peer does not start\n");
        abort();
    }
    close(fd[0]);
}
