/* SPDX-License-Identifier: MIT */
#include "agentd/link/uplink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/limits.h"
#include "tests/support/child.h"
#include "tests/support/lws_peer.h"
#include "tests/support/test.h"

/* An agent's other parts: echoes each stream, and writes down what it is told. */
struct agent {
    struct loop *loop;
    struct uplink *up;
    struct loop_timer deadline, later;
    unsigned ups, downs, streams_closed;
    bool was_up;
    uint32_t retry_ms;
    struct control_msg welcome, last;
    unsigned controls;
    int ended; /* -1: not */
    struct err why;
    struct mux_stream *s;
    bool saw_eof, stop_in_up;
    void (*on_up)(struct agent *a);
};

static void flush_stream(struct agent *a)
{
    struct span bytes;
    size_t n;

    while (a->s && (bytes = mux_stream_peek(a->s)).len) {
        if (mux_stream_write(a->s, bytes, &n) != MUX_OK || n == 0)
            return;
        a->saw_eof |= mux_stream_consume(a->s, n);
    }
    if (a->s && a->saw_eof)
        mux_stream_finish(a->s);
}

static size_t on_data(void *user, struct span bytes)
{
    struct agent *a = user;
    size_t n = 0;

    if (mux_stream_write(a->s, bytes, &n) != MUX_OK)
        return 0;
    return n;
}

static void on_eof(void *user)
{
    struct agent *a = user;

    a->saw_eof = true;
    mux_stream_finish(a->s);
}

static void on_writable(void *user)
{
    flush_stream(user);
}

static void on_stream_closed(void *user, enum mux_reason why)
{
    struct agent *a = user;

    (void)why;
    a->s = NULL;
    a->streams_closed++;
}

static const struct mux_stream_ops stream_ops = {
    .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_stream_closed};

static void on_up(void *owner, const struct control_msg *welcome)
{
    struct agent *a = owner;

    a->ups++;
    a->welcome = *welcome;
    if (a->on_up)
        a->on_up(a);
    else
        loop_stop(a->loop);
}

static void on_down(void *owner, const struct err *why, bool was_up, uint32_t retry_ms)
{
    struct agent *a = owner;

    a->downs++;
    a->why = *why;
    a->was_up = was_up;
    a->retry_ms = retry_ms;
    assert_null(a->s);
    assert_null(uplink_mux(a->up));
    loop_stop(a->loop);
}

static void on_control(void *owner, const struct control_msg *m)
{
    struct agent *a = owner;

    a->last = *m;
    a->controls++;
    if (m->type == CONTROL_URL)
        loop_stop(a->loop);
}

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    struct agent *a = owner;

    assert_int_equal(open->port, 3000);
    a->s = s;
    a->saw_eof = false;
    mux_stream_use(s, &stream_ops, a);
    mux_stream_accept(s);
}

static void on_ended(void *owner, enum uplink_end end, const struct err *why)
{
    struct agent *a = owner;

    assert_int_equal(a->ended, -1);
    a->ended = (int)end;
    a->why = *why;
    loop_stop(a->loop);
}

static const struct uplink_ops ops = {
    .up = on_up,
    .down = on_down,
    .control = on_control,
    .opened = on_opened,
    .ended = on_ended,
};

static void on_deadline(void *arg)
{
    (void)arg;
    fail_msg("nothing happens");
}

static void start(struct agent *a, uint16_t port, const char *token_file, bool once)
{
    struct secret token = {(uint8_t *)(uintptr_t)LWS_PEER_TOKEN, strlen(LWS_PEER_TOKEN)};
    char url[64];
    struct uplink_conf conf = {
        .server = url,
        .id = "demo",
        .token_file = token_file,
        .token = &token,
        .proxy = "none",
        .once = once,
        .instance = "inst",
        .agent = "agentd/test",
        .hostname = "here",
    };
    struct err e = {0};

    (void)snprintf(url, sizeof(url), "http://preview.localhost:%u", port);
    a->ended = -1;
    a->loop = loop_new(&e);
    assert_non_null(a->loop);
    loop_timer_init(&a->deadline, a->loop, on_deadline, a);
    loop_timer_start(&a->deadline, 60000);
    a->up = uplink_new(a->loop, &conf, &ops, a, &e);
    if (!a->up)
        fail_msg("%s", e.msg);
    uplink_start(a->up);
}

