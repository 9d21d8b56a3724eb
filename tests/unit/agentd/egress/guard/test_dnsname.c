/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/dnsname.h"

#include "common/host.h"
#include "tests/support/test.h"

#define HEADER 12

/* Reads the name at `pos` of these bytes behind a header. */
static size_t read_at(const char *bytes, size_t n, size_t pos, bool may_point,
                      struct dnsname *out)
{
    uint8_t m[600] = {0};
    size_t end;

    memcpy(m + HEADER, bytes, n);
    end = dnsname_read(span_of(m, HEADER + n), HEADER + pos, may_point, out);
    return end ? end - HEADER : 0;
}

static void names_are_read_with_their_pointers(void **state)
{
    /*                       0            5         9     12        17 */
    static const char m[] = "\4Test\0"
                            "\2ab\xc0\x0c"
                            "\1c\xc0\x12"
                            "\xc0\x17";
    static const struct {
        size_t at, end;
        const char *text;
    } row[] = {{0, 6, "test"},
               {6, 11, "ab.test"},
               {11, 15, "c.ab.test"},
               {15, 17, "c.ab.test"},
               {5, 6, "."}};
    char text[DNSNAME_TEXT_MAX];
    struct dnsname n;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        assert_int_equal(read_at(m, sizeof(m) - 1, row[i].at, true, &n), row[i].end);
        dnsname_print(n.wire, text);
        assert_string_equal(text, row[i].text);
        assert_int_equal(n.wire[n.len - 1], 0);
    }
    assert_int_equal(read_at(m, sizeof(m) - 1, 6, false, &n), 0);
}

static void pointers_go_back_and_only_back(void **state)
{
    static const struct {
        const char *rule, *m;
        size_t n;
    } bad[] = {
        {"to itself", "\xc0\x0c", 2},
        {"to its own label", "\1a\xc0\x0c", 4},
        {"into its own label", "\1a\xc0\x0d", 4},
        {"forwards", "\xc0\x0e\0", 3},
        {"into the header", "\xc0\x00", 2},
        {"behind the end", "\xff\xff", 2},
        {"cut", "\xc0", 1},
        {"a kind of label that is none", "\x40", 1},
        {"another", "\x80\x0c", 2},
        {"a label over the end", "\2a", 2},
        {"no end", "\1a", 2},
        {"nothing", "", 0},
    };
    struct dnsname n;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (read_at(bad[i].m, bad[i].n, 0, true, &n) != 0)
            fail_msg("taken: %s", bad[i].rule);
}

/* Each pointer is legal; what they gather is not. */
static void what_pointers_gather_is_bounded(void **state)
{
    uint8_t m[HEADER + 8 * 66] = {0};
    struct dnsname n;
    size_t at = HEADER;

    (void)state;
    for (int i = 0; i < 8; i++) {
        m[at] = 63;
        memset(m + at + 1, 'a', 63);
        m[at + 64] = (uint8_t)(i ? 0xc0 | (at - 66) >> 8 : 0);
        m[at + 65] = (uint8_t)(i ? at - 66 : 0);
        assert_int_equal(dnsname_read(span_of(m, sizeof(m)), at, true, &n) != 0, i < 3);
        at += 66;
    }
}

static void letters_fold_and_lengths_do_not(void **state)
{
    struct dnsname a, b;

    (void)state;
    (void)read_at("\3aBc\0", 5, 0, false, &a);
    (void)read_at("\3AbC\0", 5, 0, false, &b);
    assert_true(dnsname_eq(&a, &b));
    (void)read_at("\1a\1c\0", 5, 0, false, &b);
    assert_false(dnsname_eq(&a, &b));
    (void)read_at("\2ab\0", 4, 0, false, &b);
    assert_false(dnsname_eq(&a, &b));
    (void)read_at("\1[\0", 3, 0, false, &a);
    (void)read_at("\1{\0", 3, 0, false, &b);
    assert_false(dnsname_eq(&a, &b));
}

static void what_is_written_can_be_read(void **state)
{
    static const char *const good[] = {"a", "example.com", "a.b.c.d.e.f",
                                       "xn--bcher-kva.x"};
    static const char *const bad[] = {"", ".", "a.", ".a", "a..b"};
    char text[DNSNAME_TEXT_MAX];
    struct dnsname n, again;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(dnsname_write(good[i], &n));
        assert_int_equal(read_at((char *)n.wire, n.len, 0, false, &again), n.len);
        assert_true(dnsname_eq(&n, &again));
        dnsname_print(again.wire, text);
        assert_string_equal(text, good[i]);
        assert_true(dnsname_is_host(text));
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(dnsname_write(bad[i], &n));
}

static void only_what_the_validator_takes_is_a_host(void **state)
{
    static const char *const bad[] = {".",      "a\\046b", "_a.b", "a.b:80", "127.0.0.1",
                                      "[::1]",  "-a",      "a b",  "A.b",    "a.b.",
                                      "0x7f.1", "a.1",     "\\000"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (dnsname_is_host(bad[i]))
            fail_msg("taken: %s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_with_their_pointers),
        cmocka_unit_test(pointers_go_back_and_only_back),
        cmocka_unit_test(what_pointers_gather_is_bounded),
        cmocka_unit_test(letters_fold_and_lengths_do_not),
        cmocka_unit_test(what_is_written_can_be_read),
        cmocka_unit_test(only_what_the_validator_takes_is_a_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
