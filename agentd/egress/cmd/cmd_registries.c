/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/policy/registries.h"
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
    int rc = 1;

    if (argc > 1) {
        (void)fprintf(stderr,
                      "agentd egress registries: takes no arguments, not \"%.40s\"\n",
                      argv[1]); /* nowhere else to say it */
        mem_free(r);
        return 2;
    }
    if (!r || registries_search(&machine, r, &e) < 0) {
        (void)fprintf(stderr, "agentd egress registries: %s\n", e.msg);
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
    rc = 0;
end:
    mem_free(r);
    return rc;
}
