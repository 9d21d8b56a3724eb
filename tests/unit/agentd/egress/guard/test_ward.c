/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/ward.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agentd/egress/policy/learn.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

static const struct ip_net host_net = {{AF_INET, {203, 0, 113, 0}}, 24};

struct scene {
    struct guard guard;
    struct ward w;
    int fd; /* of the records */
};

static struct policy *policy(const char *mode)
{
    char text[256];

    (void)snprintf(text, sizeof(text),
                   "{\"version\":1,\"mode\":\"%s\",\"allow\":[\"api.example.com\"],"
                   "\"deny\":[\"evil.example.com:443\",\"192.0.3.1:443\"]}",
                   mode);
    return policy_text(text);
}

static int start(void **state)
{
    static struct scene s;

    memset(&s, 0, sizeof(s));
    s.fd = memfd_create("audit", MFD_CLOEXEC);
    s.guard.audit = audit_new(s.fd);
    s.guard.floor = (struct floor){.net = &host_net, .n = 1};
    s.w.guard = &s.guard;
    memcpy(s.w.name, "demo", 5);
    s.w.policy = policy("enforce");
    *state = &s;
    return s.fd < 0;
}

static int stop(void **state)
{
    struct scene *s = *state;

    policy_unref(s->w.policy);
    learn_free(s->w.learn);
    audit_free(s->guard.audit);
    (void)close(s->fd);
    return 0;
}

static void set_mode(struct scene *s, const char *mode)
{
    policy_unref(s->w.policy);
    s->w.policy = policy(mode);
}

static struct verdict decided(struct scene *s, const char *name, const uint8_t addr[4],
                              uint16_t port, bool *ret_would)
{
    struct target t = {.name = name, .port = port, .protocol = IPPROTO_TCP};
    struct verdict v;

    if (addr != NULL) {
        t.addr.family = AF_INET;
        memcpy(t.addr.bytes, addr, 4);
    }
    ward_decide(&s->w, &t, &v, ret_would);
    return v;
}

static void enforcing_refuses_what_the_policy_does(void **state)
{
    struct scene *s = *state;
    bool would = true;

    assert_true(decided(s, "api.example.com", NULL, 443, &would).allowed);
    assert_false(would);
    assert_false(decided(s, "www.example.com", NULL, 443, &would).allowed);
    assert_false(would);
    assert_false(decided(s, "evil.example.com", NULL, 443, &would).allowed);
    assert_false(would);
}

static void audit_and_learn_allow_and_say_that_they_would_not(void **state)
{
    static const char *const modes[] = {"audit", "learn"};
    struct scene *s = *state;

    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        struct verdict v;
        bool would = false;

        set_mode(s, modes[i]);
        v = decided(s, "evil.example.com", NULL, 443, &would);
        assert_true(v.allowed && would);
        assert_int_equal(v.stage, VERDICT_DENY);
        assert_non_null(v.rule);
        v = decided(s, "www.example.com", NULL, 443, &would);
        assert_true(v.allowed && would);
        assert_int_equal(v.stage, VERDICT_DEFAULT);
        assert_true(decided(s, "api.example.com", NULL, 443, &would).allowed);
        assert_false(would);
    }
}

static void no_mode_allows_the_floor(void **state)
{
    static const char *const modes[] = {"enforce", "audit", "learn"};
    static const uint8_t floors[][4] = {
        {127, 0, 0, 1}, {169, 254, 169, 254}, {10, 0, 0, 1}, {203, 0, 113, 9}};
    struct scene *s = *state;

    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        set_mode(s, modes[i]);
        for (size_t k = 0; k < COUNT_OF(floors); k++) {
            bool would = true;
            struct verdict v = decided(s, "api.example.com", floors[k], 443, &would);

            assert_false(v.allowed);
            assert_false(would);
            assert_int_equal(v.stage, VERDICT_FLOOR);
        }
    }
}

