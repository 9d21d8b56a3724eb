/* SPDX-License-Identifier: MIT */
#include "common/file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

enum {
    MAX = 40000 /* more than one step, and no multiple of it */
};

static int file_of(size_t len)
{
    static uint8_t bytes[MAX + 1];
    int fd = memfd_create("file", MFD_CLOEXEC);

    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 7);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void a_file_is_read_to_its_end_when_it_is_no_longer_than_the_bound(void **state)
{
    static const size_t good[] = {0, 1, 16384, 16385, MAX - 1, MAX};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        AUTO(buf_done)
        struct buf b = BUF_INIT;
        struct err e = {0};
        int fd = file_of(good[i]);

        assert_int_equal(file_read(fd, "it", MAX, &b, &e), 0);
        assert_int_equal(b.len, good[i]);
        for (size_t k = 0; k < b.len; k++)
            assert_int_equal(b.p[k], (uint8_t)(k * 7));
        (void)close(fd);
    }
}

static void one_byte_more_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    int fd = file_of(MAX + 1);

    (void)state;
    assert_int_equal(file_read(fd, "it", MAX, &b, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_string_equal(e.msg, "it has more than 40000 bytes");
    (void)close(fd);
}

static void bytes_that_are_there_count(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    int fd = file_of(10);

    (void)state;
    assert_int_equal(buf_adds(&b, "before"), 0);
    assert_int_equal(file_read(fd, "it", 16, &b, &e), 0);
    assert_int_equal(b.len, 16);
    assert_memory_equal(b.p, "before", 6);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(file_read(fd, "it", 25, &b, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    (void)close(fd);
}

static void what_cannot_be_read_is_named(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_int_equal(file_read(fd, "the root", MAX, &b, &e), -1);
    assert_int_equal(e.code, ERR_SYS);
    assert_non_null(strstr(e.msg, "read the root"));
    (void)close(fd);
}

static int read_it(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    int fd = file_of(MAX), rc = file_read(fd, "it", MAX, &b, &e);

    (void)close(fd);
    assert_true(rc == 0 || e.code == ERR_NOMEM);
    return rc;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(read_it());
}

static void folders_above_a_path_are_made_and_not_the_path(void **state)
{
    char dir[] = "/tmp/test_file.XXXXXX", path[64], folder[64];
    struct err e = {0};
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/a/b/c", dir);
    (void)snprintf(folder, sizeof folder, "%s/a/b", dir);
    for (int i = 0; i < 2; i++) { /* and once more, when they are there */
        assert_int_equal(file_make_parents(path, 0700, &e), 0);
        assert_int_equal(stat(folder, &st), 0);
        assert_true(S_ISDIR(st.st_mode));
        assert_int_equal(st.st_mode & 07777, 0700);
        assert_int_equal(access(path, F_OK), -1);
    }
    assert_int_equal(chmod(folder, 0500), 0);
    assert_int_equal(file_make_parents(path, 0755, &e), 0);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0500); /* as it was */
    assert_int_equal(rmdir(folder), 0);
    (void)snprintf(folder, sizeof folder, "%s/a", dir);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void where_no_folder_can_be_the_first_that_failed_is_named(void **state)
{
    static char longer[PATH_MAX + 8];
    struct err e = {0};

    (void)state;
    assert_int_equal(file_make_parents("/proc/self/x/y", 0700, &e), -1);
    assert_int_equal(e.code, ERR_SYS);
    assert_non_null(strstr(e.msg, "make folder /proc/self/x: "));
    assert_int_equal(file_make_parents("/proc/self/status/y/z", 0700, &e), -1);
    assert_int_equal(file_make_parents("/sys/kernel/y", 0700, &e), 0); /* it is there */
    assert_int_equal(file_make_parents("/", 0700, &e), 0);
    assert_int_equal(file_make_parents("", 0700, &e), 0);
    memset(longer, 'x', sizeof longer - 1);
    longer[0] = longer[sizeof longer - 2] = '/';
    assert_int_equal(file_make_parents(longer, 0700, &e), -1);
    assert_int_equal(e.code, ERR_CONFIG);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_to_its_end_when_it_is_no_longer_than_the_bound),
        cmocka_unit_test(one_byte_more_is_refused),
        cmocka_unit_test(bytes_that_are_there_count),
        cmocka_unit_test(what_cannot_be_read_is_named),
        cmocka_unit_test(every_allocation_failure_is_clean),
        cmocka_unit_test(folders_above_a_path_are_made_and_not_the_path),
        cmocka_unit_test(where_no_folder_can_be_the_first_that_failed_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
