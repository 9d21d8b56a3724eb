/* SPDX-License-Identifier: MIT */
#include "agentd/egress/cmd/cmd_options.h"

#include <stdio.h>
#include <string.h>

#include "common/cdefs.h"
#include "tests/support/test.h"

enum {
    WORDS = 8,
    BINDS = 2
};

struct seen {
    const char *policy, *name, *bind[BINDS];
    unsigned n_bind;
    bool up;
};

/* Only stderr says what is wrong: test_cmd_run.c reads it. */
static int read_words(const char *const *words, struct seen *s)
{
    const struct cmd_option takes[] = {
        {.name = "--policy", .value = &s->policy},
        {.name = "--name", .value = &s->name},
        {.name = "--bind", .value = s->bind, .n = &s->n_bind, .max = BINDS},
        {.name = "--up", .is_set = &s->up},
    };
    char *argv[WORDS + 2] = {(char[]){"test"}};
    int argc = 1;

    while (*words)
        argv[argc++] = (char *)(uintptr_t)*words++;
    memset(s, 0, sizeof *s);
    return cmd_options(argc, argv, 1, takes, COUNT_OF(takes));
}

static void values_come_after_a_space_or_an_equals_sign(void **state)
{
    static const char *const words[][WORDS] = {
        {"--policy", "a=b", "--up", "--name=x"},
        {"--policy=a=b", "--name", "x", "--up"},
    };
    struct seen s;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        assert_int_equal(read_words(words[i], &s), 5);
        assert_string_equal(s.policy, "a=b");
        assert_string_equal(s.name, "x");
        assert_true(s.up);
    }
}

static void other_words_end_the_options(void **state)
{
    static const struct {
        const char *words[WORDS];
        int stops;
        bool up;
    } good[] = {
        {{NULL}, 1, false},
        {{"--up", "--", "--up"}, 2, true},
        {{"word", "--up"}, 1, false},
        {{"--policy", "--", "--up"}, 4, true}, /* a value may be anything */
        {{"", "--up"}, 1, false},
    };
    struct seen s;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        if (read_words(good[i].words, &s) != good[i].stops || s.up != good[i].up)
            fail_msg("row %zu", i);
}

static void what_may_come_more_often_is_kept_in_order(void **state)
{
    static const char *const words[] = {"--bind", "/a", "--bind=/b", NULL};
    struct seen s;

    (void)state;
    assert_int_equal(read_words(words, &s), 4);
    assert_int_equal(s.n_bind, 2);
    assert_string_equal(s.bind[0], "/a");
    assert_string_equal(s.bind[1], "/b");
}

static void wrong_usage_is_refused(void **state)
{
    static const char *const bad[][WORDS] = {
        {"-"},
        {"-p", "x"},
        {"--polic", "x"},
        {"--policyx", "x"},
        {"--policyx=x"},
        {"--=x"},
        {"--policy"},
        {"--policy="},
        {"--policy", ""},
        {"--up=yes"},
        {"--up="},
        {"--name=a", "--name", "a"},
        {"--bind=/a", "--bind=/b", "--bind=/c"},
    };
    struct seen s;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (read_words(bad[i], &s) != -1)
            fail_msg("row %zu: %s", i, bad[i][0]);
}

static void a_command_without_other_words_refuses_them(void **state)
{
    const char *policy = NULL;
    const struct cmd_option takes[] = {{.name = "--policy", .value = &policy}};
    char name[] = "test", option[] = "--policy=x", word[] = "word", end[] = "--";
    char *good[] = {name, option, NULL}, *other[] = {name, option, word, NULL};
    char *over[] = {name, option, end, NULL};

    (void)state;
    assert_int_equal(cmd_options_only(2, good, takes, 1), 0);
    assert_string_equal(policy, "x");
    policy = NULL;
    assert_int_equal(cmd_options_only(3, other, takes, 1), -1);
    policy = NULL;
    assert_int_equal(cmd_options_only(3, over, takes, 1), -1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_after_a_space_or_an_equals_sign),
        cmocka_unit_test(other_words_end_the_options),
        cmocka_unit_test(what_may_come_more_often_is_kept_in_order),
        cmocka_unit_test(wrong_usage_is_refused),
        cmocka_unit_test(a_command_without_other_words_refuses_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
