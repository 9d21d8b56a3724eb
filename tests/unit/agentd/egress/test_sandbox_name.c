/* SPDX-License-Identifier: MIT */
#include "agentd/egress/sandbox_name.h"

#include <string.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

#define FORTY "0123456789012345678901234567890123456789"

static void names_in_lower_case_pass_and_others_are_told_why(void **state)
{
    static const char *const good[] = {"a", "7", "box-1", "a-b-c", FORTY};
    static const char *const bad[] = {
        "",    "A",   "Box", "-a", "a-", "a--b",    "a.b",  "a_b",  "a b",     " a",
        "a\n", "a/b", "..",  "ü",  "\"", FORTY "0", "a\\b", "a%sb", "xn--abc", "tab\t"};
    struct err e;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (sandbox_name_check(good[i], &e) < 0)
            fail_msg("%s: %s", good[i], e.msg);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (sandbox_name_check(bad[i], &e) == 0)
            fail_msg("\"%s\" passes", bad[i]);
        assert_int_equal(e.code, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "is no sandbox name: 1 to 40 of"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_in_lower_case_pass_and_others_are_told_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
