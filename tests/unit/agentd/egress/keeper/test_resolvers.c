/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/resolvers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/test.h"

static const struct {
    const char *file, *want;
} rows[] = {
    {"nameserver 192.0.2.53\n", "192.0.2.53:53"},
    {"nameserver 127.0.0.53", "127.0.0.53:53"},
    {"nameserver\t2001:db8::53 \n", "[2001:db8::53]:53"},
    {"# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nnameserver 192.0.2.3\n",
     "192.0.2.3:53"},
    {"search example.com\nnameserver 192.0.2.1\r\nnameserver 192.0.2.2\noptions rotate\n",
     "192.0.2.1:53,192.0.2.2:53"},
    {"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver "
     "192.0.2.4\nnameserver 192.0.2.5\n",
     "192.0.2.1:53,192.0.2.2:53,192.0.2.3:53,192.0.2.4:53"},
    {"nameserver 192.0.2.1 what follows is passed over\n", "192.0.2.1:53"},
    {"nameserver 010.0.0.1\nnameserver 192.0.2.9\n", "192.0.2.9:53"},
    {"nameserver fe80::1%eth0\nnameserver 192.0.2.9\n", "192.0.2.9:53"},
    {"nameserver [::1]\n", "127.0.0.1:53"},
    {"nameserver192.0.2.1\n", "127.0.0.1:53"},
    {" nameserver 192.0.2.1\n", "127.0.0.1:53"},
    {"nameserver\n", "127.0.0.1:53"},
    {"nameserver 192.0.2.256\n", "127.0.0.1:53"},
    {"nameserver resolver.example\n", "127.0.0.1:53"},
    {"", "127.0.0.1:53"},
    {"\n\n\n", "127.0.0.1:53"},
};

static void addresses_in_canonical_form_are_taken_and_nothing_else(void **state)
{
    char got[RESOLVERS_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        resolvers_parse(span_str(rows[i].file), got);
        assert_string_equal(got, rows[i].want);
    }
}

static void every_cut_of_a_file_is_read_without_fault(void **state)
{
    static const char file[] = "nameserver 2001:db8:1111:2222:3333:4444:5555:6666\n"
                               "nameserver 2001:db8:1111:2222:3333:4444:5555:6667\n"
                               "nameserver 2001:db8:1111:2222:3333:4444:5555:6668\n"
                               "nameserver 2001:db8:1111:2222:3333:4444:5555:6669\n";
    char got[RESOLVERS_TEXT_MAX];

    (void)state;
    for (size_t n = 0; n <= sizeof file - 1; n++) {
        char *copy = malloc(n + 1); /* its end is the buffer's, for the sanitizers */

        assert_non_null(copy);
        memcpy(copy, file, n);
        resolvers_parse(span_of(copy, n), got);
        assert_true(strlen(got) < sizeof got);
        free(copy);
    }
    assert_non_null(strstr(got, "6669]:53"));
}

static void a_file_that_is_not_there_names_the_loopback(void **state)
{
    char got[RESOLVERS_TEXT_MAX];

    (void)state;
    assert_int_equal(resolvers_read("/nonexistent/resolv.conf", got, NULL), 0);
    assert_string_equal(got, "127.0.0.1:53");
}

static void a_file_that_is_too_long_is_an_error(void **state)
{
    char path[] = "/tmp/test_resolversXXXXXX", got[RESOLVERS_TEXT_MAX];
    int fd = mkstemp(path);
    struct err e = {0};

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "nameserver 192.0.2.1\n", 21), 21);
    assert_int_equal(resolvers_read(path, got, &e), 0);
    assert_string_equal(got, "192.0.2.1:53");
    assert_int_equal(ftruncate(fd, RESOLVERS_FILE_MAX + 1), 0);
    assert_int_equal(resolvers_read(path, got, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(resolvers_read("/", got, &e), -1);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_in_canonical_form_are_taken_and_nothing_else),
        cmocka_unit_test(every_cut_of_a_file_is_read_without_fault),
        cmocka_unit_test(a_file_that_is_not_there_names_the_loopback),
        cmocka_unit_test(a_file_that_is_too_long_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
