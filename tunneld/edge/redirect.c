/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/redirect.h"

#include "common/host.h"

static int misdirected(struct small_http_answer *ret)
{
    ret->status = 421;
    return buf_adds(&ret->fields, "Tunnel-Error: misdirected\r\n") < 0 ||
                   buf_adds(&ret->body, "This host is not served here.\n") < 0
               ? -1
               : 0;
}

int redirect_answer(const struct config *conf, const struct http1_head *rq,
                    struct small_http_answer *ret)
{
    const struct http1_field *field = http1_find(rq, HTTP1_HOST);
    struct host_route route;
    struct host host;

    /* Never to a host that a stranger wrote into the request. */
    if (!field || host_parse(field->value, &host) < 0)
        return misdirected(ret);
    host_route(&host, conf->domain, conf->control_host, &route);
    if (route.kind == HOST_FOREIGN || route.kind == HOST_BAD)
        return misdirected(ret);
    if (rq->target.len == 0 || rq->target.p[0] != '/') { /* OPTIONS * */
        ret->status = 400;
        return buf_adds(&ret->fields, "Tunnel-Error: bad-request\r\n");
    }
    ret->status = 308;
    if (buf_addf(&ret->fields, "Location: https://%s", host.name) < 0 ||
        (conf->public_port && buf_addf(&ret->fields, ":%u", conf->public_port) < 0) ||
        buf_add(&ret->fields, rq->target.p, rq->target.len) < 0 ||
        buf_adds(&ret->fields, "\r\n") < 0)
        return -1;
    return buf_adds(&ret->body, "This is served over https.\n");
}
