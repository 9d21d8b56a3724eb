/* SPDX-License-Identifier: MIT */
/**
 * server -- the process: configuration, keys and certificates, listeners, workers,
 * signals.
 *
 * Threads  server_run() is the main thread: its loop accepts, classifies and serves the
 *          admin and redirect listeners. server_owner() may be called by any thread while
 *          the workers run.
 */
#ifndef TUNNELD_SERVER_H
#define TUNNELD_SERVER_H

#include "tunneld/directory.h"
#include "tunneld/worker.h"

/** Runs until a signal ends it. The exit code: 0, 1 (cannot start), 2 (configuration). */
int server_run(const char *config_path);

/** The worker that owns this sandbox (by hash of its id); for any other text, some
 * worker, always the same. */
struct worker *server_owner(struct server *s, const char *id);

#endif
