/* SPDX-License-Identifier: MIT */
#include "common/host.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

#define TEXT(s) s, sizeof(s) - 1
#define L63     "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"
#define N252                                                                             \
    L63 "." L63 "." L63 ".aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff"
#define ID40 "a123456789b123456789c123456789d123456789"

static void good_authorities_are_canonical(void **state)
{
    static const struct {
        const char *text, *name;
        uint16_t port;
        bool is_ip;
    } good[] = {
        {"a", "a", 0, false},
        {"Example.COM", "example.com", 0, false},
        {"example.com.", "example.com", 0, false},
        {"example.com.:443", "example.com", 443, false},
        {"example.com:1", "example.com", 1, false},
        {"example.com:65535", "example.com", 65535, false},
        {"3000-demo.preview.localhost:8443", "3000-demo.preview.localhost", 8443, false},
        {"xn--bcher-kva.example", "xn--bcher-kva.example", 0, false},
        {"99999-.example", "99999-.example", 0, false},
        {L63 ".example", L63 ".example", 0, false},
        {N252 "g", N252 "g", 0, false},
        {N252 "g.", N252 "g", 0, false},
        {"127.0.0.1", "127.0.0.1", 0, true},
        {"127.0.0.1:80", "127.0.0.1", 80, true},
        {"1.2.3.com", "1.2.3.com", 0, false},
        {"0xyz", "0xyz", 0, false},
        {"[::1]", "::1", 0, true},
        {"[::1]:3000", "::1", 3000, true},
        {"[2001:DB8:0::00:1]", "2001:db8::1", 0, true},
        {"[::ffff:1.2.3.4]", "::ffff:1.2.3.4", 0, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct host h;

        if (host_parse(span_str(good[i].text), &h) < 0)
            fail_msg("%s", good[i].text);
        assert_string_equal(h.name, good[i].name);
        assert_int_equal(h.port, good[i].port);
        assert_int_equal(h.is_ip, good[i].is_ip);
    }
}

static void bad_authorities_are_refused(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        const char *rule;
    } bad[] = {
        {TEXT(""), "empty (RFC 9110 4.2.1)"},
        {TEXT("."), "no label (RFC 1035 2.3.1)"},
        {TEXT(".a"), "empty label (RFC 1035 2.3.1)"},
        {TEXT("a..b"), "two dots (RFC 1035 2.3.1)"},
        {TEXT("a.."), "two dots at the end (RFC 1035 2.3.1)"},
        {TEXT(L63 "x"), "label of 64 (RFC 1035 2.3.4)"},
        {TEXT("a." L63 "x.b"), "label of 64 (RFC 1035 2.3.4)"},
        {TEXT(N252 "gh"), "name of 254 (RFC 1035 2.3.4)"},
        {TEXT("a\0b"), "NUL (RFC 3986 3.2.2)"},
        {TEXT("a\0"), "NUL (RFC 3986 3.2.2)"},
        {TEXT("a_b"), "underscore (RFC 1123 2.1)"},
        {TEXT("a b"), "space (RFC 3986 3.2.2)"},
        {TEXT(" a"), "space (RFC 3986 3.2.2)"},
        {TEXT("a,b"), "list (RFC 9110 7.2)"},
        {TEXT("a%2e"), "percent (RFC 1123 2.1)"},
        {TEXT("\xc3\xa4"), "not ASCII (RFC 1123 2.1)"},
        {TEXT("u@a"), "user (RFC 9110 4.2.4)"},
        {TEXT("a/b"), "path (RFC 9110 7.2)"},
        {TEXT("a:"), "empty port (RFC 3986 3.2.3)"},
        {TEXT("a.:"), "empty port (RFC 3986 3.2.3)"},
        {TEXT(":80"), "no name (RFC 9110 4.2.1)"},
        {TEXT("a:0"), "port 0 (RFC 6335 6)"},
        {TEXT("a:65536"), "port over 65535 (RFC 6335 6)"},
        {TEXT("a:080"), "leading zero (RFC 3986 3.2.3)"},
        {TEXT("a:+80"), "sign (RFC 3986 3.2.3)"},
        {TEXT("a: 80"), "space (RFC 3986 3.2.3)"},
        {TEXT("a:80 "), "space (RFC 3986 3.2.3)"},
        {TEXT("a:80:80"), "two ports (RFC 3986 3.2.3)"},
        {TEXT("a:http"), "letters (RFC 3986 3.2.3)"},
        {TEXT("::1"), "no brackets (RFC 3986 3.2.2)"},
        {TEXT("[::1"), "one bracket (RFC 3986 3.2.2)"},
        {TEXT("[]"), "empty brackets (RFC 3986 3.2.2)"},
        {TEXT("[::1]80"), "no colon (RFC 3986 3.2.3)"},
        {TEXT("[::1]:"), "empty port (RFC 3986 3.2.3)"},
        {TEXT("[::1]."), "dot after brackets (RFC 3986 3.2.2)"},
        {TEXT("[::1%25lo]"), "zone (RFC 9110 4.2.1)"},
        {TEXT("[::1\0]"), "NUL (RFC 3986 3.2.2)"},
        {TEXT("[127.0.0.1]"), "IPv4 in brackets (RFC 3986 3.2.2)"},
        {TEXT("[v1.x]"), "future address (RFC 3986 3.2.2)"},
        {TEXT("[0000:0000:0000:0000:0000:ffff:127.127.127.127x]"), "too long"},
        {TEXT("127.1"), "short IPv4 (RFC 3986 7.4)"},
        {TEXT("0127.0.0.1"), "octal IPv4 (RFC 3986 7.4)"},
        {TEXT("2130706433"), "IPv4 as one number (RFC 3986 7.4)"},
        {TEXT("0x7f000001"), "IPv4 in hex (RFC 3986 7.4)"},
        {TEXT("0X7F.1"), "IPv4 in hex (RFC 3986 7.4)"},
        {TEXT("127.0.0.0x1"), "IPv4 in hex (RFC 3986 7.4)"},
        {TEXT("256.0.0.1"), "no IPv4 (RFC 3986 3.2.2)"},
        {TEXT("1.2.3.4.5"), "no IPv4 (RFC 3986 3.2.2)"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct host h = {.name = "untouched"};

        if (host_parse(span_of(bad[i].text, bad[i].len), &h) == 0)
            fail_msg("%s (%s) gave %s", bad[i].text, bad[i].rule, h.name);
        assert_string_equal(h.name, "untouched");
    }
}

static void ports_are_plain_decimals(void **state)
{
    static const char *const bad[] = {"",
                                      "0",
                                      "65536",
                                      "03000",
                                      "+80",
                                      "-1",
                                      "80a",
                                      "0x50",
                                      " 80",
                                      "100000",
                                      "99999999999999999999"};

    (void)state;
    assert_int_equal(host_port_parse(span_str("1")), 1);
    assert_int_equal(host_port_parse(span_str("65535")), 65535);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(host_port_parse(span_str(bad[i])), 0);
}

static void names_by_themselves_are_strict(void **state)
{
    static const char *const good[][2] = {
        {"Example.COM.", "example.com"},
        {"localhost", "localhost"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"3com.com", "3com.com"},
        {"1.2.3.com", "1.2.3.com"},
        {"r3---sn-x.example", "r3---sn-x.example"},
        {L63 ".example", L63 ".example"},
        {N252 "g.", N252 "g"},
    };
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {TEXT("")},
        {TEXT(".")},
        {TEXT("..")},
        {TEXT("a..b")},
        {TEXT(".a")},
        {TEXT("a.b..")},
        {TEXT("a\0.b")},
        {TEXT("a.b\0")},
        {TEXT("a_b.c")},
        {TEXT("_dmarc.a.b")},
        {TEXT("a b")},
        {TEXT("a.b:443")},
        {TEXT("[a.b]")},
        {TEXT("[::1]")},
        {TEXT("::1")},
        {TEXT("1.2.3.4")},
        {TEXT("1.2.3.4.")},
        {TEXT("127.1")},
        {TEXT("0x7f.1")},
        {TEXT("2130706433")},
        {TEXT("a.0x7F000001")},
        {TEXT("a.1")},
        {TEXT("0177.0.0.1")},
        {TEXT("b\xc3\xbc"
              "cher.example")},
        {TEXT("-a.b")},
        {TEXT("a-.b")},
        {TEXT("a.-b")},
        {TEXT("a.b-")},
        {TEXT("a/b")},
        {TEXT("a%2e.b")},
        {TEXT("*.a.b")},
        {TEXT("a.b\n")},
        {TEXT(" a.b")},
        {TEXT(L63 "h.example")},
        {TEXT(N252 "gh")},
    };
    char name[HOST_MAX + 1] = "untouched";

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (host_name_parse(span_of(bad[i].text, bad[i].len), name) == 0)
            fail_msg("%s", bad[i].text);
        assert_string_equal(name, "untouched");
    }
    assert_int_equal(host_name_parse(span_of(NULL, 0), name), -1);
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_int_equal(host_name_parse(span_str(good[i][0]), name), 0);
        assert_string_equal(name, good[i][1]);
    }
}