static void done(struct agent *a)
{
    uplink_free(a->up);
    loop_timer_stop(&a->deadline);
    loop_free(a->loop);
    assert_int_equal(mem_live(), 0);
}

static void command(struct agent *a, enum lws_peer_command what)
{
    struct control_msg m = {.type = CONTROL_PORT};

    m.u.port.port = (uint16_t)what;
    assert_int_equal(uplink_send(a->up, &m), 0);
}

/* -- tests ---------------------------------------------------------------------------------- */

static void a_link_comes_up_and_carries_a_stream_both_ways(void **state)
{
    struct agent a = {0};
    struct child peer;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_SERVER, NULL, NULL);
    start(&a, peer.port, NULL, false);
    assert_false(uplink_is_up(a.up));
    assert_int_equal(uplink_send(a.up, &(struct control_msg){.type = CONTROL_GONE}), -1);
    loop_run(a.loop);
    assert_int_equal(a.ups, 1);
    assert_true(uplink_is_up(a.up));
    assert_string_equal(a.welcome.u.welcome.url_form,
                        "https://{port}-inst.preview.localhost/");
    command(&a, LWS_PEER_STREAM);
    loop_run(a.loop);
    assert_int_equal(a.controls, 1);
    assert_string_equal(a.last.u.url.url, "https://all/");
    uplink_stop(a.up, 5000);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_STOPPED);
    assert_int_equal(a.why.code, ERR_NONE);
    assert_int_equal(a.downs, 0);
    done(&a);
    child_stop(&peer);
}

static void a_replaced_agent_ends_and_says_by_whom(void **state)
{
    struct agent a = {0};
    struct child peer;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_SERVER, NULL, NULL);
    start(&a, peer.port, NULL, false);
    loop_run(a.loop);
    command(&a, LWS_PEER_REPLACE);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_REPLACED);
    assert_int_equal(a.last.type, CONTROL_GOAWAY);
    assert_string_equal(a.last.u.goaway.by, "other");
    done(&a);
    child_stop(&peer);
}

static void after_a_loss_the_link_comes_back_by_itself(void **state)
{
    static const struct {
        enum lws_peer_command what;
        const char *words;
    } row[] = {
        {LWS_PEER_CUT, "the link was lost: "},
        {LWS_PEER_DRAIN, "the server sent us away (drain)"},
        {LWS_PEER_TOKEN_END, "the server sent us away (token)"},
        {LWS_PEER_BAD_FRAME, "the server broke the protocol: unknown frame type"},
        {LWS_PEER_BAD_JSON, "port"},
    };
    struct agent a = {0};
    struct child peer;
    size_t i;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_SERVER, NULL, NULL);
    start(&a, peer.port, NULL, false);
    loop_run(a.loop);
    for (i = 0; i < COUNT_OF(row); i++) {
        assert_true(uplink_is_up(a.up));
        command(&a, row[i].what);
        loop_run(a.loop);
        assert_int_equal(a.downs, i + 1);
        assert_true(a.was_up);
        if (!strstr(a.why.msg, row[i].words))
            fail_msg("row %zu: %s", i, a.why.msg);
        assert_in_range(a.retry_ms, 0, RETRY_MAX_MS + 1);
        assert_false(uplink_is_up(a.up));
        if (i >= 2) /* once is enough to see it come back; then without the wait */
            break;
        loop_run(a.loop);
        assert_int_equal(a.ups, i + 2);
    }
    done(&a);
    for (i = 3; i < COUNT_OF(row); i++) {
        a = (struct agent){0};
        start(&a, peer.port, NULL, true);
        loop_run(a.loop);
        command(&a, row[i].what);
        loop_run(a.loop);
        assert_int_equal(a.ended, UPLINK_UNREACHABLE);
        if (!strstr(a.why.msg, row[i].words))
            fail_msg("row %zu: %s", i, a.why.msg);
        done(&a);
    }
    child_stop(&peer);
}

