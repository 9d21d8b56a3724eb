/* SPDX-License-Identifier: MIT */
#include "agentd/options_file.h"

#include <string.h>

#include "common/cdefs.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/sock.h"

static int want(const char *key, const struct json *v, enum json_type t, struct err *e)
{
    if (json_type(v) == t)
        return 0;
    return err_set(e, ERR_CONFIG, "%s: must be %s, not %s", key, json_type_name(t),
                   json_type_name(json_type(v)));
}

static int read_text(const char *key, const struct json *v, char **ret, struct err *e)
{
    size_t n;

    if (want(key, v, JSON_STRING, e) < 0)
        return -1;
    n = strlen(json_str(v)) + 1;
    if (n == 1)
        return err_set(e, ERR_CONFIG, "%s: is empty", key);
    mem_free(*ret);
    *ret = mem_alloc(n);
    if (!*ret)
        return err_set(e, ERR_NOMEM, "no memory for the configuration");
    memcpy(*ret, json_str(v), n);
    return 0;
}

/* "3000,8000-8999", or [3000, "8000-8999"]. */
static int read_list(const char *key, const struct json *v, struct port_list *ret,
                     struct err *e)
{
    const struct json *item;
    struct port_list one;
    size_t i;

    memset(ret, 0, sizeof *ret);
    if (json_type(v) == JSON_STRING) {
        if (port_list_parse(span_str(json_str(v)), ret) == 0)
            return 0;
        return err_set(e, ERR_CONFIG, "%s: must be such as \"3000,8000-8999\"", key);
    }
    if (want(key, v, JSON_ARRAY, e) < 0)
        return -1;
    if (json_len(v) > PORT_LIST_MAX)
        return err_set(e, ERR_CONFIG, "%s: has more than %d items", key, PORT_LIST_MAX);
    for (i = 0; i < json_len(v); i++) {
        item = json_at(v, i);
        if (json_type(item) == JSON_INT && json_int(item) >= 1 &&
            json_int(item) <= 65535) {
            one.range[0].first = one.range[0].last = (uint16_t)json_int(item);
        } else if (json_type(item) != JSON_STRING ||
                   port_list_parse(span_str(json_str(item)), &one) < 0 || one.n != 1) {
            return err_set(e, ERR_CONFIG, "%s: item %zu is no port or range", key, i + 1);
        }
        ret->range[ret->n++] = one.range[0];
    }
    return 0;
}

/* The place for a port's options, made when there is none; the table stays sorted. */
static struct options_port *port_of(struct options *o, uint16_t port, struct err *e)
{
    unsigned i = 0;

    while (i < o->n_ports && o->port[i].port < port)
        i++;
    if (i < o->n_ports && o->port[i].port == port)
        return &o->port[i];
    if (o->n_ports == OPTIONS_PORTS_MAX) {
        (void)err_set(e, ERR_CONFIG, "more than %d ports have options of their own",
                      OPTIONS_PORTS_MAX);
        return NULL;
    }
    memmove(&o->port[i + 1], &o->port[i], (o->n_ports - i) * sizeof o->port[0]);
    memset(&o->port[i], 0, sizeof o->port[i]);
    o->port[i].port = port;
    o->n_ports++;
    return &o->port[i];
}

static int read_public(struct options *o, const struct json *v, struct err *e)
{
    struct options_port *p;
    const struct json *item;
    size_t i;

    if (want("public", v, JSON_ARRAY, e) < 0)
        return -1;
    for (i = 0; i < json_len(v); i++) {
        item = json_at(v, i);
        /* Each port by its number: a range would make public what nobody thought of. */
        if (json_type(item) != JSON_INT || json_int(item) < 1 || json_int(item) > 65535)
            return err_set(e, ERR_CONFIG, "public: item %zu is no port", i + 1);
        p = port_of(o, (uint16_t)json_int(item), e);
        if (!p)
            return -1;
        p->is_public = true;
    }
    return 0;
}

static int set_name(struct options_port *p, const char *text, struct err *e)
{
    if (!host_name_is_claimable(span_str(text)))
        return err_set(e, ERR_CONFIG, "names: %s cannot be a name", log_q(text));
    memcpy(p->name, text, strlen(text) + 1); /* a label fits */
    return 0;
}

static int set_mode(struct options_port *p, const char *text, struct err *e)
{
    if (strcmp(text, "localhost") != 0 && strcmp(text, "preserve") != 0)
        return err_set(e, ERR_CONFIG, "host_mode: must be localhost or preserve");
    p->host_mode = strcmp(text, "preserve") == 0 ? CONTROL_PRESERVE : CONTROL_LOCALHOST;
    return 0;
}

static int set_socket(struct options_port *p, const char *text, struct err *e)
{
    struct sock_addr a;
    size_t n = strlen(text) + 1;

    if (text[0] != '/' || n > sizeof a.u.un.sun_path)
        return err_set(e, ERR_CONFIG,
                       "sockets: a path begins with / and has at most %zu bytes",
                       sizeof a.u.un.sun_path - 1);
    mem_free(p->socket);
    p->socket = mem_alloc(n);
    if (!p->socket)
        return err_set(e, ERR_NOMEM, "no memory for the configuration");
    memcpy(p->socket, text, n);
    return 0;
}

