/* SPDX-License-Identifier: MIT */
#include "agentd/link/retry.h"

#include "common/crypto.h"
#include "common/limits.h"

uint32_t retry_range(unsigned failures, bool was_up)
{
    uint32_t range = RETRY_MAX_MS;

    if (failures < 5 && (uint32_t)RETRY_STEP_MS << failures < RETRY_MAX_MS)
        range = (uint32_t)RETRY_STEP_MS << failures;
    /* A lost link is one of many that were lost with it. */
    return was_up && range < RETRY_FIRST_MS ? RETRY_FIRST_MS : range;
}

uint32_t retry_next(struct retry *r, bool was_up, uint64_t up_ms, uint32_t at_least_ms)
{
    uint32_t range;

    if (was_up && up_ms >= RETRY_STABLE_MS)
        r->failures = 0;
    range = retry_range(r->failures, was_up);
    if (r->failures < 32)
        r->failures++;
    if (at_least_ms > RETRY_AFTER_MAX_MS)
        at_least_ms = RETRY_AFTER_MAX_MS;
    return at_least_ms + crypto_random_below(range + 1);
}
