/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

static void ranges_that_subuid_gives_away_are_seen(void **state)
{
    static const struct {
        const char *text;
        bool is_given;
    } rows[] = {
        {"", false},
        {"alice:100000:65536\n", false},
        {"alice:1000:65536", true},
        {"alice:1999:1\n", true},
        {"alice:2000:1\n", false},
        {"alice:0:1000\n", false},
        {"alice:0:1001\n", true},
        {"a:5:5\nbob:1500:10\n", true},
        {"#bob:1500:10\n", false},
        {"bob:1500\n", false},
        {"bob:1500:\n", false},
        {"bob:x:10\nbob:1500:10\n", true},
        {"bob:1500:4294967295\n", true},
        {"bob:99999999999999999999:1\n", false},
        {"\n\n:1500:10\n", true},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        if (userns_is_given(span_str(rows[i].text), 1000, 1000) != rows[i].is_given)
            print_message("row %zu: %s\n", i, rows[i].text);
        assert_int_equal(userns_is_given(span_str(rows[i].text), 1000, 1000),
                         rows[i].is_given);
    }
}

static void remove_all(const struct userns_range *r, size_t n, const char *path)
{
    char file[128];
    size_t i;

    for (i = 0; i < n; i++) {
        (void)snprintf(file, sizeof file, "%s/%u.lock", path, r[i].guard - USERNS_GUARD);
        (void)unlink(file);
    }
    (void)rmdir(path);
}

