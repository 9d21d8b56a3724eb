/* SPDX-License-Identifier: MIT */
#include "common/control.h"

#include <stdio.h>

#include "common/limits.h"
#include "tests/support/test.h"

/* Each message as it is printed, and read back from that to the same text. */
static void assert_round_trip(const struct control_msg *m, const char *json)
{
    AUTO(buf_done)
    struct buf once = BUF_INIT;
    AUTO(buf_done)
    struct buf twice = BUF_INIT;
    struct control_msg back;
    struct err e = {0};

    assert_int_equal(control_print(m, &once), 0);
    assert_int_equal(buf_add(&once, "", 1), 0);
    assert_string_equal((const char *)once.p, json);
    once.len--;
    if (control_parse(buf_span(&once), &back, &e) != 0)
        fail_msg("%s: %s", json, e.msg);
    assert_int_equal(back.type, m->type);
    assert_int_equal(control_print(&back, &twice), 0);
    assert_true(span_eq(buf_span(&once), buf_span(&twice)));
}

static const struct control_msg HELLO = {
    .type = CONTROL_HELLO,
    .u.hello = {.version = 1,
                .instance = "f00",
                .agent = "agentd/0.1.0",
                .hostname = "box",
                .window = 65536,
                .max_streams = 1024,
                .excluded = {.range = {{22, 22}, {5000, 6000}}, .n = 2}}};

static void every_message_comes_back_as_it_was_printed(void **state)
{
    struct control_msg m;

    (void)state;
    assert_round_trip(
        &HELLO, "{\"type\":\"hello\",\"version\":1,\"instance\":\"f00\","
                "\"agent\":\"agentd/0.1.0\",\"hostname\":\"box\",\"window\":65536,"
                "\"max_streams\":1024,\"excluded\":\"22,5000-6000\",\"features\":[]}");
    m = (struct control_msg){.type = CONTROL_WELCOME,
                             .u.welcome = {.version = 1,
                                           .window = 65536,
                                           .max_streams = 0,
                                           .url_form = "https://{port}-demo.x/"}};
    assert_round_trip(&m, "{\"type\":\"welcome\",\"version\":1,\"window\":65536,"
                          "\"max_streams\":0,\"url_form\":\"https://{port}-demo.x/\","
                          "\"features\":[]}");
    m = (struct control_msg){.type = CONTROL_PORT,
                             .u.port = {.port = 3000,
                                        .visibility = CONTROL_PUBLIC,
                                        .host_mode = CONTROL_PRESERVE,
                                        .name = "shop",
                                        .process = "no\"de",
                                        .address = "::1"}};
    assert_round_trip(&m, "{\"type\":\"port\",\"port\":3000,\"visibility\":\"public\","
                          "\"host_mode\":\"preserve\",\"name\":\"shop\","
                          "\"process\":\"no\\\"de\",\"address\":\"::1\"}");
    m = (struct control_msg){.type = CONTROL_GONE, .u.port = {.port = 65535}};
    assert_round_trip(&m, "{\"type\":\"gone\",\"port\":65535}");
    m = (struct control_msg){.type = CONTROL_URL,
                             .u.url = {.port = 1, .url = "https://1-demo.x/"}};
    assert_round_trip(
        &m,
        "{\"type\":\"url\",\"port\":1,\"url\":\"https://1-demo.x/\",\"public\":false}");
    m = (struct control_msg){.type = CONTROL_URL,
                             .u.url = {.port = 1, .is_refused = true, .why = "No."}};
    assert_round_trip(&m, "{\"type\":\"url\",\"port\":1,\"refused\":\"No.\"}");
    m = (struct control_msg){.type = CONTROL_GOAWAY,
                             .u.goaway = {.reason = "replaced",
                                          .by = "box f00",
                                          .at = "2026-11-21T12:00:00Z",
                                          .retry_after_ms = 500}};
    assert_round_trip(&m,
                      "{\"type\":\"goaway\",\"reason\":\"replaced\",\"by\":\"box f00\","
                      "\"at\":\"2026-11-21T12:00:00Z\",\"retry_after_ms\":500}");
}

static void absent_members_have_their_defaults(void **state)
{
    struct control_msg m;

    (void)state;
    assert_int_equal(
        control_parse(span_str("{\"port\":3000,\"type\":\"port\",\"later\":[{}]}"), &m,
                      NULL),
        0);
    assert_int_equal(m.u.port.visibility, CONTROL_DEFAULT);
    assert_int_equal(m.u.port.host_mode, CONTROL_LOCALHOST);
    assert_string_equal(m.u.port.name, "");
    assert_int_equal(
        control_parse(span_str("{\"type\":\"goaway\",\"reason\":\"drain\"}"), &m, NULL),
        0);
    assert_int_equal(m.u.goaway.retry_after_ms, 0);
}

static void a_message_of_a_later_version_is_ignored(void **state)
{
    struct control_msg m = {.type = CONTROL_GONE};

    (void)state;
    assert_int_equal(control_parse(span_str("{\"type\":\"resume\",\"x\":1}"), &m, NULL),
                     1);
    assert_int_equal(m.type, CONTROL_GONE);
    assert_int_equal(control_parse(span_str("{\"type\":\"hello\",\"version\":2,"
                                            "\"instance\":\"i\",\"window\":1,"
                                            "\"max_streams\":1,"
                                            "\"features\":[\"resume\"]}"),
                                   &m, NULL),
                     0);
    assert_int_equal(m.u.hello.version, 2);
}

#define HELLO_REST "\"instance\":\"i\",\"window\":1,\"max_streams\":1"
#define CHARS_16   "0123456789abcdef"

