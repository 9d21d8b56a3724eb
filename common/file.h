/* SPDX-License-Identifier: MIT */
/** file -- a file's bytes, whole and bounded; folders for one to be in. */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

/**
 * Append what is left of `fd` to its end. Blocks where reading it does.
 *
 * @what  its name, for what is said
 * @max   bytes that *ret may have after it
 *
 * 0, or -1: ERR_LIMIT (longer than that), ERR_NOMEM, ERR_SYS. *ret holds a part of it then.
 */
int file_read(int fd, const char *what, size_t max, struct buf *ret, struct err *e);

/** The folders above `path` that are not there, with this mode; those that are stay as
 *  they are. 0, or -1: ERR_CONFIG (too long), ERR_SYS. Some may have been made then. */
int file_make_parents(const char *path, mode_t mode, struct err *e);

#endif
