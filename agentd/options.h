/* SPDX-License-Identifier: MIT */
/**
 * options -- what agentd is told: command line, environment, file, in this order of
 *            precedence (agentd(8), agentd.conf(5)).
 *
 * Shape    no output and no exit: faults come back as sentences. A token is taken from a
 *          file or the environment, never from an argument.
 */
#ifndef AGENTD_OPTIONS_H
#define AGENTD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/control.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/host.h"
#include "common/log.h"

#define OPTIONS_PORTS_MAX 256     /* ports with options of their own */
#define OPTIONS_FILE_MAX  1048576 /* bytes of a configuration file */

enum options_command {
    OPTIONS_UP,
    OPTIONS_HTTP,
    OPTIONS_PORTS,
    OPTIONS_DOCTOR,
    OPTIONS_VERSION,
    OPTIONS_HELP,
};

/** What one port is to be, beyond being there. */
struct options_port {
    uint16_t port;
    bool is_public;
    enum control_host_mode host_mode;
    char name[HOST_LABEL_MAX + 1]; /* "": none */
    char *socket;                  /* a unix socket's path, or NULL */
};

struct options {
    enum options_command command;
    char *config_file; /* -c; NULL: none */
    char *server;      /* as given; NULL: not given */
    char *id;          /* the sandbox, canonical; NULL: from the token */
    char *token_file;
    struct secret token; /* from the environment; empty: none */
    char *ca_file;
    char *proxy; /* a URL, "env" or "none" */
    bool has_ports;
    struct port_list ports, exclude;
    struct options_port port[OPTIONS_PORTS_MAX]; /* sorted by port */
    unsigned n_ports;
    bool log_json;
    enum log_level log_level;
    bool json;
    bool once;
    char *netns; /* up: a namespace file; NULL: none */
    pid_t pid;   /* up: a process in the namespace; 0: none */

    uint16_t http_port; /* http */
    char http_name[HOST_LABEL_MAX + 1];
    bool http_public;
};

typedef const char *options_env_fn(const char *name);

/** Fill *o, whatever it held. 0, or -1 with ERR_CONFIG and a sentence; *o is then empty.
 */
int options_load(struct options *o, int argc, char *const *argv, options_env_fn *env,
                 struct err *e);
void options_done(struct options *o);

/** What a port is to be; NULL: nothing said. */
const struct options_port *options_port(const struct options *o, uint16_t port);
/** Which key differs that a running agent cannot take over, or NULL. */
const char *options_fixed_change(const struct options *old, const struct options *new);
extern const char options_usage[];

#endif
