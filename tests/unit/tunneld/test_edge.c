/* SPDX-License-Identifier: MIT */
/* The edge over real sockets, with a session and two muxes behind it. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/edge_scene.h"

#define HOST      "Host: 3000-demo.preview.test:8443\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\n" HOST "\r\n"

struct fixture {
    struct scene s;
    struct buf text;
};

static void publish_all(struct scene *s)
{
    scene_link(s);
    scene_publish(s, 3000, true, false);
    scene_publish(s, 4000, false, false);
    scene_publish(s, 5000, true, true);
}

static int start_with(void **state, const char *more)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    if (!f || scene_start(&f->s, more) < 0)
        return -1;
    publish_all(&f->s);
    scene_connect(&f->s, 0, false);
    return 0;
}

static int start(void **state)
{
    return start_with(state, "");
}

static int start_short(void **state)
{
    return start_with(state, ",\"limits\":{\"hold_ms\":600,\"connect_ms\":300,"
                             "\"response_ms\":1000,\"body_stall_ms\":1000,"
                             "\"idle_ms\":1000,\"body_bytes\":1000}");
}

static int stop(void **state)
{
    struct fixture *f = *state;

    scene_stop(&f->s);
    buf_done(&f->text);
    free(f);
    return mem_live() == 0 ? 0 : -1;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;

    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        n++;
    return n;
}

static void ask(struct scene *s, const char *request, const char *want)
{
    scene_forget(s, 0);
    scene_send(s, 0, request);
    if (!scene_until(s, 0, want))
        fail_msg("wanted %s, got: %s", want, scene_got(s, 0));
}

/* -- keeping and order ---------------------------------------------------------------- */

