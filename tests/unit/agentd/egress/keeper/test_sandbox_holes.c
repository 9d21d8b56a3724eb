/* SPDX-License-Identifier: MIT */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "tests/support/boxed.h"
#include "tests/support/test.h"

/* A socket with a name in /run or /tmp, by which programs outside can be spoken to. */
static void sockets_with_names_are_covered(void **state)
{
    static const char *const in[] = {"/tmp", "/run"};
    static struct boxed_result r;
    size_t i;
    int fd;

    EACH_MODE(m, state)
    {
        for (i = 0; i < COUNT_OF(in); i++) {
            char at[64], script[96];

            (void)snprintf(at, sizeof at, "%s/egress-test-%ld", in[i], (long)getpid());
            fd = boxed_listen(at, false);
            if (fd < 0) { /* /run is root's */
                assert_true(i > 0 && getuid() != 0);
                continue;
            }
            (void)snprintf(script, sizeof script, "test -e %s || echo none", at);
            boxed_run(&(struct boxed){.mode = m, .script = script}, &r);
            assert_string_equal(r.out, "none\n");
            (void)close(fd);
            (void)unlink(at);
        }
    }
}

/* Elsewhere they are covered too, unless they are asked for. */
static void sockets_elsewhere_are_covered_but_for_bind(void **state)
{
    char name[64], script[256];
    static struct boxed_result r;
    int fd, second;

    (void)snprintf(name, sizeof name, "/var/tmp/egress-test-%ld", (long)getpid());
    (void)snprintf(script, sizeof script,
                   "test -S %s && echo socket; test -e %s && echo there", name, name);
    EACH_MODE(m, state)
    {
        fd = boxed_listen(name, false);
        assert_true(fd >= 0);
        boxed_run(&(struct boxed){.mode = m, .script = script}, &r);
        assert_string_equal(r.out, "there\n");
        assert_int_equal(boxed_connect(name, false), 0); /* for others it is as it was */
        boxed_run(
            &(struct boxed){.mode = m, .script = script, .bind = {name}, .n_bind = 1},
            &r);
        assert_string_equal(r.out, "socket\nthere\n");
        boxed_run(
            &(struct boxed){
                .mode = m, .script = script, .bind = {"/var/tmp"}, .n_bind = 1},
            &r);
        assert_string_equal(r.out, "socket\nthere\n");
        (void)close(fd);
        (void)unlink(name);
        /* One that only sends datagrams has nobody listening, and is spoken to
         * all the same. */
        second = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", name);
        assert_int_equal(bind(second, (struct sockaddr *)&a, sizeof a), 0);
        boxed_run(&(struct boxed){.mode = m, .script = script}, &r);
        assert_string_equal(r.out, "there\n");
        (void)close(second);
        (void)unlink(name);
    }
}

/* Makes and removes sockets without pause. */
static pid_t start_churn(const char *stem)
{
    pid_t parent = getpid(), pid = fork();
    char name[80];

    if (pid != 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = 0; getppid() == parent; i = (i + 1) % 64) {
        int fd;

        (void)snprintf(name, sizeof name, "%s-%u", stem, i);
        (void)unlink(name);
        fd = boxed_listen(name, false);
        if (fd >= 3)
            (void)dup2(fd, 100 + (int)i); /* it stands until the next round */
        (void)close(fd);
    }
    _exit(0);
}

static void a_socket_that_goes_meanwhile_is_no_fault(void **state)
{
    enum {
        ROUNDS = 30
    };
    static struct boxed_result r;
    char stem[64], name[80];
    pid_t pid;

    (void)snprintf(stem, sizeof stem, "/var/tmp/egress-churn-%ld", (long)getpid());
    pid = start_churn(stem);
    assert_true(pid > 0);
    EACH_MODE(m, state)
    {
        for (unsigned i = 0; i < ROUNDS; i++) {
            boxed_run(&(struct boxed){.mode = m, .script = "echo made"}, &r);
            if (strcmp(r.out, "made\n") != 0)
                break;
        }
        if (strcmp(r.out, "made\n") != 0)
            break;
    }
    (void)kill(pid, SIGKILL); /* ours, and not waited for yet */
    (void)waitpid(pid, NULL, 0);
    for (unsigned i = 0; i < 64; i++) {
        (void)snprintf(name, sizeof name, "%s-%u", stem, i);
        (void)unlink(name);
    }
    assert_string_equal(r.out, "made\n");
}

