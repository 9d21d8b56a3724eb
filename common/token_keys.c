/* SPDX-License-Identifier: MIT */
#include "common/token_keys.h"

#include <string.h>

#include "common/mem.h"

struct token_keys {
    struct token_key *key;
    size_t n;
};

static void key_done(struct token_key *k)
{
    ed25519_free(k->ed);
    k->ed = NULL;
    secret_done(&k->hmac);
}

struct token_keys *token_keys_new(void)
{
    return mem_zalloc(1, sizeof(struct token_keys));
}

void token_keys_free(struct token_keys *k)
{
    size_t i;

    if (k == NULL)
        return;
    for (i = 0; i < k->n; i++)
        key_done(&k->key[i]);
    mem_free(k->key);
    mem_free(k);
}

const struct token_key *token_keys_find(const struct token_keys *k, const char *kid)
{
    size_t i;

    for (i = 0; i < k->n; i++)
        if (strcmp(k->key[i].kid, kid) == 0)
            return &k->key[i];
    return NULL;
}

/* Copies a text that must fit and not be empty. */
static int set_name(char *ret, size_t cap, const char *text)
{
    size_t n = strlen(text);

    if (n == 0 || n >= cap)
        return -1;
    memcpy(ret, text, n + 1);
    return 0;
}

/* Takes what `take` holds, in all cases. */
static int add(struct token_keys *k, struct token_key *take, const char *kid,
               struct err *e)
{
    struct token_key *grown;
    int rc = -1;

    if (set_name(take->kid, sizeof(take->kid), kid) < 0) {
        err_set(e, ERR_CONFIG, "a key id has 1 to %zu bytes", sizeof(take->kid) - 1);
    } else if (token_keys_find(k, kid) != NULL) {
        err_set(e, ERR_CONFIG, "two keys have the id %s", kid);
    } else if ((grown = mem_resize(k->key, (k->n + 1) * sizeof(*grown))) == NULL) {
        err_set(e, ERR_NOMEM, "no memory for a key");
    } else {
        k->key = grown;
        k->key[k->n++] = *take;
        *take = (struct token_key){.ed = NULL};
        rc = 0;
    }
    key_done(take);
    return rc;
}

int token_keys_add(struct token_keys *k, const char *kid, struct ed25519 **take,
                   struct err *e)
{
    struct token_key key = {.alg = TOKEN_EDDSA, .ed = *take};

    *take = NULL;
    return add(k, &key, kid, e);
}

int token_keys_add_file(struct token_keys *k, const char *kid, enum token_alg alg,
                        const char *file, const char *tenant, struct err *e)
{
    struct token_key key = {.alg = alg};

    if (tenant != NULL && *tenant != '\0' &&
        set_name(key.tenant, sizeof(key.tenant), tenant) < 0)
        return err_set(e, ERR_CONFIG, "a tenant has at most %d bytes", TOKEN_TENANT_MAX);
    if (alg == TOKEN_EDDSA) {
        key.ed = ed25519_load(file, e);
        if (key.ed == NULL)
            return -1;
    } else if (secret_read(&key.hmac, file, TOKEN_HMAC_MAX, e) < 0) {
        return -1;
    } else if (key.hmac.len < TOKEN_HMAC_MIN) {
        key_done(&key);
        return err_set(e, ERR_CONFIG, "%s: an HS256 key has at least %d bytes", file,
                       TOKEN_HMAC_MIN);
    }
    return add(k, &key, kid, e);
}
