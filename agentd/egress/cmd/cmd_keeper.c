/* SPDX-License-Identifier: MIT */
#include "agentd/egress/cmd/cmd_keeper.h"

#include <stdio.h>

static int ask(struct cmd_keeper *k, const char *path, struct span request,
               struct buf *ret, struct err *e)
{
    (void)snprintf(k->asked, sizeof k->asked, "%s", path); /* longer ones are refused */
    return control_call_within(path, request, k->ms ? k->ms : CONTROL_CALL_MS, ret, e);
}

int cmd_keeper_ask(struct cmd_keeper *k, struct span request, struct buf *ret,
                   struct err *e)
{
    char path[CONTROL_PATH_MAX];

    if (k->socket)
        return ask(k, k->socket, request, ret, e);
    if (k->name && control_run_path(k->name, path, sizeof path, e) == 0) {
        if (ask(k, path, request, ret, e) == 0)
            return 0;
        if (!control_is_absent(e))
            return -1;
    }
    if (ask(k, CONTROL_SERVE_PATH, request, ret, e) == 0)
        return 0;
    if (k->name && e->code == ERR_SYS)
        return err_wrap(e, "no `run` of yours is called \"%s\"; the host's service",
                        k->name);
    return -1;
}
