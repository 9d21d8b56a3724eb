/* SPDX-License-Identifier: MIT */
#include "common/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/test.h"

enum {
    NOW = 1800000000,
    MAX_TTL = 86400
};

/* RFC 8037 A.1 */
static const char ED_PEM[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";
static const char HS_KEY[] = "0123456789abcdef0123456789abcdef";

/* Keys: "ed" of tenant acme, "hs" of tenant acme, "own" of the server. */
struct state {
    char path[32];
    struct token_keys *keys;
};

static void put_file(const char *path, const char *content)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(content, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int set_up(void **state)
{
    struct state *s = calloc(1, sizeof(*s));
    struct ed25519 *own = ed25519_generate(NULL);
    int fd;

    assert_non_null(s);
    strcpy(s->path, "/tmp/test_token.XXXXXX");
    fd = mkstemp(s->path);
    assert_true(fd >= 0);
    (void)close(fd);
    s->keys = token_keys_new();
    put_file(s->path, ED_PEM);
    assert_int_equal(
        token_keys_add_file(s->keys, "ed", TOKEN_EDDSA, s->path, "acme", NULL), 0);
    put_file(s->path, HS_KEY);
    assert_int_equal(
        token_keys_add_file(s->keys, "hs", TOKEN_HS256, s->path, "acme", NULL), 0);
    assert_int_equal(token_keys_add(s->keys, "own", &own, NULL), 0);
    assert_null(own);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct state *s = *state;

    token_keys_free(s->keys);
    (void)unlink(s->path);
    free(s);
    return 0;
}

/* A token of any header and claims, rightly signed with the key called `kid`. */
static void forge(const struct state *s, const char *kid, const char *head,
                  const char *claims, struct buf *out)
{
    const struct token_key *k = token_keys_find(s->keys, kid);
    uint8_t sig[64];

    out->len = 0;
    assert_int_equal(b64url_encode(out, span_str(head)), 0);
    assert_int_equal(buf_adds(out, "."), 0);
    assert_int_equal(b64url_encode(out, span_str(claims)), 0);
    if (k->alg == TOKEN_HS256)
        crypto_hmac_sha256(secret_span(&k->hmac), buf_span(out), sig);
    else
        assert_int_equal(ed25519_sign(k->ed, buf_span(out), sig), 0);
    assert_int_equal(buf_adds(out, "."), 0);
    assert_int_equal(b64url_encode(out, span_of(sig, k->alg == TOKEN_HS256 ? 32 : 64)),
                     0);
}

static int verify(const struct state *s, struct span text, struct token *ret,
                  struct err *e)
{
    return token_verify(s->keys, text, TOKEN_LINK, NOW, MAX_TTL, ret, e);
}

static const char HS_HEAD[] = "{\"alg\":\"HS256\",\"kid\":\"hs\",\"typ\":\"JWT\"}";
static const char ED_HEAD[] = "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}";
#define CLAIMS "\"aud\":\"tunnel:link\",\"sub\":\"demo\",\"exp\":1800000060"

/* -- vectors --------------------------------------------------------------------------- */

static void signature_matches_rfc_8037_a_4(void **state)
{
    static const char SIGNED[] =
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    static const char SIG[] =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg"
        "5BhVsPt9g7sVvpAr_MuM0KAg";
    AUTO(buf_done)
    struct buf sig = BUF_INIT;
    struct state *s = *state;
    const struct token_key *k = token_keys_find(s->keys, "ed");
    uint8_t ours[64];

    assert_int_equal(b64url_decode(&sig, span_str(SIG)), 0);
    assert_true(ed25519_verify(k->ed, span_str(SIGNED), buf_span(&sig)));
    assert_int_equal(ed25519_sign(k->ed, span_str(SIGNED), ours), 0);
    assert_memory_equal(ours, sig.p, 64);
}

static void mac_matches_rfc_7515_a_1(void **state)
{
    static const char KEY[] =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj"
        "0iPS4hcgUuTwjAzZr1Z9CAow";
    static const char SIGNED[] = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
                                 "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkz"
                                 "ODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    AUTO(buf_done)
    struct buf key = BUF_INIT;
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    uint8_t mac[32];

    (void)state;
    assert_int_equal(b64url_decode(&key, span_str(KEY)), 0);
    crypto_hmac_sha256(buf_span(&key), span_str(SIGNED), mac);
    assert_int_equal(b64url_encode(&text, span_of(mac, 32)), 0);
    assert_true(span_eq(buf_span(&text),
                        span_str("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")));
}

/* -- good ------------------------------------------------------------------------------ */

static void what_is_signed_is_what_is_read(void **state)
{
    static const char *const kids[] = {"ed", "hs", "own"};
    struct state *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(kids); i++) {
        AUTO(buf_done)
        struct buf text = BUF_INIT;
        struct token in = {.aud = TOKEN_LINK,
                           .sub = "demo",
                           .exp = NOW + 60,
                           .nbf = NOW - 5,
                           .jti = "a \"quoted\" id",
                           .has_ports = true,
                           .ports = {.range = {{3000, 3000}, {8000, 8999}}, .n = 2},
                           .may_public = true,
                           .names = {"shop", "blog"},
                           .n_names = 2};
        struct token out;
        struct err e = {0};

        assert_int_equal(token_sign(token_keys_find(s->keys, kids[i]), &in, &text, &e),
                         0);
        if (verify(s, buf_span(&text), &out, &e) < 0)
            fail_msg("%s: %s", kids[i], e.msg);
        assert_string_equal(out.kid, kids[i]);
        assert_string_equal(out.tenant, i < 2 ? "acme" : "");
        memcpy(in.kid, out.kid, sizeof(in.kid));
        memcpy(in.tenant, out.tenant, sizeof(in.tenant));
        assert_int_equal(out.exp, in.exp);
        assert_int_equal(out.nbf, in.nbf);
        assert_string_equal(out.sub, "demo");
        assert_string_equal(out.jti, in.jti);
        assert_true(out.may_public);
        assert_int_equal(out.n_names, 2);
        assert_string_equal(out.names[1], "blog");
        assert_true(token_allows_port(&out, 3000));
        assert_true(token_allows_port(&out, 8500));
        assert_false(token_allows_port(&out, 3001));
    }
}

static void ports_may_be_a_list_or_an_array(void **state)
{
    static const struct {
        const char *claim;
        bool has_3000, has_8500, has_1;
    } good[] = {
        {"", true, true, true},
        {",\"ports\":\"3000,8000-8999\"", true, true, false},
        {",\"ports\":[3000,\"8000-8999\"]", true, true, false},
        {",\"ports\":[\"3000\"]", true, false, false},
        {",\"ports\":[]", false, false, false}, /* an empty list means nothing */
    };
    struct state *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(good); i++) {
        AUTO(buf_done)
        struct buf text = BUF_INIT;
        char claims[256];
        struct token t;
        struct err e = {0};

        (void)snprintf(claims, sizeof(claims), "{" CLAIMS "%s}", good[i].claim);
        forge(s, "ed", ED_HEAD, claims, &text);
        if (verify(s, buf_span(&text), &t, &e) < 0)
            fail_msg("%s: %s", good[i].claim, e.msg);
        assert_int_equal(token_allows_port(&t, 3000), good[i].has_3000);
        assert_int_equal(token_allows_port(&t, 8500), good[i].has_8500);
        assert_int_equal(token_allows_port(&t, 1), good[i].has_1);
    }
}

