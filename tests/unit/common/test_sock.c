/* SPDX-License-Identifier: MIT */
#include "common/sock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

static void an_address_prints_as_it_is_read(void **state)
{
    static const char *const good[] = {
        "127.0.0.1:80",      "0.0.0.0:0",        "[::1]:65535", "[::]:0",
        "[2001:db8::7]:443", "unix:/run/x.sock", "unix:/a b",
    };
    char out[SOCK_TEXT_MAX];
    struct sock_addr a;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(good); i++) {
        assert_int_equal(sock_parse(good[i], &a, NULL), 0);
        assert_string_equal(sock_print(&a, out), good[i]);
    }
    assert_int_equal(sock_parse("[::1]:77", &a, NULL), 0);
    assert_string_equal(sock_print_ip(&a, out), "::1");
    assert_int_equal(sock_port(&a), 77);
    a.len = 0;
    assert_string_equal(sock_print(&a, out), "");
}

static void what_is_not_exactly_an_address_is_refused(void **state)
{
    static const struct {
        const char *text, *rule;
    } bad[] = {
        {"", "nothing"},
        {"127.0.0.1", "no port"},
        {"127.0.0.1:", "empty port"},
        {"127.0.0.1:65536", "port range"},
        {"127.0.0.1:080", "leading zero"},
        {"127.0.0.1:+80", "sign"},
        {"127.0.0.1:8 0", "space"},
        {"127.0.0.1:100000", "six digits"},
        {"127.1:80", "short IPv4"},
        {"127.0.0.01:80", "octal-looking IPv4"},
        {"0x7f.0.0.1:80", "hex"},
        {"256.0.0.1:80", "octet range"},
        {"::1:80", "IPv6 without brackets"},
        {"[127.0.0.1]:80", "IPv4 in brackets"},
        {"[::1:80", "open bracket"},
        {"[fe80::1%eth0]:80", "zone id"},
        {"[]:80", "empty brackets"},
        {"localhost:80", "name"},
        {":80", "no address"},
        {"unix:", "empty path"},
        {"unix:run/x", "relative path"},
    };
    struct sock_addr a, before;
    char path[200] = "unix:/";
    struct err e;
    size_t i;

    (void)state;
    memset(&a, 0x5a, sizeof(a));
    before = a;
    for (i = 0; i < COUNT_OF(bad); i++) {
        e.code = ERR_NONE;
        if (sock_parse(bad[i].text, &a, &e) != -1 || e.code != ERR_CONFIG)
            fail_msg("%s taken: %s", bad[i].text, bad[i].rule);
    }
    memset(path + 6, 'x', 106);
    assert_int_equal(sock_parse(path, &a, NULL), 0); /* 107 bytes fit ... */
    a = before;
    path[112] = 'x';
    assert_int_equal(sock_parse(path, &a, NULL), -1); /* ... one more does not */
    assert_memory_equal(&a, &before, sizeof(a));
}

static void a_range_holds_its_addresses_and_no_others(void **state)
{
    static const struct {
        const char *cidr, *ip;
        bool has;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true},
        {"::ffff:10.0.0.0/104", "10.1.2.3", true},
        {"::ffff:10.0.0.0/104", "11.1.2.3", false},
        {"192.168.1.128/25", "192.168.1.127", false},
        {"192.168.1.128/25", "192.168.1.128", true},
        {"127.0.0.1", "127.0.0.1", true},
        {"127.0.0.1", "127.0.0.2", false},
        {"127.0.0.1/8", "127.9.9.9", true},
        {"0.0.0.0/0", "1.2.3.4", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "::1", true},
        {"::/0", "1.2.3.4", false},
        {"::/0", "::ffff:1.2.3.4", false},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"2001:db8::1", "2001:db8::1", true},
        {"2001:db8::1", "2001:db8::", false},
    };
    static const char *const bad[] = {"",
                                      "/8",
                                      "10.0.0.0/",
                                      "10.0.0.0/33",
                                      "::/129",
                                      "10.0.0/8",
                                      "10.0.0.0/8 ",
                                      "10.0.0.0/-1",
                                      "10.0.0.0/08",
                                      "10.0.0.0/8/8",
                                      "fe80::1%1/64"};
    struct sock_cidr c;
    struct sock_addr a;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(sock_cidr_parse(span_str(rows[i].cidr), &c), 0);
        assert_int_equal(sock_parse_ip(span_str(rows[i].ip), 1, &a), 0);
        if (sock_cidr_has(&c, &a) != rows[i].has)
            fail_msg("%s has %s", rows[i].cidr, rows[i].ip);
    }
    for (i = 0; i < COUNT_OF(bad); i++)
        if (sock_cidr_parse(span_str(bad[i]), &c) != -1)
            fail_msg("%s taken", bad[i]);
    assert_int_equal(sock_cidr_parse(span_str("0.0.0.0/0"), &c), 0);
    assert_int_equal(sock_parse("unix:/x", &a, NULL), 0);
    assert_false(sock_cidr_has(&c, &a));
    memset(&c, 0, sizeof(c)); /* a range of no family has nothing, nor what has none */
    assert_false(sock_cidr_has(&c, &a));
}

static void loopback_is_known_in_all_its_forms(void **state)
{
    static const char *const yes[] = {"127.0.0.1", "127.255.0.9", "::1",
                                      "::ffff:127.0.0.1"};
    static const char *const no[] = {"128.0.0.1", "::", "::2", "::ffff:1.0.0.127"};
    struct sock_addr a;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(yes); i++) {
        assert_int_equal(sock_parse_ip(span_str(yes[i]), 0, &a), 0);
        assert_true(sock_is_loopback(&a));
        assert_int_equal(sock_parse_ip(span_str(no[i]), 0, &a), 0);
        assert_false(sock_is_loopback(&a));
    }
}

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};

    assert_int_equal(poll(&p, 1, 10000), 1);
}

