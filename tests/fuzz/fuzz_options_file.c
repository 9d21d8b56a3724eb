/* SPDX-License-Identifier: MIT */
/* agentd's configuration file. */
#include <stdlib.h>
#include <string.h>

#include "agentd/options_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct options o;
    unsigned i;

    memset(&o, 0, sizeof o);
    if (options_file_parse(&o, span_of(p, n), NULL) == 0) {
        for (i = 1; i < o.n_ports; i++) {
            if (o.port[i - 1].port >= o.port[i].port)
                abort(); /* options_port() relies on the order */
        }
    }
    options_done(&o);
    return 0;
}
