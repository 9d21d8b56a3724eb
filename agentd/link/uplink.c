/* SPDX-License-Identifier: MIT */
/*
 * Theory. One link at a time.
 *
 *   IDLE --start--> DIALING --opened--> GREETING --welcome--> UP
 *                     ^  |                 |                   |
 *                     |  +------failed-----+-------lost--------+
 *                     |                    v
 *                  WAITING <------------ LOSING ----> ENDED
 *
 * Everything that ends a dial or a link goes through lose(): it notes why (the first reason
 * stays), and a deferred job, settle(), takes the link apart and decides what is next. So a
 * link may be found lost anywhere -- inside mux_recv(), inside a write -- and is only freed
 * where nobody stands on it.
 *
 * Leaving. When we stop, or the server says GOAWAY, the open streams may end first: `leaving`
 * is on, no new streams come, and a timer looks every LEAVE_LOOK_MS whether they have.
 */
#include "agentd/link/uplink.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agentd/link/dial.h"
#include "agentd/link/retry.h"
#include "agentd/link/ws_link.h"
#include "common/limits.h"
#include "common/link.h"
#include "common/mem.h"
#include "common/token.h"

enum state {
    IDLE,
    DIALING,
    GREETING,
    UP,
    LOSING,
    WAITING,
    ENDED
};

enum {
    LEAVE_LOOK_MS = 50,
    TICK_MS = 5000,    /* silence and suspends are noticed this late */
    SUSPEND_MS = 2000, /* the clocks differ by this more than before: we slept */
};
enum {
    WS_NORMAL = 1000,
    WS_GOING = 1001,
    WS_PROTOCOL = 1002,
    WS_INTERNAL = 1011
};

struct uplink {
    struct loop *loop;
    const struct uplink_ops *ops;
    void *owner;
    enum state state;

    struct server_url server;
    char id[HOST_ID_MAX + 1];
    char *token_file;    /* NULL: token */
    struct secret token; /* that was sent last, or that we were given */
    struct control_msg hello;
    bool once;
    struct mux_budget *budget; /* borrowed */
    struct dialer *dialer;     /* borrowed, or own_dialer */
    struct dialer *own_dialer;

    struct dial *dial;
    struct ws_link *ws;
    struct mux *mux;
    struct loop_job settle, pump;
    struct loop_timer wait; /* WAITING: retry; GREETING: no welcome; leaving: look */
    struct loop_timer tick; /* UP */

    /* this link */
    bool was_up, is_refused, leaving;
    enum mux_reason goaway; /* NONE: none came */
    uint64_t up_ms, ping_ms, leave_until_ms;
    uint64_t probe_ms, probe_rx_ms; /* after a suspend: look then; 0: not */
    int64_t sleep_ms;               /* suspended so far, since boot */
    uint32_t retry_after_ms;
    struct err why; /* LOSING */

    bool stopping;
    struct retry retry;
};

/* -- losing and coming back ------------------------------------------------------------------ */

static void lose(struct uplink *u, const struct err *why)
{
    if (u->state == LOSING || u->state == ENDED)
        return;
    u->state = LOSING;
    u->why = *why;
    loop_timer_stop(&u->wait);
    loop_timer_stop(&u->tick);
    loop_job_cancel(&u->pump);
    loop_job_defer(&u->settle);
}

/* We end the link: say so to the server. */
static void hang_up(struct uplink *u, unsigned status, const char *reason,
                    const struct err *why)
{
    struct link *l = u->ws ? ws_link_link(u->ws) : NULL;

    if (l && u->state != LOSING)
        l->ops->close(l, status, reason);
    lose(u, why);
}

static void end(struct uplink *u, enum uplink_end how)
{
    struct err why = u->why;

    u->state = ENDED;
    if (how == UPLINK_STOPPED)
        why = (struct err){0};
    u->ops->ended(u->owner, how, &why);
}

static void dial_now(struct uplink *u);

static void on_wait(void *arg);

