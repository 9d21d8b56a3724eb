/* SPDX-License-Identifier: MIT */
#include "agentd/link/proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "tests/support/test.h"

static const struct {
    const char *text;
    enum proxy_scheme scheme;
    const char *host;
    uint16_t port;
    bool has_credentials;
    const char *user, *password;
} good[] = {
    {"http://proxy:3128", PROXY_HTTP, "proxy", 3128, false, "", ""},
    {"http://proxy:3128/", PROXY_HTTP, "proxy", 3128, false, "", ""},
    {"HTTP://Proxy.Example.COM.:3128", PROXY_HTTP, "proxy.example.com", 3128, false, "",
     ""},
    {"proxy:3128", PROXY_HTTP, "proxy", 3128, false, "", ""},
    {"proxy", PROXY_HTTP, "proxy", 80, false, "", ""},
    {"https://proxy", PROXY_HTTPS, "proxy", 443, false, "", ""},
    {"socks5://10.0.0.1", PROXY_SOCKS5, "10.0.0.1", 1080, false, "", ""},
    {"socks5h://[2001:DB8::1]:9050", PROXY_SOCKS5H, "2001:db8::1", 9050, false, "", ""},
    {"http://u:p@proxy", PROXY_HTTP, "proxy", 80, true, "u", "p"},
    {"u:p@proxy:1", PROXY_HTTP, "proxy", 1, true, "u", "p"},
    {"http://u@proxy", PROXY_HTTP, "proxy", 80, true, "u", ""},
    {"http://:p@proxy", PROXY_HTTP, "proxy", 80, true, "", "p"},
    {"http://@proxy", PROXY_HTTP, "proxy", 80, false, "", ""},
    {"http://u:p@ss@proxy", PROXY_HTTP, "proxy", 80, true, "u", "p@ss"},
    {"http://u:p:q@proxy", PROXY_HTTP, "proxy", 80, true, "u", "p:q"},
    {"http://DOM%5Cuser:%2F%3f%23%40%25%3A@proxy", PROXY_HTTP, "proxy", 80, true,
     "DOM\\user", "/?#@%:"},
    {"http://u:p%C3%A4@proxy", PROXY_HTTP, "proxy", 80, true, "u", "p\xc3\xa4"},
    {"socks5://a%3Ab:c@proxy", PROXY_SOCKS5, "proxy", 1080, true, "a:b", "c"},
};

static void a_proxy_url_is_read_in_every_form(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(good); i++) {
        struct proxy_url p;
        struct err e = {0};

        if (proxy_url_parse(span_str(good[i].text), &p, &e) < 0)
            fail_msg("%s: %s", good[i].text, e.msg);
        assert_int_equal(p.scheme, good[i].scheme);
        assert_string_equal(p.host, good[i].host);
        assert_int_equal(p.port, good[i].port);
        assert_int_equal(p.has_credentials, good[i].has_credentials);
        assert_true(span_eq(secret_span(&p.user), span_str(good[i].user)));
        assert_true(span_eq(secret_span(&p.password), span_str(good[i].password)));
        proxy_url_done(&p);
    }
    assert_int_equal(mem_live(), 0);
}

static const struct {
    const char *text, *rule;
} bad[] = {
    {"", "empty"},
    {"http://", "HOST"},
    {"http://u:SECRET@", "HOST"},
    {"ftp://u:SECRET@proxy", "scheme"},
    {"socks4://proxy", "scheme"},
    {"://proxy", "scheme"},
    {"http://proxy:", "HOST"},
    {"http://proxy:0", "HOST"},
    {"http://proxy:65536", "HOST"},
    {"http://proxy:-1", "HOST"},
    {"http://proxy:3128x", "HOST"},
    {"http://[::1]:0", "HOST"},
    {"http://::1", "HOST"},
    {"http://[::1", "HOST"},
    {"http://pro xy", "HOST"},
    {"http://proxy..x", "HOST"},
    {"http://127.1:3128", "HOST"},
    {"http://u:SECRET@proxy/path", "path"},
    {"http://proxy/?q", "path"},
    {"http://u:SECRET/x@proxy", "credentials"},
    {"http://evil.example/u:SECRET@proxy", "credentials"},
    {"http://u:SECRET?x@proxy", "credentials"},
    {"http://u:SECRET#x@proxy", "credentials"},
    {"http://u:SECRET%@proxy", "%"},
    {"http://u:SECRET%2@proxy", "%"},
    {"http://u:SECRET%zz@proxy", "%"},
    {"http://u:SECRET%00@proxy", "control"},
    {"http://u:SECRET%0d%0aX@proxy", "control"},
    {"http://u\r\n:SECRET@proxy", "control"},
    {"http://a%3Ab:SECRET@proxy", "colon"},
};

static void a_bad_proxy_url_is_refused_by_its_rule_and_never_quoted(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        struct proxy_url p;
        struct err e = {0};

        if (proxy_url_parse(span_str(bad[i].text), &p, &e) == 0)
            fail_msg("taken: %s", bad[i].text);
        assert_int_equal(e.code, ERR_CONFIG);
        if (!strstr(e.msg, bad[i].rule))
            fail_msg("%s: not about %s: %s", bad[i].text, bad[i].rule, e.msg);
        assert_null(strstr(e.msg, "SECRET"));
    }
    assert_int_equal(mem_live(), 0);
}

