/* SPDX-License-Identifier: MIT */
#include "tunneld/tunnel/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

/* RFC 6455 7.4.1 */
enum {
    WS_NORMAL = 1000,
    WS_GOING_AWAY = 1001,
    WS_PROTOCOL_ERROR = 1002,
    WS_POLICY = 1008,
    WS_UNEXPECTED = 1011,
};

/* Wall clocks jump: a token's end is looked at again at least this often. */
enum {
    TOKEN_LOOK_MS = 3600000
};

enum session_state {
    WAIT_HELLO,
    OPEN,
    LEAVING
};

struct session {
    struct tunnel *t;  /* borrowed from the worker, which outlives it */
    struct link *link; /* borrowed: the link lives until its closed() event */
    struct mux *mux;   /* NULL before the hello and after another took the sandbox */
    struct token *token;
    enum session_state state;
    char *instance, *hostname;  /* of the hello; NULL before */
    struct port_list *excluded; /* NULL: none */
    struct publish ports;
    struct loop_timer timer; /* hello deadline; then pings, silence, the token's end */
    struct loop_job flush;
    uint64_t opened_ms, pinged_ms;
    char *client; /* printed */
};

static void session_free(struct session *s)
{
    loop_timer_stop(&s->timer);
    loop_job_cancel(&s->flush);
    mux_free(s->mux);
    publish_done(&s->ports, s->t, s->token->sub);
    mem_free(s->token);
    mem_free(s->excluded);
    mem_free(s->instance);
    mem_free(s->hostname);
    mem_free(s->client);
    mem_free(s);
}

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = mem_alloc(n);

    if (p)
        memcpy(p, text, n);
    return p;
}

/* -- words to the agent ---------------------------------------------------------------------- */

static void leave(struct session *s, unsigned status, const char *why)
{
    s->state = LEAVING;
    s->link->ops->close(s->link, status, why);
}

static void say(struct session *s, const struct control_msg *m)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (control_print(m, &b) < 0 || s->link->ops->text(s->link, buf_span(&b)) < 0)
        leave(s, WS_UNEXPECTED, "no memory");
}

static void say_goaway(struct session *s, enum mux_reason why, const char *by)
{
    struct control_msg m;
    struct tm tm;
    time_t now = time(NULL);

    memset(&m, 0, sizeof m);
    m.type = CONTROL_GOAWAY;
    (void)snprintf(m.u.goaway.reason, sizeof m.u.goaway.reason, "%s",
                   mux_reason_name(why));
    (void)snprintf(m.u.goaway.by, sizeof m.u.goaway.by, "%s", by);
    if (gmtime_r(&now, &tm))
        (void)strftime(m.u.goaway.at, sizeof m.u.goaway.at, "%Y-%m-%dT%H:%M:%SZ", &tm);
    say(s, &m);
}

static void session_fault(struct session *s, const char *what, const char *rule)
{
    log_warn("session.fault", "id=%s client=%s what=%s rule=%s", s->token->sub, s->client,
             what, log_q(rule));
    leave(s, WS_PROTOCOL_ERROR, rule);
}

/* Tell the agent why, in both ways; what the socket does not take at once is not waited for. */
static void say_last(struct session *s, enum mux_reason why, const char *by)
{
    if (s->state != OPEN)
        return;
    say_goaway(s, why, by);
    mux_goaway(s->mux, why);
    link_pump(s->link, s->mux, clock_us());
}

void session_end(struct session *s, enum mux_reason why)
{
    if (s->state == LEAVING)
        return;
    say_last(s, why, "");
    leave(s, why == MUX_REASON_TOKEN ? WS_POLICY : WS_GOING_AWAY, mux_reason_name(why));
}

void session_replaced(struct session *s, const struct session *by)
{
    struct mux *m = s->mux;
    char who[CONTROL_INSTANCE_MAX + 80];

    if (strcmp(s->instance, by->instance) != 0) {
        (void)snprintf(who, sizeof who, "%s (%s)", by->hostname, by->instance);
        log_notice("session.replaced", "id=%s client=%s by=%s", s->token->sub, s->client,
                   log_q(who));
        say_last(s, MUX_REASON_REPLACED, who);
        leave(s, WS_POLICY, "replaced");
    } else {
        leave(s, WS_NORMAL, "replaced");
    }
    loop_timer_stop(&s->timer);
    loop_job_cancel(&s->flush);
    /* The new session's table takes over the names. */
    publish_done(&s->ports, s->t, s->token->sub);
    s->mux = NULL;
    mux_free(m);
}

/* -- time ------------------------------------------------------------------------------------ */

