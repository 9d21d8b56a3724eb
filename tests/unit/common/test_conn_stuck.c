/* SPDX-License-Identifier: MIT */
/* A TLS client that sends the head of a KeyUpdate alone, which OpenSSL itself never does:
 * from then on SSL_write() of the other side waits for reading. */
#include "common/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

#include <uv.h>

#include "tests/support/pki.h"
#include "tests/support/test.h"

enum {
    RECORD_HEAD = 5,
    GCM_TAG = 16,
    HANDSHAKE = 22,
    APPLICATION = 23
};

enum step {
    SHAKING,
    HALF_SENT,
    WAITING,
    WHOLE_SENT
};

/* The server under test, and a client that is OpenSSL on a non-blocking socket. */
struct world {
    struct loop *l;
    uv_prepare_t turn;
    struct pki pki;
    struct tls_cert_slot *slot;
    struct tls_ctx *server;
    struct conn *c;
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    uint8_t secret[32]; /* client_application_traffic_secret_0 */
    uint64_t records;   /* sent by us under it */
    enum step step;
    unsigned ticks, turns, turns_before;
    struct loop_timer tick;
    size_t taken; /* by conn_write() */
    bool has_failed;
    char got[16];
};

static void expand(const uint8_t secret[32], const char *label, uint8_t *out, size_t n)
{
    uint8_t hkdf_label[64] = {0, (uint8_t)n, (uint8_t)(6 + strlen(label))};
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *k = EVP_KDF_CTX_new(kdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    char digest[] = "SHA256";
    OSSL_PARAM p[5];

    /* RFC 8446 7.1 */
    memcpy(hkdf_label + 3, "tls13 ", 6);
    memcpy(hkdf_label + 9, label, strlen(label));
    p[0] = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
    p[1] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    p[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
                                             (uint8_t *)(uintptr_t)secret, 32);
    p[3] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, hkdf_label,
                                             10 + strlen(label));
    p[4] = OSSL_PARAM_construct_end();
    assert_int_equal(EVP_KDF_derive(k, out, n, p), 1);
    EVP_KDF_CTX_free(k);
    EVP_KDF_free(kdf);
}

static void on_keylog(const SSL *ssl, const char *line)
{
    static const char name[] = "CLIENT_TRAFFIC_SECRET_0 ";
    struct world *w = SSL_get_app_data(ssl);
    const char *hex;
    size_t i;

    if (strncmp(line, name, sizeof(name) - 1) != 0)
        return;
    hex = strrchr(line, ' ') + 1;
    for (i = 0; i < sizeof(w->secret); i++)
        assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &w->secret[i]), 1);
}

/* A record of our own, TLS_AES_128_GCM_SHA256 (RFC 8446 5.2). */
static void send_record(struct world *w, uint8_t type, const void *p, size_t n)
{
    uint8_t key[16], iv[12], record[RECORD_HEAD + 64 + 1 + GCM_TAG], *body = record + 5;
    size_t inner = n + 1, len = RECORD_HEAD + inner + GCM_TAG;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    uint64_t seq = w->records++;
    int k, i;

    assert_in_range(n, 1, 64);
    expand(w->secret, "key", key, sizeof(key));
    expand(w->secret, "iv", iv, sizeof(iv));
    for (i = 0; i < 8; i++)
        iv[11 - i] ^= (uint8_t)(seq >> (8 * i));
    record[0] = APPLICATION, record[1] = record[2] = 3;
    record[3] = 0, record[4] = (uint8_t)(inner + GCM_TAG);
    memcpy(body, p, n);
    body[n] = type;
    assert_int_equal(EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv), 1);
    assert_int_equal(EVP_EncryptUpdate(c, NULL, &k, record, RECORD_HEAD), 1);
    assert_int_equal(EVP_EncryptUpdate(c, body, &k, body, (int)inner), 1);
    assert_int_equal(EVP_EncryptFinal_ex(c, body + inner, &k), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, GCM_TAG, body + inner),
                     1);
    EVP_CIPHER_CTX_free(c);
    assert_int_equal(write(w->fd, record, len), (ssize_t)len);
}

/* -- the server ------------------------------------------------------------------------ */

static const char TEXT[] = "0123456789";

static void on_readable(void *owner)
{
    struct world *w = owner;
    uint8_t bytes[64];
    size_t n;

    if (conn_read(w->c, bytes, sizeof(bytes), &n) != CONN_AGAIN)
        w->has_failed = true;
}

static void on_writable(void *owner)
{
    struct world *w = owner;
    size_t n = 0;

    conn_want(w->c, LOOP_READ);
    if (conn_write(w->c, TEXT, sizeof(TEXT), &n) != CONN_OK)
        w->has_failed = true;
    w->taken += n;
}

