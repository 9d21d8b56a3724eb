/* SPDX-License-Identifier: MIT */
/** limits -- every bound of the program, named; the rows and reasons are in limits.def. */
#ifndef COMMON_LIMITS_H
#define COMMON_LIMITS_H

enum {
#define LIMIT(name, value, why) name = (value),
#include "common/limits.def"
#undef LIMIT
};

#endif
