/* SPDX-License-Identifier: MIT */
/*
 * Two real muxes joined in memory, a real program on a real socket behind the agent's one.
 * The program is a thread with blocking calls, the test is the server's side: it opens
 * streams and looks at what comes. A tick of 1 ms moves the muxes' bytes, and the test runs
 * until what it waits for is true, or fails after WAIT_MS.
 */
#include "agentd/forward/forward.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"

#define WAIT_MS 20000
#define BIG     (24u * 1024 * 1024)

struct fixture {
    struct loop *loop;
    struct mux *agent, *server;
    struct published table;
    struct forward *forward;
    struct loop_timer tick;
    uint64_t deadline_us;
    bool (*until)(struct fixture *);
    uint8_t wire[65536];

    struct mux_stream *s; /* the server's end */
    bool accepted, eof, closed;
    enum mux_reason why;
    uint64_t got, sum, written, to_write, write_sum;
    bool reads; /* takes what comes */
    uint8_t head[64];

    pthread_t app;
    bool has_app;
    int listen_fd;
    uint64_t app_got, app_sum, app_write;
    int app_errno; /* of the program's last failed call */
};

/* A byte stream that both ends can compute, and its checksum. */
static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static uint64_t sum_add(uint64_t sum, const uint8_t *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        sum = sum * 31 + p[i] + 1;
    return sum;
}

static size_t fill(uint8_t *p, size_t n, uint64_t at)
{
    size_t i;

    for (i = 0; i < n; i++)
        p[i] = byte_at(at + i);
    return n;
}

/* -- the server's side ------------------------------------------------------------------ */

static void s_accepted(void *user)
{
    ((struct fixture *)user)->accepted = true;
}

static size_t s_data(void *user, struct span b)
{
    struct fixture *f = user;
    size_t n = b.len;

    if (!f->reads)
        return 0;
    if (f->got < sizeof f->head) {
        if (n > sizeof f->head - f->got)
            n = sizeof f->head - (size_t)f->got;
        memcpy(f->head + f->got, b.p, n);
    }
    f->got += b.len;
    f->sum = sum_add(f->sum, b.p, b.len);
    return b.len;
}

static void s_eof(void *user)
{
    ((struct fixture *)user)->eof = true;
}

static void s_closed(void *user, enum mux_reason why)
{
    struct fixture *f = user;

    f->closed = true;
    f->why = why;
    f->s = NULL;
}

static const struct mux_stream_ops s_ops = {
    .accepted = s_accepted, .data = s_data, .eof = s_eof, .closed = s_closed};

static void a_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    forward_opened(((struct fixture *)owner)->forward, s, open);
}

static const struct mux_ops agent_ops = {.opened = a_opened};
static const struct mux_ops server_ops = {.opened = NULL};

static void move(struct fixture *f, struct mux *from, struct mux *to)
{
    unsigned i;
    size_t n;

    for (i = 0; i < 16; i++) {
        n = mux_send(from, f->wire, sizeof f->wire, clock_us());
        if (n == 0)
            break;
        assert_int_equal(mux_recv(to, span_of(f->wire, n), clock_us()), MUX_OK);
    }
}

static void on_tick(void *arg)
{
    struct fixture *f = arg;
    uint8_t piece[16384];
    size_t n;

    while (f->s && f->written < f->to_write && mux_stream_room(f->s) >= sizeof piece) {
        n = sizeof piece;
        if (n > f->to_write - f->written)
            n = (size_t)(f->to_write - f->written);
        (void)fill(piece, n, f->written);
        assert_int_equal(mux_stream_write(f->s, span_of(piece, n), &n), MUX_OK);
        f->write_sum = sum_add(f->write_sum, piece, n);
        f->written += n;
        if (f->written == f->to_write)
            mux_stream_finish(f->s);
    }
    move(f, f->server, f->agent);
    move(f, f->agent, f->server);
    if (f->until(f) || clock_us() > f->deadline_us)
        loop_stop(f->loop);
    else
        loop_timer_start(&f->tick, 1);
}

static void run(struct fixture *f, bool (*until)(struct fixture *))
{
    f->until = until;
    f->deadline_us = clock_us() + WAIT_MS * UINT64_C(1000);
    loop_timer_start(&f->tick, 0);
    loop_run(f->loop);
    assert_true(until(f));
}

