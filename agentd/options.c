/* SPDX-License-Identifier: MIT */
#include "agentd/options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/options_file.h"
#include "common/cdefs.h"
#include "common/mem.h"

const char options_usage[] =
    "usage: agentd [up] [--netns PATH | --pid N] [--once]\n"
    "                                   publish the ports that open; the default\n"
    "       agentd http PORT [--name NAME] [--public]\n"
    "                                   publish one port and print its URL\n"
    "       agentd ports                what is listening here, once\n"
    "       agentd doctor               check name, proxy, TLS, upgrade and token\n"
    "       agentd egress COMMAND ...   what a sandbox may reach: agentd egress help\n"
    "       agentd version\n"
    "options of all:\n"
    "  --server https://DOMAIN[:PORT]   the service            (TUNNEL_SERVER)\n"
    "  --sandbox ID                     default: the token's   (TUNNEL_SANDBOX)\n"
    "  --token-file FILE                read at each dial      (TUNNEL_TOKEN_FILE,\n"
    "                                   or the token itself in  TUNNEL_TOKEN)\n"
    "  --ca-file FILE                   trusted besides the system's\n"
    "                                                          (TUNNEL_CA_FILE)\n"
    "  --proxy URL|env|none             default env (HTTPS_PROXY, ALL_PROXY, NO_PROXY)\n"
    "  --ports LIST, --exclude LIST     such as 3000,8000-8999\n"
    "  -c FILE                          the same in JSON, see agentd.conf(5)\n"
    "  --log-format text|json, --log-level err|warn|notice|info|debug\n"
    "  --json                           results as JSON lines on stdout\n"
    "exit: 0 done, 1 failed, 2 usage or configuration, 3 token refused,\n"
    "      4 server not reachable (--once), 5 replaced by another agent\n";

/* Where a value came from decides whether a later source may set it. */
enum source {
    FROM_NOWHERE,
    FROM_FILE,
    FROM_ENV,
    FROM_FLAG
};

enum opt {
    OPT_CONFIG,
    OPT_SERVER,
    OPT_SANDBOX,
    OPT_TOKEN_FILE,
    OPT_CA_FILE,
    OPT_PROXY,
    OPT_PORTS,
    OPT_EXCLUDE,
    OPT_LOG_FORMAT,
    OPT_LOG_LEVEL,
    OPT_JSON,
    OPT_ONCE,
    OPT_NETNS,
    OPT_PID,
    OPT_NAME,
    OPT_PUBLIC,
    OPT_HELP,
    OPT_TOKEN,
    OPT_COUNT
};

#define ON(command) (1u << (command))
#define ON_ALL      0xffffu

static const struct {
    const char *name;
    bool takes_value;
    unsigned commands;
} opt_table[OPT_COUNT] = {
    [OPT_CONFIG] = {"-c", true, ON_ALL},
    [OPT_SERVER] = {"--server", true, ON_ALL},
    [OPT_SANDBOX] = {"--sandbox", true, ON_ALL},
    [OPT_TOKEN_FILE] = {"--token-file", true, ON_ALL},
    [OPT_CA_FILE] = {"--ca-file", true, ON_ALL},
    [OPT_PROXY] = {"--proxy", true, ON_ALL},
    [OPT_PORTS] = {"--ports", true, ON_ALL},
    [OPT_EXCLUDE] = {"--exclude", true, ON_ALL},
    [OPT_LOG_FORMAT] = {"--log-format", true, ON_ALL},
    [OPT_LOG_LEVEL] = {"--log-level", true, ON_ALL},
    [OPT_JSON] = {"--json", false, ON_ALL},
    [OPT_ONCE] = {"--once", false, ON(OPTIONS_UP) | ON(OPTIONS_HTTP)},
    [OPT_NETNS] = {"--netns", true, ON(OPTIONS_UP)},
    [OPT_PID] = {"--pid", true, ON(OPTIONS_UP)},
    [OPT_NAME] = {"--name", true, ON(OPTIONS_HTTP)},
    [OPT_PUBLIC] = {"--public", false, ON(OPTIONS_HTTP)},
    [OPT_HELP] = {"--help", false, ON_ALL},
    [OPT_TOKEN] = {"--token", true, ON_ALL},
};