static void runtime_folder(long test, char *ret, size_t cap)
{
    (void)snprintf(ret, cap, "/var/tmp/egress-xdg-%ld", test);
}

static void with_an_odd_runtime_folder(void)
{
    char dir[64], there[80];
    int fd;

    runtime_folder(getppid(), dir, sizeof dir);
    (void)mkdir(dir, 0755);
    (void)snprintf(there, sizeof there, "%s/there", dir);
    fd = open(there, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    (void)close(fd);
    (void)setenv("XDG_RUNTIME_DIR", dir, 1);
}

static void the_runtime_folder_is_private_wherever_it_is(void **state)
{
    static struct boxed_result r;
    char dir[64], there[80];

    EACH_MODE(m, state)
    {
        boxed_run(&(struct boxed){.mode = m,
                                  .script = "ls -A $XDG_RUNTIME_DIR; touch "
                                            "$XDG_RUNTIME_DIR/x && ls $XDG_RUNTIME_DIR",
                                  .before = with_an_odd_runtime_folder},
                  &r);
        assert_string_equal(r.out, "x\n");
    }
    runtime_folder(getpid(), dir, sizeof dir);
    (void)snprintf(there, sizeof there, "%s/there", dir);
    assert_int_equal(unlink(there), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* The policy, in a folder that COMMAND may write. */
static void a_fixed_file_cannot_be_changed_inside(void **state)
{
    static struct boxed_result r;
    char dir[64], path[80], script[256];
    int fd;

    (void)snprintf(dir, sizeof dir, "/var/tmp/egress-fixed-%ld", (long)getpid());
    (void)snprintf(path, sizeof path, "%s/policy", dir);
    (void)snprintf(script, sizeof script,
                   "cd %s; (echo new >policy) 2>/dev/null; rm -f policy 2>/dev/null; "
                   "mv policy x 2>/dev/null; cat policy; ls",
                   dir);
    EACH_MODE(m, state)
    {
        assert_int_equal(mkdir(dir, 0755), 0);
        assert_int_equal(chmod(dir, 0777), 0);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        assert_int_equal(write(fd, "old\n", 4), 4);
        assert_int_equal(fchmod(fd, 0666), 0);
        (void)close(fd);
        boxed_run(&(struct boxed){.mode = m, .script = script, .fixed = path}, &r);
        (void)unlink(path);
        assert_int_equal(rmdir(dir), 0);
        assert_string_equal(r.out, "old\npolicy\n");
    }
}

/* As a chroot's: with it the host's processes would be seen. */
static void with_another_proc(void)
{
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755") < 0 ||
        mkdir("/mnt/a b", 0755) < 0 || mount("proc", "/mnt/a b", "proc", 0, NULL) < 0)
        _exit(1);
}

static void another_proc_is_covered(void **state)
{
    static struct boxed_result r;

    if (getuid() != 0) {
        print_message("mounting needs root\n");
        skip();
    }
    EACH_MODE(m, state)
    {
        boxed_run(
            &(struct boxed){.mode = m,
                            .script =
                                "ls -A '/mnt/a b'; test -d '/mnt/a b' && echo empty",
                            .before = with_another_proc},
            &r);
        assert_string_equal(r.out, "empty\n");
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets_with_names_are_covered),
        cmocka_unit_test(sockets_elsewhere_are_covered_but_for_bind),
        cmocka_unit_test(a_socket_that_goes_meanwhile_is_no_fault),
        cmocka_unit_test(the_runtime_folder_is_private_wherever_it_is),
        cmocka_unit_test(a_fixed_file_cannot_be_changed_inside),
        cmocka_unit_test(another_proc_is_covered),
    };

    return cmocka_run_group_tests(tests, boxed_find_modes, NULL);
}
