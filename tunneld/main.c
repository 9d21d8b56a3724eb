/* SPDX-License-Identifier: MIT */
#include "tunneld/cli.h"
#include "tunneld/server.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv, server_run);
}
