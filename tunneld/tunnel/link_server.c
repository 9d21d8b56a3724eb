/* SPDX-License-Identifier: MIT */
/*
 * Theory: how libwebsockets 4.1.6 is used here.
 *
 * A socket is adopted into one of two vhosts (TLS, plaintext). All callbacks of all
 * protocols come to on_event(). Protocol 0 sees the HTTP part: everything is decided in
 * HTTP_CONFIRM_UPGRADE, the only place that comes before libwebsockets looks at the
 * subprotocol (and hangs up without an answer when it knows none of them).
 *
 *   adopted -> [TLS] -> head -> refused: our own response, close
 *                            -> admitted -> ESTABLISHED -> opened()
 *   opened  -> RECEIVE / SERVER_WRITEABLE ... -> CLOSED -> closed() of the user
 *   WSI_DESTROY: the last event in every case; struct agent_link is freed there.
 *
 * Bytes are written directly, outside libwebsockets' callbacks, from jobs of the same
 * loop; what makes it wait is asked for first (begin()). A result of lws_write() is an
 * int and is never compared with a size_t.
 *
 * It reads one TLS record an event, with two calls of read(2), and knows nothing of bytes
 * that OpenSSL has read ahead. So a link that is busy is served by on_more(), in a job: with
 * reading ahead on, and called for as long as whole records can be in OpenSSL's buffer. When
 * the job ends at most a part of one is left there, and reading ahead is off again: whatever
 * libwebsockets does then, the socket tells it of the rest.
 */
#include "tunneld/tunnel/link_server.h"

#include <libwebsockets.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/ws.h"
#include "tunneld/tunnel/link_upgrade.h"
#include "tunneld/tunnel/text_queue.h"

enum {
    PROTOCOL_HTTP,
    PROTOCOL_TUNNEL
};

/* Turns of the loop that the context's handles get to close, see stop_step(). */
enum {
    STOP_TURNS = 5,
    STOP_TURN_MS = 2
};

enum {
    BUSY_MIN = 8192,    /* a piece this long: more is on its way */
    BUSY_RECORDS = 16,  /* records of a link in one turn */
    BUSY_AGAIN_MS = 10, /* libwebsockets does not want to read now */
};

struct link_server {
    struct loop *loop;           /* borrowed */
    struct tls_cert_slot *certs; /* borrowed, NULL: none */
    const struct link_server_ops *ops;
    void *owner;
    struct lws_context *lws; /* NULL once it is destroyed (pcontext) */
    struct lws_vhost *tls, *plain;
    SSL_CTX *no_client;          /* see vhost_tls() */
    struct agent_link *adopting; /* inside lws_adopt_*: not bound to its wsi yet */
    uint8_t *out;                /* LWS_PRE + MUX_BATCH, shared by all links: begin()
                                    and commit() come in pairs, nothing in between */
    struct loop_timer stop_timer;
    unsigned stop_turns;
    loop_job_fn *stop_fn;
    void *stop_arg;
};

struct agent_link {
    struct link base;
    struct link_server *ls;
    struct lws *wsi; /* NULL: not bound yet, or closed */
    int fd;          /* borrowed from the wsi */
    bool has_tls, is_open, is_closing, is_close_sent, is_broken;
    void *pass;                /* from admit() to opened() */
    struct buf text;           /* a text message being gathered */
    struct text_queue waiting; /* for the socket */
    char why[64];              /* of the end, for closed() */
    unsigned close_status;     /* to send, with `why` */
    struct loop_timer kill;    /* the close handshake's deadline */
    struct loop_job more;      /* the link is busy */
    struct loop_timer more_later;
    bool has_read; /* RECEIVE came */
    bool *gone;    /* set when the link is freed below on_more(), or NULL */
    struct sock_addr client;
};

static struct agent_link *agent_link_of(struct link *l)
{
    return CONTAINER_OF(l, struct agent_link, base);
}

static void set_why(struct agent_link *a, const char *why)
{
    if (!a->why[0])
        (void)snprintf(a->why, sizeof a->why, "%s", why); /* a cut reason is still one */
}

