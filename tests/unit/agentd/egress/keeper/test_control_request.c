/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/control_request.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

#define P "\"policy\":{\"version\":1,\"allow\":[\"a.example\"]}"

static const struct {
    const char *line;
    enum control_op op;
    const char *name;
} good[] = {
    {"{\"op\":\"status\"}", CONTROL_STATUS, ""},
    {"{\"op\":\"status\",\"name\":\"a\"}", CONTROL_STATUS, "a"},
    {" { \"name\" : \"a-1\" , \"op\" : \"detach\" } ", CONTROL_DETACH, "a-1"},
    {"{\"op\":\"reload\",\"name\":\"a\"," P "}", CONTROL_RELOAD, "a"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P ",\"tier\":\"sealed\",\"pid\":2147483647}",
     CONTROL_ATTACH, "a"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P
     ",\"tier\":\"veth\",\"netns\":\"/run/netns/x\",\"iface\":\"eth0\"}",
     CONTROL_ATTACH, "a"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P
     ",\"tier\":\"sealed\",\"pid\":1,\"netns\":\"/proc/1/ns/net\"}",
     CONTROL_ATTACH, "a"},
};

static void what_the_header_shows_is_read(void **state)
{
    struct control_request r;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct err e = {0};

        if (control_request_parse(span_str(good[i].line), &r, &e) < 0)
            fail_msg("%s: %s", good[i].line, e.msg);
        assert_int_equal(r.op, good[i].op);
        assert_string_equal(r.name, good[i].name);
        if (r.op == CONTROL_ATTACH || r.op == CONTROL_RELOAD)
            assert_true(
                span_eq(r.policy, span_str("{\"version\":1,\"allow\":[\"a.example\"]}")));
        control_request_done(&r);
    }
}

static void an_attach_gives_its_place(void **state)
{
    struct control_request r;

    (void)state;
    assert_int_equal(control_request_parse(span_str(good[5].line), &r, NULL), 0);
    assert_int_equal(r.tier, EGRESS_VETH);
    assert_int_equal(r.pid, 0);
    assert_string_equal(r.netns, "/run/netns/x");
    assert_string_equal(r.iface, "eth0");
    control_request_done(&r);
    assert_int_equal(control_request_parse(span_str(good[4].line), &r, NULL), 0);
    assert_int_equal(r.tier, EGRESS_SEALED);
    assert_int_equal(r.pid, 2147483647);
    assert_null(r.netns);
    assert_null(r.iface);
    control_request_done(&r);
}

#define A "{\"op\":\"attach\",\"name\":\"a\"," P ",\"tier\":\"sealed\""

static const struct {
    const char *line, *why;
} bad[] = {
    {"", "no object"},
    {"[]", "an array"},
    {"{\"op\":\"status\"", "cut"},
    {"{\"op\":\"status\"}x", "something behind it"},
    {"{\"op\":\"status\",\"op\":\"status\"}", "a key twice"},
    {"{}", "no op"},
    {"{\"op\":1}", "op of another type"},
    {"{\"op\":\"Status\"}", "an op that there is not"},
    {"{\"op\":\"status\",\"all\":true}", "an unknown key"},
    {"{\"op\":\"status\",\"pid\":1}", "a key of another op"},
    {"{\"op\":\"status\",\"name\":null}", "a name of another type"},
    {"{\"op\":\"status\",\"name\":\"\"}", "an empty name"},
    {"{\"op\":\"status\",\"name\":\"A\"}", "a name that is not canonical"},
    {"{\"op\":\"status\",\"name\":\"../x\"}", "a path as a name"},
    {"{\"op\":\"status\",\"name\":\"a--b\"}", "two hyphens"},
    {"{\"op\":\"status\",\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
     "a name one byte too long"},
    {"{\"op\":\"detach\"}", "no name"},
    {"{\"op\":\"reload\",\"name\":\"a\"}", "no policy"},
    {"{\"op\":\"reload\",\"name\":\"a\",\"policy\":\"full-isolation\"}",
     "a policy as text"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P ",\"pid\":1}", "no tier"},
    {A "}", "no place"},
    {A ",\"pid\":0}", "pid 0"},
    {A ",\"pid\":-1}", "a negative pid"},
    {A ",\"pid\":2147483648}", "a pid over INT_MAX"},
    {A ",\"pid\":1.0}", "a pid with a point"},
    {A ",\"pid\":99999999999999999999}", "a pid over 64 bits"},
    {A ",\"netns\":\"run/netns/x\"}", "a relative path"},
    {A ",\"netns\":\"\"}", "an empty path"},
    {A ",\"netns\":\"/a\\u0000b\"}", "NUL in a path"},
    {A ",\"pid\":1,\"iface\":\"eth0\"}", "an interface in the sealed tier"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P
     ",\"tier\":\"veth\",\"pid\":1,\"iface\":\"a123456789abcdef\"}",
     "an interface's name one byte too long"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P
     ",\"tier\":\"veth\",\"pid\":1,\"iface\":\"\"}",
     "an empty interface"},
    {"{\"op\":\"attach\",\"name\":\"a\"," P ",\"tier\":\"SEALED\",\"pid\":1}",
     "a tier that there is not"},
};

static void anything_else_is_refused(void **state)
{
    struct control_request r;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = {0};

        if (control_request_parse(span_str(bad[i].line), &r, &e) == 0)
            fail_msg("taken: %s", bad[i].why);
        assert_true(e.msg[0] != '\0');
    }
}

static void a_line_over_the_cap_is_refused_before_it_is_read(void **state)
{
    static char line[CONTROL_LINE_MAX + 1];
    struct control_request r;
    struct err e;

    (void)state;
    memset(line, ' ', sizeof line);
    memcpy(line, "{\"op\":\"status\"}", 15);
    assert_int_equal(control_request_parse(span_of(line, CONTROL_LINE_MAX), &r, &e), 0);
    control_request_done(&r);
    assert_int_equal(control_request_parse(span_of(line, sizeof line), &r, &e), -1);
    assert_int_equal(e.code, ERR_CONFIG);
}

static void every_cut_is_refused(void **state)
{
    const char *line = good[5].line;
    struct control_request r;

    (void)state;
    for (size_t n = 0; n < strlen(line); n++)
        assert_int_equal(control_request_parse(span_of(line, n), &r, NULL), -1);
}

static int parse_one(void)
{
    struct control_request r;

    if (control_request_parse(span_str(good[5].line), &r, NULL) < 0)
        return -1;
    control_request_done(&r);
    return 0;
}

static void no_memory_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(parse_one());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_header_shows_is_read),
        cmocka_unit_test(an_attach_gives_its_place),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(a_line_over_the_cap_is_refused_before_it_is_read),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(no_memory_is_an_error_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
