/* SPDX-License-Identifier: MIT */
#include "agentd/egress/sandbox_name.h"

#include <string.h>

int sandbox_name_check(const char *name, struct err *e)
{
    char id[HOST_ID_MAX + 1];

    if (host_id_parse(span_str(name), id) == 0 && strcmp(id, name) == 0)
        return 0;
    return err_set(
        e, ERR_CONFIG,
        "\"%.45s\" is no sandbox name: 1 to %d of a-z 0-9 -, no - at the ends, "
        "no --",
        name, EGRESS_NAME_MAX);
}
