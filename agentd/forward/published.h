/* SPDX-License-Identifier: MIT */
/**
 * published -- the ports that this agent publishes: what streams may reach. A stream to
 *              anything that is not in here is refused, whatever the server says.
 *
 * Shape    a sorted table without I/O. Entries stay where they are until
 * published_drop(). Limits   CONTROL_PORTS_MAX entries.
 */
#ifndef AGENTD_FORWARD_PUBLISHED_H
#define AGENTD_FORWARD_PUBLISHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agentd/forward/process.h"
#include "common/control.h"
#include "common/sock.h"

struct published_port {
    uint16_t port;
    bool is_asked;     /* by name (http, sockets): stays when its listener goes */
    bool is_listening; /* the watch sees a listener; always for unix sockets */
    bool is_told;      /* opened was told to people, so closed must be too */
    struct sock_addr dial, listen;
    struct process holder;
    enum control_visibility visibility;
    enum control_host_mode host_mode;
    char name[HOST_LABEL_MAX + 1]; /* asked for; "": none */

    /* the server's answer, of this link or the last */
    char url[CONTROL_URL_MAX + 1]; /* "": none yet */
    char why[160 + 1];             /* refused: a sentence; "": not refused */
    bool is_public;
};

struct published {
    struct published_port **at; /* sorted by port */
    size_t n, cap;
};

void published_done(struct published *t);
/** NULL when the port is not published. Borrowed until published_drop() of that port. */
struct published_port *published_find(const struct published *t, uint16_t port);
/** The entry, made when there is none: then dial is 127.0.0.1. NULL when the table is
 * full or there is no memory. */
struct published_port *published_add(struct published *t, uint16_t port);
void published_drop(struct published *t, uint16_t port);

#endif