static bool is_closed(struct fixture *f)
{
    return f->closed;
}
static bool is_accepted(struct fixture *f)
{
    return f->accepted;
}
static bool is_eof(struct fixture *f)
{
    return f->eof || f->closed;
}
static bool no_flows(struct fixture *f)
{
    return forward_flows(f->forward) == 0;
}
static bool got_five(struct fixture *f)
{
    return f->got >= 5;
}

/* -- life --------------------------------------------------------------------------------- */

static int setup(void **state)
{
    struct mux_conf conf = {.window = 65536, .window_max = 4194304, .max_streams = 64};
    struct forward_conf fc = {.max_flows = 8};
    struct fixture *f = mem_zalloc(1, sizeof *f);

    assert_non_null(f);
    f->loop = loop_new(NULL);
    assert_non_null(f->loop);
    loop_timer_init(&f->tick, f->loop, on_tick, f);
    fc.table = &f->table;
    f->forward = forward_new(f->loop, &fc);
    assert_non_null(f->forward);
    conf.role = MUX_AGENT;
    f->agent = mux_new(&conf, &agent_ops, f);
    conf.role = MUX_SERVER;
    f->server = mux_new(&conf, &server_ops, f);
    assert_non_null(f->agent);
    assert_non_null(f->server);
    mux_set_peer(f->agent, 65536, 64);
    mux_set_peer(f->server, 65536, 64);
    f->reads = true;
    f->listen_fd = -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->s)
        mux_stream_reset(f->s, MUX_REASON_CANCEL);
    mux_free(f->agent); /* a program that waits sees a reset */
    if (f->has_app)
        pthread_join(f->app, NULL);
    mux_free(f->server);
    forward_free(f->forward);
    loop_timer_stop(&f->tick);
    sock_close(&f->listen_fd);
    published_done(&f->table);
    loop_free(f->loop);
    mem_free(f);
    return 0;
}

/* Publish a program that does `fn` with its first connection; its port. */
static uint16_t serve(struct fixture *f, const char *addr, void *(*fn)(void *))
{
    struct published_port *p;
    struct sock_addr a;
    uint16_t port = 3000;

    assert_int_equal(sock_parse(addr, &a, NULL), 0);
    f->listen_fd = sock_listen(&a, NULL);
    assert_true(f->listen_fd >= 0);
    assert_int_equal(sock_local(f->listen_fd, &a), 0);
    if (a.u.sa.sa_family != AF_UNIX)
        port = sock_port(&a);
    p = published_add(&f->table, port);
    assert_non_null(p);
    p->dial = a;
    if (fn) {
        assert_int_equal(pthread_create(&f->app, NULL, fn, f), 0);
        f->has_app = true;
    }
    return port;
}

static void open_port(struct fixture *f, uint16_t port)
{
    struct mux_open open = {.port = port, .kind = MUX_KIND_HTTP};
    enum mux_result why;

    f->s = mux_open(f->server, &open, &s_ops, f, &why);
    assert_non_null(f->s);
}

/* -- programs ----------------------------------------------------------------------------- */

static int app_accept(struct fixture *f)
{
    struct pollfd p = {.fd = f->listen_fd, .events = POLLIN};
    int fd;

    if (poll(&p, 1, WAIT_MS) != 1)
        return -1;
    fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC); /* blocking */
    return fd;
}

static bool app_send(struct fixture *f, int fd, const uint8_t *p, size_t n)
{
    ssize_t r;

    while (n > 0) {
        r = send(fd, p, n, MSG_NOSIGNAL);
        if (r < 0) {
            f->app_errno = errno;
            return false;
        }
        p += r;
        n -= (size_t)r;
    }
    return true;
}

static void *app_echo(void *arg)
{
    static const size_t cap = 65536;
    struct fixture *f = arg;
    uint8_t b[65536];
    int fd = app_accept(f);
    ssize_t n;

    while ((n = recv(fd, b, cap, 0)) > 0) {
        f->app_got += (uint64_t)n;
        f->app_sum = sum_add(f->app_sum, b, (size_t)n);
        if (!app_send(f, fd, b, (size_t)n))
            break;
    }
    if (n < 0)
        f->app_errno = errno;
    (void)close(fd);
    return NULL;
}

