/* SPDX-License-Identifier: MIT */
/**
 * own_network -- a network namespace for this process, in which lo is up and
 *                203.0.113.0/24, 198.51.100.0/24, 10.1.0.0/16 and 2001:db8::1
 *                are this machine's.
 */
#ifndef TESTS_SUPPORT_OWN_NETWORK_H
#define TESTS_SUPPORT_OWN_NETWORK_H

#include <stdbool.h>

/** Once a process, before it has threads. False: the kernel refuses (printed). */
bool own_network_enter(void);

#endif
