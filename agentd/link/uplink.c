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
 * Everything that ends a dial or a link goes through uplink_lose(): it notes why (the first
 * reason stays), and a deferred job, on_settle(), takes the link apart and decides what is
 * next. So a link may be found lost anywhere -- inside mux_recv(), inside a write -- and is
 * only freed where nobody stands on it.
 *
 * Leaving. When we stop, or the server says GOAWAY, the open streams may end first: `leaving`
 * is on, no new streams come, and a timer looks every LEAVE_LOOK_MS whether they have.
 */
#include "agentd/link/uplink.h"

#include <stdio.h>
#include <string.h>

#include "agentd/link/uplink_int.h"
#include "common/limits.h"
#include "common/link.h"
#include "common/mem.h"
#include "common/token.h"

enum {
    LEAVE_LOOK_MS = 50
};

/* -- losing and coming back ------------------------------------------------------------------ */

void uplink_lose(struct uplink *u, const struct err *why)
{
    if (u->state == UPLINK_IS_LOSING || u->state == UPLINK_IS_ENDED)
        return;
    u->state = UPLINK_IS_LOSING;
    u->why = *why;
    loop_timer_stop(&u->wait);
    loop_timer_stop(&u->tick);
    loop_job_cancel(&u->pump);
    loop_job_defer(&u->settle);
}

void uplink_hang_up(struct uplink *u, unsigned status, const char *reason,
                    const struct err *why)
{
    struct link *l = u->ws ? ws_link_link(u->ws) : NULL;

    if (l && u->state != UPLINK_IS_LOSING)
        l->ops->close(l, status, reason);
    uplink_lose(u, why);
}

static void end(struct uplink *u, enum uplink_end how)
{
    struct err why = u->why;

    u->state = UPLINK_IS_ENDED;
    if (how == UPLINK_STOPPED)
        why = (struct err){0};
    u->ops->ended(u->owner, how, &why);
}

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
        u->state = UPLINK_IS_WAITING;
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
    uplink_hang_up(u, UPLINK_WS_NORMAL, "", &why);
}

void uplink_on_goaway(struct uplink *u, enum mux_reason why, uint32_t retry_after_ms)
{
    struct err e = {0};

    if (retry_after_ms > u->retry_after_ms)
        u->retry_after_ms = retry_after_ms;
    if (u->goaway != MUX_REASON_NONE)
        return;
    u->goaway = why;
    if (why == MUX_REASON_REPLACED) {
        (void)err_set(&e, ERR_DENIED, "another agent took the sandbox");
        uplink_hang_up(u, UPLINK_WS_NORMAL, "", &e);
    } else if (!u->stopping) {
        leave(u, LINK_LEAVE_MS);
    }
}

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

    u->mux = mux_new(&conf, &uplink_mux_ops, u);
    if (!u->mux || control_print(&u->hello, &text) < 0)
        return -1;
    return l->ops->text(l, buf_span(&text));
}

static void on_dial_opened(void *owner, struct conn **take_conn)
{
    struct uplink *u = owner;
    struct err why = {0};

    u->dial = NULL;
    u->state = UPLINK_IS_GREETING;
    u->ws =
        ws_link_new(u->loop, take_conn, dialer_scratch(u->dialer), &uplink_link_ops, u);
    if (!u->ws || greet(u) < 0) {
        (void)err_set(&why, ERR_NOMEM, "link: no memory");
        uplink_lose(u, &why);
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
    uplink_lose(u, &why->err);
}

static const struct dial_ops dial_ops = {
    .opened = on_dial_opened,
    .failed = on_dial_failed,
};

static void dial_now(struct uplink *u)
{
    struct dial_conf conf = {.dialer = u->dialer, .server = &u->server, .id = u->id};
    struct err why = {0};

    u->state = UPLINK_IS_DIALING;
    u->was_up = u->is_refused = u->leaving = false;
    u->goaway = MUX_REASON_NONE;
    u->retry_after_ms = 0;
    if (u->token_file) {
        secret_done(&u->token);
        if (secret_read(&u->token, u->token_file, TOKEN_TEXT_MAX, &why) < 0) {
            uplink_lose(u, &why);
            return;
        }
    }
    conf.token = secret_span(&u->token);
    u->dial = dial_start(&conf, &dial_ops, u, &why);
    if (!u->dial)
        uplink_lose(u, &why);
}

static void on_wait(void *arg)
{
    struct uplink *u = arg;
    struct err why = {0};

    if (u->state == UPLINK_IS_WAITING) {
        dial_now(u);
    } else if (u->leaving && u->state == UPLINK_IS_UP) {
        look_whether_left(u);
    } else if (u->state == UPLINK_IS_GREETING) {
        (void)err_set(&why, ERR_TIMEOUT, "the server did not answer the hello");
        uplink_hang_up(u, UPLINK_WS_PROTOCOL, "no welcome", &why);
    }
}

/* -- for the owner ----------------------------------------------------------------------------------- */

void uplink_start(struct uplink *u)
{
    if (u->state == UPLINK_IS_IDLE)
        dial_now(u);
}

bool uplink_is_up(const struct uplink *u)
{
    return u->state == UPLINK_IS_UP;
}

struct mux *uplink_mux(struct uplink *u)
{
    return u->state == UPLINK_IS_UP ? u->mux : NULL;
}

int uplink_send(struct uplink *u, const struct control_msg *m)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct link *l;

    if (u->state != UPLINK_IS_UP || control_print(m, &text) < 0)
        return -1;
    l = ws_link_link(u->ws);
    return l->ops->text(l, buf_span(&text));
}

void uplink_stop(struct uplink *u, uint32_t drain_ms)
{
    struct err why = {0};

    if (u->state == UPLINK_IS_ENDED)
        return;
    u->stopping = true;
    (void)err_set(&why, ERR_NONE, "stopped");
    if (u->state == UPLINK_IS_UP && drain_ms) {
        mux_goaway(u->mux, MUX_REASON_DRAIN);
        leave(u, drain_ms);
    } else {
        uplink_hang_up(u, UPLINK_WS_NORMAL, "", &why);
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
    loop_job_init(&u->pump, l, uplink_on_pump, u);
    loop_timer_init(&u->wait, l, on_wait, u);
    loop_timer_init(&u->tick, l, uplink_on_tick, u);
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
    u->state = UPLINK_IS_ENDED;
    loop_timer_stop(&u->wait);
    loop_timer_stop(&u->tick);
    loop_job_cancel(&u->settle);
    take_apart(u);
    dialer_free(u->own_dialer);
    secret_done(&u->token);
    mem_free(u->token_file);
    mem_free(u);
}
