/* SPDX-License-Identifier: MIT */
/**
 * registries -- the package registries that this machine's own clients are configured to
 *               use: apt, npm, yarn, pip, cargo, go, maven, gem. Discovered, not known:
 *               from the environment, the user's and the system's configuration, and, for
 *               a client that nobody configured, from the files that it was installed
 *               with. No client is run.
 *
 * A project's own files (./.npmrc, ./.cargo/config.toml) are not read: what is built in a
 * sandbox could write them, and so its own policy.
 *
 * Shape    registries_read() is pure; registries_search() reads files below a root.
 * Limits   REGISTRIES_*.
 */
#ifndef AGENTD_EGRESS_POLICY_REGISTRIES_H
#define AGENTD_EGRESS_POLICY_REGISTRIES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/host.h"
#include "common/span.h"

#define REGISTRIES_MAX      128
#define REGISTRIES_FILE_MAX 1048576   /* bytes of a configuration file that are read */
#define REGISTRIES_BIN_MAX  134217728 /* bytes of a client's program that are searched */

/** How a file is written. */
enum registries_syntax {
    /* key = value, key: value or key "value"; # and ; comments, continued by indented
     * lines. The keys are given. */
    REGISTRIES_KEYS,
    REGISTRIES_APT, /* one-line sources */
    REGISTRIES_DEB822,
    REGISTRIES_MAVEN, /* settings.xml */
    REGISTRIES_SOURCE, /* a client's own source: quoted URLs and hosts on a marker's line */
    REGISTRIES_PROGRAM, /* a client's program: the URL that follows a marker */
};
/** Where a client's registry may be said. Patterns as glob(7), "~" is the home. */
struct registries_place {
    const char *pattern;
    enum registries_syntax syntax;
    /* KEYS: between spaces, a "*" may begin one. SOURCE, PROGRAM: the marker. */
    const char *keys;
};
/** @url  "https://host[:port]/...", or a host alone */
typedef void registries_fn(void *arg, struct span url);
/** Calls fn for each URL that the text gives as a registry. */
void registries_read(const struct registries_place *place, struct span text,
                     registries_fn *fn, void *arg);

struct registry {
    const char *client; /* "npm" */
    char host[HOST_MAX + 1];
    uint16_t port;
    char from[256]; /* "/etc/npmrc", "$PIP_INDEX_URL" */
};
struct registries {
    struct registry at[REGISTRIES_MAX]; /* each client's host and port once */
    size_t n;
};
struct registries_machine {
    const char *root;                     /* "" or a folder to read instead of / */
    const char *(*env)(const char *name); /* NULL when unset */
};
/** Unreadable files are as absent ones. -1: no memory, or more than REGISTRIES_MAX. */
int registries_search(const struct registries_machine *machine, struct registries *ret,
                      struct err *e);
/** This machine's, appended as "host:port" lines, each once. */
int registries_find(struct buf *ret, struct err *e);

#endif
