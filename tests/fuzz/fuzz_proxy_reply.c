/* SPDX-License-Identifier: MIT */
/* First byte: which proxy, and how the rest, its answer, is cut. */
#include <stdlib.h>

#include "agentd/link/proxy_connect.h"
#include "common/limits.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const char *const urls[] = {"http://p", "http://u:p@p", "socks5h://p",
                                       "socks5h://u:p@p"};
    struct proxy_target to = {.name = "a.example", .port = 443};
    struct proxy_connect c;
    struct proxy_url url;
    struct err e = {0};
    enum proxy_result r = PROXY_MORE;
    size_t piece;

    if (n == 0)
        return 0;
    piece = (size_t)(p[0] >> 2) + 1;
    if (proxy_url_parse(span_str(urls[p[0] & 3]), &url, &e) < 0 ||
        proxy_connect_init(&c, &url, &to, &e) < 0)
        abort();
    p++, n--;
    while (n && r == PROXY_MORE) {
        size_t len = n < piece ? n : piece;
        struct span in = span_of(p, len);

        proxy_connect_sent(&c, proxy_connect_output(&c).len);
        r = proxy_connect_feed(&c, &in, &e);
        if (in.len > len || in.p + in.len != p + len)
            abort();
        if (r == PROXY_MORE && in.len)
            abort();
        if ((r == PROXY_ERROR || r == PROXY_NEXT) && e.code == ERR_NONE)
            abort();
        if (c.in.len > PROXY_REPLY_MAX)
            abort();
        p += len;
        n -= len;
    }
    proxy_connect_done(&c);
    proxy_url_done(&url);
    if (mem_live())
        abort();
    return 0;
}
