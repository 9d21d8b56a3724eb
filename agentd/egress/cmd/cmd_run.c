/* SPDX-License-Identifier: MIT */
/* agentd egress run (agentd(8)). */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/keeper/run.h"
#include "common/cdefs.h"

enum {
    EXIT_USAGE = 2
};

static int wrong(const char *what, const char *rule)
{
    (void)fprintf(stderr, "agentd egress run: %.100s %s\n", what,
                  rule); /* nowhere else */
    return -1;
}

/* 1: it is `name`, and *ret its value; 0: another; -1: its value is missing (said). */
static int option(int argc, char **argv, int *at, const char *name, const char **ret)
{
    size_t n = strlen(name);

    if (strncmp(argv[*at], name, n) != 0)
        return 0;
    if (argv[*at][n] == '=') {
        *ret = argv[*at] + n + 1;
    } else if (argv[*at][n] == '\0') {
        if (*at + 1 >= argc)
            return wrong(name, "needs a value");
        *ret = argv[++*at];
    } else {
        return 0;
    }
    return **ret == '\0' ? wrong(name, "needs a value") : 1;
}

static int once(const char **place, const char *value, const char *name)
{
    if (*place)
        return wrong(name, "is given twice");
    *place = value;
    return 0;
}

static int read_one(int argc, char **argv, int *at, struct run_conf *c)
{
    const struct {
        const char *name;
        const char **place;
    } single[] = {{"--policy", &c->policy}, {"--name", &c->name}, {"--audit", &c->audit}};
    const char *value = NULL;
    size_t i;
    int r;

    if (!strcmp(argv[*at], "--up")) {
        c->up = true;
        return 0;
    }
    for (i = 0; i < COUNT_OF(single); i++) {
        r = option(argc, argv, at, single[i].name, &value);
        if (r != 0)
            return r < 0 ? -1 : once(single[i].place, value, single[i].name);
    }
    r = option(argc, argv, at, "--bind", &value);
    if (r == 0)
        return wrong(argv[*at], "is no option; see agentd egress help");
    if (r < 0)
        return -1;
    if (c->n_bind == COUNT_OF(c->bind))
        return wrong("--bind", "is given more than 64 times");
    c->bind[c->n_bind++] = value;
    return 0;
}

int cmd_run(int argc, char **argv)
{
    struct run_conf c = {0};
    int i;

    for (i = 1; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0; i++)
        if (read_one(argc, argv, &i, &c) < 0)
            return EXIT_USAGE;
    if (i < argc && !strcmp(argv[i], "--"))
        i++;
    if (!c.policy) {
        (void)wrong("--policy FILE", "is needed: a file, or the name of a preset");
        return EXIT_USAGE;
    }
    if (i >= argc) {
        (void)wrong("COMMAND", "is needed, after --");
        return EXIT_USAGE;
    }
    c.command = argv + i;
    return run_main(&c);
}
