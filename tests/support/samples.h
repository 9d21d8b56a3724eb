/* SPDX-License-Identifier: MIT */
/** samples -- what the benchmarks in C share: a clock, a sort, a line of JSON. */
#ifndef TESTS_SUPPORT_SAMPLES_H
#define TESTS_SUPPORT_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

/** Nanoseconds, monotonic. */
uint64_t samples_now(void);
void samples_sort(uint64_t *v, size_t n);
/** Sorts; one line {"name","unit":"us","n","median","p99"} of nanoseconds. */
void samples_print(const char *name, uint64_t *v, size_t n);

#endif
