/* SPDX-License-Identifier: MIT */
#include "common/clienthello.h"

#include <string.h>

#include "common/limits.h"
#include "tests/support/test.h"

#define TEXT(s) s, sizeof(s) - 1
#define L63     "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"

/* Bytes being put together; a length is written when what it counts is complete. */
struct maker {
    uint8_t p[40000];
    size_t n;
};

static void put(struct maker *m, const void *p, size_t n)
{
    assert_true(m->n + n <= sizeof(m->p));
    memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void put_uint(struct maker *m, unsigned nbytes, size_t v)
{
    while (nbytes-- > 0)
        put(m, &(uint8_t){(uint8_t)(v >> (8 * nbytes))}, 1);
}

static void set_len(struct maker *m, size_t at, unsigned nbytes)
{
    size_t v = m->n - at - nbytes;

    for (unsigned i = 0; i < nbytes; i++)
        m->p[at + i] = (uint8_t)(v >> (8 * (nbytes - 1 - i)));
}

/* What a hello is made from; `extensions` are the bytes after their length. */
struct recipe {
    const char *extensions;
    size_t len;
};

#define HELLO_EXT_LEN_AT (4 + 2 + 32 + 1 + 2 + 2 + 2)

/* The handshake message alone. */
static void make_message(struct maker *m, struct recipe r)
{
    static const uint8_t zeros[32];
    size_t at;

    m->n = 0;
    put_uint(m, 1, 1);
    put_uint(m, 3, 0);
    put_uint(m, 2, 0x0303);
    put(m, zeros, 32);
    put_uint(m, 1, 0);
    put_uint(m, 2, 2);
    put_uint(m, 2, 0x1301);
    put_uint(m, 1, 1);
    put_uint(m, 1, 0);
    if (r.extensions) {
        at = m->n;
        put_uint(m, 2, 0);
        put(m, r.extensions, r.len);
        set_len(m, at, 2);
    }
    set_len(m, 1, 3);
}

/* A message in records of `size` bytes. */
static void make_records(struct maker *out, const struct maker *message, size_t size)
{
    out->n = 0;
    for (size_t at = 0; at < message->n; at += size) {
        size_t n = message->n - at < size ? message->n - at : size;

        put_uint(out, 3, 0x160301);
        put_uint(out, 2, n);
        put(out, message->p + at, n);
    }
}

#define SNI_A                                                                            \
    "\0\0\0\x06\0\x04\0\0\x01"                                                           \
    "a"
#define ALPN_2 "\0\x10\0\x05\0\x03\x02h2"

static const struct {
    const char *extensions;
    size_t len;
    const char *name;
    bool has_alpn, http1, h2, acme;
} good[] = {
    {NULL, 0, "", false, false, false, false},
    {TEXT(""), "", false, false, false, false},
    {TEXT(SNI_A), "a", false, false, false, false},
    {TEXT("\0\0\0\x10\0\x0e\0\0\x0b"
          "Example.Com"),
     "example.com", false, false, false, false},
    {TEXT("\0\0\0\x07\0\x05\0\0\x02"
          "a."),
     "a", false, false, false, false},
    {TEXT("\0\0\0\x0e\0\x0c\0\0\x09"
          "127.0.0.1"),
     "", false, false, false, false}, /* an address names nothing */
    {TEXT(SNI_A ALPN_2), "a", true, false, true, false},
    {TEXT("\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1" SNI_A), "a", true, true, true, false},
    {TEXT("\0\x10\0\x0d\0\x0b\x0a"
          "acme-tls/1" SNI_A),
     "a", true, false, false, true},
    {TEXT("\0\x10\0\x08\0\x06\x02h3\x02h1"), "", true, false, false, false},
    {TEXT("\x0a\x0a\0\0\xfe\x0d\0\x02xy" SNI_A "\0\x29\0\x01z"), "a", false, false, false,
     false}, /* GREASE, encrypted client hello, a key */
};

static void good_hellos_are_read_at_every_cut_and_record_size(void **state)
{
    static struct maker m, wire;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        make_message(&m, (struct recipe){good[i].extensions, good[i].len});
        for (size_t size = 1; size <= m.n; size++) {
            struct clienthello h = {.has_alpn = false};

            make_records(&wire, &m, size);
            for (size_t n = 0; n < wire.n; n++)
                assert_int_equal(clienthello_parse(span_of(wire.p, n), &h),
                                 CLIENTHELLO_MORE);
            assert_int_equal(clienthello_parse(span_of(wire.p, wire.n), &h),
                             CLIENTHELLO_OK);
            assert_string_equal(h.server_name, good[i].name);
            assert_int_equal(h.has_alpn, good[i].has_alpn);
            assert_int_equal(h.alpn_http1, good[i].http1);
            assert_int_equal(h.alpn_h2, good[i].h2);
            assert_int_equal(h.alpn_acme, good[i].acme);
            put(&wire, "\x17\x03\x03junk", 7); /* early data is not ours to judge */
            assert_int_equal(clienthello_parse(span_of(wire.p, wire.n), &h),
                             CLIENTHELLO_OK);
        }
    }
}

