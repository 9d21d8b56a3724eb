/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/decision.h"

#include <stdio.h>

#include "tests/support/policy_text.h"
#include "tests/support/test.h"

#define NOW INT64_C(1800000000)

/* "name|address[:port][/udp]" */
static void ask(const struct policy *p, const struct floor *floor, const char *text,
                struct verdict *v)
{
    struct target t = {.protocol = IPPROTO_TCP};
    const char *bar = strchr(text, '|');
    struct span rest = span_str(bar ? bar + 1 : text);
    char name[HOST_MAX + 1];
    struct host h;

    if (rest.len > 4 && memcmp(rest.p + rest.len - 4, "/udp", 4) == 0) {
        t.protocol = IPPROTO_UDP;
        rest.len -= 4;
    }
    assert_int_equal(host_parse(rest, &h), 0);
    t.port = h.port;
    if (h.is_ip)
        assert_int_equal(ip_parse(span_str(h.name), &t.addr), 0);
    else
        t.name = h.name;
    if (bar) {
        assert_int_equal(host_name_parse(span_of(text, (size_t)(bar - text)), name), 0);
        t.name = name;
    }
    decide(p, floor, &t, NOW, v);
}

struct row {
    const char *target, *text; /* the verdict's text begins so */
    bool allowed;
    enum verdict_stage stage;
};

static void check_rows(const struct policy *p, const struct floor *floor,
                       const struct row *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct verdict v;

        ask(p, floor, row[i].target, &v);
        if (v.allowed != row[i].allowed || v.stage != row[i].stage ||
            strncmp(v.text, row[i].text, strlen(row[i].text)) != 0)
            fail_msg("%s: %d %d %s", row[i].target, v.allowed, v.stage, v.text);
        assert_true((v.rule != NULL) ==
                    (v.stage == VERDICT_ALLOW || v.stage == VERDICT_DENY));
    }
}

