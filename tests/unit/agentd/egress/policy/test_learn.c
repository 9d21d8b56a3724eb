/* SPDX-License-Identifier: MIT */
/* What is proposed is compiled and asked by the code that everybody uses: it must allow
 * what was seen, and nothing beside it but the siblings of a wildcard. */
#include "agentd/egress/policy/learn.h"

#include <stdio.h>

#include "agentd/egress/policy/decision.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

#define NOW 1700000000

static struct ip_addr ip(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

static struct policy *compiled_under(const struct learn *l, const struct policy *under)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    static struct policy_faults faults;
    struct policy *p;

    faults = (struct policy_faults){.n = 0};
    assert_int_equal(learn_print(l, under, NOW, "demo", &text), 0);
    p = policy_compile(buf_span(&text), NULL, &faults);
    if (p == NULL)
        fail_msg("%s: %s\n%.*s", faults.at[0].path, faults.at[0].text,
                 SPAN_FMT(buf_span(&text)));
    for (size_t i = 0; i < faults.n; i++)
        print_message("%s: %s\n", faults.at[i].path, faults.at[i].text);
    return p;
}

static struct policy *compiled(const struct learn *l)
{
    return compiled_under(l, NULL);
}

static bool allows(const struct policy *p, const char *name, const char *addr,
                   uint16_t port)
{
    struct target t = {.name = name, .port = port, .protocol = IPPROTO_TCP};
    struct verdict v;

    if (addr != NULL)
        t.addr = ip(addr);
    decide(p, NULL, &t, NOW, &v);
    return v.allowed;
}

static size_t count_rules(const struct policy *p)
{
    size_t n;

    (void)policy_rules(p, &n);
    return n;
}

/* -- what is proposed ---------------------------------------------------------------- */

static const struct {
    const char *name, *addr;
    uint16_t port;
} seen[] = {
    {"api.example.com", NULL, 443},   {"api.example.com", NULL, 8443},
    {"db.example.org", NULL, 5432},   {"a.cdn.example.net", NULL, 443},
    {"b.cdn.example.net", NULL, 443}, {"c.cdn.example.net", NULL, 443},
    {"d.cdn.example.net", NULL, 443}, {"a.cdn.example.net", NULL, 80},
    {"cdn.example.net", NULL, 443},   {"x.y.cdn.example.net", NULL, 443},
    {"one.github.io", NULL, 443},     {"two.github.io", NULL, 443},
    {"three.github.io", NULL, 443},   {"four.github.io", NULL, 443},
    {"one.co.uk", NULL, 443},         {"two.co.uk", NULL, 443},
    {"three.co.uk", NULL, 443},       {"four.co.uk", NULL, 443},
    {NULL, "203.0.113.7", 22},        {NULL, "2001:db8::7", 22},
    {"a.one.example.edu", NULL, 443}, {"b.one.example.edu", NULL, 443},
    {"c.one.example.edu", NULL, 443},
};

static const struct {
    const char *name, *addr;
    uint16_t port;
} unseen[] = {
    {"api.example.com", NULL, 80},   {"www.example.com", NULL, 443},
    {"example.com", NULL, 443},      {"db.example.org", NULL, 443},
    {"b.cdn.example.net", NULL, 80}, {"example.net", NULL, 443},
    {"www.example.net", NULL, 443},  {"five.github.io", NULL, 443},
    {"github.io", NULL, 443},        {"five.co.uk", NULL, 443},
    {NULL, "203.0.113.7", 443},      {NULL, "203.0.113.8", 22},
    {NULL, "2001:db8::8", 22},       {"d.one.example.edu", NULL, 443},
    {"cdn.example.net", NULL, 8443},
};

static struct learn *learned(bool backwards)
{
    struct learn *l = learn_new();

    assert_non_null(l);
    for (size_t k = 0; k < 2 * COUNT_OF(seen); k++) { /* each twice */
        size_t i = k % COUNT_OF(seen);

        if (backwards)
            i = COUNT_OF(seen) - 1 - i;
        if (seen[i].name != NULL) {
            learn_name(l, seen[i].name, seen[i].port);
        } else {
            struct ip_addr a = ip(seen[i].addr);

            learn_addr(l, &a, seen[i].port);
        }
    }
    assert_int_equal(learn_count(l), COUNT_OF(seen));
    return l;
}

