/* SPDX-License-Identifier: MIT */
#include "tunneld/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"
#include "tests/support/test.h"

/* A file, and the faults of the last load as "place: rule" lines without the file's name. */
struct state {
    char path[40];
    struct buf faults;
};

static int set_up(void **state)
{
    struct state *s = calloc(1, sizeof(*s));
    int fd;

    assert_non_null(s);
    strcpy(s->path, "/tmp/test_config.XXXXXX");
    fd = mkstemp(s->path);
    assert_true(fd >= 0);
    (void)close(fd);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct state *s = *state;

    (void)unlink(s->path);
    buf_done(&s->faults);
    free(s);
    return 0;
}

static void keep_fault(void *arg, const char *place, const char *rule)
{
    struct state *s = arg;
    size_t n = strlen(s->path);

    assert_memory_equal(place, s->path, n);
    assert_int_equal(buf_addf(&s->faults, "%s: %s\n", place + n, rule), 0);
}

static struct config *load(struct state *s, const char *text)
{
    FILE *f = fopen(s->path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    s->faults.len = 0;
    return config_load(s->path, keep_fault, s);
}

static const char *faults(struct state *s)
{
    assert_int_equal(buf_add(&s->faults, "", 1), 0);
    s->faults.len--;
    return (const char *)s->faults.p;
}

static struct config *load_good(struct state *s, const char *text)
{
    struct config *c = load(s, text);

