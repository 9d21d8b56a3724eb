/* SPDX-License-Identifier: MIT */
/** admin -- what the admin listener answers: /healthz, /readyz, /metrics. Pure. */
#ifndef TUNNELD_ADMIN_H
#define TUNNELD_ADMIN_H

#include "tunneld/edge/small_http.h"

/** 0, or -1: no memory. @is_ready  false from the first signal to stop on */
int admin_answer(bool is_ready, const struct http1_head *rq,
                 struct small_http_answer *ret);

#endif
