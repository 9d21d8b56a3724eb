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

/** Let the allocator keep so many free bytes at the end of its heap, for main() to call
 *  first. Buffers of 64 KiB come and go with each loop turn: with glibc's own 128 KiB each
 *  of them costs a brk(2) and its page faults (half the speed of the mux, measured). */
void mem_tune(int keep_bytes);

/* For tests. fault_at(k) makes the k-th allocation from now fail; 0 = none. */
void mem_fault_at(unsigned k);
unsigned mem_count(void); /* allocations since the last mem_fault_at() */
size_t mem_live(void);    /* blocks allocated and not yet freed */

#endif