static void a_connection_and_its_stream_serve_one_request_after_another(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    for (unsigned i = 0; i < 5; i++) {
        ask(s, GET("/hello"), "\r\n\r\nhello");
        assert_non_null(
            strstr(scene_got(s, 0), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"));
    }
    assert_int_equal(s->opened, 1);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;
    const char *got;

    ask(s,
        GET("/hello") GET("/nothing") "POST /body HTTP/1.1\r\n" HOST
                                      "Content-Length: 7\r\n\r\nin-body" GET("/chunked")
                                          GET("/bytes/3"),
        "\r\n\r\nabc");
    got = scene_got(s, 0);
    assert_int_equal(count(got, "HTTP/1.1 20"), 5);
    assert_true(strstr(got, "hello") < strstr(got, "204 No Content"));
    assert_true(strstr(got, "204 No Content") < strstr(got, "in-body"));
    assert_true(strstr(got, "in-body") < strstr(got, " world"));
}

static void requests_in_one_byte_pieces_are_the_same(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;
    const char *text =
        "POST /body HTTP/1.1\r\n" HOST
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";

    for (const char *p = text; *p; p++) {
        scene_send_bytes(s, 0, p, 1);
        scene_run(s, 1);
    }
    assert_true(scene_until(s, 0, "\r\n0\r\n\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "Host: localhost:3000\r\n"));
}

static void a_stream_of_a_balancer_serves_one_exchange(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    scene_hang_up(s, 0);
    scene_connect(s, 0, true);
    for (unsigned i = 0; i < 3; i++)
        ask(s, GET("/hello"), "\r\n\r\nhello");
    assert_int_equal(s->opened, 3);
}

static void a_kept_stream_that_the_app_closed_is_replaced(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/then-close"), "\r\n\r\nhello");
    ask(s, GET("/hello"), "\r\n\r\nhello");
    assert_int_equal(s->opened, 2);
}

static void a_reused_stream_that_ends_unheard_is_repeated_once(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/hello"), "\r\n\r\nhello");
    ask(s, GET("/drop"), "502 Bad Gateway");
    assert_int_equal(s->opened, 2);
    assert_non_null(strstr(scene_got(s, 0), "Tunnel-Error: bad-upstream\r\n"));
}

static void a_post_on_a_fresh_stream_is_not_repeated(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, "POST /drop HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nx",
        "502 Bad Gateway");
    assert_int_equal(s->opened, 1);
}

static void what_a_dying_link_may_have_delivered_is_not_sent_again(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    s->dies_at_flush = true;
    scene_send(s, 0, "POST /hello HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    scene_run(s, 50);
    publish_all(s);
    scene_run(s, 50);
    assert_non_null(strstr(scene_got(s, 0), "Tunnel-Error: agent-offline\r\n"));
    assert_int_equal(s->opened, 1);
}

static void a_get_that_a_dying_link_took_along_waits_for_the_next(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    s->dies_at_flush = true;
    scene_send(s, 0, GET("/hello"));
    scene_run(s, 50);
    assert_string_equal(scene_got(s, 0), "");
    publish_all(s);
    assert_true(scene_until(s, 0, "\r\n\r\nhello"));
}

static void a_stream_that_crossed_a_goaway_is_opened_again(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    s->refusals = 1;
    s->refusal = MUX_REASON_DRAIN;
    ask(s, "POST /hello HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", "\r\n\r\nhello");
    assert_int_equal(s->opened, 2);
}

/* -- bodies ----------------------------------------------------------------------------- */

static void chunked_answers_keep_their_trailers(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/chunked"), "\r\n0\r\nX-Sum: 7\r\n\r\n");
    assert_non_null(strstr(scene_got(s, 0), "5\r\nhello\r\n6\r\n world\r\n0\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "Trailer: X-Sum\r\n"));
}

static void an_answer_until_close_becomes_chunked(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/until-close"), "9\r\nall of it\r\n0\r\n\r\n");
    ask(s, GET("/hello"), "\r\n\r\nhello");
}

static void for_http_1_0_it_ends_with_the_connection(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    scene_send(s, 0, "GET /chunked HTTP/1.0\r\n" HOST "Connection: keep-alive\r\n\r\n");
    assert_true(scene_until_end(s, 0));
    assert_true(s->client[0].has_eof);
    assert_non_null(strstr(scene_got(s, 0), "Connection: close\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "\r\n\r\nhello world"));
}

static void http_1_0_can_keep_its_connection(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    for (unsigned i = 0; i < 2; i++)
        ask(s, "GET /hello HTTP/1.0\r\n" HOST "Connection: keep-alive\r\n\r\n",
            "Connection: keep-alive\r\n\r\nhello");
}

static void large_bodies_pass_both_ways(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;
    enum {
        N = 3000000
    };
    char *body = malloc(N), head[128];
    const struct buf *got = &s->client[0].got;
    size_t from;

    for (size_t i = 0; i < N; i++)
        body[i] = (char)('a' + i % 26);
    (void)snprintf(head, sizeof(head),
                   "POST /body HTTP/1.1\r\n" HOST "Content-Length: %d\r\n\r\n", N);
    scene_send(s, 0, head);
    scene_send_bytes(s, 0, body, N);
    while (got->len < N + 100 && !s->client[0].has_eof && !s->client[0].has_reset)
        scene_run(s, 5);
    scene_run(s, 20);
    assert_true(got->len > N);
    from = got->len - N;
    assert_memory_equal(got->p + from, body, N);
    free(body);
}

static void a_client_that_reads_nothing_holds_a_window_and_no_more(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    loop_io_want(s->client[0].io, 0);
    scene_send(s, 0, GET("/bytes/60000000"));
    scene_run(s, 300);
    assert_in_range(mux_memory(s->mux), 0, 8 * 1024 * 1024);
    /* Others of the same link go on meanwhile. */
    scene_connect(s, 1, false);
    scene_send(s, 1, GET("/hello"));
    assert_true(scene_until(s, 1, "\r\n\r\nhello"));
}

static void head_has_the_length_and_no_body(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, "HEAD /nothing HTTP/1.1\r\n" HOST "\r\n" GET("/hello"), "\r\n\r\nhello");
    assert_int_equal(count(scene_got(s, 0), "HTTP/1.1 "), 2);
}

static void informational_answers_pass(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/interim"), "\r\n\r\nhello");
    assert_non_null(strstr(scene_got(s, 0),
                           "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
                           "HTTP/1.1 200 OK\r\n"));
}

static void an_upgrade_carries_raw_bytes_both_ways(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s,
        "GET /switch HTTP/1.1\r\n" HOST "Connection: keep-alive, Upgrade\r\n"
        "Upgrade: websocket\r\n\r\nearly",
        "\r\n\r\nearly");
    assert_non_null(
        strstr(scene_got(s, 0), "Connection: upgrade\r\nUpgrade: websocket\r\n"));
    assert_non_null(
        strstr(scene_seen(s), "Connection: upgrade\r\nUpgrade: websocket\r\n"));
    ask(s, "\x81\x02hi GET / HTTP/1.1\r\n\r\n", "hi GET / HTTP/1.1\r\n\r\n");
    shutdown(s->client[0].fd, SHUT_WR);
    assert_true(scene_until_end(s, 0));
    assert_true(s->client[0].has_eof);
}

static void h2c_is_not_an_upgrade(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s,
        "GET /hello HTTP/1.1\r\n" HOST "Connection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "\r\n\r\nhello");
    assert_null(strstr(scene_seen(s), "pgrade"));
    assert_null(strstr(scene_seen(s), "HTTP2"));
}

/* -- apps that break the rules ------------------------------------------------------------ */

static void an_answer_that_is_cut_is_seen_to_be_cut(void **state)
{
    static const char *const paths[] = {"/half", "/half-reset"};
    struct scene *s = &((struct fixture *)*state)->s;
    char request[128];

    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n" HOST "\r\n",
                       paths[i]);
        scene_send(s, 0, request);
        assert_true(scene_until_end(s, 0));
        assert_true(s->client[0].has_reset);
        scene_hang_up(s, 0);
        scene_connect(s, 0, false);
    }
    scene_send(s, 0, GET("/half-chunked"));
    assert_true(scene_until_end(s, 0));
    assert_null(strstr(scene_got(s, 0), "\r\n0\r\n"));
}

static void an_answer_that_is_not_http_is_bad_upstream(void **state)
{
    static const char *const paths[] = {"/garbage", "/two-lengths", "/switch", "/extra",
                                        "/drop"};
    struct scene *s = &((struct fixture *)*state)->s;
    char request[128];

    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n" HOST "\r\n",
                       paths[i]);
        ask(s, request, "bad-upstream: ");
        assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 502 Bad Gateway\r\n"));
        assert_null(strstr(scene_got(s, 0), "hello"));
    }
    ask(s, GET("/hello"), "\r\n\r\nhello");
}

static void an_app_cannot_speak_for_us(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/forge"), "\r\n\r\n");
    assert_null(strstr(scene_got(s, 0), "Tunnel-Error"));
    assert_null(strstr(scene_got(s, 0), "__Host-tunnel"));
    assert_non_null(strstr(scene_got(s, 0), "Set-Cookie: a=b; Path=/\r\n"));
    assert_non_null(
        strstr(scene_got(s, 0), "Location: https://3000-demo.preview.test:8443/x\r\n"));
}

/* -- clients that break the rules --------------------------------------------------------- */

static void what_is_not_http_is_refused_and_closed(void **state)
{
    static const struct {
        const char *text, *want;
    } bad[] = {
        {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", "400 Bad Request"},
        {"GET / HTTP/1.1\r\nHost : 3000-demo.preview.test\r\n\r\n", "400 Bad Request"},
        {"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"},
        {"GET / HTTP/1.1\n" HOST "\r\n", "400 Bad Request"},
        {"GET http://a/ HTTP/1.1\r\n" HOST "\r\n", "400 Bad Request"},
        {"CONNECT a:1 HTTP/1.1\r\n" HOST "\r\n", "400 Bad Request"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request"},
        {"POST / HTTP/1.1\r\n" HOST
         "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
         "400 Bad Request"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
         "400 Bad Request"},
        {"POST /body HTTP/1.1\r\n" HOST
         "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
         "400 Bad Request"},
        {"POST /body HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n",
         "400 Bad Request"},
    };
    struct scene *s = &((struct fixture *)*state)->s;

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        s->seen.len = 0;
        ask(s, bad[i].text, bad[i].want);
        assert_non_null(strstr(scene_got(s, 0), "Tunnel-Error: bad-request\r\n"));
        assert_non_null(strstr(scene_got(s, 0), "Connection: close\r\n"));
        assert_true(scene_until_end(s, 0));
        assert_true(s->client[0].has_eof);
        assert_int_equal(s->seen.len, 0);
        scene_hang_up(s, 0);
        scene_connect(s, 0, false);
    }
}

static void what_is_too_large_is_refused(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;
    char *text = malloc(80000);

    (void)snprintf(text, 80000, "GET /%070000d HTTP/1.1\r\n" HOST "\r\n", 0);
    ask(s, text, "HTTP/1.1 414 ");
    scene_hang_up(s, 0);
    scene_connect(s, 0, false);
    (void)snprintf(text, 80000, "GET / HTTP/1.1\r\n" HOST "A: %070000d\r\n\r\n", 0);
    ask(s, text, "HTTP/1.1 431 ");
    assert_non_null(strstr(scene_got(s, 0), "Tunnel-Error: too-large\r\n"));
    free(text);
}

static void a_body_over_the_limit_is_too_large(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, "POST /body HTTP/1.1\r\n" HOST "Content-Length: 1001\r\n\r\n",
        "HTTP/1.1 413 ");
    assert_true(scene_until_end(s, 0));
    assert_int_equal(s->opened, 0);
}

static void a_body_that_stops_ends_the_exchange(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, "POST /body HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc",
        "Tunnel-Error: bad-request\r\n");
    assert_true(scene_until_end(s, 0));
}

static void an_idle_connection_is_closed(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/hello"), "\r\n\r\nhello");
    assert_true(scene_until_end(s, 0));
    assert_true(s->client[0].has_eof);
}

static void an_app_that_says_nothing_is_a_timeout(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s, GET("/silent"), "Tunnel-Error: upstream-timeout\r\n");
    assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 504 Gateway Timeout\r\n"));
    ask(s, GET("/hello"), "\r\n\r\nhello");
}

