/* SPDX-License-Identifier: MIT */
#include "common/tls.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "tests/support/pki.h"
#include "tests/support/test.h"

static const char *const alpn_ours[] = {"h2", "http/1.1", NULL};

struct world {
    struct pki pki;
    struct tls_cert_slot *slot;
    struct tls_ctx *server, *client;
    SSL *a, *b; /* server's and client's side of a handshake in memory */
    struct err error;
};

static struct tls_cert *issue(struct pki *p, const char *alt, int days)
{
    struct tls_cert *c;

    pki_issue(p, "leaf name", alt, days);
    c = tls_cert_load(p->cert_file, p->key_file, NULL);
    assert_non_null(c);
    return c;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct tls_cert *c;

    pki_init(&w->pki, "Corporate\nProxy \"Root\"");
    c = issue(&w->pki, "DNS:a.example.com,DNS:*.example.com,IP:127.0.0.1,IP:::1", 10);
    w->slot = tls_cert_slot_new(&c);
    assert_null(c);
    w->server = tls_ctx_server(w->slot, alpn_ours, NULL);
    w->client = tls_ctx_client(w->pki.ca_file, NULL);
    assert_non_null(w->server);
    assert_non_null(w->client);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    SSL_free(w->a);
    SSL_free(w->b);
    tls_ctx_free(w->server);
    tls_ctx_free(w->client);
    tls_cert_slot_free(w->slot);
    pki_done(&w->pki);
    free(w);
    return 0;
}

static void joined(struct world *w, struct tls_ctx *client, const char *name)
{
    BIO *x, *y;

    SSL_free(w->a);
    SSL_free(w->b);
    w->a = tls_session_server(w->server, NULL);
    w->b = tls_session_client(client, name, NULL);
    assert_non_null(w->a);
    assert_non_null(w->b);
    assert_int_equal(BIO_new_bio_pair(&x, 65536, &y, 65536), 1);
    SSL_set_bio(w->a, x, x);
    SSL_set_bio(w->b, y, y);
}

/* 0, or -1 with w->error from the client's point of view. */
static int shake(struct world *w, const char *name)
{
    int ra = 0, rb = 0, i;

    for (i = 0; i < 20 && (ra != 1 || rb != 1); i++) {
        if (rb != 1)
            rb = SSL_do_handshake(w->b);
        if (rb != 1 && SSL_get_error(w->b, rb) != SSL_ERROR_WANT_READ) {
            tls_explain(w->b, rb, name, &w->error);
            return -1;
        }
        if (ra != 1)
            ra = SSL_do_handshake(w->a);
    }
    return ra == 1 && rb == 1 ? 0 : -1;
}

static int try_name(struct world *w, struct tls_ctx *client, const char *name)
{
    joined(w, client, name);
    w->error = (struct err){0};
    return shake(w, name);
}

static void names_and_addresses_of_the_certificate_are_accepted(void **state)
{
    static const char *const good[] = {"a.example.com", "b.example.com", "127.0.0.1",
                                       "::1"};
    struct world *w = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(good); i++)
        assert_int_equal(try_name(w, w->client, good[i]), 0);
    assert_string_equal(SSL_get_cipher(w->b), "TLS_AES_128_GCM_SHA256");
    assert_int_equal(SSL_version(w->b), TLS1_3_VERSION);
}

static void every_other_name_is_refused_with_both_names(void **state)
{
    static const char *const bad[] = {"example.com", "a.b.example.com", "127.0.0.2",
                                      "a.example.org"};
    struct world *w = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(try_name(w, w->client, bad[i]), -1);
        assert_int_equal(w->error.code, ERR_DENIED);
        assert_non_null(strstr(w->error.msg, bad[i]));
        assert_non_null(strstr(w->error.msg, "leaf name"));
    }
    assert_null(tls_session_client(w->client, "", &w->error));
    assert_int_equal(w->error.code, ERR_CONFIG);
    /* To OpenSSL that means every name below it. */
    assert_null(tls_session_client(w->client, ".example.com", &w->error));
    assert_int_equal(w->error.code, ERR_CONFIG);
}

/* RFC 9525 6.3; name constraints and registries look at alternative names alone. */
static void a_common_name_is_no_name(void **state)
{
    struct world *w = *state;
    struct tls_cert *cert;

    pki_issue(&w->pki, "cn.example.com", "IP:127.0.0.9", 10);
    cert = tls_cert_load(w->pki.cert_file, w->pki.key_file, NULL);
    assert_non_null(cert);
    tls_cert_slot_swap(w->slot, &cert);
    assert_int_equal(try_name(w, w->client, "127.0.0.9"), 0);
    assert_int_equal(try_name(w, w->client, "cn.example.com"), -1);
    assert_int_equal(w->error.code, ERR_DENIED);
}

