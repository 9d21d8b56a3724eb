/* SPDX-License-Identifier: MIT */
#include "agentd/link/server_url.h"

#include <stdio.h>
#include <string.h>

#include "agentd/link/resolve.h"

int server_url_parse(const char *text, struct server_url *ret, struct err *e)
{
    struct span rest = span_str(text);
    struct server_url url = {0};
    struct host host;

    if (strncasecmp(text, "https://", 8) == 0) {
        url.is_tls = true;
        rest = span_skip(rest, 8);
    } else if (strncasecmp(text, "http://", 7) == 0) {
        rest = span_skip(rest, 7);
    } else {
        return err_set(e, ERR_CONFIG, "the server is given as https://DOMAIN[:PORT]");
    }
    if (rest.len && rest.p[rest.len - 1] == '/')
        rest.len--;
    if (host_parse(rest, &host) < 0 || rest.p[rest.len - 1] == ':')
        return err_set(e, ERR_CONFIG,
                       "the server is given as https://DOMAIN[:PORT], without a path");
    if (host.is_ip)
        return err_set(
            e, ERR_CONFIG,
            "the server is given by its domain: an address has no names below");
    if (!url.is_tls && !resolve_is_localhost(host.name))
        return err_set(e, ERR_CONFIG,
                       "http:// would send the token in the clear to \"%.64s\"; only "
                       "localhost and names under it may be spoken to so",
                       host.name);
    memcpy(url.domain, host.name, sizeof(url.domain));
    url.port = host.port ? host.port : url.is_tls ? 443 : 80;
    *ret = url;
    return 0;
}

int server_url_link_host(const struct server_url *s, const char *id,
                         char ret[HOST_MAX + 1], struct err *e)
{
    char canonical[HOST_ID_MAX + 1];
    char host[HOST_ID_MAX + HOST_MAX + 4];
    int n;

    if (host_id_parse(span_str(id), canonical) < 0)
        return err_set(e, ERR_CONFIG,
                       "a sandbox id has 1 to %d of a-z 0-9 -, no - at the ends, no --",
                       HOST_ID_MAX);
    n = snprintf(host, sizeof(host), "0-%s.%s", canonical, s->domain);
    if (n > HOST_MAX)
        return err_set(e, ERR_CONFIG,
                       "the sandbox id and the domain are too long together");
    memcpy(ret, host, (size_t)n + 1);
    return 0;
}
