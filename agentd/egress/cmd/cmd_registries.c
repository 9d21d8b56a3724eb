/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/policy/registries.h"
#include "agentd/egress/tell.h"
#include "common/mem.h"

static const char *from_env(const char *name)
{
    return getenv(name);
}

int cmd_registries(int argc, char **argv)
{
    const struct registries_machine machine = {"", from_env};
    struct registries *r = mem_zalloc(1, sizeof *r);
    struct err e = {.msg = "no memory"};
    int rc = EXIT_FAIL;

    if (argc > 1) {
        tell(argv[0], "takes no arguments, not \"%.40s\"", argv[1]);
        mem_free(r);
        return EXIT_USAGE;
    }
    if (!r || registries_search(&machine, r, &e) < 0) {
        tell(argv[0], "%s", e.msg);
        goto end;
    }
    for (size_t i = 0; i < r->n; i++)
        if (printf("%-6s %s:%u  %s\n", r->at[i].client, r->at[i].host, r->at[i].port,
                   r->at[i].from) < 0)
            goto end;
    if (fflush(stdout) != 0)
        goto end;
    if (r->n == 0)
        (void)fputs("no package client of this machine names a registry\n", stderr);
    rc = EXIT_DONE;
end:
    mem_free(r);
    return rc;
}
