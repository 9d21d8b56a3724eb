/* SPDX-License-Identifier: MIT */
#include "common/conn.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/pki.h"
#include "tests/support/test.h"

struct world;

/* One end: sends `total` bytes of a pattern in pieces of odd sizes, checks what it gets. */
struct side {
    struct world *w;
    struct conn *c;
    size_t total, sent, got;
    size_t read_max; /* bytes asked for at once; 0: plenty */
    unsigned layers; /* TLS handshakes still to do */
    bool is_server, finish_when_sent, close_when_sent, abort_when_sent;
    bool has_eof, has_error, is_secured;
    struct err error;
    unsigned calls, closes;
    void (*on_secured)(struct side *s); /* instead of going on */
};

struct world {
    struct loop *l;
    struct pki pki;
    struct tls_cert_slot *slot;
    struct tls_ctx *server, *client;
    struct loop_timer guard;
    struct side a, b; /* a accepts, b connects */
    bool timed_out;
    bool stay;          /* do not stop the loop yet */
    struct world *tell; /* stop nothing, tell this one, which is on another thread */
    unsigned seed;
};

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + (i >> 8) * 13 + (i >> 16));
}

static void on_guard(void *arg)
{
    struct world *w = arg;

    w->timed_out = true;
    loop_stop(w->l);
}

static bool is_over(const struct side *s)
{
    return s->c == NULL || s->has_error || (s->has_eof && s->sent >= s->total);
}

static void other_is_over(void *arg);

static void check_over(struct world *w)
{
    if (!is_over(&w->a) || !is_over(&w->b))
        return;
    if (w->tell != NULL)
        assert_int_equal(loop_post(w->tell->l, other_is_over, w->tell), 0);
    else if (!w->stay)
        loop_stop(w->l);
}

static void other_is_over(void *arg)
{
    struct world *w = arg;

    w->stay = false;
    check_over(w);
}

static void take_end(struct side *s, enum conn_result r)
{
    if (r == CONN_EOF)
        s->has_eof = true;
    if (r == CONN_ERROR) {
        s->has_error = true;
        s->error = *conn_error(s->c);
    }
    conn_want(s->c, !s->has_error && s->sent < s->total ? LOOP_WRITE : 0);
    check_over(s->w);
}

static void on_readable(void *owner)
{
    static _Thread_local uint8_t bytes[40000];
    struct side *s = owner;
    size_t cap = s->read_max > 0 ? s->read_max : sizeof(bytes), n, i;
    enum conn_result r = conn_read(s->c, bytes, cap, &n);

    s->calls++;
    if (r == CONN_AGAIN)
        return;
    if (r != CONN_OK) {
        take_end(s, r);
        return;
    }
    assert_in_range(n, 1, cap);
    for (i = 0; i < n; i++)
        if (bytes[i] != pattern(s->got + i))
            fail_msg("byte %zu is wrong", s->got + i);
    s->got += n;
}

static void all_sent(struct side *s)
{
    conn_want(s->c, s->has_eof ? 0 : LOOP_READ);
    if (s->finish_when_sent)
        conn_finish(s->c);
    if (s->close_when_sent)
        conn_close(&s->c);
    if (s->abort_when_sent)
        conn_abort(&s->c);
    check_over(s->w);
}

static void on_writable(void *owner)
{
    static _Thread_local uint8_t bytes[50000];
    struct side *s = owner;
    enum conn_result r = CONN_OK;
    size_t n, i, moved;

    while (s->sent < s->total) {
        /* Another size at each try, also after AGAIN: TLS must not mind. */
        n = 1 + (size_t)rand_r(&s->w->seed) % sizeof(bytes);
        n = n < s->total - s->sent ? n : s->total - s->sent;
        for (i = 0; i < n; i++)
            bytes[i] = pattern(s->sent + i);
        r = conn_write(s->c, bytes, n, &moved);
        if (r != CONN_OK)
            break;
        assert_in_range(moved, 1, n);
        s->sent += moved;
    }
    memset(bytes, 0xee, sizeof(bytes)); /* what was not taken is forgotten */
    if (r == CONN_ERROR)
        take_end(s, r);
    else if (s->sent == s->total)
        all_sent(s);
}

static void start(struct side *s);