static void a_client_that_ends_its_direction_gets_its_answers(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    scene_send(s, 0, GET("/hello") GET("/bytes/200000"));
    shutdown(s->client[0].fd, SHUT_WR);
    assert_true(scene_until_end(s, 0));
    assert_true(s->client[0].has_eof);
    assert_true(s->client[0].got.len > 200000);
}

static void a_client_that_leaves_takes_its_stream_along(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    scene_send(s, 0, GET("/silent"));
    scene_run(s, 50);
    assert_int_equal(mux_streams(s->mux), 1);
    scene_hang_up(s, 0);
    scene_run(s, 3000);
    assert_int_equal(mux_streams(s->mux), 0);
    assert_true(edge_is_idle(s->edge));
}

/* -- routing ------------------------------------------------------------------------------ */

static void authorities_go_where_they_should(void **state)
{
    static const struct {
        const char *host, *target, *want;
    } rows[] = {
        {"3000-DEMO.Preview.Test.", "/hello", "\r\n\r\nhello"},
        {"shop.preview.test", "/hello", "\r\n\r\nhello"},
        {"example.com", "/", "HTTP/1.1 421 "},
        {"preview.test.evil.com", "/", "HTTP/1.1 421 "},
        {"127.0.0.1", "/", "HTTP/1.1 421 "},
        {"nobody.preview.test", "/", "Tunnel-Error: no-such-preview\r\n"},
        {"03000-demo.preview.test", "/", "Tunnel-Error: no-such-preview\r\n"},
        {"65536-demo.preview.test", "/", "Tunnel-Error: no-such-preview\r\n"},
        {"3000-a.b.preview.test", "/", "Tunnel-Error: no-such-preview\r\n"},
        {"0-demo.preview.test", "/", "Tunnel-Error: no-such-preview\r\n"},
        {"0-demo.preview.test", "/.tunnel/v1/link", "HTTP/1.1 404 "},
        {"3000-demo.preview.test", "/.tunnel/anything", "\"error\":\"not-found\""},
        {"preview.test", "/", "HTTP/1.1 200 OK"},
        {"preview.test", "/x", "HTTP/1.1 404 "},
    };
    struct scene *s = &((struct fixture *)*state)->s;
    char text[256];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        (void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n",
                       rows[i].target, rows[i].host);
        s->seen.len = 0;
        ask(s, text, rows[i].want);
        assert_true((s->seen.len > 0) == (strcmp(rows[i].target, "/hello") == 0));
    }
}

