/* SPDX-License-Identifier: MIT */
/** cli_check -- `tunneld check`: every fault of a configuration and its files. */
#ifndef TUNNELD_CLI_CHECK_H
#define TUNNELD_CLI_CHECK_H

#include "tunneld/config.h"

/** Faults to stderr, findings about the certificate to stdout. The exit code. */
int cli_check(const char *file);
/** Loads a configuration; faults go to stderr. NULL when there were any. */
struct config *cli_load(const char *file);

#endif
