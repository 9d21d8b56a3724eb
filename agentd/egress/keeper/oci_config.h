/* SPDX-License-Identifier: MIT */
/**
 * oci_config -- a bundle's config.json with our hook put in, all else as it was, byte for
 *               byte: the text is changed in place and never printed anew, so no number
 *               is rounded and no member lost. Pure.
 *
 * Refused: what is no JSON object, "hooks", "createRuntime" or "annotations" of
 * another type, and members that differ from these in case only (the runtime would
 * take them for the same).
 *
 * Source   OCI runtime specification 1.0.2, "Configuration".
 */
#ifndef AGENTD_EGRESS_KEEPER_OCI_CONFIG_H
#define AGENTD_EGRESS_KEEPER_OCI_CONFIG_H

#include "common/buf.h"
#include "common/err.h"
#include "common/span.h"

#define OCI_CONFIG_MAX     8388608 /* bytes of config.json */
#define OCI_HOOK_TIMEOUT_S 60      /* what takes longer the runtime ends, and the start */

struct oci_change {
    const char *program; /* the hook's absolute path */
    const char *socket;  /* NULL: the keeper's usual one */
    /* What the hook is told, whatever the container's own annotations say; NULL: these
     * are left, and there must be one for the policy. */
    const char *policy;
    const char *tier; /* NULL: sealed, or the annotation's where policy is NULL */
};
/** Append the changed text. Twice gives the same as once. 0 or -1. */
int oci_config_change(struct span text, const struct oci_change *c, struct buf *out,
                      struct err *e);

#endif
