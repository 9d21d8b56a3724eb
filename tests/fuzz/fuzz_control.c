/* SPDX-License-Identifier: MIT */
/* Any text message; what is taken must print to what is taken again. */
#include <stdlib.h>

#include "common/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct control_msg m, back;
    struct err e;

    if (control_parse(span_of(p, n), &m, &e) == 0 && control_print(&m, &b) == 0 &&
        control_parse(buf_span(&b), &back, &e) != 0)
        abort();
    return 0;
}
