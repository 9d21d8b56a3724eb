/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/names.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/dns_scene.h"
#include "tests/support/test.h"

struct told {
    unsigned calls;
    bool is_over;
    struct names_answer answer;
    struct verdict why;
};

struct scene {
    struct dns_scene dns;
    struct names *names;
};

static void on_names(void *arg, const struct names_answer *a)
{
    struct told *t = arg;

    t->calls++;
    t->is_over = true;
    t->answer = *a;
    if (a->why)
        t->why = *a->why;
    t->answer.why = NULL;
}

static int setup(void **state)
{
    static const char *const allow[] = {
        "one.test",    "short.test",   "long.test",      "v4.test",
        "slow6.test",  "private.test", "mixed.test",     "rebind.test",
        "alias.test",  "nx.test",      "none.test",      "servfail.test",
        "silent.test", "*.wild.test",  "deep.wild.test", NULL};
    static struct scene scene;
    struct scene *s = &scene;
    char policy[4096];

    dns_scene_open(&s->dns, dns_scene_allow(policy, allow));
    s->names = names_new(&s->dns.ward, NULL);
    assert_non_null(s->names);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    names_free(s->names);
    dns_scene_close(&s->dns);
    return 0;
}

static void ask(struct scene *s, const char *name, int family, struct told *t)
{
    struct err e = {0};

    memset(t, 0, sizeof(*t));
    if (!names_ask(s->names, name, family, on_names, t, &e))
        fail_msg("%s: %s", name, e.msg);
    assert_int_equal(t->calls, 0);
    dns_scene_until(&s->dns, &t->is_over);
    assert_int_equal(t->calls, 1);
}

static const char *text(const struct told *t, size_t i)
{
    static char room[4][IP_TEXT_MAX];

    assert_true(i < t->answer.n);
    return ip_print(&t->answer.addr[i], room[i % 4]);
}

static void an_answer_is_kept_for_its_time(void **state)
{
    struct scene *s = *state;
    struct told t;

    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    assert_string_equal(text(&t, 0), "203.0.113.7");
    assert_int_equal(t.answer.ttl_s, 300);
    assert_int_equal(s->dns.up.asked, 1);
    ask(s, "one.test", AF_INET, &t);
    assert_string_equal(text(&t, 0), "203.0.113.7");
    assert_in_range(t.answer.ttl_s, 290, 300);
    assert_int_equal(s->dns.up.asked, 1);
    ask(s, "one.test", AF_INET6, &t); /* another question */
    assert_string_equal(text(&t, 0), "2001:db8::7");
    assert_int_equal(s->dns.up.asked, 2);
    ask(s, "one.test", AF_UNSPEC, &t);
    assert_int_equal(t.answer.n, 2);
    assert_string_equal(text(&t, 0), "2001:db8::7");
    assert_string_equal(text(&t, 1), "203.0.113.7");
    assert_int_equal(s->dns.up.asked, 2);
}

static void lifetimes_are_kept_within_bounds(void **state)
{
    struct scene *s = *state;
    struct told t;

    ask(s, "short.test", AF_INET, &t);
    assert_int_equal(t.answer.ttl_s, NAMES_TTL_MIN_S);
    ask(s, "long.test", AF_INET, &t);
    assert_int_equal(t.answer.ttl_s, NAMES_TTL_MAX_S - NAMES_GRACE_S);
}

