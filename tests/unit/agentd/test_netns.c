/* SPDX-License-Identifier: MIT */
/* A child makes a network namespace of its own and listens in it; the watch, in here, sees
 * that listener and none of ours. Needs root. */
#include "agentd/forward/netns.h"

#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/forward/portwatch.h"
#include "common/sock.h"
#include "tests/support/test.h"

static int listen_any(uint16_t *ret_port)
{
    struct sock_addr a;
    int fd;

    if (sock_parse("127.0.0.1:0", &a, NULL) < 0 || (fd = sock_listen(&a, NULL)) < 0 ||
        sock_local(fd, &a) < 0)
        return -1;
    *ret_port = sock_port(&a);
    return fd;
}

static void child(int out)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    uint16_t port = 0;
    int fd;

    if (unshare(CLONE_NEWNET) == 0) {
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0 || listen_any(&port) < 0)
            port = 0;
    }
    (void)!write(out, &port, sizeof port); /* 0: it cannot be done here */
    (void)pause();
    _exit(0);
}

static ino_t own_namespace(void)
{
    struct stat st;

    assert_int_equal(stat("/proc/thread-self/ns/net", &st), 0);
    return st.st_ino;
}

static void listeners_of_another_namespace_are_seen_and_reached(void **state)
{
    struct portwatch_port *p = NULL;
    uint16_t port = 0, ours;
    int out[2], mine, conn, result = -1;
    struct netns *ns;
    struct err e = {0};
    ino_t home = own_namespace();
    size_t n = 0;
    pid_t pid;

    (void)state;
    mine = listen_any(&ours);
    assert_true(mine >= 0);
    assert_int_equal(pipe(out), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(out[1]);
    assert_int_equal(read(out[0], &port, sizeof port), sizeof port);
    ns = port ? netns_open(NULL, pid, &e) : NULL;
    if (ns && portwatch_list(ns, &p, &n, &e) == 0) {
        assert_int_equal(n, 1);
        assert_int_equal(p[0].port, port);
        assert_true(own_namespace() == home);
        assert_int_equal(netns_enter(ns, NULL), 0);
        assert_true(own_namespace() != home);
        conn = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        netns_leave(ns);
        assert_true(own_namespace() == home);
        result = connect(conn, &p[0].dial.u.sa, p[0].dial.len);
        (void)close(conn);
    }
    mem_free(p);
    netns_free(ns);
    (void)close(mine);
    (void)close(out[0]);
    (void)close(out[1]);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    if (port == 0)
        skip(); /* no right to make a namespace */
    assert_int_equal(result, 0);
}

static void what_is_no_namespace_is_refused(void **state)
{
    struct err e = {0};

    (void)state;
    assert_null(netns_open("/nonexistent", 0, &e));
    assert_int_equal(e.code, ERR_SYS);
    assert_null(netns_open("/dev/null", 0, &e));
    assert_int_equal(e.code, ERR_SYS);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(listeners_of_another_namespace_are_seen_and_reached),
        cmocka_unit_test(what_is_no_namespace_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
