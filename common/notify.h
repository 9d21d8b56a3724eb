/* SPDX-License-Identifier: MIT */
/** notify -- telling systemd how far we are (sd_notify(3)), without its library. */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

#include "common/err.h"

/** Send one state ("READY=1") to $NOTIFY_SOCKET. Without that variable nothing happens and
 *  0 is returned. */
int notify_systemd(const char *state, struct err *e);

#endif