static void credentials_may_be_as_long_as_the_bound_and_no_longer(void **state)
{
    static char text[PROXY_URL_MAX + 2];
    struct proxy_url p;
    struct err e = {0};
    size_t fixed = strlen("http://u:@proxy:3128");

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "http://u:", 9);
    memcpy(text + PROXY_URL_MAX - 11, "@proxy:3128", 12);
    assert_int_equal(proxy_url_parse(span_str(text), &p, &e), 0);
    assert_int_equal(p.password.len, PROXY_URL_MAX - fixed);
    proxy_url_done(&p);

    memset(text, 'x', sizeof(text));
    memcpy(text, "http://u:", 9);
    memcpy(text + PROXY_URL_MAX - 10, "@proxy:3128", 12);
    assert_int_equal(proxy_url_parse(span_str(text), &p, &e), -1);
    assert_non_null(strstr(e.msg, "4096"));
}

static int parse_once(void)
{
    struct proxy_url p;
    int rc = proxy_url_parse(span_str("http://user:password@proxy:1"), &p, NULL);

    if (rc == 0)
        proxy_url_done(&p);
    return rc;
}

static void no_memory_is_an_error_without_a_leak(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(parse_once());
}

static void a_printed_address_has_brackets_where_it_needs_them(void **state)
{
    char out[PROXY_TEXT_MAX];

    (void)state;
    assert_string_equal(proxy_print("proxy", 80, out), "proxy:80");
    assert_string_equal(proxy_print("::1", 65535, out), "[::1]:65535");
}

/* -- the choice ------------------------------------------------------------------------ */

static const struct {
    const char *setting;
    struct proxy_env env;
    const char *name;
    int want; /* of proxy_choose() */
    const char *proxy;
} choice[] = {
    {"none", {"http://a", "http://b", NULL}, "x.example", 0, NULL},
    {"http://a", {NULL, NULL, NULL}, "x.example", 1, "a"},
    {"http://a", {NULL, NULL, "*"}, "x.example", 1, "a"},
    {"http://a", {NULL, NULL, NULL}, "x.localhost", 1, "a"},
    {"env", {NULL, NULL, NULL}, "x.example", 0, NULL},
    {NULL, {NULL, NULL, NULL}, "x.example", 0, NULL},
    {NULL, {"http://a", "http://b", NULL}, "x.example", 1, "a"},
    {"env", {NULL, "socks5h://b", NULL}, "x.example", 1, "b"},
    {"env", {"http://a", NULL, ".example"}, "x.example", 0, NULL},
    {"env", {"http://a", NULL, "y.example"}, "x.example", 1, "a"},
    {"env", {"http://a", NULL, NULL}, "x.localhost", 1, "a"},
    {"env", {"http://a", NULL, NULL}, "127.0.0.1", 1, "a"},
    {"env", {"http://a", NULL, ".localhost"}, "x.localhost", 0, NULL},
    {"env", {"http://a", NULL, ".localhost"}, "notlocalhost", 1, "a"},
    {"env", {"gopher://a", "http://b", NULL}, "x.example", -1, NULL},
    {"sometimes://", {NULL, NULL, NULL}, "x.example", -1, NULL},
};

static void a_proxy_that_is_set_is_used_or_an_error(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(choice); i++) {
        struct proxy_url p = {0};
        struct err e = {0};
        int rc =
            proxy_choose(choice[i].setting, &choice[i].env, choice[i].name, 443, &p, &e);

        if (rc != choice[i].want)
            fail_msg("row %zu: %d %s", i, rc, e.msg);
        if (rc == 1)
            assert_string_equal(p.host, choice[i].proxy);
        if (rc < 0)
            assert_int_equal(e.code, ERR_CONFIG);
        proxy_url_done(&p);
    }
}

static void the_environment_is_read_in_either_case_and_lower_case_wins(void **state)
{
    struct proxy_env env;

    (void)state;
    unsetenv("https_proxy");
    unsetenv("no_proxy");
    unsetenv("all_proxy");
    setenv("HTTPS_PROXY", "http://upper", 1);
    setenv("ALL_PROXY", "", 1);
    setenv("NO_PROXY", "a", 1);
    proxy_env_get(&env);
    assert_string_equal(env.https_proxy, "http://upper");
    assert_null(env.all_proxy);
    assert_string_equal(env.no_proxy, "a");
    setenv("https_proxy", "http://lower", 1);
    setenv("all_proxy", "socks5://x", 1);
    proxy_env_get(&env);
    assert_string_equal(env.https_proxy, "http://lower");
    assert_string_equal(env.all_proxy, "socks5://x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proxy_url_is_read_in_every_form),
        cmocka_unit_test(a_bad_proxy_url_is_refused_by_its_rule_and_never_quoted),
        cmocka_unit_test(credentials_may_be_as_long_as_the_bound_and_no_longer),
        cmocka_unit_test(no_memory_is_an_error_without_a_leak),
        cmocka_unit_test(a_printed_address_has_brackets_where_it_needs_them),
        cmocka_unit_test(a_proxy_that_is_set_is_used_or_an_error),
        cmocka_unit_test(the_environment_is_read_in_either_case_and_lower_case_wins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
