/* SPDX-License-Identifier: MIT */
/**
 * cmd -- the subcommands of `agentd egress`. Each gets its own argv (argv[0] is its name)
 *        and returns the exit code. Usage faults: one sentence on stderr that names the
 *        thing and the rule, exit 2.
 */
#ifndef AGENTD_EGRESS_CMD_CMD_H
#define AGENTD_EGRESS_CMD_CMD_H

int cmd_check(int argc, char **argv); /* cmd_policy.c */
int cmd_explain(int argc, char **argv);
int cmd_registries(int argc, char **argv); /* cmd_registries.c */
int cmd_run(int argc, char **argv);        /* cmd_run.c */
int cmd_serve(int argc, char **argv);      /* cmd_serve.c */
int cmd_attach(int argc, char **argv);     /* cmd_ask.c */
int cmd_detach(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_hook(int argc, char **argv);    /* cmd_hook.c */
int cmd_runtime(int argc, char **argv); /* cmd_runtime.c: an OCI runtime, adds the hook */
int cmd_guard(int argc,
              char **argv); /* cmd_guard.c: the keeper's child; not for people */

#endif
