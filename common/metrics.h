/* SPDX-License-Identifier: MIT */
/**
 * metrics -- counters and gauges, one row each in common/metrics.def, updated with relaxed
 *            atomics from any thread and printed in Prometheus' text form.
 */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/buf.h"

enum metric {
#define COUNTER(id, name, help) METRIC_##id,
#define GAUGE(id, name, help)   METRIC_##id,
#include "common/metrics.def"
#undef COUNTER
#undef GAUGE
    METRIC_COUNT
};
extern _Atomic int64_t metrics_value[METRIC_COUNT];

static inline void metric_add(enum metric m, int64_t n)
{
    atomic_fetch_add_explicit(&metrics_value[m], n, memory_order_relaxed);
}
static inline void metric_inc(enum metric m)
{
    metric_add(m, 1);
}
/** Append all of them. 0, or -1: no memory. */
int metrics_print(struct buf *out);

#endif
