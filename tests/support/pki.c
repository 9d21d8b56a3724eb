/* SPDX-License-Identifier: MIT */
#include "tests/support/pki.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct pki_key {
    X509 *cert;
    EVP_PKEY *key;
    int issued;
};

static void must(int ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "pki: %s\n", what);
        abort();
    }
}

static void add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX v3;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&v3, issuer, x, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &v3, nid, value);
    must(ext != NULL && X509_add_ext(x, ext, -1) == 1, value);
    X509_EXTENSION_free(ext);
}

static X509 *new_cert(const char *cn, EVP_PKEY *key, long serial, int days)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_NAME_new();

    must(x != NULL && name != NULL, "memory");
    must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)cn, -1,
                                    -1, 0) == 1,
         cn);
    (void)X509_set_version(x, 2);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
    (void)X509_gmtime_adj(X509_getm_notBefore(x),
                          days > 0 ? -86400 : days * 86400L - 86400);
    (void)X509_gmtime_adj(X509_getm_notAfter(x), days * 86400L);
    (void)X509_set_subject_name(x, name);
    (void)X509_set_issuer_name(x, name);
    (void)X509_set_pubkey(x, key);
    X509_NAME_free(name);
    return x;
}

static void write_pem(const char *file, X509 *cert, EVP_PKEY *key)
{
    FILE *f = fopen(file, "w");

    must(f != NULL, file);
    must(cert == NULL || PEM_write_X509(f, cert) == 1, file);
    must(key == NULL || PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1,
         file);
    (void)fclose(f);
}

void pki_init(struct pki *p, const char *cn)
{
    memset(p, 0, sizeof(*p));
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/test_pkiXXXXXX");
    must(mkdtemp(p->dir) != NULL, "mkdtemp");
    (void)snprintf(p->ca_file, sizeof(p->ca_file), "%s/ca.pem", p->dir);
    p->ca = calloc(1, sizeof(*p->ca));
    must(p->ca != NULL, "memory");
    p->ca->key = EVP_EC_gen("P-256");
    must(p->ca->key != NULL, "key");
    p->ca->cert = new_cert(cn, p->ca->key, 1, 10);
    add_extension(p->ca->cert, p->ca->cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(p->ca->cert, p->ca->cert, NID_key_usage, "critical,keyCertSign");
    must(X509_sign(p->ca->cert, p->ca->key, EVP_sha256()) > 0, "sign");
    write_pem(p->ca_file, p->ca->cert, NULL);
}

void pki_issue(struct pki *p, const char *cn, const char *alt, int days)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    int n = ++p->ca->issued;
    X509 *x;

    must(key != NULL, "key");
    x = new_cert(cn, key, n + 1, days);
    (void)X509_set_issuer_name(x, X509_get_subject_name(p->ca->cert));
    add_extension(x, p->ca->cert, NID_subject_alt_name, alt);
    must(X509_sign(x, p->ca->key, EVP_sha256()) > 0, "sign");
    (void)snprintf(p->cert_file, sizeof(p->cert_file), "%s/%d.pem", p->dir, n);
    (void)snprintf(p->key_file, sizeof(p->key_file), "%s/%d.key", p->dir, n);
    write_pem(p->cert_file, x, NULL);
    write_pem(p->key_file, NULL, key);
    X509_free(x);
    EVP_PKEY_free(key);
}

void pki_done(struct pki *p)
{
    DIR *d = p->ca != NULL ? opendir(p->dir) : NULL;
    struct dirent *entry;
    char path[512];

    if (p->ca == NULL)
        return;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s/%s", p->dir, entry->d_name);
        if (entry->d_name[0] != '.')
            (void)unlink(path);
    }
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(p->dir);
    X509_free(p->ca->cert);
    EVP_PKEY_free(p->ca->key);
    free(p->ca);
    p->ca = NULL;
}
