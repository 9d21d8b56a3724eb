/* SPDX-License-Identifier: MIT */
/**
 * redirect -- what the plaintext port 80 answers: 308 to the same host and target at the
 *             public URL's scheme and port; 421 for hosts that are not ours.
 */
#ifndef TUNNELD_EDGE_REDIRECT_H
#define TUNNELD_EDGE_REDIRECT_H

#include "tunneld/config.h"
#include "tunneld/edge/small_http.h"

/** 0, or -1: no memory. Pure. */
int redirect_answer(const struct config *conf, const struct http1_head *rq,
                    struct small_http_answer *ret);

#endif