static void ids_are_folded_and_bounded(void **state)
{
    static const char *const bad[] = {"",    "-a",  "a-",   "a--b", ID40 "e", "a.b",
                                      "a_b", "a b", "\xe4", "-",    "a/b"};
    char id[HOST_ID_MAX + 1] = "untouched";

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(host_id_parse(span_str(bad[i]), id), -1);
        assert_string_equal(id, "untouched");
    }
    assert_int_equal(host_id_parse(span_of("a\0b", 3), id), -1);
    assert_int_equal(host_id_parse(span_str("Demo-7-X"), id), 0);
    assert_string_equal(id, "demo-7-x");
    assert_int_equal(host_id_parse(span_str(ID40), id), 0);
    assert_string_equal(id, ID40);
    assert_int_equal(host_id_parse(span_str("7"), id), 0);
}

static const struct {
    const char *authority;
    enum host_kind kind;
    uint16_t port;
    const char *id, *name;
} route[] = {
    {"preview.example.com", HOST_APEX, 0, "", ""},
    {"Preview.Example.Com.:443", HOST_APEX, 0, "", ""},
    {"control.other.net", HOST_APEX, 0, "", ""},
    {"3000-demo.preview.example.com", HOST_PREVIEW, 3000, "demo", ""},
    {"1-a.preview.example.com", HOST_PREVIEW, 1, "a", ""},
    {"65535-A-B.preview.example.com:8443", HOST_PREVIEW, 65535, "a-b", ""},
    {"3000-0-1.preview.example.com", HOST_PREVIEW, 3000, "0-1", ""},
    {"65535-" ID40 ".preview.example.com", HOST_PREVIEW, 65535, ID40, ""},
    {"0-demo.preview.example.com", HOST_LINK, 0, "demo", ""},
    {"shop.preview.example.com", HOST_NAME, 0, "", "shop"},
    {"3000.preview.example.com", HOST_NAME, 0, "", "3000"},
    {"a3000-x.preview.example.com", HOST_NAME, 0, "", "a3000-x"},
    {"xn--a-b.preview.example.com", HOST_NAME, 0, "", "xn--a-b"},
    {"03000-x.preview.example.com", HOST_BAD, 0, "", ""},
    {"00-x.preview.example.com", HOST_BAD, 0, "", ""},
    {"65536-x.preview.example.com", HOST_BAD, 0, "", ""},
    {"99999999999-x.preview.example.com", HOST_BAD, 0, "", ""},
    {"99999-.preview.example.com", HOST_BAD, 0, "", ""},
    {"3000--a.preview.example.com", HOST_BAD, 0, "", ""},
    {"3000-a--b.preview.example.com", HOST_BAD, 0, "", ""},
    {"3000-a-.preview.example.com", HOST_BAD, 0, "", ""},
    {"0-.preview.example.com", HOST_BAD, 0, "", ""},
    {"3000-" ID40 "e.preview.example.com", HOST_BAD, 0, "", ""},
    {"-a.preview.example.com", HOST_BAD, 0, "", ""},
    {"a-.preview.example.com", HOST_BAD, 0, "", ""},
    {"a.b.preview.example.com", HOST_BAD, 0, "", ""},
    {"3000-a.b.preview.example.com", HOST_BAD, 0, "", ""},
    {"a.3000-b.preview.example.com", HOST_BAD, 0, "", ""},
    {"example.com", HOST_FOREIGN, 0, "", ""},
    {"xpreview.example.com", HOST_FOREIGN, 0, "", ""},
    {"3000-demo.preview.example.org", HOST_FOREIGN, 0, "", ""},
    {"preview.example.com.evil.net", HOST_FOREIGN, 0, "", ""},
    {"3000-demo.control.other.net", HOST_FOREIGN, 0, "", ""},
    {"127.0.0.1", HOST_FOREIGN, 0, "", ""},
    {"[::1]:80", HOST_FOREIGN, 0, "", ""},
};

