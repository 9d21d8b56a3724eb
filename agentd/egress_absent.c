/* SPDX-License-Identifier: MIT */
/* In agentd-static, in place of agentd/egress/: what runs in a container needs no libnftnl. */
#include <stdio.h>

#include "agentd/egress/egress.h"

int egress_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)fputs("agentd-static is built without egress; use agentd, on the host\n",
                stderr); /* nowhere else to say it */
    return 2;
}
