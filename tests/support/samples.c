/* SPDX-License-Identifier: MIT */
#include "tests/support/samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t samples_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

void samples_sort(uint64_t *v, size_t n)
{
    qsort(v, n, sizeof v[0], by_value);
}

void samples_print(const char *name, uint64_t *v, size_t n)
{
    samples_sort(v, n);
    (void)printf(
        "{\"name\":\"%s\",\"unit\":\"us\",\"n\":%zu,\"median\":%.1f,\"p99\":%.1f}\n",
        name, n, (double)v[n / 2] / 1000, (double)v[n * 99 / 100] / 1000);
}