static const struct {
    const char *name;
    enum options_command command;
} commands[] = {
    {"up", OPTIONS_UP},
    {"http", OPTIONS_HTTP},
    {"ports", OPTIONS_PORTS},
    {"doctor", OPTIONS_DOCTOR},
    {"version", OPTIONS_VERSION},
    {"help", OPTIONS_HELP},
    {"--version", OPTIONS_VERSION},
    {"-h", OPTIONS_HELP},
};

static const struct {
    const char *name, *text;
} later[] = {
    {"share", "share links come with the control plane, in a later version"},
    {"tcp", "tcp ports are built in a later version"},
    {"forward", "forwarding to another sandbox is built in a later version"},
};

struct reader {
    struct options *o;
    int argc, at;
    char *const *argv;
    const char *value[OPT_COUNT]; /* as given on the command line; NULL: not */
    const char *word[2];          /* the command and its argument */
    unsigned n_words;
};

/* -- setting
 * ----------------------------------------------------------------------------- */

static int set_text(char **to, const char *text, struct err *e)
{
    size_t n = strlen(text) + 1;
    char *copy = mem_alloc(n);

    if (!copy)
        return err_set(e, ERR_NOMEM, "no memory for the options");
    memcpy(copy, text, n);
    mem_free(*to);
    *to = copy;
    return 0;
}

static int set_id(struct options *o, const char *text, const char *where, struct err *e)
{
    char id[HOST_ID_MAX + 1];

    if (host_id_parse(span_str(text), id) < 0)
        return err_set(e, ERR_CONFIG, "%s: a sandbox id is 1 to 40 of a-z 0-9 -, not %s",
                       where, log_q(text));
    return set_text(&o->id, id, e);
}

static int set_list(struct port_list *to, const char *text, const char *where,
                    struct err *e)
{
    if (port_list_parse(span_str(text), to) < 0)
        return err_set(e, ERR_CONFIG,
                       "%s: a list of ports is such as 3000,8000-8999, not %s", where,
                       log_q(text));
    return 0;
}

static int check_proxy(const char *text, const char *where, struct err *e)
{
    /* The dialer reads the URL; only what can be neither is told here. It may hold a
     * password, so it is not repeated. */
    if (strcmp(text, "env") == 0 || strcmp(text, "none") == 0 || strstr(text, "://"))
        return 0;
    return err_set(e, ERR_CONFIG, "%s: must be a URL, env or none", where);
}

/* -- environment
 * ------------------------------------------------------------------------- */

static const char *env_text(options_env_fn *env, const char *name)
{
    const char *v = env(name);

    return v && *v ? v : NULL; /* empty is as good as not set */
}

static int read_env(struct options *o, options_env_fn *env, struct err *e)
{
    const char *v;

    v = env_text(env, "TUNNEL_SERVER");
    if (v && set_text(&o->server, v, e) < 0)
        return -1;
    v = env_text(env, "TUNNEL_SANDBOX");
    if (v && set_id(o, v, "TUNNEL_SANDBOX", e) < 0)
        return -1;
    v = env_text(env, "TUNNEL_CA_FILE");
    if (v && set_text(&o->ca_file, v, e) < 0)
        return -1;
    v = env_text(env, "TUNNEL_TOKEN_FILE");
    if (v)
        return set_text(&o->token_file, v, e);
    v = env_text(env, "TUNNEL_TOKEN");
    if (v) {
        /* The environment beats the file's token_file. */
        mem_free(o->token_file);
        o->token_file = NULL;
        if (secret_set(&o->token, span_str(v)) < 0)
            return err_set(e, ERR_NOMEM, "no memory for the token");
    }
    return 0;
}

/* -- command line
 * ------------------------------------------------------------------------ */

static int find_opt(const char *arg, size_t len)
{
    int i;

    if (len == 2 && memcmp(arg, "-h", 2) == 0)
        return OPT_HELP;
    for (i = 0; i < OPT_COUNT; i++) {
        if (strlen(opt_table[i].name) == len && memcmp(arg, opt_table[i].name, len) == 0)
            return i;
    }
    return -1;
}

