/* SPDX-License-Identifier: MIT */
/* Any text as a token: it must never be taken, and its claims alone must not hurt. */
#include <stdlib.h>

#include "common/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static struct token_keys *keys;
    struct token t;
    struct err e;

    if (keys == NULL) {
        struct ed25519 *k = ed25519_generate(NULL);

        keys = token_keys_new();
        if (k == NULL || keys == NULL || token_keys_add(keys, "ed", &k, &e) < 0)
            abort();
    }
    if (token_verify(keys, span_of(p, n), TOKEN_LINK, 1800000000, INT64_MAX, &t, &e) == 0)
        abort();
    if (token_peek(span_of(p, n), &t, &e) == 0)
        (void)token_allows_port(&t, 3000); /* a sanitizer looks at what it reads */
    return 0;
}
