/* SPDX-License-Identifier: MIT */
#include "agentd/forward/published.h"

#include "tests/support/test.h"

static void entries_are_sorted_found_and_dropped(void **state)
{
    static const uint16_t port[] = {3000, 80, 65535, 1, 8080, 3001};
    struct published t = {0};
    struct published_port *p;
    char text[SOCK_TEXT_MAX];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(port); i++) {
        p = published_add(&t, port[i]);
        assert_non_null(p);
        assert_ptr_equal(published_add(&t, port[i]), p); /* once each */
    }
    assert_int_equal(t.n, COUNT_OF(port));
    for (i = 1; i < t.n; i++)
        assert_true(t.at[i - 1]->port < t.at[i]->port);
    p = published_find(&t, 8080);
    assert_non_null(p);
    assert_string_equal(sock_print(&p->dial, text), "127.0.0.1:8080");
    assert_null(published_find(&t, 81));
    assert_null(published_add(&t, 0));
    published_drop(&t, 81);
    published_drop(&t, 80);
    assert_null(published_find(&t, 80));
    assert_ptr_equal(published_find(&t, 8080), p); /* others stay where they are */
    assert_int_equal(t.n, COUNT_OF(port) - 1);
    published_done(&t);
    assert_null(published_find(&t, 8080));
}

static void the_table_is_bounded(void **state)
{
    struct published t = {0};
    unsigned i;

    (void)state;
    for (i = 1; i <= CONTROL_PORTS_MAX; i++)
        assert_non_null(published_add(&t, (uint16_t)i));
    assert_null(published_add(&t, 60000));
    published_drop(&t, 7);
    assert_non_null(published_add(&t, 60000));
    published_done(&t);
}

static int add_some(void)
{
    struct published t = {0};
    uint16_t i;
    int r = 0;

    for (i = 1; i <= 20 && r == 0; i++)
        r = published_add(&t, i) ? 0 : -1;
    published_done(&t);
    return r;
}

static void no_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(add_some());
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_sorted_found_and_dropped),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(no_memory_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