static void siblings_get_ranges_of_their_own(void **state)
{
    static const char *const names[] = {"one", "two", "one", "one"};
    struct userns_range r[COUNT_OF(names)];
    char path[] = "/tmp/egress-ids-XXXXXX", locks[64];
    struct stat st;
    struct err e = {0};
    size_t i, k;

    (void)state;
    assert_non_null(mkdtemp(path));
    (void)snprintf(locks, sizeof locks, "%s/ids", path);
    for (i = 0; i < COUNT_OF(names); i++) {
        assert_int_equal(userns_range_take(names[i], locks, &r[i], &e), 0);
        assert_true(r[i].first >= USERNS_FIRST);
        assert_true(r[i].first + (USERNS_COUNT - 1) < USERNS_GUARD);
        assert_true(r[i].guard >= USERNS_GUARD);
        for (k = 0; k < i; k++) {
            assert_true(r[k].first != r[i].first);
            assert_true(r[k].guard != r[i].guard);
        }
    }
    assert_int_equal(stat(locks, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    /* One that ended is given again, to its name first. */
    k = r[0].first;
    userns_range_done(&r[0]);
    assert_int_equal(r[0].lock, -1);
    assert_int_equal(r[0].first, 0);
    assert_int_equal(userns_range_take("one", locks, &r[0], &e), 0);
    assert_int_equal(r[0].first, k);
    for (i = 0; i < COUNT_OF(names); i++) {
        (void)close(r[i].lock); /* nothing was written */
    }
    remove_all(r, COUNT_OF(names), locks);
    assert_int_equal(rmdir(path), 0);
}

/* -- locks that are left ------------------------------------------------------------- */

static char *slot_path(char out[128], const char *locks, uint32_t slot)
{
    (void)snprintf(out, 128, "%s/%u.lock", locks, slot);
    return out;
}

static void locks_of_who_ended_are_removed_and_others_stay(void **state)
{
    char path[] = "/tmp/egress-ids-XXXXXX", left[128], held[128], other[128], mine[128];
    struct userns_range r = {.lock = -1}, again = {.lock = -1};
    struct err e = {0};
    int fd, copy;

    (void)state;
    assert_non_null(mkdtemp(path));
    (void)close(open(slot_path(left, path, 4079), O_CREAT | O_RDWR, 0600));
    fd = open(slot_path(held, path, 4078), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    (void)close(open(slot_path(other, path, 4080), O_CREAT | O_RDWR, 0600)); /* no slot */

    assert_int_equal(userns_range_take("x", path, &r, &e), 0);
    assert_int_equal(access(left, F_OK), -1);
    assert_int_equal(access(held, F_OK), 0);
    assert_int_equal(access(other, F_OK), 0);

    /* A child that goes on holds it, and keeps the range. */
    slot_path(mine, path, r.guard - USERNS_GUARD);
    assert_int_equal(access(mine, F_OK), 0);
    copy = dup(r.lock);
    userns_range_done(&r);
    assert_int_equal(access(mine, F_OK), 0);
    assert_int_equal(userns_range_take("x", path, &again, &e), 0);
    assert_true(strcmp(slot_path(left, path, again.guard - USERNS_GUARD), mine) != 0);
    userns_range_done(&again);
    assert_int_equal(access(left, F_OK), -1);
    (void)close(copy);
    assert_int_equal(userns_range_take("x", path, &again, &e), 0);
    assert_string_equal(slot_path(left, path, again.guard - USERNS_GUARD), mine);
    userns_range_done(&again);
    assert_int_equal(access(mine, F_OK), -1);
    (void)close(fd);
    (void)unlink(held);
    (void)unlink(other);
    assert_int_equal(rmdir(path), 0);
}

/* Each takes and gives back the same range without end; that one has it alone is told by
 * a file that only one can make. */
static int take_and_give(const char *path, unsigned times)
{
    struct userns_range r;
    char alone[160];
    int fd;

    while (times-- > 0) {
        if (userns_range_take("x", path, &r, NULL) < 0)
            return 1;
        (void)snprintf(alone, sizeof alone, "%s/alone-%u", path, r.guard - USERNS_GUARD);
        fd = open(alone, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0)
            return 2;
        (void)close(fd);
        if (unlink(alone) < 0)
            return 3;
        userns_range_done(&r);
    }
    return 0;
}

static void a_range_is_one_owners_while_locks_come_and_go(void **state)
{
    char path[] = "/tmp/egress-ids-XXXXXX";
    pid_t pid[4];
    int status;

    (void)state;
    assert_non_null(mkdtemp(path));
    for (unsigned i = 0; i < COUNT_OF(pid); i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            _exit(take_and_give(path, 2000));
    }
    for (unsigned i = 0; i < COUNT_OF(pid); i++) {
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(rmdir(path), 0); /* nothing is left */
}

static void a_folder_that_cannot_be_made_is_told(void **state)
{
    struct userns_range r;
    struct err e = {0};

    (void)state;
    assert_int_equal(userns_range_take("x", "/proc/nothing/ids", &r, &e), -1);
    assert_int_equal(e.code, ERR_SYS);
    assert_non_null(strstr(e.msg, "/proc/nothing"));
}

/* 0, or the line of what failed. */
static int enter_as_a_user(void)
{
    unsigned long in = 1, out = 1, n = 0;
    struct err e = {0};
    FILE *f;
    int got;

    if (userns_is_host_root() &&
        (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
        return __LINE__;
    (void)prctl(PR_SET_DUMPABLE, 1);
    if (userns_is_host_root())
        return __LINE__;
    if (userns_enter(&e) < 0) {
        (void)printf("%s\n", e.msg);
        return 77;
    }
    f = fopen("/proc/self/uid_map", "re");
    got = f ? fscanf(f, "%lu %lu %lu", &in, &out, &n) : 0;
    if (got != 3 || in != getuid() || n != 1)
        return __LINE__;
    /* Now with the capabilities there, and only there. */
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
        return __LINE__;
    return userns_is_host_root() ? __LINE__ : 0;
}

static void a_user_gets_a_namespace_with_his_own_id(void **state)
{
    int status = -1;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(enter_as_a_user() & 0xff);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no user namespaces for ordinary users here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_refusal_says_what_was_tried(void **state)
{
    struct err e = {0};

    (void)state;
    errno = EPERM;
    assert_int_equal(userns_refused("make a thing", &e), -1);
    assert_int_equal(e.sys, EPERM);
    assert_non_null(strstr(e.msg, "make a thing ("));
    errno = ENOSPC;
    assert_int_equal(userns_refused("make a thing", &e), -1);
    assert_int_equal(e.sys, ENOSPC);
    assert_non_null(strstr(e.msg, "max_"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_that_subuid_gives_away_are_seen),
        cmocka_unit_test(siblings_get_ranges_of_their_own),
        cmocka_unit_test(locks_of_who_ended_are_removed_and_others_stay),
        cmocka_unit_test(a_range_is_one_owners_while_locks_come_and_go),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_told),
        cmocka_unit_test(a_user_gets_a_namespace_with_his_own_id),
        cmocka_unit_test(a_refusal_says_what_was_tried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
