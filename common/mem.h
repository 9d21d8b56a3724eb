/* SPDX-License-Identifier: MIT */
/**
 * mem -- the only door to malloc, so that tests can make it fail.
 *
 * Pass mem_alloc and friends to jansson, libuv, nghttp2, OpenSSL and
 * libwebsockets too: all five accept an allocator.
 */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stddef.h>

#include "common/cdefs.h"

MUST_USE void *mem_alloc(size_t n); /* uninitialised; NULL on failure */
MUST_USE void *mem_zalloc(size_t n,
                          size_t size);       /* n*size zero bytes, overflow checked */
MUST_USE void *mem_resize(void *p, size_t n); /* on failure p is still valid */
void mem_free(void *p);                       /* NULL is fine */

/** Allocations that failed on this thread so far: tells why a library failed that does not
 *  say so itself (jansson calls it wrong syntax). */
unsigned mem_failures(void);

/* For tests. fault_at(k) makes the k-th allocation from now fail; 0 = none. */
void mem_fault_at(unsigned k);
unsigned mem_count(void); /* allocations since the last mem_fault_at() */
size_t mem_live(void);    /* blocks allocated and not yet freed */

#endif
