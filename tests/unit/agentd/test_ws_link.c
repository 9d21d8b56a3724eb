/* SPDX-License-Identifier: MIT */
#include "agentd/link/ws_link.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/link/dial.h"
#include "common/limits.h"
#include "common/ws.h"
#include "tests/support/child.h"
#include "tests/support/lws_peer.h"
#include "tests/support/test.h"

/* The user of a link: sends `want` bytes of a pattern, expects them back in order. */
struct user {
    struct loop *loop;
    struct dialer *dialer;
    struct ws_link *ws;
    struct loop_timer deadline;
    size_t want, sent, received, batch;
    unsigned rooms, refused;
    size_t max_pending;
    char texts[16][32];
    unsigned n_texts, stop_at_texts;
    size_t long_text; /* length of a text over 31 bytes */
    char why[200];
    bool is_open, is_wrong, cut_in_bytes;
};

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + (i >> 9));
}

static void send_more(struct user *u)
{
    struct link *l = ws_link_link(u->ws);

    while (u->sent < u->want && u->sent - u->received < 1 << 20) {
        size_t i, cap = 0, n;
        uint8_t *p = l->ops->begin(l, &cap);

        if (!p) {
            u->refused++;
            return;
        }
        assert_true(cap >= MUX_SEND_MIN);
        n = u->batch < cap ? u->batch : cap;
        n = u->want - u->sent < n ? u->want - u->sent : n;
        for (i = 0; i < n; i++)
            p[i] = byte_at(u->sent + i);
        u->sent += n;
        l->ops->commit(l, n);
        if (ws_link_pending(u->ws) > u->max_pending)
            u->max_pending = ws_link_pending(u->ws);
    }
}

static void on_room(void *user)
{
    struct user *u = user;

    u->rooms++;
    send_more(u);
}

static void on_text(void *user, struct span json)
{
    struct user *u = user;

    if (json.len < sizeof(u->texts[0]) && u->n_texts < COUNT_OF(u->texts))
        memcpy(u->texts[u->n_texts], json.p, json.len);
    else
        u->long_text = json.len;
    if (++u->n_texts == u->stop_at_texts)
        loop_stop(u->loop);
}

static void on_bytes(void *user, struct span bytes)
{
    struct user *u = user;
    size_t i;

    if (u->cut_in_bytes) {
        ws_link_cut(&u->ws);
        loop_stop(u->loop);
        return;
    }
    for (i = 0; i < bytes.len; i++)
        u->is_wrong |= bytes.p[i] != byte_at(u->received + i);
    u->received += bytes.len;
    if (u->received == u->want)
        loop_stop(u->loop);
    else
        send_more(u);
}

static void on_closed(void *user, const char *why)
{
    struct user *u = user;

    u->ws = NULL;
    (void)snprintf(u->why, sizeof(u->why), "%s", why);
    loop_stop(u->loop);
}

static const struct link_user_ops user_ops = {
    .room = on_room, .text = on_text, .bytes = on_bytes, .closed = on_closed};

static void on_opened(void *owner, struct conn **take_conn)
{
    struct user *u = owner;

    u->ws = ws_link_new(u->loop, take_conn, dialer_scratch(u->dialer), &user_ops, u);
    assert_non_null(u->ws);
    u->is_open = true;
    loop_stop(u->loop);
}

static void on_failed(void *owner, const struct dial_failure *why)
{
    (void)owner;
    fail_msg("%s", why->err.msg);
}

static void on_deadline(void *arg)
{
    (void)arg;
    fail_msg("nothing happens");
}

