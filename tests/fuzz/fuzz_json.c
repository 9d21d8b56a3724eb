/* SPDX-License-Identifier: MIT */
/* Any bytes as JSON; what is taken must have strings that print and come back the same,
 * and with an allocation failing it is refused without a trace. */
#include <stdlib.h>

#include "common/json.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void check(const struct json *v)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    const struct json *member;
    const char *name;
    struct json *back;
    size_t pos = 0;
    size_t i;

    if (json_type(v) == JSON_STRING) {
        if (buf_adds(&b, "[") < 0 || json_put_str(&b, span_str(json_str(v))) < 0 ||
            buf_adds(&b, "]") < 0)
            return;
        back = json_parse(buf_span(&b), SIZE_MAX, NULL);
        if (back == NULL || strcmp(json_str(json_at(back, 0)), json_str(v)) != 0)
            abort();
        json_free(back);
    }
    for (i = 0; json_type(v) == JSON_ARRAY && i < json_len(v); i++)
        check(json_at(v, i));
    while (json_next(v, &pos, &name, &member)) {
        if (json_get(v, name) != member)
            abort();
        check(member);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct err e;
    struct json *v = json_parse(span_of(p, n), 65536, &e);

    if (v != NULL)
        check(v);
    json_free(v);
    if (n > 0) {
        size_t live = mem_live();

        mem_fault_at(1 + p[n / 2] % 64u);
        json_free(json_parse(span_of(p, n), 65536, &e));
        mem_fault_at(0);
        if (mem_live() != live)
            abort();
    }
    return 0;
}
