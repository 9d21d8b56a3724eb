/* SPDX-License-Identifier: MIT */
#include "agentd/egress/egress.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/tell.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *usage; /* NULL: not for people */
} commands[] = {
    {"run", cmd_run,
     "--policy FILE [--name ID] [--audit FILE] [--bind PATH]... [--up] -- COMMAND..."},
    {"serve", cmd_serve,
     "[--socket PATH] [--state DIR] [--audit FILE] [--log-format text|json] "
     "[--log-level LEVEL]"},
    {"attach", cmd_attach,
     "--policy FILE (--pid N | --netns PATH) [--iface VETH] [--name ID] [--socket PATH]"},
    {"detach", cmd_detach, "--name ID [--socket PATH]"},
    {"status", cmd_status, "[--name ID] [--json] [--socket PATH]"},
    {"reload", cmd_reload, "--name ID --policy FILE [--socket PATH]"},
    {"check", cmd_check, "FILE"},
    {"explain", cmd_explain, "--policy FILE [TARGET...]"},
    {"registries", cmd_registries, ""},
    {"hook", cmd_hook, "[--socket PATH] (an OCI createRuntime hook: the state on stdin)"},
    {"runtime", cmd_runtime,
     "[--policy FILE] [--tier TIER] [--runtime PATH] [--socket PATH] "
     "RUNTIME-ARGUMENTS..."},
    {"guard", cmd_guard, NULL},
};

enum {
    COMMANDS = sizeof commands / sizeof commands[0]
};

static int usage_line(FILE *out, size_t i)
{
    return fprintf(out, "  agentd egress %s%s%s\n", commands[i].name,
                   *commands[i].usage ? " " : "", commands[i].usage);
}

static int usage(FILE *out)
{
    int rc = fputs("usage:\n", out);

    for (size_t i = 0; i < COMMANDS && rc >= 0; i++)
        if (commands[i].usage)
            rc = usage_line(out, i);
    return rc < 0 || fflush(out) != 0 ? EXIT_FAIL : EXIT_DONE;
}

static bool is_help(const char *word)
{
    return !strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h");
}

static int run(size_t i, int argc, char **argv)
{
    /* What `runtime` is given is the engine's runtime's. */
    if (argc == 2 && argv[1][0] == '-' && is_help(argv[1]) && commands[i].usage &&
        commands[i].run != cmd_runtime)
        return usage_line(stdout, i) < 0 || fflush(stdout) != 0 ? EXIT_FAIL : EXIT_DONE;
    return commands[i].run(argc, argv);
}

int egress_main(int argc, char **argv)
{
    if (argc < 2) {
        (void)usage(stderr); /* nowhere else to say it */
        return EXIT_USAGE;
    }
    if (is_help(argv[1]))
        return usage(stdout);
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name))
            return run(i, argc - 1, argv + 1);
    (void)fprintf(stderr, "agentd egress: no command \"%.40s\"; see agentd egress help\n",
                  argv[1]); /* nowhere else to say it */
    return EXIT_USAGE;
}