static void what_was_seen_is_covered_and_nothing_else(void **state)
{
    struct learn *l = learned(false);
    struct policy *p = compiled(l);

    UNUSED_ARG(state);
    assert_int_equal(policy_mode(p), POLICY_ENFORCE);
    assert_false(policy_default_allows(p));
    for (size_t i = 0; i < COUNT_OF(seen); i++)
        if (!allows(p, seen[i].name, seen[i].addr, seen[i].port))
            fail_msg("not covered: %s%s:%u", seen[i].name ? seen[i].name : "",
                     seen[i].addr ? seen[i].addr : "", seen[i].port);
    for (size_t i = 0; i < COUNT_OF(unseen); i++)
        if (allows(p, unseen[i].name, unseen[i].addr, unseen[i].port))
            fail_msg("not seen: %s%s:%u", unseen[i].name ? unseen[i].name : "",
                     unseen[i].addr ? unseen[i].addr : "", unseen[i].port);
    /* The siblings of four, which is what a wildcard means. */
    assert_true(allows(p, "e.cdn.example.net", NULL, 443));
    /* Four of "cdn" and the one below them are one rule. */
    assert_int_equal(count_rules(p), COUNT_OF(seen) - 4);
    policy_unref(p);
    learn_free(l);
}

static void the_order_of_seeing_does_not_matter(void **state)
{
    AUTO(buf_done)
    struct buf a = BUF_INIT, b = BUF_INIT;
    struct learn *x = learned(false), *y = learned(true);

    UNUSED_ARG(state);
    assert_int_equal(learn_print(x, NULL, NOW, "demo", &a), 0);
    assert_int_equal(learn_print(y, NULL, NOW, "demo", &b), 0);
    assert_true(span_eq(buf_span(&a), buf_span(&b)));
    learn_free(x);
    learn_free(y);
}

static void wildcards_below_wildcards_are_left_out(void **state)
{
    struct learn *l = learn_new();
    struct policy *p;
    char name[64];

    UNUSED_ARG(state);
    for (unsigned i = 0; i < LEARN_SIBLINGS; i++) {
        (void)snprintf(name, sizeof(name), "n%u.example.com", i);
        learn_name(l, name, 443);
        (void)snprintf(name, sizeof(name), "n%u.deep.example.com", i);
        learn_name(l, name, 443);
        (void)snprintf(name, sizeof(name), "n%u.e.d.c.b.example.com", i);
        learn_name(l, name, 443);
        (void)snprintf(name, sizeof(name), "n%u.deep.example.com", i);
        learn_name(l, name, 8443);
    }
    p = compiled(l);
    /* *.example.com:443, *.deep.example.com:8443, and the one that has more labels than a
     * wildcard stands for */
    assert_int_equal(count_rules(p), 3);
    assert_true(allows(p, "n0.deep.example.com", NULL, 443));
    assert_true(allows(p, "n0.e.d.c.b.example.com", NULL, 443));
    assert_false(allows(p, "n0.example.com", NULL, 8443));
    policy_unref(p);
    learn_free(l);
}

static void three_siblings_are_three_names(void **state)
{
    struct learn *l = learn_new();
    struct policy *p;

    UNUSED_ARG(state);
    learn_name(l, "a.example.com", 443);
    learn_name(l, "b.example.com", 443);
    learn_name(l, "c.example.com", 443);
    learn_name(l, "d.example.com", 8443); /* another port */
    p = compiled(l);
    assert_int_equal(count_rules(p), 4);
    assert_false(allows(p, "d.example.com", NULL, 443));
    policy_unref(p);
    learn_free(l);
}

static void nothing_seen_is_nothing_allowed(void **state)
{
    struct learn *l = learn_new();
    struct policy *p = compiled(l);

    UNUSED_ARG(state);
    assert_int_equal(count_rules(p), 0);
    assert_false(allows(p, "example.com", NULL, 443));
    policy_unref(p);
    learn_free(l);
    learn_free(NULL);
}

static void more_than_fits_is_counted(void **state)
{
    struct learn *l = learn_new();
    struct policy *p;
    char name[64];

    UNUSED_ARG(state);
    for (unsigned i = 0; i < LEARN_MAX + 10; i++) {
        (void)snprintf(name, sizeof(name), "h%u.d%u.example.com", i, i / 3);
        learn_name(l, name, 443);
    }
    assert_int_equal(learn_count(l), LEARN_MAX);
    assert_int_equal(learn_dropped(l), 10);
    p = compiled(l); /* the largest that there is compiles too */
    policy_unref(p);
    learn_free(l);
}

static void learn_siblings(struct learn *l, const char *parent, uint16_t port)
{
    char name[64];

    for (unsigned i = 0; i < LEARN_SIBLINGS; i++) {
        (void)snprintf(name, sizeof(name), "n%u.%s", i, parent);
        learn_name(l, name, port);
    }
}

