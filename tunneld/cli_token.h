/* SPDX-License-Identifier: MIT */
/** cli_token -- `tunneld token`: a token of the server's own key, alone, on stdout. */
#ifndef TUNNELD_CLI_TOKEN_H
#define TUNNELD_CLI_TOKEN_H

#include <stdint.h>

/** argv[0] is "token". The exit code. */
int cli_token(int argc, char **argv);
/** "90s", "5m", "24h", "30d" or plain seconds, as seconds; -1: not one, or 0. */
int64_t cli_ttl_parse(const char *text);

#endif
