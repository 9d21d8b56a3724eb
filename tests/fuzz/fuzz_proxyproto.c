/* SPDX-License-Identifier: MIT */
/* A verdict never changes with more bytes, and a header ends inside what was
 * looked at. */
#include <stdlib.h>

#include "common/limits.h"
#include "common/proxyproto.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct sock_addr whole_client, cut_client;
    size_t whole_len = 0, cut_len = 0;
    enum proxyproto_result a, b;

    a = proxyproto_parse(span_of(p, n), &whole_len, &whole_client);
    b = proxyproto_parse(span_of(p, n > 0 ? (size_t)p[n - 1] * n / 256 : 0), &cut_len,
                         &cut_client);
    MUST(b == PROXYPROTO_MORE || b == a);
    MUST(a != PROXYPROTO_MORE || n < PROXYPROTO_MAX);
    if (a == PROXYPROTO_OK)
        MUST(whole_len > 0 && whole_len <= n && whole_len <= PROXYPROTO_MAX);
    if (b == PROXYPROTO_OK)
        MUST(cut_len == whole_len && cut_client.len == whole_client.len);
    return 0;
}
