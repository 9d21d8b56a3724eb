/* SPDX-License-Identifier: MIT */
#include "tunneld/admin.h"

#include "common/metrics.h"

static bool has_path(const struct http1_head *rq, const char *path)
{
    size_t n = strlen(path);

    return rq->target.len >= n && memcmp(rq->target.p, path, n) == 0 &&
           (rq->target.len == n || rq->target.p[n] == '?');
}

int admin_answer(bool is_ready, const struct http1_head *rq,
                 struct small_http_answer *ret)
{
    if (!span_eq(rq->method, span_str("GET")) && !span_eq(rq->method, span_str("HEAD"))) {
        ret->status = 405;
        return buf_adds(&ret->fields, "Allow: GET, HEAD\r\n");
    }
    ret->status = 200;
    if (has_path(rq, "/healthz"))
        return buf_adds(&ret->body, "ok\n");
    if (has_path(rq, "/readyz")) {
        ret->status = is_ready ? 200 : 503;
        return buf_adds(&ret->body, is_ready ? "ready\n" : "stopping\n");
    }
    if (has_path(rq, "/metrics")) {
        ret->type = "text/plain; version=0.0.4; charset=utf-8";
        return metrics_print(&ret->body);
    }
    ret->status = 404;
    return buf_adds(&ret->body, "/healthz /readyz /metrics\n");
}
