/* SPDX-License-Identifier: MIT */
#include "agentd/agent.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agentd/agent_int.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/token.h"

/* -- who we are --------------------------------------------------------------------------- */

int agent_identify(struct options *o, struct err *e)
{
    AUTO(secret_done)
    struct secret text = {0};
    struct token *t;
    size_t n;
    int r = -1;

    if (!o->server)
        return err_set(e, ERR_CONFIG, "no server: give --server or TUNNEL_SERVER");
    if (!o->token_file && o->token.len == 0)
        return err_set(e, ERR_CONFIG,
                       "no token: give --token-file, TUNNEL_TOKEN_FILE or TUNNEL_TOKEN");
    if (o->id)
        return 0;
    if (o->token_file) {
        if (secret_read(&text, o->token_file, TOKEN_TEXT_MAX, e) < 0)
            return err_wrap(e, "token file");
    } else if (secret_set(&text, secret_span(&o->token)) < 0) {
        return err_set(e, ERR_NOMEM, "no memory for the token");
    }
    t = mem_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "no memory for the token");
    if (token_peek(secret_span(&text), t, e) < 0) {
        (void)err_wrap(e, "no --sandbox or TUNNEL_SANDBOX, and the token names none");
        goto out;
    }
    n = strlen(t->sub) + 1;
    o->id = mem_alloc(n);
    if (!o->id) {
        (void)err_set(e, ERR_NOMEM, "no memory for the options");
        goto out;
    }
    memcpy(o->id, t->sub, n);
    r = 0;
out:
    mem_free(t);
    return r;
}

static void make_instance(struct agent *a)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t raw[16];
    size_t i;

    crypto_random(raw, sizeof raw);
    for (i = 0; i < sizeof raw; i++) {
        a->instance[2 * i] = hex[raw[i] >> 4];
        a->instance[2 * i + 1] = hex[raw[i] & 15];
    }
    if (gethostname(a->hostname, sizeof a->hostname - 1) < 0)
        a->hostname[0] = '\0';
}

/* -- the link ------------------------------------------------------------------------------ */

static void on_up(void *owner, const struct control_msg *welcome)
{
    struct agent *a = owner;

    UNUSED_ARG(welcome);
    log_info("link.up", "server=%s sandbox=%s", log_q(a->o->server), a->o->id);
    events_link_up(a->events, a->o->server, a->o->id);
    agent_ports_send_all(a);
}

static void on_down(void *owner, const struct err *why, bool was_up, uint32_t retry_ms)
{
    struct agent *a = owner;

    log_warn("link.down", "was_up=%s retry_ms=%u why=%s", was_up ? "yes" : "no",
             (unsigned)retry_ms, log_e(why));
    events_link_down(a->events, why->msg, was_up, retry_ms);
}

static void stop(struct agent *a, enum agent_exit code);

static void on_control(void *owner, const struct control_msg *m)
{
    struct agent *a = owner;
    const struct published_port *p;

    if (m->type == CONTROL_GOAWAY) {
        log_notice("link.goaway", "reason=%s by=%s at=%s", log_q(m->u.goaway.reason),
                   log_q(m->u.goaway.by), log_q(m->u.goaway.at));
        if (strcmp(m->u.goaway.reason, mux_reason_name(MUX_REASON_REPLACED)) == 0)
            events_link_replaced(a->events, m->u.goaway.by, m->u.goaway.at);
        return;
    }
    if (m->type != CONTROL_URL)
        return;
    agent_ports_url(a, m);
    p = published_find(&a->table, m->u.url.port);
    if (a->o->command == OPTIONS_HTTP && p && p->why[0])
        stop(a, AGENT_REFUSED);
}

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    forward_opened(((struct agent *)owner)->forward, s, open);
}

static void on_ended(void *owner, enum uplink_end end, const struct err *why)
{
    struct agent *a = owner;

    if (end != UPLINK_STOPPED) {
        a->code = (enum agent_exit)end;
        log_err("link.ended", "code=%d why=%s", (int)end, log_e(why));
    }
    loop_stop(a->loop);
}

static const struct uplink_ops uplink_ops = {
    .up = on_up,
    .down = on_down,
    .control = on_control,
    .opened = on_opened,
    .ended = on_ended,
};

static int start_uplink(struct agent *a, struct err *e)
{
    struct uplink_conf conf = {
        .server = a->o->server,
        .id = a->o->id,
        .token_file = a->o->token_file,
        .token = &a->o->token,
        .ca_file = a->o->ca_file,
        .proxy = a->o->proxy,
        .once = a->o->once,
        .budget = &a->budget,
        .instance = a->instance,
        .agent = "agentd/" VERSION,
        .hostname = a->hostname,
        .excluded = &a->excluded,
    };

    a->budget.max_bytes = AGENT_BUDGET;
    a->uplink = uplink_new(a->loop, &conf, &uplink_ops, a, e);
    if (!a->uplink)
        return -1;
    uplink_start(a->uplink);
    return 0;
}

/* -- signals -------------------------------------------------------------------------------- */

