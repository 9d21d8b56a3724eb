/* SPDX-License-Identifier: MIT */
/** edge_app -- the app in edge_scene: what it answers on a stream, by the
 *             request's path. */
#ifndef TESTS_SUPPORT_EDGE_APP_H
#define TESTS_SUPPORT_EDGE_APP_H

#include "tests/support/edge_scene.h"

/** The agent was asked for a stream. */
void edge_app_opened(struct scene *s, struct mux_stream *stream);

#endif
