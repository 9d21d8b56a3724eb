/* SPDX-License-Identifier: MIT */
/* A proxy URL, a NO_PROXY list and a name, separated by NUL. */
#include <stdlib.h>
#include <string.h>

#include "agentd/link/proxy.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    const uint8_t *nul = n ? memchr(p, 0, n) : NULL;
    size_t len = nul ? (size_t)(nul - p) : n;
    struct proxy_url url;
    struct err e = {0};
    struct host host;
    const uint8_t *list, *name;

    if (proxy_url_parse(span_of(p, len), &url, &e) == 0) {
        if (url.port == 0 || url.host[0] == '\0')
            abort();
        proxy_url_done(&url);
    } else if (e.code == ERR_NONE) {
        abort();
    }
    if (nul) {
        list = nul + 1;
        n -= len + 1;
        name = n ? memchr(list, 0, n) : NULL;
        len = name ? (size_t)(name - list) : 0;
        if (name && host_parse(span_of(name + 1, n - len - 1), &host) == 0)
            (void)proxy_is_bypassed(span_of(list, len), host.name, host.port);
    }
    if (mem_live())
        abort();
    return 0;
}