static void on_secured(void *owner, const struct err *e)
{
    struct side *s = owner;

    if (e != NULL) {
        s->has_error = true;
        s->error = *e;
        conn_close(&s->c);
        check_over(s->w);
        return;
    }
    s->is_secured = true;
    if (s->on_secured != NULL)
        s->on_secured(s);
    else
        start(s);
}

static const struct conn_ops ops = {on_readable, on_writable, on_secured};

static void start(struct side *s)
{
    struct err e;
    int r;

    if (s->layers > 0) {
        s->layers--;
        r = s->is_server ? conn_tls_accept(s->c, s->w->server, &e)
                         : conn_tls_connect(s->c, s->w->client, "a.Example.com", &e);
        assert_int_equal(r, 0);
        return;
    }
    conn_want(s->c, LOOP_READ | (s->total > 0 || s->finish_when_sent ? LOOP_WRITE : 0));
}

static void tcp_pair(int fd[2])
{
    struct sock_addr at;
    int l, small = 30000;

    assert_int_equal(sock_parse("127.0.0.1:0", &at, NULL), 0);
    l = sock_listen(&at, NULL);
    assert_int_equal(sock_local(l, &at), 0);
    fd[1] = sock_connect(&at, NULL);
    while ((fd[0] = sock_accept(l, NULL)) < 0)
        ;
    sock_close(&l);
    /* So that records are cut by full sockets. */
    (void)setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    (void)setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
}

static void make_pair(struct world *w, unsigned layers)
{
    int fd[2];

    tcp_pair(fd);
    w->a = (struct side){.w = w, .layers = layers, .is_server = true};
    w->b = (struct side){.w = w, .layers = layers};
    w->a.c = conn_new(w->l, &fd[0], &ops, &w->a, NULL);
    w->b.c = conn_new(w->l, &fd[1], &ops, &w->b, NULL);
    assert_non_null(w->a.c);
    assert_non_null(w->b.c);
    assert_int_equal(fd[0], -1);
}

static void run(struct world *w)
{
    loop_run(w->l);
    assert_false(w->timed_out);
}

static void start_both(struct world *w)
{
    start(&w->a);
    start(&w->b);
    run(w);
}

static void end_pair(struct world *w)
{
    conn_close(&w->a.c);
    conn_close(&w->b.c);
}

static int setup(void **state)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    struct world *w = calloc(1, sizeof(*w));
    struct tls_cert *cert;

    w->seed = 7;
    w->l = loop_new(NULL);
    pki_init(&w->pki, "Test Root");
    pki_issue(&w->pki, "leaf", "DNS:*.example.com,IP:127.0.0.1", 10);
    cert = tls_cert_load(w->pki.cert_file, w->pki.key_file, NULL);
    w->slot = tls_cert_slot_new(&cert);
    w->server = tls_ctx_server(w->slot, alpn, NULL);
    w->client = tls_ctx_client(w->pki.ca_file, NULL);
    assert_non_null(w->server);
    assert_non_null(w->client);
    loop_timer_init(&w->guard, w->l, on_guard, w);
    loop_timer_start(&w->guard, 60000);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    end_pair(w);
    loop_timer_stop(&w->guard);
    loop_free(w->l);
    tls_ctx_free(w->server);
    tls_ctx_free(w->client);
    tls_cert_slot_free(w->slot);
    pki_done(&w->pki);
    free(w);
    return 0;
}

static void bytes_go_both_ways_and_each_way_ends_alone(void **state)
{
    struct world *w = *state;
    unsigned layers;

    for (layers = 0; layers <= 2; layers++) {
        make_pair(w, layers);
        w->a.total = 1500000;
        w->b.total = 700000; /* ends its direction long before the other */
        w->a.finish_when_sent = w->b.finish_when_sent = true;
        start_both(w);
        assert_int_equal(w->a.got, w->b.total);
        assert_int_equal(w->b.got, w->a.total);
        assert_true(w->a.has_eof && w->b.has_eof);
        assert_int_equal(conn_is_tls(w->a.c), layers > 0);
        assert_string_equal(conn_server_name(w->a.c), layers > 0 ? "a.example.com" : "");
        assert_string_equal(conn_server_name(w->b.c), "");
        end_pair(w);
    }
}