static void connect_to(struct user *u, const char *form, uint16_t port, const char *ca)
{
    static const struct dial_ops dial_ops = {.opened = on_opened, .failed = on_failed};
    struct dialer_conf dc = {.ca_file = ca, .proxy = "none"};
    struct server_url server;
    struct dial_conf conf = {
        .server = &server, .id = "demo", .token = span_str(LWS_PEER_TOKEN)};
    struct err e = {0};
    char url[64];

    memset(u, 0, sizeof(*u));
    u->batch = MUX_BATCH;
    u->loop = loop_new(&e);
    assert_non_null(u->loop);
    loop_timer_init(&u->deadline, u->loop, on_deadline, u);
    loop_timer_start(&u->deadline, 60000);
    (void)snprintf(url, sizeof(url), "%s%u", form, port);
    assert_int_equal(server_url_parse(url, &server, &e), 0);
    u->dialer = conf.dialer = dialer_new(u->loop, &dc, &e);
    assert_non_null(u->dialer);
    assert_non_null(dial_start(&conf, &dial_ops, u, &e));
    loop_run(u->loop);
    assert_true(u->is_open); /* and maybe closed again, when the server is quick */
}

static void done(struct user *u)
{
    ws_link_cut(&u->ws);
    loop_timer_stop(&u->deadline);
    dialer_free(u->dialer);
    loop_free(u->loop);
    assert_int_equal(mem_live(), 0);
}

static void say(struct user *u, const char *text)
{
    struct link *l = ws_link_link(u->ws);

    assert_int_equal(l->ops->text(l, span_str(text)), 0);
}

/* -- against libwebsockets --------------------------------------------------------------- */

static void bytes_come_back_in_order_under_tls(void **state)
{
    static const size_t batch[] = {1, 125, 126, 4096, MUX_BATCH};
    struct child_certs certs;
    struct child peer;
    struct user u;
    size_t i;

    (void)state;
    child_certs_make(&certs);
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    for (i = 0; i < COUNT_OF(batch); i++) {
        connect_to(&u, "https://preview.localhost:", peer.port, certs.ca);
        u.batch = batch[i];
        u.want = batch[i] * 100;
        send_more(&u);
        loop_run(u.loop);
        assert_int_equal(u.received, u.want);
        assert_false(u.is_wrong);
        assert_int_equal(ws_link_pending(u.ws), 0);
        done(&u);
    }
    child_stop(&peer);
    child_remove_dir(certs.dir);
}

static void texts_and_bytes_keep_their_order(void **state)
{
    struct child peer;
    struct user u;
    unsigned i;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    u.batch = 10;
    u.want = 50;
    u.stop_at_texts = 5;
    for (i = 0; i < 5; i++) {
        char text[8];
        struct link *l = ws_link_link(u.ws);
        size_t cap, k;
        uint8_t *p = l->ops->begin(l, &cap);

        for (k = 0; k < 10; k++)
            p[k] = byte_at(u.sent++);
        l->ops->commit(l, 10);
        (void)snprintf(text, sizeof(text), "t%u", i);
        say(&u, text);
    }
    while (u.n_texts < 5 || u.received < 50)
        loop_run(u.loop);
    for (i = 0; i < 5; i++)
        assert_int_equal(u.texts[i][1], '0' + (int)i);
    assert_false(u.is_wrong);
    done(&u);
    child_stop(&peer);
}

static void
a_text_of_the_greatest_size_comes_whole_and_a_greater_one_is_not_sent(void **state)
{
    static char text[CONTROL_MAX + 2];
    struct child peer;
    struct user u;
    struct link *l;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    l = ws_link_link(u.ws);
    assert_int_equal(l->ops->text(l, span_of(text, CONTROL_MAX + 1)), -1);
    assert_int_equal(l->ops->text(l, span_of(text, CONTROL_MAX)), 0);
    u.stop_at_texts = 1;
    loop_run(u.loop);
    assert_int_equal(u.long_text, CONTROL_MAX);
    done(&u);
    child_stop(&peer);
}

static void a_ping_is_answered(void **state)
{
    struct child peer;
    struct user u;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    u.stop_at_texts = 1;
    say(&u, "ping");
    loop_run(u.loop);
    assert_string_equal(u.texts[0], "pong");
    done(&u);
    child_stop(&peer);
}

