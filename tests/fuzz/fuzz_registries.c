/* SPDX-License-Identifier: MIT */
/* The first byte chooses the syntax; the rest is a client's configuration. */
#include <stddef.h>
#include <stdint.h>

#include "agentd/egress/policy/registries.h"

static void seen(void *arg, struct span url)
{
    size_t *n = arg;

    *n += url.len;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct registries_place place = {"", REGISTRIES_KEYS, "registry *:registry url"};
    size_t total = 0;

    if (n == 0)
        return 0;
    place.syntax = (enum registries_syntax)(p[0] % (REGISTRIES_PROGRAM + 1));
    if (place.syntax >= REGISTRIES_SOURCE)
        place.keys = "x(";
    registries_read(&place, span_of(p + 1, n - 1), seen, &total);
    return 0;
}
