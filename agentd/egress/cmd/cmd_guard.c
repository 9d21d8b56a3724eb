/* SPDX-License-Identifier: MIT */
#include <sys/socket.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/guard/guard.h"
#include "agentd/egress/tell.h"
#include "common/log.h"

enum {
    CHANNEL_AT = 3, /* where the keeper puts it */
};

int cmd_guard(int argc, char **argv)
{
    int type = 0;
    socklen_t len = sizeof(type);

    (void)argv; /* its name only */
    if (argc != 1 || getsockopt(CHANNEL_AT, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        type != SOCK_SEQPACKET) {
        tell("guard", "started by `agentd egress serve` and `run` only");
        return EXIT_USAGE;
    }
    log_setup(false, LOG_INFO);
    return guard_main(CHANNEL_AT);
}
