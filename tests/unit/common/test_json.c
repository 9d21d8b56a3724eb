/* SPDX-License-Identifier: MIT */
#include "common/json.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/test.h"

static void a_members_text_or_what_is_said_instead(void **state)
{
    struct err e = {0};
    struct json *root =
        json_parse(span_str("{\"a\":\"x\",\"b\":1,\"c\":null,\"d\":\"\"}"), 1000, &e);

    (void)state;
    assert_non_null(root);
    assert_string_equal(json_get_str(root, "a", "-"), "x");
    assert_string_equal(json_get_str(root, "b", "-"), "-");
    assert_string_equal(json_get_str(root, "c", "-"), "-");
    assert_string_equal(json_get_str(root, "d", "-"), "");
    assert_null(json_get_str(root, "e", NULL));
    assert_null(json_get_str(NULL, "a", NULL));
    json_free(root);
}

static void values_are_read_with_their_types(void **state)
{
    static const char TEXT[] = "{\"n\": null, \"b\": true, \"i\": -9223372036854775808, "
                               "\"r\": 1.5, \"s\": \"\\u00e4\\n\", \"a\": [1, false], "
                               "\"o\": {\"x\": {}}}";
    struct json *root = json_parse(span_str(TEXT), 1000, NULL);
    const struct json *a;

    (void)state;
    assert_non_null(root);
    assert_int_equal(json_type(root), JSON_OBJECT);
    assert_int_equal(json_len(root), 7);
    assert_int_equal(json_type(json_get(root, "n")), JSON_NULL);
    assert_int_equal(json_type(json_get(root, "b")), JSON_BOOL);
    assert_true(json_bool(json_get(root, "b")));
    assert_int_equal(json_type(json_get(root, "i")), JSON_INT);
    assert_true(json_int(json_get(root, "i")) == INT64_MIN);
    assert_int_equal(json_type(json_get(root, "r")), JSON_REAL);
    assert_int_equal(json_type(json_get(root, "s")), JSON_STRING);
    assert_string_equal(json_str(json_get(root, "s")), "\xc3\xa4\n");
    a = json_get(root, "a");
    assert_int_equal(json_type(a), JSON_ARRAY);
    assert_int_equal(json_len(a), 2);
    assert_int_equal(json_int(json_at(a, 0)), 1);
    assert_false(json_bool(json_at(a, 1)));
    assert_null(json_at(a, 2));
    assert_int_equal(json_type(json_get(root, "o")), JSON_OBJECT);
    assert_null(json_get(root, "absent"));
    json_free(root);
    json_free(NULL);
}

static void members_come_in_the_order_of_the_text(void **state)
{
    struct json *root = json_parse(span_str("{\"z\":1,\"a\":2,\"m\":3}"), 100, NULL);
    const struct json *v;
    const char *name;
    char seen[16] = "";
    size_t pos = 0;

    (void)state;
    while (json_next(root, &pos, &name, &v))
        (void)snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s%d", name,
                       (int)json_int(v));
    assert_string_equal(seen, "z1a2m3");
    json_free(root);
}

