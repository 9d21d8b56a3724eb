/* SPDX-License-Identifier: MIT */
/**
 * dial -- from nothing to an open WebSocket, one straight line: name, connect, proxy,
 * TLS, upgrade, token.
 *
 *   direct:       resolve 0-ID.DOMAIN -> connect ------------------------> TLS -> upgrade
 *   http, https:  resolve the proxy -> connect -> [TLS] -> CONNECT ------> TLS -> upgrade
 *   socks5h:      resolve the proxy -> connect -> SOCKS5 with the name --> TLS -> upgrade
 *   socks5:       resolve both -> connect -> SOCKS5 with an address -----> TLS -> upgrade
 *
 * A proxy that is set is used or is the error; there is no way around it. Each stage has
 * its deadline in common/limits.def. Neither the token nor a proxy's credentials are in
 * any message. dialer -- what the dials of one process (and their links) share.
 */
#ifndef AGENTD_LINK_DIAL_H
#define AGENTD_LINK_DIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "agentd/link/server_url.h"
#include "agentd/link/ws_link.h"
#include "common/conn.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/span.h"

struct dialer_conf {
    const char *ca_file;      /* trusted besides the system's store; NULL: none */
    const char *proxy;        /* URL, "env" or "none"; NULL: "env" */
    const char *name_servers; /* "127.0.0.1:53,..."; NULL: the system's */
};
struct dialer;
/** NULL with *e: ERR_CONFIG (CA file, proxy URL), ERR_NOMEM. Strings are copied. */
struct dialer *dialer_new(struct loop *l, const struct dialer_conf *conf, struct err *e);
/** After the last dial and link of it is gone. NULL is fine. */
void dialer_free(struct dialer *d);
/** The buffers its links share; they live as long as the dialer. */
struct ws_scratch *dialer_scratch(struct dialer *d);

enum dial_stage {
    DIAL_NAME,    /* direct: 0-ID.DOMAIN has an address; socks5: the same */
    DIAL_CONNECT, /* direct: something takes the connection */
    DIAL_PROXY,   /* the proxy has a name, takes us, and connects to the server */
    DIAL_TLS,     /* the server has a certificate we trust for 0-ID.DOMAIN */
    DIAL_UPGRADE, /* the server speaks tunnel.v1 */
    DIAL_TOKEN,   /* the server takes the token */
    DIAL_STAGE_COUNT
};
const char *dial_stage_name(enum dial_stage s); /* "name" */

struct dial_failure {
    enum dial_stage stage;
    struct err err;
    bool is_refused;         /* stage TOKEN: by the server, 401 or 403 */
    uint32_t retry_after_ms; /* 0: not said */
};

struct dial_ops {
    /* A stage is behind us; `finding` in words. May be NULL. A stage that does not apply
     * (PROXY without one) is left out. Must not cancel the dial. */
    void (*passed)(void *owner, enum dial_stage stage, const char *finding);
    /* The end: an open WebSocket, unread bytes inside; taken. The dial is gone. */
    void (*opened)(void *owner, struct conn **take_conn);
    /* The other end. The dial is gone. */
    void (*failed)(void *owner, const struct dial_failure *why);
};

struct dial_conf {
    struct dialer *dialer; /* outlives the dial */
    const struct server_url *server;
    const char *id;
    struct span token; /* copied */
};
struct dial;
/** NULL with *e: ERR_CONFIG, ERR_NOMEM. All else comes by failed(), from the loop. */
struct dial *dial_start(const struct dial_conf *conf, const struct dial_ops *ops,
                        void *owner, struct err *e);
/** No callback after this; *d becomes NULL; NULL is fine. */
void dial_cancel(struct dial **d);

#endif