static void a_request_of_another_worker_moves_the_connection(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;
    struct worker_guest g;

    ask(s, GET("/hello"), "\r\n\r\nhello");
    s->owns = false;
    scene_forget(s, 0);
    scene_send(s, 0, GET("/bytes/4") GET("/chunked"));
    while (s->given == 0)
        scene_run(s, 2);
    assert_string_equal(s->given_id, "demo");
    assert_false(s->guest.is_link);
    assert_true(edge_is_idle(s->edge));
    /* There, everything that was unread comes first. */
    s->owns = true;
    g = s->guest;
    s->guest = (struct worker_guest){.parts = {.fd = -1}};
    edge_accept(s->edge, &g);
    assert_true(scene_until(s, 0, "X-Sum: 7\r\n\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "\r\n\r\nabcdHTTP/1.1 200 OK"));
}

static void a_links_upgrade_moves_to_the_link_server(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;
    static const char request[] = "GET /.tunnel/v1/link HTTP/1.1\r\n"
                                  "Host: 0-demo.preview.test\r\nConnection: upgrade\r\n"
                                  "Upgrade: websocket\r\n\r\n";

    ask(s, GET("/hello"), "\r\n\r\nhello");
    scene_send(s, 0, request);
    while (s->given == 0)
        scene_run(s, 2);
    assert_true(s->guest.is_link);
    assert_int_equal(s->guest.parts.unread.len, sizeof(request) - 1);
    assert_memory_equal(s->guest.parts.unread.p, request, sizeof(request) - 1);
}

/* -- the hold ----------------------------------------------------------------------------- */

static void come_back(struct scene *s)
{
    scene_publish(s, 3000, true, true);
}

static void a_request_waits_for_its_port(void **state)
{
    struct fixture *f = *state;
    struct scene *s = &f->s;
    char text[9000];

    scene_unpublish(s, 3000);
    scene_token(s, "demo", TOKEN_ACCESS, NULL, &f->text);
    (void)snprintf(text, sizeof(text),
                   "GET /hello HTTP/1.1\r\n" HOST "X-Tunnel-Token: %s\r\n\r\n",
                   (const char *)f->text.p);
    s->later_fn = come_back;
    loop_timer_start(&s->later, 200);
    ask(s, text, "\r\n\r\nhello");
    /* with the host mode it came with */
    assert_non_null(strstr(scene_seen(s), "Host: 3000-demo.preview.test:8443\r\n"));
}

static void a_refused_stream_is_tried_again(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    s->refusals = 2;
    ask(s, "POST /body HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", "\r\n\r\nabc");
    assert_int_equal(s->opened, 3);
}

static void after_the_hold_it_is_port_closed(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    s->refusals = 1000;
    ask(s, GET("/hello"), "Tunnel-Error: port-closed\r\n");
    assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 502 Bad Gateway\r\n"));
    s->refusals = 0;
    ask(s, GET("/hello"), "\r\n\r\nhello");
}

static void without_a_link_it_is_agent_offline(void **state)
{
    struct fixture *f = *state;
    struct scene *s = &f->s;
    char text[9000];

    scene_unlink(s);
    scene_token(s, "demo", TOKEN_ACCESS, NULL, &f->text);
    (void)snprintf(text, sizeof(text),
                   "GET /hello HTTP/1.1\r\n" HOST "X-Tunnel-Token: %s\r\n\r\n",
                   (const char *)f->text.p);
    ask(s, text, "Tunnel-Error: agent-offline\r\n");
    assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 503 Service Unavailable\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "Retry-After: "));
}

