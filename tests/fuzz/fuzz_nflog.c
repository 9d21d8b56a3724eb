/* SPDX-License-Identifier: MIT */
/* Whatever a datagram holds, reading it ends, stays inside, and gives
 * addresses that print. */
#include <stdlib.h>

#include "agentd/egress/kernel/nflog.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct nflog_packet got;
    size_t pos = 0, before = 0;
    char text[IP_TEXT_MAX];

    while (nflog_next(span_of(p, n), &pos, &got)) {
        MUST(pos > before && pos <= n);
        before = pos;
        MUST(got.index <= UINT16_MAX && strlen(got.why) < sizeof(got.why));
        MUST((got.from.family == 0) == (got.to.family == 0));
        if (got.to.family != 0)
            MUST(ip_print(&got.to, text)[0] != '\0');
        else
            MUST(got.protocol == 0 && got.to_port == 0);
    }
    MUST(pos == n);
    return 0;
}
