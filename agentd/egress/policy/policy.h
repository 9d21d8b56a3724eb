/* SPDX-License-Identifier: MIT */
/**
 * policy -- what a sandbox may reach (egress-policy(5)), compiled to an immutable form.
 *
 * Shape    pure: text in, policy or faults out; files (`extends`) are read through a
 *          function of the caller's. policy_print() gives the canonical, flattened
 *          JSON, which compiles to the same policy without reading anything; its
 *          SHA-256 is the policy's hash.
 * Owner    counted: policy_ref(), policy_unref(). One thread.
 * Limits   POLICY_*.
 */
#ifndef AGENTD_EGRESS_POLICY_POLICY_H
#define AGENTD_EGRESS_POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agentd/egress/policy/ip.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/host.h"
#include "common/span.h"

struct policy;
struct json;

#define POLICY_TEXT_MAX   4194304 /* bytes of a policy, flattened */
#define POLICY_RULES_MAX  65536   /* after extends */
#define POLICY_EXTEND_MAX 8       /* depth */
#define POLICY_FAULTS_MAX 64      /* told; the rest is counted */
#define POLICY_HASH_TEXT  65      /* hex and NUL */
#define POLICY_NAME_MAX   64

/* -- faults: a list, because people mend all of them at once ------------------------- */

struct policy_fault {
    bool is_warning;
    unsigned line;  /* 0: unknown */
    char file[80];  /* as named in extends; "" for the policy itself */
    char path[64];  /* "allow[3].ports" */
    char text[200]; /* names the thing and the rule */
};
struct policy_faults {
    struct policy_fault at[POLICY_FAULTS_MAX];
    size_t n, dropped;
    bool has_error;
};
/** -1 with the first that is no warning in *e: "where: what", ERR_CONFIG. */
int policy_faults_err(const struct policy_faults *f, struct err *e);

/* -- compiling ----------------------------------------------------------------------- */

/** How the outside is asked while compiling; any may be NULL (then such a
 *  thing is a fault). */
struct policy_reader {
    /** Append the text of a policy file that `extends` names. 0 or -1 with *e. */
    int (*file)(void *arg, const char *path, struct buf *ret, struct err *e);
    /** Append, one a line, "host:port" of what `build` stands for on this machine. */
    int (*registries)(void *arg, struct buf *ret, struct err *e);
    /** Append, one a line, the declared local networks ("10.1.0.0/16"). */
    int (*networks)(void *arg, struct buf *ret, struct err *e);
    void *arg;
};
/** NULL when faults->has_error, or on no memory (said there too). Warnings may stand
 *  there on success. */
struct policy *policy_compile(struct span text, const struct policy_reader *reader,
                              struct policy_faults *faults);
/** A preset by name ("full-isolation", ...), as if a policy said only `extends`. */
struct policy *policy_preset(const char *name, const struct policy_reader *reader,
                             struct policy_faults *faults);
/** The reader of the command line: files relative to `path`'s folder (NULL: none),
 *  registries and networks of this machine. */
struct policy_reader policy_system_reader(const char *path);
/** A file, or a preset's name. */
struct policy *policy_load(const char *path_or_preset, struct policy_faults *faults);
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p); /* NULL is fine */
/** Append the canonical JSON. Credentials are in it: only for the guard, see
 *  policy_hash(). */
int policy_print(const struct policy *p, struct buf *out);
/** As policy_print(), but credentials as "***": for `check`. */
int policy_show(const struct policy *p, struct buf *out);
/** SHA-256 of policy_show(), hex. */
const char *policy_hash(const struct policy *p);

/* -- what it says -------------------------------------------------------------------- */

enum policy_mode {
    POLICY_ENFORCE,
    POLICY_AUDIT, /* allow and record; the floor stays */
    POLICY_LEARN, /* as audit; proposes a policy at the end */
};
enum policy_check {
    POLICY_CHECK_NONE, /* by address and pin */
    POLICY_CHECK_HTTP, /* Host of each request */
    POLICY_CHECK_TLS,  /* server name */
};
struct policy_limits {    /* 0: no limit */
    uint32_t connections; /* open at once */
    uint32_t connects_per_s;
    uint64_t bytes_per_s;     /* each direction */
    uint64_t bytes;           /* both directions, in the sandbox's (or rule's) life */
    uint32_t questions_per_s; /* DNS; sandbox only; default POLICY_QUESTIONS_PER_S */
    uint32_t names;  /* distinct names under wildcards; sandbox only; default below */
    uint32_t labels; /* labels that a wildcard may stand for; default below */
};
#define POLICY_QUESTIONS_PER_S 500
#define POLICY_NAMES           1000
#define POLICY_LABELS          4

enum policy_list {
    POLICY_DENY,
    POLICY_ALLOW
};
/** One rule after flattening. `domain` rules carry a name, others a network. */
struct policy_rule {
    enum policy_list list;
    uint32_t number;    /* place in its list of the flattened policy, from 0 */
    const char *text;   /* as the user wrote it, or would: "*.example.com:443/tcp" */
    const char *reason; /* the user's; NULL: none */
    const char *from;   /* the preset or file it came by; NULL: the policy itself */
    bool is_net, is_wildcard;
    char *name; /* canonical, without "*." */
    struct ip_net net;
    const struct port_range *ports; /* n_ports, sorted, apart */
    size_t n_ports;
    bool is_unchecked; /* "tls": false: no name check on 80 and 443, the pin decides */
    int64_t expires_s; /* wall clock, seconds since 1970; 0: never */
    bool has_limits;
    struct policy_limits limits;
};
struct policy_proxy {
    const char *url; /* NULL: connect directly; "env" was resolved when compiling */
    const char *no_proxy;
    bool required; /* never direct, whatever NO_PROXY or failure says */
    bool by_name;  /* ask for the name, after the addresses were checked here */
    /* Where the credentials in `url` are from, as written; NULL: the policy itself, or there
     * are none. Not in what policy_print() gives. */
    const char *credentials_file;
};

const char *policy_name(const struct policy *p);
enum policy_mode policy_mode(const struct policy *p);
bool policy_default_allows(const struct policy *p);
const struct policy_limits *policy_limits(const struct policy *p);
const struct policy_proxy *policy_proxy(const struct policy *p);
/** "192.0.2.53:53,[2001:db8::53]:53"; NULL: the system's. */
const char *policy_resolvers(const struct policy *p);
/** What stands on a port: 80 HTTP, 443 TLS, and what `protocols` says. */
enum policy_check policy_check(const struct policy *p, uint16_t port);
const struct policy_rule *policy_rules(const struct policy *p, size_t *ret_n);
/** Ports that always go to the guard: name-checked ones, those of domain rules whose
 *  ranges are wider than POLICY_PIN_PORTS, and all when default is allow or the mode
 *  is not enforce. */
#define POLICY_PIN_PORTS 16
const struct port_range *policy_guarded(const struct policy *p, size_t *ret_n);

#endif
