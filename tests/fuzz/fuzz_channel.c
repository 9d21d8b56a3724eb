/* SPDX-License-Identifier: MIT */
/* A record that is read is written as the same bytes; one that is not leaves its
 * descriptors. The first byte is how many came with it. */
#include <stdlib.h>

#include "agentd/egress/channel.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const int fds[CHANNEL_FDS] = {1000, 1001, 1002, 1003, 1004, 1005, 1006};
    struct channel_msg m;
    uint8_t again[CHANNEL_WIRE_MAX];
    size_t n_fds = n > 0 ? p[0] % (CHANNEL_FDS + 1) : 0;
    size_t seen = 0;

    if (n < 1 || channel_decode(span_of(p + 1, n - 1), fds, n_fds, &m, NULL) < 0)
        return 0;
    MUST(m.type > CHANNEL_NONE && m.type < CHANNEL_TYPE_COUNT);
    MUST(m.n_floor <= CHANNEL_FLOOR_MAX);
    MUST(m.text[CHANNEL_TEXT_MAX - 1] == '\0' && m.name[EGRESS_NAME_MAX] == '\0' &&
         m.comm[sizeof(m.comm) - 1] == '\0');
    for (size_t i = 0; i < CHANNEL_FDS; i++)
        if (m.fd[i] >= 0)
            MUST(m.fd[i] == fds[seen++]);
    MUST(seen == n_fds);
    MUST(channel_encode(&m, again, NULL) == (int)(n - 1));
    MUST(memcmp(again, p + 1, n - 1) == 0);
    return 0;
}