static void what_other_platforms_put_in_is_passed_over(void **state)
{
    static const char *const claims[] = {
        "{" CLAIMS ",\"iss\":\"platform\",\"iat\":1,\"custom\":{\"a\":[1.5,null]}}",
        "{" CLAIMS ",\"tenant\":\"acme\",\"nbf\":1800000000,\"public\":false}",
        " {\"exp\" : 1800086400 ,\n\"sub\":\"DEMO\", \"aud\":\"tunnel:link\"}\r\n",
    };
    struct state *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(claims); i++) {
        AUTO(buf_done)
        struct buf text = BUF_INIT;
        struct token t;
        struct err e = {0};

        forge(s, "hs", HS_HEAD, claims[i], &text);
        if (verify(s, buf_span(&text), &t, &e) < 0)
            fail_msg("%s: %s", claims[i], e.msg);
        assert_string_equal(t.sub, "demo");
        assert_false(t.may_public);
    }
}

/* -- bad ------------------------------------------------------------------------------- */

static void a_header_that_chooses_anything_but_the_key_is_refused(void **state)
{
    static const struct {
        const char *kid, *head, *rule;
    } bad[] = {
        {"hs", "{\"alg\":\"none\",\"kid\":\"hs\"}", "\"alg\" is not that of the key"},
        {"hs", "{\"alg\":\"None\",\"kid\":\"hs\"}", "\"alg\" is not that of the key"},
        {"hs", "{\"alg\":\"HS512\",\"kid\":\"hs\"}", "\"alg\" is not that of the key"},
        {"hs", "{\"alg\":\"hs256\",\"kid\":\"hs\"}", "\"alg\" is not that of the key"},
        /* swapped: RFC 8725 2.1 */
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"ed\"}", "\"alg\" is not that of the key"},
        {"ed", "{\"alg\":\"EdDSA\",\"kid\":\"hs\"}", "\"alg\" is not that of the key"},
        {"ed", "{\"alg\":\"EdDSA\",\"kid\":\"own\"}", "wrong signature"},
        {"hs", "{\"kid\":\"hs\"}", "no \"alg\""},
        {"hs", "{\"alg\":[\"HS256\"],\"kid\":\"hs\"}", "no \"alg\""},
        {"hs", "{\"alg\":\"HS256\"}", "no \"kid\""},
        {"hs", "{\"alg\":\"HS256\",\"kid\":7}", "no \"kid\""},
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"\"}", "no key of that \"kid\" is known"},
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"hs \"}", "no key of that \"kid\" is known"},
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"crit\":[]}",
         "\"crit\" is not supported"},
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"crit\":[\"b64\"],\"b64\":false}",
         "\"crit\" is not supported"},
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"typ\":1}",
         "\"typ\" must be a string"},
        {"hs", "{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"hs\"}",
         "header is not a JSON object in base64url"},
        {"hs", "{\"alg\":\"HS256\",\"kid\":\"hs\"} x",
         "header is not a JSON object in base64url"},
        {"hs", "[\"HS256\"]", "header is not a JSON object in base64url"},
        {"hs", "", "header is not a JSON object in base64url"},
    };
    struct state *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(bad); i++) {
        AUTO(buf_done)
        struct buf text = BUF_INIT;
        struct token t = {.sub = "untouched"};
        struct err e = {0};

        forge(s, bad[i].kid, bad[i].head, "{" CLAIMS "}", &text);
        if (verify(s, buf_span(&text), &t, &e) == 0)
            fail_msg("taken: %s", bad[i].head);
        assert_int_equal(e.code, ERR_DENIED);
        assert_string_equal(e.msg + strlen("token: "), bad[i].rule);
        assert_string_equal(t.sub, "untouched");
    }
}

