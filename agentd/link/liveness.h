/* SPDX-License-Identifier: MIT */
/** liveness -- is the other side of a link still there? When to ask (PING_MS), when silence
 *              means that it is gone (SILENCE_MS), and what a suspend of this machine
 *              changes: then the answer is wanted within PROBE_MS. Pure; looked at every
 *              LIVENESS_LOOK_MS. */
#ifndef AGENTD_LINK_LIVENESS_H
#define AGENTD_LINK_LIVENESS_H

#include <stdint.h>

enum {
    LIVENESS_LOOK_MS = 5000
};

enum liveness_verdict {
    LIVENESS_WELL,
    LIVENESS_ASK,    /* send a PING now */
    LIVENESS_SILENT, /* nothing came for SILENCE_MS */
    LIVENESS_SLEPT,  /* nothing came since this machine woke up */
};

struct liveness {
    uint64_t ping_ms;     /* the next PING */
    uint64_t probe_ms;    /* after a suspend: look then; 0: none */
    uint64_t probe_rx_ms; /* what last_rx_ms was at that time */
    int64_t slept_ms;
};

/** @now_ms      monotonic
 *  @slept_ms    how long the machine was suspended since it booted (CLOCK_BOOTTIME less
 *               CLOCK_MONOTONIC) */
void liveness_init(struct liveness *l, uint64_t now_ms, int64_t slept_ms);
/** @last_rx_ms  when bytes last came; <= now_ms */
enum liveness_verdict liveness_look(struct liveness *l, uint64_t now_ms,
                                    uint64_t last_rx_ms, int64_t slept_ms);

#endif
