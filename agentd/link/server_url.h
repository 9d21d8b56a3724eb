/* SPDX-License-Identifier: MIT */
/** server_url -- "https://DOMAIN[:PORT]", and the link's host under it. */
#ifndef AGENTD_LINK_SERVER_URL_H
#define AGENTD_LINK_SERVER_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/host.h"

struct server_url {
    bool is_tls;
    char domain[HOST_MAX + 1]; /* canonical */
    uint16_t port;
};

/** http:// is taken for localhost and names under it only: there is no network to listen
 *  on the token. 0, or -1 with ERR_CONFIG. */
int server_url_parse(const char *text, struct server_url *ret, struct err *e);
/** "0-ID.DOMAIN". 0, or -1 with ERR_CONFIG: no valid id, or the whole is too long. */
int server_url_link_host(const struct server_url *s, const char *id,
                         char ret[HOST_MAX + 1], struct err *e);

#endif
