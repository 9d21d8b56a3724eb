/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "tunneld/config_value.h"

enum {
    WORKERS_MAX = 256, /* threads; far above what one socket's packets need */
    RESERVED_MAX = 1024,
    /* what stands before the domain: "65535-", the longest id, a dot */
    DOMAIN_MAX = HOST_MAX - (6 + HOST_ID_MAX + 1),
};

/* -- names ----------------------------------------------------------------------------- */

static void get_host(struct config_reader *r, const char *path, const struct json *v,
                     char ret[HOST_MAX + 1])
{
    const char *s = config_get_text(r, path, v);
    struct host h;

    if (s == NULL)
        return;
    if (host_parse(span_str(s), &h) < 0 || h.port != 0 || h.is_ip)
        config_fault(r, path, "must be a host name without a port");
    else if (strlen(h.name) > DOMAIN_MAX)
        config_fault(r, path, "must have at most %d characters", DOMAIN_MAX);
    else
        memcpy(ret, h.name, sizeof(h.name));
}

static void read_domain(struct config_reader *r, const char *path, const struct json *v)
{
    get_host(r, path, v, r->conf->domain);
}

static void read_control_host(struct config_reader *r, const char *path,
                              const struct json *v)
{
    get_host(r, path, v, r->conf->control_host);
}

/* Only scheme and port are used; the host is checked against the domain in config.c, so that
 * nobody believes it could be another. */
static void read_public_url(struct config_reader *r, const char *path,
                            const struct json *v)
{
    const char *s = config_get_text(r, path, v);
    const char *colon;
    struct host h;
    size_t n;

    if (s == NULL)
        return;
    colon = strstr(s, "://");
    n = colon != NULL ? strcspn(colon + 3, "/") : 0;
    if (colon == NULL || host_parse(span_of(colon + 3, n), &h) < 0 || h.is_ip ||
        (colon[3 + n] != '\0' && strcmp(colon + 3 + n, "/") != 0) ||
        !(span_is(span_of(s, (size_t)(colon - s)), "https") ||
          span_is(span_of(s, (size_t)(colon - s)), "http"))) {
        config_fault(r, path, "must be https://HOST[:PORT] or http://HOST[:PORT]");
        return;
    }
    r->conf->has_public_url = true;
    (void)snprintf(r->conf->public_scheme, sizeof(r->conf->public_scheme), "%s",
                   colon - s == 5 ? "https" : "http");
    r->conf->public_port = h.port == (colon - s == 5 ? 443 : 80) ? 0 : h.port;
    if (strcmp(h.name, r->conf->domain) != 0 && r->conf->domain[0] != '\0')
        config_fault(r, path, "its host must be that of \"domain\"");
}

static void read_reserved_item(struct config_reader *r, const char *path,
                               const struct json *v)
{
    const char *s = config_get_text(r, path, v);

    if (s == NULL)
        return;
    if (!host_name_is_claimable(span_str(s))) {
        config_fault(r, path, "cannot be taken anyway, or is no label in lower case");
        return;
    }
    (void)snprintf(r->conf->reserved_names[r->conf->n_reserved++], HOST_LABEL_MAX + 1,
                   "%s", s);
}

static void read_reserved_names(struct config_reader *r, const char *path,
                                const struct json *v)
{
    size_t n = json_type(v) == JSON_ARRAY ? json_len(v) : 0;

    if (n > 0 && n <= RESERVED_MAX) {
        r->conf->reserved_names = mem_zalloc(n, sizeof(*r->conf->reserved_names));
        if (r->conf->reserved_names == NULL) {
            config_fault(r, path, "no memory");
            return;
        }
    }
    config_read_array(r, path, v, RESERVED_MAX, read_reserved_item);
}

/* -- addresses ------------------------------------------------------------------------- */

static bool get_addr(struct config_reader *r, const char *path, const struct json *v,
                     bool may_be_unix, struct sock_addr *ret)
{
    const char *s = config_get_text(r, path, v);
    struct err e;

    if (s == NULL)
        return false;
    if (sock_parse(s, ret, &e) < 0) {
        config_fault(r, path, "%s", e.msg);
        return false;
    }
    if (ret->u.sa.sa_family == AF_UNIX && !may_be_unix) {
        config_fault(r, path, "must be an address with a port");
        return false;
    }
    return true;
}

