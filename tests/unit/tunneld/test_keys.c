/* SPDX-License-Identifier: MIT */
#include "tunneld/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"

enum {
    NOW = 1800000000
};

struct state {
    char dir[40];
    char state_dir[64], own[96], key[64];
    struct config conf;
};

static int set_up(void **state)
{
    struct state *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    strcpy(s->dir, "/tmp/test_keys.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    (void)snprintf(s->state_dir, sizeof(s->state_dir), "%s/state", s->dir);
    (void)snprintf(s->own, sizeof(s->own), "%s/signing-key.pem", s->state_dir);
    (void)snprintf(s->key, sizeof(s->key), "%s/hs", s->dir);
    s->conf.state_dir = s->state_dir;
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct state *s = *state;

    (void)unlink(s->own);
    (void)rmdir(s->state_dir);
    (void)unlink(s->key);
    assert_int_equal(rmdir(s->dir), 0); /* nothing else was left behind */
    free(s);
    return 0;
}

static void put_file(const char *path, const char *content, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(content, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void add_config_key(struct state *s, const char *kid, const char *tenant)
{
    struct config_key *k = &s->conf.key[s->conf.n_keys++];

    strcpy(k->kid, kid);
    strcpy(k->tenant, tenant);
    k->alg = TOKEN_HS256;
    k->file = s->key;
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void the_first_start_makes_a_private_key_and_the_next_keeps_it(void **state)
{
    struct state *s = *state;
    struct keys *first = keys_load(&s->conf, NULL);
    struct keys *second = keys_load(&s->conf, NULL);
    uint8_t a[32], b[32];

    assert_non_null(first);
    assert_non_null(second);
    assert_int_equal(mode_of(s->state_dir), 0700);
    assert_int_equal(mode_of(s->own), 0600);
    assert_string_equal(keys_own(first)->kid, keys_own(second)->kid);
    assert_memory_equal(keys_own(first)->kid, "server-", 7);
    assert_string_equal(keys_own(first)->tenant, "");
    assert_int_equal(keys_derive(first, "cookie", a), 0);
    assert_int_equal(keys_derive(second, "cookie", b), 0);
    assert_memory_equal(a, b, 32);
    assert_int_equal(keys_derive(second, "other", b), 0);
    assert_memory_not_equal(a, b, 32);
    keys_unref(first);
    keys_unref(second);
}

static void two_servers_have_different_keys_and_ids(void **state)
{
    struct state *s = *state;
    struct keys *first = keys_load(&s->conf, NULL);
    struct keys *second;

    assert_int_equal(unlink(s->own), 0);
    second = keys_load(&s->conf, NULL);
    assert_string_not_equal(keys_own(first)->kid, keys_own(second)->kid);
    keys_unref(first);
    keys_unref(second);
}

static void configured_keys_and_the_own_one_are_one_set(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct token t = {.aud = TOKEN_LINK, .sub = "demo", .exp = NOW + 10};
    struct state *s = *state;
    struct keys *k, *ref;
    struct err e;

    put_file(s->key, "0123456789abcdef0123456789abcdef\n", 0600);
    add_config_key(s, "hs", "acme");
    k = keys_load(&s->conf, &e);
    assert_non_null(k);
    assert_string_equal(token_keys_find(keys_tokens(k), "hs")->tenant, "acme");
    assert_int_equal(token_sign(keys_own(k), &t, &text, &e), 0);
    ref = keys_ref(k);
    keys_unref(k);
    assert_int_equal(
        token_verify(keys_tokens(ref), buf_span(&text), TOKEN_LINK, NOW, 60, &t, &e), 0);
    assert_string_equal(t.tenant, "");
    keys_unref(ref);
    keys_unref(NULL);
}

static void a_bad_key_file_is_named_with_its_place(void **state)
{
    struct state *s = *state;
    struct err e;

    add_config_key(s, "hs", "");
    assert_null(keys_load(&s->conf, &e));
    assert_int_equal(e.code, ERR_SYS);
    assert_memory_equal(e.msg, "keys[0]: open ", 14);
    put_file(s->key, "short", 0600);
    assert_null(keys_load(&s->conf, &e));
    assert_int_equal(e.code, ERR_CONFIG);
}

static void an_own_key_that_is_open_to_others_or_broken_is_refused(void **state)
{
    static const char PUBLIC_PEM[] =
        "-----BEGIN PUBLIC KEY-----\n"
        "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n";
    struct state *s = *state;
    struct err e;

    keys_unref(keys_load(&s->conf, NULL));
    assert_int_equal(chmod(s->own, 0640), 0);
    assert_null(keys_load(&s->conf, &e));
    assert_non_null(strstr(e.msg, "0640"));
    put_file(s->own, PUBLIC_PEM, 0600);
    assert_null(keys_load(&s->conf, &e));
    assert_non_null(strstr(e.msg, "public key only"));
    put_file(s->own, "", 0600);
    assert_null(keys_load(&s->conf, &e));
    assert_int_equal(unlink(s->own), 0);
    assert_int_equal(chmod(s->state_dir, 0777), 0);
    assert_null(keys_load(&s->conf, &e));
    assert_non_null(strstr(e.msg, "0777"));
}

static void a_state_dir_that_cannot_be_made_is_an_error(void **state)
{
    struct state *s = *state;
    char path[] = "/nonexistent/state";
    struct err e;

    s->conf.state_dir = path;
    assert_null(keys_load(&s->conf, &e));
    assert_int_equal(e.code, ERR_SYS);
    assert_non_null(strstr(e.msg, path));
}

static int load_once(const struct config *conf)
{
    struct err e;
    struct keys *k = keys_load(conf, &e);

    if (k == NULL)
        assert_int_equal(e.code, ERR_NOMEM);
    keys_unref(k);
    return k != NULL ? 0 : -1;
}

static void every_allocation_failure_is_clean(void **state)
{
    struct state *s = *state;

    put_file(s->key, "0123456789abcdef0123456789abcdef\n", 0600);
    add_config_key(s, "hs", "acme");
    keys_unref(keys_load(&s->conf, NULL));
    FAIL_EACH_ALLOC(load_once(&s->conf));
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIR(the_first_start_makes_a_private_key_and_the_next_keeps_it),
        WITH_DIR(two_servers_have_different_keys_and_ids),
        WITH_DIR(configured_keys_and_the_own_one_are_one_set),
        WITH_DIR(a_bad_key_file_is_named_with_its_place),
        WITH_DIR(an_own_key_that_is_open_to_others_or_broken_is_refused),
        WITH_DIR(a_state_dir_that_cannot_be_made_is_an_error),
        WITH_DIR(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("tunneld/keys", tests, NULL, NULL);
}
