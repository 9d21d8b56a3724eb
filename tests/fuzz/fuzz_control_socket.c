/* SPDX-License-Identifier: MIT */
/* A request line to the keeper: whatever it is, it is refused or in range. */
#include <stdlib.h>

#include "agentd/egress/keeper/control_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct control_request r;
    char id[HOST_ID_MAX + 1];

    if (control_request_parse(span_of(p, n), &r, NULL) < 0)
        return 0;
    if (r.op >= CONTROL_OP_COUNT || r.pid < 0 ||
        (r.name[0] && host_id_parse(span_str(r.name), id) < 0) ||
        (r.policy.len > 0 && (r.policy.p < p || r.policy.p + r.policy.len > p + n)) ||
        (r.op == CONTROL_ATTACH && r.pid == 0 && !r.netns) ||
        ((r.op == CONTROL_ATTACH || r.op == CONTROL_RELOAD) && r.policy.p[0] != '{'))
        abort();
    control_request_done(&r);
    return 0;
}
