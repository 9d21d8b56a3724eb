/* SPDX-License-Identifier: MIT */
#include "tunneld/directory.h"

#include <stdio.h>

#include "tests/support/test.h"

static int setup(void **state)
{
    *state = directory_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    directory_free(*state);
    return 0;
}

static void the_first_tenant_to_use_an_id_owns_it(void **state)
{
    assert_int_equal(directory_own(*state, "demo", "acme"), DIRECTORY_OK);
    assert_int_equal(directory_own(*state, "demo", "acme"), DIRECTORY_OK);
    assert_int_equal(directory_own(*state, "demo", "other"), DIRECTORY_TAKEN);
    assert_int_equal(directory_own(*state, "demo", ""), DIRECTORY_TAKEN);
    assert_int_equal(directory_own(*state, "demo2", "other"), DIRECTORY_OK);
}

static void a_name_leads_to_its_port_also_after_release(void **state)
{
    char id[HOST_ID_MAX + 1] = "";
    uint16_t port = 0;

    assert_false(directory_find(*state, "shop", id, &port));
    assert_int_equal(directory_claim(*state, "shop", "demo", "acme", 3000), DIRECTORY_OK);
    assert_true(directory_find(*state, "shop", id, &port));
    assert_string_equal(id, "demo");
    assert_int_equal(port, 3000);
    assert_int_equal(directory_claim(*state, "shop", "demo", "acme", 3001), DIRECTORY_OK);
    directory_release(*state, "shop", "demo");
    assert_true(directory_find(*state, "shop", id, &port));
    assert_int_equal(port, 3001);
}

static void a_used_name_cannot_be_claimed_by_another_sandbox(void **state)
{
    assert_int_equal(directory_claim(*state, "shop", "demo", "acme", 3000), DIRECTORY_OK);
    assert_int_equal(directory_claim(*state, "shop", "two", "acme", 3000),
                     DIRECTORY_TAKEN);
    directory_release(*state, "shop", "two"); /* not two's to release */
    assert_int_equal(directory_claim(*state, "shop", "two", "acme", 3000),
                     DIRECTORY_TAKEN);
    directory_release(*state, "shop", "demo");
    assert_int_equal(directory_claim(*state, "shop", "three", "evil", 1),
                     DIRECTORY_TAKEN);
    assert_int_equal(directory_claim(*state, "shop", "two", "acme", 3000), DIRECTORY_OK);
}

static void many_ids_keep_their_tenants_while_the_table_grows(void **state)
{
    char id[16], tenant[16];

    for (unsigned i = 0; i < 3000; i++) {
        (void)snprintf(id, sizeof id, "s%u", i);
        (void)snprintf(tenant, sizeof tenant, "t%u", i % 7);
        assert_int_equal(directory_own(*state, id, tenant), DIRECTORY_OK);
    }
    for (unsigned i = 0; i < 3000; i++) {
        (void)snprintf(id, sizeof id, "s%u", i);
        (void)snprintf(tenant, sizeof tenant, "t%u", i % 7);
        assert_int_equal(directory_own(*state, id, tenant), DIRECTORY_OK);
        (void)snprintf(tenant, sizeof tenant, "t%u", (i + 1) % 7);
        assert_int_equal(directory_own(*state, id, tenant), DIRECTORY_TAKEN);
    }
}

static int use_all(void)
{
    struct directory *d = directory_new();
    int r = -1;

    if (d && directory_own(d, "demo", "acme") == DIRECTORY_OK &&
        directory_claim(d, "shop", "demo", "acme", 3000) == DIRECTORY_OK)
        r = 0;
    directory_free(d);
    return r;
}

static void each_failing_allocation_is_told_and_leaks_nothing(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(use_all());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_tenant_to_use_an_id_owns_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_name_leads_to_its_port_also_after_release,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_used_name_cannot_be_claimed_by_another_sandbox,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(many_ids_keep_their_tenants_while_the_table_grows,
                                        setup, teardown),
        cmocka_unit_test(each_failing_allocation_is_told_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
