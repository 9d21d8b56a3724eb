/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/oci.h"

#include "tests/support/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"

#define ID   "3f1c9a77b2d4e6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70"
#define HEAD "{\"ociVersion\":\"1.0.2-dev\",\"id\":\"" ID "\",\"status\":\"creating\","
#define REST "\"pid\":4711,\"bundle\":\"/b\","
#define ANN  "\"annotations\":{\"agentd.egress.policy\":\"/etc/agentd/p.json\""

static void a_state_of_the_engines_is_read(void **state)
{
    static const struct {
        const char *text;
        const char *name, *policy;
        enum egress_tier tier;
    } good[] = {
        {HEAD REST ANN "}}", "3f1c9a77b2d4", "/etc/agentd/p.json", EGRESS_SEALED},
        {HEAD REST ANN ",\"agentd.egress.tier\":\"veth\"}}", "3f1c9a77b2d4",
         "/etc/agentd/p.json", EGRESS_VETH},
        {HEAD REST ANN ",\"agentd.egress.tier\":\"sealed\",\"x\":\"y\"}}", "3f1c9a77b2d4",
         "/etc/agentd/p.json", EGRESS_SEALED},
        {HEAD REST ANN ",\"agentd.egress.name\":\"Build-7\"}}", "build-7",
         "/etc/agentd/p.json", EGRESS_SEALED},
        {"{\"ociVersion\":\"1.0.0\",\"id\":\"web\",\"status\":\"created\",\"pid\":1,"
         "\"annotations\":{\"agentd.egress.policy\":\"full-isolation\"}}",
         "web", "full-isolation", EGRESS_SEALED},
        /* A name of its own makes any id good. */
        {"{\"ociVersion\":\"1.0.0\",\"id\":\"a_b\",\"status\":\"created\",\"pid\":1,"
         "\"annotations\":{\"agentd.egress.policy\":\"build\","
         "\"agentd.egress.name\":\"ab\"}}",
         "ab", "build", EGRESS_SEALED},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct oci_state s;
        struct err e;

        if (oci_state_read(span_str(good[i].text), &s, &e) < 0)
            fail_msg("%zu: %s", i, e.msg);
        assert_string_equal(s.name, good[i].name);
        assert_string_equal(s.policy, good[i].policy);
        assert_int_equal(s.tier, good[i].tier);
        assert_true(s.pid == 4711 || s.pid == 1);
    }
}

static void a_state_that_is_not_whole_is_refused_in_words(void **state)
{
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"", "state"},
        {"[]", "no object"},
        {"{}", "ociVersion"},
        {"{\"ociVersion\":1}", "not a string"},
        {"{\"ociVersion\":\"2.0\",\"id\":\"a\",\"status\":\"created\",\"pid\":1}",
         "not known"},
        {"{\"ociVersion\":\"1.0\",\"status\":\"created\",\"pid\":1}", "\"id\""},
        {"{\"ociVersion\":\"1.0\",\"id\":\"a\",\"pid\":1}", "\"status\""},
        {"{\"ociVersion\":\"1.0\",\"id\":\"a\",\"status\":\"running\",\"pid\":1}",
         "createRuntime"},
        {"{\"ociVersion\":\"1.0\",\"id\":\"a\",\"status\":\"stopped\",\"pid\":1}",
         "createRuntime"},
        {HEAD ANN "}}", "pid"},
        {HEAD "\"pid\":0," ANN "}}", "pid"},
        {HEAD "\"pid\":-1," ANN "}}", "pid"},
        {HEAD "\"pid\":2147483648," ANN "}}", "pid"},
        {HEAD "\"pid\":\"1\"," ANN "}}", "pid"},
        {HEAD "\"pid\":1.0," ANN "}}", "pid"},
        {HEAD "\"pid\":1,\"pid\":2," ANN "}}", "duplicate"},
        {HEAD "\"pid\":1}", "agentd.egress.policy"},
        {HEAD "\"pid\":1,\"annotations\":null}", "agentd.egress.policy"},
        {HEAD "\"pid\":1,\"annotations\":{}}", "agentd.egress.policy"},
        {HEAD "\"pid\":1,\"annotations\":{\"agentd.egress.policy\":1}}", "not a string"},
        {HEAD REST ANN ",\"agentd.egress.polcy\":\"x\"}}", "polcy"},
        {HEAD REST ANN ",\"agentd.egress.\":\"x\"}}", "no annotation"},
        {HEAD REST ANN ",\"agentd.egress.tier\":\"Sealed\"}}", "tier"},
        {HEAD REST ANN ",\"agentd.egress.tier\":\"\"}}", "tier"},
        {HEAD REST ANN ",\"agentd.egress.tier\":null}}", "tier"},
        {HEAD REST ANN ",\"agentd.egress.name\":\"\"}}", "name"},
        {HEAD REST ANN ",\"agentd.egress.name\":\"a b\"}}", "name"},
        {HEAD REST ANN ",\"agentd.egress.name\":\"../x\"}}", "name"},
        {HEAD REST ANN ",\"agentd.egress.name\":"
                       "\"a2345678901234567890123456789012345678901\"}}",
         "name"},
        {"{\"ociVersion\":\"1.0\",\"id\":\"a_b\",\"status\":\"created\",\"pid\":1," ANN
         "}}",
         "agentd.egress.name"},
        {"{\"ociVersion\":\"1.0\",\"id\":\"\",\"status\":\"created\",\"pid\":1," ANN "}}",
         "id"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct oci_state s;
        struct err e;

        if (oci_state_read(span_str(bad[i].text), &s, &e) == 0)
            fail_msg("taken: %s", bad[i].text);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: says \"%s\", without \"%s\"", bad[i].text, e.msg, bad[i].says);
    }
}

