/* SPDX-License-Identifier: MIT */
/**
 * tell -- what the commands say on stderr to whoever started them, and how they end.
 *         Where even stderr cannot be written there is nowhere left to say it.
 */
#ifndef AGENTD_EGRESS_TELL_H
#define AGENTD_EGRESS_TELL_H

#include "common/err.h"

struct policy;

enum {
    EXIT_DONE = 0,
    EXIT_FAIL = 1,
    EXIT_USAGE = 2, /* wrong usage, policy or configuration */
};

/** "agentd egress COMMAND: ..." and a newline. */
void tell(const char *command, const char *fmt, ...) PRINTF_LIKE(2, 3);
/** The same with what *e says. Returns the exit code for it. */
int tell_err(const char *command, const struct err *e);
/** policy_load(), with all faults told, one a line: "file:line: error: where: what".
 *  NULL: it is not in order, or there is no memory (told as well). */
struct policy *tell_policy_load(const char *command, const char *path_or_preset);

#endif
