/* SPDX-License-Identifier: MIT */
#include "agentd/forward/process.h"

#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"

static uint64_t inode_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void a_socket_is_found_at_its_process(void **state)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct process p;
    uint64_t ino;

    (void)state;
    assert_true(fd >= 0);
    ino = inode_of(fd);
    assert_int_equal(prctl(PR_SET_NAME, "holder"), 0);
    process_lookup(&ino, 1, &p);
    assert_int_equal(p.pid, getpid());
    assert_string_equal(p.name, "holder");
    (void)close(fd);
    process_lookup(&ino, 1, &p);
    assert_int_equal(p.pid, 0);
    assert_string_equal(p.name, "");
}

static void a_shared_socket_belongs_to_the_parent(void **state)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), ready[2];
    struct process p;
    uint64_t ino;
    pid_t child;
    char c;

    (void)state;
    assert_true(fd >= 0);
    ino = inode_of(fd);
    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)!write(ready[1], "x", 1);
        (void)pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    process_lookup(&ino, 1, &p);
    assert_int_equal(p.pid, getpid() < child ? getpid() : child);
    (void)kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    (void)close(fd);
    (void)close(ready[0]);
    (void)close(ready[1]);
}

/* Names go to terminals: escape sequences in them must not. */
static void a_hostile_name_is_made_printable(void **state)
{
    char name[PROCESS_NAME_MAX + 1], was[16], exe[256];
    ssize_t n;

    (void)state;
    assert_int_equal(prctl(PR_GET_NAME, was), 0);
    assert_int_equal(prctl(PR_SET_NAME, "a\033[2Jb\n\"\x80"), 0);
    process_name(getpid(), name);
    assert_string_equal(name, "a?[2Jb?\"?");
    /* Node.js 22 and later; then the program's file names it */
    assert_int_equal(prctl(PR_SET_NAME, "MainThread"), 0);
    process_name(getpid(), name);
    n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    assert_true(n > 0);
    exe[n] = '\0';
    assert_non_null(strrchr(exe, '/'));
    assert_string_equal(name, strrchr(exe, '/') + 1);
    assert_int_equal(prctl(PR_SET_NAME, was), 0);
}

static void a_process_that_is_gone_has_no_name(void **state)
{
    char name[PROCESS_NAME_MAX + 1] = "x";
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0)
        _exit(0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    process_name(child, name);
    assert_string_equal(name, "");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_socket_is_found_at_its_process),
        cmocka_unit_test(a_shared_socket_belongs_to_the_parent),
        cmocka_unit_test(a_hostile_name_is_made_printable),
        cmocka_unit_test(a_process_that_is_gone_has_no_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
