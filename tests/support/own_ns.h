/* SPDX-License-Identifier: MIT */
/**
 * own_ns -- namespaces of its own for the process of a test, as root or as an ordinary
 *           user, who is root in a user namespace then.
 */
#ifndef TESTS_SUPPORT_OWN_NS_H
#define TESTS_SUPPORT_OWN_NS_H

#include <stdbool.h>

/** Before there are threads. @flags  CLONE_NEWNET and the like; an ordinary user gets
 *  CLONE_NEWUSER as well, root where it is asked for. 0, or -1 with errno: the kernel
 *  refuses. */
int own_ns_enter(int flags);
/** The loopback interface of this network namespace. */
bool own_ns_lo_up(void);

#endif
