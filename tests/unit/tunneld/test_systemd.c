/* SPDX-License-Identifier: MIT */
#include "tunneld/systemd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/notify.h"
#include "tests/support/test.h"

static void sockets_are_counted_only_when_they_are_for_us(void **state)
{
    static const struct {
        const char *pid, *fds;
        unsigned want;
    } row[] = {
        {"42", "1", 1},  {"42", "3", 3},  {"42", "33", SYSTEMD_FDS_MAX},
        {"42", NULL, 0}, {NULL, "1", 0},  {"43", "1", 0},
        {"42", "0", 0},  {"42", "-1", 0}, {"42", "1x", 0},
        {"42 ", "1", 0}, {"", "1", 0},    {"42", "", 0},
        {"42", "+1", 0}, {"42", " 1", 0}, {"42", "99999999999999999999", 0},
        {"042", "1", 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++)
        assert_int_equal(systemd_count(row[i].pid, row[i].fds, 42), row[i].want);
}

static int listening(const char *text)
{
    struct sock_addr a;
    struct err e = {0};
    int fd;

    assert_int_equal(sock_parse(text, &a, &e), 0);
    fd = sock_listen(&a, &e);
    assert_true(fd >= 0);
    return fd;
}

static void a_socket_is_taken_once_by_its_address(void **state)
{
    struct systemd_fds s = {.fd = {listening("127.0.0.1:0"), listening("127.0.0.1:0")},
                            .n = 2};
    int second = s.fd[1], fd;
    struct sock_addr a, other;

    (void)state;
    assert_int_equal(sock_local(second, &a), 0);
    assert_int_equal(sock_parse("127.0.0.2:1", &other, NULL), 0);
    assert_int_equal(systemd_fds_take(&s, &other), -1);
    fd = systemd_fds_take(&s, &a);
    assert_int_equal(fd, second);
    assert_int_equal(systemd_fds_take(&s, &a), -1);
    close(fd);
    systemd_fds_done(&s);
    assert_int_equal(s.n, 0);
}

static void a_socket_for_every_address_serves_one_of_them(void **state)
{
    struct systemd_fds s = {.fd = {listening("0.0.0.0:0")}, .n = 1};
    struct sock_addr a, wanted;
    int fd;

    (void)state;
    assert_int_equal(sock_local(s.fd[0], &a), 0);
    assert_int_equal(sock_parse("127.0.0.1:0", &wanted, NULL), 0);
    wanted.u.in.sin_port = a.u.in.sin_port;
    fd = systemd_fds_take(&s, &wanted);
    assert_true(fd >= 0);
    close(fd);
    systemd_fds_done(&s);
}

static void a_notification_is_one_datagram(void **state)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/test_systemd.XXXXXX", got[64];
    ssize_t n;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(to.sun_path, sizeof to.sun_path, "%s/s", dir);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&to, sizeof to), 0);
    setenv("NOTIFY_SOCKET", to.sun_path, 1);
    assert_int_equal(notify_systemd("READY=1", NULL), 0);
    n = recv(fd, got, sizeof got, MSG_DONTWAIT);
    assert_int_equal(n, 7);
    assert_memory_equal(got, "READY=1", 7);
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify_systemd("READY=1", NULL), -1);
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_systemd("READY=1", NULL), 0);
    close(fd);
    unlink(to.sun_path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets_are_counted_only_when_they_are_for_us),
        cmocka_unit_test(a_socket_is_taken_once_by_its_address),
        cmocka_unit_test(a_socket_for_every_address_serves_one_of_them),
        cmocka_unit_test(a_notification_is_one_datagram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
