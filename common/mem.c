/* SPDX-License-Identifier: MIT */
#include "common/mem.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Per thread, so that workers do not share a cache line and tests see only their own. A
 * block freed by another thread than its maker makes `live` of both wrong, which only
 * matters to tests, and those are single-threaded where they look. */
static _Thread_local unsigned fault;
static _Thread_local unsigned count;
static _Thread_local size_t live;

static bool fails(void)
{
    return ++count == fault;
}

void *mem_alloc(size_t n)
{
    void *p = fails() ? NULL : malloc(n > 0 ? n : 1);

    live += p != NULL;
    return p;
}

void *mem_zalloc(size_t n, size_t size)
{
    void *p = fails() ? NULL : calloc(n > 0 ? n : 1, size > 0 ? size : 1);

    live += p != NULL;
    return p;
}

void *mem_resize(void *p, size_t n)
{
    void *q = fails() ? NULL : realloc(p, n > 0 ? n : 1);

    live += p == NULL && q != NULL;
    return q;
}

void mem_free(void *p)
{
    live -= p != NULL;
    free(p);
}

void mem_tune(int keep_bytes)
{
    (void)mallopt(M_TRIM_THRESHOLD, keep_bytes);
}

void mem_fault_at(unsigned k)
{
    fault = k;
    count = 0;
}

unsigned mem_count(void)
{
    return count;
}

size_t mem_live(void)
{
    return live;
}
