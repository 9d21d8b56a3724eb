/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/name_table.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

static struct name_entry *find(struct name_table *t, const char *name, int family)
{
    return name_table_find(t, name, family, name_table_hash(t, name));
}

static struct name_entry *add(struct name_table *t, const char *name, int family)
{
    struct name_entry *e = name_table_add(t, name, family, name_table_hash(t, name));

    assert_non_null(e);
    return e;
}

static void add_number(struct name_table *t, unsigned i)
{
    char name[32];

    (void)snprintf(name, sizeof name, "n%u.test", i);
    (void)add(t, name, AF_INET);
}

static struct name_entry *find_number(struct name_table *t, unsigned i)
{
    char name[32];

    (void)snprintf(name, sizeof name, "n%u.test", i);
    return find(t, name, AF_INET);
}

static void drop_all(struct name_table *t)
{
    while (t->newest)
        name_table_drop(t, t->newest);
    assert_null(t->oldest);
    assert_int_equal(t->n, 0);
    for (size_t i = 0; i < NAME_TABLE_BUCKETS; i++)
        assert_null(t->bucket[i]);
}

/* Both ways the same entries, as many as there are. */
static void check_order(const struct name_table *t)
{
    const struct name_entry *e;
    size_t n = 0;

    for (e = t->newest; e; e = e->older, n++)
        assert_ptr_equal(e->older ? e->older->newer : t->oldest, e);
    assert_int_equal(n, t->n);
    for (e = t->oldest, n = 0; e; e = e->newer)
        n++;
    assert_int_equal(n, t->n);
}

static void a_name_has_an_entry_for_each_family(void **state)
{
    struct name_entry *four, *six;
    struct name_table t;

    (void)state;
    name_table_init(&t);
    assert_null(find(&t, "one.test", AF_INET));
    four = add(&t, "one.test", AF_INET);
    six = add(&t, "one.test", AF_INET6);
    assert_ptr_equal(find(&t, "one.test", AF_INET), four);
    assert_ptr_equal(find(&t, "one.test", AF_INET6), six);
    assert_null(find(&t, "one.tes", AF_INET));
    assert_string_equal(four->name, "one.test");
    name_table_drop(&t, four);
    assert_null(find(&t, "one.test", AF_INET));
    assert_ptr_equal(find(&t, "one.test", AF_INET6), six);
    drop_all(&t);
}

static void names_that_share_a_bucket_are_told_apart(void **state)
{
    struct name_table t;
    struct name_entry *a, *b;

    (void)state;
    name_table_init(&t);
    a = name_table_add(&t, "a.test", AF_INET, 7);
    b = name_table_add(&t, "b.test", AF_INET, 7);
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_equal(name_table_find(&t, "a.test", AF_INET, 7), a);
    assert_ptr_equal(name_table_find(&t, "b.test", AF_INET, 7), b);
    assert_null(name_table_find(&t, "a.test", AF_INET, 7 + NAME_TABLE_BUCKETS));
    name_table_drop(&t, a);
    assert_ptr_equal(name_table_find(&t, "b.test", AF_INET, 7), b);
    drop_all(&t);
}

static void hashes_are_of_the_seed(void **state)
{
    struct name_table t, u;

    (void)state;
    name_table_init(&t);
    name_table_init(&u);
    assert_true(name_table_hash(&t, "one.test") == name_table_hash(&t, "one.test"));
    assert_true(name_table_hash(&t, "one.test") != name_table_hash(&t, "two.test"));
    assert_true(name_table_hash(&t, "one.test") != name_table_hash(&u, "one.test"));
    assert_true(name_table_hash(&t, "") != 0);
}

