/* SPDX-License-Identifier: MIT */
#include "common/proxyproto.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/limits.h"
#include "tests/support/test.h"

#define TEXT(s) s, sizeof(s) - 1
#define SIGN    "\r\n\r\n\0\r\nQUIT\n"
#define V2_4    "\x01\x02\x03\x04\x7f\0\0\x01\x04\xd2\x01\xbb"
#define V2_6                                                                             \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"                                         \
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50\x01\xbb"
#define Z36 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

static const char *print(const struct sock_addr *a, char *out, size_t cap)
{
    char ip[INET6_ADDRSTRLEN] = "";

    if (a->len == 0)
        return "none";
    if (a->u.sa.sa_family == AF_INET) {
        assert_int_equal(a->len, sizeof(a->u.in));
        assert_non_null(inet_ntop(AF_INET, &a->u.in.sin_addr, ip, sizeof(ip)));
        (void)snprintf(out, cap, "%s %u", ip, ntohs(a->u.in.sin_port));
    } else {
        assert_int_equal(a->len, sizeof(a->u.in6));
        assert_non_null(inet_ntop(AF_INET6, &a->u.in6.sin6_addr, ip, sizeof(ip)));
        (void)snprintf(out, cap, "%s %u", ip, ntohs(a->u.in6.sin6_port));
    }
    return out;
}

static const struct {
    const char *text;
    size_t len;
    const char *client;
} good[] = {
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234 443\r\n"), "1.2.3.4 1234"},
    {TEXT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
     "255.255.255.255 65535"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 0 0\r\n"), "1.2.3.4 0"},
    {TEXT("PROXY TCP6 2001:db8::7 ::1 80 443\r\n"), "2001:db8::7 80"},
    {TEXT("PROXY UNKNOWN\r\n"), "none"},
    {TEXT("PROXY UNKNOWN \r\n"), "none"},
    {TEXT("PROXY UNKNOWN ffff::1 \0 whatever\r\n"), "none"},
    {TEXT(SIGN "\x21\x11\0\x0c" V2_4), "1.2.3.4 1234"},
    {TEXT(SIGN "\x21\x21\0\x24" V2_6), "2001:db8::7 80"},
    {TEXT(SIGN "\x21\x11\0\x13" V2_4 "\x04\0\0\x05\0\x01x"), "1.2.3.4 1234"},
    {TEXT(SIGN "\x21\x31\0\xd8" Z36 Z36 Z36 Z36 Z36 Z36), "none"},
    {TEXT(SIGN "\x20\0\0\0"), "none"},
    {TEXT(SIGN "\x20\x11\0\x0c" V2_4), "none"},
    {TEXT(SIGN "\x20\xff\0\x01x"), "none"},
    {TEXT(SIGN "\x21\0\0\x03xyz"), "none"},
};

static void good_headers_are_read_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct sock_addr client;
        uint8_t more[400];
        size_t len = 0;
        char text[100];

        for (size_t n = 0; n < good[i].len; n++)
            assert_int_equal(proxyproto_parse(span_of(good[i].text, n), &len, &client),
                             PROXYPROTO_MORE);
        memset(more, '\n', sizeof(more)); /* what follows the header changes nothing */
        memcpy(more, good[i].text, good[i].len);
        for (size_t n = good[i].len; n <= sizeof(more); n += sizeof(more) - good[i].len) {
            if (proxyproto_parse(span_of(more, n), &len, &client) != PROXYPROTO_OK)
                fail_msg("%s", good[i].text);
            assert_int_equal(len, good[i].len);
            assert_string_equal(print(&client, text, sizeof(text)), good[i].client);
        }
    }
}

