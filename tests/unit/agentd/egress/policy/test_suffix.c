/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/suffix.h"

#include "tests/support/test.h"

static void strangers_names_are_told_from_ones_own(void **state)
{
    static const struct {
        const char *name;
        enum suffix_kind kind;
    } rows[] = {
        {"com", SUFFIX_PUBLIC},
        {"co.uk", SUFFIX_PUBLIC},
        {"kawasaki.jp", SUFFIX_PUBLIC},
        {"city.kawasaki.jp", SUFFIX_NONE}, /* an exception of the list */
        {"a.kawasaki.jp", SUFFIX_PUBLIC},  /* a wildcard of the list */
        {"xn--p1ai", SUFFIX_PUBLIC},
        {"in-addr.arpa", SUFFIX_PUBLIC},
        {"never-delegated", SUFFIX_PUBLIC},
        {"github.io", SUFFIX_PRIVATE},
        {"s3.amazonaws.com", SUFFIX_PRIVATE},
        {"example.com", SUFFIX_NONE},
        {"example.github.io", SUFFIX_NONE},
        {"internal", SUFFIX_NONE},
        {"corp", SUFFIX_NONE},
        {"svc.internal", SUFFIX_NONE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (suffix_of(rows[i].name) != rows[i].kind)
            fail_msg("%s", rows[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_names_are_told_from_ones_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
