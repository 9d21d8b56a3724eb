/* SPDX-License-Identifier: MIT */
#include "tunneld/keys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

#define KEYS_FILE "signing-key.pem"
enum {
    PATH_CAP = 4096
};

struct keys {
    atomic_uint refs;
    struct token_keys *tokens;
    const struct token_key *own; /* in tokens */
};

struct keys *keys_ref(struct keys *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void keys_unref(struct keys *k)
{
    if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
        return;
    token_keys_free(k->tokens);
    mem_free(k);
}

const struct token_keys *keys_tokens(const struct keys *k)
{
    return k->tokens;
}

const struct token_key *keys_own(const struct keys *k)
{
    return k->own;
}

int keys_derive(const struct keys *k, const char *label, uint8_t out[32])
{
    return ed25519_derive(k->own->ed, label, out);
}

/* The key is as good as what others may do to its folder and file. */
static int check_private(const char *path, mode_t forbidden, struct err *e)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return err_sys(e, "look at %s", path);
    if ((st.st_mode & forbidden) != 0)
        return err_set(e, ERR_CONFIG, "%s has mode %04o, which is open to others", path,
                       (unsigned)st.st_mode & 07777);
    return 0;
}

static int make_state_dir(const char *path, struct err *e)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make folder %s", path);
    return check_private(path, S_IWGRP | S_IWOTH, e);
}

/* Written beside and then linked into place: the file is there whole or not at all, and of
 * two servers that start at once both use the key of the faster. */
static int place_own(const struct ed25519 *k, const char *path, struct err *e)
{
    char beside[PATH_CAP + 16];
    uint32_t tag;
    int rc;

    crypto_random(&tag, sizeof(tag));
    (void)snprintf(beside, sizeof(beside), "%s.%08" PRIx32, path, tag);
    if (ed25519_save(k, beside, e) < 0)
        return -1;
    rc = link(beside, path) < 0 && errno != EEXIST ? err_sys(e, "make %s", path) : 0;
    (void)unlink(beside); /* a leftover name harms nobody */
    return rc;
}

static struct ed25519 *make_own(const char *path, struct err *e)
{
    struct ed25519 *k = ed25519_generate(e);
    int rc;

    if (k == NULL)
        return NULL;
    rc = place_own(k, path, e);
    ed25519_free(k);
    return rc < 0 ? NULL : ed25519_load(path, e);
}

static struct ed25519 *load_own(const char *state_dir, struct err *e)
{
    char path[PATH_CAP];
    int n = snprintf(path, sizeof(path), "%s/" KEYS_FILE, state_dir);
    struct ed25519 *k;

    if (n < 0 || (size_t)n >= sizeof(path)) {
        err_set(e, ERR_CONFIG, "the path of state_dir is too long");
        return NULL;
    }
    if (make_state_dir(state_dir, e) < 0)
        return NULL;
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return make_own(path, e);
    if (check_private(path, S_IRWXG | S_IRWXO, e) < 0)
        return NULL;
    k = ed25519_load(path, e);
    if (k != NULL && !ed25519_can_sign(k)) {
        ed25519_free(k);
        err_set(e, ERR_CONFIG, "%s holds a public key only", path);
        return NULL;
    }
    return k;
}

/* Nobody may give his own key this id: it is made of the key. "server-" and the first 16
 * characters of SHA-256 of the public key. */
static int own_kid(const struct ed25519 *k, char *out, size_t cap, struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    uint8_t public_key[32];
    uint8_t hash[32];

    if (ed25519_public(k, public_key) < 0)
        return err_set(e, ERR_CONFIG, "the server's key has no public half");
    crypto_sha256(span_of(public_key, sizeof(public_key)), hash);
    if (b64url_encode(&text, span_of(hash, 12)) < 0)
        return err_set(e, ERR_NOMEM, "no memory for a key id");
    (void)snprintf(out, cap, "server-%.*s", SPAN_FMT(buf_span(&text)));
    return 0;
}

static int add_own(struct keys *k, const char *state_dir, struct err *e)
{
    char kid[64];
    struct ed25519 *ed = load_own(state_dir, e);

    if (ed == NULL)
        return -1;
    if (own_kid(ed, kid, sizeof(kid), e) < 0) {
        ed25519_free(ed);
        return -1;
    }
    if (token_keys_add(k->tokens, kid, &ed, e) < 0)
        return -1;
    k->own = token_keys_find(k->tokens, kid);
    return 0;
}

/* The own key comes last: then no later addition moves it. */
static int fill(struct keys *k, const struct config *conf, struct err *e)
{
    unsigned i;

    k->tokens = token_keys_new();
    if (k->tokens == NULL)
        return err_set(e, ERR_NOMEM, "no memory for keys");
    for (i = 0; i < conf->n_keys; i++) {
        const struct config_key *key = &conf->key[i];

        if (token_keys_add_file(k->tokens, key->kid, key->alg, key->file, key->tenant,
                                e) < 0)
            return err_wrap(e, "keys[%u]", i);
    }
    return add_own(k, conf->state_dir, e);
}

struct keys *keys_load(const struct config *conf, struct err *e)
{
    struct keys *k = mem_zalloc(1, sizeof(*k));

    if (k == NULL) {
        err_set(e, ERR_NOMEM, "no memory for keys");
        return NULL;
    }
    atomic_init(&k->refs, 1);
    if (fill(k, conf, e) < 0) {
        keys_unref(k);
        return NULL;
    }
    return k;
}