/* Reads all, then answers with what app_write says, then closes: as a half-close needs. */
static void *app_read_then_write(void *arg)
{
    struct fixture *f = arg;
    uint8_t b[16384];
    int fd = app_accept(f);
    ssize_t n;
    uint64_t at = 0;

    while ((n = recv(fd, b, sizeof b, 0)) > 0) {
        f->app_got += (uint64_t)n;
        f->app_sum = sum_add(f->app_sum, b, (size_t)n);
    }
    if (n < 0)
        f->app_errno = errno;
    while (at < f->app_write) {
        (void)fill(b, sizeof b, at);
        if (!app_send(f, fd, b, sizeof b))
            break;
        at += sizeof b;
    }
    (void)close(fd);
    return NULL;
}

static void *app_write_and_close(void *arg)
{
    struct fixture *f = arg;
    uint8_t b[16384];
    int fd = app_accept(f);
    uint64_t at;

    for (at = 0; at < f->app_write; at += sizeof b) {
        (void)fill(b, sizeof b, at);
        if (!app_send(f, fd, b, sizeof b))
            break;
    }
    (void)close(fd);
    return NULL;
}

static void *app_reset(void *arg)
{
    struct fixture *f = arg;
    struct linger now = {1, 0};
    int fd = app_accept(f);
    uint8_t b[5];

    (void)recv(fd, b, sizeof b, MSG_WAITALL);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(fd);
    return NULL;
}

/* Answers without reading the request's rest: its kernel resets behind the answer. */
static void *app_answer_unread(void *arg)
{
    struct fixture *f = arg;
    int fd = app_accept(f);
    uint8_t b[5];

    (void)recv(fd, b, sizeof b, MSG_WAITALL);
    (void)app_send(f, fd, (const uint8_t *)"early", 5);
    (void)close(fd);
    return NULL;
}

static void *app_wait_for_end(void *arg)
{
    struct fixture *f = arg;
    int fd = app_accept(f);
    uint8_t b[64];
    ssize_t n;

    while ((n = recv(fd, b, sizeof b, 0)) > 0)
        f->app_got += (uint64_t)n;
    if (n < 0)
        f->app_errno = errno;
    (void)close(fd);
    return NULL;
}

/* -- tests ---------------------------------------------------------------------------------- */

static void transfer(struct fixture *f, const char *addr)
{
    uint16_t port = serve(f, addr, app_echo);

    f->to_write = BIG;
    open_port(f, port);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_NONE);
    assert_true(f->accepted);
    assert_true(f->written == BIG && f->got == BIG);
    assert_true(f->sum == f->write_sum);
    run(f, no_flows);
    assert_int_equal(mux_streams(f->agent), 0);
    assert_int_equal(mux_streams(f->server), 0);
}

static void an_echo_of_24_mib_comes_back_the_same(void **state)
{
    transfer(*state, "127.0.0.1:0");
}

static void the_same_over_ipv6(void **state)
{
    struct fixture *f = *state;
    struct sock_addr a;
    int fd;

    assert_int_equal(sock_parse("[::1]:0", &a, NULL), 0);
    fd = sock_listen(&a, NULL);
    if (fd < 0)
        skip();
    sock_close(&fd);
    transfer(f, "[::1]:0");
}

static void the_same_over_a_unix_socket(void **state)
{
    char dir[] = "/tmp/test_forward.XXXXXX", addr[64];

    assert_non_null(mkdtemp(dir));
    (void)snprintf(addr, sizeof addr, "unix:%s/app.sock", dir);
    transfer(*state, addr);
    (void)unlink(addr + 5);
    (void)rmdir(dir);
}

static void each_direction_ends_by_itself(void **state)
{
    struct fixture *f = *state;

    /* all of the answer comes after the request's end */
    f->app_write = 1024 * 1024;
    f->to_write = 1024 * 1024;
    open_port(f, serve(f, "127.0.0.1:0", app_read_then_write));
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_NONE);
    assert_true(f->app_got == f->to_write && f->app_sum == f->write_sum);
    assert_true(f->got == f->app_write);
}

