/* SPDX-License-Identifier: MIT */
/**
 * agent -- the running agent: owns the link, the port watch, the table of what is published,
 *          the streams, the local socket and the events, and carries news between them.
 *
 *          port watch --> rules --> published table --> PORT/GONE --> link
 *                                         ^                            |
 *          local socket (http PORT) ------+<------------ URL ----------+--> events
 *          link's streams --> forward --> program
 *
 * Limits   AGENT_*.
 */
#ifndef AGENTD_AGENT_H
#define AGENTD_AGENT_H

#include "agentd/options.h"
#include "common/err.h"

#define AGENT_DRAIN_MS   10000
#define AGENT_URL_MS     10000    /* a local request waits so long for the server */
#define AGENT_BUDGET     67108864 /* bytes for windows beyond the first, all streams */
#define AGENT_FD_RESERVE 64       /* descriptors for all but connections to programs */
#define AGENT_MIN_FLOWS  16

/** The exit codes of agentd(8). */
enum agent_exit {
    AGENT_DONE = 0,
    AGENT_FAILED = 1,
    AGENT_USAGE = 2,
    AGENT_REFUSED = 3,
    AGENT_UNREACHABLE = 4,
    AGENT_REPLACED = 5,
};

/** Set the server, id and token where they come from elsewhere (the id from the token), or
 *  say what is missing. 0, or -1 with ERR_CONFIG. */
int agent_identify(struct options *o, struct err *e);

struct netns;

/** How options can be read again, for SIGHUP. */
struct agent_source {
    int argc;
    char *const *argv;
    options_env_fn *env;
    struct netns **take_ns; /* where the programs are; NULL: as the options say */
};
/** Run until a signal or the link's end; `up`, or `http` in the foreground. *take is used up;
 *  the exit code. */
enum agent_exit agent_run(struct options **take, const struct agent_source *source);

#endif
