/* SPDX-License-Identifier: MIT */
#include "agentd/options.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/options_file.h"
#include "common/cdefs.h"
#include "tests/support/test.h"

/* The environment of a test: pairs, ended by NULL. */
static const char *const *env_pairs;

static const char *env(const char *name)
{
    const char *const *p;

    for (p = env_pairs; p && p[0]; p += 2) {
        if (strcmp(p[0], name) == 0)
            return p[1];
    }
    return NULL;
}

#define ARGS_MAX 12
static int load(struct options *o, const char *line, struct err *e)
{
    static char copy[512]; /* arguments are not const in main() */
    char *argv[ARGS_MAX + 1] = {NULL}, *save = NULL, *word;
    int argc = 0;

    (void)snprintf(copy, sizeof copy, "agentd %s", line);
    for (word = strtok_r(copy, " ", &save); word && argc < ARGS_MAX;
         word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    return options_load(o, argc, argv, env, e);
}

static struct options o; /* 25 KiB: not for the stack of each test */

static int setup(void **state)
{
    (void)state;
    env_pairs = NULL;
    memset(&o, 0, sizeof o);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    options_done(&o);
    return 0;
}

static void commands_are_recognised(void **state)
{
    static const struct {
        const char *line;
        enum options_command want;
    } row[] = {
        {"", OPTIONS_UP},
        {"up", OPTIONS_UP},
        {"--json", OPTIONS_UP},
        {"up --json --once --pid 1", OPTIONS_UP},
        {"--once up", OPTIONS_UP},
        {"http 3000", OPTIONS_HTTP},
        {"http --public 3000 --name shop", OPTIONS_HTTP},
        {"ports", OPTIONS_PORTS},
        {"ports --json", OPTIONS_PORTS},
        {"doctor", OPTIONS_DOCTOR},
        {"version", OPTIONS_VERSION},
        {"--version", OPTIONS_VERSION},
        {"help", OPTIONS_HELP},
        {"--help", OPTIONS_HELP},
        {"-h", OPTIONS_HELP},
        {"http --help", OPTIONS_HELP},
    };
    struct err e;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(row); i++) {
        if (load(&o, row[i].line, &e) < 0)
            fail_msg("%s: %s", row[i].line, e.msg);
        assert_int_equal(o.command, row[i].want);
        options_done(&o);
    }
}

static void wrong_usage_is_refused_with_a_sentence(void **state)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"--token abc", "never an argument"},
        {"--token=abc", "never an argument"},
        {"up --token", "never an argument"},
        {"share 3000", "later version"},
        {"tcp 22", "later version"},
        {"forward demo:3000 8000", "later version"},
        {"frobnicate", "no command"},
        {"up up", "nothing more"},
        {"up 3000", "nothing more"},
        {"http", "needs a port"},
        {"http 0", "needs a port"},
        {"http 65536", "needs a port"},
        {"http 03000", "needs a port"},
        {"http +80", "needs a port"},
        {"http abc", "needs a port"},
        {"http 3000 4000", "nothing more"},
        {"http 3000 --name www", "cannot be a name"},
        {"http 3000 --name 3000-x", "cannot be a name"},
        {"http 3000 --name a_b", "cannot be a name"},
        {"up --name shop", "does not go with up"},
        {"--public", "does not go with up"},
        {"ports --once", "does not go with ports"},
        {"--bogus", "no option"},
        {"-x", "no option"},
        {"--serve https://x", "no option"},
        {"--server", "needs a value"},
        {"--server=", "needs a value"},
        {"--json=1", "takes no value"},
        {"--json --json", "twice"},
        {"--sandbox a--b", "sandbox id"},
        {"--sandbox -a", "sandbox id"},
        {"--ports 0", "list of ports"},
        {"--ports 80,", "list of ports"},
        {"--ports 9000-8000", "list of ports"},
        {"--exclude http", "list of ports"},
        {"--proxy squid:3128", "must be a URL"},
        {"--log-format xml", "text or json"},
        {"--log-level loud", "must be err"},
        {"--netns /x --pid 1", "give one"},
        {"--pid 0", "no process id"},
        {"--pid 1x", "no process id"},
        {"--pid 99999999999", "no process id"},
    };
    struct err e;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        memset(&e, 0, sizeof e);
        if (load(&o, bad[i].line, &e) == 0)
            fail_msg("accepted: %s", bad[i].line);
        assert_int_equal(e.code, ERR_CONFIG);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: %s", bad[i].line, e.msg);
        assert_null(strstr(e.msg, "abc\"")); /* a token given by mistake */
    }
}

