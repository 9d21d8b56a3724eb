/* SPDX-License-Identifier: MIT */
/* The one-shot digests of OpenSSL 3 allocate and can fail; SHA*_Init and friends do
 * neither, so that hashing a few bytes has no error path. They are only marked as
 * deprecated. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "common/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

#include "common/mem.h"

void crypto_random(void *p, size_t n)
{
    uint8_t *at = p;

    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            abort();
        at += got;
        n -= (size_t)got;
    }
}

uint32_t crypto_random_below(uint32_t n)
{
    /* Numbers above the last whole multiple of n would favour small results. */
    uint32_t low = n > 1 ? (uint32_t)(-n) % n : 0;
    uint32_t r;

    if (n <= 1)
        return 0;
    do {
        crypto_random(&r, sizeof(r));
    } while (r < low);
    return r % n;
}

bool crypto_equal(struct span a, struct span b)
{
    if (a.len != b.len)
        return false;
    return a.len == 0 || CRYPTO_memcmp(a.p, b.p, a.len) == 0;
}

/* -- digests ------------------------------------------------------------------------- */

void crypto_sha1(struct span in, uint8_t out[20])
{
    SHA_CTX h;

    SHA1_Init(&h);
    SHA1_Update(&h, in.p, in.len);
    SHA1_Final(out, &h);
}

void crypto_sha256(struct span in, uint8_t out[32])
{
    SHA256_CTX h;

    SHA256_Init(&h);
    SHA256_Update(&h, in.p, in.len);
    SHA256_Final(out, &h);
}

/* One pass of RFC 2104: H(key ^ pad | in). */
static void hmac_pass(const uint8_t key[64], uint8_t pad, struct span in, uint8_t out[32])
{
    SHA256_CTX h;
    uint8_t block[64];
    size_t i;

    for (i = 0; i < sizeof(block); i++)
        block[i] = key[i] ^ pad;
    SHA256_Init(&h);
    SHA256_Update(&h, block, sizeof(block));
    SHA256_Update(&h, in.p, in.len);
    SHA256_Final(out, &h);
    OPENSSL_cleanse(block, sizeof(block));
    OPENSSL_cleanse(&h, sizeof(h));
}

void crypto_hmac_sha256(struct span key, struct span in, uint8_t out[32])
{
    uint8_t block[64] = {0};
    uint8_t inner[32];

    if (key.len > sizeof(block))
        crypto_sha256(key, block);
    else if (key.len > 0)
        memcpy(block, key.p, key.len);
    hmac_pass(block, 0x36, in, inner);
    hmac_pass(block, 0x5c, span_of(inner, sizeof(inner)), out);
    OPENSSL_cleanse(block, sizeof(block));
    OPENSSL_cleanse(inner, sizeof(inner));
}

/* RFC 5869 with an empty salt; one block of output is all we ask for. */
int crypto_derive(struct span secret, const char *label, uint8_t out[32])
{
    static const uint8_t NO_SALT[32];
    uint8_t prk[32];
    uint8_t block[128];
    size_t n = strlen(label);

    if (n >= sizeof(block))
        return -1;
    memcpy(block, label, n); /* NOLINT(bugprone-not-null-terminated-result): bytes */
    block[n] = 1;
    crypto_hmac_sha256(span_of(NO_SALT, sizeof(NO_SALT)), secret, prk);
    crypto_hmac_sha256(span_of(prk, sizeof(prk)), span_of(block, n + 1), out);
    OPENSSL_cleanse(prk, sizeof(prk));
    return 0;
}

/* -- sealing ------------------------------------------------------------------------- */

enum {
    GCM_NONCE = 12,
    GCM_TAG = 16
};

/* `out` has room for plain.len + GCM_TAG. */
static bool gcm_encrypt(EVP_CIPHER_CTX *c, const uint8_t key[32], const uint8_t *nonce,
                        struct span aad, struct span plain, uint8_t *out)
{
    int n;

