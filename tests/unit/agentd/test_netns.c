/* SPDX-License-Identifier: MIT */
/* A child makes a network namespace of its own and listens in it; the watch, in here, sees
 * that listener and none of ours: by entering it, which needs root, and by a maker in it. */
#include "agentd/forward/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
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

/* 0 when a socket made there connects; loopback answers at once. */
static int reaches(struct netns *ns, const struct sock_addr *to)
{
    int fd = netns_socket(ns, AF_INET, SOCK_STREAM, 0, NULL), r;
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    assert_true(fd >= 0);
    fd = sock_connect_by(&p.fd, to, NULL);
    if (fd < 0)
        return -1;
    p.fd = fd;
    r = poll(&p, 1, 5000) == 1 && sock_error(fd) == 0 ? 0 : -1;
    (void)close(fd);
    return r;
}

static void listeners_of_another_namespace_are_seen_and_reached(void **state)
{
    struct portwatch_port *p = NULL;
    uint16_t port = 0, ours;
    int out[2], mine, result = -1;
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
        result = reaches(ns, &p[0].dial);
        assert_true(own_namespace() == home);
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

/* As an ordinary user's: the maker lives in a namespace that we could not enter and leave. */
static void maker_child(int sock, int out)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    uint16_t port = 0;
    int fd;

    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) {
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0 || listen_any(&port) < 0)
            port = 0;
    }
    (void)!write(out, &port, sizeof port); /* 0: it cannot be done here */
    _exit(netns_maker(sock) == 0 ? 0 : 1);
}

struct maker {
    pid_t pid;
    uint16_t port; /* what listens there */
    int fd;
};

static void maker_start(struct maker *m)
{
    int sock[2], out[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
    assert_int_equal(pipe(out), 0);
    m->pid = fork();
    assert_true(m->pid >= 0);
    if (m->pid == 0) {
        (void)close(sock[0]);
        maker_child(sock[1], out[1]);
    }
    (void)close(sock[1]);
    (void)close(out[1]);
    assert_int_equal(read(out[0], &m->port, sizeof m->port), sizeof m->port);
    (void)close(out[0]);
    m->fd = sock[0];
}

static int maker_end(struct maker *m)
{
    int status = -1;

    assert_int_equal(waitpid(m->pid, &status, 0), m->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_maker_hands_out_sockets_of_its_namespace(void **state)
{
    struct portwatch_port *p = NULL;
    struct maker m;
    struct netns *ns;
    struct err e = {0};
    char text[64];
    size_t n = 0;
    int fd;

    (void)state;
    maker_start(&m);
    if (m.port == 0) {
        (void)close(m.fd);
        (void)maker_end(&m);
        print_message("no user namespaces here\n");
        skip();
    }
    ns = netns_from_maker(&m.fd, &e);
    assert_non_null(ns);
    assert_int_equal(m.fd, -1);
    assert_int_equal(portwatch_list(ns, &p, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(p[0].port, m.port);
    assert_int_equal(reaches(ns, &p[0].dial), 0);
    mem_free(p);
    fd = netns_sysctl(ns, "ipv4/ip_local_port_range", &e);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text) > 0);
    (void)close(fd);
    /* What it has not is an error of that request only. */
    assert_int_equal(netns_sysctl(ns, "ipv4/nothing", &e), -1);
    assert_int_equal(e.sys, ENOENT);
    assert_int_equal(netns_socket(ns, AF_INET, SOCK_STREAM, 255, &e), -1);
    fd = netns_socket(ns, AF_INET6, SOCK_DGRAM, 0, &e);
    assert_true(fd >= 0 || e.sys == EAFNOSUPPORT);
    assert_true(fd < 0 || (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    assert_true(fd < 0 || (fcntl(fd, F_GETFL) & O_NONBLOCK));
    sock_close(&fd);
    netns_free(ns);
    assert_int_equal(maker_end(&m), 0);
}

static void a_maker_that_died_is_told(void **state)
{
    struct maker m;
    struct netns *ns;
    struct err e = {0};

    (void)state;
    maker_start(&m);
    ns = netns_from_maker(&m.fd, &e);
    assert_non_null(ns);
    assert_int_equal(kill(m.pid, SIGKILL), 0);
    assert_int_equal(maker_end(&m), -1);
    assert_int_equal(netns_socket(ns, AF_INET, SOCK_STREAM, 0, &e), -1);
    netns_free(ns);
}

static void only_internet_and_netlink_sockets_are_made(void **state)
{
    static const int bad[] = {AF_UNSPEC, AF_UNIX, AF_PACKET, AF_VSOCK};
    struct maker m;
    struct err e = {0};
    char junk[7] = {1};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(netns_socket(NULL, bad[i], SOCK_STREAM, 0, &e), -1);
        assert_int_equal(e.code, ERR_CONFIG);
    }
    assert_int_equal(netns_sysctl(NULL, "../kernel/hostname", &e), -1);
    assert_int_equal(netns_sysctl(NULL, "/etc/passwd", &e), -1);
    assert_int_equal(netns_sysctl(NULL, "", &e), -1);
    /* The maker holds the same rule for itself: what is no request ends it. */
    maker_start(&m);
    assert_int_equal(write(m.fd, junk, sizeof junk), sizeof junk);
    assert_int_equal(maker_end(&m), 1);
    (void)close(m.fd);
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
        cmocka_unit_test(a_maker_hands_out_sockets_of_its_namespace),
        cmocka_unit_test(a_maker_that_died_is_told),
        cmocka_unit_test(only_internet_and_netlink_sockets_are_made),
        cmocka_unit_test(what_is_no_namespace_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