static void claims_that_break_a_rule_are_refused(void **state)
{
#define AUD "\"aud\":\"tunnel:link\","
#define SUB "\"sub\":\"demo\","
#define EXP "\"exp\":1800000060"
    static const char *const bad[] = {
        "",
        "[]",
        "null",
        "{}",
        "{" CLAIMS,
        "{" CLAIMS "}}",
        "{" CLAIMS ",\"sub\":\"other\"}", /* twice: RFC 7519 4 */
        "{" CLAIMS ",\"exp\":1800000061}",
        "{" SUB EXP "}",                           /* no aud */
        "{\"aud\":\"tunnel:access\"," SUB EXP "}", /* each place only its own */
        "{\"aud\":\"Tunnel:link\"," SUB EXP "}",
        "{\"aud\":\"tunnel:link \"," SUB EXP "}",
        "{\"aud\":[\"tunnel:link\"]," SUB EXP "}",
        "{\"aud\":null," SUB EXP "}",
        "{" AUD EXP "}", /* no sub */
        "{" AUD "\"sub\":\"\"," EXP "}",
        "{" AUD "\"sub\":\"-demo\"," EXP "}",
        "{" AUD "\"sub\":\"a--b\"," EXP "}",
        "{" AUD "\"sub\":\"a.b\"," EXP "}",
        "{" AUD "\"sub\":\"a\\u0000b\"," EXP "}",
        "{" AUD "\"sub\":7," EXP "}",
        "{" AUD "\"sub\":\"12345678901234567890123456789012345678901\"," EXP "}",
        "{" AUD "\"sub\":\"demo\"}", /* no exp */
        "{" AUD SUB "\"exp\":\"1800000060\"}",
        "{" AUD SUB "\"exp\":1800000060.5}",
        "{" AUD SUB "\"exp\":1.8e9}",
        "{" AUD SUB "\"exp\":null}",
        "{" AUD SUB "\"exp\":0}",
        "{" AUD SUB "\"exp\":-1800000060}",
        "{" AUD SUB "\"exp\":1800000000}",          /* ends now: ended */
        "{" AUD SUB "\"exp\":1800086401}",          /* one second over the bound */
        "{" AUD SUB "\"exp\":9223372036854775807}", /* no overflow */
        "{" AUD SUB "\"exp\":9223372036854775808}",
        "{" CLAIMS ",\"nbf\":1800000001}",
        "{" CLAIMS ",\"nbf\":\"0\"}",
        "{" CLAIMS ",\"nbf\":-1}",
        "{" CLAIMS ",\"nbf\":null}",
        "{" CLAIMS ",\"tenant\":\"other\"}",
        "{" CLAIMS ",\"tenant\":\"\"}",
        "{" CLAIMS ",\"tenant\":1}",
        "{" CLAIMS ",\"public\":1}",
        "{" CLAIMS ",\"public\":\"true\"}",
        "{" CLAIMS ",\"jti\":7}",
        "{" CLAIMS
        ",\"jti\":\"12345678901234567890123456789012345678901234567890123456789012345\"}",
        "{" CLAIMS ",\"ports\":\"\"}",
        "{" CLAIMS ",\"ports\":\"0\"}",
        "{" CLAIMS ",\"ports\":\"03000\"}",
        "{" CLAIMS ",\"ports\":\"+80\"}",
        "{" CLAIMS ",\"ports\":\"65536\"}",
        "{" CLAIMS ",\"ports\":\"90-80\"}",
        "{" CLAIMS ",\"ports\":3000}",
        "{" CLAIMS ",\"ports\":null}",
        "{" CLAIMS ",\"ports\":[0]}",
        "{" CLAIMS ",\"ports\":[65536]}",
        "{" CLAIMS ",\"ports\":[3000.0]}",
        "{" CLAIMS ",\"ports\":[\"1,2\"]}",
        "{" CLAIMS ",\"ports\":[\"\"]}",
        "{" CLAIMS ",\"ports\":[[1]]}",
        "{" CLAIMS ",\"ports\":[12345678901]}",
        "{" CLAIMS ",\"names\":\"shop\"}",
        "{" CLAIMS ",\"names\":[\"www\"]}",
        "{" CLAIMS ",\"names\":[\"3000-demo\"]}",
        "{" CLAIMS ",\"names\":[\"a.b\"]}",
        "{" CLAIMS ",\"names\":[1]}",
        "{" CLAIMS
        ",\"names\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\","
        "\"k\",\"l\",\"m\",\"n\",\"o\",\"p\",\"q\"]}",
        "{" CLAIMS ",\"deep\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}",
    };
    struct state *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(bad); i++) {
        AUTO(buf_done)
        struct buf text = BUF_INIT;
        struct token t = {.sub = "untouched"};
        struct err e = {0};

        forge(s, "hs", HS_HEAD, bad[i], &text);
        if (verify(s, buf_span(&text), &t, &e) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(e.code, ERR_DENIED);
        assert_string_equal(t.sub, "untouched");
    }
}

