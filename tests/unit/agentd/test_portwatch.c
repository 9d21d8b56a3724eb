/* SPDX-License-Identifier: MIT */
/* Real listeners, real kernel. The events are recorded; each test waits for what it expects
 * and fails after WAIT_MS, far beyond what the watch needs. */
#include "agentd/forward/portwatch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/forward/listeners.h"
#include "tests/support/test.h"

#define WAIT_MS 5000

struct fixture {
    struct loop *loop;
    struct portwatch *watch;
    struct loop_timer deadline;
    uint16_t port; /* looked for */
    unsigned opened, closed;
    struct portwatch_port last;
    uint64_t opened_us;
    bool is_late;
};

static void on_opened(void *owner, const struct portwatch_port *p, size_t n)
{
    struct fixture *f = owner;
    size_t i;

    assert_in_range(n, 1, PORTWATCH_BATCH);
    for (i = 0; i < n; i++) {
        if (p[i].port == f->port) {
            f->opened++;
            f->last = p[i];
            f->opened_us = clock_us();
            loop_stop(f->loop);
        }
    }
}

static void on_closed(void *owner, uint16_t port)
{
    struct fixture *f = owner;

    if (port == f->port) {
        f->closed++;
        loop_stop(f->loop);
    }
}

static const struct portwatch_ops ops = {on_opened, on_closed};

static void on_deadline(void *arg)
{
    struct fixture *f = arg;

    f->is_late = true;
    loop_stop(f->loop);
}

static void run(struct fixture *f, uint64_t ms)
{
    f->is_late = false;
    loop_timer_start(&f->deadline, ms);
    loop_run(f->loop);
    loop_timer_stop(&f->deadline);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof *f);
    struct err e;

    assert_non_null(f);
    f->loop = loop_new(&e);
    assert_non_null(f->loop);
    loop_timer_init(&f->deadline, f->loop, on_deadline, f);
    f->watch = portwatch_new(f->loop, NULL, &ops, f, &e);
    assert_non_null(f->watch);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    portwatch_free(f->watch);
    loop_timer_stop(&f->deadline);
    loop_free(f->loop);
    mem_free(f);
    return 0;
}

/* A port that nobody has at any address: of several listeners the watch tells one, and
 * others run beside this test. */
static uint16_t lone_port(void)
{
    static const char *const all[] = {"::", "0.0.0.0"};
    struct sock_addr a;
    size_t i;

    for (i = 0; i < COUNT_OF(all); i++) {
        uint16_t port = 0;
        int off = 0, fd;

        assert_int_equal(sock_parse_ip(span_str(all[i]), 0, &a), 0);
        fd = socket(a.u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (i == 0)
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        if (bind(fd, &a.u.sa, a.len) == 0 && sock_local(fd, &a) == 0)
            port = sock_port(&a);
        (void)close(fd);
        if (port != 0)
            return port;
    }
    fail_msg("no port");
    return 0;
}

/* Listen on *ret_port of the address; 0 in *ret_port: on one that nobody has. */
static int listen_on(const char *ip, bool v6only, uint16_t *ret_port)
{
    struct sock_addr a;
    int on = 1, off = v6only, fd;

    if (*ret_port == 0)
        *ret_port = lone_port();
    assert_int_equal(sock_parse_ip(span_str(ip), *ret_port, &a), 0);
    fd = socket(a.u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a.u.sa.sa_family == AF_INET6)
        assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off), 0);
    assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(sock_local(fd, &a), 0);
    *ret_port = sock_port(&a);
    return fd;
}

static void check(const char *ip, bool v6only, const char *dial)
{
    char text[SOCK_TEXT_MAX];
    struct fixture *f;
    void *state;
    struct stat st;
    uint16_t port = 0;
    int fd, conn;

    assert_int_equal(setup(&state), 0);
    f = state;
    fd = listen_on(ip, v6only, &port);
    f->port = port;
    run(f, WAIT_MS);
    assert_int_equal(f->opened, 1);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(f->last.inode == st.st_ino);
    assert_int_equal(f->last.uid, getuid());
    assert_string_equal(sock_print_ip(&f->last.listen, text), ip);
    assert_string_equal(sock_print_ip(&f->last.dial, text), dial);
    assert_int_equal(sock_port(&f->last.dial), port);
    /* and it can be reached there */
    conn = socket(f->last.dial.u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(conn, &f->last.dial.u.sa, f->last.dial.len), 0);
    (void)close(conn);
    (void)close(fd);
    run(f, WAIT_MS);
    assert_int_equal(f->closed, 1);
    assert_int_equal(f->opened, 1);
    (void)teardown(&state);
}