static uint64_t token_left_ms(const struct session *s)
{
    int64_t left_s = s->token->exp - (int64_t)time(NULL);

    if (left_s <= 0)
        return 0;
    return left_s > TOKEN_LOOK_MS / 1000 ? TOKEN_LOOK_MS : (uint64_t)left_s * 1000;
}

/* When a link that stays silent is given up. */
static uint64_t silent_at_ms(const struct session *s)
{
    uint64_t heard = mux_last_recv_us(s->mux) / 1000;

    return (heard > s->opened_ms ? heard : s->opened_ms) + SILENCE_MS;
}

static void on_timer(void *arg)
{
    struct session *s = arg;
    uint64_t now = loop_now(s->t->loop), next, left = token_left_ms(s);

    if (s->state == WAIT_HELLO) {
        session_fault(s, "hello", "no hello in time");
        return;
    }
    if (!s->mux || s->state == LEAVING)
        return;
    if (left == 0) {
        session_end(s, MUX_REASON_TOKEN);
        return;
    }
    if (now >= silent_at_ms(s)) {
        leave(s, WS_GOING_AWAY, "silence");
        return;
    }
    if (now >= s->pinged_ms + PING_MS) {
        s->pinged_ms = now;
        mux_ping(s->mux, clock_us());
        loop_job_defer(&s->flush);
    }
    next = s->pinged_ms + PING_MS;
    if (silent_at_ms(s) < next)
        next = silent_at_ms(s);
    loop_timer_start(&s->timer, next - now < left ? next - now : left);
}

/* -- mux ------------------------------------------------------------------------------------- */

static void on_flush(void *arg)
{
    struct session *s = arg;

    if (s->mux)
        link_pump(s->link, s->mux, clock_us());
}

static void on_agent_opened(void *owner, struct mux_stream *stream,
                            const struct mux_open *open)
{
    UNUSED_ARG(owner);
    UNUSED_ARG(open);
    mux_stream_reset(stream, MUX_REASON_NOT_PUBLISHED); /* we publish nothing to agents */
}

static void on_wants_send(void *owner)
{
    struct session *s = owner;

    loop_job_defer(&s->flush);
}

static const struct mux_ops session_mux_ops = {
    .opened = on_agent_opened, .wants_send = on_wants_send, .goaway = NULL};

/* -- control messages -------------------------------------------------------------------------- */

static void say_welcome(struct session *s)
{
    struct control_msg m;

    memset(&m, 0, sizeof m);
    m.type = CONTROL_WELCOME;
    m.u.welcome.version = CONTROL_VERSION;
    m.u.welcome.window = MUX_WINDOW;
    m.u.welcome.max_streams = 0; /* agents open none to us */
    publish_url_form(s->t->conf, s->token->sub, m.u.welcome.url_form);
    say(s, &m);
}

static int keep_hello(struct session *s, const struct control_msg *m)
{
    struct mux_conf conf = {.role = MUX_SERVER,
                            .window = MUX_WINDOW,
                            .window_max = MUX_WINDOW_MAX,
                            .max_streams = 0,
                            .budget = &s->t->budget};

    s->instance = copy_text(m->u.hello.instance);
    s->hostname = copy_text(m->u.hello.hostname);
    if (m->u.hello.excluded.n > 0) {
        s->excluded = mem_alloc(sizeof *s->excluded);
        if (!s->excluded)
            return -1;
        *s->excluded = m->u.hello.excluded;
    }
    s->mux = mux_new(&conf, &session_mux_ops, s);
    if (!s->mux || !s->instance || !s->hostname)
        return -1;
    mux_set_peer(s->mux, m->u.hello.window, m->u.hello.max_streams);
    return 0;
}

static void on_hello(struct session *s, const struct control_msg *m)
{
    if (s->state != WAIT_HELLO) {
        session_fault(s, "hello", "a second hello");
        return;
    }
    if (m->u.hello.version != CONTROL_VERSION) {
        session_fault(s, "hello", "a protocol version that is not spoken here");
        return;
    }
    if (keep_hello(s, m) < 0) {
        leave(s, WS_UNEXPECTED, "no memory");
        return;
    }
    s->state = OPEN;
    s->pinged_ms = loop_now(s->t->loop);
    loop_timer_start(&s->timer, PING_MS);
    say_welcome(s);
    /* After the welcome, so that nothing is sent to the agent before it. */
    if (s->state == OPEN && registry_attach(s->t->registry, s) < 0) {
        leave(s, WS_UNEXPECTED, "no memory");
        return;
    }
    log_info("session.open", "id=%s client=%s agent=%s instance=%s", s->token->sub,
             s->client, log_q(m->u.hello.agent), log_q(s->instance));
}