static void what_rfc_8259_or_we_refuse_is_refused(void **state)
{
    static const struct {
        const char *text;
        enum err_code code;
        const char *starts; /* of the message */
    } bad[] = {
        {"", ERR_CONFIG, "line 1: "},
        {"1", ERR_CONFIG, "line 1: "}, /* a root is an object or an array */
        {"{", ERR_CONFIG, "line 1: "},
        {"{}x", ERR_CONFIG, "line 1: "},
        {"{}{}", ERR_CONFIG, "line 1: "},
        {"{\"a\":1,}", ERR_CONFIG, "line 1: "},
        {"[1,]", ERR_CONFIG, "line 1: "},
        {"{'a':1}", ERR_CONFIG, "line 1: "},
        {"{a:1}", ERR_CONFIG, "line 1: "},
        {"// note\n{}", ERR_CONFIG, "line 1: "},
        {"[01]", ERR_CONFIG, "line 1: "},
        {"[+1]", ERR_CONFIG, "line 1: "},
        {"[0x1]", ERR_CONFIG, "line 1: "},
        {"[NaN]", ERR_CONFIG, "line 1: "},
        {"[TRUE]", ERR_CONFIG, "line 1: "},
        {"[9223372036854775808]", ERR_CONFIG, "line 1: "},
        {"[1.]", ERR_CONFIG, "line 1: "},
        {"[1e]", ERR_CONFIG, "line 1: "},
        {"[-]", ERR_CONFIG, "line 1: "},
        {"[\"\\x\"]", ERR_CONFIG, "line 1: "},
        {"[\"\\u12g4\"]", ERR_CONFIG, "line 1: "},
        {"[\"\\udc00\"]", ERR_CONFIG, "line 1: "},
        {"[\"\\ud83d\\u0041\"]", ERR_CONFIG, "line 1: "},
        {"[\"abc", ERR_CONFIG, "line 1: "},
        {"[\"abc\\", ERR_CONFIG, "line 1: "},
        {"[\"abc\\\"", ERR_CONFIG, "line 1: "},
        {"[,1]", ERR_CONFIG, "line 1: "},
        {"[-9223372036854775809]", ERR_CONFIG, "line 1: "},
        {"[\"\n\"]", ERR_CONFIG, "line 1: "},      /* a raw line end */
        {"[\"\\u0000\"]", ERR_CONFIG, "line 1: "}, /* NUL */
        {"{\"a\\u0000\":1}", ERR_CONFIG, "line 1: "},
        {"[\"\xff\"]", ERR_CONFIG, "line 1: "},     /* not UTF-8 */
        {"[\"\xc0\xaf\"]", ERR_CONFIG, "line 1: "}, /* overlong */
        {"[\"\\ud800\"]", ERR_CONFIG, "line 1: "},  /* half a surrogate pair */
        {"\xef\xbb\xbf{}", ERR_CONFIG, "line 1: "}, /* a byte order mark */
        {"{\n\"a\": 1,\n\"a\": 2\n}", ERR_CONFIG, "line 3: duplicate"},
        {"{\"a\":1,\"\\u0061\":2}", ERR_CONFIG, "line 1: duplicate"},
        {"\n[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", ERR_LIMIT,
         "line 2: nested deeper than 16"},
        {"\n{\"a\":[[[[[[[[[[[[[[[[[[[[[[[", ERR_LIMIT, "line 2: nested deeper than 16"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        size_t live = mem_live();
        struct err e = {0};

        if (json_parse(span_str(bad[i].text), 100, &e) != NULL)
            fail_msg("taken: %s", bad[i].text);
        assert_int_equal(mem_live(), live);
        assert_int_equal(e.code, bad[i].code);
        if (strncmp(e.msg, bad[i].starts, strlen(bad[i].starts)) != 0)
            fail_msg("%s: %s", bad[i].text, e.msg);
    }
    assert_null(json_parse(span_of("[\0]", 3), 100, NULL));
}

static void bounds_are_exact(void **state)
{
    static const char DEEP[] = "[[[[[[[[[[[[[[[[\"]]]]\\\"[[[[{{{{\"]]]]]]]]]]]]]]]]";
    struct json *v = json_parse(span_str(DEEP), strlen(DEEP), NULL);
    struct err e;

    (void)state;
    assert_non_null(v); /* brackets in strings do not count */
    json_free(v);
    assert_null(json_parse(span_str(DEEP), strlen(DEEP) - 1, &e));
    assert_int_equal(e.code, ERR_LIMIT);
}

static void one_member_too_many_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct json *v;
    struct err e;
    unsigned i;

    (void)state;
    /* 800 names in the header of a token cost whoever sends it nothing, and us 1.3 ms. */
    assert_in_range(JSON_MEMBERS_MAX, 64, 256);
    assert_int_equal(buf_adds(&b, "{\"0\":0"), 0);
    for (i = 1; i < JSON_MEMBERS_MAX; i++)
        assert_int_equal(buf_addf(&b, ",\"%u\":0", i), 0);
    assert_int_equal(buf_adds(&b, "}"), 0);
    v = json_parse(buf_span(&b), 65536, NULL);
    assert_non_null(v);
    assert_int_equal(json_len(v), JSON_MEMBERS_MAX);
    json_free(v);
    b.len--;
    assert_int_equal(buf_adds(&b, ",\"x\":0}"), 0);
    assert_null(json_parse(buf_span(&b), 65536, &e));
    assert_int_equal(e.code, ERR_LIMIT);
}

