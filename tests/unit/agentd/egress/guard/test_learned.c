/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/learned.h"

#include "tests/support/test.h"

static void what_is_in_stays_when_the_set_is_full(void **state)
{
    struct learned l = {0};

    (void)state;
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(learned_add(&l, i << 32, 1000), 1); /* all meet in one place */
    assert_int_equal(l.n, 1000);
    assert_int_equal(learned_add(&l, 12345, 1000), 0);
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(learned_add(&l, i << 32, 1000), 1);
    assert_int_equal(learned_add(&l, 12345, 1001), 1); /* a policy with more */
    assert_int_equal(learned_add(&l, 12346, 10), 0);   /* and one with less */
    assert_int_equal(l.n, 1001);
    learned_done(&l);
    assert_int_equal(mem_live(), 0);
}

static void without_a_limit_there_is_still_one(void **state)
{
    struct learned l = {0};

    (void)state;
    for (uint64_t i = 1; i <= LEARNED_MAX; i++)
        assert_int_equal(learned_add(&l, i, 0), 1);
    assert_int_equal(learned_add(&l, LEARNED_MAX + 1, 0), 0);
    learned_done(&l);
}

static int fill(void)
{
    struct learned l = {0};
    int rc = 1;

    for (uint64_t i = 1; i <= 100 && rc > 0; i++)
        rc = learned_add(&l, i, 0);
    learned_done(&l);
    return rc > 0 ? 0 : -1;
}

static void no_memory_is_told(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(fill());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_in_stays_when_the_set_is_full),
        cmocka_unit_test(without_a_limit_there_is_still_one),
        cmocka_unit_test(no_memory_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
