/* SPDX-License-Identifier: MIT */
/**
 * cmd_options -- the options of a command: "--name VALUE", "--name=VALUE",
 *                and "--name" alone.
 *
 * Values are borrowed from argv. An option comes once, unless it says more, and
 * no value is empty.
 */
#ifndef AGENTD_EGRESS_CMD_CMD_OPTIONS_H
#define AGENTD_EGRESS_CMD_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct cmd_option {
    const char *name;   /* "--policy" */
    const char **value; /* where its value goes; NULL: it takes none */
    bool *is_set;       /* of one without a value: becomes true */
    unsigned *n; /* how many values there are in value[0..max]; NULL: it comes once */
    unsigned max;
};

/**
 * Reads options from argv[at] on, up to "--" or the first word that is none.
 * @argv  argv[0] is the command's name, for what is told
 * Returns where it stopped, at most argc; -1: wrong usage, which was told.
 */
int cmd_options(int argc, char **argv, int at, const struct cmd_option *o, size_t n);
/** As cmd_options(), for a command without other words. 0, or -1 (told). */
int cmd_options_only(int argc, char **argv, const struct cmd_option *o, size_t n);

#endif