    return EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
           EVP_EncryptUpdate(c, NULL, &n, aad.p, (int)aad.len) == 1 &&
           EVP_EncryptUpdate(c, out, &n, plain.p, (int)plain.len) == 1 &&
           EVP_EncryptFinal_ex(c, out + plain.len, &n) == 1 &&
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, GCM_TAG, out + plain.len) == 1;
}

int crypto_seal(const uint8_t key[32], struct span aad, struct span plain,
                struct buf *out)
{
    EVP_CIPHER_CTX *c;
    uint8_t *at;
    bool ok;

    if (aad.len > INT_MAX || plain.len > INT_MAX - GCM_NONCE - GCM_TAG ||
        buf_reserve(out, GCM_NONCE + plain.len + GCM_TAG, SIZE_MAX) < 0)
        return -1;
    c = EVP_CIPHER_CTX_new();
    if (c == NULL)
        return -1;
    at = out->p + out->len;
    crypto_random(at, GCM_NONCE);
    ok = gcm_encrypt(c, key, at, aad, plain, at + GCM_NONCE);
    EVP_CIPHER_CTX_free(c);
    ERR_clear_error();
    if (!ok)
        return -1;
    out->len += GCM_NONCE + plain.len + GCM_TAG;
    return 0;
}

static bool gcm_decrypt(EVP_CIPHER_CTX *c, const uint8_t key[32], const uint8_t *nonce,
                        struct span aad, struct span text, uint8_t *out)
{
    uint8_t tag[GCM_TAG];
    int n;

    memcpy(tag, text.p + text.len, GCM_TAG);
    return EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
           EVP_DecryptUpdate(c, NULL, &n, aad.p, (int)aad.len) == 1 &&
           EVP_DecryptUpdate(c, out, &n, text.p, (int)text.len) == 1 &&
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, GCM_TAG, tag) == 1 &&
           EVP_DecryptFinal_ex(c, out + text.len, &n) == 1;
}

int crypto_open(const uint8_t key[32], struct span aad, struct span sealed,
                struct buf *out)
{
    EVP_CIPHER_CTX *c;
    struct span text;
    bool ok;

    if (sealed.len < GCM_NONCE + GCM_TAG || sealed.len > INT_MAX || aad.len > INT_MAX)
        return -1;
    text = span_of(sealed.p + GCM_NONCE, sealed.len - GCM_NONCE - GCM_TAG);
    if (buf_reserve(out, text.len + 1, SIZE_MAX) < 0)
        return -1;
    c = EVP_CIPHER_CTX_new();
    if (c == NULL)
        return -1;
    ok = gcm_decrypt(c, key, sealed.p, aad, text, out->p + out->len);
    EVP_CIPHER_CTX_free(c);
    ERR_clear_error();
    if (!ok) { /* what was deciphered is nobody's before its tag is right */
        OPENSSL_cleanse(out->p + out->len, text.len);
        return -1;
    }
    out->len += text.len;
    return 0;
}

/* -- Ed25519 ------------------------------------------------------------------------- */

struct ed25519 {
    EVP_PKEY *pkey;
    bool can_sign;
};

/* Takes pkey in all cases. */
static struct ed25519 *wrap_pkey(EVP_PKEY *pkey, bool can_sign, struct err *e)
{
    struct ed25519 *k = mem_zalloc(1, sizeof(*k));

    if (k == NULL) {
        EVP_PKEY_free(pkey);
        err_set(e, ERR_NOMEM, "no memory for a key");
        return NULL;
    }
    k->pkey = pkey;
    k->can_sign = can_sign;
    return k;
}

struct ed25519 *ed25519_generate(struct err *e)
{
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    ERR_clear_error();
    if (pkey == NULL) {
        err_set(e, ERR_NOMEM, "OpenSSL makes no Ed25519 key");
        return NULL;
    }
    return wrap_pkey(pkey, true, e);
}

/* Without it OpenSSL asks for a passphrase on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): pem_password_cb */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    UNUSED_ARG(buf);
    UNUSED_ARG(size);
    UNUSED_ARG(rwflag);
    UNUSED_ARG(arg);
    return -1;
}

