/* SPDX-License-Identifier: MIT */
/**
 * control_socket -- how the command line speaks to a keeper: one JSON object a
 *                   line over a unix socket, one request a connection, then the
 *                   answer, then the end.
 *
 *   {"op":"attach","name":"x","policy":{...},"tier":"sealed|veth","pid":N,"netns":"/path","iface":"eth0"}
 *   {"op":"reload","name":"x","policy":{...}}   {"op":"detach","name":"x"}
 *   {"op":"status"}  {"op":"status","name":"x"}
 *   -> {"ok":true,...}  or  {"ok":false,"error":"...","code":"not-found|refused|config|failed"}
 *
 * Only uid 0 or the keeper's own uid is answered (SO_PEERCRED), and nobody from inside of
 * a sandbox (asker); others get code "refused". The policy is sent as text: the client
 * reads files with its own rights.
 * Limits  CONTROL_*.
 */
#ifndef AGENTD_EGRESS_KEEPER_CONTROL_SOCKET_H
#define AGENTD_EGRESS_KEEPER_CONTROL_SOCKET_H

#include "agentd/egress/keeper/keeper.h"

#define CONTROL_CLIENTS_MAX 64
#define CONTROL_CLIENT_MS   30000
#define CONTROL_CALL_MS     35000 /* the asking side's wait; longer than the answering's */
#define CONTROL_STATUS_MS   5000 /* as CONTROL_CALL_MS, where only the status is wanted */
#define CONTROL_SWEEP_MAX   1024
#define CONTROL_ANSWER_MAX  16777216 /* bytes */
#define CONTROL_SERVE_PATH  "/run/agentd/egress.sock"
#define CONTROL_PATH_MAX    108

struct control_socket;
/** @path  made with mode 0600, its folder with 0700; one that nobody answers
 *         on is replaced */
struct control_socket *control_socket_new(struct keeper *k, struct loop *l,
                                          const char *path, struct err *e);
/** Before keeper_free(). What was asked for goes on; its answer goes nowhere. */
void control_socket_free(struct control_socket *s);

/** The other side, blocking, with a deadline: send one request line, get the answer's
 *  object. 0 when "ok" is true; -1 with *e (the answer's error, or the socket's;
 *  control_is_absent() when nobody listens there). The newline is added, and those
 *  inside are blanks. */
int control_call(const char *path, struct span request, struct buf *ret_answer,
                 struct err *e);
/** The same with another deadline. */
int control_call_within(const char *path, struct span request, unsigned ms,
                        struct buf *ret_answer, struct err *e);
/** Is that why: no such socket, or one that was left behind? */
bool control_is_absent(const struct err *e);
/** The socket of a sandbox that `run` keeps: "$XDG_RUNTIME_DIR/agentd/egress/NAME.sock",
 *  as root "/run/agentd/egress/NAME.sock", without that variable
 *  "/tmp/agentd-UID/egress/NAME.sock". 0, or -1 (too long). */
int control_run_path(const char *name, char *ret, size_t cap, struct err *e);
/** The folder of these. */
int control_run_dir(char *ret, size_t cap, struct err *e);
/** Remove those whose `run` was killed, among the first CONTROL_SWEEP_MAX names. */
void control_run_sweep(void);

#endif