static void read_listen_address(struct config_reader *r, const char *path,
                                const struct json *v)
{
    (void)get_addr(r, path, v, false, &r->listen->addr); /* the fault is told */
}

static void read_listen_tls(struct config_reader *r, const char *path,
                            const struct json *v)
{
    r->listen->has_tls = config_get_bool(r, path, v, true);
}

static void read_listen_proxy(struct config_reader *r, const char *path,
                              const struct json *v)
{
    r->listen->has_proxy_protocol = config_get_bool(r, path, v, false);
}

static void read_listen_item(struct config_reader *r, const char *path,
                             const struct json *v)
{
    static const struct config_row ROWS[] = {
        {"address", read_listen_address, true},
        {"tls", read_listen_tls, false},
        {"proxy_protocol", read_listen_proxy, false},
    };

    r->listen = &r->conf->listen[r->conf->n_listen++];
    r->listen->has_tls = true;
    if (json_type(v) == JSON_STRING)
        read_listen_address(r, path, v);
    else if (json_type(v) == JSON_OBJECT)
        config_read_object(r, path, v, ROWS, COUNT_OF(ROWS));
    else
        config_fault(r, path, "must be a string or an object");
    r->listen = NULL;
}

static void read_listen(struct config_reader *r, const char *path, const struct json *v)
{
    config_read_array(r, path, v, CONFIG_LISTEN_MAX, read_listen_item);
    if (json_type(v) == JSON_ARRAY && json_len(v) == 0)
        config_fault(r, path, "must not be empty");
}

static void read_redirect_item(struct config_reader *r, const char *path,
                               const struct json *v)
{
    if (get_addr(r, path, v, false, &r->conf->redirect_listen[r->conf->n_redirect]))
        r->conf->n_redirect++;
}

static void read_redirect_listen(struct config_reader *r, const char *path,
                                 const struct json *v)
{
    config_read_array(r, path, v, CONFIG_LISTEN_MAX, read_redirect_item);
}

static void read_admin_listen(struct config_reader *r, const char *path,
                              const struct json *v)
{
    (void)get_addr(r, path, v, true, &r->conf->admin_listen); /* the fault is told */
}

static void read_trusted_item(struct config_reader *r, const char *path,
                              const struct json *v)
{
    const char *s = config_get_text(r, path, v);

    if (s == NULL)
        return;
    if (sock_cidr_parse(span_str(s), &r->conf->trusted[r->conf->n_trusted]) < 0)
        config_fault(r, path, "must be an address or a range like \"10.0.0.0/8\"");
    else
        r->conf->n_trusted++;
}

static void read_trusted_proxies(struct config_reader *r, const char *path,
                                 const struct json *v)
{
    config_read_array(r, path, v, CONFIG_CIDR_MAX, read_trusted_item);
}

/* -- files and keys -------------------------------------------------------------------- */

static void read_tls_cert(struct config_reader *r, const char *path, const struct json *v)
{
    config_get_copy(r, path, v, &r->conf->tls_cert);
}

static void read_tls_key(struct config_reader *r, const char *path, const struct json *v)
{
    config_get_copy(r, path, v, &r->conf->tls_key);
}

static void read_tls(struct config_reader *r, const char *path, const struct json *v)
{
    static const struct config_row ROWS[] = {
        {"cert", read_tls_cert, true},
        {"key", read_tls_key, true},
    };

    config_read_object(r, path, v, ROWS, COUNT_OF(ROWS));
}

static void read_state_dir(struct config_reader *r, const char *path,
                           const struct json *v)
{
    config_get_copy(r, path, v, &r->conf->state_dir);
}

static void read_key_kid(struct config_reader *r, const char *path, const struct json *v)
{
    unsigned i;

    config_get_bounded(r, path, v, r->key->kid, sizeof(r->key->kid));
    if (strncmp(r->key->kid, "server-", 7) == 0)
        config_fault(r, path, "ids that start with \"server-\" are the server's own");
    for (i = 0; &r->conf->key[i] != r->key; i++)
        if (r->key->kid[0] != '\0' && strcmp(r->conf->key[i].kid, r->key->kid) == 0)
            config_fault(r, path, "keys[%u] has the same id", i);
}

