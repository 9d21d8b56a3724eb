/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/oci_args.h"

#include "tests/support/test.h"

#include <string.h>

#define WORDS 16

/* The command line as engines write it, one word after the other. */
static int read_line(const char *line, struct oci_args *ret, struct err *e)
{
    static char text[256];
    char *argv[WORDS];
    int argc = 0;

    assert_true(strlen(line) < sizeof text);
    memcpy(text, line, strlen(line) + 1);
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " "))
        argv[argc++] = p;
    return oci_args_read(argc, argv, ret, e);
}

static void the_command_and_the_bundle_are_found(void **state)
{
    static const struct {
        const char *line;
        const char *bundle; /* NULL: no container begins */
    } good[] = {
        {"--root /r --log /l --log-format json create --bundle /b --pid-file /p ID",
         "/b"},
        {"--root=/r --systemd-cgroup create -b /b ID", "/b"},
        {"create ID", "."},
        {"run --bundle=/b=c ID", "/b=c"},
        {"-root /r run -bundle /b -d --keep ID", "/b"},
        {"--log create run -b /b ID", "/b"}, /* a value that looks like a command */
        {"--log create state ID", NULL},
        {"run --console-socket create --bundle /b ID", "/b"},
        {"create --no-pivot --preserve-fds 3 --bundle /a --bundle /b ID", "/b"},
        {"--debug --cgroup-manager cgroupfs run ID", "."},
        {"start ID", NULL},
        {"exec --process /p -d ID", NULL},
        {"kill --all ID 9", NULL},
        {"delete --force ID", NULL},
        {"--version", NULL},
        {"-v", NULL},
        {"features", NULL},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct oci_args a;
        struct err e;

        if (read_line(good[i].line, &a, &e) < 0)
            fail_msg("%s: %s", good[i].line, e.msg);
        if (a.starts != (good[i].bundle != NULL) ||
            (a.starts && strcmp(a.bundle, good[i].bundle) != 0))
            fail_msg("%s: starts %d, bundle %s", good[i].line, a.starts, a.bundle);
    }
}

static void what_could_hide_a_container_is_refused(void **state)
{
    static const struct {
        const char *line;
        const char *says;
    } bad[] = {
        {"--new-option create create ID", "not known"},
        {"--roo /r create ID", "not known"},
        {"create --config /other ID", "not known"},
        {"create -b/b ID", "not known"},
        {"create --bundle", "no value"},
        {"--root", "no value"},
        {"create --bundle= ID", "no name"},
        {"-- create ID", "no option"},
        {"create -- ID", "no option"},
        /* runc reads options after the id as well. */
        {"create ID --bundle /b", "after the container's id"},
        {"run -b /b ID -b /c", "after the container's id"},
        {"restore --bundle /b ID", "restored"},
        {"--root /r restore ID", "restored"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct oci_args a;
        struct err e;

        if (read_line(bad[i].line, &a, &e) == 0)
            fail_msg("taken: %s", bad[i].line);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: says \"%s\"", bad[i].line, e.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_command_and_the_bundle_are_found),
        cmocka_unit_test(what_could_hide_a_container_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
