/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/dns_ask.h"

#include <stdio.h>
#include <string.h>

#include "common/host.h"
#include "tests/support/child.h"
#include "tests/support/dns_scene.h"
#include "tests/support/test.h"

struct outcome {
    struct loop *loop;
    struct dns_upstream up;
    unsigned calls;
    bool has_answer;
    struct dns_answer answer;
    struct err why;
};

static void on_answer(void *arg, const struct dns_answer *a, const struct err *e)
{
    struct outcome *o = arg;

    o->calls++;
    o->has_answer = a != NULL;
    if (a)
        o->answer = *a;
    else
        o->why = *e;
    loop_stop(o->loop);
}

static void ask_at(struct outcome *o, const char *servers, const char *name,
                   uint16_t type)
{
    struct err e = {0};

    o->calls = 0;
    memset(&o->why, 0, sizeof(o->why));
    if (!dns_ask_start(o->loop, &(struct dns_ask_what){servers, name, type}, on_answer, o,
                       &e))
        fail_msg("%s", e.msg);
    assert_int_equal(o->calls, 0);
    loop_run(o->loop);
    assert_int_equal(o->calls, 1);
}

static void ask(struct outcome *o, const char *name, uint16_t type)
{
    ask_at(o, o->up.servers, name, type);
}

static int setup(void **state)
{
    struct outcome *o = mem_zalloc(1, sizeof(*o));
    struct err e = {0};

    assert_non_null(o);
    o->loop = loop_new(&e);
    assert_non_null(o->loop);
    dns_upstream_open(&o->up, o->loop);
    *state = o;
    return 0;
}

static int teardown(void **state)
{
    struct outcome *o = *state;

    dns_upstream_close(&o->up);
    loop_free(o->loop);
    mem_free(o);
    assert_int_equal(mem_live(), 0);
    return 0;
}

static const char *first(const struct outcome *o)
{
    static char text[IP_TEXT_MAX];

    assert_true(o->has_answer && o->answer.n > 0);
    return ip_print(&o->answer.addr[0], text);
}

static void both_types_are_asked_with_lifetimes(void **state)
{
    struct outcome *o = *state;

    ask(o, "one.test", DNS_A);
    assert_string_equal(first(o), "203.0.113.7");
    assert_int_equal(o->answer.ttl_s, 300);
    assert_int_equal(o->answer.n, 1);
    ask(o, "one.test", DNS_AAAA);
    assert_string_equal(first(o), "2001:db8::7");
    ask(o, "alias.test", DNS_A);
    assert_string_equal(first(o), "203.0.113.8");
    assert_int_equal(o->answer.ttl_s, 60);
    assert_int_equal(o->up.asked_tcp, 0);
}

static void no_name_and_no_address_are_told_apart(void **state)
{
    struct outcome *o = *state;

    ask(o, "nx.test", DNS_A);
    assert_true(o->has_answer && o->answer.rcode == DNS_NXDOMAIN);
    ask(o, "none.test", DNS_A);
    assert_true(o->has_answer && o->answer.rcode == DNS_NOERROR && o->answer.n == 0);
}

static void a_truncated_answer_is_asked_for_over_tcp(void **state)
{
    struct outcome *o = *state;

    ask(o, "cut.test", DNS_A);
    assert_int_equal(o->up.asked_tcp, 1);
    assert_string_equal(first(o), "203.0.113.1");
    ask(o, "thousand.test", DNS_A);
    assert_int_equal(o->up.asked_tcp, 2);
    assert_int_equal(o->answer.n, DNSMSG_ADDRS_MAX);
    assert_int_equal(o->answer.n_seen, 1000);
    ask(o, "cutoff.test", DNS_A);
    assert_false(o->has_answer);
}

static void a_server_that_knows_no_edns_is_asked_without(void **state)
{
    struct outcome *o = *state;

    ask(o, "formerr.test", DNS_A);
    assert_string_equal(first(o), "203.0.113.1");
    assert_int_equal(o->up.asked, 2);
}

static void broken_answers_are_no_answers(void **state)
{
    static const char *const name[] = {"loop.test", "pointer.test", "garbage.test"};
    struct outcome *o = *state;

    for (size_t i = 0; i < COUNT_OF(name); i++) {
        ask(o, name[i], DNS_A);
        if (o->has_answer || o->why.code != ERR_PROTO)
            fail_msg("%s: code %d, %s", name[i], o->why.code, o->why.msg);
    }
    ask(o, "servfail.test", DNS_A);
    assert_false(o->has_answer);
    assert_int_equal(o->why.code, ERR_NOTFOUND);
    ask(o, "refused.test", DNS_A);
    assert_int_equal(o->why.code, ERR_NOTFOUND);
}