static void escapes_become_what_they_stand_for(void **state)
{
    static const char TEXT[] = "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\", "
                               "\"\\u0041\\u00e4\\u20ac\\ud83d\\ude00\\uFFFF\"]";
    struct json *v = json_parse(span_str(TEXT), 1000, NULL);

    (void)state;
    assert_non_null(v);
    assert_string_equal(json_str(json_at(v, 0)), "\"\\/\b\f\n\r\t");
    assert_string_equal(json_str(json_at(v, 1)),
                        "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbf");
    json_free(v);
}

/* No cut of a good text is good, and none makes the parser read past its end: each is in
 * memory of its own, as long as it is. */
static void every_cut_is_refused(void **state)
{
    static const char TEXT[] =
        "{\"a\\u00e4\": [-1.5e+3, true, null, \"x\\ud83d\\ude00\"]}";
    size_t n;

    (void)state;
    for (n = 0; n < sizeof(TEXT) - 1; n++) {
        char *copy = mem_alloc(n);
        struct json *v;

        memcpy(copy, TEXT, n);
        v = json_parse(span_of(copy, n), 1000, NULL);
        mem_free(copy);
        assert_null(v);
    }
}

static void an_error_holds_no_control_bytes(void **state)
{
    struct err e = {0};
    const char *p;

    (void)state;
    assert_null(json_parse(span_str("{\"a\": \x1b[31mred\r\n"), 100, &e));
    for (p = e.msg; *p != '\0'; p++)
        assert_true(*p >= ' ' && *p <= '~');
}

static void an_error_quotes_nothing(void **state)
{
    static const char *const bad[] = {
        "{\"token\" \"hush\"}", "{\"token\":\"hush\" 1}",  "[\"hush", "[hush]",
        "[\"hush\\x\"]",        "{\"hush\":1,\"hush\":2}", "[]hush",  "[\"hush\xff\"]",
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        struct err e = {0};

        assert_null(json_parse(span_str(bad[i]), 100, &e));
        assert_null(strstr(e.msg, "hush"));
        assert_true(strlen(e.msg) > strlen("line 1: "));
    }
}

/* jansson by itself passes over one after a number or a word. */
static void a_nul_is_refused_wherever_it_stands(void **state)
{
    static const char TEXT[] = "{\"a\": 1, \"b\": [true, \"x\", -2.5], \"c\": null}";
    char with[sizeof TEXT];
    struct span v;

    (void)state;
    for (size_t at = 0; at < sizeof TEXT; at++) {
        memcpy(with, TEXT, at);
        with[at] = '\0';
        memcpy(with + at + 1, TEXT + at, sizeof TEXT - 1 - at);
        assert_null(json_parse(span_of(with, sizeof TEXT), 100, NULL));
        (void)json_find(span_of(with, sizeof TEXT), "b", &v); /* it ends */
        (void)json_find(span_of(with, sizeof TEXT), "c", &v);
        (void)json_find(span_of(with, sizeof TEXT), "", &v);
    }
}

static void lines_are_found_by_path(void **state)
{
    static const char TEXT[] = "{\n"
                               "  \"a\": {\"b\\\"\": 1, \"c\": [1, {\"}\": 2}, \"]\",\n"
                               "    [true], {\n"
                               "      \"x\": null }\n"
                               "  ]},\n"
                               "  \"list\":\n"
                               "    [ 10,\n"
                               "      20 ]\n"
                               "}\n";
    static const struct {
        const char *path;
        unsigned line;
    } rows[] = {
        {"", 1},       {"a", 2},         {"a.c", 2},     {"a.c[3]", 3},  {"a.c[4].x", 4},
        {"list", 6},   {"list[0]", 7},   {"list[1]", 8}, {"list[2]", 0}, {"b", 0},
        {"a.c[5]", 0}, {"a.c[4].y", 0},  {"list.x", 0},  {"a[0]", 0},    {"list[x]", 0},
        {"list[1", 0}, {"a.c[3][0]", 3},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        unsigned line = json_line(span_str(TEXT), rows[i].path);

        if (line != rows[i].line)
            fail_msg("%s: line %u, not %u", rows[i].path, line, rows[i].line);
    }
}

