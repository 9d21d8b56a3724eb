/* SPDX-License-Identifier: MIT */
#include "agentd/forward/portrules.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

static struct portrules plain(void)
{
    struct portrules r = {
        .ephemeral_first = 32768, .ephemeral_last = 60999, .own_pid = 4711};
    return r;
}

static void listeners_are_published_but_for_the_defaults(void **state)
{
    static const struct {
        uint16_t port;
        pid_t pid;
        const char *name;
        enum portrules_verdict want;
    } row[] = {
        {3000, 12, "node", PORTRULES_PUBLISH},
        {3000, 0, "", PORTRULES_PUBLISH}, /* another user's process */
        {1, 1, "init", PORTRULES_PUBLISH},
        {65535, 12, "x", PORTRULES_PUBLISH},
        {3000, 4711, "agentd", PORTRULES_OWN},
        {22, 0, "", PORTRULES_SSH},
        {2222, 9, "sshd", PORTRULES_SSH},
        {2222, 9, "dropbear", PORTRULES_SSH},
        {2222, 9, "sshdx", PORTRULES_PUBLISH},
        {9228, 9, "node", PORTRULES_PUBLISH},
        {9229, 9, "node", PORTRULES_DEBUGGER},
        {9230, 9, "node", PORTRULES_DEBUGGER},
        {9231, 9, "node", PORTRULES_PUBLISH},
        {5678, 9, "python3", PORTRULES_DEBUGGER},
        {2345, 9, "x", PORTRULES_DEBUGGER},
        {5005, 9, "java", PORTRULES_DEBUGGER},
        {4000, 9, "dlv", PORTRULES_DEBUGGER},
        {4000, 9, "gdbserver", PORTRULES_DEBUGGER},
        {32767, 9, "x", PORTRULES_PUBLISH},
        {32768, 9, "x", PORTRULES_EPHEMERAL},
        {60999, 9, "x", PORTRULES_EPHEMERAL},
        {61000, 9, "x", PORTRULES_PUBLISH},
    };
    struct portrules r = plain();
    struct process p;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(row); i++) {
        p.pid = row[i].pid;
        memcpy(p.name, row[i].name, strlen(row[i].name) + 1);
        assert_string_equal(portrules_why(portrules_judge(&r, row[i].port, &p)),
                            portrules_why(row[i].want));
    }
}

static void a_list_names_all_that_is_published(void **state)
{
    struct portrules r = plain();
    struct process sshd = {.pid = 9, .name = "sshd"};

    (void)state;
    r.has_only = true;
    assert_int_equal(port_list_parse(span_str("22,9229,40000,3000-3002"), &r.only), 0);
    assert_int_equal(portrules_judge(&r, 22, &sshd), PORTRULES_PUBLISH);
    assert_int_equal(portrules_judge(&r, 9229, NULL), PORTRULES_PUBLISH);
    assert_int_equal(portrules_judge(&r, 40000, NULL), PORTRULES_PUBLISH);
    assert_int_equal(portrules_judge(&r, 3001, NULL), PORTRULES_PUBLISH);
    assert_int_equal(portrules_judge(&r, 3003, NULL), PORTRULES_NOT_LISTED);
    memset(&r.only, 0, sizeof r.only);
    assert_int_equal(portrules_judge(&r, 3001, NULL), PORTRULES_NOT_LISTED);
}

static void exclusion_beats_everything(void **state)
{
    struct portrules r = plain();

    (void)state;
    r.has_only = true;
    assert_int_equal(port_list_parse(span_str("3000-3010"), &r.only), 0);
    assert_int_equal(port_list_parse(span_str("3005"), &r.exclude), 0);
    assert_int_equal(portrules_judge(&r, 3005, NULL), PORTRULES_EXCLUDED);
    assert_false(portrules_may_name(&r, 3005));
    assert_true(portrules_may_name(&r, 9229));
    assert_true(portrules_may_name(&r, 4000));
    assert_false(portrules_may_name(&r, 0));
}

static void what_is_never_published_is_told_as_ranges(void **state)
{
    struct portrules r = plain();
    struct port_list l;
    uint32_t port;

    (void)state;
    assert_int_equal(port_list_parse(span_str("23,1000-2000"), &r.exclude), 0);
    portrules_never(&r, &l);
    for (port = 1; port <= 65535; port++)
        assert_int_equal(port_list_has(&l, (uint16_t)port),
                         portrules_judge(&r, (uint16_t)port, NULL) != PORTRULES_PUBLISH);
    r.has_only = true;
    assert_int_equal(port_list_parse(span_str("65535"), &r.only), 0);
    portrules_never(&r, &l);
    assert_int_equal(l.n, 1);
    assert_int_equal(l.range[0].first, 1);
    assert_int_equal(l.range[0].last, 65534);
}

static void the_kernel_names_the_ephemeral_range(void **state)
{
    struct portrules r = {0};

    (void)state;
    portrules_ephemeral(
        &r, open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC));
    assert_true(r.ephemeral_first > 0);
    assert_true(r.ephemeral_last >= r.ephemeral_first);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(listeners_are_published_but_for_the_defaults),
        cmocka_unit_test(a_list_names_all_that_is_published),
        cmocka_unit_test(exclusion_beats_everything),
        cmocka_unit_test(what_is_never_published_is_told_as_ranges),
        cmocka_unit_test(the_kernel_names_the_ephemeral_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