static void floor_deny_allow_default_in_this_order(void **state)
{
    static const struct row rows[] = {
        {"api.example.com:443", "allow rule 1 \"api.example.com:443/tcp\"", true,
         VERDICT_ALLOW},
        {"api.example.com", "allow rule 1", true, VERDICT_ALLOW},
        {"api.example.com:80", "default deny: allow rule 1", false, VERDICT_DEFAULT},
        {"api.example.com:443/udp", "floor: UDP", false, VERDICT_FLOOR},
        {"api.example.com|203.0.113.1:443", "allow rule 1", true, VERDICT_ALLOW},
        {"api.example.com|127.0.0.1:443", "floor: loopback (127.0.0.1)", false,
         VERDICT_FLOOR},
        {"api.example.com|169.254.169.254:443", "floor: cloud metadata", false,
         VERDICT_FLOOR},
        {"api.example.com|[64:ff9b::7f00:1]:443", "floor: loopback", false,
         VERDICT_FLOOR},
        {"api.example.com|10.0.0.1:443", "floor: private", false, VERDICT_FLOOR},
        {"www.tree.example.org:443", "allow rule 2", true, VERDICT_ALLOW},
        {"a.b.c.tree.example.org:443", "allow rule 2", true, VERDICT_ALLOW},
        {"a.b.c.d.tree.example.org:443",
         "default deny: allow rule 2 \"*.tree.example.org:443/tcp\" is for at most 3 "
         "labels",
         false, VERDICT_DEFAULT},
        {"tree.example.org:443", "default deny: no rule names tree.example.org port 443",
         false, VERDICT_DEFAULT},
        {"xtree.example.org:443", "default deny", false, VERDICT_DEFAULT},
        {"bad.tree.example.org:443",
         "deny rule 1 \"bad.tree.example.org:443/tcp\" (known)", false, VERDICT_DENY},
        {"bad.tree.example.org", "deny rule 1", false, VERDICT_DENY},
        {"a.b.c.d.e.f.evil.tree.example.org:443", "deny rule 2", false, VERDICT_DENY},
        {"db.example.com:5432", "allow rule 3", true, VERDICT_ALLOW},
        {"db.example.com:443", "default deny", false, VERDICT_DEFAULT},
        {"203.0.113.7:8080", "allow rule 4", true, VERDICT_ALLOW},
        {"203.0.113.66:8080", "deny rule 3", false, VERDICT_DENY},
        {"203.0.114.7:8080", "default deny: no rule names 203.0.114.7 port 8080", false,
         VERDICT_DEFAULT},
        {"10.1.2.3:22", "allow rule 5", true, VERDICT_ALLOW},
        {"10.1.2.3:23", "floor: private", false, VERDICT_FLOOR},
        {"10.2.2.3:22", "floor: private", false, VERDICT_FLOOR},
        {"api.example.com|10.1.2.3:22", "allow rule 5", true, VERDICT_ALLOW},
        {"no.example.net|10.1.2.3:22", "allow rule 5", true, VERDICT_ALLOW},
        {"api.example.com|203.0.113.66:443", "allow rule 1", true, VERDICT_ALLOW},
        {"old.example.com:443",
         "default deny: allow rule 6 \"old.example.com:443/tcp\" ended", false,
         VERDICT_DEFAULT},
        {"soon.example.com:443", "allow rule 7", true, VERDICT_ALLOW},
        {"[2001:db8:1::1]:443", "default deny", false, VERDICT_DEFAULT},
        {"[2001:db8::1]:443", "allow rule 8", true, VERDICT_ALLOW},
        {"8.8.8.8:53", "floor: port 53", false, VERDICT_FLOOR},
        {"8.8.8.8:53/udp", "floor: port 53", false, VERDICT_FLOOR},
        {"93.184.216.34:25", "default deny", false, VERDICT_DEFAULT},
    };
    struct policy *p = policy_text(
        "{\"version\": 1, \"allow\": [\"api.example.com\", \"*.tree.example.org\","
        " \"db.example.com:5432/tcp\", \"203.0.113.0/24:8080\", \"10.1.0.0/16:22\","
        " {\"to\": \"old.example.com\", \"expires\": \"2020-01-01T00:00:00Z\"},"
        " {\"to\": \"soon.example.com\", \"expires\": \"2099-01-01T00:00:00Z\"},"
        " \"[2001:db8::]/48\"],"
        " \"limits\": {\"labels\": 3},"
        " \"deny\": [{\"to\": \"bad.tree.example.org\", \"reason\": \"known\"},"
        " \"*.evil.tree.example.org\", \"203.0.113.64/26:8000-8999\"]}");

    (void)state;
    check_rows(p, NULL, rows, COUNT_OF(rows));
    policy_unref(p);
}

static void an_open_default_keeps_floor_and_deny(void **state)
{
    static const struct row rows[] = {
        {"www.example.com:443", "default allow", true, VERDICT_DEFAULT},
        {"www.example.com:25", "default allow", true, VERDICT_DEFAULT},
        {"www.example.com", "default allow", true, VERDICT_DEFAULT},
        {"bad.example.com:443", "deny rule 1", false, VERDICT_DENY},
        {"bad.example.com:80", "default allow", true, VERDICT_DEFAULT},
        {"bad.example.com", "default allow", true, VERDICT_DEFAULT},
        {"worse.example.com:80", "deny rule 2", false, VERDICT_DENY},
        {"worse.example.com", "deny rule 2", false, VERDICT_DENY},
        {"10.0.0.1:443", "floor: private", false, VERDICT_FLOOR},
        {"192.168.7.1:443", "allow rule 1", true, VERDICT_ALLOW},
        {"127.0.0.1:443", "floor: loopback", false, VERDICT_FLOOR},
        {"198.51.100.1:80", "deny rule 3", false, VERDICT_DENY},
        {"www.example.com|198.51.100.1:80", "deny rule 3", false, VERDICT_DENY},
    };
    struct policy *p = policy_text(
        "{\"version\": 1, \"default\": \"allow\", \"allow\": [\"192.168.7.0/24\"],"
        " \"deny\": [\"bad.example.com\", \"worse.example.com:1-65535\","
        " \"198.51.100.0/24:80\"]}");

    (void)state;
    check_rows(p, NULL, rows, COUNT_OF(rows));
    policy_unref(p);
}

