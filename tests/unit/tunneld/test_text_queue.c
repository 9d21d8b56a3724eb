/* SPDX-License-Identifier: MIT */
#include "tunneld/tunnel/text_queue.h"

#include "tests/support/test.h"

static void messages_come_out_whole_and_in_order(void **state)
{
    static uint8_t out[65536], big[65536];
    struct text_queue t = {0};

    (void)state;
    memset(big, 'x', sizeof big);
    assert_int_equal(text_queue_take(&t, out), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(text_queue_add(&t, span_str("first")), 0);
        assert_int_equal(text_queue_add(&t, span_of(big, sizeof big)), 0);
        assert_int_equal(text_queue_add(&t, span_str("2")), 0);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(text_queue_take(&t, out), 5);
        assert_memory_equal(out, "first", 5);
        assert_int_equal(text_queue_take(&t, out), sizeof big);
        assert_memory_equal(out, big, sizeof big);
        assert_int_equal(text_queue_take(&t, out), 1);
        assert_int_equal(out[0], '2');
    }
    assert_int_equal(text_queue_take(&t, out), 0);
    text_queue_done(&t);
}

static int fill(void)
{
    struct text_queue t = {0};
    int r = text_queue_add(&t, span_str("one"));

    if (r == 0)
        r = text_queue_add(&t, span_str("two"));
    text_queue_done(&t);
    return r;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(fill());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_out_whole_and_in_order),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("tunneld/text_queue", tests, NULL, NULL);
}
