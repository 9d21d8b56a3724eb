/* SPDX-License-Identifier: MIT */
#include "common/link.h"

#include "common/limits.h"

size_t link_batch(size_t unsent)
{
    return unsent == 0 ? MUX_BATCH : MUX_SEND_MIN;
}

void link_pump(struct link *l, struct mux *m, uint64_t now_us)
{
    for (unsigned i = 0; i < LINK_PUMP_MAX && mux_wants_send(m); i++) {
        size_t cap = 0, n;
        uint8_t *out = l->ops->begin(l, &cap);

        if (out == NULL)
            return; /* room() will come */
        n = mux_send(m, out, cap, now_us);
        if (n == 0)
            return;
        l->ops->commit(l, n);
    }
    /* Stopped for the sake of others in this turn: nobody else would call again. */
    mux_nudge(m);
}