static void both_families_are_one_answer(void **state)
{
    struct scene *s = *state;
    struct told t;

    ask(s, "v4.test", AF_UNSPEC, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    assert_int_equal(t.answer.n, 1);
    /* the family that answered does not wait for the silent one */
    ask(s, "slow6.test", AF_UNSPEC, &t);
    assert_int_equal(t.answer.n, 1);
    ask(s, "nx.test", AF_UNSPEC, &t);
    assert_int_equal(t.answer.result, NAMES_NOT_FOUND);
    ask(s, "none.test", AF_UNSPEC, &t);
    assert_int_equal(t.answer.result, NAMES_EMPTY);
}

static void what_is_not_there_is_remembered_shortly_and_failure_is_not(void **state)
{
    struct scene *s = *state;
    unsigned before;
    struct told t;

    for (int i = 0; i < 2; i++) {
        ask(s, "nx.test", AF_INET, &t);
        assert_int_equal(t.answer.result, NAMES_NOT_FOUND);
        ask(s, "v4.test", AF_INET6, &t);
        assert_int_equal(t.answer.result, NAMES_EMPTY);
    }
    assert_int_equal(s->dns.up.asked, 2);
    ask(s, "servfail.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_FAILED);
    before = s->dns.up.asked;
    ask(s, "servfail.test", AF_INET, &t);
    assert_true(s->dns.up.asked > before);
}

static void private_and_metadata_addresses_are_left_out(void **state)
{
    struct scene *s = *state;
    struct told t;

    ask(s, "mixed.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    assert_int_equal(t.answer.n, 1);
    assert_string_equal(text(&t, 0), "203.0.113.7");
    ask(s, "private.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_FLOOR);
    assert_int_equal(t.answer.n, 0);
    assert_int_equal(t.why.stage, VERDICT_FLOOR);
    assert_non_null(strstr(t.why.text, "floor"));
    ask(s, "private.test", AF_UNSPEC, &t);
    assert_int_equal(t.answer.result, NAMES_FLOOR);
}

static void the_hosts_own_addresses_are_floor(void **state)
{
    struct scene *s = *state;
    struct ip_net own;
    struct told t;

    assert_int_equal(ip_net_parse(span_str("203.0.113.7"), &own), 0);
    s->dns.guard.floor = (struct floor){&own, 1};
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_FLOOR);
    /* that changes, and what was cached with it */
    s->dns.guard.floor = (struct floor){NULL, 0};
    names_reload(s->names);
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    s->dns.guard.floor = (struct floor){&own, 1};
    names_reload(s->names);
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_FLOOR);
    s->dns.guard.floor = (struct floor){NULL, 0};
}

static void a_private_address_that_a_rule_covers_is_given(void **state)
{
    struct scene *s = *state;
    struct told t;

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":"
                              "[\"private.test\",\"10.0.0.0/24\"]}");
    ask(s, "private.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    assert_string_equal(text(&t, 0), "10.0.0.1");
}

static void the_same_question_is_asked_once(void **state)
{
    struct scene *s = *state;
    struct told t[50];

    memset(t, 0, sizeof(t));
    for (size_t i = 0; i < COUNT_OF(t); i++)
        assert_non_null(names_ask(s->names, "one.test", i % 2 ? AF_INET : AF_UNSPEC,
                                  on_names, &t[i], NULL));
    for (size_t i = 0; i < COUNT_OF(t); i++)
        dns_scene_until(&s->dns, &t[i].is_over);
    assert_int_equal(s->dns.up.asked, 2); /* one a family */
    for (size_t i = 0; i < COUNT_OF(t); i++)
        assert_int_equal(t[i].calls, 1);
}

static void a_caller_may_leave_and_the_others_are_answered(void **state)
{
    struct scene *s = *state;
    struct told gone = {0}, stays = {0};
    struct names_ask *a, *b, *none = NULL;

    a = names_ask(s->names, "one.test", AF_UNSPEC, on_names, &gone, NULL);
    b = names_ask(s->names, "one.test", AF_UNSPEC, on_names, &stays, NULL);
    assert_true(a && b);
    names_cancel(&a);
    names_cancel(&none);
    assert_null(a);
    dns_scene_until(&s->dns, &stays.is_over);
    assert_int_equal(gone.calls, 0);
    /* and with its answer already on the way */
    a = names_ask(s->names, "one.test", AF_UNSPEC, on_names, &gone, NULL);
    names_cancel(&a);
    dns_scene_for(&s->dns, 5);
    assert_int_equal(gone.calls, 0);
    /* what is left when the table goes is not called */
    assert_non_null(names_ask(s->names, "silent.test", AF_INET, on_names, &gone, NULL));
}

static void names_under_a_wildcard_are_counted(void **state)
{
    struct scene *s = *state;
    char name[64];
    struct told t;

    dns_scene_policy(&s->dns,
                     "{\"version\":1,\"name\":\"t\",\"limits\":{\"names\":3},"
                     "\"allow\":[\"*.wild.test\",\"one.test\",\"exact.wild.test\"]}");
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof(name), "n%d.wild.test", i);
        ask(s, name, AF_UNSPEC, &t);
        assert_int_equal(t.answer.result, NAMES_OK);
    }
    ask(s, "n3.wild.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_LIMIT);
    assert_int_equal(t.why.stage, VERDICT_LIMIT);
    assert_non_null(strstr(t.why.text, "names"));
    assert_string_not_equal(s->dns.up.last, "n3.wild.test"); /* was not asked */
    /* what is known, named by a rule, or learned goes on */
    ask(s, "n0.wild.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    ask(s, "exact.wild.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
    /* also when the table has forgotten it */
    (void)snprintf(s->dns.guard.resolvers, sizeof(s->dns.guard.resolvers), "%.30s,%.30s",
                   s->dns.up.servers, s->dns.up.servers);
    names_reload(s->names);
    ask(s, "n1.wild.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_OK);
}

static void too_many_questions_upstream_wait_for_nobody(void **state)
{
    struct scene *s = *state;
    struct told t = {0};
    struct err e = {0};
    char name[64];
    int i;

    for (i = 0; i < NAMES_ASKING_MAX; i++) {
        (void)snprintf(name, sizeof(name), "silent.n%d.wild.test", i);
        assert_non_null(names_ask(s->names, name, AF_INET, on_names, &t, NULL));
    }
    assert_null(names_ask(s->names, "one.test", AF_INET, on_names, &t, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(t.calls, 0);
}

static void a_table_that_is_full_forgets_what_was_used_longest_ago(void **state)
{
    struct scene *s = *state;
    struct told t;
    char name[64];
    unsigned before;

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"limits\":{\"names\":9000},"
                              "\"allow\":[\"*.wild.test\",\"one.test\"]}");
    ask(s, "one.test", AF_INET, &t);
    for (int i = 0; i < NAMES_CACHE_MAX; i++) {
        (void)snprintf(name, sizeof(name), "n%d.wild.test", i);
        ask(s, name, AF_INET, &t);
        assert_int_equal(t.answer.result, NAMES_OK);
        if (i == 100)
            ask(s, "n1.wild.test", AF_INET, &t);
    }
    before = s->dns.up.asked;
    ask(s, "n1.wild.test", AF_INET, &t);
    assert_int_equal(s->dns.up.asked, before);
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(s->dns.up.asked, before + 1);
}

static void another_policy_forgets_what_it_does_not_allow(void **state)
{
    struct scene *s = *state;
    struct told t;

    ask(s, "one.test", AF_INET, &t);
    ask(s, "alias.test", AF_INET, &t);
    assert_string_equal(text(&t, 0), "203.0.113.8");
    assert_int_equal(s->dns.up.asked, 2);
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[\"one.test\"],"
                              "\"deny\":[\"203.0.113.8\"]}");
    names_reload(s->names);
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(s->dns.up.asked, 2);
    /* other resolvers: nothing is believed any more */
    (void)snprintf(s->dns.guard.resolvers, sizeof(s->dns.guard.resolvers), "%.30s,%.30s",
                   s->dns.up.servers, s->dns.up.servers);
    names_reload(s->names);
    ask(s, "one.test", AF_INET, &t);
    assert_int_equal(s->dns.up.asked, 3);
}

static void
an_answer_that_comes_after_the_policy_changed_is_judged_by_the_new(void **state)
{
    struct scene *s = *state;
    struct told t = {0};

    assert_non_null(names_ask(s->names, "one.test", AF_INET, on_names, &t, NULL));
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[\"one.test\"],"
                              "\"deny\":[\"203.0.113.7:443\"]}");
    names_reload(s->names);
    dns_scene_until(&s->dns, &t.is_over);
    assert_int_equal(t.answer.n, 0);
}

static void why_outlives_the_policy_that_said_it(void **state)
{
    struct scene *s = *state;
    struct told t = {0};

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"limits\":{\"names\":1},"
                              "\"allow\":[\"*.wild.test\"]}");
    ask(s, "a.wild.test", AF_INET, &t);
    ask(s, "b.wild.test", AF_INET, &t);
    assert_non_null(t.why.rule);
    memset(&t, 0, sizeof(t));
    assert_non_null(names_ask(s->names, "c.wild.test", AF_INET, on_names, &t, NULL));
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[\"one.test\"]}");
    names_reload(s->names);
    dns_scene_until(&s->dns, &t.is_over);
    assert_int_equal(t.answer.result, NAMES_LIMIT);
    assert_null(t.why.rule);
    assert_non_null(strstr(t.why.text, "*.wild.test"));
}

static void rebinding_is_seen(void **state)
{
    struct scene *s = *state;
    struct told t;

    ask(s, "rebind.test", AF_INET, &t);
    assert_string_equal(text(&t, 0), "203.0.113.9");
    /* asked anew, as after its time */
    (void)snprintf(s->dns.guard.resolvers, sizeof(s->dns.guard.resolvers), "%.30s,%.30s",
                   s->dns.up.servers, s->dns.up.servers);
    names_reload(s->names);
    ask(s, "rebind.test", AF_INET, &t);
    assert_int_equal(t.answer.result, NAMES_FLOOR);
    assert_int_equal(t.answer.n, 0);
}

static void no_memory_is_an_error_and_leaves_nothing(void **state)
{
    struct scene *s = *state;
    struct told t = {0};
    struct err e = {0};

    for (unsigned i = 1; i < 40; i++) {
        struct names_ask *a;

        mem_fault_at(i);
        a = names_ask(s->names, "a.wild.test", AF_UNSPEC, on_names, &t, &e);
        mem_fault_at(0);
        if (!a) {
            assert_int_equal(e.code, ERR_NOMEM);
            continue;
        }
        dns_scene_until(&s->dns, &t.is_over);
        assert_true(i > 3);
        assert_true(t.answer.result == NAMES_OK || t.answer.result == NAMES_FAILED);
        return;
    }
    fail_msg("it always fails");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_answer_is_kept_for_its_time),
        TEST(lifetimes_are_kept_within_bounds),
        TEST(both_families_are_one_answer),
        TEST(what_is_not_there_is_remembered_shortly_and_failure_is_not),
        TEST(private_and_metadata_addresses_are_left_out),
        TEST(the_hosts_own_addresses_are_floor),
        TEST(a_private_address_that_a_rule_covers_is_given),
        TEST(the_same_question_is_asked_once),
        TEST(a_caller_may_leave_and_the_others_are_answered),
        TEST(names_under_a_wildcard_are_counted),
        TEST(too_many_questions_upstream_wait_for_nobody),
        TEST(a_table_that_is_full_forgets_what_was_used_longest_ago),
        TEST(another_policy_forgets_what_it_does_not_allow),
        TEST(an_answer_that_comes_after_the_policy_changed_is_judged_by_the_new),
        TEST(why_outlives_the_policy_that_said_it),
        TEST(rebinding_is_seen),
        TEST(no_memory_is_an_error_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