static void on_secured(void *owner, const struct err *e)
{
    struct world *w = owner;

    w->has_failed |= e != NULL;
    conn_want(w->c, LOOP_READ);
}

static const struct conn_ops ops = {on_readable, on_writable, on_secured};

/* -- the client ------------------------------------------------------------------------ */

static void on_turn(uv_prepare_t *h)
{
    struct world *w = h->data;

    w->turns++;
}

static bool is_shaken(struct world *w)
{
    int r = SSL_do_handshake(w->ssl);

    assert_true(r == 1 || SSL_get_error(w->ssl, r) == SSL_ERROR_WANT_READ);
    return r == 1;
}

/* Every 10 ms. */
static void on_tick(void *arg)
{
    static const uint8_t update[] = {24, 0, 0, 1, 0}; /* RFC 8446 4.6.3 */
    struct world *w = arg;

    w->ticks++;
    if (w->step == SHAKING && is_shaken(w)) {
        send_record(w, HANDSHAKE, update, 4);
        w->step = HALF_SENT;
        w->ticks = 0;
    } else if (w->step == HALF_SENT && w->ticks == 5) {
        conn_want(w->c, LOOP_READ | LOOP_WRITE);
        w->step = WAITING;
        w->turns_before = w->turns;
    } else if (w->step == WAITING && w->ticks == 25) {
        w->turns_before = w->turns - w->turns_before;
        send_record(w, HANDSHAKE, update + 4, 1);
        w->step = WHOLE_SENT;
    }
    if ((w->step == WHOLE_SENT && SSL_read(w->ssl, w->got, sizeof(w->got)) > 0) ||
        w->ticks == 500)
        loop_stop(w->l);
    loop_timer_start(&w->tick, 10);
}

static void connect_both(struct world *w)
{
    struct sock_addr at;
    int l, fd;

    assert_int_equal(sock_parse("127.0.0.1:0", &at, NULL), 0);
    l = sock_listen(&at, NULL);
    assert_int_equal(sock_local(l, &at), 0);
    w->fd = sock_connect(&at, NULL);
    while ((fd = sock_accept(l, NULL)) < 0)
        ;
    sock_close(&l);
    w->c = conn_new(w->l, &fd, &ops, w, NULL);
    assert_int_equal(conn_tls_accept(w->c, w->server, NULL), 0);
    w->ctx = SSL_CTX_new(TLS_client_method());
    (void)SSL_CTX_set_ciphersuites(w->ctx, "TLS_AES_128_GCM_SHA256");
    (void)SSL_CTX_set_min_proto_version(w->ctx, TLS1_3_VERSION);
    SSL_CTX_set_keylog_callback(w->ctx, on_keylog);
    w->ssl = SSL_new(w->ctx);
    SSL_set_app_data(w->ssl, w);
    SSL_set_fd(w->ssl, w->fd);
    SSL_set_connect_state(w->ssl);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct tls_cert *cert;

    w->l = loop_new(NULL);
    pki_init(&w->pki, "Test Root");
    pki_issue(&w->pki, "leaf", "DNS:a.example.com", 10);
    cert = tls_cert_load(w->pki.cert_file, w->pki.key_file, NULL);
    w->slot = tls_cert_slot_new(&cert);
    w->server = tls_ctx_server(w->slot, NULL, NULL);
    assert_int_equal(uv_prepare_init(loop_uv(w->l), &w->turn), 0);
    w->turn.data = w;
    assert_int_equal(uv_prepare_start(&w->turn, on_turn), 0);
    loop_timer_init(&w->tick, w->l, on_tick, w);
    connect_both(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    SSL_free(w->ssl);
    SSL_CTX_free(w->ctx);
    sock_close(&w->fd);
    conn_close(&w->c);
    loop_timer_stop(&w->tick);
    uv_close((uv_handle_t *)&w->turn, NULL);
    loop_free(w->l);
    tls_ctx_free(w->server);
    tls_cert_slot_free(w->slot);
    pki_done(&w->pki);
    free(w);
    return 0;
}

static void a_write_that_waits_for_reading_neither_spins_nor_is_lost(void **state)
{
    struct world *w = *state;

    loop_timer_start(&w->tick, 10);
    loop_run(w->l);
    assert_false(w->has_failed);
    assert_int_equal(w->taken, sizeof(TEXT));
    /* 20 ticks; a loop that spins makes many thousand turns in that time. */
    assert_in_range(w->turns_before, 1, 200);
    assert_string_equal(w->got, TEXT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_write_that_waits_for_reading_neither_spins_nor_is_lost, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
