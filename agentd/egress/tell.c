/* SPDX-License-Identifier: MIT */
#include "agentd/egress/tell.h"

#include <stdarg.h>
#include <stdio.h>

#include "agentd/egress/policy/policy.h"
#include "common/mem.h"

/* Of one sentence. */
enum {
    TEXT_MAX = 1024
};

void tell(const char *command, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap); /* cut where it is longer */
    va_end(ap);
    (void)fprintf(stderr, "agentd egress %s: %s\n", command, text); /* see the header */
}

int tell_err(const char *command, const struct err *e)
{
    tell(command, "%s", e->msg);
    return e->code == ERR_CONFIG ? EXIT_USAGE : EXIT_FAIL;
}

static void tell_fault(const char *policy, const struct policy_fault *f)
{
    char line[16] = "";

    if (f->line > 0)
        (void)snprintf(line, sizeof line, "%u:", f->line); /* fits */
    (void)fprintf(stderr, "%s:%s %s: %s%s%s\n", f->file[0] ? f->file : policy, line,
                  f->is_warning ? "warning" : "error", f->path, f->path[0] ? ": " : "",
                  f->text); /* see the header */
}

struct policy *tell_policy_load(const char *command, const char *path_or_preset)
{
    struct policy_faults *faults = mem_zalloc(1, sizeof *faults);
    struct policy *p;

    if (!faults) {
        tell(command, "no memory");
        return NULL;
    }
    p = policy_load(path_or_preset, faults);
    for (size_t i = 0; i < faults->n; i++)
        tell_fault(path_or_preset, &faults->at[i]);
    if (faults->dropped > 0)
        (void)fprintf(stderr, "%s: and %zu more\n", path_or_preset,
                      faults->dropped); /* see the header */
    mem_free(faults);
    return p;
}