static void cut_link(struct scene *s)
{
    scene_unlink(s);
}

static void a_link_that_dies_in_an_answer_cuts_it(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    loop_io_want(s->client[0].io, 0);
    scene_send(s, 0, GET("/bytes/60000000"));
    s->later_fn = cut_link;
    loop_timer_start(&s->later, 100);
    scene_run(s, 200);
    loop_io_want(s->client[0].io, LOOP_READ);
    assert_true(scene_until_end(s, 0));
    assert_true(s->client[0].has_reset);
}

/* -- access ------------------------------------------------------------------------------- */

static void without_access_private_unknown_and_offline_are_alike(void **state)
{
    static const char *const hosts[] = {"4000-demo", "4001-demo", "3000-nobody", "9-x"};
    struct scene *s = &((struct fixture *)*state)->s;
    char text[256], *first = NULL;

    for (size_t i = 0; i < COUNT_OF(hosts); i++) {
        (void)snprintf(text, sizeof(text),
                       "GET /hello HTTP/1.1\r\nHost: %s.preview.test\r\n"
                       "Sec-Fetch-Mode: navigate\r\n\r\n",
                       hosts[i]);
        ask(s, text, "</html>\n");
        assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 401 Unauthorized\r\n"));
        assert_non_null(strstr(scene_got(s, 0), "Tunnel-Error: login-required\r\n"));
        if (!first)
            first = strdup(scene_got(s, 0));
        assert_string_equal(scene_got(s, 0), first);
    }
    free(first);
    assert_int_equal(s->opened, 0);
}