static void when_it_is_full_the_one_that_was_not_used_for_longest_goes(void **state)
{
    struct name_table t;

    (void)state;
    name_table_init(&t);
    for (unsigned i = 0; i < NAMES_CACHE_MAX; i++)
        add_number(&t, i);
    name_table_touch(&t, find_number(&t, 0));
    check_order(&t);
    add_number(&t, NAMES_CACHE_MAX);
    assert_int_equal(t.n, NAMES_CACHE_MAX);
    assert_non_null(find_number(&t, 0));
    assert_null(find_number(&t, 1));
    assert_non_null(find_number(&t, 2));
    assert_ptr_equal(t.newest, find_number(&t, NAMES_CACHE_MAX));
    check_order(&t);
    drop_all(&t);
}

static void one_that_is_asked_stays(void **state)
{
    struct name_table t;

    (void)state;
    name_table_init(&t);
    for (unsigned i = 0; i < NAMES_CACHE_MAX; i++)
        add_number(&t, i);
    for (unsigned i = 0; i < NAMES_ASKING_MAX;
         i++) /* any but NULL: it is not looked into */
        find_number(&t, i)->ask = (struct dns_ask *)(void *)&t;
    add_number(&t, NAMES_CACHE_MAX);
    for (unsigned i = 0; i < NAMES_ASKING_MAX; i++) {
        assert_non_null(find_number(&t, i));
        find_number(&t, i)->ask = NULL;
    }
    assert_null(find_number(&t, NAMES_ASKING_MAX));
    check_order(&t);
    drop_all(&t);
}

/* Whatever is done to it, use has one order, and it is that of the last touches. */
static void order_is_that_of_use(void **state)
{
    unsigned touched[64] = {0}, seed = 1;
    struct name_table t;

    (void)state;
    name_table_init(&t);
    for (unsigned i = 1; i < 5000; i++) {
        unsigned k;

        seed = seed * 1103515245u + 12345u;
        k = seed >> 16 & 63;
        if (!touched[k]) {
            add_number(&t, k);
            touched[k] = i;
        } else if (seed & 0x80000) {
            name_table_drop(&t, find_number(&t, k));
            touched[k] = 0;
        } else {
            name_table_touch(&t, find_number(&t, k));
            touched[k] = i;
        }
        check_order(&t);
        for (const struct name_entry *e = t.newest; e && e->older; e = e->older) {
            unsigned a, b;

            assert_int_equal(sscanf(e->name, "n%u", &a), 1);
            assert_int_equal(sscanf(e->older->name, "n%u", &b), 1);
            assert_true(touched[a] > touched[b]);
        }
    }
    drop_all(&t);
}

static void what_was_answered_can_be_forgotten(void **state)
{
    struct name_table t;
    struct name_entry *e;

    (void)state;
    name_table_init(&t);
    e = add(&t, "one.test", AF_INET);
    e->addr = mem_zalloc(1, sizeof *e->addr);
    e->why = mem_zalloc(1, sizeof *e->why);
    e->n = 1;
    e->was_filtered = true;
    name_entry_empty(e);
    assert_null(e->addr);
    assert_null(e->why);
    assert_int_equal(e->n, 0);
    assert_false(e->was_filtered);
    e->addr = mem_zalloc(1, sizeof *e->addr);
    drop_all(&t); /* and goes with it */
    assert_int_equal(mem_live(), 0);
}

static int add_one(void)
{
    struct name_table t;
    struct name_entry *e;

    name_table_init(&t);
    e = name_table_add(&t, "one.test", AF_INET, 1);
    drop_all(&t);
    return e ? 0 : -1;
}

static void without_memory_nothing_is_added(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(add_one());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_has_an_entry_for_each_family),
        cmocka_unit_test(names_that_share_a_bucket_are_told_apart),
        cmocka_unit_test(hashes_are_of_the_seed),
        cmocka_unit_test(when_it_is_full_the_one_that_was_not_used_for_longest_goes),
        cmocka_unit_test(one_that_is_asked_stays),
        cmocka_unit_test(order_is_that_of_use),
        cmocka_unit_test(what_was_answered_can_be_forgotten),
        cmocka_unit_test(without_memory_nothing_is_added),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
