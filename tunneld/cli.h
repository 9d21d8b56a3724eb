/* SPDX-License-Identifier: MIT */
/**
 * cli -- tunneld's command line: everything but `serve` itself. Results go to
 *        stdout, faults to stderr.
 */
#ifndef TUNNELD_CLI_H
#define TUNNELD_CLI_H

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2, /* wrong usage or configuration */
};

/** Runs what argv asks for and returns the exit code. `serve` gets the configuration's
 *  path, for `tunneld [serve] -c FILE`; it returns the exit code as well. */
int cli_main(int argc, char **argv, int (*serve)(const char *config_path));

#endif
