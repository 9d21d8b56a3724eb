/* SPDX-License-Identifier: MIT */
/* agentd egress run (agentd(8)). */
#include <string.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/keeper/run.h"
#include "agentd/egress/tell.h"

int cmd_run(int argc, char **argv)
{
    struct run_conf c = {0};
    const struct cmd_option takes[] = {
        {.name = "--policy", .value = &c.policy},
        {.name = "--name", .value = &c.name},
        {.name = "--audit", .value = &c.audit},
        {.name = "--bind", .value = c.bind, .n = &c.n_bind, .max = COUNT_OF(c.bind)},
        {.name = "--up", .is_set = &c.up},
    };
    int at = cmd_options(argc, argv, 1, takes, COUNT_OF(takes));

    if (at < 0)
        return EXIT_USAGE;
    if (at < argc && !strcmp(argv[at], "--"))
        at++;
    if (!c.policy) {
        tell(argv[0], "--policy FILE is needed: a file, or the name of a preset");
        return EXIT_USAGE;
    }
    if (at >= argc) {
        tell(argv[0], "COMMAND is needed, after --");
        return EXIT_USAGE;
    }
    c.command = argv + at;
    return run_main(&c);
}
