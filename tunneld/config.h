/* SPDX-License-Identifier: MIT */
/**
 * config -- tunneld's configuration: JSON in, one immutable struct out, checked
 *           completely before anything uses it. Reference counted, shared by threads.
 *           The bounds an operator may change are rows of tunneld/config.def.
 */
#ifndef TUNNELD_CONFIG_H
#define TUNNELD_CONFIG_H

#include "common/err.h"
#include "common/host.h"
#include "common/log.h"
#include "common/sock.h"
#include "common/token.h"

#define CONFIG_LISTEN_MAX 16
#define CONFIG_KEYS_MAX   64
#define CONFIG_CIDR_MAX   64

struct config_listen {
    struct sock_addr addr;
    bool has_tls;
    bool has_proxy_protocol;
};
struct config_key {
    char kid[64 + 1];
    enum token_alg alg;
    char *file;
    char tenant[TOKEN_TENANT_MAX + 1];
};

struct config_limits {
#define CONF_LIMIT(name, default_, min, max, unit, help) int64_t name;
#include "tunneld/config.def"
#undef CONF_LIMIT
};

struct config {
    char domain[HOST_MAX + 1];
    char control_host[HOST_MAX + 1]; /* default: domain */
    /* scheme and authority of the URLs we print: */
    char public_scheme[6]; /* "https" or "http" */
    uint16_t public_port;  /* 0: the scheme's default */
    bool has_public_url;
    struct config_listen listen[CONFIG_LISTEN_MAX];
    unsigned n_listen;
    struct sock_addr redirect_listen[CONFIG_LISTEN_MAX];
    unsigned n_redirect;
    struct sock_addr admin_listen; /* len 0: none */
    char *tls_cert, *tls_key;      /* NULL: no TLS listener */
    struct config_key key[CONFIG_KEYS_MAX];
    unsigned n_keys;
    char *state_dir;
    unsigned workers; /* resolved: at least 1 */
    struct sock_cidr trusted[CONFIG_CIDR_MAX];
    unsigned n_trusted;
    bool default_public;
    char (*reserved_names)[HOST_LABEL_MAX + 1]; /* beyond the fixed five */
    unsigned n_reserved;
    bool log_json;
    enum log_level log_level;
    struct config_limits limits;
};

/** Every fault found is reported through `fault` (place and rule, one line each); NULL when
 *  there was any. Reads no other file than `path`. */
typedef void config_fault_fn(void *arg, const char *place, const char *rule);
struct config *config_load(const char *path, config_fault_fn *fault, void *arg);
struct config *config_ref(const struct config *c);
void config_unref(struct config *c);
bool config_trusts(const struct config *c, const struct sock_addr *a);
/** The addresses that the listeners really have, in the order of the configuration. */
struct config_bound {
    struct sock_addr listen[CONFIG_LISTEN_MAX], redirect[CONFIG_LISTEN_MAX], admin;
};
/** Where the operator left the port to the kernel (port 0), put in what it chose, and so into
 *  the URLs we print. Before `c` is shared, and again for the one that a reload brings. */
void config_settle(struct config *c, const struct config_bound *bound);
/** Which key changed that a reload cannot apply ("listen"), or NULL: for SIGHUP. */
const char *config_fixed_change(const struct config *old, const struct config *new);

#endif