static void on_port(struct session *s, const struct control_msg *m)
{
    struct control_msg answer;

    publish_put(&s->ports, s->t, s->token, m, &answer);
    log_info("port.open", "id=%s port=%u process=%s answer=%s", s->token->sub,
             m->u.port.port, log_q(m->u.port.process),
             answer.u.url.is_refused ? log_q(answer.u.url.why)
                                     : (answer.u.url.is_public ? "public" : "private"));
    say(s, &answer);
    if (!answer.u.url.is_refused)
        registry_changed(s->t->registry, s);
}

static void on_text(void *user, struct span text)
{
    struct session *s = user;
    struct control_msg m;
    struct err e = {0};
    int r;

    if (s->state == LEAVING)
        return;
    r = control_parse(text, &m, &e);
    if (r < 0) {
        session_fault(s, "control", e.msg);
        return;
    }
    if (r > 0)
        return; /* of a newer agent */
    if (m.type == CONTROL_HELLO) {
        on_hello(s, &m);
    } else if (s->state == WAIT_HELLO) {
        session_fault(s, "control", "the hello must come first");
    } else if (m.type == CONTROL_PORT) {
        on_port(s, &m);
    } else if (m.type == CONTROL_GONE) {
        if (publish_remove(&s->ports, s->t, s->token->sub, m.u.port.port)) {
            log_info("port.gone", "id=%s port=%u", s->token->sub, m.u.port.port);
            registry_changed(s->t->registry, s);
        }
    } else {
        session_fault(s, "control", "a message that only the server sends");
    }
}

/* -- the link's events -------------------------------------------------------------------------- */

static void on_bytes(void *user, struct span bytes)
{
    struct session *s = user;
    enum mux_result r;

    if (s->state == WAIT_HELLO) {
        session_fault(s, "mux", "bytes before the hello");
        return;
    }
    if (!s->mux)
        return;
    r = mux_recv(s->mux, bytes, clock_us());
    if (r == MUX_OK)
        return;
    if (s->state == LEAVING)
        return;
    if (r == MUX_E_PROTOCOL)
        session_fault(s, "mux", mux_fault(s->mux));
    else
        leave(s, WS_UNEXPECTED, mux_result_name(r));
}

static void on_room(void *user)
{
    on_flush(user);
}

static void on_closed(void *user, const char *why)
{
    struct session *s = user;

    log_info("session.close", "id=%s client=%s why=%s seconds=%" PRIu64, s->token->sub,
             s->client, log_q(why), (loop_now(s->t->loop) - s->opened_ms) / 1000);
    metric_add(METRIC_LINKS, -1);
    registry_detach(s->t->registry, s);
    session_free(s);
}

static const struct link_user_ops session_link_ops = {on_room, on_text, on_bytes,
                                                      on_closed};

int session_new(struct tunnel *t, struct link *l, struct token **take_token,
                const struct sock_addr *client)
{
    struct session *s = mem_zalloc(1, sizeof *s);
    char text[SOCK_TEXT_MAX];
    struct token *token = *take_token;

    *take_token = NULL;
    if (!s) {
        mem_free(token);
        return -1;
    }
    s->t = t;
    s->link = l;
    s->token = token;
    s->opened_ms = loop_now(t->loop);
    loop_timer_init(&s->timer, t->loop, on_timer, s);
    loop_job_init(&s->flush, t->loop, on_flush, s);
    s->client = copy_text(sock_print(client, text));
    if (!s->client) {
        session_free(s);
        return -1;
    }
    loop_timer_start(&s->timer, LINK_HELLO_MS);
    l->user_ops = &session_link_ops;
    l->user = s;
    metric_inc(METRIC_LINKS_OPENED);
    metric_inc(METRIC_LINKS);
    return 0;
}

/* -- for registry and dial ----------------------------------------------------------------------- */

const char *session_id(const struct session *s)
{
    return s->token->sub;
}

const char *session_tenant(const struct session *s)
{
    return s->token->tenant;
}

const struct publish_port *session_port(const struct session *s, uint16_t port)
{
    return publish_find(&s->ports, port);
}

bool session_excludes(const struct session *s, uint16_t port)
{
    return (s->excluded && port_list_has(s->excluded, port)) ||
           !token_allows_port(s->token, port);
}

struct mux_stream *session_open(struct session *s, const struct mux_open *open,
                                const struct mux_stream_ops *ops, void *user,
                                enum mux_result *ret_why)
{
    if (!s->mux || s->state != OPEN) {
        *ret_why = MUX_E_CLOSED;
        return NULL;
    }
    if (mux_streams(s->mux) >= (unsigned)s->t->conf->limits.streams_per_link) {
        *ret_why = MUX_E_LIMIT;
        return NULL;
    }
    return mux_open(s->mux, open, ops, user, ret_why);
}
