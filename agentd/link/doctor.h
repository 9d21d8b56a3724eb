/* SPDX-License-Identifier: MIT */
/**
 * doctor -- `agentd doctor`: walk the way to the server once, by the code that the link
 *           itself uses, and say at each stage what was found and what to do.
 */
#ifndef AGENTD_LINK_DOCTOR_H
#define AGENTD_LINK_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include "common/err.h"
#include "common/secret.h"

struct doctor_conf {
    const char *server, *id, *ca_file, *proxy; /* as in struct uplink_conf */
    struct span token;                         /* read by the caller */
    bool json; /* one object a line: check, result (ok, fail, skipped), finding, advice */
    FILE *out;
};
/** Makes a loop of its own and runs it. Exit codes of agentd(8): 0, 1 (TLS or upgrade
 *  failed), 2 (settings; *e says which, nothing is printed), 3 (token), 4 (not reachable:
 *  name, connection or proxy). */
int doctor_run(const struct doctor_conf *conf, struct err *e);

#endif
