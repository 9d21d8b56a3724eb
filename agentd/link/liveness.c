/* SPDX-License-Identifier: MIT */
#include "agentd/link/liveness.h"

#include <stdbool.h>

#include "common/limits.h"

enum {
    SUSPEND_MS = 2000
}; /* the clocks drift apart by less while awake */

void liveness_init(struct liveness *l, uint64_t now_ms, int64_t slept_ms)
{
    *l = (struct liveness){.ping_ms = now_ms + PING_MS, .slept_ms = slept_ms};
}

enum liveness_verdict liveness_look(struct liveness *l, uint64_t now_ms,
                                    uint64_t last_rx_ms, int64_t slept_ms)
{
    bool woke_up = slept_ms - l->slept_ms >= SUSPEND_MS;

    l->slept_ms = slept_ms;
    if (now_ms - last_rx_ms >= SILENCE_MS)
        return LIVENESS_SILENT;
    if (l->probe_ms && now_ms >= l->probe_ms) {
        l->probe_ms = 0;
        if (last_rx_ms == l->probe_rx_ms)
            return LIVENESS_SLEPT;
    }
    if (woke_up) {
        l->probe_ms = now_ms + PROBE_MS;
        l->probe_rx_ms = last_rx_ms;
    }
    if (now_ms < l->ping_ms && !woke_up)
        return LIVENESS_WELL;
    l->ping_ms = now_ms + PING_MS;
    return LIVENESS_ASK;
}
