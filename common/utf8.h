/* SPDX-License-Identifier: MIT */
/** utf8 -- which bytes are UTF-8. */
#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

#include <stddef.h>
#include <stdint.h>

/** Length of the valid sequence at p[0..n), n >= 1, or 0. RFC 3629: shortest form, no
 *  surrogates, nothing above U+10FFFF. */
size_t utf8_len(const uint8_t *p, size_t n);

#endif
