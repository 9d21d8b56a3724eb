/* SPDX-License-Identifier: MIT */
#include "common/mem.h"
#include "tunneld/cli.h"
#include "tunneld/server.h"

enum {
    HEAP_KEEP = 8 << 20
};

int main(int argc, char **argv)
{
    mem_tune(HEAP_KEEP);
    return cli_main(argc, argv, server_run);
}
