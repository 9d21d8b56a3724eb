/* SPDX-License-Identifier: MIT */
/** agent_int -- the agent's parts as its own files see them: agent.c (life and link),
 *  agent_ports.c (what is published), agent_local.c (requests of the local socket). */
#ifndef AGENTD_AGENT_INT_H
#define AGENTD_AGENT_INT_H

#include "agentd/agent.h"
#include "agentd/events.h"
#include "agentd/forward/forward.h"
#include "agentd/forward/portrules.h"
#include "agentd/forward/portwatch.h"
#include "agentd/forward/published.h"
#include "agentd/link/uplink.h"
#include "agentd/localsock.h"

/** A local request that waits for the server's URL. */
struct agent_waiter {
    uint64_t ticket; /* 0: free */
    uint16_t port;
    uint64_t until_ms;
};

struct agent {
    struct options *o;
    const struct agent_source *source; /* borrowed */
    struct loop *loop;
    struct netns *ns;
    struct portrules rules;
    struct port_list excluded; /* as told in the hello */
    struct published table;
    struct portwatch *watch;
    struct forward *forward;
    struct uplink *uplink;
    struct mux_budget budget;
    struct localsock *local;
    struct agent_waiter waiter[LOCALSOCK_CLIENTS];
    struct loop_timer waiting;
    struct events *events;
    char instance[CONTROL_INSTANCE_MAX + 1];
    char hostname[64 + 1];
    unsigned n_signals;
    enum agent_exit code;
};

/* agent_ports.c */
int agent_ports_start(struct agent *a, struct err *e);
void agent_ports_rules(struct agent *a); /* from the options, anew */
/** After a reload: judge all listeners by the new rules. */
void agent_ports_rejudge(struct agent *a);
/** Publish by name. The entry, or NULL with *e (ERR_DENIED: excluded, ERR_LIMIT). */
struct published_port *agent_ports_ask(struct agent *a, uint16_t port, const char *name,
                                       bool is_public, struct err *e);
void agent_ports_send_all(struct agent *a); /* the link is up */
void agent_ports_url(struct agent *a, const struct control_msg *m);

/* agent_local.c */
void agent_local_start(struct agent *a);
void agent_local_told(struct agent *a, const struct published_port *p);

#endif