static void labels_are_routed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(route); i++) {
        struct host h;
        struct host_route r;

        assert_int_equal(host_parse(span_str(route[i].authority), &h), 0);
        host_route(&h, "preview.example.com", "control.other.net", &r);
        if (r.kind != route[i].kind)
            fail_msg("%s: kind %d", route[i].authority, (int)r.kind);
        assert_int_equal(r.port, route[i].port);
        assert_string_equal(r.id, route[i].id);
        assert_string_equal(r.name, route[i].name);
    }
}

static void the_control_host_may_be_under_the_domain_or_absent(void **state)
{
    struct host h;
    struct host_route r;

    (void)state;
    assert_int_equal(host_parse(span_str("api.preview.example.com"), &h), 0);
    host_route(&h, "preview.example.com", "api.preview.example.com", &r);
    assert_int_equal(r.kind, HOST_APEX);
    host_route(&h, "preview.example.com", NULL, &r);
    assert_int_equal(r.kind, HOST_NAME);
}

static void reserved_and_ambiguous_names_cannot_be_claimed(void **state)
{
    static const char *const bad[] = {
        "",    "www", "api", "admin", "login", "mail", "3000-", "3000-a",
        "0-a", "-a",  "a-",  "a.b",   "Shop",  "a_b",  L63 "x", "99999999-a"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(host_name_is_claimable(span_str(bad[i])));
    assert_true(host_name_is_claimable(span_str("shop")));
    assert_true(host_name_is_claimable(span_str("3000")));
    assert_true(host_name_is_claimable(span_str("www2")));
    assert_true(host_name_is_claimable(span_str(L63)));
}

static void port_lists_are_parsed_or_refused(void **state)
{
    static const char *const bad[] = {
        "",  ",",    "80,", ",80",    "80,,81", "80-",     "-80", "81-80", "80-81-82",
        "0", "0-80", "80 ", "80, 81", "65536",  "1-65536", "080", "a",     "80;81"};
    char text[PORT_LIST_MAX * 3 + 4] = "";
    struct port_list l = {.n = 77};
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(port_list_parse(span_str(bad[i]), &l), -1);
        assert_int_equal(l.n, 77);
    }
    assert_int_equal(port_list_parse(span_str("3000,8000-8999,1-1"), &l), 0);
    assert_int_equal(l.n, 3);
    assert_true(port_list_has(&l, 3000) && port_list_has(&l, 8000));
    assert_true(port_list_has(&l, 8999) && port_list_has(&l, 1));
    assert_false(port_list_has(&l, 3001) || port_list_has(&l, 7999));
    assert_false(port_list_has(&l, 9000) || port_list_has(&l, 0));
    assert_int_equal(port_list_parse(span_str("1-65535"), &l), 0);
    assert_true(port_list_has(&l, 65535));

    for (unsigned i = 0; i < PORT_LIST_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%u", i ? "," : "", 10 + i);
    assert_int_equal(port_list_parse(span_str(text), &l), 0);
    assert_int_equal(l.n, PORT_LIST_MAX);
    memcpy(text + n, ",9", 3);
    assert_int_equal(port_list_parse(span_str(text), &l), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_authorities_are_canonical),
        cmocka_unit_test(bad_authorities_are_refused),
        cmocka_unit_test(ports_are_plain_decimals),
        cmocka_unit_test(names_by_themselves_are_strict),
        cmocka_unit_test(ids_are_folded_and_bounded),
        cmocka_unit_test(labels_are_routed),
        cmocka_unit_test(the_control_host_may_be_under_the_domain_or_absent),
        cmocka_unit_test(reserved_and_ambiguous_names_cannot_be_claimed),
        cmocka_unit_test(port_lists_are_parsed_or_refused),
    };

    return cmocka_run_group_tests_name("common/host", tests, NULL, NULL);
}