static int read_opt(struct reader *r, struct err *e)
{
    const char *arg = r->argv[r->at++];
    const char *eq = arg[1] == '-' ? strchr(arg, '=') : NULL;
    size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
    int i = find_opt(arg, len);

    if (i < 0) {
        if (len > 40)
            len = 40;
        return err_set(e, ERR_CONFIG, "there is no option %s", log_qs(span_of(arg, len)));
    }
    if (i == OPT_TOKEN)
        return err_set(
            e, ERR_CONFIG,
            "a token is never an argument, since every user of the machine can "
            "read those: use --token-file, TUNNEL_TOKEN_FILE or TUNNEL_TOKEN");
    if (r->value[i])
        return err_set(e, ERR_CONFIG, "%s is given twice", opt_table[i].name);
    if (!opt_table[i].takes_value) {
        if (eq)
            return err_set(e, ERR_CONFIG, "%s takes no value", opt_table[i].name);
        r->value[i] = "";
        return 0;
    }
    if (!eq && r->at >= r->argc)
        return err_set(e, ERR_CONFIG, "%s needs a value", opt_table[i].name);
    r->value[i] = eq ? eq + 1 : r->argv[r->at++];
    if (r->value[i][0] == '\0' && i != OPT_PORTS && i != OPT_EXCLUDE)
        return err_set(e, ERR_CONFIG, "%s needs a value", opt_table[i].name);
    return 0;
}

static int read_args(struct reader *r, struct err *e)
{
    while (r->at < r->argc) {
        const char *arg = r->argv[r->at];
        if (strcmp(arg, "--version") != 0 && arg[0] == '-' && arg[1] != '\0') {
            if (read_opt(r, e) < 0)
                return -1;
            continue;
        }
        if (r->n_words == COUNT_OF(r->word))
            return err_set(e, ERR_CONFIG, "%s: nothing more is expected", log_q(arg));
        r->word[r->n_words++] = arg;
        r->at++;
        /* what follows belongs to a command that is not there yet */
        if (r->n_words == 1) {
            size_t i;
            for (i = 0; i < COUNT_OF(later); i++) {
                if (strcmp(arg, later[i].name) == 0)
                    return err_set(e, ERR_CONFIG, "%s", later[i].text);
            }
        }
    }
    return 0;
}

static int choose_command(struct reader *r, struct err *e)
{
    struct options *o = r->o;
    size_t i;

    o->command = OPTIONS_UP;
    if (r->n_words > 0) {
        for (i = 0; i < COUNT_OF(commands); i++) {
            if (strcmp(r->word[0], commands[i].name) == 0)
                break;
        }
        if (i == COUNT_OF(commands))
            return err_set(e, ERR_CONFIG, "there is no command %s", log_q(r->word[0]));
        o->command = commands[i].command;
    }
    if (r->value[OPT_HELP])
        o->command = OPTIONS_HELP;
    if (o->command == OPTIONS_HELP)
        return 0;
    if (o->command == OPTIONS_HTTP) {
        o->http_port = r->n_words > 1 ? host_port_parse(span_str(r->word[1])) : 0;
        if (o->http_port == 0)
            return err_set(e, ERR_CONFIG, "http needs a port, 1 to 65535");
    } else if (r->n_words > 1) {
        return err_set(e, ERR_CONFIG, "%s: nothing more is expected", log_q(r->word[1]));
    }
    for (i = 0; i < OPT_COUNT; i++) {
        if (r->value[i] && !(opt_table[i].commands & ON(o->command)))
            return err_set(e, ERR_CONFIG, "%s does not go with %s", opt_table[i].name,
                           r->n_words ? r->word[0] : "up");
    }
    return 0;
}

static int set_http(struct options *o, const char *name, struct err *e)
{
    if (!host_name_is_claimable(span_str(name)))
        return err_set(e, ERR_CONFIG, "--name: %s cannot be a name", log_q(name));
    memcpy(o->http_name, name, strlen(name) + 1); /* a label fits */
    return 0;
}

static int set_pid(struct options *o, const char *text, struct err *e)
{
    char *end;
    long v = strtol(text, &end, 10);

    if (text[0] < '1' || text[0] > '9' || *end || v > INT_MAX)
        return err_set(e, ERR_CONFIG, "--pid: %s is no process id", log_q(text));
    o->pid = (pid_t)v;
    return 0;
}

static int set_log(struct options *o, const char *format, const char *level,
                   struct err *e)
{
    if (format && strcmp(format, "text") != 0 && strcmp(format, "json") != 0)
        return err_set(e, ERR_CONFIG, "--log-format: must be text or json");
    if (format)
        o->log_json = strcmp(format, "json") == 0;
    if (level && log_level_parse(level, &o->log_level) < 0)
        return err_set(e, ERR_CONFIG,
                       "--log-level: must be err, warn, notice, info or debug");
    return 0;
}