static void a_listener_on_ipv4_loopback_is_seen_and_its_end_too(void **state)
{
    (void)state;
    check("127.0.0.1", false, "127.0.0.1");
}

static void the_exact_loopback_address_is_dialled(void **state)
{
    (void)state;
    check("127.9.8.7", false, "127.9.8.7");
}

static void an_ipv4_wildcard_is_dialled_by_loopback(void **state)
{
    (void)state;
    check("0.0.0.0", false, "127.0.0.1");
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    r = bind(fd, (const struct sockaddr *)(const void *)&a, sizeof a);
    (void)close(fd);
    return r == 0;
}

static void a_listener_on_ipv6_loopback_is_dialled_there(void **state)
{
    (void)state;
    if (!has_ipv6())
        skip();
    check("::1", true, "::1");
}

static void a_dual_stack_wildcard_is_dialled_by_ipv4(void **state)
{
    (void)state;
    if (!has_ipv6())
        skip();
    check("::", false, "127.0.0.1");
}

static void an_ipv6_only_wildcard_is_dialled_by_ipv6(void **state)
{
    (void)state;
    if (!has_ipv6())
        skip();
    check("::", true, "::1");
}

/* Two programs, one port: the better address is told, and its end moves to the other. */
static void the_better_of_two_sockets_is_told(void **state)
{
    struct fixture *f = *state;
    char text[SOCK_TEXT_MAX];
    uint16_t port = 0;
    int a, b;

    if (!has_ipv6())
        skip();
    a = listen_on("::1", true, &port);
    f->port = port;
    run(f, WAIT_MS);
    assert_string_equal(sock_print_ip(&f->last.dial, text), "::1");
    b = listen_on("127.0.0.1", false, &port);
    run(f, WAIT_MS);
    assert_int_equal(f->opened, 2);
    assert_string_equal(sock_print_ip(&f->last.dial, text), "127.0.0.1");
    (void)close(b);
    run(f, WAIT_MS);
    assert_int_equal(f->opened, 3);
    assert_int_equal(f->closed, 0);
    assert_string_equal(sock_print_ip(&f->last.dial, text), "::1");
    (void)close(a);
    run(f, WAIT_MS);
    assert_int_equal(f->closed, 1);
}

/* The bound is the watch's promise; the time is not asserted, only the order: the program
 * that began to listen is seen within a second of polls of 200 ms. */
static void many_listeners_are_all_told_once(void **state)
{
    enum {
        N = 150
    };
    struct fixture *f = *state;
    struct portwatch_port *p = NULL;
    uint16_t port[N];
    size_t n = 0, i, k, found = 0;
    int fd[N];

    for (i = 0; i < N; i++) {
        port[i] = 0;
        fd[i] = listen_on("127.0.0.1", false, &port[i]);
    }
    f->port = port[N - 1];
    run(f, WAIT_MS);
    assert_int_equal(f->opened, 1);
    assert_int_equal(portwatch_list(NULL, &p, &n, NULL), 0);
    for (i = 0; i < n; i++) {
        assert_true(i == 0 || p[i - 1].port < p[i].port);
        for (k = 0; k < N; k++)
            found += p[i].port == port[k];
    }
    assert_int_equal(found, N);
    mem_free(p);
    for (i = 0; i < N; i++)
        (void)close(fd[i]);
    run(f, WAIT_MS);
    assert_int_equal(f->closed, 1);
}

