/* SPDX-License-Identifier: MIT */
#include "common/metrics.h"

_Atomic int64_t metrics_value[METRIC_COUNT];

struct metric_row {
    const char *name, *type, *help;
};

static const struct metric_row ROW[METRIC_COUNT] = {
#define COUNTER(id, name, help) [METRIC_##id] = {name, "counter", help},
#define GAUGE(id, name, help)   [METRIC_##id] = {name, "gauge", help},
#include "common/metrics.def"
#undef COUNTER
#undef GAUGE
};

int metrics_print(struct buf *out)
{
    unsigned i;

    for (i = 0; i < METRIC_COUNT; i++) {
        long long n = atomic_load_explicit(&metrics_value[i], memory_order_relaxed);
        const struct metric_row *r = &ROW[i];

        if (buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %lld\n", r->name, r->help,
                     r->name, r->type, r->name, n) < 0)
            return -1;
    }
    return 0;
}
