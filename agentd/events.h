/* SPDX-License-Identifier: MIT */
/**
 * events -- what happens, on stdout: with --json one object a line (agentd(8) lists them),
 *           otherwise the URL of each port that opens, alone on a line.
 *
 * A reader that stalls must not stall the agent: lines that the pipe does not take are kept,
 * EVENTS_MAX bytes at most, and beyond that whole lines are dropped and counted.
 */
#ifndef AGENTD_EVENTS_H
#define AGENTD_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "agentd/forward/published.h"
#include "common/loop.h"

#define EVENTS_MAX      262144
#define EVENTS_RETRY_MS 50
#define EVENTS_LAST_MS  1000 /* to write what is left at the end */

struct events;

/** `fd` is borrowed. NULL: no memory. */
struct events *events_new(struct loop *l, int fd, bool json);
/** Writes what is left, for EVENTS_LAST_MS at most. NULL is fine. */
void events_free(struct events *ev);

void events_link_up(struct events *ev, const char *server, const char *id);
void events_link_down(struct events *ev, const char *why, bool was_up, uint32_t retry_ms);
void events_link_replaced(struct events *ev, const char *by, const char *at);
void events_port_opened(struct events *ev, const struct published_port *p);
void events_port_closed(struct events *ev, uint16_t port);
void events_port_refused(struct events *ev, uint16_t port, const char *why);

#endif
