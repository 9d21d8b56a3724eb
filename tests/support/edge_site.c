/* SPDX-License-Identifier: MIT */
#include "tests/support/edge_site.h"

#include <string.h>

static bool find_name(void *owner, const char *name, char ret_id[HOST_ID_MAX + 1],
                      uint16_t *ret_port)
{
    UNUSED_ARG(owner);
    if (strcmp(name, "shop") != 0)
        return false;
    memcpy(ret_id, "demo", 5);
    *ret_port = 3000;
    return true;
}

static bool publishes(void *owner, const char *id, uint16_t port)
{
    UNUSED_ARG(owner);
    return strcmp(id, "demo") == 0 && (port == 3000 || port == 4000 || port == 80);
}

static const struct site_ops site_ops = {find_name, publishes};

void edge_site_init(struct site *s, struct config *conf, const char *host)
{
    memset(conf, 0, sizeof(*conf));
    memset(s, 0, sizeof(*s));
    memcpy(conf->domain, "preview.test", 13);
    memcpy(conf->control_host, "preview.test", 13);
    memcpy(conf->public_scheme, "https", 6);
    conf->public_port = 8443;
    conf->limits.cookie_s = 43200;
    conf->limits.access_token_s = 300;
    conf->n_trusted = 1;
    (void)sock_cidr_parse(span_str("10.0.0.0/8"), &conf->trusted[0]);
    s->conf = conf;
    s->ops = &site_ops;
    site_find(s, span_str(host));
}

int edge_site_request(const char *text, struct http1_head *ret)
{
    return http1_parse_request(span_str(text), ret) == HTTP1_OK ? 0 : -1;
}

int edge_site_response(const char *text, struct http1_head *ret)
{
    return http1_parse_response(span_str(text), ret) == HTTP1_OK ? 0 : -1;
}
