/* SPDX-License-Identifier: MIT */
/* Two tables as lines, compared without regard to the order that means nothing. */
#include "agentd/egress/kernel/nft_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct line {
    struct span head, text; /* "rule inet s1", what it says */
    size_t no;
    bool is_rule;
};

static int compare_span(struct span a, struct span b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int d = n > 0 ? memcmp(a.p, b.p, n) : 0;

    return d != 0 ? d : (a.len > b.len) - (a.len < b.len);
}

static int by_head(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    int d = compare_span(x->head, y->head);

    if (d == 0 && !x->is_rule)
        d = compare_span(x->text, y->text);
    return d != 0 ? d : (x->no > y->no) - (x->no < y->no);
}

static struct line *split(const struct buf *b, size_t *ret_n)
{
    struct span left = buf_span(b);
    struct line *l;
    size_t n = 0, kept = 0;

    for (size_t i = 0; i < b->len; i++)
        n += b->p[i] == '\n';
    l = mem_zalloc(n > 0 ? n : 1, sizeof(*l));
    if (l == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *nl = memchr(left.p, '\n', left.len);
        struct span one = span_of(left.p, (size_t)(nl - left.p));
        const uint8_t *tab = memchr(one.p, '\t', one.len);
        size_t head = tab != NULL ? (size_t)(tab - one.p) : one.len;

        l[i] = (struct line){span_of(one.p, head), span_skip(one, head), i,
                             one.len > 5 && memcmp(one.p, "rule ", 5) == 0};
        left = span_skip(left, one.len + 1);
    }
    qsort(l, n, sizeof(*l), by_head);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || l[i].is_rule || compare_span(l[i].head, l[kept - 1].head) != 0 ||
            compare_span(l[i].text, l[kept - 1].text) != 0)
            l[kept++] = l[i];
    *ret_n = kept;
    return l;
}

int lines_diff(const struct buf *want, const struct buf *have, char *ret, size_t cap)
{
    size_t n_want = 0, n_have = 0, i = 0;
    struct line *w = split(want, &n_want), *h = split(have, &n_have);
    int rc = w == NULL || h == NULL ? -1 : 0;

    for (; rc == 0 && (i < n_want || i < n_have); i++) {
        const struct line *x = i < n_want ? &w[i] : NULL, *y = i < n_have ? &h[i] : NULL;
        int d = x == NULL ? 1 : y == NULL ? -1 : compare_span(x->head, y->head);

        if (d == 0 && compare_span(x->text, y->text) == 0)
            continue;
        if (d == 0)
            (void)snprintf(ret, cap, "%.*s is another", SPAN_FMT(x->head));
        else if (d < 0)
            (void)snprintf(ret, cap, "%.*s is gone", SPAN_FMT(x->head));
        else
            (void)snprintf(ret, cap, "%.*s was added", SPAN_FMT(y->head));
        rc = 1;
    }
    mem_free(w);
    mem_free(h);
    return rc;
}