/* -- the link as its user sees it ------------------------------------------------------
 */

/* End the connection without a word. The timeout is set outside libwebsockets' callbacks,
 * so its timer must be told. */
static void kill_now(struct agent_link *a, const char *why)
{
    set_why(a, why);
    a->is_broken = true;
    loop_timer_stop(&a->kill);
    if (a->wsi) {
        lws_set_timeout(a->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
        lws_cancel_service(a->ls->lws);
    }
}

static void on_kill(void *arg)
{
    struct agent_link *a = arg;

    kill_now(a, "close-timeout");
}

static void write_message(struct agent_link *a, size_t n, enum lws_write_protocol how)
{
    int r = lws_write(a->wsi, a->ls->out + LWS_PRE, n, how);

    if (r < 0 || r < (int)n)
        kill_now(a, "write");
}

/* As far as the socket takes them. libwebsockets would take a message while it still holds
 * part of another, but then returns what it wrote of that other one. */
static void send_waiting(struct agent_link *a)
{
    size_t n;

    while (!a->is_broken && !lws_partial_buffered(a->wsi) &&
           (n = text_queue_take(&a->waiting, a->ls->out + LWS_PRE)) > 0)
        write_message(a, n, LWS_WRITE_TEXT);
}

static uint8_t *link_begin(struct link *l, size_t *ret_cap)
{
    struct agent_link *a = agent_link_of(l);
    size_t unsent;

    if (!a->wsi || a->is_closing || a->is_broken)
        return NULL;
    send_waiting(a);
    /* MUX_AHEAD is half of TCP_NOTSENT_LOWAT: the kernel reports the socket writable
     * below half of the mark (tcp_stream_memory_free()), so waiting here never spins. */
    unsent = sock_unsent(a->fd);
    if (lws_partial_buffered(a->wsi) || unsent > MUX_AHEAD) {
        (void)lws_callback_on_writable(a->wsi); /* fails only on a dying wsi */
        return NULL;
    }
    *ret_cap = link_batch(unsent);
    return a->ls->out + LWS_PRE;
}

static void link_commit(struct link *l, size_t n)
{
    struct agent_link *a = agent_link_of(l);
    bool is_long = n > BUSY_MIN;

    if (is_long)
        sock_cork(a->fd, true);
    write_message(a, n, LWS_WRITE_BINARY);
    if (is_long)
        sock_cork(a->fd, false);
}

static int link_text(struct link *l, struct span json)
{
    struct agent_link *a = agent_link_of(l);

    if (!a->wsi || a->is_closing || a->is_broken)
        return 0; /* the close is on its way to the user */
    if (json.len > MUX_BATCH)
        return -1;
    /* An agent that makes us answer and never reads must not grow this without end. */
    if (a->waiting.q.len > LINK_TEXT_MAX) {
        kill_now(a, "text-limit");
        return 0;
    }
    if (text_queue_add(&a->waiting, json) < 0)
        return -1;
    send_waiting(a);
    if (a->waiting.q.len > 0)
        (void)lws_callback_on_writable(a->wsi); /* fails only on a dying wsi */
    return 0;
}

static void link_close(struct link *l, unsigned status, const char *reason)
{
    struct agent_link *a = agent_link_of(l);

    if (!a->wsi || a->is_closing || a->is_broken)
        return;
    a->is_closing = true;
    a->close_status = status;
    set_why(a, reason);
    /* The close frame goes after what is queued, from SERVER_WRITEABLE; an agent that reads
     * nothing is cut at the deadline. */
    (void)lws_callback_on_writable(a->wsi);
    loop_timer_start(&a->kill, LINK_CLOSE_MS);
}

static const struct link_ops agent_link_ops = {link_begin, link_commit, link_text,
                                               link_close};

/* -- the upgrade ------------------------------------------------------------------------
 */

/* `upgrade` is NULL for a request without one. 0: go on with the upgrade. */
static int on_request(struct agent_link *a, struct lws *wsi, const char *upgrade)
{
    struct link_refusal no = {0};
    struct link_upgrade up;

    if (a->pass)
        return -1; /* a second request after an admitted one cannot be */
    if (link_upgrade_read(wsi, a->has_tls, upgrade, &up, &no) < 0 ||
        a->ls->ops->admit(a->ls->owner, &up.rq, &a->pass, &no) < 0)
        return link_upgrade_refuse(wsi, &a->client, &no);
    return 0;
}

static int on_established(struct agent_link *a, struct lws *wsi)
{
    void *pass = a->pass;

    a->pass = NULL;
    a->fd = lws_get_socket_fd(wsi);
    /* One call writes a whole message, of several records; otherwise libwebsockets copies
     * all but the first and writes one an event. What the socket does not take it keeps and
     * repeats as it was, as OpenSSL wants it. */
    if (a->has_tls)
        SSL_clear_mode(lws_get_ssl(wsi), SSL_MODE_ENABLE_PARTIAL_WRITE);
    if (!pass || a->ls->ops->opened(a->ls->owner, &a->base, pass, &a->client) < 0)
        return -1;
    a->is_open = true;
    return 0;
}

/* -- bytes in
 * ---------------------------------------------------------------------------- */

static void on_text(struct agent_link *a, struct lws *wsi, struct span piece)
{
    bool is_last = lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0;

    if (is_last && a->text.len == 0 && piece.len <= CONTROL_MAX) {
        a->base.user_ops->text(a->base.user, piece);
        return;
    }
    if (piece.len > CONTROL_MAX - a->text.len) {
        link_close(&a->base, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE,
                   "control message too long");
        return;
    }
    if (buf_add(&a->text, piece.p, piece.len) < 0) {
        link_close(&a->base, LWS_CLOSE_STATUS_UNEXPECTED_CONDITION, "no memory");
        return;
    }
    if (is_last) {
        a->base.user_ops->text(a->base.user, buf_span(&a->text));
        buf_done(&a->text); /* control messages are rare: no memory kept for them */
    }
}

static int on_receive(struct agent_link *a, struct lws *wsi, struct span piece)
{
    if (a->is_broken)
        return -1;
    a->has_read = true;
    if (a->has_tls && a->is_open && piece.len >= BUSY_MIN)
        loop_job_defer(&a->more);
    if (a->is_closing || !a->is_open)
        return 0;
    if (!lws_frame_is_binary(wsi))
        on_text(a, wsi, piece);
    else if (piece.len > 0)
        a->base.user_ops->bytes(a->base.user, piece);
    return a->is_broken ? -1 : 0;
}

static void read_ahead(SSL *ssl, bool on)
{
    SSL_set_read_ahead(ssl, on);
    if (on)
        SSL_set_default_read_buffer_len(ssl, TLS_READ_AHEAD);
}

/* Whole records may be left: libwebsockets did not come to the end of them. */
static bool has_more(struct agent_link *a)
{
    SSL *ssl = lws_get_ssl(a->wsi);

    return ssl && !SSL_want_read(ssl) && SSL_has_pending(ssl) == 1;
}

/* False: the link is over, `a` perhaps freed. */
static bool serve(struct agent_link *a)
{
    struct lws_pollfd p = {.fd = a->fd, .events = LWS_POLLIN};
    bool gone = false;

    /* cppcheck-suppress autoVariables; it ends with this call, as `a` does or below */
    a->gone = &gone;
    for (unsigned i = 0; i < BUSY_RECORDS; i++) {
        p.revents = LWS_POLLIN;
        (void)lws_service_fd(a->ls->lws, &p); /* what it finds, the callbacks tell */
        if (gone || !a->wsi || a->is_broken || SSL_want_read(lws_get_ssl(a->wsi)))
            break;
    }
    if (!gone)
        a->gone = NULL;
    return !gone && a->wsi && !a->is_broken;
}

static void on_more(void *arg)
{
    struct agent_link *a = arg;

    if (!a->is_open || a->is_broken)
        return;
    read_ahead(lws_get_ssl(a->wsi), true);
    a->has_read = false;
    if (!serve(a))
        return;
    if (!has_more(a))
        read_ahead(lws_get_ssl(a->wsi), false);
    else if (a->has_read)
        loop_job_defer(&a->more);
    else
        loop_timer_start(&a->more_later, BUSY_AGAIN_MS);
}

/* The close frame, once. Not by lws_close_reason(): Debian's 4.1.6 is built with _DEBUG, where
 * the libuv path closes each socket twice ("uv repeat test", lws_service_fd_tsi()), and the
 * second time drops the frame that waits. Then the agent's own close frame or the deadline
 * ends the connection. */
static int send_close(struct agent_link *a)
{
    uint8_t *text = a->ls->out + LWS_PRE + WS_HEAD_MAX;
    size_t n = strlen(a->why) + 2, head; /* < 125 (RFC 6455 5.5) */

    if (a->is_broken)
        return -1;
    if (a->is_close_sent)
        return 0;
    a->is_close_sent = true;
    text[0] = (uint8_t)(a->close_status >> 8);
    text[1] = (uint8_t)a->close_status;
    memcpy(text + 2, a->why, n - 2);
    head = ws_frame(text, n, WS_CLOSE, true, NULL);
    /* "HTTP" is how it lets bytes through as they are. */
    return lws_write(a->wsi, text - head, head + n, LWS_WRITE_HTTP) < 0 ? -1 : 0;
}

static int on_writeable(struct agent_link *a)
{
    send_waiting(a);
    if (lws_partial_buffered(a->wsi))
        return a->is_broken ? -1 : 0;
    if (a->is_closing || a->is_broken)
        return send_close(a);
    if (a->is_open)
        a->base.user_ops->room(a->base.user);
    return a->is_broken ? -1 : 0;
}

static void on_closed(struct agent_link *a)
{
    bool was_open = a->is_open;

    a->is_open = false;
    a->wsi = NULL;
    loop_timer_stop(&a->kill);
    loop_timer_stop(&a->more_later);
    loop_job_cancel(&a->more);
    if (was_open)
        a->base.user_ops->closed(a->base.user, a->why[0] ? a->why : "cut");
}

static void agent_link_free(struct agent_link *a)
{
    on_closed(a);
    if (a->gone)
        *a->gone = true;
    if (a->pass)
        a->ls->ops->dropped(a->ls->owner, a->pass);
    buf_done(&a->text);
    text_queue_done(&a->waiting);
    mem_free(a);
}

/* -- libwebsockets
 * ------------------------------------------------------------------------- */

static struct agent_link *bound(struct lws *wsi)
{
    struct agent_link *a = lws_get_opaque_user_data(wsi);
    struct link_server *ls;

    if (a)
        return a;
    /* The first events of a socket come while it is being adopted. */
    ls = lws_context_user(lws_get_context(wsi));
    a = ls->adopting;
    if (a) {
        ls->adopting = NULL;
        a->wsi = wsi;
        lws_set_opaque_user_data(wsi, a);
    }
    return a;
}

/* Certificates and modes for the TLS vhost. `wsi` is none, but good for its context. */
static int on_ssl_ctx(struct lws *wsi, struct ssl_ctx_st *ssl_ctx)
{
    struct link_server *ls = lws_context_user(lws_get_context(wsi));

    tls_ctx_tune(ssl_ctx);
    tls_cert_slot_attach(ls->certs, ssl_ctx);
    return 0;
}

/* The events of a bound connection. */
static int on_bound(struct agent_link *a, struct lws *wsi,
                    enum lws_callback_reasons reason, void *in, size_t len)
{
    switch (reason) {
    case LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED:
        return 0;
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return on_request(a, wsi, in);
    case LWS_CALLBACK_HTTP:
        return on_request(a, wsi, NULL);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return a->pass && lws_get_protocol(wsi)->id == PROTOCOL_TUNNEL ? 0 : -1;
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(a, wsi);
    case LWS_CALLBACK_RECEIVE:
        return on_receive(a, wsi, span_of(in, len));
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return a->wsi ? on_writeable(a) : -1;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        set_why(a, "agent");
        return a->is_closing ? -1
                             : 0; /* it answers ours, or begins: then it is answered */
    case LWS_CALLBACK_CLOSED:
        on_closed(a);
        return 0;
    case LWS_CALLBACK_WSI_DESTROY:
        lws_set_opaque_user_data(wsi, NULL);
        agent_link_free(a);
        return 0;
    default:
        return 0;
    }
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user,
                    void *in, size_t len)
{
    struct agent_link *a;

    switch (reason) {
    case LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS:
        return on_ssl_ctx(wsi, user);
    case LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED:
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
    case LWS_CALLBACK_HTTP:
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
    case LWS_CALLBACK_ESTABLISHED:
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_SERVER_WRITEABLE:
        a = bound(wsi);
        return a ? on_bound(a, wsi, reason, in, len) : -1;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
    case LWS_CALLBACK_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY:
        a = lws_get_opaque_user_data(wsi);
        return a ? on_bound(a, wsi, reason, in, len) : 0;
    default: /* of the context, or of HTTP features that are not used */
        return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {"http", on_event, 0, 0, PROTOCOL_HTTP, NULL, 0},
    {LINK_PROTOCOL, on_event, 0, LINK_RX, PROTOCOL_TUNNEL, NULL, MUX_BATCH + LWS_PRE},
    {NULL, NULL, 0, 0, 0, NULL, 0}};

/* No pings of its own: they would go between our frames. */
static const lws_retry_bo_t no_pings = {0};

static void on_log(int level, const char *line)
{
    struct span text = span_str(line);

    while (text.len > 0 && (text.p[text.len - 1] == '\n' || text.p[text.len - 1] == ' '))
        text.len--;
    /* 4.1.6 says this at LLL_ERR for each adoption with bytes; it is none. */
    if (strstr(line, "adopt_socket_readbuf"))
        return;
    if (level == LLL_ERR)
        log_warn("lws", "text=%s", log_qs(text));
    else
        log_debug("lws", "text=%s", log_qs(text));
}

static void vhost_describe(struct lws_context_creation_info *info, const char *name)
{
    memset(info, 0, sizeof *info);
    info->port = CONTEXT_PORT_NO_LISTEN_SERVER;
    info->vhost_name = name;
    info->protocols = protocols;
    info->alpn = "http/1.1"; /* libwebsockets' HTTP/2 is not for us */
    info->timeout_secs = LINK_HTTP_S;
    info->keepalive_timeout = LINK_HTTP_S;
    info->retry_and_idle_policy = &no_pings;
}

static int vhost_tls(struct link_server *ls, uint64_t options)
{
    struct lws_context_creation_info info;

    /* Without one, each vhost makes a context for clients with all of the system's CAs, and
     * leaks it when there are several contexts (lws_ssl_destroy_client_ctx()). */
    ls->no_client = SSL_CTX_new(TLS_client_method());
    if (!ls->no_client)
        return -1;
    vhost_describe(&info, "tls");
    info.options = options | LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX;
    info.provided_client_ssl_ctx = ls->no_client;
    ls->tls = lws_create_vhost(ls->lws, &info);
    return ls->tls ? 0 : -1;
}

static int vhost_plain(struct link_server *ls)
{
    struct lws_context_creation_info info;

    vhost_describe(&info, "plain");
    ls->plain = lws_create_vhost(ls->lws, &info);
    return ls->plain ? 0 : -1;
}

static int context_new(struct link_server *ls)
{
    struct lws_context_creation_info info;
    void *loops[1] = {loop_uv(ls->loop)};
    uint64_t tls = ls->certs ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0;

    lws_set_log_level(LLL_ERR | LLL_WARN, on_log);
    memset(&info, 0, sizeof info);
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_LIBUV |
                   LWS_SERVER_OPTION_UV_NO_SIGSEGV_SIGFPE_SPIN | tls;
    info.foreign_loops = loops;
    info.user = ls;
    info.pcontext = &ls->lws;
    info.gid = -1;
    info.uid = -1;
    info.pt_serv_buf_size = MUX_BATCH + 1024; /* the whole of a message at once */
    info.max_http_header_data = 2 * TOKEN_TEXT_MAX;
    info.max_http_header_pool2 = LINK_HANDSHAKES;
    info.timeout_secs = LINK_HTTP_S;
    info.retry_and_idle_policy = &no_pings;
    ls->lws = lws_create_context(&info);
    if (!ls->lws)
        return -1;
    /* TLS first: libwebsockets looks a vhost up again by server name and Host, finds the first
     * whatever they are, and takes that one's certificate. */
    return (ls->certs && vhost_tls(ls, tls) < 0) || vhost_plain(ls) < 0 ? -1 : 0;
}

static void stop_step(void *arg);

struct link_server *link_server_new(struct loop *l, struct tls_cert_slot *certs,
                                    const struct link_server_ops *ops, void *owner,
                                    struct err *e)
{
    struct link_server *ls = mem_zalloc(1, sizeof *ls);

    if (!ls) {
        (void)err_set(e, ERR_NOMEM, "link server");
        return NULL;
    }
    ls->loop = l;
    ls->certs = certs;
    ls->ops = ops;
    ls->owner = owner;
    loop_timer_init(&ls->stop_timer, l, stop_step, ls);
    ls->out = mem_alloc(LWS_PRE + MUX_BATCH);
    if (!ls->out || context_new(ls) < 0) {
        (void)err_set(e, ERR_SYS,
                      "start libwebsockets with its libuv plugin (is "
                      "libwebsockets-evlib-uv installed?)");
        link_server_free(ls);
        return NULL;
    }
    return ls;
}

void link_server_take(struct link_server *ls, int *take_fd, bool has_tls,
                      struct span unread, const struct sock_addr *client)
{
    struct agent_link *a = mem_zalloc(1, sizeof *a);
    struct lws_vhost *vh = has_tls ? ls->tls : ls->plain;
    int fd = *take_fd;

    *take_fd = -1;
    if (!a || !vh || !ls->lws || ls->stop_fn) {
        mem_free(a);
        sock_close(&fd);
        return;
    }
    a->base.ops = &agent_link_ops;
    a->ls = ls;
    a->fd = fd;
    a->has_tls = has_tls;
    a->client = *client;
    loop_timer_init(&a->kill, ls->loop, on_kill, a);
    loop_timer_init(&a->more_later, ls->loop, on_more, a);
    loop_job_init(&a->more, ls->loop, on_more, a);
    sock_tune_link(fd); /* adopted sockets get no TCP_NODELAY from libwebsockets */
    ls->adopting = a;
    /* It closes the socket itself when it fails. */
    (void)lws_adopt_socket_vhost_readbuf(vh, fd, (const char *)unread.p, unread.len);
    if (ls->adopting) {
        ls->adopting = NULL;
        agent_link_free(a);
    }
}

/* libwebsockets on a foreign libuv loop cannot say when it is done: the first
 * lws_context_destroy() starts to close handles, each of which needs a turn or two of the
 * loop, and the memory of some is the context itself; the second frees it. So the second
 * comes after a number of turns that is more than the closing takes (sockets, then the
 * context's timer and idle handle: two). */
static void stop_step(void *arg)
{
    struct link_server *ls = arg;
    loop_job_fn *fn = ls->stop_fn;

    if (ls->stop_turns++ < STOP_TURNS) {
        loop_timer_start(&ls->stop_timer, STOP_TURN_MS);
        return;
    }
    if (ls->lws)
        lws_context_destroy(ls->lws);
    ls->lws = NULL;
    if (fn)
        fn(ls->stop_arg);
}

void link_server_stop(struct link_server *ls, loop_job_fn *fn, void *arg)
{
    if (ls->stop_fn)
        return;
    ls->stop_fn = fn;
    ls->stop_arg = arg;
    loop_timer_start(&ls->stop_timer, STOP_TURN_MS);
    lws_context_destroy(ls->lws);
}

static void stop_loop(void *arg)
{
    struct link_server *ls = arg;

    loop_stop(ls->loop);
}

void link_server_free(struct link_server *ls)
{
    if (!ls)
        return;
    if (ls->lws) {
        link_server_stop(ls, stop_loop, ls);
        loop_run(ls->loop);
    }
    loop_timer_stop(&ls->stop_timer);
    SSL_CTX_free(ls->no_client);
    mem_free(ls->out);
    mem_free(ls);
}