static void take_apart(struct uplink *u)
{
    struct mux *m = u->mux;

    dial_cancel(&u->dial);
    ws_link_cut(&u->ws);
    u->mux = NULL; /* uplink_mux() for the streams' closed() */
    mux_free(m);
    loop_job_cancel(&u->pump);
}

/* Was a token refused that the file no longer has? Then the next dial sends another. */
static bool has_new_token(struct uplink *u)
{
    struct secret now = {0};
    bool is_new;

    if (!u->token_file || secret_read(&now, u->token_file, TOKEN_TEXT_MAX, NULL) < 0)
        return false;
    is_new = !crypto_equal(secret_span(&now), secret_span(&u->token));
    secret_done(&now);
    return is_new;
}

static void on_settle(void *arg)
{
    struct uplink *u = arg;
    bool was_up = u->was_up;
    uint32_t delay;

    take_apart(u);
    if (u->stopping)
        end(u, UPLINK_STOPPED);
    else if (u->goaway == MUX_REASON_REPLACED)
        end(u, UPLINK_REPLACED);
    else if (u->is_refused && !has_new_token(u))
        end(u, UPLINK_REFUSED);
    else if (u->once)
        end(u, UPLINK_UNREACHABLE);
    else {
        delay = retry_next(&u->retry, was_up, was_up ? loop_now(u->loop) - u->up_ms : 0,
                           u->retry_after_ms);
        u->state = WAITING;
        loop_timer_start(&u->wait, delay);
        u->ops->down(u->owner, &u->why, was_up, delay);
    }
}

/* -- leaving --------------------------------------------------------------------------------- */

static void leave(struct uplink *u, uint32_t within_ms)
{
    uint64_t until = loop_now(u->loop) + within_ms;

    if (!u->leaving || until < u->leave_until_ms)
        u->leave_until_ms = until;
    u->leaving = true;
    loop_timer_start(&u->wait, 0);
}

static void look_whether_left(struct uplink *u)
{
    struct err why = {0};

    if ((mux_streams(u->mux) || mux_wants_send(u->mux) || ws_link_pending(u->ws)) &&
        loop_now(u->loop) < u->leave_until_ms) {
        loop_timer_start(&u->wait, LEAVE_LOOK_MS);
        return;
    }
    if (u->stopping)
        (void)err_set(&why, ERR_NONE, "stopped");
    else
        (void)err_set(&why, ERR_NOTFOUND, "the server sent us away (%s)",
                      mux_reason_name(u->goaway));
    hang_up(u, WS_NORMAL, "", &why);
}

/* Told twice, in a control message and in a mux frame; the first counts. */
static void on_goaway(struct uplink *u, enum mux_reason why, uint32_t retry_after_ms)
{
    struct err e = {0};

    if (retry_after_ms > u->retry_after_ms)
        u->retry_after_ms = retry_after_ms;
    if (u->goaway != MUX_REASON_NONE)
        return;
    u->goaway = why;
    if (why == MUX_REASON_REPLACED) {
        (void)err_set(&e, ERR_DENIED, "another agent took the sandbox");
        hang_up(u, WS_NORMAL, "", &e);
    } else if (!u->stopping) {
        leave(u, LINK_LEAVE_MS);
    }
}

/* -- the mux ------------------------------------------------------------------------------------ */

static void on_mux_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    struct uplink *u = owner;

    u->ops->opened(u->owner, s, open);
}

static void on_mux_wants_send(void *owner)
{
    struct uplink *u = owner;

    loop_job_defer(&u->pump);
}

static void on_mux_goaway(void *owner, enum mux_reason why)
{
    struct uplink *u = owner;

    on_goaway(u, why, 0);
}

static const struct mux_ops mux_ops = {
    .opened = on_mux_opened,
    .wants_send = on_mux_wants_send,
    .goaway = on_mux_goaway,
};

/* Once per loop turn, for all that was queued in it. */
static void on_pump(void *arg)
{
    struct uplink *u = arg;

    if (u->state == UP)
        link_pump(ws_link_link(u->ws), u->mux, clock_us());
}

/* -- the link ------------------------------------------------------------------------------------ */