static void a_question_is_allowed_while_a_port_is_left(void **state)
{
    static const struct row rows[] = {
        {"one.example.com", "allow rule 1", true, VERDICT_ALLOW}, /* 81 */
        {"two.example.com", "deny rule", false, VERDICT_DENY},    /* two rules together */
        {"three.example.com", "allow rule 3 \"*.example.com:9999/tcp\"", true,
         VERDICT_ALLOW},
    };
    struct policy *p =
        policy_text("{\"version\": 1, \"allow\": [\"one.example.com:80-81\","
                    " \"two.example.com:80-90\", \"*.example.com:9999\", "
                    "\"three.example.com:80-81\"],"
                    " \"deny\": [\"one.example.com:80\", \"two.example.com:85-95\","
                    " \"two.example.com:80-84\", \"two.example.com:9000-10000\","
                    " \"three.example.com:80\", \"three.example.com:81-90\"]}");

    (void)state;
    check_rows(p, NULL, rows, COUNT_OF(rows));
    policy_unref(p);
}

static void the_machines_own_addresses_cannot_be_allowed(void **state)
{
    static const struct row rows[] = {
        {"203.0.113.9:443", "floor: an address of this machine", false, VERDICT_FLOOR},
        {"203.0.113.8:443", "allow rule 1", true, VERDICT_ALLOW},
        {"www.example.com|203.0.113.9:443", "floor: an address of this machine", false,
         VERDICT_FLOOR},
        {"10.0.0.9:443", "floor: an address of this machine", false, VERDICT_FLOOR},
        {"10.0.0.8:443", "allow rule 2", true, VERDICT_ALLOW},
    };
    struct policy *p = policy_text("{\"version\": 1, \"allow\": [\"203.0.113.0/24\","
                                   " \"10.0.0.0/8\", \"www.example.com\"]}");
    struct ip_net own[2];
    struct floor floor = {own, 2};

    (void)state;
    assert_int_equal(ip_net_parse(span_str("203.0.113.9"), &own[0]), 0);
    assert_int_equal(ip_net_parse(span_str("10.0.0.9"), &own[1]), 0);
    check_rows(p, &floor, rows, COUNT_OF(rows));
    policy_unref(p);
}

static void the_most_particular_rule_is_the_one_named(void **state)
{
    static const struct row rows[] = {
        {"a.b.example.com:443", "allow rule 3", true, VERDICT_ALLOW},
        {"c.b.example.com:443", "allow rule 2", true, VERDICT_ALLOW},
        {"c.example.com:443", "allow rule 1", true, VERDICT_ALLOW},
        {"203.0.113.1:443", "allow rule 6", true, VERDICT_ALLOW},
        {"203.0.113.2:443", "allow rule 5", true, VERDICT_ALLOW},
        {"203.0.112.2:443", "allow rule 4", true, VERDICT_ALLOW},
    };
    struct policy *p =
        policy_text("{\"version\": 1, \"allow\": [\"*.example.com\", \"*.b.example.com\","
                    " {\"to\": \"a.b.example.com\", \"tls\": false}, \"203.0.112.0/23\","
                    " \"203.0.113.0/24\", \"203.0.113.1\"]}");

    (void)state;
    check_rows(p, NULL, rows, COUNT_OF(rows));
    policy_unref(p);
}

