/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/oci_config.h"

#include "tests/support/test.h"

#include <string.h>

#include "common/json.h"

#define HOOK                                                                             \
    "{\"path\":\"/sbin/agentd\",\"args\":[\"agentd\",\"egress\",\"hook\"],\"timeout\":"  \
    "60}"
#define POLICY "\"agentd.egress.policy\":\"/p\""

static const struct oci_change given = {.program = "/sbin/agentd", .policy = "/p"};
static const struct oci_change with_tier = {
    .program = "/sbin/agentd", .policy = "/p", .tier = "veth"};
static const struct oci_change from_annotation = {.program = "/sbin/agentd"};
static const struct oci_change tier_only = {.program = "/sbin/agentd", .tier = "veth"};
static const struct oci_change with_socket = {
    .program = "/sbin/a\"b", .policy = "/p", .socket = "/run/s"};

static void the_hook_is_added_and_all_else_stays_byte_for_byte(void **state)
{
    static const struct {
        const struct oci_change *c;
        const char *text, *want;
    } rows[] = {
        {&given, "{}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "]},\"annotations\":{" POLICY "}}"},
        /* Numbers that no double and no int64 holds, spaces, order, escapes. */
        {&given,
         "{ \"a\" : [18446744073709551615, 1.10, -0, 1E5],\n\t\"\\u0062\": "
         "\"\\u00e9\\/\" "
         "}\n",
         "{\"hooks\":{\"createRuntime\":[" HOOK "]},\"annotations\":{" POLICY
         "}, \"a\" : [18446744073709551615, 1.10, -0, 1E5],\n\t\"\\u0062\": "
         "\"\\u00e9\\/\" }\n"},
        {&given,
         "{\"hooks\":{\"prestart\":[{\"path\":\"/x\"}]},\"annotations\":{\"k\":\"v\"}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "],\"prestart\":[{\"path\":\"/x\"}]},"
         "\"annotations\":{\"k\":\"v\"," POLICY "}}"},
        {&given, "{\"hooks\":{ },\"annotations\":null}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "] },\"annotations\":{" POLICY "}}"},
        {&given, "{\"hooks\":null,\"annotations\":{}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "]},\"annotations\":{" POLICY "}}"},
        {&given, "{\"hooks\":{\"createRuntime\":null},\"annotations\":{}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "]},\"annotations\":{" POLICY "}}"},
        {&given, "{\"hooks\":{\"createRuntime\":[ ]},\"annotations\":{}}",
         "{\"hooks\":{\"createRuntime\":[ " HOOK "]},\"annotations\":{" POLICY "}}"},
        /* The others run first. */
        {&given,
         "{\"hooks\":{\"createRuntime\":[{\"path\":\"/x\"} ]},\"annotations\":{}}",
         "{\"hooks\":{\"createRuntime\":[{\"path\":\"/x\"} ," HOOK
         "]},\"annotations\":{" POLICY "}}"},
        /* What the container's own annotations say does not count. */
        {&given,
         "{\"annotations\":{\"agentd.egress.policy\":\"production\",\"a\":\"b\","
         "\"agentd.egress.tier\":\"veth\",\"agentd.egress.name\":\"x\","
         "\"Agentd.Egress.policy\":\"y\"}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "]},\"annotations\":{\"a\":\"b\"," POLICY
         "}}"},
        {&with_tier, "{\"annotations\":{}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK "]},\"annotations\":{" POLICY
         ",\"agentd.egress.tier\":\"veth\"}}"},
        {&from_annotation, "{\"annotations\":{\"agentd.egress.policy\":\"build\"}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK
         "]},\"annotations\":{\"agentd.egress.policy\":\"build\"}}"},
        {&tier_only,
         "{\"annotations\":{\"agentd.egress.policy\":\"build\","
         "\"agentd.egress.tier\":\"sealed\"}}",
         "{\"hooks\":{\"createRuntime\":[" HOOK
         "]},\"annotations\":{\"agentd.egress.policy\":\"build\","
         "\"agentd.egress.tier\":\"veth\"}}"},
        {&with_socket, "{\"annotations\":{}}",
         "{\"hooks\":{\"createRuntime\":[{\"path\":\"/sbin/a\\\"b\",\"args\":[\"agentd\","
         "\"egress\",\"hook\",\"--socket\",\"/run/s\"],\"timeout\":60}]},"
         "\"annotations\":{" POLICY "}}"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        AUTO(buf_done)
        struct buf once = BUF_INIT;
        AUTO(buf_done)
        struct buf twice = BUF_INIT;
        struct err e;

        if (oci_config_change(span_str(rows[i].text), rows[i].c, &once, &e) < 0)
            fail_msg("%s: %s", rows[i].text, e.msg);
        if (!span_eq(buf_span(&once), span_str(rows[i].want)))
            fail_msg("%s:\n%.*s\nnot\n%s", rows[i].text, SPAN_FMT(buf_span(&once)),
                     rows[i].want);
        assert_int_equal(oci_config_change(buf_span(&once), rows[i].c, &twice, &e), 0);
        assert_true(span_eq(buf_span(&once), buf_span(&twice)));
    }
}