static int64_t slept_ms(void)
{
    struct timespec boot = {0}, mono = {0};

    (void)clock_gettime(CLOCK_BOOTTIME,
                        &boot); /* both clocks are in every Linux we run on */
    (void)clock_gettime(CLOCK_MONOTONIC, &mono);
    return (int64_t)(boot.tv_sec - mono.tv_sec) * 1000 +
           (boot.tv_nsec - mono.tv_nsec) / 1000000;
}

static void on_tick(void *arg)
{
    struct uplink *u = arg;
    uint64_t now = loop_now(u->loop), rx = ws_link_last_rx_ms(u->ws);
    int64_t sleep = slept_ms();
    struct err why = {0};

    if (now - rx >= SILENCE_MS) {
        (void)err_set(&why, ERR_TIMEOUT, "nothing came from the server for %d s",
                      SILENCE_MS / 1000);
        hang_up(u, WS_GOING, "silence", &why);
        return;
    }
    if (u->probe_ms && now >= u->probe_ms) {
        u->probe_ms = 0;
        if (rx == u->probe_rx_ms) {
            (void)err_set(&why, ERR_TIMEOUT, "no answer after this machine slept");
            hang_up(u, WS_GOING, "slept", &why);
            return;
        }
    }
    if (sleep - u->sleep_ms >= SUSPEND_MS) {
        u->probe_ms = now + PROBE_MS;
        u->probe_rx_ms = rx;
    }
    u->sleep_ms = sleep;
    if (now >= u->ping_ms || u->probe_ms) {
        u->ping_ms = now + PING_MS;
        mux_ping(u->mux, clock_us());
    }
    loop_timer_start(&u->tick, TICK_MS);
}

static void on_welcome(struct uplink *u, const struct control_msg *m)
{
    struct err why = {0};
    uint64_t now = loop_now(u->loop);

    if (m->u.welcome.version != CONTROL_VERSION) {
        (void)err_set(&why, ERR_PROTO, "the server speaks version %u of the protocol",
                      m->u.welcome.version);
        hang_up(u, WS_PROTOCOL, "version", &why);
        return;
    }
    mux_set_peer(u->mux, m->u.welcome.window, m->u.welcome.max_streams);
    loop_timer_stop(&u->wait);
    u->state = UP;
    u->was_up = true;
    u->up_ms = now;
    u->ping_ms = now + PING_MS;
    u->sleep_ms = slept_ms();
    loop_timer_start(&u->tick, TICK_MS);
    u->ops->up(u->owner, m);
}

static void on_control(struct uplink *u, const struct control_msg *m)
{
    struct err why = {0};
    enum mux_reason r;

    if (u->state == GREETING && m->type == CONTROL_WELCOME) {
        on_welcome(u, m);
    } else if (m->type == CONTROL_GOAWAY) {
        for (r = MUX_REASON_NONE + 1; r < MUX_REASON_COUNT; r++)
            if (strcmp(m->u.goaway.reason, mux_reason_name(r)) == 0)
                break;
        u->ops->control(u->owner, m);
        on_goaway(u, r < MUX_REASON_COUNT ? r : MUX_REASON_DRAIN,
                  m->u.goaway.retry_after_ms);
    } else if (u->state == UP && m->type == CONTROL_URL) {
        u->ops->control(u->owner, m);
    } else {
        (void)err_set(&why, ERR_PROTO, "the server sent a control message out of place");
        hang_up(u, WS_PROTOCOL, "control message out of place", &why);
    }
}

static void on_link_text(void *user, struct span json)
{
    struct uplink *u = user;
    struct control_msg m;
    struct err why = {0};
    int rc;

    if (u->state != GREETING && u->state != UP)
        return;
    rc = control_parse(json, &m, &why);
    if (rc < 0)
        hang_up(u, WS_PROTOCOL, "control message", &why);
    else if (rc == 0)
        on_control(u, &m);
}