static void a_token_in_the_url_becomes_a_cookie(void **state)
{
    struct fixture *f = *state;
    struct scene *s = &f->s;
    char text[12000], cookie[4000];
    const char *at;

    scene_token(s, "demo", TOKEN_ACCESS, NULL, &f->text);
    (void)snprintf(text, sizeof(text),
                   "GET //hello?a=1&_tunnel=%s&b=2 HTTP/1.1\r\n"
                   "Host: 4000-demo.preview.test:8443\r\n\r\n",
                   (const char *)f->text.p);
    ask(s, text, "\r\n\r\n");
    assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 303 See Other\r\n"));
    assert_non_null(
        strstr(scene_got(s, 0),
               "Location: https://4000-demo.preview.test:8443//hello?a=1&b=2\r\n"));
    at = strstr(scene_got(s, 0), "__Host-tunnel=");
    assert_non_null(at);
    assert_non_null(strstr(at,
                           "; Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=None; "
                           "Partitioned\r\n"));
    (void)snprintf(cookie, sizeof(cookie), "%.*s", (int)strcspn(at, ";"), at);
    (void)snprintf(text, sizeof(text),
                   "GET /hello HTTP/1.1\r\nHost: 4000-demo.preview.test:8443\r\n"
                   "Cookie: a=b; %s; c=d\r\n\r\n",
                   cookie);
    ask(s, text, "\r\n\r\nhello");
    assert_non_null(strstr(scene_seen(s), "Cookie: a=b; c=d\r\n"));
    assert_null(strstr(scene_seen(s), "__Host-tunnel"));
    /* Only there: another port's host does not take it. */
    (void)snprintf(text, sizeof(text),
                   "GET /hello HTTP/1.1\r\nHost: 4001-demo.preview.test:8443\r\n"
                   "Cookie: %s\r\n\r\n",
                   cookie);
    ask(s, text, "login-required");
    /* And not for another site's script. */
    (void)snprintf(text, sizeof(text),
                   "GET /hello HTTP/1.1\r\nHost: 4000-demo.preview.test:8443\r\n"
                   "Cookie: %s\r\nOrigin: https://3000-evil.preview.test:8443\r\n\r\n",
                   cookie);
    ask(s, text, "login-required");
}

