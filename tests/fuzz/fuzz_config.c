/* SPDX-License-Identifier: MIT */
/* Any file as a configuration: taken, or told why not. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tunneld/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void count_fault(void *arg, const char *place, const char *rule)
{
    unsigned *n = arg;

    *n += place[0] != '\0' && rule[0] != '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    int fd = memfd_create("config", MFD_CLOEXEC);
    struct config *c;
    unsigned n_faults = 0;
    char path[40];

    if (fd < 0 || write(fd, p, n) != (ssize_t)n)
        abort();
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    c = config_load(path, count_fault, &n_faults);
    if ((c == NULL) != (n_faults > 0))
        abort();
    if (c != NULL && config_fixed_change(c, c) != NULL)
        abort();
    config_unref(c);
    (void)close(fd);
    return 0;
}
