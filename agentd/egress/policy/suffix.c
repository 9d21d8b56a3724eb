/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/suffix.h"

#include <libpsl.h>
#include <string.h>

#include "common/cdefs.h"

/* Never in the public DNS: RFC 2606, RFC 6761, RFC 6762 appendix G, ICANN's
 * "internal". */
static const char *const own_use[] = {
    "corp", "example", "home",        "internal",  "intranet", "invalid",
    "lan",  "local",   "localdomain", "localhost", "private",  "test",
};

enum suffix_kind suffix_of(const char *name)
{
    const psl_ctx_t *list = psl_builtin();

    if (!strchr(name, '.')) {
        for (size_t i = 0; i < COUNT_OF(own_use); i++)
            if (strcmp(name, own_use[i]) == 0)
                return SUFFIX_NONE;
        return SUFFIX_PUBLIC;
    }
    if (!list)
        return SUFFIX_NONE; /* a libpsl without the list; Debian's has it */
    /* Without the rule that any top-level name is a suffix: seen above. */
    if (psl_is_public_suffix2(list, name, PSL_TYPE_ICANN | PSL_TYPE_NO_STAR_RULE))
        return SUFFIX_PUBLIC;
    if (psl_is_public_suffix2(list, name, PSL_TYPE_PRIVATE | PSL_TYPE_NO_STAR_RULE))
        return SUFFIX_PRIVATE;
    return SUFFIX_NONE;
}