static void on_link_bytes(void *user, struct span bytes)
{
    struct uplink *u = user;
    struct err why = {0};
    enum mux_result r;

    if (u->state != GREETING && u->state != UP)
        return;
    r = mux_recv(u->mux, bytes, clock_us());
    if (r == MUX_OK)
        return;
    if (r == MUX_E_PROTOCOL) {
        (void)err_set(&why, ERR_PROTO, "the server broke the protocol: %s",
                      mux_fault(u->mux));
        hang_up(u, WS_PROTOCOL, mux_fault(u->mux), &why);
    } else {
        (void)err_set(&why, ERR_NOMEM, "link: %s", mux_result_name(r));
        hang_up(u, WS_INTERNAL, "memory", &why);
    }
}

static void on_link_room(void *user)
{
    struct uplink *u = user;

    loop_job_defer(&u->pump);
}

static void on_link_closed(void *user, const char *reason)
{
    struct uplink *u = user;
    struct err why = {0};

    u->ws = NULL;
    (void)err_set(&why, ERR_NOTFOUND, "the link was lost: %s", reason);
    lose(u, &why);
}

static const struct link_user_ops link_ops = {
    .room = on_link_room,
    .text = on_link_text,
    .bytes = on_link_bytes,
    .closed = on_link_closed,
};

/* -- dialling ------------------------------------------------------------------------------------- */

static int greet(struct uplink *u)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct link *l = ws_link_link(u->ws);
    struct mux_conf conf = {
        .role = MUX_AGENT,
        .window = u->hello.u.hello.window,
        .window_max = MUX_WINDOW_MAX,
        .max_streams = u->hello.u.hello.max_streams,
        .budget = u->budget,
    };

    u->mux = mux_new(&conf, &mux_ops, u);
    if (!u->mux || control_print(&u->hello, &text) < 0)
        return -1;
    return l->ops->text(l, buf_span(&text));
}

static void on_dial_opened(void *owner, struct conn **take_conn)
{
    struct uplink *u = owner;
    struct err why = {0};

    u->dial = NULL;
    u->state = GREETING;
    u->ws = ws_link_new(u->loop, take_conn, dialer_scratch(u->dialer), &link_ops, u);
    if (!u->ws || greet(u) < 0) {
        (void)err_set(&why, ERR_NOMEM, "link: no memory");
        lose(u, &why);
        return;
    }
    loop_timer_start(&u->wait, LINK_HELLO_MS);
}

static void on_dial_failed(void *owner, const struct dial_failure *why)
{
    struct uplink *u = owner;

    u->dial = NULL;
    u->is_refused = why->is_refused;
    u->retry_after_ms = why->retry_after_ms;
    lose(u, &why->err);
}

static const struct dial_ops dial_ops = {
    .opened = on_dial_opened,
    .failed = on_dial_failed,
};

static void dial_now(struct uplink *u)
{
    struct dial_conf conf = {.dialer = u->dialer, .server = &u->server, .id = u->id};
    struct err why = {0};

    u->state = DIALING;
    u->was_up = u->is_refused = u->leaving = false;
    u->goaway = MUX_REASON_NONE;
    u->retry_after_ms = 0;
    u->probe_ms = 0;
    if (u->token_file) {
        secret_done(&u->token);
        if (secret_read(&u->token, u->token_file, TOKEN_TEXT_MAX, &why) < 0) {
            lose(u, &why);
            return;
        }
    }
    conf.token = secret_span(&u->token);
    u->dial = dial_start(&conf, &dial_ops, u, &why);
    if (!u->dial)
        lose(u, &why);
}

static void on_wait(void *arg)
{
    struct uplink *u = arg;
    struct err why = {0};

    if (u->state == WAITING) {
        dial_now(u);
    } else if (u->leaving && u->state == UP) {
        look_whether_left(u);
    } else if (u->state == GREETING) {
        (void)err_set(&why, ERR_TIMEOUT, "the server did not answer the hello");
        hang_up(u, WS_PROTOCOL, "no welcome", &why);
    }
}

/* -- for the owner ----------------------------------------------------------------------------------- */

void uplink_start(struct uplink *u)
{
    if (u->state == IDLE)
        dial_now(u);
}

bool uplink_is_up(const struct uplink *u)
{
    return u->state == UP;
}

