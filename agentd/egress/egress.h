/* SPDX-License-Identifier: MIT */
/**
 * egress -- the command line `agentd egress ...` (agentd(8)). agentd-static has a
 *           function of the same name that says it is built without.
 */
#ifndef AGENTD_EGRESS_EGRESS_H
#define AGENTD_EGRESS_EGRESS_H

/** @argv[0]  "egress". The exit code: 0 done, 1 failed, 2 wrong usage, policy or configuration; for
 *  `run` the command's own (128 + signal), for `explain` 0 whatever the verdicts are. */
int egress_main(int argc, char **argv);

#endif
