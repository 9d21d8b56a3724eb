/* SPDX-License-Identifier: MIT */
/**
 * proxy -- which proxy, if any, stands between us and a server: proxy URLs, the
 *          environment's variables, and NO_PROXY. Pure functions.
 *
 * A proxy that is set and cannot be used is an error, never a direct connection.
 * Credentials are in no message.
 */
#ifndef AGENTD_LINK_PROXY_H
#define AGENTD_LINK_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/host.h"
#include "common/secret.h"
#include "common/span.h"

enum proxy_scheme {
    PROXY_HTTP,    /* CONNECT, in the clear up to the proxy */
    PROXY_HTTPS,   /* CONNECT inside TLS to the proxy */
    PROXY_SOCKS5,  /* we resolve the name and give an address */
    PROXY_SOCKS5H, /* the proxy resolves the name */
};

struct proxy_url {
    enum proxy_scheme scheme;
    char host[HOST_MAX + 1]; /* canonical; an IPv6 address without brackets */
    uint16_t port;
    bool has_credentials;
    struct secret user, password; /* decoded; without control characters */
};

/**
 * "[SCHEME://][USER[:PASSWORD]@]HOST[:PORT][/]", at most PROXY_URL_MAX bytes. Scheme http
 * when there is none; ports 80, 443, 1080. USER and PASSWORD are percent-decoded; the
 * last
 * "@" ends them. 0, or -1 with ERR_CONFIG (*ret empty). Undo with proxy_url_done().
 */
int proxy_url_parse(struct span text, struct proxy_url *ret, struct err *e);
void proxy_url_done(struct proxy_url *p);
const char *proxy_scheme_name(enum proxy_scheme s);

/** "HOST:PORT", brackets around an IPv6 address. */
#define PROXY_TEXT_MAX (HOST_MAX + 10)
const char *proxy_print(const char *host, uint16_t port, char out[PROXY_TEXT_MAX]);

/** The variables, borrowed from the environment; NULL: unset or empty. */
struct proxy_env {
    const char *https_proxy, *all_proxy, *no_proxy;
};
/** Lower case before upper case, as curl does. */
void proxy_env_get(struct proxy_env *ret);

/**
 * Does a NO_PROXY list name this server? Entries are separated by commas or white space:
 * "*"; an address; a CIDR; "name", which stands for itself and what is under it; ".name"
 * and "*.name", which stand for what is under it; each with ":port". Addresses are
 * compared with a server that is given as an address, nothing is resolved.
 * @name  canonical, an IPv6 address without brackets
 */
bool proxy_is_bypassed(struct span no_proxy, const char *name, uint16_t port);

/**
 * The proxy for a TLS connection to name:port.
 * @setting  a URL; "none"; "env" or NULL: HTTPS_PROXY, else ALL_PROXY, unless NO_PROXY
 *           names the server. Loopback names are no exception: a proxy that is set is never
 *           gone around (NO_PROXY=.localhost says otherwise)
 * Returns 1 with *ret to be undone, 0: connect directly, -1 with *e.
 */
int proxy_choose(const char *setting, const struct proxy_env *env, const char *name,
                 uint16_t port, struct proxy_url *ret, struct err *e);

#endif