static void ports_to_pin_are_those_of_narrow_rules(void **state)
{
    struct policy *p = policy_text(
        "{\"version\": 1, \"allow\": [\"a.example.com:8000-8003\", \"*.example.com\","
        " \"a.example.com:20000-20016\", \"a.example.com:52-54\","
        " {\"to\": \"a.example.com\", \"ports\": [22, 25, 8001],"
        "  \"expires\": \"2099-01-01T00:00:00Z\"},"
        " {\"to\": \"a.example.com\", \"ports\": 99,"
        "  \"expires\": \"2001-01-01T00:00:00Z\"}],"
        " \"deny\": [\"*.example.com:25\"]}");
    static const uint16_t want[] = {22, 52, 54, 443, 8000, 8001, 8002, 8003};
    uint16_t got[32];

    (void)state;
    assert_int_equal(decide_ports(p, "a.example.com", NOW, got, COUNT_OF(got)),
                     COUNT_OF(want));
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(decide_ports(p, "a.example.com", NOW, got, 2), 2);
    assert_int_equal(decide_ports(p, "b.example.com", NOW, got, COUNT_OF(got)), 1);
    assert_int_equal(got[0], 443);
    assert_int_equal(decide_ports(p, "example.com", NOW, got, COUNT_OF(got)), 0);
    policy_unref(p);
}

static void ports_are_right_at_the_ends_of_words(void **state)
{
    static const uint16_t want[] = {1,  60, 61,  62,  65,  66,    67,    68,
                                    69, 70, 127, 128, 129, 65530, 65531, 65534};
    struct policy *p = policy_text(
        "{\"version\": 1, \"allow\": [\"a.example:60-70\", \"a.example:65530-65535\","
        " \"a.example:1\", \"a.example:127-129\", \"b.example:64\", \"b.example:191\","
        " \"c.example:63-64\"],"
        " \"deny\": [\"a.example:63-64\", \"a.example:65532-65533\","
        " \"a.example:65535\", \"b.example:65-190\", \"b.example:1-63\","
        " \"b.example:192-65535\", \"c.example:1-63\", \"c.example:64-65535\"]}");
    struct target t = {.name = "b.example", .protocol = IPPROTO_TCP};
    uint16_t got[32];
    struct verdict v;

    (void)state;
    assert_int_equal(decide_ports(p, "a.example", NOW, got, COUNT_OF(got)),
                     COUNT_OF(want));
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(decide_ports(p, "b.example", NOW, got, COUNT_OF(got)), 2);
    assert_int_equal(got[0], 64);
    assert_int_equal(got[1], 191);
    decide(p, NULL, &t, NOW, &v);
    assert_true(v.allowed);
    assert_string_equal(v.rule->text, "b.example:64/tcp");
    t.name = "c.example";
    decide(p, NULL, &t, NOW, &v);
    assert_false(v.allowed);
    policy_unref(p);
}

static void only_tcp_and_questions_are_carried(void **state)
{
    static const struct {
        uint8_t protocol;
        uint16_t port;
        bool allowed;
    } rows[] = {{IPPROTO_TCP, 443, true},  {0, 443, true},
                {IPPROTO_UDP, 0, true},    {IPPROTO_UDP, 443, false},
                {IPPROTO_UDP, 53, false},  {IPPROTO_ICMP, 0, false},
                {IPPROTO_SCTP, 443, false}};
    struct policy *p = policy_text("{\"version\": 1, \"default\": \"allow\"}");
    struct verdict v;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct target t = {
            .name = "a.example", .port = rows[i].port, .protocol = rows[i].protocol};

        decide(p, NULL, &t, NOW, &v);
        assert_int_equal(v.allowed, rows[i].allowed);
    }
    policy_unref(p);
}

