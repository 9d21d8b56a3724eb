/* SPDX-License-Identifier: MIT */
/** options_file -- agentd's configuration file (agentd.conf(5)): JSON, strictly. */
#ifndef AGENTD_OPTIONS_FILE_H
#define AGENTD_OPTIONS_FILE_H

#include "agentd/options.h"
#include "common/span.h"

/** Set in *o what the file says. 0, or -1 with ERR_CONFIG naming the key and the rule. */
int options_file_read(struct options *o, const char *path, struct err *e);
int options_file_parse(struct options *o, struct span text, struct err *e);

#endif
