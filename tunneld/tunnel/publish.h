/* SPDX-License-Identifier: MIT */
/**
 * publish -- the ports that one sandbox publishes: the table, the rules by which a port gets
 *            in (the token's ports, names and public), and the URLs.
 */
#ifndef TUNNELD_TUNNEL_PUBLISH_H
#define TUNNELD_TUNNEL_PUBLISH_H

#include "common/control.h"
#include "tunneld/tunnel/tunnel.h"

struct publish_port {
    uint16_t port;
    enum control_visibility visibility;
    enum control_host_mode host_mode;
    char *name; /* owned; NULL: none */
};
/** Sorted by port, at most CONTROL_PORTS_MAX. Zero it for an empty one. */
struct publish {
    struct publish_port *port;
    unsigned n, cap;
};

/** Frees, and releases the names in the directory. */
void publish_done(struct publish *p, struct tunnel *t, const char *id);
/** NULL: not there. Valid until the table changes. */
const struct publish_port *publish_find(const struct publish *p, uint16_t port);
/**
 * Take a PORT message in: a new port, or other options of one that is there.
 * Fills the URL message that answers it; when that is a refusal, nothing has changed.
 */
void publish_put(struct publish *p, struct tunnel *t, const struct token *token,
                 const struct control_msg *m, struct control_msg *answer);
/** false: it was not there. */
bool publish_remove(struct publish *p, struct tunnel *t, const char *id, uint16_t port);

/** "https://{port}-demo.preview.example.com:8443/"; `ret` is CONTROL_URL_MAX + 1 long. */
void publish_url_form(const struct config *conf, const char *id, char *ret);

#endif