static const struct {
    const char *extensions;
    size_t len;
    const char *rule;
} bad[] = {
    {TEXT("\0"), "cut in a type (RFC 8446 4.2)"},
    {TEXT("\0\0\0"), "cut in a length (RFC 8446 4.2)"},
    {TEXT("\xff\xff\0\x05xy"), "extension over the end (RFC 8446 4.2)"},
    {TEXT("\0\0\0\0"), "empty server name extension (RFC 6066 3)"},
    {TEXT("\0\0\0\x02\0\0"), "empty server name list (RFC 6066 3)"},
    {TEXT("\0\0\0\x05\0\x03\0\0\0"), "empty name (RFC 6066 3)"},
    {TEXT("\0\0\0\x06\0\x05\0\0\x01"
          "a"),
     "list over the end (RFC 6066 3)"},
    {TEXT("\0\0\0\x07\0\x04\0\0\x01"
          "ax"),
     "bytes after the list (RFC 6066 3)"},
    {TEXT("\0\0\0\x06\0\x04\0\0\x02"
          "a"),
     "name over the end (RFC 6066 3)"},
    {TEXT("\0\0\0\x06\0\x04\x01\0\x01"
          "a"),
     "other type of name (RFC 6066 3)"},
    {TEXT("\0\0\0\x0a\0\x08\0\0\x01"
          "a\0\0\x01"
          "b"),
     "two names (RFC 6066 3)"},
    {TEXT(SNI_A SNI_A), "extension twice (RFC 8446 4.2)"},
    {TEXT("\0\0\0\x08\0\x06\0\0\x03"
          "a\0b"),
     "NUL in the name (RFC 6066 3)"},
    {TEXT("\0\0\0\x08\0\x06\0\0\x03"
          "a:1"),
     "port in the name (RFC 6066 3)"},
    {TEXT("\0\0\0\x08\0\x06\0\0\x03"
          "a b"),
     "space in the name (RFC 6066 3)"},
    {TEXT("\0\0\0\x09\0\x07\0\0\x04"
          "a..b"),
     "two dots (RFC 1035 2.3.1)"},
    {TEXT("\0\0\0\x0a\0\x08\0\0\x05"
          "[::1]"),
     "address as name (RFC 6066 3)"},
    {TEXT("\0\0\0\x45\0\x43\0\0\x40" L63 "x"), "label of 64 (RFC 1035 2.3.4)"},
    {TEXT("\0\x10\0\0"), "empty ALPN extension (RFC 7301 3.1)"},
    {TEXT("\0\x10\0\x02\0\0"), "empty ALPN list (RFC 7301 3.1)"},
    {TEXT("\0\x10\0\x03\0\x01\0"), "empty protocol name (RFC 7301 3.1)"},
    {TEXT("\0\x10\0\x05\0\x03\x03h2"), "protocol name over the end (RFC 7301 3.1)"},
    {TEXT("\0\x10\0\x06\0\x03\x02h2x"), "bytes after the list (RFC 7301 3.1)"},
    {TEXT(ALPN_2 ALPN_2), "extension twice (RFC 8446 4.2)"},
};

