/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/asker.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

static void one_id_is_outside(void **state)
{
    static const struct {
        const char *text;
        bool is_outside;
    } rows[] = {
        {"Name:\tx\nNSpid:\t12\nVmPeak:\t1\n", true},
        {"Name:\tx\nNSpid:\t12", true},
        {"Name:\tx\nNSpid:\t12\t3\n", false},
        {"Name:\tx\nNSpid:\t12\t3\t1\n", false},
        {"Name:\tx\nNSpid:\t\n", false},
        {"Name:\tx\nNSpid:\t12\tx\n", false},
        {"Name:\tNSpid:\t12\n", false},
        {"", false},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++)
        if (asker_status_is_outside(span_str(rows[i].text)) != rows[i].is_outside)
            fail_msg("row %zu: %s", i, rows[i].text);
}

static int connect_to(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof *a) == 0 ? fd : -1;
}

/* One process of a pid namespace of its own that connects, tells so, and stays. */
static void inside(const struct sockaddr_un *a, int out)
{
    char byte = 'n';
    pid_t pid;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWPID) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0)
        goto no;
    pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (connect_to(a) >= 0)
            byte = 'y';
        (void)!write(out, &byte, 1);
        (void)pause();
        _exit(0);
    }
    (void)waitpid(pid, NULL, 0);
    _exit(0);
no:
    (void)!write(out, &byte, 1);
    _exit(0);
}

static void who_connects_from_a_pid_namespace_is_inside(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), out[2], fd, mine;
    char byte = 0;
    pid_t pid;

    (void)state;
    (void)snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "egress-peer-%ld",
                   (long)getpid());
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 4), 0);
    mine = connect_to(&a);
    assert_true(mine >= 0);
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_true(asker_is_outside(fd));
    (void)close(fd);
    (void)close(mine);
    assert_int_equal(pipe(out), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        inside(&a, out[1]);
    assert_int_equal(read(out[0], &byte, 1), 1);
    (void)close(out[0]);
    (void)close(out[1]);
    fd = byte == 'y' ? accept(listener, NULL, NULL) : -1;
    if (fd >= 0) {
        assert_false(asker_is_outside(fd));
        (void)close(fd);
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)close(listener);
    if (byte != 'y') {
        print_message("no pid namespaces here\n");
        skip();
    }
}

static void who_is_gone_is_not_outside(void **state)
{
    pid_t pid;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

    (void)state;
    (void)snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "egress-gone-%ld",
                   (long)getpid());
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 4), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(connect_to(&a) >= 0 ? 0 : 1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_false(asker_is_outside(fd));
    (void)close(fd);
    (void)close(listener);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_id_is_outside),
        cmocka_unit_test(who_connects_from_a_pid_namespace_is_inside),
        cmocka_unit_test(who_is_gone_is_not_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