static void read_key_alg(struct config_reader *r, const char *path, const struct json *v)
{
    static const char *const ALG[2] = {"EdDSA", "HS256"};

    r->key->alg = config_get_word(r, path, v, ALG) == 0 ? TOKEN_EDDSA : TOKEN_HS256;
}

static void read_key_file(struct config_reader *r, const char *path, const struct json *v)
{
    config_get_copy(r, path, v, &r->key->file);
}

static void read_key_tenant(struct config_reader *r, const char *path,
                            const struct json *v)
{
    config_get_bounded(r, path, v, r->key->tenant, sizeof(r->key->tenant));
}

static void read_key(struct config_reader *r, const char *path, const struct json *v)
{
    static const struct config_row ROWS[] = {
        {"kid", read_key_kid, true},
        {"alg", read_key_alg, true},
        {"file", read_key_file, true},
        {"tenant", read_key_tenant, false},
    };

    r->key = &r->conf->key[r->conf->n_keys++];
    config_read_object(r, path, v, ROWS, COUNT_OF(ROWS));
    r->key = NULL;
}

static void read_keys(struct config_reader *r, const char *path, const struct json *v)
{
    config_read_array(r, path, v, CONFIG_KEYS_MAX, read_key);
}

/* -- the rest -------------------------------------------------------------------------- */

static void read_workers(struct config_reader *r, const char *path, const struct json *v)
{
    r->conf->workers = (unsigned)config_get_int(r, path, v, 0, WORKERS_MAX);
}

static void read_default_visibility(struct config_reader *r, const char *path,
                                    const struct json *v)
{
    static const char *const WORD[2] = {"private", "public"};

    r->conf->default_public = config_get_word(r, path, v, WORD) == 1;
}

static void read_log_format(struct config_reader *r, const char *path,
                            const struct json *v)
{
    static const char *const WORD[2] = {"text", "json"};

    r->conf->log_json = config_get_word(r, path, v, WORD) == 1;
}

static void read_log_level(struct config_reader *r, const char *path,
                           const struct json *v)
{
    const char *s = config_get_text(r, path, v);

    if (s != NULL && log_level_parse(s, &r->conf->log_level) < 0)
        config_fault(r, path, "must be err, warn, notice, info or debug");
}

static void read_log(struct config_reader *r, const char *path, const struct json *v)
{
    static const struct config_row ROWS[] = {
        {"format", read_log_format, false},
        {"level", read_log_level, false},
    };

    config_read_object(r, path, v, ROWS, COUNT_OF(ROWS));
}

#define CONF_LIMIT(name, default_, min, max, unit, help)                                 \
    static void read_limit_##name(struct config_reader *r, const char *path,             \
                                  const struct json *v)                                  \
    {                                                                                    \
        r->conf->limits.name = config_get_int(r, path, v, min, max);                     \
    }
#include "tunneld/config.def"
#undef CONF_LIMIT

static void read_limits(struct config_reader *r, const char *path, const struct json *v)
{
    static const struct config_row ROWS[] = {
#define CONF_LIMIT(name, default_, min, max, unit, help)                                 \
    {#name, read_limit_##name, false},
#include "tunneld/config.def"
#undef CONF_LIMIT
    };

    config_read_object(r, path, v, ROWS, COUNT_OF(ROWS));
}

void config_read(struct config_reader *r, const struct json *root)
{
    /* tests/lint/docs.sh reads the names of these rows. */
    static const struct config_row ROWS[] = {
        {"domain", read_domain, true},
        {"control_host", read_control_host, false},
        {"public_url", read_public_url, false},
        {"listen", read_listen, true},
        {"redirect_listen", read_redirect_listen, false},
        {"admin_listen", read_admin_listen, false},
        {"tls", read_tls, false},
        {"keys", read_keys, false},
        {"state_dir", read_state_dir, false},
        {"workers", read_workers, false},
        {"trusted_proxies", read_trusted_proxies, false},
        {"default_visibility", read_default_visibility, false},
        {"reserved_names", read_reserved_names, false},
        {"limits", read_limits, false},
        {"log", read_log, false},
    };

    config_read_object(r, "", root, ROWS, COUNT_OF(ROWS));
}