static void a_broken_message_is_refused_by_member_and_rule(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "line 1"},
        {"[]", "must be an object"},
        {"{}", "\"type\" is missing"},
        {"{\"type\":1}", "\"type\" must be a string"},
        {"{\"type\":\"gone\",\"type\":\"port\",\"port\":1}", "duplicate"},
        {"{\"type\":\"gone\"}", "\"port\" is missing"},
        {"{\"type\":\"gone\",\"port\":0}", "\"port\" is out of range"},
        {"{\"type\":\"gone\",\"port\":65536}", "\"port\" is out of range"},
        {"{\"type\":\"gone\",\"port\":-1}", "\"port\" is out of range"},
        {"{\"type\":\"gone\",\"port\":\"3000\"}", "\"port\" must be an integer"},
        {"{\"type\":\"gone\",\"port\":3000.0}", "\"port\" must be an integer"},
        {"{\"type\":\"port\",\"port\":1,\"visibility\":\"Public\"}",
         "\"visibility\" is not one of its values"},
        {"{\"type\":\"port\",\"port\":1,\"visibility\":true}",
         "\"visibility\" must be a string"},
        {"{\"type\":\"port\",\"port\":1,\"host_mode\":\"\"}",
         "\"host_mode\" is not one of its values"},
        {"{\"type\":\"port\",\"port\":1,\"process\":\"a\\u001bb\"}",
         "\"process\" holds a control character"},
        {"{\"type\":\"port\",\"port\":1,\"process\":\"a\\u009b2Jb\"}",
         "\"process\" holds a control character"},
        {"{\"type\":\"port\",\"port\":1,\"process\":\"" CHARS_16 CHARS_16 CHARS_16
             CHARS_16 "0\"}",
         "\"process\" is too long"},
        {"{\"type\":\"port\",\"port\":1,\"name\":\"" CHARS_16 CHARS_16 CHARS_16 CHARS_16
         "\"}",
         "\"name\" is too long"},
        {"{\"type\":\"hello\"," HELLO_REST "}", "\"version\" is missing"},
        {"{\"type\":\"hello\",\"version\":0," HELLO_REST "}",
         "\"version\" is out of range"},
        {"{\"type\":\"hello\",\"version\":1,\"instance\":\"\",\"window\":1,"
         "\"max_streams\":1}",
         "\"instance\" must not be empty"},
        {"{\"type\":\"hello\",\"version\":1,\"instance\":\"i\",\"window\":0,"
         "\"max_streams\":1}",
         "\"window\" is out of range"},
        {"{\"type\":\"hello\",\"version\":1,\"instance\":\"i\",\"window\":4294967296,"
         "\"max_streams\":1}",
         "\"window\" is out of range"},
        {"{\"type\":\"hello\",\"version\":1," HELLO_REST ",\"excluded\":\"0\"}",
         "\"excluded\" must be a list of ports"},
        {"{\"type\":\"hello\",\"version\":1," HELLO_REST ",\"excluded\":[22]}",
         "\"excluded\" must be a string"},
        {"{\"type\":\"hello\",\"version\":1," HELLO_REST ",\"features\":[1]}",
         "\"features\" must be an array of strings"},
        {"{\"type\":\"welcome\",\"version\":1,\"window\":1,\"max_streams\":1}",
         "\"url_form\" is missing"},
        {"{\"type\":\"url\",\"port\":1}", "\"url\" must be there"},
        {"{\"type\":\"url\",\"port\":1,\"url\":\"u\",\"refused\":\"r\"}",
         "\"url\" must be there"},
        {"{\"type\":\"goaway\"}", "\"reason\" is missing"},
        {"{\"type\":\"goaway\",\"reason\":\"drain\",\"retry_after_ms\":-1}",
         "\"retry_after_ms\" is out of range"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        struct control_msg m = {.type = CONTROL_TYPE_COUNT};
        struct err e = {0};

        if (control_parse(span_str(bad[i].text), &m, &e) != -1)
            fail_msg("taken: %s", bad[i].text);
        assert_int_equal(e.code, ERR_PROTO);
        if (strstr(e.msg, bad[i].says) == NULL)
            fail_msg("%s: %s", bad[i].text, e.msg);
        assert_int_equal(m.type, CONTROL_TYPE_COUNT); /* untouched */
    }
}

static void a_message_one_byte_too_long_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct control_msg m;

    (void)state;
    assert_int_equal(buf_adds(&b, "{\"type\":\"gone\",\"port\":1}"), 0);
    while (b.len < CONTROL_MAX)
        assert_int_equal(buf_adds(&b, " "), 0);
    assert_int_equal(control_parse(buf_span(&b), &m, NULL), 0);
    assert_int_equal(buf_adds(&b, " "), 0);
    assert_int_equal(control_parse(buf_span(&b), &m, NULL), -1);
}

static int print_and_parse(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct control_msg m;
    struct err e = {0};

    if (control_print(&HELLO, &b) < 0) {
        assert_int_equal(b.len, 0); /* never half a message */
        return -1;
    }
    if (control_parse(buf_span(&b), &m, &e) < 0) {
        assert_int_equal(e.code, ERR_NOMEM);
        return -1;
    }
    return 0;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(print_and_parse());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_as_it_was_printed),
        cmocka_unit_test(absent_members_have_their_defaults),
        cmocka_unit_test(a_message_of_a_later_version_is_ignored),
        cmocka_unit_test(a_broken_message_is_refused_by_member_and_rule),
        cmocka_unit_test(a_message_one_byte_too_long_is_refused),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/control", tests, NULL, NULL);
}
