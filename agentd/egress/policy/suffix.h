/* SPDX-License-Identifier: MIT */
/**
 * suffix -- names under which strangers register theirs (the Public Suffix List, as it is
 *           built into libpsl; nothing is read).
 */
#ifndef AGENTD_EGRESS_POLICY_SUFFIX_H
#define AGENTD_EGRESS_POLICY_SUFFIX_H

#include <stdbool.h>

enum suffix_kind {
    SUFFIX_NONE, /* somebody's own name */
    SUFFIX_PUBLIC, /* a registry's: com, co.uk; any top-level name that is not of the next */
    SUFFIX_PRIVATE, /* an operator's whose customers get names under it: github.io */
};
/** @name  canonical. Top-level names kept for private use ("corp", "internal", "lan",
 *  "test", ...) are SUFFIX_NONE. */
enum suffix_kind suffix_of(const char *name);

#endif
