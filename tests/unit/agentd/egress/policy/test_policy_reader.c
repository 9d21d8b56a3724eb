/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/policy/policy.h"
#include "tests/support/test.h"

static struct policy_faults faults;

static int make_folder(void **state)
{
    static char folder[64];

    (void)snprintf(folder, sizeof folder, "/tmp/test_policy_reader.XXXXXX");
    *state = mkdtemp(folder);
    return *state ? 0 : -1;
}

static int drop_folder(void **state)
{
    static const char *const name[] = {"a.json",     "big.json", "pipe",
                                       "sub/b.json", "sub",      ""};
    char path[128];

    for (size_t i = 0; i < COUNT_OF(name); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", (const char *)*state, name[i]);
        (void)remove(path); /* those that are there */
    }
    return 0;
}

static const char *put(void **state, const char *name, const char *text, char path[128])
{
    FILE *f;

    (void)snprintf(path, 128, "%s/%s", (const char *)*state, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void files_are_found_beside_the_file_that_names_them(void **state)
{
    char path[128], sub[128];
    struct policy *p;
    size_t n;

    (void)snprintf(sub, sizeof sub, "%s/sub", (const char *)*state);
    assert_int_equal(mkdir(sub, 0755), 0);
    (void)put(state, "sub/b.json", "{\"version\": 1, \"allow\": [\"b.example\"]}", sub);
    (void)put(state, "a.json", "{\"version\": 1, \"extends\": \"sub/b.json\"}", path);
    p = policy_load(path, &faults);
    assert_non_null(p);
    (void)policy_rules(p, &n);
    assert_int_equal(n, 1);
    policy_unref(p);
    /* and by their whole path */
    (void)snprintf(sub, sizeof sub, "{\"version\": 1, \"extends\": \"%s/sub/b.json\"}",
                   (const char *)*state);
    (void)put(state, "a.json", sub, path);
    p = policy_load(path, &faults);
    assert_non_null(p);
    policy_unref(p);
}

static void what_is_no_file_is_a_fault(void **state)
{
    char path[128], pipe[128];

    (void)snprintf(pipe, sizeof pipe, "%s/pipe", (const char *)*state);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    /* a pipe that nobody writes must not be waited for */
    (void)put(state, "a.json", "{\"version\": 1, \"extends\": \"./pipe\"}", path);
    assert_null(policy_load(path, &faults));
    assert_non_null(strstr(faults.at[0].text, "is no file"));
    (void)put(state, "a.json", "{\"version\": 1,\n\"extends\": [\"./gone\"]}", path);
    assert_null(policy_load(path, &faults));
    assert_non_null(strstr(faults.at[0].text, "No such file"));
    assert_int_equal(faults.at[0].line, 2);
    assert_null(policy_load("/", &faults));
    assert_non_null(strstr(faults.at[0].text, "is no file"));
    assert_null(policy_load("/nonexistent/policy.json", &faults));
    assert_true(faults.has_error);
    assert_int_equal(faults.n, 1);
}

static void a_file_over_the_cap_is_not_read(void **state)
{
    char path[128];

    (void)put(state, "big.json", "{", path);
    assert_int_equal(truncate(path, POLICY_TEXT_MAX + 1), 0);
    assert_null(policy_load(path, &faults));
    assert_non_null(strstr(faults.at[0].text, "more than 4194304 bytes"));
}

static void local_networks_are_declared_in_the_environment(void **state)
{
    struct policy_reader reader = policy_system_reader(NULL);
    const struct policy_rule *rule;
    struct policy *p;
    size_t n;

    (void)state;
    assert_null(reader.file);
    assert_int_equal(setenv("TUNNEL_LOCAL_NETWORKS", "10.1.0.0/16, fd00:1::/64", 1), 0);
    p = policy_load("development", &faults);
    assert_non_null(p);
    rule = policy_rules(p, &n);
    assert_int_equal(n, 2);
    assert_string_equal(rule[0].text, "10.1.0.0/16:1-65535/tcp");
    assert_string_equal(rule[1].text, "[fd00:1::]/64:1-65535/tcp");
    policy_unref(p);
    /* what cannot be read opens nothing */
    assert_int_equal(setenv("TUNNEL_LOCAL_NETWORKS", "10.1/16", 1), 0);
    assert_null(policy_load("development", &faults));
    assert_int_equal(setenv("TUNNEL_LOCAL_NETWORKS", "127.0.0.0/8", 1), 0);
    assert_null(policy_load("development", &faults));
    assert_int_equal(unsetenv("TUNNEL_LOCAL_NETWORKS"), 0);
}

static void a_presets_name_that_is_spelt_wrong_is_told_the_presets(void **state)
{
    (void)state;
    assert_null(policy_load("fullisolation", &faults));
    assert_non_null(strstr(faults.at[0].text, "the presets are full-isolation, "));
    assert_null(policy_load("./fullisolation", &faults));
    assert_null(strstr(faults.at[0].text, "presets"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_found_beside_the_file_that_names_them),
        cmocka_unit_test(what_is_no_file_is_a_fault),
        cmocka_unit_test(a_file_over_the_cap_is_not_read),
        cmocka_unit_test(local_networks_are_declared_in_the_environment),
        cmocka_unit_test(a_presets_name_that_is_spelt_wrong_is_told_the_presets),
    };

    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
