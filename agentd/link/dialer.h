/* SPDX-License-Identifier: MIT */
/** dialer -- what the dials of one process share; made and freed through dial.h. */
#ifndef AGENTD_LINK_DIALER_H
#define AGENTD_LINK_DIALER_H

#include "agentd/link/ws_link.h"
#include "common/loop.h"
#include "common/tls.h"

struct dialer {
    struct loop *loop;   /* borrowed */
    struct tls_ctx *tls; /* to the server, and to an https proxy */
    struct ws_scratch *scratch;
    char *proxy;        /* URL, "env" or "none"; wiped; NULL: "env" */
    char *name_servers; /* NULL: the system's */
};

#endif