/* All are of proxy-protocol.txt: 2.1 for the text form, 2.2 for the binary one. */
static const struct {
    const char *text;
    size_t len;
    const char *rule;
} bad[] = {
    {TEXT("G"), "no signature"},
    {TEXT("PROXX"), "no signature"},
    {TEXT("proxy "), "lower case"},
    {TEXT("PROXY\tTCP4"), "no space"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234 443\n"), "bare LF"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234 443\rx"), "CR without LF"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234 443\r\r\n"), "two CR"},
    {TEXT("PROXY \r\n"), "nothing"},
    {TEXT("PROXY UNKNOWNX\r\n"), "unknown family"},
    {TEXT("PROXY TCP5 1.2.3.4 127.0.0.1 1234 443\r\n"), "unknown family"},
    {TEXT("PROXY tcp4 1.2.3.4 127.0.0.1 1234 443\r\n"), "lower case"},
    {TEXT("PROXY TCP4\r\n"), "no addresses"},
    {TEXT("PROXY TCP4  1.2.3.4 127.0.0.1 1234 443\r\n"), "two spaces"},
    {TEXT("PROXY  TCP4 1.2.3.4 127.0.0.1 1234 443\r\n"), "two spaces"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234\r\n"), "one port"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234 443 \r\n"), "space at the end"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1234 443 1\r\n"), "three ports"},
    {TEXT("PROXY TCP4 1.2.3 127.0.0.1 1234 443\r\n"), "short address"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.256 1234 443\r\n"), "bad server address"},
    {TEXT("PROXY TCP4 1.2.3.4\0 127.0.0.1 1234 443\r\n"), "NUL in an address"},
    {TEXT("PROXY TCP4 ::1 ::1 1234 443\r\n"), "IPv6 in TCP4"},
    {TEXT("PROXY TCP6 1.2.3.4 1.2.3.4 1234 443\r\n"), "IPv4 in TCP6"},
    {TEXT("PROXY TCP6 fe80::1%lo ::1 1234 443\r\n"), "zone"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 65536 443\r\n"), "port over 65535"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 +1 443\r\n"), "sign"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 01 443\r\n"), "leading zero"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 1 0443\r\n"), "leading zero"},
    {TEXT("PROXY TCP4 1.2.3.4 127.0.0.1 a 443\r\n"), "letters"},
    {TEXT("\r\n\r\n\0\r\nQUIX"), "no signature"},
    {TEXT(SIGN "\x11"), "version 1 in the binary form"},
    {TEXT(SIGN "\x22"), "unknown command"},
    {TEXT(SIGN "\x21\x11\x02\x09"), "over the bound"},
    {TEXT(SIGN "\x20\0\xff\xff"), "over the bound"},
    {TEXT(SIGN "\x21\x12\0\x0c" V2_4), "datagrams"},
    {TEXT(SIGN "\x21\x41\0\x0c" V2_4), "unknown family"},
    {TEXT(SIGN "\x21\x11\0\x0b\x01\x02\x03\x04\x7f\0\0\x01\x04\xd2\x01"),
     "short address"},
    {TEXT(SIGN "\x21\x21\0\x0c" V2_4), "short address"},
    {TEXT(SIGN "\x21\x31\0\x0c" V2_4), "short address"},
    {TEXT(SIGN "\x21\x11\0\x0e" V2_4 "\x04\0"), "cut TLV"},
    {TEXT(SIGN "\x21\x11\0\x0f" V2_4 "\x04\0\x01"), "TLV over the end"},
};

static void bad_headers_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct sock_addr client;
        size_t len = 77;

        if (proxyproto_parse(span_of(bad[i].text, bad[i].len), &len, &client) !=
            PROXYPROTO_BAD)
            fail_msg("%s: %s", bad[i].text, bad[i].rule);
        assert_int_equal(len, 77);
        for (size_t n = 0; n < bad[i].len; n++)
            assert_int_not_equal(proxyproto_parse(span_of(bad[i].text, n), &len, &client),
                                 PROXYPROTO_OK);
    }
}

static void one_byte_too_long_is_refused(void **state)
{
    uint8_t text[PROXYPROTO_MAX + 8];
    struct sock_addr client;
    size_t len;

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "PROXY UNKNOWN ", 14);
    assert_int_equal(proxyproto_parse(span_of(text, 106), &len, &client),
                     PROXYPROTO_MORE);
    assert_int_equal(proxyproto_parse(span_of(text, 107), &len, &client), PROXYPROTO_BAD);
    memcpy(text + 105, "\r\n", 2);
    assert_int_equal(proxyproto_parse(span_of(text, 107), &len, &client), PROXYPROTO_OK);
    memcpy(text + 105, "x\r\n", 3);
    assert_int_equal(proxyproto_parse(span_of(text, 108), &len, &client), PROXYPROTO_BAD);

    memcpy(text, SIGN "\x20\0\x02\x08", 16); /* 16 + 520 = PROXYPROTO_MAX */
    assert_int_equal(proxyproto_parse(span_of(text, PROXYPROTO_MAX - 1), &len, &client),
                     PROXYPROTO_MORE);
    assert_int_equal(proxyproto_parse(span_of(text, PROXYPROTO_MAX), &len, &client),
                     PROXYPROTO_OK);
    assert_int_equal(len, PROXYPROTO_MAX);
    text[15] = 9;
    assert_int_equal(proxyproto_parse(span_of(text, sizeof(text)), &len, &client),
                     PROXYPROTO_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_headers_are_read_at_every_cut),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(one_byte_too_long_is_refused),
    };

    return cmocka_run_group_tests_name("common/proxyproto", tests, NULL, NULL);
}
