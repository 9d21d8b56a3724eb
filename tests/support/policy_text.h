/* SPDX-License-Identifier: MIT */
/** policy_text -- a policy of a test, which is in order. */
#ifndef TESTS_SUPPORT_POLICY_TEXT_H
#define TESTS_SUPPORT_POLICY_TEXT_H

#include "agentd/egress/policy/policy.h"

/** Compiled, without files. A fault is printed and ends the process, child or not. */
struct policy *policy_text(const char *json);

#endif