static EVP_PKEY *parse_pem(struct span pem, bool *ret_can_sign)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.len);
    EVP_PKEY *pkey;

    if (bio == NULL)
        return NULL;
    pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    *ret_can_sign = pkey != NULL;
    if (pkey == NULL && BIO_reset(bio) == 1)
        pkey = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    return pkey;
}

struct ed25519 *ed25519_load(const char *path, struct err *e)
{
    AUTO(secret_done)
    struct secret pem = {0};
    EVP_PKEY *pkey;
    bool can_sign = false;

    if (secret_read(&pem, path, 16384, e) < 0)
        return NULL;
    pkey = parse_pem(secret_span(&pem), &can_sign);
    if (pkey == NULL) {
        err_set(e, ERR_CONFIG, "%s holds no PEM key without passphrase", path);
        return NULL;
    }
    if (EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(pkey);
        err_set(e, ERR_CONFIG, "%s holds a key that is not Ed25519", path);
        return NULL;
    }
    return wrap_pkey(pkey, can_sign, e);
}

static int write_whole(int fd, const uint8_t *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Makes the file; a half-written one is removed again. */
static int create_private(const char *path, struct span text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = 0;

    if (fd < 0)
        return err_sys(e, "create %s", path);
    if (write_whole(fd, text.p, text.len) < 0 || fsync(fd) < 0) {
        rc = err_sys(e, "write %s", path);
        (void)unlink(path); /* the first error is the one to tell */
    }
    (void)close(fd); /* fsync() has told all that could go wrong */
    return rc;
}

int ed25519_save(const struct ed25519 *k, const char *path, struct err *e)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *pem = NULL;
    long len;
    int rc = -1;

    if (bio != NULL &&
        PEM_write_bio_PKCS8PrivateKey(bio, k->pkey, NULL, NULL, 0, NULL, NULL) == 1 &&
        (len = BIO_get_mem_data(bio, &pem)) > 0)
        rc = create_private(path, span_of(pem, (size_t)len), e);
    else
        err_set(e, ERR_NOMEM, "OpenSSL writes no PEM of the key");
    BIO_free(bio); /* wipes */
    ERR_clear_error();
    return rc;
}

void ed25519_free(struct ed25519 *k)
{
    if (k == NULL)
        return;
    EVP_PKEY_free(k->pkey);
    mem_free(k);
}

bool ed25519_can_sign(const struct ed25519 *k)
{
    return k->can_sign;
}

int ed25519_sign(const struct ed25519 *k, struct span in, uint8_t out[64])
{
    EVP_MD_CTX *c = k->can_sign ? EVP_MD_CTX_new() : NULL;
    size_t len = 64;
    bool ok;

    if (c == NULL)
        return -1;
    ok = EVP_DigestSignInit(c, NULL, NULL, NULL, k->pkey) == 1 &&
         EVP_DigestSign(c, out, &len, in.p, in.len) == 1 && len == 64;
    EVP_MD_CTX_free(c);
    ERR_clear_error();
    return ok ? 0 : -1;
}

bool ed25519_verify(const struct ed25519 *k, struct span in, struct span sig)
{
    EVP_MD_CTX *c = sig.len == 64 ? EVP_MD_CTX_new() : NULL;
    bool ok;

    if (c == NULL)
        return false;
    ok = EVP_DigestVerifyInit(c, NULL, NULL, NULL, k->pkey) == 1 &&
         EVP_DigestVerify(c, sig.p, sig.len, in.p, in.len) == 1;
    EVP_MD_CTX_free(c);
    ERR_clear_error();
    return ok;
}

int ed25519_public(const struct ed25519 *k, uint8_t out[32])
{
    size_t len = 32;

    return EVP_PKEY_get_raw_public_key(k->pkey, out, &len) == 1 && len == 32 ? 0 : -1;
}

int ed25519_derive(const struct ed25519 *k, const char *label, uint8_t out[32])
{
    uint8_t seed[32];
    size_t len = sizeof(seed);
    int rc = -1;

    if (k->can_sign && EVP_PKEY_get_raw_private_key(k->pkey, seed, &len) == 1)
        rc = crypto_derive(span_of(seed, len), label, out);
    OPENSSL_cleanse(seed, sizeof(seed));
    return rc;
}
