/* SPDX-License-Identifier: MIT */
/**
 * oci -- what a container engine tells a createRuntime hook, read strictly, and what the
 *        keeper is asked for it. Pure, but for oci_trusted_file().
 *
 * Annotations of the container, as its engine was told (never its environment or labels):
 *   agentd.egress.policy  a file of the host (absolute, of root, written by nobody else), or a
 *                         preset
 *   agentd.egress.tier    sealed (default) or veth
 *   agentd.egress.name    the sandbox's name; default: the first 12 of the container's id
 * Any other that starts with "agentd.egress." is an error.
 *
 * Source   OCI runtime specification 1.0.2, "State" and "POSIX-platform Hooks".
 */
#ifndef AGENTD_EGRESS_KEEPER_OCI_H
#define AGENTD_EGRESS_KEEPER_OCI_H

#include <sys/types.h>

#include "agentd/egress/sandbox_name.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/span.h"

#define OCI_STATE_MAX  1048576 /* bytes; engines put long annotations there */
#define OCI_ID_MAX     1024
#define OCI_ID_NAME    12 /* of a container's id, for the name */
#define OCI_POLICY_MAX 4095

#define OCI_ANNOTATIONS "agentd.egress."
#define OCI_POLICY      OCI_ANNOTATIONS "policy"
#define OCI_TIER        OCI_ANNOTATIONS "tier"
#define OCI_NAME        OCI_ANNOTATIONS "name"

struct oci_state {
    pid_t pid; /* the container's first process, waiting */
    enum egress_tier tier;
    char name[EGRESS_NAME_MAX + 1];
    char policy[OCI_POLICY_MAX + 1]; /* an absolute path, or a word */
};
/** 0, or -1: what is wrong, with the annotation or member it is about. */
int oci_state_read(struct span text, struct oci_state *ret, struct err *e);
/** "sealed", "veth". 0 or -1. */
int oci_tier_parse(const char *text, enum egress_tier *ret, struct err *e);
/** "/etc/agentd/x.json", or a preset's name: no relative paths, no "..". 0 or -1. */
int oci_policy_check(const char *text, struct err *e);
/** Append the keeper's request (control_socket.h); `policy` is JSON. */
int oci_request(const struct oci_state *s, struct span policy, struct buf *out,
                struct err *e);

/** Is it a file that only its owner could have written: it and each folder above are
 *  root's or `owner`'s, nobody else may write there, and no part of the path is a
 *  symbolic link. */
int oci_trusted_file(const char *path, uid_t owner, struct err *e);

#endif
