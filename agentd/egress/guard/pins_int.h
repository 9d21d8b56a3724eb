/* SPDX-License-Identifier: MIT */
/** pins_int -- what pins.c keeps, for itself and for its tests, which move the ends. */
#ifndef AGENTD_EGRESS_GUARD_PINS_INT_H
#define AGENTD_EGRESS_GUARD_PINS_INT_H

#include "agentd/egress/guard/pin_table.h"
#include "agentd/egress/guard/pins.h"
#include "common/log.h"

struct pins {
    struct ward *ward; /* borrowed */
    struct pin_table table;
    struct loop_timer care;
    struct log_rate rate;
};

#endif