static void values_are_found_in_the_text_by_path(void **state)
{
    static const char TEXT[] = "{ \"a\": [1, {\"b\" : \"x]\\\"\"}, [] ],\n\"c\":-1.5e3,"
                               "\"d\": {} , \"e\": null}";
    static const struct {
        const char *path;
        const char *value; /* NULL: there is none */
    } rows[] = {
        {"a", "[1, {\"b\" : \"x]\\\"\"}, [] ]"},
        {"a[0]", "1"},
        {"a[1]", "{\"b\" : \"x]\\\"\"}"},
        {"a[1].b", "\"x]\\\"\""},
        {"a[2]", "[]"},
        {"a[3]", NULL},
        {"c", "-1.5e3"},
        {"c.x", NULL},
        {"d", "{}"},
        {"e", "null"},
        {"f", NULL},
        {"a.b", NULL},
    };
    struct span v;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int rc = json_find(span_str(TEXT), rows[i].path, &v);

        if (rc != (rows[i].value ? 0 : -1) ||
            (rc == 0 && !span_eq(v, span_str(rows[i].value))))
            fail_msg("%s: %d", rows[i].path, rc);
    }
    assert_int_equal(json_find(span_str(TEXT), "", &v), 0);
    assert_true(span_eq(v, span_str(TEXT)));
}

static void wide_integers_are_taken_where_asked(void **state)
{
    static const char TEXT[] = "[18446744073709551615, 3, -9223372036854775809]";
    struct json *j;
    struct err e;

    (void)state;
    assert_null(json_parse(span_str(TEXT), 100, &e));
    j = json_parse_wide(span_str(TEXT), 100, &e);
    assert_non_null(j);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(json_type(json_at(j, i)), JSON_REAL);
    json_free(j);
}

static void printed_strings_come_back(void **state)
{
    static const struct {
        const char *text, *json;
    } rows[] = {
        {"", "\"\""},
        {"plain", "\"plain\""},
        {"a\"b\\c", "\"a\\\"b\\\\c\""},
        {"\n\x1b\x7f", "\"\\u000a\\u001b\\u007f\""},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
         "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"a\xff"
         "b",
         "\"a\xef\xbf\xbd"
         "b\""},
        {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* overlong */
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* a surrogate */
        {"\xf4\x90\x80\x80",
         "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* above U+10FFFF */
        {"\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\""},             /* cut */
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        AUTO(buf_done)
        struct buf b = BUF_INIT;

        assert_int_equal(json_put_str(&b, span_str(rows[i].text)), 0);
        assert_true(span_eq(buf_span(&b), span_str(rows[i].json)));
    }
}

static void every_byte_prints_as_valid_json(void **state)
{
    uint8_t pair[2];
    unsigned i;

    (void)state;
    for (i = 0; i < 65536; i += 1) {
        AUTO(buf_done)
        struct buf b = BUF_INIT;
        struct json *v;

        pair[0] = (uint8_t)(i >> 8);
        pair[1] = (uint8_t)i;
        assert_int_equal(buf_adds(&b, "["), 0);
        if (pair[0] == 0 || pair[1] == 0)
            continue; /* \u0000 is what our own reader refuses */
        assert_int_equal(json_put_str(&b, span_of(pair, 2)), 0);
        assert_int_equal(buf_adds(&b, "]"), 0);
        v = json_parse(buf_span(&b), 100, NULL);
        if (v == NULL)
            fail_msg("%02x %02x", pair[0], pair[1]);
        json_free(v);
    }
}

static void a_file_is_read_and_named_in_errors(void **state)
{
    char path[] = "/tmp/test_json.XXXXXX";
    int fd = mkstemp(path);
    struct json *v;
    struct err e;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"a\":1}\n{", 9), 9);
    assert_null(json_parse_file(path, 100, &e));
    assert_non_null(strstr(e.msg, path));
    assert_non_null(strstr(e.msg, "line 2"));
    assert_int_equal(ftruncate(fd, 8), 0);
    (void)close(fd);
    v = json_parse_file(path, 100, NULL);
    assert_non_null(v);
    json_free(v);
    assert_null(json_parse_file(path, 4, &e));
    (void)unlink(path);
    assert_null(json_parse_file(path, 100, &e));
    assert_int_equal(e.code, ERR_SYS);
}