static void stop(struct agent *a, enum agent_exit code)
{
    if (a->n_signals++ == 0) {
        a->code = code;
        uplink_stop(a->uplink, AGENT_DRAIN_MS);
    } else {
        loop_stop(a->loop);
    }
}

static void on_stop(void *arg, int signo)
{
    struct agent *a = arg;

    log_notice("stop", "signal=%s streams=%u", signo == SIGINT ? "INT" : "TERM",
               forward_flows(a->forward));
    stop(a, AGENT_DONE);
}

/* A new set is checked completely before it replaces the old one. The token and the CA are
 * read at each dial anyway. */
static void on_reload(void *arg, int signo)
{
    struct agent *a = arg;
    struct options *new = mem_zalloc(1, sizeof *new), *old = a->o;
    const char *key;
    struct err e = {.code = ERR_NOMEM, .msg = "no memory"};

    UNUSED_ARG(signo);
    if (!new ||
        options_load(new, a->source->argc, a->source->argv, a->source->env, &e) < 0)
        goto refused;
    if (agent_identify(new, &e) < 0) {
        options_done(new);
        goto refused;
    }
    key = options_fixed_change(old, new);
    if (key) {
        (void)err_set(&e, ERR_CONFIG, "%s cannot change without a restart", key);
        options_done(new);
        goto refused;
    }
    log_setup(new->log_json, new->log_level);
    a->o = new;
    options_done(old);
    mem_free(old);
    agent_ports_rejudge(a);
    log_notice("reload", "ports=%zu", a->table.n);
    return;
refused:
    log_err("reload.refused", "why=%s", log_e(&e));
    mem_free(new);
}

static int start_signals(struct agent *a, struct err *e)
{
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return err_sys(e, "ignore SIGPIPE");
    if (loop_signal(a->loop, SIGTERM, on_stop, a, e) < 0 ||
        loop_signal(a->loop, SIGINT, on_stop, a, e) < 0 ||
        loop_signal(a->loop, SIGHUP, on_reload, a, e) < 0)
        return -1;
    return 0;
}

/* -- life ------------------------------------------------------------------------------------ */

/* As many connections as there are descriptors for, with a reserve, so that the link can
 * always be dialled again. */
static unsigned flows_allowed(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return AGENT_MIN_FLOWS;
    if (r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &r) < 0 && getrlimit(RLIMIT_NOFILE, &r) < 0)
            return AGENT_MIN_FLOWS;
    }
    if (r.rlim_cur > AGENT_FD_RESERVE + MUX_STREAMS)
        return MUX_STREAMS;
    if (r.rlim_cur < AGENT_FD_RESERVE + AGENT_MIN_FLOWS)
        return AGENT_MIN_FLOWS;
    return (unsigned)(r.rlim_cur - AGENT_FD_RESERVE);
}

static int start(struct agent *a, struct err *e)
{
    struct forward_conf fc = {.table = &a->table, .max_flows = flows_allowed()};

    make_instance(a);
    a->loop = loop_new(e);
    if (!a->loop || start_signals(a, e) < 0)
        return -1;
    if (a->source->take_ns) {
        a->ns = *a->source->take_ns;
        *a->source->take_ns = NULL;
    } else if (a->o->netns || a->o->pid) {
        a->ns = netns_open(a->o->netns, a->o->pid, e);
        if (!a->ns)
            return -1;
    }
    fc.ns = a->ns;
    a->forward = forward_new(a->loop, &fc);
    a->events = events_new(a->loop, STDOUT_FILENO, a->o->json);
    if (!a->forward || !a->events)
        return err_set(e, ERR_NOMEM, "no memory to start");
    if (agent_ports_start(a, e) < 0 || start_uplink(a, e) < 0)
        return -1;
    agent_local_start(a);
    return 0;
}

static void finish(struct agent *a)
{
    localsock_free(a->local);
    loop_timer_stop(&a->waiting);
    portwatch_free(a->watch);
    uplink_free(a->uplink);
    forward_free(a->forward);
    published_done(&a->table);
    events_free(a->events);
    netns_free(a->ns);
    loop_free(a->loop);
    options_done(a->o);
    mem_free(a->o);
}

enum agent_exit agent_run(struct options **take, const struct agent_source *source)
{
    enum agent_exit code = AGENT_FAILED;
    struct agent *a = mem_zalloc(1, sizeof *a);
    struct err e = {.code = ERR_NOMEM, .msg = "no memory to start"};

    if (!a) {
        log_err("start", "why=%s", log_e(&e));
        options_done(*take);
        mem_free(*take);
        *take = NULL;
        return code;
    }
    a->o = *take;
    *take = NULL;
    a->source = source;
    if (start(a, &e) < 0) {
        log_err("start", "why=%s", log_e(&e));
        code = e.code == ERR_CONFIG || e.code == ERR_DENIED ? AGENT_USAGE : AGENT_FAILED;
    } else {
        loop_run(a->loop);
        code = a->code;
    }
    finish(a);
    mem_free(a);
    return code;
}
