/* SPDX-License-Identifier: MIT */
#include "agentd/link/dialer.h"

#include <string.h>

#include "agentd/link/dial.h"
#include "agentd/link/proxy.h"
#include "common/mem.h"

static int copy(char **to, const char *text)
{
    size_t n;

    if (!text)
        return 0;
    n = strlen(text) + 1;
    *to = mem_alloc(n);
    if (!*to)
        return -1;
    memcpy(*to, text, n);
    return 0;
}

/* Told at the start, not at the first dial. */
static int check_proxy(const char *setting, struct err *e)
{
    static const struct proxy_env none;
    struct proxy_url url = {0};
    int rc = 0;

    if (setting)
        rc = proxy_choose(setting, &none, "example.com", 443, &url, e);
    proxy_url_done(&url);
    return rc < 0 ? -1 : 0;
}

struct dialer *dialer_new(struct loop *l, const struct dialer_conf *conf, struct err *e)
{
    struct dialer *d;

    if (check_proxy(conf->proxy, e) < 0)
        return NULL;
    d = mem_zalloc(1, sizeof(*d));
    if (!d) {
        (void)err_set(e, ERR_NOMEM, "dialling: no memory");
        return NULL;
    }
    d->loop = l;
    d->tls = tls_ctx_client(conf->ca_file, e);
    if (!d->tls) {
        dialer_free(d);
        return NULL;
    }
    d->scratch = ws_scratch_new();
    if (!d->scratch || copy(&d->proxy, conf->proxy) < 0 ||
        copy(&d->name_servers, conf->name_servers) < 0) {
        (void)err_set(e, ERR_NOMEM, "dialling: no memory");
        dialer_free(d);
        return NULL;
    }
    return d;
}

void dialer_free(struct dialer *d)
{
    if (!d)
        return;
    tls_ctx_free(d->tls);
    ws_scratch_free(d->scratch);
    if (d->proxy)
        explicit_bzero(d->proxy, strlen(d->proxy));
    mem_free(d->proxy);
    mem_free(d->name_servers);
    mem_free(d);
}

struct ws_scratch *dialer_scratch(struct dialer *d)
{
    return d->scratch;
}