static int apply_flags(struct reader *r, struct err *e)
{
    struct options *o = r->o;
    const char *const *v = r->value;

    if (v[OPT_SERVER] && set_text(&o->server, v[OPT_SERVER], e) < 0)
        return -1;
    if (v[OPT_SANDBOX] && set_id(o, v[OPT_SANDBOX], "--sandbox", e) < 0)
        return -1;
    if (v[OPT_TOKEN_FILE]) {
        secret_done(&o->token);
        if (set_text(&o->token_file, v[OPT_TOKEN_FILE], e) < 0)
            return -1;
    }
    if (v[OPT_CA_FILE] && set_text(&o->ca_file, v[OPT_CA_FILE], e) < 0)
        return -1;
    if (v[OPT_PROXY] && (check_proxy(v[OPT_PROXY], "--proxy", e) < 0 ||
                         set_text(&o->proxy, v[OPT_PROXY], e) < 0))
        return -1;
    if (v[OPT_PORTS]) {
        o->has_ports = true;
        if (set_list(&o->ports, v[OPT_PORTS], "--ports", e) < 0)
            return -1;
    }
    if (v[OPT_EXCLUDE] && set_list(&o->exclude, v[OPT_EXCLUDE], "--exclude", e) < 0)
        return -1;
    if (set_log(o, v[OPT_LOG_FORMAT], v[OPT_LOG_LEVEL], e) < 0)
        return -1;
    if (v[OPT_NETNS] && v[OPT_PID])
        return err_set(e, ERR_CONFIG, "--netns and --pid say the same: give one");
    if (v[OPT_NETNS] && set_text(&o->netns, v[OPT_NETNS], e) < 0)
        return -1;
    if (v[OPT_PID] && set_pid(o, v[OPT_PID], e) < 0)
        return -1;
    if (v[OPT_NAME] && set_http(o, v[OPT_NAME], e) < 0)
        return -1;
    o->json = v[OPT_JSON] != NULL;
    o->once = v[OPT_ONCE] != NULL;
    o->http_public = v[OPT_PUBLIC] != NULL;
    return 0;
}

/* -- all
 * ---------------------------------------------------------------------------------- */

static int load(struct reader *r, options_env_fn *env, struct err *e)
{
    struct options *o = r->o;

    if (read_args(r, e) < 0 || choose_command(r, e) < 0)
        return -1;
    if (o->command == OPTIONS_HELP || o->command == OPTIONS_VERSION)
        return 0;
    if (r->value[OPT_CONFIG]) {
        if (set_text(&o->config_file, r->value[OPT_CONFIG], e) < 0)
            return -1;
        if (options_file_read(o, o->config_file, e) < 0)
            return -1;
    }
    if (read_env(o, env, e) < 0 || apply_flags(r, e) < 0)
        return -1;
    if (!o->proxy)
        return set_text(&o->proxy, "env", e);
    return 0;
}

int options_load(struct options *o, int argc, char *const *argv, options_env_fn *env,
                 struct err *e)
{
    struct reader r = {.o = o, .argc = argc, .argv = argv, .at = 1};

    memset(o, 0, sizeof *o);
    o->log_level = LOG_INFO;
    if (load(&r, env, e) < 0) {
        options_done(o);
        return -1;
    }
    return 0;
}

void options_done(struct options *o)
{
    unsigned i;

    for (i = 0; i < o->n_ports; i++)
        mem_free(o->port[i].socket);
    mem_free(o->config_file);
    mem_free(o->server);
    mem_free(o->id);
    mem_free(o->token_file);
    mem_free(o->ca_file);
    mem_free(o->proxy);
    mem_free(o->netns);
    secret_done(&o->token);
    memset(o, 0, sizeof *o);
}

const struct options_port *options_port(const struct options *o, uint16_t port)
{
    unsigned i;

    for (i = 0; i < o->n_ports && o->port[i].port <= port; i++) {
        if (o->port[i].port == port)
            return &o->port[i];
    }
    return NULL;
}

static bool differs(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) != 0 : a != b;
}

const char *options_fixed_change(const struct options *old, const struct options *new)
{
    if (differs(old->server, new->server))
        return "server";
    if (differs(old->id, new->id))
        return "sandbox";
    if (differs(old->token_file, new->token_file))
        return "token_file";
    if (differs(old->ca_file, new->ca_file))
        return "ca_file";
    if (differs(old->proxy, new->proxy))
        return "proxy";
    return NULL;
}