static void what_a_deny_rule_names_is_not_proposed(void **state)
{
    struct policy *under = policy_text(
        "{\"version\":1,\"mode\":\"learn\",\"deny\":["
        "\"evil.example.com\",\"*.bad.example:1-1024\",\"203.0.113.0/24:22\","
        "{\"to\":{\"domain\":\"was.example.com\"},\"expires\":\"2001-01-01T00:00:00Z\"}]"
        "}");
    struct ip_addr a = ip("203.0.113.7");
    struct learn *l = learn_new();
    struct policy *p;

    UNUSED_ARG(state);
    learn_name(l, "evil.example.com", 443);
    learn_name(l, "evil.example.com", 8443); /* not that port */
    learn_name(l, "was.example.com", 443);   /* no more */
    learn_name(l, "x.bad.example", 443);
    learn_name(l, "x.bad.example", 8443);
    learn_name(l, "bad.example", 443); /* the apex */
    learn_addr(l, &a, 22);
    learn_addr(l, &a, 23);
    p = compiled_under(l, under);
    assert_int_equal(count_rules(p), 5);
    assert_false(allows(p, "evil.example.com", NULL, 443));
    assert_true(allows(p, "evil.example.com", NULL, 8443));
    assert_true(allows(p, "was.example.com", NULL, 443));
    assert_false(allows(p, "x.bad.example", NULL, 443));
    assert_true(allows(p, "x.bad.example", NULL, 8443));
    assert_true(allows(p, "bad.example", NULL, 443));
    assert_false(allows(p, NULL, "203.0.113.7", 22));
    assert_true(allows(p, NULL, "203.0.113.7", 23));
    policy_unref(p);
    policy_unref(under);
    learn_free(l);
}

static void a_wildcard_over_what_a_deny_rule_names_is_not_proposed(void **state)
{
    struct policy *under =
        policy_text("{\"version\":1,\"mode\":\"learn\",\"deny\":[\"evil.a.example\","
                    "\"*.deep.evil.b.example\",\"*.c.example\",\"evil.d.example:22\"]}");
    struct learn *l = learn_new();
    struct policy *p;

    UNUSED_ARG(state);
    learn_siblings(l, "a.example", 443);
    learn_siblings(l, "a.example", 8443);
    learn_siblings(l, "b.example", 443);
    learn_siblings(l, "c.example", 443);
    learn_siblings(l, "d.example", 443);
    p = compiled_under(l, under);
    assert_true(allows(p, "n0.a.example", NULL, 443));
    assert_false(allows(p, "evil.a.example", NULL, 443));
    assert_true(allows(p, "new.a.example", NULL, 8443)); /* a deny rule has port 443 */
    assert_true(allows(p, "n0.b.example", NULL, 443));
    assert_false(allows(p, "x.deep.evil.b.example", NULL, 443));
    assert_false(allows(p, "n0.c.example", NULL, 443));
    assert_true(allows(p, "new.d.example", NULL, 443));
    assert_false(allows(p, "new.d.example", NULL, 22));
    assert_int_equal(count_rules(p), 2 * LEARN_SIBLINGS + 2);
    policy_unref(p);
    policy_unref(under);
    learn_free(l);
}

static int one_life(void)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    struct learn *l = learn_new();
    int rc = -1;

    if (l == NULL)
        return -1;
    for (unsigned i = 0; i < COUNT_OF(seen) - 1; i++)
        if (seen[i].name != NULL)
            learn_name(l, seen[i].name, seen[i].port);
    if (learn_dropped(l) == 0)
        rc = learn_print(l, NULL, NOW, "demo", &out);
    if (rc < 0)
        assert_int_equal(out.len, 0);
    learn_free(l);
    return rc;
}

static void without_memory_nothing_is_left_behind(void **state)
{
    UNUSED_ARG(state);
    FAIL_EACH_ALLOC(one_life());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_seen_is_covered_and_nothing_else),
        cmocka_unit_test(the_order_of_seeing_does_not_matter),
        cmocka_unit_test(wildcards_below_wildcards_are_left_out),
        cmocka_unit_test(three_siblings_are_three_names),
        cmocka_unit_test(nothing_seen_is_nothing_allowed),
        cmocka_unit_test(more_than_fits_is_counted),
        cmocka_unit_test(what_a_deny_rule_names_is_not_proposed),
        cmocka_unit_test(a_wildcard_over_what_a_deny_rule_names_is_not_proposed),
        cmocka_unit_test(without_memory_nothing_is_left_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