static void an_open_stream_is_closed_before_the_loss_is_told(void **state)
{
    struct agent a = {0};
    struct child peer;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_SERVER, NULL, NULL);
    start(&a, peer.port, NULL, true);
    loop_run(a.loop);
    command(&a, LWS_PEER_STREAM);
    command(&a, LWS_PEER_CUT);
    loop_run(a.loop);
    if (a.ended == -1)
        loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_UNREACHABLE);
    assert_null(a.s);
    done(&a);
    child_stop(&peer);
}

static void nobody_there_is_the_end_with_once_and_a_wait_without(void **state)
{
    struct agent a = {0};
    uint16_t port = child_free_port();

    (void)state;
    start(&a, port, NULL, true);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_UNREACHABLE);
    assert_non_null(strstr(a.why.msg, "connect"));
    done(&a);

    a = (struct agent){0};
    start(&a, port, NULL, false);
    loop_run(a.loop);
    assert_int_equal(a.ended, -1);
    assert_int_equal(a.downs, 1);
    assert_false(a.was_up);
    assert_in_range(a.retry_ms, 0, 1000);
    uplink_stop(a.up, 10000); /* while it waits: nothing to drain */
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_STOPPED);
    done(&a);
}

static char token_path[64];

static void write_token(const char *text)
{
    FILE *f = fopen(token_path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void a_refused_token_ends_unless_the_file_has_another(void **state)
{
    struct agent a = {0};
    struct child peer;

    (void)state;
    (void)snprintf(token_path, sizeof(token_path), "/tmp/agentd-test-token.%d", getpid());
    lws_peer_start(&peer, LWS_PEER_SERVER, NULL, NULL);
    write_token("old.token\n");
    start(&a, peer.port, token_path, false);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_REFUSED);
    assert_non_null(strstr(a.why.msg, "refused the token (401"));
    assert_null(strstr(a.why.msg, "old.token"));
    done(&a);

    /* good, then lost; by then the file is another: it is read again */
    a = (struct agent){0};
    write_token(LWS_PEER_TOKEN "\n");
    start(&a, peer.port, token_path, false);
    loop_run(a.loop);
    assert_int_equal(a.ups, 1);
    write_token("old.token");
    command(&a, LWS_PEER_CUT);
    loop_run(a.loop);
    assert_int_equal(a.downs, 1);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_REFUSED);
    done(&a);

    a = (struct agent){0};
    (void)unlink(token_path);
    start(&a, peer.port, token_path, false);
    loop_run(a.loop);
    assert_int_equal(a.ended, -1); /* a file that is being replaced: try again */
    assert_non_null(strstr(a.why.msg, token_path));
    done(&a);
    child_stop(&peer);
}

static void stop_from_up(struct agent *a)
{
    uplink_stop(a->up, 0);
}

static void it_may_be_stopped_inside_a_callback_and_freed_in_every_state(void **state)
{
    struct agent a = {.on_up = stop_from_up};
    struct child peer;
    unsigned ms;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_SERVER, NULL, NULL);
    start(&a, peer.port, NULL, false);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_STOPPED);
    done(&a);
    for (ms = 0; ms < 8; ms++) {
        a = (struct agent){0};
        start(&a, peer.port, NULL, false);
        loop_timer_init(&a.later, a.loop, (loop_timer_fn *)loop_stop, a.loop);
        loop_timer_start(&a.later, ms);
        loop_run(a.loop);
        loop_timer_stop(&a.later);
        if (ms == 6 && uplink_is_up(a.up)) {
            command(&a, LWS_PEER_STREAM);
            loop_timer_start(&a.later, 5);
            loop_run(a.loop);
            loop_timer_stop(&a.later);
        }
        done(&a);
        assert_null(a.s);
    }
    child_stop(&peer);
}