    if (c == NULL)
        fail_msg("%s", faults(s));
    return c;
}

#define TLS  "\"tls\":{\"cert\":\"c\",\"key\":\"k\"}"
#define BASE "\"domain\":\"p.example.com\",\"listen\":[\"127.0.0.1:443\"]," TLS

/* -- good ------------------------------------------------------------------------------ */

static void the_smallest_configuration_has_the_defaults(void **state)
{
    struct config *c = load_good(*state, "{" BASE "}");

    assert_string_equal(c->domain, "p.example.com");
    assert_string_equal(c->control_host, "p.example.com");
    assert_string_equal(c->public_scheme, "https");
    assert_int_equal(c->public_port, 0);
    assert_false(c->has_public_url);
    assert_int_equal(c->n_listen, 1);
    assert_true(c->listen[0].has_tls);
    assert_false(c->listen[0].has_proxy_protocol);
    assert_int_equal(c->admin_listen.len, 0);
    assert_string_equal(c->state_dir, "/var/lib/tunneld");
    assert_true(c->workers >= 1);
    assert_false(c->default_public);
    assert_false(c->log_json);
    assert_int_equal(c->log_level, LOG_INFO);
#define CONF_LIMIT(name, default_, min, max, unit, help)                                 \
    assert_int_equal(c->limits.name, default_);                                          \
    assert_in_range(c->limits.name, min, max);
#include "tunneld/config.def"
#undef CONF_LIMIT
    config_unref(c);
}

static void every_key_is_read(void **state)
{
    struct config *c = load_good(
        *state,
        "{\"domain\":\"P.Example.com.\",\"control_host\":\"c.example.net\","
        "\"public_url\":\"https://p.example.com:8443/\","
        "\"listen\":[\"0.0.0.0:443\",{\"address\":\"[::1]:8080\",\"tls\":false,"
        "\"proxy_protocol\":true}],"
        "\"redirect_listen\":[\"0.0.0.0:80\"],\"admin_listen\":\"unix:/run/t.sock\"," TLS
        ","
        "\"keys\":[{\"kid\":\"a\",\"alg\":\"EdDSA\",\"file\":\"a.pem\",\"tenant\":"
        "\"acme\"},"
        "{\"kid\":\"b\",\"alg\":\"HS256\",\"file\":\"b\"}],"
        "\"state_dir\":\"/s\",\"workers\":3,\"trusted_proxies\":[\"10.0.0.0/8\",\"::1\"],"
        "\"default_visibility\":\"public\",\"reserved_names\":[\"shop\",\"blog\"],"
        "\"limits\":{\"hold_ms\":0,\"body_bytes\":1152921504606846976},"
        "\"log\":{\"format\":\"json\",\"level\":\"debug\"}}");
    struct sock_addr in, out;

    assert_string_equal(c->domain, "p.example.com");
    assert_string_equal(c->control_host, "c.example.net");
    assert_true(c->has_public_url);
    assert_int_equal(c->public_port, 8443);
    assert_int_equal(c->n_listen, 2);
    assert_false(c->listen[1].has_tls);
    assert_true(c->listen[1].has_proxy_protocol);
    assert_int_equal(sock_port(&c->listen[1].addr), 8080);
    assert_int_equal(c->n_redirect, 1);
    assert_int_equal(c->admin_listen.u.sa.sa_family, AF_UNIX);
    assert_string_equal(c->tls_cert, "c");
    assert_string_equal(c->tls_key, "k");
    assert_int_equal(c->n_keys, 2);
    assert_string_equal(c->key[0].tenant, "acme");
    assert_int_equal(c->key[0].alg, TOKEN_EDDSA);
    assert_int_equal(c->key[1].alg, TOKEN_HS256);
    assert_string_equal(c->key[1].file, "b");
    assert_string_equal(c->state_dir, "/s");
    assert_int_equal(c->workers, 3);
    assert_true(c->default_public);
    assert_int_equal(c->n_reserved, 2);
    assert_string_equal(c->reserved_names[1], "blog");
    assert_int_equal(c->limits.hold_ms, 0);
    assert_true(c->limits.body_bytes == 1152921504606846976);
    assert_true(c->log_json);
    assert_int_equal(c->log_level, LOG_DEBUG);
    assert_int_equal(sock_parse("10.1.2.3:1", &in, NULL), 0);
    assert_int_equal(sock_parse("11.1.2.3:1", &out, NULL), 0);
    assert_true(config_trusts(c, &in));
    assert_false(config_trusts(c, &out));
    config_unref(c);
}

static void public_url_follows_the_first_tls_listener(void **state)
{
    static const struct {
        const char *listen, *scheme;
        int port;
    } rows[] = {
        {"\"127.0.0.1:443\"", "https", 0},
        {"\"127.0.0.1:8443\"", "https", 8443},
        {"{\"address\":\"127.0.0.1:80\",\"tls\":false},\"127.0.0.1:8443\"", "https",
         8443},
        {"{\"address\":\"127.0.0.1:80\",\"tls\":false}", "http", 0},
        {"{\"address\":\"127.0.0.1:8080\",\"tls\":false}", "http", 8080},
    };
    size_t i;

    for (i = 0; i < COUNT_OF(rows); i++) {
        char text[300];
        struct config *c;

        (void)snprintf(text, sizeof(text),
                       "{\"domain\":\"x.org\",\"listen\":[%s],"
                       "\"trusted_proxies\":[\"127.0.0.1\"]," TLS "}",
                       rows[i].listen);
        c = load_good(*state, text);
        assert_string_equal(c->public_scheme, rows[i].scheme);
        assert_int_equal(c->public_port, rows[i].port);
        config_unref(c);
    }
}

static void a_reference_keeps_it(void **state)
{
    struct config *c = load_good(*state, "{" BASE "}");
    struct config *same = config_ref(c);

    assert_ptr_equal(same, c);
    config_unref(c);
    assert_string_equal(same->domain, "p.example.com");
    config_unref(same);
    config_unref(NULL);
}

/* -- bad ------------------------------------------------------------------------------- */

static void a_fault_is_named_with_its_place(void **state)
{
    static const struct {
        const char *text, *fault;
    } bad[] = {
        {"", ": line 1: "},
        {"[]", ": must be an object\n"},
        {"{\n\"domain\": \"x\",\n}", ": line 3: "},
        {"{" BASE ",\"domain\":\"y\"}", ": line 1: duplicate"},
        {"{}", ": \"domain\" is missing\n: \"listen\" is missing\n"},
        {"{" BASE ",\n\"lisen\":1}",
         ":2: lisen: unknown key; the nearest is \"listen\"\n"},
        {"{" BASE ",\"qqqqqqqqqqqqqqqqqqqq\":1}",
         ":1: qqqqqqqqqqqqqqqqqqqq: unknown key\n"},
        {"{" BASE ",\"a\\u001b[31m\":1}", ": a?[31m: unknown key\n"},
        {"{" BASE ",\n\"limits\":{\n\"hold_s\":1}}",
         ":3: limits.hold_s: unknown key; the nearest is \"hold_ms\"\n"},
        {"{" BASE ",\"limits\":{\"hold_ms\":120001}}",
         ":1: limits.hold_ms: must be 0 to 120000\n"},
        {"{" BASE ",\"limits\":{\"hold_ms\":-1}}", "must be 0 to 120000\n"},
        {"{" BASE ",\"limits\":{\"hold_ms\":1.0}}",
         "limits.hold_ms: must be an integer\n"},
        {"{" BASE ",\"limits\":{\"hold_ms\":\"1\"}}",
         "limits.hold_ms: must be an integer\n"},
        {"{" BASE ",\"limits\":[]}", "limits: must be an object\n"},
        {"{" BASE ",\"workers\":257}", "workers: must be 0 to 256\n"},
        {"{" BASE ",\"workers\":null}", "workers: must be an integer\n"},
        {"{" BASE ",\"control_host\":\"x:1\"}", "control_host: must be a host name"},
        {"{" BASE ",\"control_host\":\"3000-a.p.example.com\"}",
         "control_host: is where a sandbox's previews would be\n"},
        {"{" BASE ",\"control_host\":\"0-a.p.example.com\"}", "control_host: is where"},
        {"{" BASE ",\"public_url\":\"p.example.com\"}", "public_url: must be https://"},
        {"{" BASE ",\"public_url\":\"ftp://p.example.com\"}",
         "public_url: must be https://"},
        {"{" BASE ",\"public_url\":\"https://p.example.com/x\"}", "public_url: must be"},
        {"{" BASE ",\"public_url\":\"https://u@p.example.com\"}", "public_url: must be"},
        {"{" BASE ",\"public_url\":\"https://p.example.com:0\"}", "public_url: must be"},
        {"{" BASE ",\"public_url\":\"https://q.example.com\"}",
         "public_url: its host must be that of \"domain\"\n"},
        {"{" BASE ",\"redirect_listen\":\"0.0.0.0:80\"}",
         "redirect_listen: must be an array"},
        {"{" BASE ",\"redirect_listen\":[\"127.0.0.1:443\"]}",
         ":1: redirect_listen[0]: 127.0.0.1:443 is listened on already\n"},
        {"{" BASE ",\"admin_listen\":\"127.0.0.1:443\"}",
         "admin_listen: 127.0.0.1:443 is listened on already\n"},
        {"{" BASE ",\"admin_listen\":\"localhost:1\"}", ":1: admin_listen: "},
        {"{" BASE ",\"admin_listen\":\"127.0.0.1\"}", ":1: admin_listen: "},
        {"{" BASE ",\"state_dir\":\"\"}", "state_dir: must not be empty\n"},
        {"{" BASE ",\"state_dir\":\"a\\nb\"}", "state_dir: holds a control character\n"},
        {"{" BASE ",\"trusted_proxies\":[\"10.0.0.0/33\"]}",
         "trusted_proxies[0]: must be"},
        {"{" BASE ",\"trusted_proxies\":[\"proxy\"]}", "trusted_proxies[0]: must be"},
        {"{" BASE ",\"default_visibility\":\"Public\"}",
         "default_visibility: must be \"private\" or \"public\"\n"},
        {"{" BASE ",\"reserved_names\":[\"A.b\"]}", "reserved_names[0]: "},
        {"{" BASE ",\"log\":{\"format\":\"xml\"}}", "log.format: must be \"text\" or"},
        {"{" BASE ",\"log\":{\"level\":\"trace\"}}", "log.level: must be err, warn"},
        {"{" BASE ",\"keys\":[{\"kid\":\"a\",\"alg\":\"none\",\"file\":\"f\"}]}",
         "keys[0].alg: must be \"EdDSA\" or \"HS256\"\n"},
        {"{" BASE ",\"keys\":[{\"kid\":\"a\",\"file\":\"f\"}]}",
         ":1: keys[0]: \"alg\" is missing\n"},
        {"{" BASE ",\"keys\":[{\"kid\":\"a\",\"alg\":\"HS256\",\"file\":\"f\"},"
         "{\"kid\":\"a\",\"alg\":\"HS256\",\"file\":\"g\"}]}",
         "keys[1].kid: keys[0] has the same id\n"},
        {"{" BASE ",\"keys\":[{\"kid\":\"server-x\",\"alg\":\"HS256\",\"file\":\"f\"}]}",
         "keys[0].kid: ids that start with \"server-\""},
        {"{" BASE ",\"keys\":[7]}", "keys[0]: must be an object\n"},
        {"{\"domain\":\"1.2.3.4\",\"listen\":[\"127.0.0.1:1\"]," TLS "}",
         "domain: must be a host name without a port\n"},
        {"{\"domain\":\"x\",\"listen\":[]," TLS "}", "listen: must not be empty\n"},
        {"{\"domain\":\"x\",\"listen\":[\"unix:/x\"]," TLS "}",
         "listen[0]: must be an address with a port\n"},
        {"{\"domain\":\"x\",\"listen\":[\"1.2.3.4:65536\"]," TLS "}", ":1: listen[0]: "},
        {"{\"domain\":\"x\",\"listen\":[{}]," TLS "}",
         "listen[0]: \"address\" is missing\n"},
        {"{\"domain\":\"x\",\"listen\":[{\"address\":\"1.2.3.4:1\",\"tls\":1}]," TLS "}",
         "listen[0].tls: must be true or false\n"},
        {"{\"domain\":\"x\",\"listen\":[{\"address\":\"1.2.3.4:1\",\"tls\":false}]}",
         "listen[0]: a listener without TLS is for trusted proxies only"},
        {"{\"domain\":\"x\",\"listen\":[{\"address\":\"1.2.3.4:1\","
         "\"proxy_protocol\":true}]," TLS "}",
         "listen[0]: a listener with PROXY protocol is for trusted proxies only"},
        {"{\"domain\":\"x\",\"listen\":[\"1.2.3.4:1\"]}",
         ": a listener with TLS needs \"tls\""},
        {"{\"domain\":\"x\",\"listen\":[\"1.2.3.4:1\"],\"tls\":{\"cert\":\"c\"}}",
         ":1: tls: \"key\" is missing\n"},
    };
    struct state *s = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(bad); i++) {
        if (load(s, bad[i].text) != NULL)
            fail_msg("taken: %s", bad[i].text);
        if (strstr(faults(s), bad[i].fault) == NULL)
            fail_msg("%s\nexpected: %s\ngot: %s", bad[i].text, bad[i].fault, faults(s));
    }
}

