/* SPDX-License-Identifier: MIT */
/* What is wrong is said before anything is made: each of these ends with 2, starts
 * nothing, and names the thing on stderr. What runs is tested end to end. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "common/cdefs.h"
#include "tests/support/test.h"

enum {
    WORDS = 70,
    SAID = 4096
};

/* Run it, with stderr caught in *ret. */
static int run(const char *const *words, char ret[SAID])
{
    char *argv[2 * WORDS + 4];
    int argc = 0, old = dup(2), said[2], code;
    ssize_t n;

    argv[argc++] = (char[]){"run"};
    while (*words)
        argv[argc++] = (char *)(uintptr_t)*words++;
    argv[argc] = NULL;
    assert_int_equal(pipe2(said, O_CLOEXEC | O_NONBLOCK), 0);
    assert_true(dup2(said[1], 2) == 2);
    code = cmd_run(argc, argv);
    assert_true(dup2(old, 2) == 2);
    n = read(said[0], ret, SAID - 1);
    ret[n > 0 ? n : 0] = '\0';
    (void)close(old);
    (void)close(said[0]);
    (void)close(said[1]);
    return code;
}

#define COMMAND "--", "/bin/echo", "STARTED"

static void wrong_usage_is_named(void **state)
{
    static const struct {
        const char *words[10];
        const char *names;
    } bad[] = {
        {{NULL}, "--policy"},
        {{"--policy", "full-isolation"}, "COMMAND"},
        {{"--policy", "full-isolation", "--"}, "COMMAND"},
        {{"--policy"}, "--policy needs a value"},
        {{"--policy=", COMMAND}, "--policy needs a value"},
        {{"--policy=full-isolation", "--policy=build", COMMAND},
         "--policy is given twice"},
        {{"--polic", "x", COMMAND}, "--polic is no option"},
        {{"--upp", COMMAND}, "--upp is no option"},
        {{"-p", COMMAND}, "-p is no option"},
        {{"--policy=full-isolation", "--name=a", "--name=b", COMMAND},
         "--name is given twice"},
        {{"--policy=full-isolation", "--name=a--b", COMMAND}, "\"a--b\" is no"},
        {{"--policy=full-isolation", "--name=Box", COMMAND}, "\"Box\" is no"},
        {{"--policy=full-isolation", "--name=../x", COMMAND}, "\"../x\" is no"},
        {{"--policy=full-isolation", "--bind", "/no/such", COMMAND}, "/no/such"},
        {{"--policy=/no/such/policy", COMMAND}, "/no/such/policy"},
        {{"--policy=full-isolation", "--up", COMMAND},
         "--up: no server: set TUNNEL_SERVER in"},
    };
    char said[SAID];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        if (run(bad[i].words, said) != 2 || !strstr(said, bad[i].names))
            fail_msg("row %zu: %s", i, said);
    }
}

/* `run` has no options of the agent's, so none is advised. */
static void what_the_agent_lacks_is_named_as_it_is_called_here(void **state)
{
    const char *words[] = {"--policy=full-isolation", "--up", COMMAND, NULL};
    char said[SAID];

    (void)state;
    assert_int_equal(run(words, said), 2);
    assert_non_null(strstr(said, "TUNNEL_SERVER"));
    assert_null(strstr(said, "--server"));
    (void)setenv("TUNNEL_SERVER", "https://tunnel.example", 1);
    assert_int_equal(run(words, said), 2);
    assert_non_null(
        strstr(said, "--up: no token: set TUNNEL_TOKEN_FILE or TUNNEL_TOKEN"));
    assert_null(strstr(said, "--token-file"));
    (void)setenv("TUNNEL_TOKEN", "no token", 1);
    assert_int_not_equal(run(words, said), 0);
    assert_non_null(strstr(said, "TUNNEL_SANDBOX"));
    assert_null(strstr(said, "STARTED"));
    (void)unsetenv("TUNNEL_TOKEN");
    (void)unsetenv("TUNNEL_SERVER");
}

static void binds_are_bounded(void **state)
{
    const char *words[2 * WORDS + 2] = {NULL};
    char said[SAID];
    size_t i;

    (void)state;
    for (i = 0; i < 65; i++) {
        words[2 * i] = "--bind";
        words[2 * i + 1] = "/";
    }
    assert_int_equal(run(words, said), 2);
    assert_non_null(strstr(said, "more than 64"));
}

static void an_engines_socket_is_refused(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char folder[] = "/tmp/egress-run-XXXXXX", said[SAID];
    const char *words[] = {"--policy=full-isolation", "--bind", a.sun_path, COMMAND,
                           NULL};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s/docker.sock", folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(run(words, said), 2);
    assert_non_null(strstr(said, "docker.sock"));
    (void)close(fd);
    assert_int_equal(unlink(a.sun_path), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void an_audit_file_that_cannot_be_opened_ends_it(void **state)
{
    const char *words[] = {"--policy=full-isolation", "--audit=/no/such/folder/x",
                           COMMAND, NULL};
    char said[SAID];

    (void)state;
    assert_int_equal(run(words, said), 1);
    assert_non_null(strstr(said, "--audit"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_is_named),
        cmocka_unit_test(what_the_agent_lacks_is_named_as_it_is_called_here),
        cmocka_unit_test(binds_are_bounded),
        cmocka_unit_test(an_engines_socket_is_refused),
        cmocka_unit_test(an_audit_file_that_cannot_be_opened_ends_it),
    };

    (void)unsetenv("TUNNEL_SERVER");
    (void)unsetenv("TUNNEL_SANDBOX");
    (void)unsetenv("TUNNEL_TOKEN_FILE");
    (void)unsetenv("TUNNEL_TOKEN");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
