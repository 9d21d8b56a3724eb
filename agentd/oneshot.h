/* SPDX-License-Identifier: MIT */
/** oneshot -- the commands that end by themselves and need no link of their own: what is
 *  listening here (`ports`), and `http` by an agent that already runs. */
#ifndef AGENTD_ONESHOT_H
#define AGENTD_ONESHOT_H

#include <stdbool.h>

#include "agentd/agent.h"
#include "agentd/options.h"

enum agent_exit oneshot_ports(const struct options *o);
/** Ask a running agent to publish the port, and print the URL. False: none runs here that
 *  serves this link, so the caller dials by itself. */
bool oneshot_http(const struct options *o, enum agent_exit *ret);

#endif