static void an_abort_is_seen_as_an_error_never_as_an_end(void **state)
{
    struct world *w = *state;
    unsigned layers;

    for (layers = 0; layers <= 2; layers++) {
        make_pair(w, layers);
        w->a.total = 1000;
        w->a.abort_when_sent = true;
        start_both(w);
        assert_null(w->a.c);
        assert_true(w->b.has_error);
        assert_false(w->b.has_eof);
        assert_int_equal(w->b.error.code, ERR_SYS);
        end_pair(w);
    }
}

static void cut_socket(struct side *s)
{
    (void)shutdown(conn_fd(s->c), SHUT_WR);
}

static void a_tls_stream_cut_without_close_notify_is_an_error(void **state)
{
    struct world *w = *state;

    make_pair(w, 1);
    w->a.on_secured = cut_socket;
    w->a.has_eof = true; /* only the other end's end is waited for */
    start_both(w);
    assert_true(w->b.has_error);
    assert_non_null(strstr(w->b.error.msg, "cut without close_notify"));
}

/* Also when the socket is full at that moment: the rest goes out in the background. */
static void closing_right_after_the_last_write_loses_nothing(void **state)
{
    struct world *w = *state;
    unsigned layers;

    for (layers = 0; layers <= 2; layers++) {
        make_pair(w, layers);
        w->a.total = 900000;
        w->a.close_when_sent = true;
        w->b.read_max = 1000; /* slow */
        start_both(w);
        assert_null(w->a.c);
        assert_true(w->b.has_eof);
        assert_int_equal(w->b.got, w->a.total);
        end_pair(w);
    }
}

static void fill_and_close(struct side *s)
{
    static const uint8_t zeros[16384];
    size_t n;

    while (conn_write(s->c, zeros, sizeof(zeros), &n) == CONN_OK)
        ;
    conn_close(&s->c);
    loop_stop(s->w->l);
}

static void a_connection_that_still_sends_ends_with_the_loop(void **state)
{
    struct world *w = *state;

    make_pair(w, 1);
    w->a.on_secured = fill_and_close;
    start(&w->a);
    start(&w->b);
    conn_want(w->b.c, 0);
    w->b.on_secured = cut_socket;
    run(w);
    assert_null(w->a.c);
    /* teardown frees the loop; the leak checker sees to the rest */
}

static void bytes_inside_the_tls_layer_are_told_again_and_again(void **state)
{
    struct world *w = *state;
    unsigned layers;

    for (layers = 0; layers <= 2; layers++) {
        make_pair(w, layers);
        w->a.total = 3000;
        w->a.finish_when_sent = w->b.finish_when_sent = true;
        w->b.read_max = 1;
        start_both(w);
        assert_int_equal(w->b.got, 3000);
        assert_true(w->b.calls >= 3001);
        assert_true(w->b.has_eof);
        end_pair(w);
    }
}

static void unread_bytes_come_first(void **state)
{
    struct world *w = *state;
    uint8_t head[600];
    struct err e = {0};
    size_t i;

    for (i = 0; i < sizeof(head); i++)
        head[i] = pattern(i);
    make_pair(w, 0);
    assert_int_equal(conn_unread(w->b.c, span_of(head + 100, 500)), 0);
    assert_int_equal(conn_unread(w->b.c, span_of(head, 100)), 0);
    assert_int_equal(conn_tls_accept(w->b.c, w->server, &e), -1);
    assert_int_equal(e.code, ERR_PROTO);
    w->b.read_max = 7;
    w->a.total = 5000;
    w->a.sent = 600; /* the first 600 were read before */
    w->a.finish_when_sent = w->b.finish_when_sent = true;
    start_both(w);
    assert_int_equal(w->b.got, 5000);
}

static void close_self(void *owner)
{
    struct side *s = owner;

    s->closes++;
    conn_close(&s->c);
    check_over(s->w);
}

static void close_in_secured(void *owner, const struct err *e)
{
    assert_null(e);
    close_self(owner);
}

static void closing_inside_any_callback_is_the_last_one(void **state)
{
    static const struct conn_ops variants[] = {
        {close_self, close_self, NULL},
        {close_self, on_writable, on_secured},
        {on_readable, close_self, on_secured},
        {on_readable, on_writable, close_in_secured},
    };
    struct world *w = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(variants); i++) {
        make_pair(w, i == 0 ? 0 : 1);
        conn_set_owner(w->a.c, &variants[i], &w->a);
        w->a.total = i == 2 ? 10 : 0;
        w->b.total = 100;
        start_both(w);
        assert_null(w->a.c);
        assert_int_equal(w->a.closes, 1); /* a later callback would use NULL */
        end_pair(w);
    }
}

