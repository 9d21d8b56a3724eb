/* SPDX-License-Identifier: MIT */
/* Its life, and that nothing of it outlives what it hangs on. */
#include "agentd/egress/keeper/sandbox.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "tests/support/boxed.h"
#include "tests/support/test.h"

static void root_is_mapped_and_others_keep_their_ids(void **state)
{
    static struct boxed_result r;
    unsigned long in, out, n;
    unsigned uid, gid;

    EACH_MODE(m, state)
    {
        boxed_run(
            &(struct boxed){.mode = m, .script = "id -u; id -g; cat /proc/self/uid_map"},
            &r);
        assert_int_equal(sscanf(r.out, "%u %u %lu %lu %lu", &uid, &gid, &in, &out, &n),
                         5);
        if (m == BOXED_ROOT) {
            assert_int_equal(uid, 0);
            assert_int_equal(gid, 0);
            assert_int_equal(in, 0);
            assert_true(out >= USERNS_FIRST && out < USERNS_GUARD);
            assert_int_equal(n, USERNS_COUNT);
            continue;
        }
        assert_int_equal(uid, getuid() ? getuid() : BOXED_NOBODY);
        assert_int_equal(gid, getuid() ? getgid() : BOXED_NOBODY);
        assert_int_equal(in, uid);
        assert_int_equal(n, 1);
    }
}

/* -- signals and ends ---------------------------------------------------------------- */

static void a_signal_reaches_the_command(void **state)
{
    static struct boxed_result r;
    pid_t pid;
    int out;

    EACH_MODE(m, state)
    {
        pid = boxed_start(
            &(struct boxed){.mode = m,
                            .script =
                                "trap 'echo got; exit 5' TERM; echo ready; while :; "
                                "do sleep 100 & wait; done"},
            &out);
        assert_true(boxed_read_until(out, "ready\n", r.out));
        assert_int_equal(kill(pid, SIGTERM), 0);
        assert_true(boxed_read_until(out, NULL, r.out));
        assert_string_equal(r.out, "got\n");
        (void)close(out);
        assert_int_equal(boxed_code(pid), 5);
    }
}

/* The pipe ends only when each process that has it is gone. */
static void all_ends_with_the_supervisor(void **state)
{
    static struct boxed_result r;
    pid_t pid;
    int out;

    EACH_MODE(m, state)
    {
        pid = boxed_start(
            &(struct boxed){.mode = m,
                            .script = "setsid sleep 1000 & echo ready; sleep 1000"},
            &out);
        assert_true(boxed_read_until(out, "ready\n", r.out));
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_true(boxed_read_until(out, NULL, r.out));
        (void)close(out);
        assert_int_equal(boxed_code(pid), 128 + SIGKILL);
    }
}

static void all_ends_with_the_stage(void **state)
{
    static struct boxed_result r;
    long stage = 0;
    pid_t pid;
    int out;

    EACH_MODE(m, state)
    {
        pid = boxed_start(&(struct boxed){.mode = m,
                                          .script =
                                              "setsid sleep 1000 & sleep 1; echo ready; "
                                              "sleep 1000",
                                          .tells_stage = true},
                          &out);
        assert_true(boxed_read_until(out, "ready\n", r.out));
        assert_int_equal(sscanf(r.out, "stage %ld", &stage), 1);
        assert_int_equal(kill((pid_t)stage, SIGKILL), 0);
        assert_true(boxed_read_until(out, NULL, r.out));
        (void)close(out);
        assert_int_equal(boxed_code(pid), 128 + SIGKILL);
    }
}

static void what_the_command_leaves_behind_ends_with_it(void **state)
{
    static struct boxed_result r;

    EACH_MODE(m, state)
    {
        boxed_run(
            &(struct boxed){.mode = m,
                            .script = "setsid sleep 1000 & (sleep 1000 &) ; exit 3"},
            &r);
        assert_int_equal(r.code, 3);
    }
}

/* -- sockets ------------------------------------------------------------------------- */

/* In the child of a test: a maker's sockets are in the sandbox, not here. */
static _Noreturn void use_maker(enum boxed_mode mode)
{
    char *const shell[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char[]){"cat"}, NULL};
    struct userns_range range = {.lock = -1};
    struct sandbox_conf conf = {.makers = 2, .command = shell};
    char mine[64] = "", its[64] = "", path[64];
    struct err e = {0};
    struct sandbox *s;
    struct netns *ns;
    int maker, fd;

    if (boxed_become(mode, &range, &e) < 0)
        _exit(1);
    conf.uid = getuid();
    conf.gid = getgid();
    conf.first_id = range.first;
    s = sandbox_new(&conf, &e);
    if (!s)
        _exit(2);
    maker = sandbox_maker(s);
    ns = netns_from_maker(&maker, &e);
    if (!ns || sandbox_maker(s) < 0 || sandbox_maker(s) >= 0)
        _exit(3);
    fd = netns_socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, &e);
    if (fd < 0 || netns_socket(ns, AF_INET, SOCK_STREAM, 0, &e) < 0)
        _exit(4);
    (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)sandbox_pid(s));
    if (readlink(path, its, sizeof its - 1) <= 0 ||
        readlink("/proc/self/ns/net", mine, sizeof mine - 1) <= 0 || !strcmp(mine, its))
        _exit(5);
    netns_free(ns);
    sandbox_free(s); /* never started: ends all the same */
    _exit(0);
}

static void a_maker_gives_sockets_of_the_sandbox(void **state)
{
    pid_t pid;

    EACH_MODE(m, state)
    {
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            use_maker(m);
        assert_int_equal(boxed_code(pid), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(root_is_mapped_and_others_keep_their_ids),
        cmocka_unit_test(a_signal_reaches_the_command),
        cmocka_unit_test(all_ends_with_the_supervisor),
        cmocka_unit_test(all_ends_with_the_stage),
        cmocka_unit_test(what_the_command_leaves_behind_ends_with_it),
        cmocka_unit_test(a_maker_gives_sockets_of_the_sandbox),
    };

    return cmocka_run_group_tests(tests, boxed_find_modes, NULL);
}