static void every_changed_byte_is_noticed(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct state *s = *state;
    struct token t;
    size_t i;

    forge(s, "ed", ED_HEAD, "{" CLAIMS "}", &text);
    assert_int_equal(verify(s, buf_span(&text), &t, NULL), 0);
    for (i = 0; i < text.len; i++) {
        uint8_t was = text.p[i];

        text.p[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(verify(s, buf_span(&text), &t, NULL), -1);
        text.p[i] = was;
        assert_int_equal(verify(s, span_of(text.p, i), &t, NULL), -1);
    }
}

static void text_that_is_no_token_is_refused_without_repeating_it(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "...",
        "xyzzy",
        "xyzzy.xyzzy",
        "xyzzy.xyzzy.xyzzy",
        "eyJhbGciOiJIUzI1NiIsImtpZCI6InBsdWdoIn0.e30.xyzzy", /* kid "plugh" */
        "eyJhbGciOiJ4eXp6eSIsImtpZCI6ImhzIn0.e30.",          /* alg "xyzzy" */
    };
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct state *s = *state;
    struct token t;
    size_t i;

    for (i = 0; i < COUNT_OF(bad); i++) {
        struct err e = {0};

        assert_int_equal(verify(s, span_str(bad[i]), &t, &e), -1);
        assert_int_equal(e.code, ERR_DENIED);
        assert_null(strstr(e.msg, "xyzzy"));
        assert_null(strstr(e.msg, "plugh"));
    }
    forge(s, "hs", HS_HEAD, "{" CLAIMS "}", &text);
    assert_int_equal(buf_adds(&text, "\n"), 0);
    assert_int_equal(verify(s, buf_span(&text), &t, NULL), -1);
    text.len--;
    assert_int_equal(verify(s, buf_span(&text), &t, NULL), 0);
    assert_int_equal(buf_adds(&text, ".x"), 0);
    assert_int_equal(verify(s, buf_span(&text), &t, NULL), -1);
}

