/* SPDX-License-Identifier: MIT */
#include "common/wire.h"

#include <assert.h>

uint32_t wire_rd_uint(struct wire_rd *r, unsigned nbytes)
{
    uint32_t v = 0;

    assert(nbytes >= 1 && nbytes <= 4);
    if (r->bad || wire_rd_left(r) < nbytes) {
        r->bad = true;
        return 0;
    }
    while (nbytes-- > 0)
        v = v << 8 | *r->p++;
    return v;
}

struct wire_rd wire_rd_sub(struct wire_rd *r, size_t len)
{
    struct wire_rd sub = {.p = r->p, .end = r->p};

    if (r->bad || wire_rd_left(r) < len) {
        r->bad = sub.bad = true;
        return sub;
    }
    r->p += len;
    sub.end = r->p;
    return sub;
}