static void a_token_given_by_mistake_is_not_repeated(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(load(&o, "--token=eyJsecret", &e), -1);
    assert_null(strstr(e.msg, "eyJ"));
    assert_int_equal(load(&o, "--token eyJsecret", &e), -1);
    assert_null(strstr(e.msg, "eyJ"));
}

static char file_path[64];

static void write_file(const char *text)
{
    int fd;

    memcpy(file_path, "/tmp/test_options.XXXXXX", 25);
    fd = mkstemp(file_path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static void a_flag_beats_the_environment_and_that_the_file(void **state)
{
    static const char *const pairs[] = {
        "TUNNEL_SERVER", "https://env", "TUNNEL_SANDBOX", "env", "TUNNEL_TOKEN",
        "tok",           NULL};
    char line[256];
    struct err e = {0};

    (void)state;
    write_file("{\"server\":\"https://file\",\"sandbox\":\"file\",\"token_file\":\"/f\","
               "\"ca_file\":\"/ca\",\"ports\":\"1\"}");
    (void)snprintf(line, sizeof line, "-c %s", file_path);
    assert_int_equal(load(&o, line, &e), 0);
    assert_string_equal(o.server, "https://file");
    assert_string_equal(o.token_file, "/f");
    assert_string_equal(o.proxy, "env");
    options_done(&o);

    env_pairs = pairs;
    assert_int_equal(load(&o, line, &e), 0);
    assert_string_equal(o.server, "https://env");
    assert_string_equal(o.id, "env");
    assert_null(o.token_file);
    assert_true(span_eq(secret_span(&o.token), span_str("tok")));
    assert_string_equal(o.ca_file, "/ca");
    options_done(&o);

    (void)snprintf(line, sizeof line,
                   "-c %s --server https://flag --sandbox FLAG --token-file /g --ports 2",
                   file_path);
    assert_int_equal(load(&o, line, &e), 0);
    assert_string_equal(o.server, "https://flag");
    assert_string_equal(o.id, "flag");
    assert_string_equal(o.token_file, "/g");
    assert_int_equal(o.token.len, 0);
    assert_true(port_list_has(&o.ports, 2) && !port_list_has(&o.ports, 1));
    (void)unlink(file_path);
}

static void an_empty_variable_is_as_good_as_none(void **state)
{
    static const char *const pairs[] = {
        "TUNNEL_SERVER", "", "TUNNEL_TOKEN_FILE", "", "TUNNEL_TOKEN", "t", NULL};

    (void)state;
    env_pairs = pairs;
    assert_int_equal(load(&o, "up", NULL), 0);
    assert_null(o.server);
    assert_null(o.token_file);
    assert_int_equal(o.token.len, 1);
}

static void a_file_that_is_missing_is_named(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(load(&o, "-c /nonexistent/agentd.json", &e), -1);
    assert_non_null(strstr(e.msg, "/nonexistent/agentd.json"));
}

static void every_key_of_the_file_is_read(void **state)
{
    static const char text[] =
        "{\"server\":\"https://d\",\"sandbox\":\"Demo\",\"token_file\":\"/t\","
        "\"ca_file\":\"/c\",\"proxy\":\"none\",\"ports\":[3000,\"8000-8999\"],"
        "\"exclude\":\"22\",\"public\":[3000],\"names\":{\"3000\":\"shop\"},"
        "\"host_mode\":{\"3000\":\"preserve\",\"4000\":\"localhost\"},"
        "\"sockets\":{\"5000\":\"/run/app.sock\"},"
        "\"log\":{\"format\":\"json\",\"level\":\"debug\"}}";
    const struct options_port *p;

    (void)state;
    assert_int_equal(options_file_parse(&o, span_str(text), NULL), 0);
    assert_string_equal(o.id, "demo");
    assert_true(o.has_ports);
    assert_true(port_list_has(&o.ports, 3000) && port_list_has(&o.ports, 8500));
    assert_true(port_list_has(&o.exclude, 22));
    p = options_port(&o, 3000);
    assert_non_null(p);
    assert_true(p->is_public);
    assert_string_equal(p->name, "shop");
    assert_int_equal(p->host_mode, CONTROL_PRESERVE);
    p = options_port(&o, 5000);
    assert_non_null(p);
    assert_string_equal(p->socket, "/run/app.sock");
    assert_false(p->is_public);
    assert_null(options_port(&o, 3001));
    assert_true(o.log_json);
    assert_int_equal(o.log_level, LOG_DEBUG);
}

static void faults_of_the_file_name_their_key(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"[]", "must hold an object"},
        {"{\"servr\":\"x\"}", "servr"},
        {"{\"token\":\"x\"}", "token_file"},
        {"{\"server\":1}", "server"},
        {"{\"server\":\"\"}", "server"},
        {"{\"server\":\"a\",\"server\":\"b\"}", "line"},
        {"{\"sandbox\":\"a b\"}", "sandbox"},
        {"{\"proxy\":\"squid\"}", "proxy"},
        {"{\"ports\":[0]}", "ports"},
        {"{\"ports\":[65536]}", "ports"},
        {"{\"ports\":[\"1,2\"]}", "ports"},
        {"{\"ports\":[1.5]}", "ports"},
        {"{\"ports\":{}}", "ports"},
        {"{\"exclude\":\"x\"}", "exclude"},
        {"{\"public\":\"3000\"}", "public"},
        {"{\"public\":[\"3000\"]}", "public"},
        {"{\"public\":[0]}", "public"},
        {"{\"names\":{\"03000\":\"a\"}}", "names"},
        {"{\"names\":{\"3000\":\"api\"}}", "names"},
        {"{\"names\":{\"3000\":1}}", "names"},
        {"{\"host_mode\":{\"3000\":\"keep\"}}", "host_mode"},
        {"{\"sockets\":{\"3000\":\"app.sock\"}}", "sockets"},
        {"{\"log\":{\"colour\":\"x\"}}", "colour"},
        {"{\"log\":{\"level\":\"loud\"}}", "level"},
        {"{\"log\":\"json\"}", "log"},
        {"{", "line"},
        {"", "line"},
    };
    struct err e;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        memset(&e, 0, sizeof e);
        if (options_file_parse(&o, span_str(bad[i].text), &e) == 0)
            fail_msg("accepted: %s", bad[i].text);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: %s", bad[i].text, e.msg);
        options_done(&o);
    }
}