static void a_token_counts_for_its_sandbox_ports_and_audience(void **state)
{
    static const struct {
        const char *sub, *ports, *want;
        enum token_aud aud;
    } rows[] = {
        {"demo", NULL, "\r\n\r\nhello", TOKEN_ACCESS},
        {"demo", "4000", "\r\n\r\nhello", TOKEN_ACCESS},
        {"demo", "3000-3999", "Tunnel-Error: forbidden\r\n", TOKEN_ACCESS},
        {"other", NULL, "Tunnel-Error: login-required\r\n", TOKEN_ACCESS},
        {"demo", NULL, "Tunnel-Error: login-required\r\n", TOKEN_LINK},
    };
    struct fixture *f = *state;
    char text[9000];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        scene_token(&f->s, rows[i].sub, rows[i].aud, rows[i].ports, &f->text);
        (void)snprintf(text, sizeof(text),
                       "GET /hello HTTP/1.1\r\nHost: 4000-demo.preview.test\r\n"
                       "X-Tunnel-Token: %s\r\n\r\n",
                       (const char *)f->text.p);
        ask(&f->s, text, rows[i].want);
    }
    assert_null(strstr(scene_seen(&f->s), "X-Tunnel-Token"));
}

static void a_preflight_from_a_sibling_port_passes(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s,
        "OPTIONS /hello HTTP/1.1\r\nHost: 4000-demo.preview.test\r\n"
        "Origin: https://3000-demo.preview.test:8443\r\n"
        "Access-Control-Request-Method: POST\r\n\r\n",
        "\r\n\r\nhello");
    assert_non_null(strstr(scene_seen(s), "Origin: http://localhost:3000\r\n"));
    ask(s,
        "OPTIONS /hello HTTP/1.1\r\nHost: 4000-demo.preview.test\r\n"
        "Origin: https://3000-evil.preview.test:8443\r\n"
        "Access-Control-Request-Method: POST\r\n\r\n",
        "\"error\":\"login-required\"");
}

