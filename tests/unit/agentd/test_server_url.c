/* SPDX-License-Identifier: MIT */
#include "agentd/link/server_url.h"

#include <string.h>

#include "tests/support/test.h"

static const struct {
    const char *text;
    bool is_tls;
    const char *domain;
    uint16_t port;
} good[] = {
    {"https://preview.example.com", true, "preview.example.com", 443},
    {"https://preview.example.com/", true, "preview.example.com", 443},
    {"HTTPS://Preview.Example.com.:8443", true, "preview.example.com", 8443},
    {"https://preview.localhost:8443", true, "preview.localhost", 8443},
    {"http://preview.localhost", false, "preview.localhost", 80},
    {"http://localhost:8080", false, "localhost", 8080},
};
static const char *const bad[] = {
    "",
    "preview.example.com",
    "wss://preview.example.com",
    "https://",
    "https:///",
    "https://preview.example.com:",
    "https://preview.example.com:65536",
    "https://preview.example.com/path",
    "https://preview.example.com//",
    "https://user@preview.example.com",
    "https://preview..example.com",
    "https://10.0.0.1",
    "https://[::1]:8443",
    "http://preview.example.com",
    "http://localhost.example.com",
    "http://notlocalhost",
    "http://127.0.0.1:80",
};

static void a_server_is_a_scheme_a_domain_and_a_port(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(good); i++) {
        struct server_url u;
        struct err e = {0};

        if (server_url_parse(good[i].text, &u, &e) < 0)
            fail_msg("%s: %s", good[i].text, e.msg);
        assert_int_equal(u.is_tls, good[i].is_tls);
        assert_string_equal(u.domain, good[i].domain);
        assert_int_equal(u.port, good[i].port);
    }
    for (i = 0; i < COUNT_OF(bad); i++) {
        struct server_url u;
        struct err e = {0};

        if (server_url_parse(bad[i], &u, &e) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(e.code, ERR_CONFIG);
    }
}

static void the_links_host_is_under_the_domain_and_bounded(void **state)
{
    struct server_url u = {.domain = "preview.example.com"};
    char host[HOST_MAX + 1];
    size_t i;

    (void)state;
    assert_int_equal(server_url_link_host(&u, "demo", host, NULL), 0);
    assert_string_equal(host, "0-demo.preview.example.com");
    assert_int_equal(server_url_link_host(&u, "DEMO-2", host, NULL), 0);
    assert_string_equal(host, "0-demo-2.preview.example.com");
    assert_int_equal(server_url_link_host(&u, "", host, NULL), -1);
    assert_int_equal(server_url_link_host(&u, "a--b", host, NULL), -1);
    assert_int_equal(server_url_link_host(&u, "a.b", host, NULL), -1);
    for (i = 0; i < HOST_MAX; i++)
        u.domain[i] = i % 50 == 49 ? '.' : 'a';
    u.domain[HOST_MAX] = '\0';
    assert_int_equal(server_url_link_host(&u, "demo", host, NULL), -1);
    u.domain[HOST_MAX - 7] = '\0';
    assert_int_equal(server_url_link_host(&u, "demo", host, NULL), 0);
    assert_int_equal(strlen(host), HOST_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_is_a_scheme_a_domain_and_a_port),
        cmocka_unit_test(the_links_host_is_under_the_domain_and_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
