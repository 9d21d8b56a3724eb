/* SPDX-License-Identifier: MIT */
/**
 * policy_int -- what the files that make a policy share. Nobody else includes it.
 *
 *   policy_json, policy_import --> rule --> builder (policy_build) --> policy_lint --> policy
 */
#ifndef AGENTD_EGRESS_POLICY_POLICY_INT_H
#define AGENTD_EGRESS_POLICY_POLICY_INT_H

#include "agentd/egress/policy/policy.h"
#include "agentd/egress/policy/rule_index.h"
#include "common/json.h"

/* -- the compiled form --------------------------------------------------------------- */

struct arena_chunk;
/** Memory that is freed all at once, with its policy. */
struct arena {
    struct arena_chunk *newest;
};
MUST_USE void *arena_alloc(struct arena *a, size_t n); /* zeroed */
MUST_USE char *arena_text(struct arena *a, struct span text);
void arena_done(struct arena *a);

struct policy_port_check {
    uint16_t port;
    enum policy_check check;
};

struct policy {
    unsigned refs;
    char name[POLICY_NAME_MAX + 1];
    enum policy_mode mode;
    bool default_allows;
    struct policy_limits limits;
    struct policy_proxy proxy;
    const char *resolvers;
    struct policy_port_check *checks; /* sorted; `usual` ones too, unless changed */
    size_t n_checks;
    struct policy_rule *rule; /* denied first */
    size_t n_rules, n_deny;
    struct rule_index index[2]; /* by enum policy_list */
    struct port_range *guarded;
    size_t n_guarded;
    char hash[POLICY_HASH_TEXT];
    struct arena arena;
};

/* -- building it --------------------------------------------------------------------- */

#define POLICY_FILES_MAX  64  /* read by one policy */
#define POLICY_PROTOCOLS  256 /* ports under "protocols": JSON_MEMBERS_MAX */
#define POLICY_REASON_MAX 200
#define POLICY_UPSTREAMS  8
#define POLICY_PATH_MAX   64

/** A text that is read: the policy itself, a file or preset that it extends. */
struct policy_source {
    struct policy_source *next;
    const char *file; /* "" for the policy itself */
    struct span text;
    struct buf own;           /* holds the text of a file */
    bool is_list;             /* of names, not JSON: `item` of its rules are lines */
    bool is_import;           /* another tool's form: what can never match is left out */
    bool is_open;             /* being read: to extend it now would be a circle */
    const char *list_name[2]; /* how its lists are called, by enum policy_list */
};

/** Where a rule was written. */
struct rule_place {
    const struct policy_source *source;
    uint32_t item;
    bool is_expanded;     /* one of many that a group or preset stands for */
    bool is_port_implied; /* no port was written */
};

struct policy_build {
    struct policy *p;
    const struct policy_reader *reader; /* may be NULL */
    struct policy_faults *faults;
    struct policy_source *source; /* being read */
    struct policy_source *all;
    size_t n_files, bytes;
    unsigned depth; /* of extends */
    struct policy_rule *rule[2];
    struct rule_place *place[2];
    size_t n[2], cap[2];
    int64_t now_s;
    bool is_lenient; /* what is wrong is left out and a warning */
};

