/* SPDX-License-Identifier: MIT */
/**
 * keeper -- the process with the privileges: sandboxes with their namespace, table,
 *           listeners and policy; the guard it starts, restarts and answers. `serve`
 *           keeps many sandboxes, `run` one.
 *
 * What it does is a fixed set of operations, each checked: it reads no byte that a
 * sandbox sends. A sandbox is closed before it is open: the table stands, with everything
 * refused, before the guard is told; the add is over when the guard says IN_FORCE.
 *
 * State    adding -> in force <-> (guard gone: closed) -> removed
 */
#ifndef AGENTD_EGRESS_KEEPER_KEEPER_H
#define AGENTD_EGRESS_KEEPER_KEEPER_H

#include <stdbool.h>

#include "agentd/egress/policy/policy.h"
#include "agentd/egress/sandbox_name.h"
#include "agentd/forward/netns.h"
#include "common/buf.h"
#include "common/loop.h"

struct keeper;

#define KEEPER_SANDBOXES_MAX 4096
#define KEEPER_GUARD_UID     54470 /* nobody's account; a user agentd-guard comes first */
#define KEEPER_READY_MS      5000  /* from the guard's start to READY */
#define KEEPER_ALIVE_MS      10000 /* a guard that answers nothing for so long is ended */
#define KEEPER_REMOVE_MS     3000  /* REMOVE to REMOVED; then it goes without */
#define KEEPER_FORCE_MS      10000 /* add or replace, to IN_FORCE */
#define KEEPER_CHECK_MS      1000  /* between two looks for what breaks enforcement */
#define KEEPER_GUARD_WAIT_MS 1000  /* longest pause before a dying guard's next start */

/** What mode learn proposes for a sandbox, as JSON text; before the end of
 *  keeper_remove(). */
typedef void keeper_proposal_fn(void *arg, const char *name, struct span policy);

/** What of the namespace that the keeper lives in is its to rule. */
enum keeper_host {
    KEEPER_HOST_NONE,
    KEEPER_HOST_GUARD, /* its guard's sockets: they never reach the floor */
    KEEPER_HOST_ALL,   /* and sandboxes of the veth tier; one keeper a namespace */
};
struct keeper_conf {
    struct loop *loop;
    int audit_fd;    /* -1: none; borrowed */
    uid_t guard_uid; /* 0: keep ours (not root) */
    enum keeper_host host;
    const char *state_dir; /* sandboxes are remembered here over a restart; NULL: not */
    keeper_proposal_fn *on_proposal; /* mode learn; NULL: proposals are dropped */
    void *arg;
};
/** NULL with *e. The guard is started, and restarted, by the keeper. */
struct keeper *keeper_new(const struct keeper_conf *conf, struct err *e);
/** Ends all sandboxes' service: guard ends, tables in sandboxes stay (closed). */
void keeper_free(struct keeper *k);

struct keeper_add {
    const char *name;
    enum egress_tier tier;
    struct policy *policy;  /* a reference is taken */
    struct netns **take_ns; /* the sandbox's namespace */
    const char *ns_path;    /* to open it after a restart, and to see it vanish; NULL */
    const char *iface; /* VETH: its name inside, or its end here; NULL: the only one */
    pid_t pid;         /* of the sandbox, for /proc; 0: not known */
};
/** The end of an operation, once, from the loop. e NULL: done, and enforced. May not
 *  free the keeper. */
typedef void keeper_done_fn(void *arg, const struct err *e);

/** fn once, never inside; -1 with *e: refused at once, fn is not called. */
int keeper_add(struct keeper *k, const struct keeper_add *a, keeper_done_fn *fn,
               void *arg, struct err *e);
/** The old policy stays in force when it fails. */
int keeper_reload(struct keeper *k, const char *name, struct policy *p,
                  keeper_done_fn *fn, void *arg, struct err *e);
/** VETH: its rules go (the interface is then the engine's again) unless the
 *  interface is gone. */
int keeper_remove(struct keeper *k, const char *name, keeper_done_fn *fn, void *arg,
                  struct err *e);
/** Append {"sandboxes":[{"name","tier","enforced","reasons":[],"mode","policy","hash",
 *  "guard":{"pid","restarts"},"counts":{...}}],"audit_lost":0}; one with a name
 *  (ERR_NOTFOUND), all without. audit_lost: records not written, ours and the
 *  guards', as these told within the last second. */
int keeper_status(struct keeper *k, const char *name, struct buf *out, struct err *e);
pid_t keeper_guard_pid(const struct keeper *k);
/** The user that a root keeper's guard runs as. */
uid_t keeper_guard_uid(void);

#endif
