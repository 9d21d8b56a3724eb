/* SPDX-License-Identifier: MIT */
/**
 * ws_link -- struct link (common/link.h) over an open client WebSocket.
 *
 * Sends   a batch is framed, masked and written where it was gathered; what the socket
 * does not take is kept (at most WS_PENDING_MAX), and no new batch begins while something
 *         is kept or more than MUX_AHEAD bytes wait unsent in the kernel.
 * Memory  receive and send buffers belong to the loop, not to the link: an idle link has
 *         none. One link may be inside begin()..commit() at a time, without a callback
 *         between them.
 * Ends    by link_user_ops.closed(), from the loop; ws_link frees itself before it.
 */
#ifndef AGENTD_LINK_WS_LINK_H
#define AGENTD_LINK_WS_LINK_H

#include <stdint.h>

#include "common/conn.h"
#include "common/err.h"
#include "common/link.h"
#include "common/loop.h"

/** What all links of one loop share: buffers, and random bytes for masks. */
struct ws_scratch;
struct ws_scratch *ws_scratch_new(void); /* NULL: no memory */
void ws_scratch_free(struct ws_scratch *s);

struct ws_link;
/** Takes the connection in all cases. NULL: no memory. */
struct ws_link *ws_link_new(struct loop *l, struct conn **take_conn, struct ws_scratch *s,
                            const struct link_user_ops *ops, void *user);
struct link *ws_link_link(struct ws_link *w);
/** Cut the connection, no closed(). *w becomes NULL; NULL is fine. Anywhere but between
 *  begin() and commit(). */
void ws_link_cut(struct ws_link **w);
/** When bytes last came, loop_now() of then; the start counts as such. */
uint64_t ws_link_last_rx_ms(const struct ws_link *w);
/** Bytes kept because the socket did not take them. */
size_t ws_link_pending(const struct ws_link *w);

#endif