static void each_way_to_end_is_told_once(void **state)
{
    struct child peer;
    struct user u;
    struct link *l;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    say(&u, "close");
    loop_run(u.loop);
    assert_string_equal(u.why, "closed by the server (status 4001)");
    assert_null(u.ws);
    done(&u);

    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    say(&u, "die");
    loop_run(u.loop);
    assert_null(u.ws);
    assert_true(strlen(u.why) > 0);
    done(&u);

    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    l = ws_link_link(u.ws);
    l->ops->close(l, 1000, "bye");
    l->ops->close(l, 1000, "twice");
    assert_int_equal(l->ops->text(l, span_str("x")), -1);
    assert_null(l->ops->begin(l, &(size_t){0}));
    loop_run(u.loop);
    assert_string_equal(u.why, "closed");
    done(&u);
    child_stop(&peer);
}

static void a_link_may_be_cut_inside_its_own_callback(void **state)
{
    struct child peer;
    struct user u;

    (void)state;
    lws_peer_start(&peer, LWS_PEER_ECHO, NULL, NULL);
    connect_to(&u, "http://preview.localhost:", peer.port, NULL);
    u.want = 100000;
    u.cut_in_bytes = true;
    send_more(&u);
    loop_run(u.loop);
    assert_null(u.ws);
    done(&u);
    child_stop(&peer);
}

/* -- against a server that a test writes ---------------------------------------------------- */

/* In the child: take the upgrade, then do as `arg` says. */
static int take_upgrade(int fd)
{
    char head[4096], accept[29], answer[300];
    const char *key;
    int n;

    if (child_read_head(fd, head, sizeof(head)) < 0 ||
        (key = strstr(head, "Sec-WebSocket-Key: ")) == NULL)
        return -1;
    ws_accept_key(span_of(key + 19, 24), accept);
    n = snprintf(answer, sizeof(answer),
                 "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: tunnel.v1\r\n\r\n",
                 accept);
    child_write(fd, answer, n);
    return 0;
}

static void send_frames(int fd, const void *arg)
{
    const struct span *frames = arg;
    char rest[4096];

    if (take_upgrade(fd) < 0)
        return;
    if (frames->len > 1000)
        child_write(fd, frames->p, (int)frames->len);
    else
        child_write_slowly(fd, frames->p, (int)frames->len);
    while (read(fd, rest, sizeof(rest)) > 0)
        continue;
}

#define B(s)                                                                             \
    {                                                                                    \
        (const uint8_t *)(s), sizeof(s) - 1                                              \
    }