static void every_fault_is_told_not_only_the_first(void **state)
{
    struct state *s = *state;

    assert_null(
        load(s, "{\"domain\":1,\"listen\":[\"x\",\"y\"],\"zzz\":1,\"workers\":-1}"));
    assert_non_null(strstr(faults(s), ": domain: "));
    assert_non_null(strstr(faults(s), ": listen[0]: "));
    assert_non_null(strstr(faults(s), ": listen[1]: "));
    assert_non_null(strstr(faults(s), ": zzz: "));
    assert_non_null(strstr(faults(s), ": workers: "));
}

static void one_item_too_many_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct config *c;
    unsigned i;

    assert_int_equal(buf_adds(&text, "{" BASE ",\"trusted_proxies\":[\"::1\""), 0);
    for (i = 1; i < CONFIG_CIDR_MAX; i++)
        assert_int_equal(buf_adds(&text, ",\"::1\""), 0);
    assert_int_equal(buf_add(&text, "]}", 3), 0);
    c = load_good(*state, (const char *)text.p);
    assert_int_equal(c->n_trusted, CONFIG_CIDR_MAX);
    config_unref(c);
    text.len -= 3;
    assert_int_equal(buf_add(&text, ",\"::1\"]}", 9), 0);
    assert_null(load(*state, (const char *)text.p));
    assert_non_null(strstr(faults(*state), "trusted_proxies: has more than 64 items\n"));
}

