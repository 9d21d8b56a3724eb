/* SPDX-License-Identifier: MIT */
#include "agentd/link/liveness.h"

#include "common/limits.h"
#include "tests/support/test.h"

static void a_link_that_answers_is_asked_each_twenty_seconds(void **state)
{
    struct liveness l;
    uint64_t now = 1000, rx = 1000;
    unsigned asked = 0;

    (void)state;
    liveness_init(&l, now, 500);
    for (; now < 1000 + 10 * PING_MS; now += LIVENESS_LOOK_MS) {
        switch (liveness_look(&l, now, rx, 500)) {
        case LIVENESS_ASK:
            asked++;
            rx = now + 1;
            break;
        case LIVENESS_WELL:
            break;
        default:
            fail();
        }
    }
    assert_int_equal(asked, 9);
}

static void silence_is_noticed_at_its_bound_and_not_before(void **state)
{
    struct liveness l;
    uint64_t rx = 7000;

    (void)state;
    liveness_init(&l, rx, 0);
    assert_int_equal(liveness_look(&l, rx + SILENCE_MS - 1, rx, 0), LIVENESS_ASK);
    assert_int_equal(liveness_look(&l, rx + SILENCE_MS, rx, 0), LIVENESS_SILENT);
    /* and there was time for two answers before */
    assert_true(SILENCE_MS >= 2 * PING_MS + LIVENESS_LOOK_MS);
}

static void after_a_suspend_it_is_asked_at_once_and_given_a_short_time(void **state)
{
    struct liveness l;
    uint64_t now = 100000, rx = 99000;

    (void)state;
    liveness_init(&l, now, 0);
    assert_int_equal(liveness_look(&l, now + 10, rx, 1999), LIVENESS_WELL);
    assert_int_equal(liveness_look(&l, now + 20, rx, 3600000), LIVENESS_ASK);
    assert_int_equal(liveness_look(&l, now + 20 + PROBE_MS - 1, rx, 3600000),
                     LIVENESS_WELL);
    assert_int_equal(liveness_look(&l, now + 20 + PROBE_MS, rx, 3600000), LIVENESS_SLEPT);

    liveness_init(&l, now, 0);
    assert_int_equal(liveness_look(&l, now + 20, rx, 3600000), LIVENESS_ASK);
    rx = now + 30;
    assert_int_equal(liveness_look(&l, now + 20 + PROBE_MS, rx, 3600000), LIVENESS_WELL);
    assert_int_equal(liveness_look(&l, now + 20 + 2 * PROBE_MS, rx, 3600000),
                     LIVENESS_WELL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_that_answers_is_asked_each_twenty_seconds),
        cmocka_unit_test(silence_is_noticed_at_its_bound_and_not_before),
        cmocka_unit_test(after_a_suspend_it_is_asked_at_once_and_given_a_short_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