static void the_program_may_end_first(void **state)
{
    struct fixture *f = *state;
    size_t n;

    f->app_write = 16384;
    open_port(f, serve(f, "127.0.0.1:0", app_write_and_close));
    run(f, is_eof);
    assert_false(f->closed);
    assert_true(f->got == 16384);
    assert_int_equal(forward_flows(f->forward), 1);
    assert_int_equal(mux_stream_write(f->s, span_str("x"), &n), MUX_OK);
    mux_stream_finish(f->s);
    run(f, is_closed);
    run(f, no_flows);
}

static void a_stream_that_ends_at_once_is_an_empty_connection(void **state)
{
    struct fixture *f = *state;

    open_port(f, serve(f, "127.0.0.1:0", app_wait_for_end));
    mux_stream_finish(f->s);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_NONE);
    assert_true(f->app_got == 0 && f->app_errno == 0);
}

static void a_reset_by_the_program_is_a_reset_of_the_stream(void **state)
{
    struct fixture *f = *state;
    size_t n;

    open_port(f, serve(f, "127.0.0.1:0", app_reset));
    assert_int_equal(mux_stream_write(f->s, span_str("hello"), &n), MUX_OK);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_IO);
    assert_false(f->eof);
    run(f, no_flows);
}

static void a_reset_of_the_stream_is_a_reset_for_the_program(void **state)
{
    struct fixture *f = *state;
    size_t n;

    open_port(f, serve(f, "127.0.0.1:0", app_echo));
    assert_int_equal(mux_stream_write(f->s, span_str("hello"), &n), MUX_OK);
    run(f, got_five);
    mux_stream_reset(f->s, MUX_REASON_CANCEL);
    f->s = NULL;
    run(f, no_flows);
    pthread_join(f->app, NULL);
    f->has_app = false;
    assert_int_equal(f->app_errno, ECONNRESET);
}

static void a_lost_link_is_a_reset_for_the_program(void **state)
{
    struct fixture *f = *state;
    struct mux_conf conf = {.role = MUX_AGENT, .window = 65536, .max_streams = 64};

    open_port(f, serve(f, "127.0.0.1:0", app_wait_for_end));
    run(f, is_accepted);
    mux_free(f->agent);
    f->agent = mux_new(&conf, &agent_ops, f);
    pthread_join(f->app, NULL);
    f->has_app = false;
    assert_int_equal(f->app_errno, ECONNRESET);
}

static void an_answer_before_a_break_arrives(void **state)
{
    struct fixture *f = *state;

    f->to_write = 8 * 1024 * 1024;
    open_port(f, serve(f, "127.0.0.1:0", app_answer_unread));
    run(f, is_closed);
    assert_true(f->got == 5);
    assert_memory_equal(f->head, "early", 5);
    assert_int_equal(f->why, MUX_REASON_IO);
}

static void a_port_that_is_not_published_is_refused_unseen(void **state)
{
    struct fixture *f = *state;
    uint16_t port = serve(f, "127.0.0.1:0", NULL);
    struct pollfd p = {.fd = f->listen_fd, .events = POLLIN};

    published_drop(&f->table, port);
    open_port(f, port);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_NOT_PUBLISHED);
    assert_int_equal(poll(&p, 1, 0), 0); /* nobody came */
    assert_int_equal(forward_flows(f->forward), 0);
}

static void a_program_that_is_gone_is_refused(void **state)
{
    struct fixture *f = *state;
    uint16_t port = serve(f, "127.0.0.1:0", NULL);

    sock_close(&f->listen_fd);
    open_port(f, port);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_REFUSED);
    run(f, no_flows);
}

static void a_unix_socket_that_is_not_there_is_refused(void **state)
{
    struct fixture *f = *state;
    struct published_port *p = published_add(&f->table, 3000);

    assert_non_null(p);
    assert_int_equal(sock_parse("unix:/nonexistent/app.sock", &p->dial, NULL), 0);
    open_port(f, 3000);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_REFUSED);
}

