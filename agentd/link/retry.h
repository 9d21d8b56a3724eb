/* SPDX-License-Identifier: MIT */
/** retry -- when to dial again: full jitter, so that the agents of a server that was gone
 *           do not come back in step (docs/PROTOCOL.md 8). */
#ifndef AGENTD_LINK_RETRY_H
#define AGENTD_LINK_RETRY_H

#include <stdbool.h>
#include <stdint.h>

struct retry {
    unsigned failures; /* in a row */
};

/** The wait is random in 0..this many ms, after what the server asked for. */
uint32_t retry_range(unsigned failures, bool was_up);
/**
 * Note a failure and say how long to wait.
 * @was_up       a link was lost, not only an attempt; it stood up_ms
 * @at_least_ms  what the server asked for; believed up to RETRY_AFTER_MAX_MS
 */
uint32_t retry_next(struct retry *r, bool was_up, uint64_t up_ms, uint32_t at_least_ms);

#endif