/* A program that restarts faster than a round is another socket on the same port. */
static void a_restart_between_rounds_is_told_as_opened_again(void **state)
{
    struct fixture *f = *state;
    uint16_t port = 0;
    uint64_t first;
    int fd = listen_on("127.0.0.1", false, &port);

    f->port = port;
    run(f, WAIT_MS);
    first = f->last.inode;
    (void)close(fd);
    fd = listen_on("127.0.0.1", false, &port);
    run(f, WAIT_MS);
    assert_int_equal(f->opened, 2);
    assert_int_equal(f->closed, 0);
    assert_true(f->last.inode != first);
    (void)close(fd);
}

static int watch_and_drop(void)
{
    struct loop *l = loop_new(NULL);
    struct portwatch *w;

    if (!l)
        return -1;
    w = portwatch_new(l, NULL, &ops, NULL, NULL);
    portwatch_free(w);
    loop_free(l);
    return w ? 0 : -1;
}

static int list_and_drop(void)
{
    struct portwatch_port *p = NULL;
    size_t n;

    if (portwatch_list(NULL, &p, &n, NULL) < 0)
        return -1;
    mem_free(p);
    return 0;
}

static void no_memory_leaves_nothing_behind(void **state)
{
    uint16_t port = 0;
    int fd = listen_on("127.0.0.1", false, &port);

    (void)state;
    FAIL_EACH_ALLOC(list_and_drop());
    assert_int_equal(watch_and_drop(), 0);
    (void)close(fd);
}

/* -- the answer's reader, with what a kernel never sends ------------------------------- */

static void garbage_for_an_answer_is_refused_or_passed_over(void **state)
{
    uint8_t q[LISTENERS_QUESTION_MAX] __attribute__((aligned(8)));
    struct listeners l = {0};
    size_t n = listeners_question(AF_INET, 7, q), i, bit;
    int sys = 0;

    (void)state;
    for (i = 0; i < n; i++) {
        for (bit = 0; bit < 8; bit++) {
            q[i] ^= (uint8_t)(1u << bit);
            (void)listeners_read(&l, span_of(q, n), 7, &sys);
            q[i] ^= (uint8_t)(1u << bit);
        }
    }
    for (i = 0; i < n; i++)
        assert_true(listeners_read(&l, span_of(q, i), 7, &sys) != LISTENERS_DONE);
    listeners_done(&l);
}

/* An errno that none is, as the fuzzer found: it is not negated blindly. */
static void an_error_of_the_kernel_is_a_number_in_range(void **state)
{
    static const struct {
        int32_t sent;
        int want;
    } row[] = {{-ENOENT, ENOENT}, {INT32_MIN, EPROTO}, {5, EPROTO}, {-4096, EPROTO}};
    uint8_t m[20] __attribute__((aligned(8))) = {sizeof m, 0, 0, 0, 2 /* NLMSG_ERROR */};
    struct listeners l = {0};
    size_t i;
    int sys;

    (void)state;
    for (i = 0; i < COUNT_OF(row); i++) {
        memcpy(m + 16, &row[i].sent, sizeof row[i].sent);
        sys = 0;
        assert_int_equal(listeners_read(&l, span_of(m, sizeof m), 0, &sys),
                         LISTENERS_REFUSED);
        assert_int_equal(sys, row[i].want);
    }
    listeners_done(&l);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listener_on_ipv4_loopback_is_seen_and_its_end_too),
        cmocka_unit_test(the_exact_loopback_address_is_dialled),
        cmocka_unit_test(an_ipv4_wildcard_is_dialled_by_loopback),
        cmocka_unit_test(a_listener_on_ipv6_loopback_is_dialled_there),
        cmocka_unit_test(a_dual_stack_wildcard_is_dialled_by_ipv4),
        cmocka_unit_test(an_ipv6_only_wildcard_is_dialled_by_ipv6),
        cmocka_unit_test_setup_teardown(the_better_of_two_sockets_is_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(many_listeners_are_all_told_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_restart_between_rounds_is_told_as_opened_again,
                                        setup, teardown),
        cmocka_unit_test(no_memory_leaves_nothing_behind),
        cmocka_unit_test(garbage_for_an_answer_is_refused_or_passed_over),
        cmocka_unit_test(an_error_of_the_kernel_is_a_number_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