void build_error(struct policy_build *b, const char *path, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
void build_warn(struct policy_build *b, const char *path, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/** A fault of a rule that has been read. */
void build_rule_fault(struct policy_build *b, bool is_warning, enum policy_list list,
                      size_t i, const char *fmt, ...) PRINTF_LIKE(5, 6);
/** Where r was written, as the fault of another rule says it: "deny[0]", "line 3", with
 *  " of FILE" where that one stands elsewhere. Returns `out`. */
const char *build_rule_place(const struct policy_build *b, const struct policy_rule *r,
                             const struct policy_rule *from, char out[POLICY_PATH_MAX]);
void build_no_memory(struct policy_build *b);
/** Make `text` the source being read; the one before is to be put back by the caller. */
struct policy_source *build_source(struct policy_build *b, const char *file);
/** Is v of this type? If not, it is told. */
bool build_type(struct policy_build *b, const char *path, const struct json *v,
                enum json_type type);
/** A text without control characters, at most `max` bytes, or NULL with a fault. */
const char *build_text(struct policy_build *b, const char *path, const struct json *v,
                       size_t max);
/** The name of n_names that is nearest to `name`; NULL: none is near. */
const char *build_nearest(const char *const *name_list, size_t n_names, const char *name);
void build_unknown(struct policy_build *b, const char *path, const char *const *name_list,
                   size_t n_names, const char *name);

/* -- rules (rule.c, rule_object.c) --------------------------------------------------- */

/** A rule while it is read. */
struct rule_spec {
    bool is_net, is_wildcard;
    char name[HOST_MAX + 1];
    struct ip_net net;
    struct port_list ports;
    bool has_ports;
    bool is_unchecked;
    int64_t expires_s;
    bool has_limits;
    struct policy_limits limits;
    const char *reason, *from; /* of the policy's arena */
    bool is_expanded;
    bool is_optional; /* left out, with a warning, where it can never match */
    uint32_t item;
};

/** "*.example.com:443/tcp", "[2001:db8::]/32:443", ... 0, or -1 after telling why. */
int rule_parse_text(struct policy_build *b, const char *path, struct span text,
                    struct rule_spec *ret);
/** A domain or a network without a port. */
int rule_parse_domain(struct policy_build *b, const char *path, struct span text,
                      struct rule_spec *ret);
int rule_parse_cidr(struct policy_build *b, const char *path, struct span text,
                    struct rule_spec *ret);
/** A string or an object of `allow` or `deny`. @base: what is said of the rule by the one
 *  that stands for it, or only where it comes from; NULL: nothing. */
void rule_read(struct policy_build *b, enum policy_list list, const char *path,
               const struct json *v, uint32_t item, const struct rule_spec *base);
/** Take it into the list. 0, or -1 after telling why. */
int rule_add(struct policy_build *b, enum policy_list list, const char *path,
             const struct rule_spec *s);
/** The keys of "rule", "to" or "limits". */
const char *const *rule_keys(const char *where, size_t *ret_n);
/** Sorted, apart. */
void rule_sort_ports(struct port_list *l);
int rule_read_limits(struct policy_build *b, const char *path, const struct json *v,
                     bool is_sandbox, struct policy_limits *ret);

/* -- groups and presets (preset.c) --------------------------------------------------- */

/** The next line of a list, without blanks at its ends and without its comment. */
bool preset_next_line(struct span *rest, struct span *ret);
/** Its JSON, or NULL. */
const char *preset_text(const char *name);
const char *const *preset_names(size_t *ret_n);
void preset_expand_group(struct policy_build *b, enum policy_list list, const char *path,
                         const char *group, const struct rule_spec *s);
void preset_expand(struct policy_build *b, enum policy_list list, const char *path,
                   const char *preset, const struct rule_spec *s);

/* -- the rest ------------------------------------------------------------------------ */

/** A policy's root object, and what it extends. */
void policy_json_read(struct policy_build *b, const struct json *root);
/** The text of b->source, in whatever format. */
void policy_read_source(struct policy_build *b);
const char *const *policy_proxy_keys(size_t *ret_n);
void policy_proxy_read(struct policy_build *b, const struct json *v);
void policy_import_e2b(struct policy_build *b, const struct json *root);
void policy_import_list(struct policy_build *b);
bool policy_is_e2b(const struct json *root);
/** Faults that only show when all rules are there. The index must stand. Marks in `drop`
 *  (n_rules) what can never match and came from another tool; true: something did. */
bool policy_lint(struct policy_build *b, bool *drop);
/** Seconds since 1970 of an RFC 3339 text; -1. */
int64_t policy_time_parse(const char *p);
#define POLICY_TIME_MAX 32
const char *policy_time_print(int64_t s, char out[POLICY_TIME_MAX]);
/** Where the parser's keys can be had, for the schema's test. `where`: "", "dns",
 *  "proxy", "limits", "rule", "to". */
const char *const *policy_keys(const char *where, size_t *ret_n);

#endif
