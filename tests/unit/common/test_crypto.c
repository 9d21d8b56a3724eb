/* SPDX-License-Identifier: MIT */
#include "common/crypto.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"

static struct span text(const char *s)
{
    return span_str(s);
}

/* Compares bytes with hexadecimal digits. */
static void assert_hex(const uint8_t *p, size_t n, const char *hex)
{
    char got[513] = "";
    size_t i;

    assert_true(n < sizeof(got) / 2);
    for (i = 0; i < n; i++)
        (void)snprintf(got + 2 * i, 3, "%02x", p[i]);
    assert_string_equal(got, hex);
}

/* A scratch folder and the path of a file in it. */
struct scratch {
    char dir[32];
    char path[64];
};

static int make_scratch(void **state)
{
    struct scratch *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return -1;
    strcpy(s->dir, "/tmp/test_crypto.XXXXXX");
    if (mkdtemp(s->dir) == NULL)
        return -1;
    (void)snprintf(s->path, sizeof(s->path), "%s/file", s->dir);
    *state = s;
    return 0;
}

static int drop_scratch(void **state)
{
    struct scratch *s = *state;

    (void)unlink(s->path);
    (void)rmdir(s->dir);
    free(s);
    return 0;
}

static void put_file(const char *path, const char *content, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* -- digests ------------------------------------------------------------------------- */

static void digests_match_fips_180_vectors(void **state)
{
    uint8_t out[32];

    (void)state;
    crypto_sha1(text("abc"), out);
    assert_hex(out, 20, "a9993e364706816aba3e25717850c26c9cd0d89d");
    crypto_sha256(text("abc"), out);
    assert_hex(out, 32,
               "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256(span_of(NULL, 0), out);
    assert_hex(out, 32,
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void hmac_matches_rfc_4231(void **state)
{
    uint8_t key[131];
    uint8_t out[32];

    (void)state;
    crypto_hmac_sha256(text("Jefe"), text("what do ya want for nothing?"), out);
    assert_hex(out, 32,
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    /* test case 6: a key longer than a block */
    memset(key, 0xaa, sizeof(key));
    crypto_hmac_sha256(span_of(key, sizeof(key)),
                       text("Test Using Larger Than Block-Size Key - Hash Key First"),
                       out);
    assert_hex(out, 32,
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void derive_matches_hkdf_with_an_empty_salt(void **state)
{
    uint8_t key[32];
    uint8_t out[32];
    char label[200];

    (void)state;
    /* RFC 5869 A.3: neither salt nor info; the first 32 bytes */
    memset(key, 0x0b, sizeof(key));
    assert_int_equal(crypto_derive(span_of(key, 22), "", out), 0);
    assert_hex(out, 32,
               "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
    memset(label, 'x', sizeof(label) - 1);
    label[sizeof(label) - 1] = '\0';
    assert_int_equal(crypto_derive(span_of(key, 22), label, out), -1);
}

/* -- base64 -------------------------------------------------------------------------- */

static void base64_matches_rfc_4648(void **state)
{
    static const struct {
        const char *plain, *base64, *base64url;
    } good[] = {
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foob", "Zm9vYg==", "Zm9vYg"},
        {"fooba", "Zm9vYmE=", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
        {"\xfb\xff\xfe", "+//+", "-__-"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(good); i++) {
        AUTO(buf_done)
        struct buf a = BUF_INIT;
        AUTO(buf_done)
        struct buf b = BUF_INIT;
        AUTO(buf_done)
        struct buf c = BUF_INIT;

        assert_int_equal(b64_encode(&a, text(good[i].plain)), 0);
        assert_true(span_eq(buf_span(&a), text(good[i].base64)));
        assert_int_equal(b64url_encode(&b, text(good[i].plain)), 0);
        assert_true(span_eq(buf_span(&b), text(good[i].base64url)));
        assert_int_equal(b64url_decode(&c, text(good[i].base64url)), 0);
        assert_true(span_eq(buf_span(&c), text(good[i].plain)));
    }
}

static void base64url_has_one_form_for_each_value(void **state)
{
    static const char *const bad[] = {
        "Z",                       /* no whole byte */
        "Zh",                      /* bits left over are not zero (RFC 4648 3.5) */
        "Zm9",                     /* the same with two bytes */
        "Zg==",                    /* padding */
        "Zg=",   "Zm9v=",  "+//+", /* the other alphabet */
        "Zm 9v", "Zm9v\n", "Zm9vYm\xc3\xa4", "Zm9vZ", /* length 1 modulo 4 */
    };
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    size_t i;

    (void)state;
    assert_int_equal(buf_adds(&b, "kept"), 0);
    for (i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(b64url_decode(&b, text(bad[i])), -1);
        assert_true(span_eq(buf_span(&b), text("kept")));
    }
    assert_int_equal(b64url_decode(&b, span_of("Zm\0v", 4)), -1);
}

/* -- comparing, random ----------------------------------------------------------------- */

static void equal_compares_all_bytes_and_the_length(void **state)
{
    (void)state;
    assert_true(crypto_equal(text("secret"), text("secret")));
    assert_true(crypto_equal(span_of(NULL, 0), text("")));
    assert_false(crypto_equal(text("secret"), text("secreT")));
    assert_false(crypto_equal(text("secret"), text("Secret")));
    assert_false(crypto_equal(text("secret"), text("secre")));
}

static void random_below_stays_below_and_reaches_every_value(void **state)
{
    unsigned seen[7] = {0};
    unsigned i;

    (void)state;
    for (i = 0; i < 2000; i++) {
        uint32_t r = crypto_random_below(7);

        assert_true(r < 7);
        seen[r]++;
    }
    for (i = 0; i < 7; i++) /* chance of a false alarm: 7 * (6/7)^2000 */
        assert_true(seen[i] > 0);
    assert_int_equal(crypto_random_below(1), 0);
    assert_true(crypto_random_below(UINT32_MAX) < UINT32_MAX);
}

/* -- secrets --------------------------------------------------------------------------- */

static void a_secret_file_loses_its_line_end_only(void **state)
{
    static const struct {
        const char *content, *secret;
    } good[] = {
        {"pass", "pass"},
        {"pass\n", "pass"},
        {"pass\r\n", "pass"},
        {"pa ss \n", "pa ss "},
        {"pass\n\n", "pass\n"},
        {"", ""},
        {"\n", ""},
    };
    struct scratch *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(good); i++) {
        AUTO(secret_done)
        struct secret got = {0};

        put_file(s->path, good[i].content, strlen(good[i].content));
        assert_int_equal(secret_read(&got, s->path, 16, NULL), 0);
        assert_true(span_eq(secret_span(&got), text(good[i].secret)));
    }
}

static void a_secret_file_that_is_too_long_or_missing_is_refused(void **state)
{
    AUTO(secret_done)
    struct secret got = {0};
    struct scratch *s = *state;
    struct err e;

    put_file(s->path, "12345\n", 6);
    assert_int_equal(secret_read(&got, s->path, 5, &e), 0);
    assert_int_equal(secret_read(&got, s->path, 4, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    put_file(s->path, "1234567890", 10);
    assert_int_equal(secret_read(&got, s->path, 5, &e), -1);
    assert_true(span_eq(secret_span(&got), text("12345"))); /* untouched */
    assert_int_equal(secret_read(&got, "/nonexistent/file", 5, &e), -1);
    assert_int_equal(e.code, ERR_SYS);
}

/* -- sealing --------------------------------------------------------------------------- */

static void what_is_sealed_opens_only_unchanged(void **state)
{
    static const uint8_t KEY[32] = {1};
    static const uint8_t OTHER[32] = {2};
    AUTO(buf_done)
    struct buf sealed = BUF_INIT;
    AUTO(buf_done)
    struct buf open = BUF_INIT;
    size_t i;

    (void)state;
    assert_int_equal(crypto_seal(KEY, text("host"), text("session"), &sealed), 0);
    assert_int_equal(sealed.len, 12 + 7 + 16);
    assert_int_equal(crypto_open(KEY, text("host"), buf_span(&sealed), &open), 0);
    assert_true(span_eq(buf_span(&open), text("session")));

    assert_int_equal(crypto_open(OTHER, text("host"), buf_span(&sealed), &open), -1);
    assert_int_equal(crypto_open(KEY, text("tsoh"), buf_span(&sealed), &open), -1);
    for (i = 0; i < sealed.len; i++) {
        sealed.p[i] ^= 0x10;
        assert_int_equal(crypto_open(KEY, text("host"), buf_span(&sealed), &open), -1);
        sealed.p[i] ^= 0x10;
        assert_int_equal(crypto_open(KEY, text("host"), span_of(sealed.p, i), &open), -1);
    }
    assert_true(span_eq(buf_span(&open), text("session")));
}

static void nothing_can_be_sealed_too(void **state)
{
    static const uint8_t KEY[32] = {1};
    AUTO(buf_done)
    struct buf a = BUF_INIT;
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    AUTO(buf_done)
    struct buf open = BUF_INIT;

    (void)state;
    assert_int_equal(crypto_seal(KEY, span_of(NULL, 0), span_of(NULL, 0), &a), 0);
    assert_int_equal(crypto_open(KEY, span_of(NULL, 0), buf_span(&a), &open), 0);
    assert_int_equal(open.len, 0);
    assert_int_equal(crypto_seal(KEY, span_of(NULL, 0), span_of(NULL, 0), &b), 0);
    assert_false(span_eq(buf_span(&a), buf_span(&b))); /* a fresh nonce */
}

/* -- Ed25519 --------------------------------------------------------------------------- */

/* RFC 8410 10.1 and 10.3 */
static const char PRIVATE_PEM[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
    "-----END PRIVATE KEY-----\n";
static const char PUBLIC_PEM[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    "-----END PUBLIC KEY-----\n";
static const char P256_PEM[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
    "-----END PUBLIC KEY-----\n";

static void the_two_halves_of_a_key_belong_together(void **state)
{
    struct scratch *s = *state;
    struct ed25519 *private_key, *public_key;
    uint8_t sig[64];
    uint8_t a[32], b[32];

    put_file(s->path, PRIVATE_PEM, strlen(PRIVATE_PEM));
    private_key = ed25519_load(s->path, NULL);
    put_file(s->path, PUBLIC_PEM, strlen(PUBLIC_PEM));
    public_key = ed25519_load(s->path, NULL);
    assert_non_null(private_key);
    assert_non_null(public_key);

    assert_true(ed25519_can_sign(private_key));
    assert_false(ed25519_can_sign(public_key));
    assert_int_equal(ed25519_sign(private_key, text("message"), sig), 0);
    assert_true(ed25519_verify(public_key, text("message"), span_of(sig, 64)));
    assert_false(ed25519_verify(public_key, text("Message"), span_of(sig, 64)));
    assert_false(ed25519_verify(public_key, text("message"), span_of(sig, 63)));
    sig[0] ^= 1;
    assert_false(ed25519_verify(public_key, text("message"), span_of(sig, 64)));

    assert_int_equal(ed25519_public(private_key, a), 0);
    assert_int_equal(ed25519_public(public_key, b), 0);
    assert_hex(a, 32, "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    assert_memory_equal(a, b, 32);
    assert_int_equal(ed25519_sign(public_key, text("message"), sig), -1);
    assert_int_equal(ed25519_derive(public_key, "x", a), -1);
    assert_int_equal(ed25519_derive(private_key, "x", a), 0);
    assert_int_equal(ed25519_derive(private_key, "y", b), 0);
    assert_memory_not_equal(a, b, 32);
    ed25519_free(private_key);
    ed25519_free(public_key);
}

static void a_file_without_an_ed25519_key_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "no key",
        P256_PEM,
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIE\n-----END PRIVATE KEY-----\n",
    };
    struct scratch *s = *state;
    struct err e;
    size_t i;

    for (i = 0; i < COUNT_OF(bad); i++) {
        put_file(s->path, bad[i], strlen(bad[i]));
        assert_null(ed25519_load(s->path, &e));
        assert_int_equal(e.code, ERR_CONFIG);
    }
}

static void a_saved_key_is_private_and_comes_back_the_same(void **state)
{
    struct scratch *s = *state;
    struct ed25519 *k = ed25519_generate(NULL);
    struct ed25519 *back;
    struct stat st;
    struct err e;
    uint8_t a[32], b[32];

    assert_non_null(k);
    assert_int_equal(ed25519_save(k, s->path, &e), 0);
    assert_int_equal(stat(s->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(ed25519_save(k, s->path, &e), -1); /* never over another */
    back = ed25519_load(s->path, &e);
    assert_non_null(back);
    assert_int_equal(ed25519_derive(k, "x", a), 0);
    assert_int_equal(ed25519_derive(back, "x", b), 0);
    assert_memory_equal(a, b, 32);
    ed25519_free(k);
    ed25519_free(back);
}

/* -- memory ---------------------------------------------------------------------------- */

static int use_all(const char *path)
{
    static const uint8_t KEY[32] = {1};
    AUTO(secret_done)
    struct secret s = {0};
    AUTO(buf_done)
    struct buf a = BUF_INIT;
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    AUTO(buf_done)
    struct buf c = BUF_INIT;
    struct ed25519 *k;

    if (secret_read(&s, path, 16384, NULL) < 0 ||
        b64url_encode(&a, secret_span(&s)) < 0 || b64url_decode(&b, buf_span(&a)) < 0 ||
        crypto_seal(KEY, text(""), buf_span(&a), &c) < 0 ||
        crypto_open(KEY, text(""), buf_span(&c), &b) < 0)
        return -1;
    k = ed25519_load(path, NULL);
    ed25519_free(k);
    return k != NULL ? 0 : -1;
}

static void every_allocation_failure_is_clean(void **state)
{
    struct scratch *s = *state;

    put_file(s->path, PRIVATE_PEM, strlen(PRIVATE_PEM));
    FAIL_EACH_ALLOC(use_all(s->path));
}

#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, make_scratch, drop_scratch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_match_fips_180_vectors),
        cmocka_unit_test(hmac_matches_rfc_4231),
        cmocka_unit_test(derive_matches_hkdf_with_an_empty_salt),
        cmocka_unit_test(base64_matches_rfc_4648),
        cmocka_unit_test(base64url_has_one_form_for_each_value),
        cmocka_unit_test(equal_compares_all_bytes_and_the_length),
        cmocka_unit_test(random_below_stays_below_and_reaches_every_value),
        WITH_FILE(a_secret_file_loses_its_line_end_only),
        WITH_FILE(a_secret_file_that_is_too_long_or_missing_is_refused),
        cmocka_unit_test(what_is_sealed_opens_only_unchanged),
        cmocka_unit_test(nothing_can_be_sealed_too),
        WITH_FILE(the_two_halves_of_a_key_belong_together),
        WITH_FILE(a_file_without_an_ed25519_key_is_refused),
        WITH_FILE(a_saved_key_is_private_and_comes_back_the_same),
        WITH_FILE(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/crypto", tests, NULL, NULL);
}