static void pair_at(const char *text, int fd[2], struct sock_addr *ret_bound)
{
    struct sock_addr a, client;
    struct err e = {0};
    int l;

    assert_int_equal(sock_parse(text, &a, NULL), 0);
    l = sock_listen(&a, &e);
    assert_int_not_equal(l, -1);
    assert_int_equal(sock_local(l, &a), 0);
    assert_int_equal(sock_accept(l, &client), -1);
    assert_int_equal(errno, EAGAIN);
    fd[0] = sock_connect(&a, &e);
    assert_int_not_equal(fd[0], -1);
    wait_for(fd[0], POLLOUT);
    assert_true(sock_is_connected(fd[0]));
    assert_int_equal(sock_error(fd[0]), 0);
    wait_for(l, POLLIN);
    fd[1] = sock_accept(l, &client);
    assert_int_not_equal(fd[1], -1);
    assert_int_equal(client.u.sa.sa_family, a.u.sa.sa_family);
    sock_close(&l);
    *ret_bound = a;
}

static void connections_are_made_and_a_reset_is_seen_as_one(void **state)
{
    static const char *const where[] = {"127.0.0.1:0", "[::1]:0"};
    struct sock_addr a;
    char byte;
    int fd[2];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(where); i++) {
        pair_at(where[i], fd, &a);
        assert_int_not_equal(sock_port(&a), 0);
        sock_tune_link(fd[0]);
        assert_int_equal(sock_unsent(fd[0]), 0);
        sock_reset(&fd[0]);
        assert_int_equal(fd[0], -1);
        wait_for(fd[1], POLLIN);
        assert_int_equal(read(fd[1], &byte, 1), -1);
        assert_int_equal(errno, ECONNRESET);
        sock_close(&fd[1]);
        /* Nothing listens there any more. */
        fd[0] = sock_connect(&a, NULL);
        if (fd[0] != -1) {
            wait_for(fd[0], POLLOUT);
            assert_false(sock_is_connected(fd[0]));
            assert_int_equal(sock_error(fd[0]), ECONNREFUSED);
        }
        sock_close(&fd[0]);
    }
}

/* The kernel drops what does not fit the queue of a listener that nobody serves. */
static void a_connect_under_way_is_not_connected(void **state)
{
    enum {
        QUEUE = 8
    };
    struct sock_addr a;
    int l, fd[QUEUE];

    (void)state;
    assert_int_equal(sock_parse("127.0.0.1:0", &a, NULL), 0);
    l = sock_listen(&a, NULL);
    assert_int_equal(listen(l, 0), 0);
    assert_int_equal(sock_local(l, &a), 0);
    for (size_t i = 0; i < QUEUE; i++) {
        fd[i] = sock_connect(&a, NULL);
        assert_int_not_equal(fd[i], -1);
    }
    wait_for(fd[0], POLLOUT);
    assert_true(sock_is_connected(fd[0]));
    assert_false(sock_is_connected(fd[QUEUE - 1]));
    assert_int_equal(sock_error(fd[QUEUE - 1]), 0); /* and has not failed */
    for (size_t i = 0; i < QUEUE; i++)
        sock_close(&fd[i]);
    sock_close(&l);
}

static void unsent_bytes_are_counted(void **state)
{
    static char zeros[1 << 20];
    struct sock_addr a;
    int fd[2];

    (void)state;
    pair_at("127.0.0.1:0", fd, &a);
    while (write(fd[0], zeros, sizeof(zeros)) > 0)
        ;
    assert_true(sock_unsent(fd[0]) > 0);
    sock_close(&fd[0]);
    sock_close(&fd[1]);
}

static void a_stale_socket_file_is_replaced_and_a_live_one_is_not(void **state)
{
    char dir[] = "/tmp/test_sockXXXXXX", path[64], text[80];
    struct sock_addr a;
    struct err e = {0};
    struct stat st;
    int l, second;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/s", dir);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
    assert_int_equal(sock_parse(text, &a, NULL), 0);
    l = sock_listen(&a, NULL);
    assert_int_not_equal(l, -1);
    second = sock_listen(&a, &e);
    assert_int_equal(second, -1);
    assert_int_equal(e.sys, EADDRINUSE);
    sock_close(&l);
    l = sock_listen(&a, NULL); /* the file is still there, nobody answers */
    assert_int_not_equal(l, -1);
    sock_close(&l);
    (void)unlink(path);
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(sock_listen(&a, NULL), -1); /* a file of somebody else's */
    assert_int_equal(stat(path, &st), 0);
    (void)unlink(path);
    (void)rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_prints_as_it_is_read),
        cmocka_unit_test(what_is_not_exactly_an_address_is_refused),
        cmocka_unit_test(a_range_holds_its_addresses_and_no_others),
        cmocka_unit_test(loopback_is_known_in_all_its_forms),
        cmocka_unit_test(connections_are_made_and_a_reset_is_seen_as_one),
        cmocka_unit_test(a_connect_under_way_is_not_connected),
        cmocka_unit_test(unsent_bytes_are_counted),
        cmocka_unit_test(a_stale_socket_file_is_replaced_and_a_live_one_is_not),
    };

    return cmocka_run_group_tests_name("common/sock", tests, NULL, NULL);
}