static void a_token_one_byte_too_long_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    AUTO(buf_done)
    struct buf claims = BUF_INIT;
    struct state *s = *state;
    struct token t;
    struct err e = {0};

    /* grow the claims by what makes the text just too long */
    assert_int_equal(buf_adds(&claims, "{" CLAIMS "}"), 0);
    do {
        claims.len--;
        assert_int_equal(buf_adds(&claims, " }"), 0);
        assert_int_equal(buf_add(&claims, "", 1), 0);
        claims.len--;
        forge(s, "hs", HS_HEAD, (const char *)claims.p, &text);
        if (text.len <= TOKEN_TEXT_MAX)
            assert_int_equal(verify(s, buf_span(&text), &t, NULL), 0);
    } while (text.len <= TOKEN_TEXT_MAX);
    assert_int_equal(verify(s, buf_span(&text), &t, &e), -1);
    assert_string_equal(e.msg, "token: longer than 8192 bytes");
}

/* -- peek, keys ------------------------------------------------------------------------ */

static void peek_reads_claims_of_any_key(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct state *s = *state;
    struct token t;

    forge(s, "hs", "{\"alg\":\"RS256\"}", "{" CLAIMS "}", &text);
    assert_int_equal(token_peek(buf_span(&text), &t, NULL), 0);
    assert_string_equal(t.sub, "demo");
    assert_int_equal(t.exp, 1800000060);
    assert_int_equal(token_peek(span_str("a.b.c"), &t, NULL), -1);
}