static void what_could_lose_the_hook_is_refused(void **state)
{
    static const struct {
        const struct oci_change *c;
        const char *text, *says;
    } bad[] = {
        {&given, "", "config.json"},
        {&given, "[]", "no object"},
        {&given, "{", "config.json"},
        {&given, "{}}", "config.json"},
        {&given, "{\"hooks\":[]}", "\"hooks\" is an array"},
        {&given, "{\"hooks\":1}", "\"hooks\" is"},
        {&given, "{\"hooks\":{\"createRuntime\":{}}}", "\"createRuntime\" is an object"},
        {&given, "{\"annotations\":[]}", "\"annotations\" is"},
        {&given, "{\"annotations\":{\"a\":1}}", "annotation \"a\""},
        {&given, "{\"hooks\":{},\"hooks\":{}}", "duplicate"},
        /* Go's decoder takes these for the same, and the last one counts. */
        {&given, "{\"hooks\":{},\"Hooks\":{}}", "almost"},
        {&given, "{\"hooks\":{\"CreateRuntime\":[]}}", "almost"},
        {&given, "{\"Annotations\":{}}", "almost"},
        {&given, "{\"HOOKS\":null}", "almost"},
        /* Names that only a decoder sees. */
        {&given, "{\"\\u0068ooks\":{}}", "escapes"},
        {&given, "{\"\\u0068ooks\":null}", "changed"},
        {&given, "{\"hooks\":{\"\\u0063reateRuntime\":[]}}", "escapes"},
        {&given, "{\"hooks\":{\"\\u0063reateRuntime\":null}}", "changed"},
        {&given, "{\"\\u0061nnotations\":{}}", "escapes"},
        {&given, "{\"\\u0061nnotations\":null}", "changed"},
        {&from_annotation, "{}", "agentd.egress.policy"},
        {&from_annotation, "{\"annotations\":{\"agentd.egress.tier\":\"veth\"}}",
         "agentd.egress.policy"},
        {&tier_only, "{\"annotations\":null}", "agentd.egress.policy"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        AUTO(buf_done)
        struct buf b = BUF_INIT;
        struct err e;

        if (oci_config_change(span_str(bad[i].text), bad[i].c, &b, &e) == 0)
            fail_msg("taken: %s:\n%.*s", bad[i].text, SPAN_FMT(buf_span(&b)));
        assert_int_equal(b.len, 0);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: says \"%s\"", bad[i].text, e.msg);
    }
}

static void a_config_over_its_cap_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    struct err e;

    (void)state;
    assert_int_equal(buf_reserve(&text, OCI_CONFIG_MAX + 1, SIZE_MAX), 0);
    memset(text.p, ' ', OCI_CONFIG_MAX + 1);
    memcpy(text.p, "{}", 2);
    text.len = OCI_CONFIG_MAX;
    assert_int_equal(oci_config_change(buf_span(&text), &given, &out, &e), 0);
    text.len++;
    assert_int_equal(oci_config_change(buf_span(&text), &given, &out, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
}

static int change(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    return oci_config_change(
        span_str("{\"hooks\":{\"createRuntime\":[1]},\"annotations\":{\"a\":\"b\"}}"),
        &with_socket, &b, NULL);
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(change());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hook_is_added_and_all_else_stays_byte_for_byte),
        cmocka_unit_test(what_could_lose_the_hook_is_refused),
        cmocka_unit_test(a_config_over_its_cap_is_refused),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