static void on_one_of_three(void *arg, const struct dns_answer *a, const struct err *e)
{
    struct outcome *o = arg;

    assert_null(a);
    assert_int_equal(e->code, ERR_TIMEOUT);
    if (++o->calls == 3)
        loop_stop(o->loop);
}

static void answers_to_other_questions_are_not_listened_to(void **state)
{
    static const char *const name[] = {"wrongid.test", "other.test", "silent.test"};
    struct outcome *o = *state;
    struct dns_upstream second;
    char servers[64];

    dns_upstream_open(&second, o->loop);
    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%u,127.0.0.1:%u", o->up.port,
                   second.port);
    for (size_t i = 0; i < COUNT_OF(name); i++)
        assert_non_null(dns_ask_start(o->loop,
                                      &(struct dns_ask_what){servers, name[i], DNS_A},
                                      on_one_of_three, o, NULL));
    loop_run(o->loop);
    assert_true(second.asked >= 3 && o->up.asked >= 3);
    dns_upstream_close(&second);
}

static void a_server_that_is_not_there_is_passed_over(void **state)
{
    struct outcome *o = *state;
    char servers[64];

    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%u,127.0.0.1:%u",
                   child_free_port(), o->up.port);
    ask_at(o, servers, "one.test", DNS_A);
    assert_string_equal(first(o), "203.0.113.7");
    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%u", child_free_port());
    ask_at(o, servers, "one.test", DNS_A);
    assert_false(o->has_answer);
}

static void what_cannot_be_asked_is_said_at_once(void **state)
{
    struct outcome *o = *state;
    char long_name[HOST_MAX + 2];
    struct err e = {0};

    assert_null(dns_ask_start(o->loop, &(struct dns_ask_what){"", "one.test", DNS_A},
                              on_answer, o, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_null(dns_ask_start(
        o->loop, &(struct dns_ask_what){"nonsense", "a.test", DNS_A}, on_answer, o, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_null(dns_ask_start(
        o->loop, &(struct dns_ask_what){o->up.servers, "a..b", DNS_A}, on_answer, o, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    memset(long_name, 'a', HOST_MAX + 1);
    long_name[HOST_MAX + 1] = '\0';
    assert_null(dns_ask_start(o->loop,
                              &(struct dns_ask_what){o->up.servers, long_name, DNS_A},
                              on_answer, o, &e));
    assert_int_equal(o->calls, 0);
}

static void a_question_may_be_cancelled(void **state)
{
    struct outcome *o = *state;
    struct dns_ask *a, *none = NULL;

    o->calls = 0;
    a = dns_ask_start(o->loop, &(struct dns_ask_what){o->up.servers, "one.test", DNS_A},
                      on_answer, o, NULL);
    assert_non_null(a);
    dns_ask_cancel(&a);
    assert_null(a);
    dns_ask_cancel(&none);
    ask(o, "one.test", DNS_AAAA); /* the first one's answer is for nobody */
    assert_string_equal(first(o), "2001:db8::7");
}

static int start_and_cancel(void)
{
    struct err e = {0};
    struct loop *l = loop_new(&e);
    struct dns_ask *a;

    if (!l)
        return -1;
    a = dns_ask_start(l, &(struct dns_ask_what){"127.0.0.1:9", "one.test", DNS_A},
                      on_answer, NULL, &e);
    dns_ask_cancel(&a);
    loop_free(l);
    return e.code ? -1 : 0;
}

static void no_memory_is_an_error(void **state)
{
    struct err e = {0};
    struct dns_ask *a;
    struct outcome *o = *state;

    assert_int_equal(start_and_cancel(), 0);
    mem_fault_at(1);
    a = dns_ask_start(o->loop, &(struct dns_ask_what){o->up.servers, "one.test", DNS_A},
                      on_answer, o, &e);
    mem_fault_at(0);
    assert_null(a);
    assert_int_equal(e.code, ERR_NOMEM);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(both_types_are_asked_with_lifetimes),
        TEST(no_name_and_no_address_are_told_apart),
        TEST(a_truncated_answer_is_asked_for_over_tcp),
        TEST(a_server_that_knows_no_edns_is_asked_without),
        TEST(broken_answers_are_no_answers),
        TEST(answers_to_other_questions_are_not_listened_to),
        TEST(a_server_that_is_not_there_is_passed_over),
        TEST(what_cannot_be_asked_is_said_at_once),
        TEST(a_question_may_be_cancelled),
        TEST(no_memory_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