static void only_connections_of_mode_learn_are_learned(void **state)
{
    struct scene *s = *state;
    struct target name = {.name = "a.example.com", .port = 443};
    struct target addr = {.addr = {AF_INET, {198, 51, 100, 1}}, .port = 22};
    struct target question = {.name = "b.example.com"};

    ward_learn(&s->w, &name); /* fine: nothing learns */
    s->w.learn = learn_new();
    ward_learn(&s->w, &name);
    ward_learn(&s->w, &addr);
    ward_learn(&s->w, &question);
    name.addr = addr.addr; /* the name it came by */
    ward_learn(&s->w, &name);
    assert_int_equal(learn_count(s->w.learn), 2);
}

static void what_a_deny_rule_names_is_not_learned(void **state)
{
    struct scene *s = *state;
    struct target name = {.name = "evil.example.com", .port = 443};
    struct target other = {
        .name = "a.example.com", .addr = {AF_INET, {192, 0, 3, 1}}, .port = 443};

    s->w.learn = learn_new();
    ward_learn(&s->w, &name);
    ward_learn(&s->w, &other); /* its address */
    assert_int_equal(learn_count(s->w.learn), 0);
    name.port = 8443;
    other.addr.bytes[3] = 2;
    ward_learn(&s->w, &name);
    ward_learn(&s->w, &other);
    assert_int_equal(learn_count(s->w.learn), 2);
}

static void records_are_filled_in_and_counted(void **state)
{
    struct scene *s = *state;
    struct verdict v = {.stage = VERDICT_DEFAULT, .text = "default deny"};
    struct audit_record refusal = {.port = 443, .uid = UINT32_MAX, .verdict = &v};
    struct audit_record kernel = {
        .kind = AUDIT_REFUSED, .by = "kernel", .protocol = IPPROTO_UDP, .verdict = &v};
    struct audit_record name = {.kind = AUDIT_NAME, .name = "x.example", .verdict = &v};
    struct audit_record end = {.end = "closed", .started_ms = 1, .ended_ms = 2};
    static const char *const wanted[][6] = {
        {"\"kind\":\"refused\"", "\"by\":\"guard\"", "\"protocol\":\"tcp\"",
         "\"sandbox\":\"demo\"", "\"uid\":null", "\"verdict\":\"refused\""},
        {"\"kind\":\"refused\"", "\"by\":\"kernel\"", "\"protocol\":\"udp\"",
         "\"sandbox\":\"demo\"", "\"uid\":0", "\"stage\":\"default\""},
        {"\"kind\":\"name\"", "\"by\":\"dns\"", "\"name\":\"x.example\"",
         "\"sandbox\":\"demo\"", "\"protocol\":null", "\"reason\":\"default deny\""},
        {"\"kind\":\"connection\"", "\"by\":\"guard\"", "\"protocol\":\"tcp\"",
         "\"time\":\"1970-01-01T00:00:00.002Z\"",
         "\"started\":\"1970-01-01T00:00:00.001Z\"", "\"verdict\":\"allowed\""},
    };
    char text[8192] = "", *line = text, hash[POLICY_HASH_TEXT + 16];

    ward_record_refusal(&s->w, &refusal);
    ward_record_refusal(&s->w, &kernel);
    ward_record_refusal(&s->w, &name);
    ward_record_connection(&s->w, &end);
    assert_int_equal(s->w.counts.refused, 1); /* the kernel counts its own */
    assert_int_equal(s->w.counts.names_refused, 1);
    assert_true(refusal.ended_ms > 1700000000000);
    assert_true(pread(s->fd, text, sizeof(text) - 1, 0) > 0);
    (void)snprintf(hash, sizeof(hash), "\"policy\":\"%s\"", policy_hash(s->w.policy));
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        char *end_of_line = strchr(line, '\n');

        assert_non_null(end_of_line);
        *end_of_line = '\0';
        for (size_t k = 0; k < COUNT_OF(wanted[i]); k++)
            if (strstr(line, wanted[i][k]) == NULL)
                fail_msg("no %s in %s", wanted[i][k], line);
        assert_non_null(strstr(line, hash));
        line = end_of_line + 1;
    }
    assert_int_equal(*line, '\0');
}

#define SCENE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(enforcing_refuses_what_the_policy_does),
        SCENE(audit_and_learn_allow_and_say_that_they_would_not),
        SCENE(no_mode_allows_the_floor),
        SCENE(only_connections_of_mode_learn_are_learned),
        SCENE(what_a_deny_rule_names_is_not_learned),
        SCENE(records_are_filled_in_and_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
