/* SPDX-License-Identifier: MIT */
/**
 * localsock -- how `agentd http` and `agentd ports` ask an agent that already runs here.
 *
 * Where    $XDG_RUNTIME_DIR/agentd.sock; else for root /run/agentd/agentd.sock; else
 *          /tmp/agentd-UID/agentd.sock. The directory must be ours and closed to others.
 * Who      both sides look at the other's uid (SO_PEERCRED): the same user, or root.
 * What     one JSON object a line, each way, in turn:
 *            {"op":"http","port":3000,"name":"shop","public":true,
 *             "server":"https://DOMAIN","sandbox":"ID"}    what is after port may be absent
 *              -> {"ok":true,"port":3000,"url":"https://...","public":false}
 *            {"op":"ports"}
 *              -> {"ok":true,"ports":[{"port":3000,"url":"https://..."},...]}
 *            anything that cannot be done
 *              -> {"ok":false,"code":"CODE","error":"a sentence"}
 *          Codes: bad-request, other-link (this agent serves another server or sandbox),
 *          excluded, refused (by the server), limit, timeout (the server did not answer).
 * Limits   LOCALSOCK_*.
 */
#ifndef AGENTD_LOCALSOCK_H
#define AGENTD_LOCALSOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/host.h"
#include "common/loop.h"

#define LOCALSOCK_CLIENTS    16
#define LOCALSOCK_LINE_MAX   4096    /* of a request */
#define LOCALSOCK_ANSWER_MAX 1048576 /* of an answer, newline included */
#define LOCALSOCK_MS         15000   /* of a client's life */
#define LOCALSOCK_PATH_MAX   108
#define LOCALSOCK_SERVER_MAX 300

enum localsock_op {
    LOCALSOCK_HTTP,
    LOCALSOCK_PORTS
};
struct localsock_request {
    enum localsock_op op;
    uint16_t port;
    bool is_public;
    char name[HOST_LABEL_MAX + 1];         /* "": none */
    char server[LOCALSOCK_SERVER_MAX + 1]; /* "": any */
    char sandbox[HOST_ID_MAX + 1];         /* "": any */
};
/** 0, or -1 with ERR_PROTO and the rule. */
int localsock_parse(struct span line, struct localsock_request *ret, struct err *e);
int localsock_print(const struct localsock_request *r,
                    struct buf *out); /* -1: no memory */

/* -- the agent's side -------------------------------------------------------------------- */

struct localsock;
struct localsock_ops {
    /* Answer by localsock_answer(), now or later. A ticket is used once and never 0. */
    void (*request)(void *owner, uint64_t ticket, const struct localsock_request *r);
};

/** Where the socket is to be; -1 when the path would be too long. */
int localsock_path(const char *runtime_dir, uid_t uid, char ret[LOCALSOCK_PATH_MAX],
                   struct err *e);
/** Makes the directory (0700) where it is ours to make, and the socket (0600). NULL with *e,
 *  also when an agent answers there already. */
struct localsock *localsock_new(struct loop *l, const char *path,
                                const struct localsock_ops *ops, void *owner,
                                struct err *e);
/** `json` is one object without a newline. Fine when the client has gone. */
void localsock_answer(struct localsock *s, uint64_t ticket, struct span json);
void localsock_refuse(struct localsock *s, uint64_t ticket, const char *code,
                      const char *why);
/** Removes the socket. Not inside a callback. NULL is fine. */
void localsock_free(struct localsock *s);

/* -- the asking side, blocking ------------------------------------------------------------- */

/** 1: no agent is there. 0: its answer, without the newline, in *ret. -1 with *e. */
int localsock_ask(const char *path, const struct localsock_request *r, struct buf *ret,
                  struct err *e);

#endif