static void a_server_that_sends_what_agents_send_is_left(void **state)
{
    struct agent a = {0};
    struct child peer;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL); /* it sends our hello back */
    start(&a, peer.port, NULL, true);
    loop_run(a.loop);
    assert_int_equal(a.ended, UPLINK_UNREACHABLE);
    assert_int_equal(a.ups, 0);
    assert_string_equal(a.why.msg, "the server sent a control message out of place");
    done(&a);
    child_stop(&peer);
}

static const struct {
    const char *server, *id, *proxy, *ca_file;
} bad[] = {
    {"preview.example.com", "demo", "none", NULL},
    {"http://preview.example.com", "demo", "none", NULL},
    {"https://preview.example.com", "-demo", "none", NULL},
    {"https://preview.example.com", "", "none", NULL},
    {"https://preview.example.com", "demo", "ftp://u:SECRET@x", NULL},
    {"https://preview.example.com", "demo", "none", "/nonexistent/ca.pem"},
};

static void bad_settings_are_told_at_once(void **state)
{
    struct err e = {0};
    struct loop *l = loop_new(&e);
    struct secret token = {(uint8_t *)(uintptr_t) "t", 1};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        struct uplink_conf conf = {.server = bad[i].server,
                                   .id = bad[i].id,
                                   .proxy = bad[i].proxy,
                                   .ca_file = bad[i].ca_file,
                                   .token = &token};

        e = (struct err){0};
        if (uplink_new(l, &conf, &ops, NULL, &e))
            fail_msg("row %zu is taken", i);
        if (bad[i].ca_file ? e.code == ERR_NONE : e.code != ERR_CONFIG)
            fail_msg("row %zu: code %d: %s", i, e.code, e.msg);
        assert_null(strstr(e.msg, "SECRET"));
    }
    loop_free(l);
    assert_int_equal(mem_live(), 0);
}

static int make_once(struct loop *l, const struct uplink_conf *conf)
{
    struct err e = {0};
    struct uplink *u = uplink_new(l, conf, &ops, NULL, &e);

    if (!u) {
        assert_int_equal(e.code, ERR_NOMEM);
        return -1;
    }
    uplink_free(u);
    return 0;
}

static void no_memory_is_an_error_without_a_leak(void **state)
{
    struct secret token = {(uint8_t *)(uintptr_t) "t", 1};
    struct uplink_conf conf = {.server = "https://preview.example.com",
                               .id = "demo",
                               .proxy = "http://user:password@proxy:3128",
                               .token = &token};
    struct loop *l = loop_new(NULL);

    (void)state;
    FAIL_EACH_ALLOC(make_once(l, &conf));
    conf.token_file = "/nonexistent/token";
    FAIL_EACH_ALLOC(make_once(l, &conf));
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_comes_up_and_carries_a_stream_both_ways),
        cmocka_unit_test(a_replaced_agent_ends_and_says_by_whom),
        cmocka_unit_test(after_a_loss_the_link_comes_back_by_itself),
        cmocka_unit_test(an_open_stream_is_closed_before_the_loss_is_told),
        cmocka_unit_test(nobody_there_is_the_end_with_once_and_a_wait_without),
        cmocka_unit_test(a_refused_token_ends_unless_the_file_has_another),
        cmocka_unit_test(it_may_be_stopped_inside_a_callback_and_freed_in_every_state),
        cmocka_unit_test(a_server_that_sends_what_agents_send_is_left),
        cmocka_unit_test(bad_settings_are_told_at_once),
        cmocka_unit_test(no_memory_is_an_error_without_a_leak),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
