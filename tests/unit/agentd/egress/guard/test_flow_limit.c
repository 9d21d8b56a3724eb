/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow_limit.h"

#include "tests/support/test.h"

static struct flow_limit *make(struct policy_limits limits)
{
    struct flow_limit *l = flow_limit_new(NULL, &limits);

    assert_non_null(l);
    return l;
}

static void without_limits_everything_may(void **state)
{
    struct flow_limit *l = make((struct policy_limits){0});
    char why[64];

    (void)state;
    for (int i = 0; i < 100000; i++)
        assert_null(flow_limit_enter(l, 1, why));
    assert_int_equal(flow_limit_room(l, FLOW_UP, 1 << 30, 1), 1 << 30);
    flow_limit_moved(l, FLOW_UP, 1 << 30);
    assert_false(flow_limit_is_used_up(l));
    flow_limit_free(l);
}

static void connections_at_once_are_counted(void **state)
{
    struct flow_limit *l = make((struct policy_limits){.connections = 2});
    char why[64];

    (void)state;
    assert_null(flow_limit_enter(l, 1, why));
    assert_null(flow_limit_enter(l, 1, why));
    assert_string_equal(flow_limit_enter(l, 1, why), "2 connections at once");
    flow_limit_leave(l);
    assert_null(flow_limit_enter(l, 1, why));
    flow_limit_free(l);
}

static void connections_a_second_refill_with_time(void **state)
{
    struct flow_limit *l = make((struct policy_limits){.connects_per_s = 10});
    char why[64];

    (void)state;
    for (int i = 0; i < 10; i++)
        assert_null(flow_limit_enter(l, 1000, why));
    assert_string_equal(flow_limit_enter(l, 1000, why), "10 new connections a second");
    assert_non_null(flow_limit_enter(l, 1099, why));
    assert_null(flow_limit_enter(l, 1100, why));
    assert_non_null(flow_limit_enter(l, 1100, why));
    for (int i = 0; i < 10; i++) /* an hour saves up one second's */
        assert_null(flow_limit_enter(l, 3600000, why));
    assert_non_null(flow_limit_enter(l, 3600000, why));
    flow_limit_free(l);
}

static uint64_t move_for(struct flow_limit *l, enum flow_way way, uint64_t from_ms,
                         uint64_t ms)
{
    uint64_t sum = 0;

    for (uint64_t t = from_ms; t < from_ms + ms; t += 7) {
        size_t n = flow_limit_room(l, way, 1000, t);

        flow_limit_moved(l, way, n);
        sum += n;
    }
    return sum;
}

static void bytes_a_second_hold_in_each_direction(void **state)
{
    struct flow_limit *l = make((struct policy_limits){.bytes_per_s = 100000});
    uint64_t up, down;

    (void)state;
    up = move_for(l, FLOW_UP, 1000, 10000);
    down = move_for(l, FLOW_DOWN, 1000, 10000);
    assert_in_range(up, 990000, 1000000 + FLOW_BURST_MIN);
    assert_in_range(down, 990000, 1000000 + FLOW_BURST_MIN);
    flow_limit_free(l);
}

static void great_rates_and_long_times_do_not_wrap(void **state)
{
    struct flow_limit *l = make((struct policy_limits){.bytes_per_s = UINT64_MAX});

    (void)state;
    (void)flow_limit_room(l, FLOW_UP, 1, 0);
    assert_int_equal(flow_limit_room(l, FLOW_UP, 1 << 20, UINT64_MAX / 2), 1 << 20);
    flow_limit_free(l);
}

static void the_bytes_of_a_life_are_both_directions(void **state)
{
    struct flow_limit *l = make((struct policy_limits){.bytes = 100});
    char why[64];

    (void)state;
    assert_int_equal(flow_limit_room(l, FLOW_UP, 60, 1), 60);
    flow_limit_moved(l, FLOW_UP, 60);
    assert_int_equal(flow_limit_room(l, FLOW_DOWN, 60, 1), 40);
    flow_limit_moved(l, FLOW_DOWN, 40);
    assert_true(flow_limit_is_used_up(l));
    assert_int_equal(flow_limit_room(l, FLOW_DOWN, 60, 1), 0);
    assert_string_equal(flow_limit_enter(l, 1, why), "100 bytes in all");
    flow_limit_free(l);
}

static int make_for_rule(void)
{
    struct policy_rule r = {.text = "a.example:443", .list = POLICY_ALLOW};
    struct flow_limit *l = flow_limit_new(&r, &r.limits);

    if (!l)
        return -1;
    assert_string_equal(l->rule, "a.example:443");
    flow_limit_free(l);
    return 0;
}

static void no_memory_leaves_nothing(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(make_for_rule());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_limits_everything_may),
        cmocka_unit_test(connections_at_once_are_counted),
        cmocka_unit_test(connections_a_second_refill_with_time),
        cmocka_unit_test(bytes_a_second_hold_in_each_direction),
        cmocka_unit_test(great_rates_and_long_times_do_not_wrap),
        cmocka_unit_test(the_bytes_of_a_life_are_both_directions),
        cmocka_unit_test(no_memory_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
