/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/classify.h"

#include "common/clienthello.h"
#include "common/limits.h"

enum {
    RECORD_HEAD = 5
};

/* Where the TLS record that is being received ends: no look before that can tell more, so a
 * client that sends a byte at a time wakes us a few times and not thousands. */
static size_t record_end(struct span b)
{
    size_t at = 0;

    while (b.len - at >= RECORD_HEAD) {
        size_t end = at + RECORD_HEAD + ((size_t)b.p[at + 3] << 8 | b.p[at + 4]);

        if (end > b.len)
            return end;
        at = end;
    }
    return at + RECORD_HEAD;
}

static void route(struct span authority, const char *domain, const char *control_host,
                  struct host_route *ret)
{
    struct host host;

    *ret = (struct host_route){.kind = HOST_FOREIGN};
    if (authority.len > 0 && host_parse(authority, &host) == 0)
        host_route(&host, domain, control_host, ret);
}

enum classify_result classify_tls(struct span bytes, const char *domain,
                                  const char *control_host, struct host_route *ret_route,
                                  size_t *ret_need)
{
    struct clienthello hello;
    size_t need;

    switch (clienthello_parse(bytes, &hello)) {
    case CLIENTHELLO_OK:
        route(span_str(hello.server_name), domain, control_host, ret_route);
        return CLASSIFY_READY;
    case CLIENTHELLO_MORE:
        need = record_end(bytes);
        *ret_need = need < CLIENTHELLO_MAX ? need : bytes.len + 1;
        return CLASSIFY_MORE;
    case CLIENTHELLO_NOT_TLS:
        return CLASSIFY_NOT_TLS;
    case CLIENTHELLO_BAD:
    case CLIENTHELLO_TOO_BIG:
        break;
    }
    return CLASSIFY_BAD;
}

enum classify_result classify_plain(struct http1_scan *scan, struct span bytes,
                                    const char *domain, const char *control_host,
                                    struct host_route *ret_route, size_t *ret_need)
{
    const struct http1_field *host;
    struct http1_head head;
    enum http1_result r;
    size_t len;

    *ret_route = (struct host_route){.kind = HOST_FOREIGN};
    r = http1_scan(scan, bytes, &len);
    if (r == HTTP1_MORE && bytes.len < CLASSIFY_HEAD_MAX) {
        *ret_need = bytes.len + 1;
        return CLASSIFY_MORE;
    }
    if (r != HTTP1_OK || http1_parse_request(span_of(bytes.p, len), &head) != HTTP1_OK)
        return CLASSIFY_READY;
    host = http1_find(&head, HTTP1_HOST);
    if (host)
        route(host->value, domain, control_host, ret_route);
    return CLASSIFY_READY;
}
