/* SPDX-License-Identifier: MIT */
#include "tests/support/policy_text.h"

#include <stdio.h>
#include <stdlib.h>

struct policy *policy_text(const char *json)
{
    struct policy_faults *faults = calloc(1, sizeof(*faults));
    struct policy *p = faults ? policy_compile(span_str(json), NULL, faults) : NULL;

    for (size_t i = 0; !p && faults && i < faults->n; i++)
        (void)fprintf(stderr, "%s: %s: %s\n", json, faults->at[i].path,
                      faults->at[i].text);
    if (!p)
        abort();
    free(faults);
    return p;
}