static void a_path_longer_than_a_socket_address_is_refused(void **state)
{
    char text[256], path[160];

    (void)state;
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[107] = '\0'; /* 107 bytes: fits with its end */
    (void)snprintf(text, sizeof text, "{\"sockets\":{\"1\":\"%s\"}}", path);
    assert_int_equal(options_file_parse(&o, span_str(text), NULL), 0);
    path[107] = 'a';
    path[108] = '\0';
    (void)snprintf(text, sizeof text, "{\"sockets\":{\"1\":\"%s\"}}", path);
    assert_int_equal(options_file_parse(&o, span_str(text), NULL), -1);
}

static void what_a_reload_cannot_change_is_named(void **state)
{
    struct options *n = mem_zalloc(1, sizeof *n);

    (void)state;
    assert_non_null(n);
    assert_int_equal(load(&o, "--server https://a --ports 1", NULL), 0);
    assert_int_equal(load(n, "--server https://a --ports 2 --exclude 3", NULL), 0);
    assert_null(options_fixed_change(&o, n));
    options_done(n);
    assert_int_equal(load(n, "--server https://b", NULL), 0);
    assert_string_equal(options_fixed_change(&o, n), "server");
    options_done(n);
    assert_int_equal(load(n, "--server https://a --ca-file /x", NULL), 0);
    assert_string_equal(options_fixed_change(&o, n), "ca_file");
    options_done(n);
    mem_free(n);
}

static int load_all(void)
{
    static const char *const pairs[] = {"TUNNEL_TOKEN", "t", NULL};
    char line[256];

    env_pairs = pairs;
    (void)snprintf(line, sizeof line, "-c %s --server https://d --netns /n", file_path);
    if (load(&o, line, NULL) < 0)
        return -1;
    options_done(&o);
    return 0;
}

static void no_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    write_file("{\"sandbox\":\"x\",\"sockets\":{\"1\":\"/a\",\"2\":\"/b\"}}");
    FAIL_EACH_ALLOC(load_all());
    (void)unlink(file_path);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(commands_are_recognised),
        T(wrong_usage_is_refused_with_a_sentence),
        T(a_token_given_by_mistake_is_not_repeated),
        T(a_flag_beats_the_environment_and_that_the_file),
        T(an_empty_variable_is_as_good_as_none),
        T(a_file_that_is_missing_is_named),
        T(every_key_of_the_file_is_read),
        T(faults_of_the_file_name_their_key),
        T(a_path_longer_than_a_socket_address_is_refused),
        T(what_a_reload_cannot_change_is_named),
        T(no_memory_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
