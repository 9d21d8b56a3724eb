/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "common/limits.h"
#include "common/metrics.h"
#include "tunneld/tunnel/tunnel.h"

/* What an agent is told to wait when the server is full or going down; the agent adds its own
 * jitter. */
enum {
    RETRY_FULL_S = 10,
    RETRY_DRAIN_S = 2
};

static int refuse(struct link_refusal *ret, unsigned status, const char *code,
                  const char *why)
{
    *ret = (struct link_refusal){.status = status, .code = code};
    (void)snprintf(ret->why, sizeof ret->why, "%.159s",
                   why); /* literals, and cut errors */
    metric_inc(METRIC_LINKS_REFUSED);
    return -1;
}

static int refuse_for_now(struct link_refusal *ret, unsigned status,
                          unsigned retry_after_s, const char *why)
{
    int r = refuse(ret, status, "limit", why);

    ret->retry_after_s = retry_after_s;
    return r;
}

/* The sandbox that the host names, which on TLS must be the server name as well. */
static int link_host(const struct tunnel *t, const struct link_request *rq,
                     struct host_route *ret)
{
    struct host host, server;

    if (host_parse(rq->host, &host) < 0)
        return -1;
    if (rq->server_name && (host_parse(span_str(rq->server_name), &server) < 0 ||
                            strcmp(server.name, host.name) != 0))
        return -1;
    host_route(&host, t->conf->domain, t->conf->control_host, ret);
    return ret->kind == HOST_LINK ? 0 : -1;
}

static int bearer(struct span authorization, struct span *ret)
{
    static const char scheme[] = "Bearer ";
    size_t n = sizeof scheme - 1;

    if (authorization.len <= n || !span_is(span_of(authorization.p, n), scheme))
        return -1;
    *ret = span_skip(authorization, n);
    return 0;
}

/* The checks that say who is speaking, in the order of docs/PROTOCOL.md 2, S1. */
static int check_token(struct tunnel *t, const struct link_request *rq, int64_t now_s,
                       struct token *ret_token, struct link_refusal *ret)
{
    struct host_route route;
    struct span text;
    struct err e = {0};

    if (link_host(t, rq, &route) < 0)
        return refuse(ret, 421, "misdirected", "this host is no sandbox's link here");
    if (bearer(rq->authorization, &text) < 0)
        return refuse(ret, 401, "login-required",
                      "Authorization: Bearer TOKEN is needed");
    if (token_verify(t->keys, text, TOKEN_LINK, now_s, t->conf->limits.link_token_s,
                     ret_token, &e) < 0)
        return refuse(ret, 401, "login-required", e.msg);
    if (strcmp(ret_token->sub, route.id) != 0)
        return refuse(ret, 403, "forbidden", "the token is for another sandbox");
    switch (directory_own(t->directory, route.id, ret_token->tenant)) {
    case DIRECTORY_TAKEN:
        return refuse(ret, 403, "forbidden", "the sandbox belongs to another tenant");
    case DIRECTORY_FULL:
        return refuse_for_now(ret, 429, RETRY_FULL_S,
                              "the server knows too many sandboxes");
    case DIRECTORY_OK:
        break;
    }
    return 0;
}

int admit(struct tunnel *t, const struct link_request *rq, int64_t now_s,
          struct token *ret_token, struct link_refusal *ret)
{
    struct registry_port known;

    if (check_token(t, rq, now_s, ret_token, ret) < 0)
        return -1;
    if (!rq->has_protocol)
        return refuse(ret, 400, "bad-request", "the subprotocol must be " LINK_PROTOCOL);
    /* A link that takes another's place is none more. */
    registry_look(t->registry, ret_token->sub, 1, &known);
    if (!known.is_linked &&
        atomic_load(&metrics_value[METRIC_LINKS]) >= t->conf->limits.links)
        return refuse_for_now(ret, 429, RETRY_FULL_S, "the server has too many links");
    if (t->is_draining)
        return refuse_for_now(ret, 503, RETRY_DRAIN_S, "the server is going down");
    return 0;
}
