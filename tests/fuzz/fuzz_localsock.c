/* SPDX-License-Identifier: MIT */
/* Requests of the local socket: what is understood prints and reads back as the same. */
#include <stdlib.h>
#include <string.h>

#include "agentd/localsock.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct localsock_request r, again;

    if (localsock_parse(span_of(p, n), &r, NULL) < 0)
        return 0;
    if (localsock_print(&r, &b) < 0 || localsock_parse(buf_span(&b), &again, NULL) < 0 ||
        r.op != again.op || r.port != again.port || r.is_public != again.is_public ||
        strcmp(r.name, again.name) != 0 || strcmp(r.server, again.server) != 0 ||
        strcmp(r.sandbox, again.sandbox) != 0)
        abort();
    return 0;
}
