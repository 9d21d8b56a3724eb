/* SPDX-License-Identifier: MIT */
#include "agentd/link/proxy.h"

#include "tests/support/test.h"

static const struct {
    const char *list, *name;
    uint16_t port;
    bool want;
} row[] = {
    {"", "a.example", 443, false},
    {"*", "a.example", 443, true},
    {"*", "10.0.0.1", 443, true},
    {"x,*", "a.example", 443, true},
    {"*:8443", "a.example", 443, false},

    /* a name is itself and what is under it */
    {"example", "a.example", 443, true},
    {"a.example", "a.example", 443, true},
    {"A.Example.", "a.example", 443, true},
    {"a.example", "b.a.example", 443, true},
    {"a.example", "ba.example", 443, false},
    {"a.example", "example", 443, false},
    {"a.exampl", "a.example", 443, false},
    {"xa.example", "a.example", 443, false},

    /* with a dot: only what is under it */
    {".example", "a.example", 443, true},
    {".example", "b.a.example", 443, true},
    {".example", "example", 443, false},
    {"*.example", "a.example", 443, true},
    {"*.example", "example", 443, false},
    {"*example", "a.example", 443, false},
    {".", "a.example", 443, false},
    {"..", "a.example", 443, false},
    {"*.", "a.example", 443, false},

    /* ports */
    {"a.example:443", "a.example", 443, true},
    {"a.example:8443", "a.example", 443, false},
    {".example:443", "a.example", 443, true},
    {"a.example:", "a.example", 443, false},
    {"a.example:0", "a.example", 443, false},
    {"a.example:x", "a.example", 443, false},
    {":443", "a.example", 443, false},

    /* separators */
    {"x,a.example", "a.example", 443, true},
    {"x, a.example ,y", "a.example", 443, true},
    {"x a.example\ty", "a.example", 443, true},
    {",,,", "a.example", 443, false},
    {" ", "a.example", 443, false},

    /* addresses and ranges */
    {"10.0.0.1", "10.0.0.1", 443, true},
    {"10.0.0.1", "10.0.0.10", 443, false},
    {"10.0.0.1:443", "10.0.0.1", 443, true},
    {"10.0.0.1:80", "10.0.0.1", 443, false},
    {"10.0.0.0/8", "10.255.0.1", 443, true},
    {"10.0.0.0/8", "11.0.0.1", 443, false},
    {"10.0.0.0/33", "10.0.0.1", 443, false},
    {"0.0.0.0/0", "203.0.113.9", 443, true},
    {"10.0.0.0/8", "::ffff:10.1.2.3", 443, true},
    {"::1", "::1", 443, true},
    {"[::1]", "::1", 443, true},
    {"[::1]:443", "::1", 443, true},
    {"[::1]:80", "::1", 443, false},
    {"[::1", "::1", 443, false},
    {"[]", "::1", 443, false},
    {"[", "::1", 443, false},
    {"[::1]x", "::1", 443, false},
    {"2001:db8::/32", "2001:db8:1::5", 443, true},
    {"2001:db8::/32", "2001:db9::5", 443, false},

    /* an address is not a name, and a name is never resolved for this */
    {".1", "10.0.0.1", 443, false},
    {"0.1", "10.0.0.1", 443, false},
    {"10.0.0.0/8", "a.example", 443, false},
    {"127.0.0.1", "localhost", 443, false},
};

static void a_no_proxy_list_names_a_server_or_does_not(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(row); i++)
        if (proxy_is_bypassed(span_str(row[i].list), row[i].name, row[i].port) !=
            row[i].want)
            fail_msg("row %zu: \"%s\" and %s:%u", i, row[i].list, row[i].name,
                     row[i].port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_no_proxy_list_names_a_server_or_does_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