static const struct {
    struct span frames;
    const char *why;
} broken[] = {
    {B("\x92\x00"), "the server broke the protocol: "},                  /* RSV1 */
    {B("\x83\x00"), "the server broke the protocol: "},                  /* opcode 3 */
    {B("\x82\x81\x00\x00\x00\x00x"), "the server broke the protocol: "}, /* masked */
    {B("\x89\x7e\x00\x7e"), "the server broke the protocol: "},          /* ping of 126 */
    {B("\x09\x00"), "the server broke the protocol: "},          /* ping in parts */
    {B("\x80\x00"), "the server broke the protocol: "},          /* continues nothing */
    {B("\x02\x01x\x81\x00"), "the server broke the protocol: "}, /* text in a message */
    {B("\x82\x7e\x00\x01x"), "the server broke the protocol: "}, /* not minimal */
    {B("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), "the server broke the protocol: "},
    {B("\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01"), "the server broke the protocol: "},
    {B("\x88\x00"), "closed by the server (status 1005)"},
    {B("\x88\x02\x03\xe9"), "closed by the server (status 1001)"},
};

static void a_server_that_breaks_rfc_6455_ends_the_link(void **state)
{
    struct child server;
    struct user u;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(broken); i++) {
        child_tcp(&server, send_frames, &broken[i].frames);
        connect_to(&u, "http://preview.localhost:", server.port, NULL);
        if (u.ws)
            loop_run(u.loop);
        if (strncmp(u.why, broken[i].why, strlen(broken[i].why)) != 0)
            fail_msg("row %zu: %s", i, u.why);
        done(&u);
        child_stop(&server);
    }
}

static void a_text_in_fragments_is_told_whole_and_one_without_end_is_cut(void **state)
{
    static uint8_t flood[70000];
    struct span frames = B("\x01\x02he\x89\x01p\x00\x02ll\x80\x01o\x82\x00\x81\x02yo");
    struct child server;
    struct user u;
    size_t i;

    (void)state;
    child_tcp(&server, send_frames, &frames);
    connect_to(&u, "http://preview.localhost:", server.port, NULL);
    u.stop_at_texts = 2;
    if (u.n_texts < 2)
        loop_run(u.loop);
    assert_string_equal(u.texts[0], "hello");
    assert_string_equal(u.texts[1], "yo");
    done(&u);
    child_stop(&server);

    for (i = 0; i + 100 <= sizeof(flood); i += 100) {
        memset(flood + i, 'x', 100);
        flood[i] = i ? 0 : 1; /* text, then continuations without FIN */
        flood[i + 1] = 98;
    }
    frames = span_of(flood, sizeof(flood));
    child_tcp(&server, send_frames, &frames);
    connect_to(&u, "http://preview.localhost:", server.port, NULL);
    if (u.ws)
        loop_run(u.loop);
    assert_non_null(strstr(u.why, "CONTROL_MAX"));
    assert_int_equal(u.n_texts, 0);
    done(&u);
    child_stop(&server);
}

/* In the child: read nothing, until a file appears; then all, and tell how much. */
struct stall {
    char go[64];
};
static void stall(int fd, const void *arg)
{
    const struct stall *s = arg;
    static char bytes[1 << 16];
    int small = 4096;
    ssize_t n;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    if (take_upgrade(fd) < 0)
        return;
    while (access(s->go, F_OK) < 0)
        (void)usleep(1000);
    while ((n = read(fd, bytes, sizeof(bytes))) > 0)
        continue;
}

static void on_quiet(void *arg)
{
    struct user *u = arg;

    loop_stop(u->loop);
}

static void a_server_that_reads_nothing_makes_the_link_wait_and_hold_little(void **state)
{
    struct stall s;
    struct child server;
    struct user u;
    struct loop_timer quiet;
    size_t stalled_at;
    FILE *f;

    (void)state;
    (void)snprintf(s.go, sizeof(s.go), "/tmp/agentd-test-go.%d", getpid());
    child_tcp(&server, stall, &s);
    connect_to(&u, "http://preview.localhost:", server.port, NULL);
    u.want = SIZE_MAX;
    u.received = 0;
    /* what is not echoed counts as received, or send_more() would stop by itself */
    loop_timer_init(&quiet, u.loop, on_quiet, &u);
    while (u.refused == 0) {
        u.received = u.sent;
        send_more(&u);
    }
    loop_timer_start(&quiet, 200);
    loop_run(u.loop);
    stalled_at = u.sent;
    assert_true(u.refused > 0);
    assert_true(u.max_pending <= MUX_BATCH + WS_HEAD_MAX);
    loop_timer_start(&quiet, 200);
    loop_run(u.loop);
    assert_int_equal(u.sent, stalled_at);

    f = fopen(s.go, "w");
    assert_non_null(f);
    (void)fclose(f);
    u.rooms = 0;
    while (u.rooms < 3) {
        u.received = u.sent;
        loop_timer_start(&quiet, 20);
        loop_run(u.loop);
    }
    assert_true(u.sent > stalled_at);
    (void)unlink(s.go);
    loop_timer_stop(&quiet);
    done(&u);
    child_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_in_order_under_tls),
        cmocka_unit_test(texts_and_bytes_keep_their_order),
        cmocka_unit_test(
            a_text_of_the_greatest_size_comes_whole_and_a_greater_one_is_not_sent),
        cmocka_unit_test(a_ping_is_answered),
        cmocka_unit_test(each_way_to_end_is_told_once),
        cmocka_unit_test(a_link_may_be_cut_inside_its_own_callback),
        cmocka_unit_test(a_server_that_breaks_rfc_6455_ends_the_link),
        cmocka_unit_test(a_text_in_fragments_is_told_whole_and_one_without_end_is_cut),
        cmocka_unit_test(a_server_that_reads_nothing_makes_the_link_wait_and_hold_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