static void an_untrusted_issuer_is_named_and_made_harmless(void **state)
{
    struct world *w = *state;
    struct tls_ctx *bare = tls_ctx_client(NULL, NULL);

    assert_non_null(bare);
    assert_int_equal(try_name(w, bare, "a.example.com"), -1);
    assert_int_equal(w->error.code, ERR_DENIED);
    assert_string_equal(
        w->error.msg, "the certificate for a.example.com was issued by Corporate?Proxy "
                      "?Root?, which is not trusted here (a TLS-intercepting proxy? give "
                      "its CA with --ca-file)");
    tls_ctx_free(bare);
}

static void what_is_trusted_may_be_opened_before_it_is_used(void **state)
{
    struct world *w = *state;
    int ours = open(w->pki.ca_file, O_RDONLY | O_CLOEXEC);
    int none = open("/dev/null", O_RDONLY | O_CLOEXEC), fd;
    struct tls_ctx *c = tls_ctx_client_from(ours, NULL);
    struct err e = {0};

    assert_non_null(c);
    assert_int_equal(try_name(w, c, "a.example.com"), 0);
    assert_int_equal(try_name(w, c, "b.example.org"), -1);
    tls_ctx_free(c);
    c = tls_ctx_client_from(ours, NULL); /* again: the offset does not matter */
    assert_non_null(c);
    tls_ctx_free(c);
    assert_null(tls_ctx_client_from(none, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_null(tls_ctx_client_from(-1, &e));
    (void)close(ours);
    (void)close(none);
    assert_int_equal(setenv("SSL_CERT_FILE", "/nonexistent.pem", 1), 0);
    assert_int_equal(tls_store_open(), -1);
    assert_int_equal(setenv("SSL_CERT_FILE", w->pki.ca_file, 1), 0);
    fd = tls_store_open();
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(unsetenv("SSL_CERT_FILE"), 0);
}

static void an_expired_certificate_is_refused_as_such(void **state)
{
    struct world *w = *state;
    struct tls_cert *c = issue(&w->pki, "DNS:a.example.com", -2);

    tls_cert_slot_swap(w->slot, &c);
    assert_null(c);
    assert_int_equal(try_name(w, w->client, "a.example.com"), -1);
    assert_non_null(strstr(w->error.msg, "has expired"));
}

static void alpn_takes_our_first_and_refuses_what_has_nothing_of_ours(void **state)
{
    static const struct {
        const char *offer;
        const char *want; /* NULL: refused */
    } rows[] = {
        {"\x08http/1.1\x02h2", "h2"},
        {"\x08http/1.1", "http/1.1"},
        {"\x03spd\x08http/1.1", "http/1.1"},
        {"", ""},
        {"\003foo", NULL},
        {"\x07http/1.", NULL},
        {"\x09http/1.1x", NULL},
    };
    struct world *w = *state;
    const unsigned char *got;
    unsigned n;
    size_t i;

    for (i = 0; i < COUNT_OF(rows); i++) {
        joined(w, w->client, "a.example.com");
        if (rows[i].offer[0] != '\0')
            (void)SSL_set_alpn_protos(w->b, (const uint8_t *)rows[i].offer,
                                      (unsigned)strlen(rows[i].offer));
        if (rows[i].want == NULL) {
            assert_int_equal(shake(w, "x"), -1);
            assert_non_null(strstr(w->error.msg, "no application protocol"));
            continue;
        }
        assert_int_equal(shake(w, "x"), 0);
        SSL_get0_alpn_selected(w->b, &got, &n);
        assert_int_equal(n, strlen(rows[i].want));
        if (n > 0)
            assert_memory_equal(got, rows[i].want, n);
    }
}

static void old_tls_versions_are_refused_and_1_2_is_aead_only(void **state)
{
    struct world *w = *state;

    joined(w, w->client, "a.example.com");
    SSL_set_security_level(w->b, 0);
    (void)SSL_set_min_proto_version(w->b, TLS1_VERSION);
    (void)SSL_set_max_proto_version(w->b, TLS1_1_VERSION);
    assert_int_equal(shake(w, "a.example.com"), -1);
    joined(w, w->client, "a.example.com");
    (void)SSL_set_max_proto_version(w->b, TLS1_2_VERSION);
    assert_int_equal(shake(w, "a.example.com"), 0);
    assert_string_equal(SSL_get_cipher(w->b), "ECDHE-ECDSA-AES128-GCM-SHA256");
    joined(w, w->client, "a.example.com");
    (void)SSL_set_max_proto_version(w->b, TLS1_2_VERSION);
    (void)SSL_set_cipher_list(w->b, "ECDHE-ECDSA-AES128-SHA256");
    assert_int_equal(shake(w, "a.example.com"), -1);
}

static void files_that_are_no_certificate_or_key_are_named(void **state)
{
    struct world *w = *state;
    struct err e;
    char garbage[96];
    FILE *f;

    (void)snprintf(garbage, sizeof(garbage), "%s/garbage", w->pki.dir);
    f = fopen(garbage, "w");
    assert_non_null(f);
    (void)fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", f);
    (void)fclose(f);
    assert_null(tls_cert_load("/nonexistent.pem", w->pki.key_file, &e));
    assert_non_null(strstr(e.msg, "certificate /nonexistent.pem"));
    assert_null(tls_cert_load(garbage, w->pki.key_file, &e));
    assert_non_null(strstr(e.msg, garbage));
    assert_null(tls_cert_load(w->pki.cert_file, w->pki.cert_file, &e));
    assert_non_null(strstr(e.msg, "key "));
    assert_null(tls_cert_load(w->pki.ca_file, w->pki.key_file, &e));
    assert_non_null(strstr(e.msg, "key "));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_null(tls_ctx_client("/nonexistent-ca.pem", &e));
    assert_non_null(strstr(e.msg, "/nonexistent-ca.pem"));
    assert_null(tls_ctx_client(garbage, &e));
}

static void a_certificate_covers_its_alternative_names_only(void **state)
{
    struct world *w = *state;
    struct tls_cert *c = issue(&w->pki, "DNS:example.com,DNS:*.example.com", 5);

    assert_true(tls_cert_covers(c, "example.com"));
    assert_true(tls_cert_covers(c, "x.example.com"));
    assert_true(tls_cert_covers(c, "*.example.com"));
    assert_false(tls_cert_covers(c, "*.x.example.com"));
    assert_false(tls_cert_covers(c, "leaf name"));
    tls_cert_unref(c);
    c = issue(&w->pki, "DNS:example.com", 5);
    assert_false(tls_cert_covers(c, "*.example.com"));
    tls_cert_unref(c);
}

struct swapper {
    struct tls_cert_slot *slot;
    struct tls_cert *certs[2];
    atomic_bool stop;
};

static void *swap_on(void *arg)
{
    struct swapper *s = arg;
    unsigned i;

    for (i = 0; !atomic_load(&s->stop); i++) {
        struct tls_cert *c = tls_cert_ref(s->certs[i % 2]);

        tls_cert_slot_swap(s->slot, &c);
    }
    return NULL;
}

static void certificates_may_be_swapped_while_handshakes_go_on(void **state)
{
    struct world *w = *state;
    struct swapper s = {.slot = w->slot};
    pthread_t t;
    int i;

    s.certs[0] = issue(&w->pki, "DNS:a.example.com", 5);
    s.certs[1] = issue(&w->pki, "DNS:a.example.com,DNS:b.example.com", 5);
    assert_int_equal(pthread_create(&t, NULL, swap_on, &s), 0);
    for (i = 0; i < 100; i++)
        assert_int_equal(try_name(w, w->client, "a.example.com"), 0);
    atomic_store(&s.stop, true);
    assert_int_equal(pthread_join(t, NULL), 0);
    tls_cert_unref(s.certs[0]);
    tls_cert_unref(s.certs[1]);
}

static int make_all(const struct pki *p)
{
    struct tls_cert *c = tls_cert_load(p->cert_file, p->key_file, NULL);
    struct tls_cert_slot *slot;
    struct tls_ctx *a, *b;
    int r;

    if (c == NULL)
        return -1;
    slot = tls_cert_slot_new(&c);
    if (slot == NULL)
        return -1;
    a = tls_ctx_server(slot, alpn_ours, NULL);
    b = tls_ctx_client(p->ca_file, NULL);
    r = a != NULL && b != NULL ? 0 : -1;
    tls_ctx_free(a);
    tls_ctx_free(b);
    tls_cert_slot_free(slot);
    return r;
}

static void every_allocation_failure_is_clean(void **state)
{
    struct world *w = *state;

    FAIL_EACH_ALLOC(make_all(&w->pki));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(names_and_addresses_of_the_certificate_are_accepted),
        T(every_other_name_is_refused_with_both_names),
        T(a_common_name_is_no_name),
        T(an_untrusted_issuer_is_named_and_made_harmless),
        T(what_is_trusted_may_be_opened_before_it_is_used),
        T(an_expired_certificate_is_refused_as_such),
        T(alpn_takes_our_first_and_refuses_what_has_nothing_of_ours),
        T(old_tls_versions_are_refused_and_1_2_is_aead_only),
        T(files_that_are_no_certificate_or_key_are_named),
        T(a_certificate_covers_its_alternative_names_only),
        T(certificates_may_be_swapped_while_handshakes_go_on),
        T(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/tls", tests, NULL, NULL);
}
