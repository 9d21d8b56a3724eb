/* SPDX-License-Identifier: MIT */
/**
 * oci_args -- the command line with which an engine calls its OCI runtime, read as far as
 *             is needed to know whether a container begins and where its bundle is. Pure.
 *
 * An option that is not known is an error: whether it takes a value decides what the
 * command is, and a container started past us would be open.
 *
 * Source   runc(8) 1.1, crun(1) 1.8; OCI runtime command line interface.
 */
#ifndef AGENTD_EGRESS_KEEPER_OCI_ARGS_H
#define AGENTD_EGRESS_KEEPER_OCI_ARGS_H

#include <stdbool.h>

#include "common/err.h"

struct oci_args {
    bool starts;        /* create or run: a container begins */
    const char *bundle; /* its folder; "." when none is named; borrowed from argv */
};
/** @argv  what follows the runtime's name. 0 or -1. `restore` is refused: runtimes run no
 *  hooks for it. */
int oci_args_read(int argc, char *const *argv, struct oci_args *ret, struct err *e);

#endif
