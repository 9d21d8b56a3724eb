/* SPDX-License-Identifier: MIT */
/**
 * session -- one linked agent: hello and welcome, the ports it publishes, its mux, pings,
 *            and how the link ends.
 *
 * States   WAIT_HELLO -> OPEN -> LEAVING (its end was told, no new streams) -> gone.
 *          From any state the link may close.
 * Owner    itself: lives from session_new() until its link has closed. Others hold a
 *          pointer only while the registry has it.
 */
#ifndef TUNNELD_TUNNEL_SESSION_H
#define TUNNELD_TUNNEL_SESSION_H

#include "common/control.h"
#include "common/link.h"
#include "tunneld/tunnel/publish.h"
#include "tunneld/tunnel/tunnel.h"

struct session;

/** On an upgraded link. Takes the token (made by mem_alloc). 0, or -1: no memory. */
int session_new(struct tunnel *t, struct link *l, struct token **take_token,
                const struct sock_addr *client);

const char *session_id(const struct session *s);
const char *session_tenant(const struct session *s);
/** NULL: not published. Valid until the next event of the session. */
const struct publish_port *session_port(const struct session *s, uint16_t port);
/** Will the agent never publish it, or may it not by its token? */
bool session_excludes(const struct session *s, uint16_t port);
/** As mux_open(), and bounded by limits.streams_per_link. */
struct mux_stream *session_open(struct session *s, const struct mux_open *open,
                                const struct mux_stream_ops *ops, void *user,
                                enum mux_result *ret_why);

/** Another agent took the sandbox. Streams end now; the same instance is told nothing. */
void session_replaced(struct session *s, const struct session *by);
/** The server goes down (MUX_REASON_DRAIN) and the like: tell the agent, then close. */
void session_end(struct session *s, enum mux_reason why);

#endif