static void a_weak_or_second_key_is_refused(void **state)
{
    struct state *s = *state;
    struct ed25519 *own = ed25519_generate(NULL);
    struct err e;

    put_file(s->path, "0123456789abcdef0123456789abcde\n"); /* 31 bytes */
    assert_int_equal(token_keys_add_file(s->keys, "x", TOKEN_HS256, s->path, "", &e), -1);
    assert_int_equal(e.code, ERR_CONFIG);
    put_file(s->path, HS_KEY);
    assert_int_equal(token_keys_add_file(s->keys, "hs", TOKEN_HS256, s->path, "", &e),
                     -1);
    assert_int_equal(token_keys_add_file(s->keys, "x", TOKEN_EDDSA, s->path, "", &e), -1);
    assert_int_equal(token_keys_add_file(s->keys, "", TOKEN_HS256, s->path, "", &e), -1);
    assert_int_equal(token_keys_add(s->keys, "hs", &own, &e), -1);
    assert_null(own); /* taken all the same */
    assert_null(token_keys_find(s->keys, "x"));
}

static void a_public_key_or_another_tenants_key_does_not_sign(void **state)
{
    struct state *s = *state;
    struct token t = {.sub = "demo", .exp = NOW + 60, .tenant = "other"};
    AUTO(buf_done)
    struct buf text = BUF_INIT;

    assert_int_equal(token_sign(token_keys_find(s->keys, "ed"), &t, &text, NULL), -1);
    t.tenant[0] = '\0';
    put_file(s->path, "-----BEGIN PUBLIC KEY-----\n"
                      "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
                      "-----END PUBLIC KEY-----\n");
    assert_int_equal(token_keys_add_file(s->keys, "pub", TOKEN_EDDSA, s->path, "", NULL),
                     0);
    assert_int_equal(token_sign(token_keys_find(s->keys, "pub"), &t, &text, NULL), -1);
    assert_int_equal(text.len, 0);
}

/* -- memory ---------------------------------------------------------------------------- */

static int sign_and_verify(const struct state *s)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct token t = {.aud = TOKEN_LINK,
                      .sub = "demo",
                      .exp = NOW + 60,
                      .has_ports = true,
                      .ports = {.range = {{3000, 3000}, {8000, 8999}}, .n = 2},
                      .names = {"shop"},
                      .n_names = 1};
    struct err e = {0};

    if (token_sign(token_keys_find(s->keys, "ed"), &t, &text, &e) < 0 ||
        verify(s, buf_span(&text), &t, &e) < 0) {
        assert_int_equal(e.code, ERR_NOMEM); /* never mistaken for a bad token */
        return -1;
    }
    return 0;
}

static int build_keys(const struct state *s)
{
    struct token_keys *k = token_keys_new();
    int rc = -1;

    if (k != NULL)
        rc = token_keys_add_file(k, "hs", TOKEN_HS256, s->path, "acme", NULL);
    token_keys_free(k);
    return rc;
}

static void every_allocation_failure_is_clean(void **state)
{
    struct state *s = *state;

    FAIL_EACH_ALLOC(sign_and_verify(s));
    put_file(s->path, HS_KEY);
    FAIL_EACH_ALLOC(build_keys(s));
}

#define WITH_KEYS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYS(signature_matches_rfc_8037_a_4),
        WITH_KEYS(mac_matches_rfc_7515_a_1),
        WITH_KEYS(what_is_signed_is_what_is_read),
        WITH_KEYS(ports_may_be_a_list_or_an_array),
        WITH_KEYS(what_other_platforms_put_in_is_passed_over),
        WITH_KEYS(a_header_that_chooses_anything_but_the_key_is_refused),
        WITH_KEYS(claims_that_break_a_rule_are_refused),
        WITH_KEYS(every_changed_byte_is_noticed),
        WITH_KEYS(text_that_is_no_token_is_refused_without_repeating_it),
        WITH_KEYS(a_token_one_byte_too_long_is_refused),
        WITH_KEYS(peek_reads_claims_of_any_key),
        WITH_KEYS(a_weak_or_second_key_is_refused),
        WITH_KEYS(a_public_key_or_another_tenants_key_does_not_sign),
        WITH_KEYS(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/token", tests, NULL, NULL);
}