static void bad_extensions_are_refused_whole_and_never_accepted_cut(void **state)
{
    static struct maker m, wire;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct clienthello h = {.server_name = "untouched"};

        make_message(&m, (struct recipe){bad[i].extensions, bad[i].len});
        for (size_t size = 1; size <= m.n; size += 7) {
            make_records(&wire, &m, size);
            for (size_t n = 0; n < wire.n; n++)
                assert_int_equal(clienthello_parse(span_of(wire.p, n), &h),
                                 CLIENTHELLO_MORE);
            if (clienthello_parse(span_of(wire.p, wire.n), &h) != CLIENTHELLO_BAD)
                fail_msg("%s", bad[i].rule);
        }
        assert_string_equal(h.server_name, "untouched");
    }
}

static void faults_in_the_first_bytes_are_told_at_once(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        enum clienthello_result result;
    } row[] = {
        {TEXT("G"), CLIENTHELLO_NOT_TLS},
        {TEXT("\x80"), CLIENTHELLO_NOT_TLS}, /* SSL 2 */
        {TEXT("\x17"), CLIENTHELLO_NOT_TLS},
        {TEXT("\x16\x02"), CLIENTHELLO_NOT_TLS},
        {TEXT("\x16\x03\x01\0\0"), CLIENTHELLO_BAD},     /* empty record, RFC 8446 5.1 */
        {TEXT("\x16\x03\x01\x40\x01"), CLIENTHELLO_BAD}, /* 16385 bytes, RFC 8446 5.1 */
        {TEXT("\x16\x03\x01\0\x05\x02"), CLIENTHELLO_BAD},     /* not a client hello */
        {TEXT("\x16\x03\x01\0\x01\x01\x15"), CLIENTHELLO_BAD}, /* alert in between, 5.1 */
        {TEXT("\x16\x03\x01\0\x01\x01\x16\x04"), CLIENTHELLO_BAD},
        {TEXT("\x16\x03\x01\0\x01\x01\x16\x03\x01\0\0"), CLIENTHELLO_BAD},
        {TEXT("\x16\x03\x01\0\x05\x01\0\x40\0"), CLIENTHELLO_TOO_BIG},
        {TEXT("\x16\x03\x01\0\x05\x01\xff\xff\xff"), CLIENTHELLO_TOO_BIG},
        {TEXT("\x16\x03\x01\0\x06\x01\0\0\x01"),
         CLIENTHELLO_BAD}, /* more in the record */
    };
    struct clienthello h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        assert_int_equal(clienthello_parse(span_of(row[i].text, row[i].len - 1), &h),
                         CLIENTHELLO_MORE);
        assert_int_equal(clienthello_parse(span_of(row[i].text, row[i].len), &h),
                         row[i].result);
    }
}

/* Each byte of the fixed part that holds a length or a version, made wrong. */
static void broken_lengths_in_the_fixed_part_are_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
        const char *rule;
    } row[] = {
        {4, 2, "version not 3.x (RFC 8446 4.1.2)"},
        {38, 33, "session id over 32 (RFC 8446 4.1.2)"},
        {38, 255, "session id over the end (RFC 8446 4.1.2)"},
        {40, 0, "no cipher suite (RFC 8446 4.1.2)"},
        {40, 1, "half a cipher suite (RFC 8446 4.1.2)"},
        {40, 3, "odd cipher suites (RFC 8446 4.1.2)"},
        {39, 255, "cipher suites over the end (RFC 8446 4.1.2)"},
        {43, 0, "no compression method (RFC 8446 4.1.2)"},
        {43, 200, "compression over the end (RFC 8446 4.1.2)"},
        {HELLO_EXT_LEN_AT, 1, "extensions over the end (RFC 8446 4.1.2)"},
        {HELLO_EXT_LEN_AT + 1, 9, "bytes after the extensions (RFC 8446 4.1.2)"},
    };
    static struct maker m, wire;
    struct clienthello h;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        make_message(&m, (struct recipe){TEXT(SNI_A)});
        assert_int_not_equal(m.p[row[i].at], row[i].value);
        m.p[row[i].at] = row[i].value;
        make_records(&wire, &m, m.n);
        if (clienthello_parse(span_of(wire.p, wire.n), &h) != CLIENTHELLO_BAD)
            fail_msg("%s", row[i].rule);
    }
}

