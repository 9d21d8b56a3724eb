/* SPDX-License-Identifier: MIT */
#include "tests/support/dns_scene.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/egress/guard/keeper_link.h"
#include "common/sock.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

static void keep(struct dns_scene *s, struct channel_msg *m)
{
    struct channel_msg r;

    assert_int_equal(m->type, CHANNEL_WANT_REPLY);
    s->n_wants++;
    assert_int_equal(m->protocol, IPPROTO_UDP);
    channel_msg_init(&r, CHANNEL_REPLY, m->sandbox);
    r.fd[CHANNEL_FD_REPLY] = s->reply_fd;
    if (s->reply_fd < 0)
        r.error = 1;
    r.seq = m->seq;
    if (!s->is_silent)
        assert_int_equal(channel_send(s->keeper, &r, NULL), 0);
}

static void on_keeper(void *arg, unsigned events)
{
    struct dns_scene *s = arg;
    struct channel_msg m;
    struct err e = {0};

    UNUSED_ARG(events);
    while (channel_recv(s->keeper, &m, &e) > 0) {
        keep(s, &m);
        channel_msg_done(&m);
    }
    assert_int_equal(e.code, ERR_NONE);
}

static void on_message(void *arg, struct channel_msg *m)
{
    UNUSED_ARG(arg);
    fail_msg("a message that nobody asked for: %s", channel_type_name(m->type));
}

static void on_gone(void *arg)
{
    UNUSED_ARG(arg);
    fail_msg("the channel has closed");
}

static void on_limit(void *arg)
{
    UNUSED_ARG(arg);
    fail_msg("it takes too long");
}

void dns_scene_policy(struct dns_scene *s, const char *policy)
{
    policy_unref(s->ward.policy);
    s->ward.policy = policy_text(policy);
}

void dns_scene_open(struct dns_scene *s, const char *policy)
{
    struct err e = {0};
    int pair[2];

    memset(s, 0, sizeof(*s));
    s->reply_fd = -1;
    s->guard.loop = loop_new(&e);
    assert_non_null(s->guard.loop);
    dns_upstream_open(&s->up, s->guard.loop);
    memcpy(s->guard.resolvers, s->up.servers, sizeof(s->up.servers));
    assert_int_equal(channel_pair(pair, &e), 0);
    s->keeper = pair[0];
    s->keeper_io = loop_io_start(s->guard.loop, s->keeper, on_keeper, s, &e);
    assert_non_null(s->keeper_io);
    loop_io_want(s->keeper_io, LOOP_READ);
    s->guard.keeper =
        keeper_link_new(s->guard.loop, &pair[1], on_message, on_gone, s, &e);
    assert_non_null(s->guard.keeper);
    s->audit = memfd_create("audit", MFD_CLOEXEC);
    assert_true(s->audit >= 0);
    s->guard.audit = audit_new(s->audit);
    assert_non_null(s->guard.audit);
    s->ward.guard = &s->guard;
    s->ward.index = 7;
    pin_sink_open(&s->pins);
    s->ward.pin_fd = s->pins.fd;
    s->ward.tag = PIN_SINK_TAG;
    memcpy(s->ward.name, "box", 4);
    dns_scene_policy(s, policy);
    loop_timer_init(&s->limit, s->guard.loop, on_limit, s);
}

void dns_scene_close(struct dns_scene *s)
{
    keeper_link_free(s->guard.keeper);
    loop_io_stop(&s->keeper_io);
    sock_close(&s->keeper);
    dns_upstream_close(&s->up);
    audit_free(s->guard.audit);
    sock_close(&s->audit);
    pin_sink_close(&s->pins);
    policy_unref(s->ward.policy);
    loop_timer_stop(&s->limit);
    loop_free(s->guard.loop);
    assert_int_equal(mem_live(), 0);
}

/* -- running ------------------------------------------------------------------------- */

struct until {
    struct loop *loop;
    const bool *flag;
    struct loop_timer tick; /* so that the loop turns */
};

static void on_look(void *arg)
{
    struct until *u = arg;

    if (*u->flag)
        loop_stop(u->loop);
    else
        loop_timer_start(&u->tick, 1);
}

void dns_scene_until(struct dns_scene *s, const bool *flag)
{
    struct until u = {.loop = s->guard.loop, .flag = flag};

    loop_timer_init(&u.tick, u.loop, on_look, &u);
    loop_timer_start(&u.tick, 0);
    loop_timer_start(&s->limit, 30000);
    loop_run(s->guard.loop);
    loop_timer_stop(&s->limit);
    loop_timer_stop(&u.tick);
}

static void on_over(void *arg)
{
    loop_stop(arg);
}

void dns_scene_for(struct dns_scene *s, unsigned ms)
{
    struct loop_timer t;

    loop_timer_init(&t, s->guard.loop, on_over, s->guard.loop);
    loop_timer_start(&t, ms);
    loop_run(s->guard.loop);
}

/* -- looking ------------------------------------------------------------------------- */

const char *dns_scene_records(struct dns_scene *s, char out[65536])
{
    ssize_t n = pread(s->audit, out, 65535, 0);

    assert_true(n >= 0);
    out[n] = '\0';
    return out;
}

const char *dns_scene_allow(char out[4096], const char *const names[])
{
    int n = snprintf(out, 4096, "{\"version\":1,\"name\":\"t\",\"allow\":[");

    for (size_t i = 0; names[i]; i++)
        n += snprintf(out + n, 4096 - (size_t)n, "%s\"%s\"", i ? "," : "", names[i]);
    (void)snprintf(out + n, 4096 - (size_t)n, "]}");
    return out;
}