static int parse_and_print(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    struct json *v = json_parse(
        span_str("{\"name\": [1, 2.5, \"text\", {\"x\": null}], \"b\": true}"), 100, &e);
    int rc = -1;

    if (v != NULL)
        rc = json_put_str(&b, span_str("some \"text\"\n"));
    else
        assert_int_equal(e.code, ERR_NOMEM);
    json_free(v);
    return rc;
}

/* Each thing that grows in jansson grows more than once: a token, an array, an object. */
static int parse_what_grows(void)
{
    struct err e = {0};
    struct json *v;
    char text[2000];
    size_t n = 0;
    int i;

    n +=
        (size_t)snprintf(text, sizeof(text), "[\"%0300d\\u00e4\",{\"%0300d\":true", 0, 0);
    for (i = 0; i < 40; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, ",\"%d\":\"%d\"", i, i);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "}");
    for (i = 0; i < 40; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, ",%d", i);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "]");
    v = json_parse(span_of(text, n), sizeof(text), &e);
    if (v == NULL) {
        assert_int_equal(e.code, ERR_NOMEM);
        return -1;
    }
    assert_int_equal(json_len(v), 42);
    assert_int_equal(json_len(json_at(v, 1)), 41);
    json_free(v);
    return 0;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(parse_and_print());
    FAIL_EACH_ALLOC(parse_what_grows());
}

struct job {
    pthread_t thread;
    struct json *root;
};

static void *parse_often(void *arg)
{
    struct job *j = (struct job *)arg;
    unsigned i;

    for (i = 1; i < 300; i++) {
        json_free(j->root);
        mem_fault_at(i % 3 == 0 ? i % 20 : 0);
        j->root = json_parse(span_str("{\"a\":[1,\"two\",{\"b\":null}]}"), 100, NULL);
    }
    return NULL;
}

/* A tree may also be freed by another thread than the one that parsed it. */
static void threads_parse_at_the_same_time(void **state)
{
    struct job job[4] = {0};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(job); i++)
        assert_int_equal(pthread_create(&job[i].thread, NULL, parse_often, &job[i]), 0);
    for (i = 0; i < COUNT_OF(job); i++) {
        assert_int_equal(pthread_join(job[i].thread, NULL), 0);
        assert_non_null(job[i].root);
        assert_int_equal(json_len(json_get(job[i].root, "a")), 3);
        json_free(job[i].root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_members_text_or_what_is_said_instead),
        cmocka_unit_test(values_are_read_with_their_types),
        cmocka_unit_test(members_come_in_the_order_of_the_text),
        cmocka_unit_test(what_rfc_8259_or_we_refuse_is_refused),
        cmocka_unit_test(bounds_are_exact),
        cmocka_unit_test(one_member_too_many_is_refused),
        cmocka_unit_test(escapes_become_what_they_stand_for),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(an_error_holds_no_control_bytes),
        cmocka_unit_test(an_error_quotes_nothing),
        cmocka_unit_test(a_nul_is_refused_wherever_it_stands),
        cmocka_unit_test(lines_are_found_by_path),
        cmocka_unit_test(values_are_found_in_the_text_by_path),
        cmocka_unit_test(wide_integers_are_taken_where_asked),
        cmocka_unit_test(printed_strings_come_back),
        cmocka_unit_test(every_byte_prints_as_valid_json),
        cmocka_unit_test(a_file_is_read_and_named_in_errors),
        cmocka_unit_test(every_allocation_failure_is_clean),
        cmocka_unit_test(threads_parse_at_the_same_time),
    };

    return cmocka_run_group_tests_name("common/json", tests, NULL, NULL);
}