static void a_verdicts_text_is_never_half_a_character(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct target t = {.name = "a.example", .port = 443, .protocol = IPPROTO_TCP};
    struct policy *p;
    struct verdict v;

    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        text.len = 0;
        assert_int_equal(buf_adds(&text,
                                  "{\"version\": 1, \"allow\": [{\"to\": \"a.example\","
                                  "\"reason\": \""),
                         0);
        assert_int_equal(buf_add(&text, "xxxx", (size_t)shift), 0);
        for (int i = 0; i < 40; i++)
            assert_int_equal(buf_adds(&text, "\xe2\x82\xac"), 0);
        assert_int_equal(buf_adds(&text, "\"}]}"), 0);
        assert_int_equal(buf_add(&text, "", 1), 0);
        p = policy_text((const char *)text.p);
        decide(p, NULL, &t, NOW, &v);
        assert_true(v.allowed);
        assert_string_equal(v.text + strlen(v.text) - 4, "\xe2\x82\xac)");
        policy_unref(p);
    }
}

static void a_thousand_names_are_found(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct policy *p;
    struct verdict v;
    char target[64];

    (void)state;
    assert_int_equal(buf_adds(&text, "{\"version\": 1, \"allow\": [\"z.example.net\""),
                     0);
    for (unsigned i = 0; i < 4000; i++)
        assert_int_equal(buf_addf(&text, ",\"%sn%u.example.com\",\"10.%u.%u.0/24:%u\"",
                                  i % 2 ? "*." : "", i, i / 256, i % 256, i + 1000),
                         0);
    assert_int_equal(buf_adds(&text, "]}"), 0);
    assert_int_equal(buf_add(&text, "", 1), 0);
    p = policy_text((const char *)text.p);
    for (unsigned i = 0; i < 4000; i++) {
        (void)snprintf(target, sizeof target, "%sn%u.example.com:443", i % 2 ? "a." : "",
                       i);
        ask(p, NULL, target, &v);
        assert_true(v.allowed);
        assert_int_equal(v.rule->number, 1 + 2 * i);
        (void)snprintf(target, sizeof target, "%sn%u.example.com:443", i % 2 ? "" : "a.",
                       i);
        ask(p, NULL, target, &v);
        assert_false(v.allowed);
        (void)snprintf(target, sizeof target, "10.%u.%u.7:%u", i / 256, i % 256,
                       i + 1000);
        ask(p, NULL, target, &v);
        assert_true(v.allowed);
        assert_int_equal(v.rule->number, 2 + 2 * i);
    }
    policy_unref(p);
}

static void the_longest_name_is_walked_to_its_end(void **state)
{
    char name[HOST_MAX + 8];
    struct policy *p = policy_text("{\"version\": 1, \"allow\": [\"*.b.lan:1\"],"
                                   " \"deny\": [\"*.a.lan:1\"], \"default\": \"allow\","
                                   " \"limits\": {\"labels\": 127}}");
    struct target t = {.name = name, .port = 1, .protocol = IPPROTO_TCP};
    struct verdict v;

    (void)state;
    /* 124 labels of one letter, and two */
    for (size_t i = 0; i < 247; i++)
        name[i] = i % 2 ? '.' : 'x';
    memcpy(name + 246, "a.lan", 6);
    decide(p, NULL, &t, NOW, &v);
    assert_int_equal(v.stage, VERDICT_DENY);
    name[246] = 'b';
    decide(p, NULL, &t, NOW, &v);
    assert_int_equal(v.stage, VERDICT_ALLOW);
    policy_unref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floor_deny_allow_default_in_this_order),
        cmocka_unit_test(an_open_default_keeps_floor_and_deny),
        cmocka_unit_test(a_question_is_allowed_while_a_port_is_left),
        cmocka_unit_test(the_machines_own_addresses_cannot_be_allowed),
        cmocka_unit_test(the_most_particular_rule_is_the_one_named),
        cmocka_unit_test(ports_to_pin_are_those_of_narrow_rules),
        cmocka_unit_test(ports_are_right_at_the_ends_of_words),
        cmocka_unit_test(only_tcp_and_questions_are_carried),
        cmocka_unit_test(a_verdicts_text_is_never_half_a_character),
        cmocka_unit_test(a_thousand_names_are_found),
        cmocka_unit_test(the_longest_name_is_walked_to_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