static void a_handshake_with_something_else_says_so(void **state)
{
    struct world *w = *state;

    make_pair(w, 0);
    w->b.layers = 1;
    assert_int_equal(send(conn_fd(w->a.c), "HTTP/1.1 400 no\r\n\r\n", 19, 0), 19);
    w->a.has_eof = true;
    start(&w->b);
    run(w);
    assert_true(w->b.has_error);
    assert_non_null(strstr(w->b.error.msg, "does not speak TLS"));
}

/* -- moving to another thread ----------------------------------------------------------- */

/* The other thread's world has only a side a, the one that moved. */
struct mover {
    struct world w;
    struct conn_parts parts;
};

static void attach_moved(void *arg)
{
    struct mover *m = arg;

    m->w.a.c = conn_attach(m->w.l, &m->parts, &ops, &m->w.a, NULL);
    assert_non_null(m->w.a.c);
    start(&m->w.a);
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

static void *other_thread(void *arg)
{
    struct mover *m = arg;

    loop_run(m->w.l);
    return NULL;
}

static struct mover *moving;

/* Takes a few bytes, gives most of them back, and moves. */
static void read_and_move(void *owner)
{
    struct side *s = owner;
    struct mover *m = moving;
    uint8_t bytes[300];
    size_t n;

    if (conn_read(s->c, bytes, sizeof(bytes), &n) != CONN_OK)
        return;
    assert_int_equal(conn_unread(s->c, span_of(bytes, n)), 0);
    conn_detach(&s->c, &m->parts);
    assert_null(s->c);
    assert_int_equal(loop_post(m->w.l, attach_moved, m), 0);
}

static void a_connection_moves_to_another_thread_with_bytes_in_flight(void **state)
{
    static const struct conn_ops move_ops = {read_and_move, on_writable, on_secured};
    struct world *w = *state;
    struct mover m;
    pthread_t t;
    unsigned layers;

    for (layers = 0; layers <= 2; layers++) {
        m = (struct mover){.w = {.l = loop_new(NULL), .seed = 3, .tell = w}};
        m.w.a = (struct side){.w = &m.w, .total = 400000, .finish_when_sent = true};
        moving = &m;
        make_pair(w, layers);
        conn_set_owner(w->a.c, &move_ops, &w->a);
        w->b.total = 500000;
        w->b.finish_when_sent = true;
        assert_int_equal(pthread_create(&t, NULL, other_thread, &m), 0);
        w->stay = true;
        start_both(w); /* until both ends have seen their end */
        assert_int_equal(loop_post(m.w.l, stop_loop, m.w.l), 0);
        assert_int_equal(pthread_join(t, NULL), 0);
        assert_int_equal(w->b.got, 400000);
        assert_int_equal(m.w.a.got, 500000);
        assert_true(m.w.a.has_eof);
        conn_close(&m.w.a.c);
        loop_free(m.w.l);
        end_pair(w);
    }
}

static int make_start_and_close(struct world *w)
{
    struct loop *l = loop_new(NULL);
    int fd[2] = {-1, -1}, ok = -1;
    struct conn *c;

    if (l == NULL)
        return -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    c = conn_new(l, &fd[0], &ops, &w->a, NULL);
    assert_int_equal(fd[0], -1);
    if (c != NULL)
        ok = conn_tls_connect(c, w->client, "a.example.com", NULL);
    conn_close(&c);
    loop_free(l);
    sock_close(&fd[1]);
    return ok;
}

static void every_allocation_failure_is_clean(void **state)
{
    struct world *w = *state;

    FAIL_EACH_ALLOC(make_start_and_close(w));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(bytes_go_both_ways_and_each_way_ends_alone),
        T(an_abort_is_seen_as_an_error_never_as_an_end),
        T(a_tls_stream_cut_without_close_notify_is_an_error),
        T(closing_right_after_the_last_write_loses_nothing),
        T(a_connection_that_still_sends_ends_with_the_loop),
        T(bytes_inside_the_tls_layer_are_told_again_and_again),
        T(unread_bytes_come_first),
        T(closing_inside_any_callback_is_the_last_one),
        T(a_handshake_with_something_else_says_so),
        T(a_connection_moves_to_another_thread_with_bytes_in_flight),
        T(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/conn", tests, NULL, NULL);
}