static void a_refused_upgrade_gets_a_bare_answer(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    ask(s,
        "GET /switch HTTP/1.1\r\nHost: 4000-demo.preview.test\r\nConnection: upgrade\r\n"
        "Upgrade: websocket\r\n\r\n",
        "\r\n\r\n");
    assert_non_null(strstr(scene_got(s, 0), "HTTP/1.1 401 Unauthorized\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "Content-Length: 0\r\n"));
}

/* -- ending ------------------------------------------------------------------------------- */

static void drain_lets_exchanges_finish(void **state)
{
    struct scene *s = &((struct fixture *)*state)->s;

    scene_connect(s, 1, false); /* idle, and without another request */
    scene_connect(s, 2, false);
    scene_send(s, 2, GET("/hello"));
    assert_true(scene_until(s, 2, "\r\n\r\nhello"));
    assert_null(strstr(scene_got(s, 2), "Connection: close\r\n"));
    scene_forget(s, 2);
    scene_send(s, 0, "POST /body HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nab");
    scene_run(s, 50);
    edge_drain(s->edge);
    scene_send(s, 2, GET("/hello")); /* was told that the connection stays */
    assert_true(scene_until_end(s, 2));
    assert_non_null(strstr(scene_got(s, 2), "Connection: close\r\n"));
    scene_connect(s, 3, false); /* had connected before */
    scene_send(s, 3, GET("/hello"));
    assert_true(scene_until_end(s, 3));
    assert_non_null(strstr(scene_got(s, 3), "Connection: close\r\n"));
    assert_true(scene_until_end(s, 1));
    scene_send(s, 0, "c");
    assert_true(scene_until_end(s, 0));
    assert_non_null(strstr(scene_got(s, 0), "Connection: close\r\n"));
    assert_non_null(strstr(scene_got(s, 0), "\r\n\r\nabc"));
    scene_run(s, 10);
    assert_true(edge_is_idle(s->edge));
}

/* A client that meets a failed allocation may be cut or get an error; nothing else may break,
 * and the next one is served. */
static void every_allocation_may_fail(void **state)
{
    static const char *const requests[] = {
        GET("/hello"),
        "POST /body HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n0\r\n\r\n" GET("/chunked"),
        "GET /hello HTTP/1.1\r\nHost: 4000-demo.preview.test\r\n\r\n",
    };
    struct scene *s = &((struct fixture *)*state)->s;

    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        for (unsigned k = 1; k < 40; k++) {
            scene_hang_up(s, 0);
            scene_connect(s, 0, false);
            mem_fault_at(k);
            scene_send(s, 0, requests[i]);
            scene_run(s, 3);
            mem_fault_at(0);
            if (s->is_broken) {
                scene_unlink(s);
                publish_all(s);
            }
        }
    }
    scene_hang_up(s, 0);
    scene_connect(s, 0, false);
    ask(s, GET("/hello"), "\r\n\r\nhello");
}

#define ROW(name)       cmocka_unit_test_setup_teardown(name, start, stop)
#define SHORT_ROW(name) cmocka_unit_test_setup_teardown(name, start_short, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(a_connection_and_its_stream_serve_one_request_after_another),
        ROW(pipelined_requests_are_answered_in_order),
        ROW(requests_in_one_byte_pieces_are_the_same),
        ROW(a_stream_of_a_balancer_serves_one_exchange),
        ROW(a_kept_stream_that_the_app_closed_is_replaced),
        ROW(a_reused_stream_that_ends_unheard_is_repeated_once),
        ROW(a_post_on_a_fresh_stream_is_not_repeated),
        ROW(what_a_dying_link_may_have_delivered_is_not_sent_again),
        ROW(a_get_that_a_dying_link_took_along_waits_for_the_next),
        ROW(a_stream_that_crossed_a_goaway_is_opened_again),
        ROW(chunked_answers_keep_their_trailers),
        ROW(an_answer_until_close_becomes_chunked),
        ROW(for_http_1_0_it_ends_with_the_connection),
        ROW(http_1_0_can_keep_its_connection),
        ROW(large_bodies_pass_both_ways),
        ROW(a_client_that_reads_nothing_holds_a_window_and_no_more),
        ROW(head_has_the_length_and_no_body),
        ROW(informational_answers_pass),
        ROW(an_upgrade_carries_raw_bytes_both_ways),
        ROW(h2c_is_not_an_upgrade),
        ROW(an_answer_that_is_cut_is_seen_to_be_cut),
        ROW(an_answer_that_is_not_http_is_bad_upstream),
        ROW(an_app_cannot_speak_for_us),
        ROW(what_is_not_http_is_refused_and_closed),
        ROW(what_is_too_large_is_refused),
        SHORT_ROW(a_body_over_the_limit_is_too_large),
        SHORT_ROW(a_body_that_stops_ends_the_exchange),
        SHORT_ROW(an_idle_connection_is_closed),
        SHORT_ROW(an_app_that_says_nothing_is_a_timeout),
        ROW(a_client_that_ends_its_direction_gets_its_answers),
        ROW(a_client_that_leaves_takes_its_stream_along),
        ROW(authorities_go_where_they_should),
        ROW(a_request_of_another_worker_moves_the_connection),
        ROW(a_links_upgrade_moves_to_the_link_server),
        ROW(a_request_waits_for_its_port),
        ROW(a_refused_stream_is_tried_again),
        SHORT_ROW(after_the_hold_it_is_port_closed),
        SHORT_ROW(without_a_link_it_is_agent_offline),
        ROW(a_link_that_dies_in_an_answer_cuts_it),
        ROW(without_access_private_unknown_and_offline_are_alike),
        ROW(a_token_in_the_url_becomes_a_cookie),
        ROW(a_token_counts_for_its_sandbox_ports_and_audience),
        ROW(a_preflight_from_a_sibling_port_passes),
        ROW(a_refused_upgrade_gets_a_bare_answer),
        ROW(drain_lets_exchanges_finish),
        ROW(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
