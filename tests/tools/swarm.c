/* SPDX-License-Identifier: MIT */
/**
 * swarm -- many idle agents in one process, on the agent's own link code: for memory per link,
 *          and for how they come back when the server was gone.
 *
 *   swarm URL CA-FILE KEY-FILE KID COUNT
 *
 * Mints its own link tokens (HS256, ids s0 ... sN). Prints a line when all are up first, and
 * from then on one line per link lost and per link back: "EVENT N MS", MS since the start.
 * Ends on SIGTERM.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "agentd/link/dial.h"
#include "agentd/link/uplink.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/token.h"

struct swarm;

struct member {
    struct swarm *swarm;
    struct uplink *uplink;
    struct loop_timer start;
    unsigned n;
    char id[HOST_ID_MAX + 1];
    struct secret token;
};

struct swarm {
    struct loop *loop;
    struct dialer *dialer;
    uint64_t start_us;
    unsigned count, up;
    bool all_were_up;
    struct member *member;
};

static void tell(const struct swarm *s, const char *what, unsigned n)
{
    (void)printf("%s %u %llu\n", what, n,
                 (unsigned long long)((clock_us() - s->start_us) / 1000));
    (void)fflush(stdout);
}

static void on_up(void *owner, const struct control_msg *welcome)
{
    struct member *m = owner;

    UNUSED_ARG(welcome);
    m->swarm->up++;
    if (m->swarm->all_were_up)
        tell(m->swarm, "back", m->n);
    else if (m->swarm->up == m->swarm->count) {
        m->swarm->all_were_up = true;
        tell(m->swarm, "all-up", m->swarm->count);
    }
}

static void on_down(void *owner, const struct err *why, bool was_up, uint32_t retry_ms)
{
    struct member *m = owner;

    UNUSED_ARG(why);
    UNUSED_ARG(retry_ms);
    if (!was_up)
        return;
    m->swarm->up--;
    tell(m->swarm, "lost", m->n);
}

static void on_control(void *owner, const struct control_msg *msg)
{
    UNUSED_ARG(owner);
    UNUSED_ARG(msg);
}

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    UNUSED_ARG(owner);
    UNUSED_ARG(open);
    mux_stream_reset(s, MUX_REASON_NOT_PUBLISHED);
}

static void on_ended(void *owner, enum uplink_end end, const struct err *why)
{
    struct member *m = owner;

    UNUSED_ARG(end);
    (void)fprintf(stderr, "ended %u: %s\n", m->n, why->msg);
}

static const struct uplink_ops ops = {
    .up = on_up,
    .down = on_down,
    .control = on_control,
    .opened = on_opened,
    .ended = on_ended,
};

static void start_member(void *arg)
{
    uplink_start(((struct member *)arg)->uplink);
}

static int make_member(struct swarm *s, unsigned n, char **argv,
                       const struct token_key *key, struct err *e)
{
    struct member *m = &s->member[n];
    struct token t = {.aud = TOKEN_LINK, .exp = (int64_t)time(NULL) + 86400};
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    char instance[32];
    struct uplink_conf conf = {
        .server = argv[1],
        .id = m->id,
        .token = &m->token,
        .dialer = s->dialer,
        .instance = instance,
        .agent = "swarm",
        .hostname = "swarm",
    };

    m->swarm = s;
    m->n = n;
    (void)snprintf(m->id, sizeof(m->id), "s%u", n);
    (void)snprintf(instance, sizeof(instance), "swarm-%u", n);
    memcpy(t.sub, m->id, sizeof(t.sub));
    if (token_sign(key, &t, &text, e) < 0)
        return -1;
    if (secret_set(&m->token, buf_span(&text)) < 0)
        return err_set(e, ERR_NOMEM, "no memory");
    m->uplink = uplink_new(s->loop, &conf, &ops, m, e);
    if (m->uplink == NULL)
        return -1;
    loop_timer_init(&m->start, s->loop, start_member, m);
    /* Two milliseconds apart: a TLS handshake costs the server about half of one. */
    loop_timer_start(&m->start, 2 * n);
    return 0;
}

static void on_signal(void *arg, int signo)
{
    UNUSED_ARG(signo);
    loop_stop(arg);
}

int main(int argc, char **argv)
{
    struct swarm s = {.start_us = clock_us()};
    struct token_keys *keys = token_keys_new();
    struct dialer_conf dialer = {.ca_file = argc > 2 ? argv[2] : NULL, .proxy = "none"};
    struct err e = {0};

    if (argc != 6) {
        (void)fprintf(stderr, "usage: swarm URL CA-FILE KEY-FILE KID COUNT\n");
        return 2;
    }
    log_setup(false, LOG_ERR);
    s.count = (unsigned)strtoul(argv[5], NULL, 10);
    s.member = calloc(s.count, sizeof(*s.member));
    s.loop = loop_new(&e);
    if (keys == NULL || s.member == NULL || s.loop == NULL ||
        token_keys_add_file(keys, argv[4], TOKEN_HS256, argv[3], "", &e) < 0 ||
        (s.dialer = dialer_new(s.loop, &dialer, &e)) == NULL ||
        loop_signal(s.loop, SIGTERM, on_signal, s.loop, &e) < 0) {
        (void)fprintf(stderr, "swarm: %s\n", e.msg);
        return 1;
    }
    for (unsigned n = 0; n < s.count; n++)
        if (make_member(&s, n, argv, token_keys_find(keys, argv[4]), &e) < 0) {
            (void)fprintf(stderr, "swarm: %s\n", e.msg);
            return 1;
        }
    loop_run(s.loop);
    for (unsigned n = 0; n < s.count; n++) {
        loop_timer_stop(&s.member[n].start);
        uplink_free(s.member[n].uplink);
        secret_done(&s.member[n].token);
    }
    dialer_free(s.dialer);
    loop_free(s.loop);
    token_keys_free(keys);
    free(s.member);
    return 0;
}
