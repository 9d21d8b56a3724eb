/* SPDX-License-Identifier: MIT */
#include "tests/support/test.h"

/* Two allocations, the second depending on the first. */
static int build_pair(void)
{
    char **p = mem_zalloc(1, sizeof(*p));

    if (p == NULL)
        return -1;
    *p = mem_alloc(16);
    if (*p == NULL) {
        mem_free(p);
        return -1;
    }
    mem_free(*p);
    mem_free(p);
    return 0;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(build_pair());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/mem", tests, NULL, NULL);
}
