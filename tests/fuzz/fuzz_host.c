/* SPDX-License-Identifier: MIT */
/* A canonical name is its own canonical form, and a routed label is what it
 * was made of. */
#include <stdio.h>
#include <stdlib.h>

#include "common/host.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void route(const struct host *h)
{
    static const char domain[] = "p.example";
    char want[HOST_MAX + 1] = "";
    struct host_route r;

    host_route(h, domain, "c.example", &r);
    if (r.kind == HOST_PREVIEW) {
        MUST(r.port > 0);
        (void)snprintf(want, sizeof(want), "%u-%s.%s", r.port, r.id, domain);
    } else if (r.kind == HOST_LINK) {
        (void)snprintf(want, sizeof(want), "0-%s.%s", r.id, domain);
    } else if (r.kind == HOST_NAME) {
        (void)snprintf(want, sizeof(want), "%s.%s", r.name, domain);
    } else {
        MUST(r.port == 0 && r.id[0] == '\0' && r.name[0] == '\0');
        return;
    }
    MUST(strcmp(want, h->name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    char id[HOST_ID_MAX + 1], text[HOST_MAX + 12];
    struct port_list l;
    struct host h, again;

    if (host_parse(span_of(p, n), &h) == 0) {
        bool is_ip6 = strchr(h.name, ':') != NULL;

        (void)snprintf(text, sizeof(text), is_ip6 ? "[%s]" : "%s", h.name);
        MUST(host_parse(span_str(text), &again) == 0);
        MUST(strcmp(again.name, h.name) == 0 && again.is_ip == h.is_ip);
        MUST(again.port == 0);
        route(&h);
    }
    if (host_id_parse(span_of(p, n), id) == 0)
        MUST(strlen(id) == n && host_id_parse(span_str(id), id) == 0);
    if (port_list_parse(span_of(p, n), &l) == 0)
        for (unsigned i = 0; i < l.n; i++)
            MUST(port_list_has(&l, l.range[i].first) && l.range[i].first > 0);
    (void)host_name_is_claimable(span_of(p, n));
    return 0;
}