struct mux *uplink_mux(struct uplink *u)
{
    return u->state == UP ? u->mux : NULL;
}

int uplink_send(struct uplink *u, const struct control_msg *m)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct link *l;

    if (u->state != UP || control_print(m, &text) < 0)
        return -1;
    l = ws_link_link(u->ws);
    return l->ops->text(l, buf_span(&text));
}

void uplink_stop(struct uplink *u, uint32_t drain_ms)
{
    struct err why = {0};

    if (u->state == ENDED)
        return;
    u->stopping = true;
    (void)err_set(&why, ERR_NONE, "stopped");
    if (u->state == UP && drain_ms) {
        mux_goaway(u->mux, MUX_REASON_DRAIN);
        leave(u, drain_ms);
    } else {
        hang_up(u, WS_NORMAL, "", &why);
    }
}

static void copy_text(char *to, size_t cap, const char *from)
{
    (void)snprintf(to, cap, "%s", from ? from : "");
}

static void fill_hello(struct control_msg *m, const struct uplink_conf *conf)
{
    m->type = CONTROL_HELLO;
    m->u.hello.version = CONTROL_VERSION;
    m->u.hello.window = MUX_WINDOW;
    m->u.hello.max_streams = MUX_STREAMS;
    copy_text(m->u.hello.instance, sizeof(m->u.hello.instance), conf->instance);
    copy_text(m->u.hello.agent, sizeof(m->u.hello.agent), conf->agent);
    copy_text(m->u.hello.hostname, sizeof(m->u.hello.hostname), conf->hostname);
    if (conf->excluded)
        m->u.hello.excluded = *conf->excluded;
}

static int configure(struct uplink *u, const struct uplink_conf *conf, struct err *e)
{
    struct dialer_conf dialer = {.ca_file = conf->ca_file, .proxy = conf->proxy};
    char host[HOST_MAX + 1];

    if (server_url_parse(conf->server, &u->server, e) < 0 ||
        server_url_link_host(&u->server, conf->id, host, e) < 0)
        return -1;
    copy_text(u->id, sizeof(u->id), conf->id);
    fill_hello(&u->hello, conf);
    u->once = conf->once;
    u->budget = conf->budget;
    if (conf->token_file) {
        u->token_file = mem_alloc(strlen(conf->token_file) + 1);
        if (!u->token_file)
            return err_set(e, ERR_NOMEM, "link: no memory");
        memcpy(u->token_file, conf->token_file, strlen(conf->token_file) + 1);
    } else if (!conf->token || secret_set(&u->token, secret_span(conf->token)) < 0) {
        return conf->token ? err_set(e, ERR_NOMEM, "link: no memory")
                           : err_set(e, ERR_CONFIG, "there is no token");
    }
    u->dialer = conf->dialer;
    if (!u->dialer)
        u->dialer = u->own_dialer = dialer_new(u->loop, &dialer, e);
    return u->dialer ? 0 : -1;
}

struct uplink *uplink_new(struct loop *l, const struct uplink_conf *conf,
                          const struct uplink_ops *ops, void *owner, struct err *e)
{
    struct uplink *u = mem_zalloc(1, sizeof(*u));

    if (!u) {
        (void)err_set(e, ERR_NOMEM, "link: no memory");
        return NULL;
    }
    u->loop = l;
    u->ops = ops;
    u->owner = owner;
    loop_job_init(&u->settle, l, on_settle, u);
    loop_job_init(&u->pump, l, on_pump, u);
    loop_timer_init(&u->wait, l, on_wait, u);
    loop_timer_init(&u->tick, l, on_tick, u);
    if (configure(u, conf, e) < 0) {
        uplink_free(u);
        return NULL;
    }
    return u;
}

void uplink_free(struct uplink *u)
{
    if (!u)
        return;
    u->state = ENDED;
    loop_timer_stop(&u->wait);
    loop_timer_stop(&u->tick);
    loop_job_cancel(&u->settle);
    take_apart(u);
    dialer_free(u->own_dialer);
    secret_done(&u->token);
    mem_free(u->token_file);
    mem_free(u);
}