static void more_connections_than_allowed_are_refused(void **state)
{
    struct fixture *f = *state;
    uint16_t port = serve(f, "127.0.0.1:0", NULL);
    unsigned i;

    for (i = 0; i < 8; i++) {
        f->accepted = false;
        open_port(f, port);
        run(f, is_accepted);
    }
    open_port(f, port);
    run(f, is_closed);
    assert_int_equal(f->why, MUX_REASON_LIMIT);
    assert_int_equal(forward_flows(f->forward), 8);
}

static void no_descriptor_left_is_a_limit(void **state)
{
    struct fixture *f = *state;
    uint16_t port = serve(f, "127.0.0.1:0", NULL);
    struct rlimit was, low;
    int fd;

    open_port(f, port);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    fd = dup(0);
    (void)close(fd);
    low = was;
    low.rlim_cur = (rlim_t)fd;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    run(f, is_closed);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(f->why, MUX_REASON_LIMIT);
}

/* Nobody reads at the server's side: what the agent holds stays below the queue's bound and
 * the server's below its window, while another stream goes on. */
static struct fixture *other;
static bool second_done(struct fixture *f)
{
    UNUSED_ARG(f);
    return other->closed;
}

static void a_reader_that_stalls_holds_its_window_and_nothing_else(void **state)
{
    struct fixture *f = *state;
    struct mux_open open = {.kind = MUX_KIND_HTTP};
    enum mux_result why;
    uint16_t port;
    size_t held;

    f->reads = false;
    f->app_write = BIG;
    port = serve(f, "127.0.0.1:0", app_write_and_close);
    open_port(f, port);
    run(f, is_accepted);
    /* a second stream to a program that refuses, 50 times: the link moves on */
    other = mem_zalloc(1, sizeof *other);
    assert_non_null(other);
    other->reads = true;
    for (unsigned i = 0; i < 50; i++) {
        other->closed = false;
        open.port = 1;
        assert_non_null(mux_open(f->server, &open, &s_ops, other, &why));
        run(f, second_done);
        assert_int_equal(other->why, MUX_REASON_NOT_PUBLISHED);
    }
    mem_free(other);
    other = NULL;
    held = mux_memory(f->agent);
    assert_in_range(held, 1, 262144 + 65536);
    assert_in_range(mux_memory(f->server), 1, 65536 + 16384);
    mux_stream_reset(f->s, MUX_REASON_CANCEL);
    f->s = NULL;
    run(f, no_flows);
}

/* The program does not read: the window fills, the agent keeps no more than it. */
static void a_program_that_stalls_holds_its_window_and_nothing_else(void **state)
{
    struct fixture *f = *state;
    uint64_t before;

    f->to_write = UINT64_C(1) << 40;
    open_port(f, serve(f, "127.0.0.1:0", NULL)); /* never accepted by the program */
    run(f, is_accepted);
    do {
        before = f->written;
        f->accepted = false;
        f->deadline_us = 0;
        f->until = is_accepted;
        for (unsigned i = 0; i < 50; i++) {
            f->deadline_us = 0; /* one turn */
            loop_timer_start(&f->tick, 0);
            loop_run(f->loop);
        }
    } while (f->written != before);
    assert_in_range(mux_memory(f->agent), 1, 4194304 + 16384);
    assert_in_range(mux_memory(f->server), 1, 262144 + 65536);
    mux_stream_reset(f->s, MUX_REASON_CANCEL);
    f->s = NULL;
    run(f, no_flows);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(an_echo_of_24_mib_comes_back_the_same),
        T(the_same_over_ipv6),
        T(the_same_over_a_unix_socket),
        T(each_direction_ends_by_itself),
        T(the_program_may_end_first),
        T(a_stream_that_ends_at_once_is_an_empty_connection),
        T(a_reset_by_the_program_is_a_reset_of_the_stream),
        T(a_reset_of_the_stream_is_a_reset_for_the_program),
        T(a_lost_link_is_a_reset_for_the_program),
        T(an_answer_before_a_break_arrives),
        T(a_port_that_is_not_published_is_refused_unseen),
        T(a_program_that_is_gone_is_refused),
        T(a_unix_socket_that_is_not_there_is_refused),
        T(more_connections_than_allowed_are_refused),
        T(no_descriptor_left_is_a_limit),
        T(a_reader_that_stalls_holds_its_window_and_nothing_else),
        T(a_program_that_stalls_holds_its_window_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
