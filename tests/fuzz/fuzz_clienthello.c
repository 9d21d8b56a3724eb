/* SPDX-License-Identifier: MIT */
/* A verdict never changes with more bytes, and a name that is told is canonical. */
#include <stdlib.h>

#include "common/clienthello.h"
#include "common/limits.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct clienthello whole = {.has_alpn = false}, cut = {.has_alpn = false};
    enum clienthello_result a = clienthello_parse(span_of(p, n), &whole), b;
    size_t at = n > 0 ? (size_t)p[n - 1] * n / 256 : 0;

    b = clienthello_parse(span_of(p, at), &cut);
    MUST(b == CLIENTHELLO_MORE || b == a);
    MUST(a != CLIENTHELLO_MORE || n < CLIENTHELLO_MAX);
    if (b == CLIENTHELLO_OK)
        MUST(memcmp(&whole, &cut, sizeof(whole)) == 0);
    if (a == CLIENTHELLO_OK && whole.server_name[0] != '\0') {
        struct host h;

        MUST(host_parse(span_str(whole.server_name), &h) == 0);
        MUST(strcmp(h.name, whole.server_name) == 0 && !h.is_ip && h.port == 0);
    }
    return 0;
}
