/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/pin_table.h"

#include <netinet/in.h>
#include <stdio.h>

#include "tests/support/test.h"

static struct ip_addr ip(unsigned i)
{
    return (struct ip_addr){AF_INET, {203, 0, (uint8_t)(i >> 8), (uint8_t)i}};
}

static void check_order(const struct pin_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        assert_int_equal(t->heap[i]->heap_at, i);
        assert_true(t->heap[i ? (i - 1) / 2 : 0]->due_ms <= t->heap[i]->due_ms);
    }
}

/* Whatever is done to it: the first is the least, and each is found. */
static void the_first_to_need_care_is_the_first(void **state)
{
    struct pin_table t;
    uint32_t seed = 1;

    (void)state;
    pin_table_init(&t);
    for (unsigned i = 0; i < 5000; i++) {
        struct ip_addr a;
        struct pin_entry *e;

        seed = seed * 1103515245u + 12345u;
        a = ip(seed >> 16 & 511);
        e = pin_table_find(&t, &a, "a");
        if (!e) {
            assert_non_null(pin_table_add(&t, &a, "a", 100000 + (seed >> 8 & 0xffff)));
        } else if (seed & 0x80) {
            pin_table_drop(&t, e);
            assert_null(pin_table_find(&t, &a, "a"));
        } else {
            e->end_ms = 100000 + (seed >> 4 & 0xffff);
            e->held = seed >> 6 & 1;
            pin_table_set_due(&t, e);
            assert_int_equal(e->due_ms, e->end_ms - (e->held ? PIN_RENEW_S * 1000 : 0));
        }
        if (i % 50 == 0)
            check_order(&t);
    }
    assert_true(t.n > 100);
    for (uint64_t last = 0; t.n > 0; pin_table_drop(&t, t.heap[0])) {
        assert_true(t.heap[0]->due_ms >= last);
        last = t.heap[0]->due_ms;
    }
    pin_table_done(&t);
    assert_int_equal(mem_live(), 0);
}

static void a_port_lives_as_long_as_the_last_name_that_gives_it(void **state)
{
    static const uint16_t one[] = {443}, two[] = {443, 8443};
    struct ip_addr a = ip(1), other = ip(2);
    struct pin_entry *x, *y, *z;
    struct pin_table t;

    (void)state;
    pin_table_init(&t);
    x = pin_table_add(&t, &a, "x", 1000);
    y = pin_table_add(&t, &a, "y", 2000);
    z = pin_table_add(&t, &other, "x", 9000);
    assert_true(x && y && z);
    assert_int_equal(pin_ports_set(x, two, 2), 0);
    assert_int_equal(pin_ports_set(y, one, 1), 0);
    assert_int_equal(pin_ports_set(z, two, 2), 0);
    assert_int_equal(pin_table_end(&t, &a, 443, NULL), 2000);
    assert_int_equal(pin_table_end(&t, &a, 443, y), 1000);
    assert_int_equal(pin_table_end(&t, &a, 8443, NULL), 1000);
    assert_int_equal(pin_table_end(&t, &a, 8443, x), 0);
    y->is_dead = true;
    assert_int_equal(pin_table_end(&t, &a, 443, NULL), 1000);
    assert_true(pin_ports_are(x, two, 2) && !pin_ports_are(x, two, 1));
    assert_true(pin_ports_have(two, 2, 8443) && !pin_ports_have(two, 2, 80));
    assert_int_equal(pin_ports_set(x, NULL, 0), 0);
    assert_int_equal(pin_table_end(&t, &a, 443, NULL), 0);
    assert_ptr_equal(pin_table_find(&t, &a, "y"), y);
    assert_null(pin_table_find(&t, &other, "y"));
    pin_table_done(&t);
    assert_int_equal(mem_live(), 0);
}

static int fill(void)
{
    static const uint16_t port[] = {443};
    struct pin_table t;
    int rc = 0;

    pin_table_init(&t);
    for (unsigned i = 0; i < 70 && rc == 0; i++) { /* so that the heap grows */
        struct ip_addr a = ip(i);
        struct pin_entry *e = pin_table_add(&t, &a, "x", 1000);

        rc = e ? pin_ports_set(e, port, 1) : -1;
    }
    pin_table_done(&t);
    return rc;
}

static void no_memory_is_told(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(fill());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_to_need_care_is_the_first),
        cmocka_unit_test(a_port_lives_as_long_as_the_last_name_that_gives_it),
        cmocka_unit_test(no_memory_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