static void every_cut_of_a_state_is_refused(void **state)
{
    static const char whole[] = HEAD REST ANN "}}";
    struct oci_state s;

    (void)state;
    for (size_t n = 0; n < sizeof whole - 1; n++)
        assert_int_equal(oci_state_read(span_of(whole, n), &s, NULL), -1);
    assert_int_equal(oci_state_read(span_str(whole), &s, NULL), 0);
}

static void a_policy_is_a_plain_absolute_path_or_a_preset(void **state)
{
    static const char *const good[] = {"/p.json", "/etc/agentd/a.b/..c", "/...", "build",
                                       "full-isolation"};
    static const char *const bad[] = {
        "",       "p.json", "./p", "../p", "/",       "/etc/",     "//etc/p",
        "/a//b",  "/a/./b", "/..", "/.",   "/a/../b", "/a/..",     "/a\nb",
        "-build", "Build",  "a b", "a/b",  "/\x7f",   "build\x01",
    };
    char path[OCI_POLICY_MAX + 2];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_int_equal(oci_policy_check(good[i], NULL), 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (oci_policy_check(bad[i], NULL) == 0)
            fail_msg("taken: \"%s\"", bad[i]);
    memset(path, 'a', sizeof path - 1);
    path[0] = '/';
    path[OCI_POLICY_MAX + 1] = '\0';
    assert_int_equal(oci_policy_check(path, NULL), -1); /* one byte too long */
    path[OCI_POLICY_MAX] = '\0';
    assert_int_equal(oci_policy_check(path, NULL), 0);
}

static void a_request_is_json_that_says_what_the_state_said(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    const struct oci_state s = {.pid = 4711, .tier = EGRESS_VETH, .name = "web"};
    struct json *j;

    (void)state;
    assert_int_equal(oci_request(&s, span_str("{\"version\":1}"), &b, NULL), 0);
    assert_int_equal(b.p[b.len - 1], '\n');
    j = json_parse(buf_span(&b), 1000, NULL);
    assert_non_null(j);
    assert_string_equal(json_str(json_get(j, "op")), "attach");
    assert_string_equal(json_str(json_get(j, "name")), "web");
    assert_string_equal(json_str(json_get(j, "tier")), "veth");
    assert_int_equal(json_int(json_get(j, "pid")), 4711);
    assert_int_equal(json_int(json_get(json_get(j, "policy"), "version")), 1);
    json_free(j);
}

/* -- files --------------------------------------------------------------------------- */

static void touch(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void only_a_file_that_nobody_else_writes_is_trusted(void **state)
{
    char dir[] = "/tmp/oci-test-XXXXXX", path[64], other[64], link[64];
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/p.json", dir);
    (void)snprintf(other, sizeof other, "%s/d", dir);
    (void)snprintf(link, sizeof link, "%s/l", dir);
    touch(path, 0644);
    if (oci_trusted_file(path, geteuid(), &e) < 0)
        fail_msg("%s", e.msg);

    assert_int_equal(chmod(path, 0664), 0);
    assert_int_equal(oci_trusted_file(path, geteuid(), &e), -1);
    assert_non_null(strstr(e.msg, "can be written by others"));
    assert_int_equal(chmod(path, 0646), 0);
    assert_int_equal(oci_trusted_file(path, geteuid(), &e), -1);
    assert_int_equal(chmod(path, 0600), 0);

    assert_int_equal(chmod(dir, 0777), 0); /* who writes the folder replaces the file */
    assert_int_equal(oci_trusted_file(path, geteuid(), &e), -1);
    assert_int_equal(chmod(dir, 01777), 0);
    assert_int_equal(oci_trusted_file(path, geteuid(), &e), 0);
    assert_int_equal(chmod(dir, 0700), 0);

    assert_int_equal(oci_trusted_file(dir, geteuid(), &e), -1);
    assert_non_null(strstr(e.msg, "regular"));
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(oci_trusted_file(link, geteuid(), &e), -1);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(dir, link), 0);
    (void)snprintf(other, sizeof other, "%s/l/p.json", dir);
    assert_int_equal(oci_trusted_file(other, geteuid(), &e), -1);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(mkfifo(link, 0600), 0); /* must not wait for its other end */
    assert_int_equal(oci_trusted_file(link, geteuid(), &e), -1);
    assert_int_equal(unlink(link), 0);

    assert_int_equal(oci_trusted_file("relative", 0, &e), -1);
    assert_int_equal(oci_trusted_file("/etc/../etc/passwd", 0, &e), -1);
    assert_int_equal(oci_trusted_file("/no/such", 0, &e), -1);
    assert_int_equal(oci_trusted_file("/etc/passwd", 54321, &e), 0); /* root's */
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 54321, 0), 0);
        assert_int_equal(oci_trusted_file(path, 0, &e), -1);
        assert_non_null(strstr(e.msg, "54321"));
        assert_int_equal(oci_trusted_file(path, 54321, &e), 0);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static int read_and_ask(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct oci_state s;

    if (oci_state_read(span_str(HEAD REST ANN "}}"), &s, NULL) < 0)
        return -1;
    return oci_request(&s, span_str("{}"), &b, NULL);
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(read_and_ask());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_of_the_engines_is_read),
        cmocka_unit_test(a_state_that_is_not_whole_is_refused_in_words),
        cmocka_unit_test(every_cut_of_a_state_is_refused),
        cmocka_unit_test(a_policy_is_a_plain_absolute_path_or_a_preset),
        cmocka_unit_test(a_request_is_json_that_says_what_the_state_said),
        cmocka_unit_test(only_a_file_that_nobody_else_writes_is_trusted),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