/* Padding (RFC 7685) up to a message that with its one record head has `total` bytes. */
static void make_padded(struct maker *wire, size_t total)
{
    static struct maker m;
    static char ext[CLIENTHELLO_MAX + 100];
    size_t base, pad;

    make_message(&m, (struct recipe){TEXT(SNI_A)});
    base = m.n + 5 + 4;
    assert_true(total > base);
    pad = total - base;
    memcpy(ext, SNI_A, sizeof(SNI_A) - 1);
    memcpy(ext + sizeof(SNI_A) - 1, "\0\x15", 2);
    ext[sizeof(SNI_A) + 1] = (char)(pad >> 8);
    ext[sizeof(SNI_A) + 2] = (char)pad;
    memset(ext + sizeof(SNI_A) + 3, 0, pad);
    make_message(&m, (struct recipe){ext, sizeof(SNI_A) + 3 + pad});
    make_records(wire, &m, m.n);
    assert_int_equal(wire->n, total);
}

static void one_byte_too_long_is_refused(void **state)
{
    static struct maker wire;
    struct clienthello h;

    (void)state;
    make_padded(&wire, CLIENTHELLO_MAX);
    assert_int_equal(clienthello_parse(span_of(wire.p, wire.n - 1), &h),
                     CLIENTHELLO_MORE);
    assert_int_equal(clienthello_parse(span_of(wire.p, wire.n), &h), CLIENTHELLO_OK);
    assert_string_equal(h.server_name, "a");
    make_padded(&wire, CLIENTHELLO_MAX + 1);
    assert_int_equal(clienthello_parse(span_of(wire.p, wire.n), &h), CLIENTHELLO_TOO_BIG);
    assert_int_equal(clienthello_parse(span_of(wire.p, 9), &h), CLIENTHELLO_TOO_BIG);
}

/* Record heads count too: a hello in tiny records ends at the same bound. */
static void tiny_records_do_not_get_around_the_bound(void **state)
{
    static struct maker m, wire, one;
    struct clienthello h;

    (void)state;
    make_padded(&one, 4000);
    m.n = 0;
    put(&m, one.p + 5, one.n - 5);
    make_records(&wire, &m, 1);
    assert_true(wire.n > CLIENTHELLO_MAX);
    assert_int_equal(clienthello_parse(span_of(wire.p, CLIENTHELLO_MAX - 1), &h),
                     CLIENTHELLO_MORE);
    assert_int_equal(clienthello_parse(span_of(wire.p, CLIENTHELLO_MAX), &h),
                     CLIENTHELLO_TOO_BIG);
    assert_int_equal(clienthello_parse(span_of(wire.p, wire.n), &h), CLIENTHELLO_TOO_BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_hellos_are_read_at_every_cut_and_record_size),
        cmocka_unit_test(bad_extensions_are_refused_whole_and_never_accepted_cut),
        cmocka_unit_test(faults_in_the_first_bytes_are_told_at_once),
        cmocka_unit_test(broken_lengths_in_the_fixed_part_are_refused),
        cmocka_unit_test(one_byte_too_long_is_refused),
        cmocka_unit_test(tiny_records_do_not_get_around_the_bound),
    };

    return cmocka_run_group_tests_name("common/clienthello", tests, NULL, NULL);
}
