/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/streams.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

static void expect_and_close(int fd, const char *refusal)
{
    struct err e = {0};
    int r;

    assert_true(fd >= 0);
    r = stream_check(fd, &e);
    (void)close(fd);
    if (!refusal && r < 0)
        fail_msg("refused: %s", e.msg);
    if (refusal && (r == 0 || e.code != ERR_DENIED || !strstr(e.msg, refusal)))
        fail_msg("wanted \"%s\": %d %s", refusal, r, r < 0 ? e.msg : "");
}

static void files_pipes_and_terminals_may(void **state)
{
    int p[2];

    (void)state;
    expect_and_close(open("/dev/null", O_RDWR | O_CLOEXEC), NULL);
    expect_and_close(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), NULL);
    expect_and_close(memfd_create("streams", MFD_CLOEXEC), NULL);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    expect_and_close(p[0], NULL);
    expect_and_close(p[1], NULL);
    expect_and_close(open("/dev/ptmx", O_RDWR | O_CLOEXEC | O_NOCTTY), NULL);
}

static void one_that_is_closed_may(void **state)
{
    struct err e;
    int fd = dup(0);

    (void)state;
    (void)close(fd);
    assert_int_equal(stream_check(fd, &e), 0);
}

static void connected_local_streams_may(void **state)
{
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
    int p[2];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        assert_int_equal(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, p), 0);
        expect_and_close(p[0], NULL);
        expect_and_close(p[1],
                         NULL); /* its other end is gone, it is connected all the same */
    }
}

static void what_could_be_connected_anew_may_not(void **state)
{
    static const struct {
        int family, type;
        const char *refusal;
    } rows[] = {
        {AF_INET, SOCK_STREAM, "network outside"},
        {AF_INET, SOCK_DGRAM, "network outside"},
        {AF_INET6, SOCK_STREAM, "network outside"},
        {AF_INET6, SOCK_DGRAM, "network outside"},
        {AF_NETLINK, SOCK_RAW, "network outside"},
        {AF_UNIX, SOCK_STREAM, "not connected"},
        {AF_UNIX, SOCK_SEQPACKET, "not connected"},
        {AF_UNIX, SOCK_DGRAM, "not connected"},
    };
    int p[2];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        expect_and_close(socket(rows[i].family, rows[i].type | SOCK_CLOEXEC, 0),
                         rows[i].refusal);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, p), 0);
    expect_and_close(p[0], "not connected");
    (void)close(p[1]);
}

static void a_tcp_connection_may_not(void **state)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof a;

    (void)state;
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    expect_and_close(fd, "network outside");
    expect_and_close(listener, "network outside");
}

static void what_is_no_stream_may_not(void **state)
{
    (void)state;
    expect_and_close(open("/", O_RDONLY | O_CLOEXEC), "folder");
    expect_and_close(open("/", O_PATH | O_CLOEXEC), "folder");
    expect_and_close(epoll_create1(EPOLL_CLOEXEC), "nothing that is read");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_pipes_and_terminals_may),
        cmocka_unit_test(one_that_is_closed_may),
        cmocka_unit_test(connected_local_streams_may),
        cmocka_unit_test(what_could_be_connected_anew_may_not),
        cmocka_unit_test(a_tcp_connection_may_not),
        cmocka_unit_test(what_is_no_stream_may_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