static void a_missing_file_is_a_fault(void **state)
{
    struct state *s = *state;

    (void)unlink(s->path);
    assert_null(config_load(s->path, keep_fault, s));
    assert_non_null(strstr(faults(s), ": open "));
}

/* -- reload ---------------------------------------------------------------------------- */

static void a_reload_names_what_it_cannot_change(void **state)
{
    static const struct {
        const char *text, *key;
    } rows[] = {
        {"{" BASE "}", NULL},
        {"{\"domain\":\"p.example.com\",\"listen\":[\"127.0.0.1:443\"],"
         "\"tls\":{\"cert\":\"other\",\"key\":\"other\"},"
         "\"keys\":[{\"kid\":\"a\",\"alg\":\"EdDSA\",\"file\":\"f\"}],"
         "\"limits\":{\"hold_ms\":1},\"log\":{\"level\":\"err\"},"
         "\"trusted_proxies\":[\"::1\"]}",
         NULL},
        {"{\"domain\":\"q.example.com\",\"listen\":[\"127.0.0.1:443\"]," TLS "}",
         "domain"},
        {"{" BASE ",\"control_host\":\"c.org\"}", "control_host"},
        {"{\"domain\":\"p.example.com\",\"listen\":[\"127.0.0.1:444\"]," TLS "}",
         "listen"},
        {"{\"domain\":\"p.example.com\",\"listen\":[\"127.0.0.1:443\",\"127.0.0.1:444\"]"
         "," TLS "}",
         "listen"},
        {"{\"domain\":\"p.example.com\",\"trusted_proxies\":[\"::1\"],\"listen\":["
         "{\"address\":\"127.0.0.1:443\",\"proxy_protocol\":true}]," TLS "}",
         "listen"},
        {"{" BASE ",\"public_url\":\"https://p.example.com:1\"}", "public_url"},
        {"{" BASE ",\"redirect_listen\":[\"127.0.0.1:80\"]}", "redirect_listen"},
        {"{" BASE ",\"admin_listen\":\"127.0.0.1:80\"}", "admin_listen"},
        {"{" BASE ",\"state_dir\":\"/x\"}", "state_dir"},
        {"{" BASE ",\"workers\":255}", "workers"},
        {"{" BASE ",\"default_visibility\":\"public\"}", "default_visibility"},
        {"{" BASE ",\"reserved_names\":[\"shop\"]}", "reserved_names"},
    };
    struct config *old = load_good(*state, "{" BASE "}");
    size_t i;

    for (i = 0; i < COUNT_OF(rows); i++) {
        struct config *c = load_good(*state, rows[i].text);
        const char *key = config_fixed_change(old, c);

        if (rows[i].key == NULL)
            assert_null(key);
        else
            assert_string_equal(key, rows[i].key);
        config_unref(c);
    }
    config_unref(old);
}

