/* SPDX-License-Identifier: MIT */
#include "common/wire.h"

#include "tests/support/test.h"

static void reads_big_endian(void **state)
{
    struct wire_rd r = wire_rd_init("\x01\x02\x03\x04\x05\x06", 6);

    (void)state;
    assert_int_equal(wire_rd_uint(&r, 2), 0x0102);
    assert_int_equal(wire_rd_uint(&r, 4), 0x03040506);
    assert_false(r.bad);
}

static void short_read_is_sticky(void **state)
{
    struct wire_rd r = wire_rd_init("\x01\x02\x03", 3);

    (void)state;
    (void)wire_rd_uint(&r, 4);
    assert_true(r.bad);
    assert_int_equal(wire_rd_uint(&r, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_big_endian),
        cmocka_unit_test(short_read_is_sticky),
    };

    return cmocka_run_group_tests_name("common/wire", tests, NULL, NULL);
}
