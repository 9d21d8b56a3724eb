/* SPDX-License-Identifier: MIT */
/* One datagram of a sock_diag answer, to question 7. */
#include <stdlib.h>
#include <string.h>

#include "agentd/forward/listeners.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct listeners l = {0};
    struct portwatch_port d;
    int sys = 0;
    size_t i;

    (void)listeners_read(&l, span_of(p, n), 7, &sys);
    listeners_choose(&l);
    for (i = 0; i < l.n; i++) {
        if (i > 0 && l.at[i - 1].port >= l.at[i].port)
            abort();
        listener_describe(&l.at[i], &d);
        if (d.port == 0 || sock_port(&d.dial) != d.port)
            abort();
    }
    listeners_done(&l);
    return 0;
}
