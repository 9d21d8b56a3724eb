/* SPDX-License-Identifier: MIT */
/**
 * guard -- the process that reads what a sandbox sends: DNS, HTTP heads, ClientHellos. It
 *          holds no capability, has no_new_privs and a seccomp list, cannot make netlink
 *          sockets, and knows of the world what the keeper passes over the channel.
 *
 *   channel --> sandboxes --> dns_server --> names --> dns_ask --> resolver
 *                        |               \-> pins --> channel (PIN) --> kernel
 *                        \-> flows: accept -> look (http, tls, pin) -> decide -> names -> dial -> relay
 *
 * When the channel closes the guard ends. When the guard dies the keeper starts another
 * and gives it everything again; until then the kernel accepts nothing for it.
 */
#ifndef AGENTD_EGRESS_GUARD_GUARD_H
#define AGENTD_EGRESS_GUARD_GUARD_H

#include "common/err.h"

/** The guard's life, after its role was taken. @fd the channel. The process's
 *  exit code. */
int guard_main(int fd);

#endif