/* -- memory ---------------------------------------------------------------------------- */

static void ignore_fault(void *arg, const char *place, const char *rule)
{
    (void)arg;
    (void)place;
    (void)rule;
}

static int load_once(const char *path)
{
    struct config *c = config_load(path, ignore_fault, NULL);

    config_unref(c);
    return c != NULL ? 0 : -1;
}

static void every_allocation_failure_is_clean(void **state)
{
    struct state *s = *state;

    config_unref(load_good(s, "{" BASE ",\"keys\":[{\"kid\":\"a\",\"alg\":\"EdDSA\","
                              "\"file\":\"f\"}],\"reserved_names\":[\"shop\"]}"));
    FAIL_EACH_ALLOC(load_once(s->path));
}

#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FILE(the_smallest_configuration_has_the_defaults),
        WITH_FILE(every_key_is_read),
        WITH_FILE(public_url_follows_the_first_tls_listener),
        WITH_FILE(a_reference_keeps_it),
        WITH_FILE(a_fault_is_named_with_its_place),
        WITH_FILE(every_fault_is_told_not_only_the_first),
        WITH_FILE(one_item_too_many_is_refused),
        WITH_FILE(a_missing_file_is_a_fault),
        WITH_FILE(a_reload_names_what_it_cannot_change),
        WITH_FILE(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("tunneld/config", tests, NULL, NULL);
}
