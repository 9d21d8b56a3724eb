/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/veth_record.h"

#include "tests/support/test.h"

#include <string.h>

#include "common/json.h"

#define TEXT                                                                             \
    "{\"inside\":\"eth0\",\"port\":\"vport\",\"way\":\"br0\",\"inside_index\":2,"        \
    "\"port_index\":7,\"way_index\":3,\"bridged\":true,\"mac\":\"02:00:00:00:00:0a\","   \
    "\"gateway_mac\":\"02:00:00:00:00:01\",\"addr\":[\"10.1.0.2\",\"fe80::a\"],"         \
    "\"gateway4\":\"10.1.0.1\"}"

static int read_text(const char *text, struct veth *v, struct err *e)
{
    struct json *o = json_parse(span_str(text), 4096, e);
    int rc = o ? veth_record_read(o, v, e) : -1;

    json_free(o);
    return rc;
}

static void what_is_written_is_read_again(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct veth v, again;
    struct err e;

    (void)state;
    if (read_text(TEXT, &v, &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(v.port, "vport");
    assert_int_equal(v.mac[5], 10);
    assert_int_equal(v.n_addr, 2);
    assert_int_equal(v.gateway4.bytes[3], 1);
    assert_int_equal(veth_record_print(&v, &b), 0);
    assert_true(span_eq(buf_span(&b), span_str(TEXT)));

    v.gateway4 = (struct ip_addr){.family = 0};
    v.n_addr = 0;
    b.len = 0;
    assert_int_equal(veth_record_print(&v, &b), 0);
    assert_int_equal(buf_add(&b, "", 1), 0);
    assert_int_equal(read_text((const char *)b.p, &again, &e), 0);
    assert_int_equal(again.gateway4.family, 0);
    assert_true(veth_is_same(&v, &again));
}

/* The text with one piece of it replaced. */
static void put_changed(struct buf *b, const char *old, const char *with)
{
    const char *at = strstr(TEXT, old);

    assert_non_null(at);
    assert_int_equal(buf_add(b, TEXT, (size_t)(at - (const char *)TEXT)), 0);
    assert_int_equal(buf_adds(b, with), 0);
    assert_int_equal(buf_add(b, at + strlen(old), strlen(at + strlen(old)) + 1), 0);
}

static void what_was_not_written_so_is_refused(void **state)
{
    static const struct {
        const char *old, *with;
    } bad[] = {
        {"\"eth0\"", "\"\""},
        {"\"eth0\"", "\"a234567890123456\""}, /* one byte too long */
        {"\"vport\"", "\"../v\""},
        {"\"br0\"", "3"},
        {"\"inside_index\":2", "\"inside_index\":0"},
        {"\"port_index\":7", "\"port_index\":\"7\""},
        {"\"way_index\":3", "\"way_index\":2147483648"},
        {"true", "1"},
        {"02:00:00:00:00:0a", "02:00:00:00:00"},
        {"02:00:00:00:00:0a", "02:00:00:00:00:0a:"},
        {"02:00:00:00:00:0a", "02:00:00:00:00:0A"},
        {"02:00:00:00:00:01", ""},
        {"[\"10.1.0.2\",\"fe80::a\"]", "[\"10.1.0.2/16\"]"},
        {"[\"10.1.0.2\",\"fe80::a\"]", "[1]"},
        {"[\"10.1.0.2\",\"fe80::a\"]", "{}"},
        {"[\"10.1.0.2\",\"fe80::a\"]", "[\"::2\",\"::3\",\"::4\",\"::5\",\"::6\",\"::7\","
                                       "\"::8\",\"::9\",\"::a\"]"},
        {"\"10.1.0.1\"", "\"x\""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        AUTO(buf_done)
        struct buf b = BUF_INIT;
        struct veth v;
        struct err e;

        put_changed(&b, bad[i].old, bad[i].with);
        if (read_text((const char *)b.p, &v, &e) == 0)
            fail_msg("taken: %s", (const char *)b.p);
        assert_int_equal(e.code, ERR_CONFIG);
    }
    assert_int_equal(veth_record_read(NULL, &(struct veth){0}, NULL), -1);
    assert_int_equal(read_text("[]", &(struct veth){0}, NULL), -1);
    assert_int_equal(read_text("{}", &(struct veth){0}, NULL), -1);
}

static int write_and_free(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    const struct veth v = {.inside = "eth0", .port = "p", .way = "w", .n_addr = 0};

    return veth_record_print(&v, &b);
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(write_and_free());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(what_was_not_written_so_is_refused),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
