/* SPDX-License-Identifier: MIT */
#include "tunneld/cli_token.h"

#include "common/cdefs.h"
#include "tests/support/test.h"

static void a_ttl_is_a_number_with_a_unit(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } rows[] = {
        {"90", 90},  {"90s", 90},  {"5m", 300},         {"24h", 86400}, {"30d", 2592000},
        {"", -1},    {"0", -1},    {"0h", -1},          {"h", -1},      {"-1h", -1},
        {"+1h", -1}, {" 1h", -1},  {"1 h", -1},         {"1H", -1},     {"1hh", -1},
        {"1y", -1},  {"1.5h", -1}, {"12345678901", -1},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(cli_ttl_parse(rows[i].text), rows[i].seconds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ttl_is_a_number_with_a_unit),
    };

    return cmocka_run_group_tests_name("tunneld/cli_token", tests, NULL, NULL);
}
