/* SPDX-License-Identifier: MIT */
#include "agentd/link/retry.h"

#include "common/cdefs.h"
#include "common/limits.h"
#include "tests/support/test.h"

static void ranges_double_up_to_the_bound_and_a_lost_link_has_five_seconds(void **state)
{
    static const uint32_t want[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    unsigned i;

    (void)state;
    for (i = 0; i < COUNT_OF(want); i++) {
        assert_int_equal(retry_range(i, false), want[i]);
        assert_int_equal(retry_range(i, true), want[i] < 5000 ? 5000 : want[i]);
    }
    assert_int_equal(retry_range(4000000000u, true), 30000);
}

static void waits_stay_in_their_range_and_use_all_of_it(void **state)
{
    unsigned i, n, low = 0, high = 0;

    (void)state;
    for (i = 0; i < 2000; i++) {
        struct retry r = {0};

        for (n = 0; n < 8; n++)
            assert_in_range(retry_next(&r, false, 0, 0), 0, retry_range(n, false));
        r.failures = 0;
        n = retry_next(&r, true, 0, 0);
        assert_in_range(n, 0, RETRY_FIRST_MS);
        low += n < RETRY_FIRST_MS / 4;
        high += n > RETRY_FIRST_MS * 3 / 4;
    }
    /* 500 expected of each; 350 is seven standard deviations away. */
    assert_true(low > 350 && high > 350);
}

static void only_a_link_that_stood_starts_anew(void **state)
{
    struct retry r = {.failures = 4};

    (void)state;
    (void)retry_next(&r, true, RETRY_STABLE_MS - 1, 0);
    assert_int_equal(r.failures, 5);
    (void)retry_next(&r, true, RETRY_STABLE_MS, 0);
    assert_int_equal(r.failures, 1);
    (void)retry_next(&r, false, RETRY_STABLE_MS, 0);
    assert_int_equal(r.failures, 2);
}

static void what_the_server_asks_for_is_waited_up_to_a_bound(void **state)
{
    struct retry r = {0};

    (void)state;
    assert_in_range(retry_next(&r, true, 0, 7000), 7000, 7000 + RETRY_FIRST_MS);
    assert_in_range(retry_next(&r, true, RETRY_STABLE_MS, UINT32_MAX), RETRY_AFTER_MAX_MS,
                    RETRY_AFTER_MAX_MS + RETRY_FIRST_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_double_up_to_the_bound_and_a_lost_link_has_five_seconds),
        cmocka_unit_test(waits_stay_in_their_range_and_use_all_of_it),
        cmocka_unit_test(only_a_link_that_stood_starts_anew),
        cmocka_unit_test(what_the_server_asks_for_is_waited_up_to_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