/* {"3000": "value"} */
static int read_map(const char *key, struct options *o, const struct json *v,
                    int (*set)(struct options_port *, const char *, struct err *),
                    struct err *e)
{
    struct options_port *p;
    const struct json *item;
    const char *name;
    uint16_t port;
    size_t pos = 0;

    if (want(key, v, JSON_OBJECT, e) < 0)
        return -1;
    while (json_next(v, &pos, &name, &item)) {
        port = host_port_parse(span_str(name));
        if (port == 0)
            return err_set(e, ERR_CONFIG, "%s: %s is no port", key, log_q(name));
        if (want(key, item, JSON_STRING, e) < 0)
            return -1;
        p = port_of(o, port, e);
        if (!p || set(p, json_str(item), e) < 0)
            return -1;
    }
    return 0;
}

static int read_log(struct options *o, const struct json *v, struct err *e)
{
    const struct json *item;
    const char *name;
    size_t pos = 0;

    if (want("log", v, JSON_OBJECT, e) < 0)
        return -1;
    while (json_next(v, &pos, &name, &item)) {
        if (strcmp(name, "format") != 0 && strcmp(name, "level") != 0)
            return err_set(e, ERR_CONFIG, "log: there is no key %s", log_q(name));
        if (want(name, item, JSON_STRING, e) < 0)
            return err_wrap(e, "log");
        if (strcmp(name, "level") == 0) {
            if (log_level_parse(json_str(item), &o->log_level) < 0)
                return err_set(e, ERR_CONFIG,
                               "log: level must be err, warn, notice, info or debug");
            continue;
        }
        if (strcmp(json_str(item), "text") != 0 && strcmp(json_str(item), "json") != 0)
            return err_set(e, ERR_CONFIG, "log: format must be text or json");
        o->log_json = strcmp(json_str(item), "json") == 0;
    }
    return 0;
}

static int read_sandbox(struct options *o, const struct json *v, struct err *e)
{
    char id[HOST_ID_MAX + 1];

    if (read_text("sandbox", v, &o->id, e) < 0)
        return -1;
    if (host_id_parse(span_str(o->id), id) < 0)
        return err_set(e, ERR_CONFIG, "sandbox: an id is 1 to 40 of a-z 0-9 -, not %s",
                       log_q(o->id));
    memcpy(o->id, id, strlen(id) + 1); /* the same length, folded */
    return 0;
}

static int read_proxy(struct options *o, const struct json *v, struct err *e)
{
    if (read_text("proxy", v, &o->proxy, e) < 0)
        return -1;
    if (strcmp(o->proxy, "env") != 0 && strcmp(o->proxy, "none") != 0 &&
        !strstr(o->proxy, "://"))
        return err_set(e, ERR_CONFIG, "proxy: must be a URL, env or none");
    return 0;
}

static int read_key(struct options *o, const char *key, const struct json *v,
                    struct err *e)
{
    if (strcmp(key, "server") == 0)
        return read_text(key, v, &o->server, e);
    if (strcmp(key, "sandbox") == 0)
        return read_sandbox(o, v, e);
    if (strcmp(key, "token_file") == 0)
        return read_text(key, v, &o->token_file, e);
    if (strcmp(key, "ca_file") == 0)
        return read_text(key, v, &o->ca_file, e);
    if (strcmp(key, "proxy") == 0)
        return read_proxy(o, v, e);
    if (strcmp(key, "ports") == 0) {
        o->has_ports = true;
        return read_list(key, v, &o->ports, e);
    }
    if (strcmp(key, "exclude") == 0)
        return read_list(key, v, &o->exclude, e);
    if (strcmp(key, "public") == 0)
        return read_public(o, v, e);
    if (strcmp(key, "names") == 0)
        return read_map(key, o, v, set_name, e);
    if (strcmp(key, "host_mode") == 0)
        return read_map(key, o, v, set_mode, e);
    if (strcmp(key, "sockets") == 0)
        return read_map(key, o, v, set_socket, e);
    if (strcmp(key, "log") == 0)
        return read_log(o, v, e);
    if (strcmp(key, "token") == 0)
        return err_set(e, ERR_CONFIG, "token: a token has a file of its own, token_file");
    return err_set(e, ERR_CONFIG, "there is no key %s", log_q(key));
}

static int read_root(struct options *o, const struct json *root, struct err *e)
{
    const struct json *v;
    const char *key;
    size_t pos = 0;

    if (json_type(root) != JSON_OBJECT)
        return err_set(e, ERR_CONFIG, "the file must hold an object");
    while (json_next(root, &pos, &key, &v)) {
        if (read_key(o, key, v, e) < 0)
            return -1;
    }
    return 0;
}

int options_file_parse(struct options *o, struct span text, struct err *e)
{
    struct json *root = json_parse(text, OPTIONS_FILE_MAX, e);
    int r;

    if (!root)
        return -1;
    r = read_root(o, root, e);
    json_free(root);
    return r;
}

int options_file_read(struct options *o, const char *path, struct err *e)
{
    struct json *root = json_parse_file(path, OPTIONS_FILE_MAX, e);
    int r;

    if (!root)
        return -1; /* names the path */
    r = read_root(o, root, e);
    json_free(root);
    return r < 0 ? err_wrap(e, "%s", path) : 0;
}
