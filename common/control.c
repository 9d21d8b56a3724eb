/* SPDX-License-Identifier: MIT */
#include "common/control.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/json.h"
#include "common/limits.h"

static const char *const TYPE_NAME[CONTROL_TYPE_COUNT] = {
    [CONTROL_HELLO] = "hello", [CONTROL_WELCOME] = "welcome", [CONTROL_PORT] = "port",
    [CONTROL_GONE] = "gone",   [CONTROL_URL] = "url",         [CONTROL_GOAWAY] = "goaway",
};
static const char *const VISIBILITY_NAME[] = {
    [CONTROL_DEFAULT] = "default",
    [CONTROL_PRIVATE] = "private",
    [CONTROL_PUBLIC] = "public",
};
static const char *const HOST_MODE_NAME[] = {
    [CONTROL_LOCALHOST] = "localhost",
    [CONTROL_PRESERVE] = "preserve",
};

static int name_index(const char *const *names, size_t n, const char *text)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (strcmp(names[i], text) == 0)
            return (int)i;
    return -1;
}

/* -- parsing ---------------------------------------------------------------------------
 */

/* A message being read. The first fault stays in *e; the getters go on with nothing. */
struct reader {
    const struct json *obj;
    struct err *e;
    bool is_bad;
};

static void fault(struct reader *r, const char *name, const char *rule)
{
    if (!r->is_bad)
        err_set(r->e, ERR_PROTO, "control member \"%s\" %s", name, rule);
    r->is_bad = true;
}

static const struct json *member(struct reader *r, const char *name, enum json_type type,
                                 bool is_needed)
{
    const struct json *v = json_get(r->obj, name);
    char rule[48];

    if (v == NULL) {
        if (is_needed)
            fault(r, name, "is missing");
        return NULL;
    }
    if (json_type(v) != type) {
        (void)snprintf(rule, sizeof(rule), "must be %s", json_type_name(type));
        fault(r, name, rule);
        return NULL;
    }
    return v;
}

/* `cap` with the NUL. Control characters are refused: these texts reach logs and
 * terminals. */
static void get_text(struct reader *r, const char *name, char *ret, size_t cap,
                     bool is_needed)
{
    const struct json *v = member(r, name, JSON_STRING, is_needed);
    const char *s = v != NULL ? json_str(v) : "";
    const char *p;

    for (p = s; *p != '\0'; p++) {
        /* U+0080 to U+009F are c2 80 to c2 9f: terminals take U+009B for ESC [. */
        bool is_c1 = (uint8_t)p[0] == 0xc2 && (uint8_t)p[1] < 0xa0;

        if ((unsigned char)*p < 0x20 || *p == 0x7f || is_c1) {
            fault(r, name, "holds a control character");
            return;
        }
    }
    if ((size_t)(p - s) >= cap) {
        fault(r, name, "is too long");
        return;
    }
    if (is_needed && v != NULL && p == s)
        fault(r, name, "must not be empty");
    memcpy(ret, s, (size_t)(p - s) + 1);
}

static uint32_t get_uint(struct reader *r, const char *name, uint32_t min, uint32_t max,
                         bool is_needed)
{
    const struct json *v = member(r, name, JSON_INT, is_needed);
    int64_t n = v != NULL ? json_int(v) : min;

    if (n < min || n > max) {
        fault(r, name, "is out of range");
        return min;
    }
    return (uint32_t)n;
}

static bool get_bool(struct reader *r, const char *name)
{
    const struct json *v = member(r, name, JSON_BOOL, false);

    return v != NULL && json_bool(v);
}

/* One of a few words; the first when absent. */
static int get_word(struct reader *r, const char *name, const char *const *words,
                    size_t n)
{
    const struct json *v = member(r, name, JSON_STRING, false);
    int i = v != NULL ? name_index(words, n, json_str(v)) : 0;

    if (i < 0)
        fault(r, name, "is not one of its values");
    return i < 0 ? 0 : i;
}

static void get_ports(struct reader *r, const char *name, struct port_list *ret)
{
    const struct json *v = member(r, name, JSON_STRING, false);

    if (v == NULL || json_str(v)[0] == '\0')
        return;
    if (port_list_parse(span_str(json_str(v)), ret) < 0)
        fault(r, name, "must be a list of ports");
}

/* Names of what the other side can do beyond this version; there are none yet, so only
 * the form is checked and names that we do not know are passed over. */
static void get_features(struct reader *r)
{
    const struct json *v = member(r, "features", JSON_ARRAY, false);
    size_t i;

    for (i = 0; v != NULL && i < json_len(v); i++)
        if (json_type(json_at(v, i)) != JSON_STRING)
            fault(r, "features", "must be an array of strings");
}

static void get_hello(struct reader *r, struct control_msg *m)
{
    m->u.hello.version = get_uint(r, "version", 1, UINT32_MAX, true);
    get_text(r, "instance", m->u.hello.instance, sizeof(m->u.hello.instance), true);
    get_text(r, "agent", m->u.hello.agent, sizeof(m->u.hello.agent), false);
    get_text(r, "hostname", m->u.hello.hostname, sizeof(m->u.hello.hostname), false);
    m->u.hello.window = get_uint(r, "window", 1, INT32_MAX, true);
    m->u.hello.max_streams = get_uint(r, "max_streams", 1, INT32_MAX, true);
    get_ports(r, "excluded", &m->u.hello.excluded);
    get_features(r);
}

static void get_welcome(struct reader *r, struct control_msg *m)
{
    m->u.welcome.version = get_uint(r, "version", 1, UINT32_MAX, true);
    m->u.welcome.window = get_uint(r, "window", 1, INT32_MAX, true);
    /* 0: the agent opens none. */
    m->u.welcome.max_streams = get_uint(r, "max_streams", 0, INT32_MAX, true);
    get_text(r, "url_form", m->u.welcome.url_form, sizeof(m->u.welcome.url_form), true);
    get_features(r);
}

static void get_port(struct reader *r, struct control_msg *m)
{
    m->u.port.port = (uint16_t)get_uint(r, "port", 1, UINT16_MAX, true);
    m->u.port.visibility = (enum control_visibility)get_word(
        r, "visibility", VISIBILITY_NAME, COUNT_OF(VISIBILITY_NAME));
    m->u.port.host_mode = (enum control_host_mode)get_word(r, "host_mode", HOST_MODE_NAME,
                                                           COUNT_OF(HOST_MODE_NAME));
    get_text(r, "name", m->u.port.name, sizeof(m->u.port.name), false);
    get_text(r, "process", m->u.port.process, sizeof(m->u.port.process), false);
    get_text(r, "address", m->u.port.address, sizeof(m->u.port.address), false);
}

static void get_url(struct reader *r, struct control_msg *m)
{
    m->u.url.port = (uint16_t)get_uint(r, "port", 1, UINT16_MAX, true);
    get_text(r, "url", m->u.url.url, sizeof(m->u.url.url), false);
    get_text(r, "refused", m->u.url.why, sizeof(m->u.url.why), false);
    m->u.url.is_public = get_bool(r, "public");
    m->u.url.is_refused = m->u.url.why[0] != '\0';
    if (m->u.url.is_refused == (m->u.url.url[0] != '\0'))
        fault(r, "url", "must be there, or \"refused\", and not both");
}

static void get_goaway(struct reader *r, struct control_msg *m)
{
    get_text(r, "reason", m->u.goaway.reason, sizeof(m->u.goaway.reason), true);
    get_text(r, "by", m->u.goaway.by, sizeof(m->u.goaway.by), false);
    get_text(r, "at", m->u.goaway.at, sizeof(m->u.goaway.at), false);
    m->u.goaway.retry_after_ms = get_uint(r, "retry_after_ms", 0, UINT32_MAX, false);
}

static void get_message(struct reader *r, struct control_msg *m)
{
    switch (m->type) {
    case CONTROL_HELLO:
        get_hello(r, m);
        break;
    case CONTROL_WELCOME:
        get_welcome(r, m);
        break;
    case CONTROL_PORT:
        get_port(r, m);
        break;
    case CONTROL_GONE:
        m->u.port.port = (uint16_t)get_uint(r, "port", 1, UINT16_MAX, true);
        break;
    case CONTROL_URL:
        get_url(r, m);
        break;
    case CONTROL_GOAWAY:
        get_goaway(r, m);
        break;
    case CONTROL_TYPE_COUNT:
        break;
    }
}

static int read_object(const struct json *root, struct control_msg *ret, struct err *e)
{
    struct reader r = {.obj = root, .e = e};
    struct control_msg m = {0};
    const struct json *type;
    int i;

    if (json_type(root) != JSON_OBJECT)
        return err_set(e, ERR_PROTO, "a control message must be an object");
    type = member(&r, "type", JSON_STRING, true);
    if (type == NULL)
        return -1;
    i = name_index(TYPE_NAME, COUNT_OF(TYPE_NAME), json_str(type));
    if (i < 0)
        return 1;
    m.type = (enum control_type)i;
    get_message(&r, &m);
    if (r.is_bad)
        return -1;
    *ret = m;
    return 0;
}

int control_parse(struct span text, struct control_msg *ret, struct err *e)
{
    struct err why = {0};
    struct json *root = json_parse(text, CONTROL_MAX, &why);
    int rc;

    if (root == NULL)
        return err_set(e, why.code == ERR_NOMEM ? ERR_NOMEM : ERR_PROTO,
                       "control message: %s", why.msg);
    rc = read_object(root, ret, e);
    json_free(root);
    return rc;
}

/* -- printing --------------------------------------------------------------------------
 */

/* A message being printed; after a failure the rest is left out. */
struct writer {
    struct buf *out;
    bool has_failed;
};

static void put_name(struct writer *w, const char *name)
{
    if (!w->has_failed && buf_addf(w->out, ",\"%s\":", name) < 0)
        w->has_failed = true;
}

static void put_text(struct writer *w, const char *name, const char *text)
{
    if (text[0] == '\0')
        return;
    put_name(w, name);
    if (!w->has_failed && json_put_str(w->out, span_str(text)) < 0)
        w->has_failed = true;
}

static void put_uint(struct writer *w, const char *name, uint32_t n)
{
    put_name(w, name);
    if (!w->has_failed && buf_addf(w->out, "%" PRIu32, n) < 0)
        w->has_failed = true;
}

static void put_ports(struct writer *w, const char *name, const struct port_list *l)
{
    char text[PORT_LIST_MAX * 12 + 1];
    size_t len = 0;
    unsigned i;

    for (i = 0; i < l->n; i++) {
        const struct port_range *p = &l->range[i];

        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%u", i > 0 ? "," : "",
                                p->first);
        if (p->last != p->first)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "-%u", p->last);
    }
    text[len] = '\0';
    put_text(w, name, text);
}

static void put_features(struct writer *w)
{
    put_name(w, "features");
    if (!w->has_failed && buf_adds(w->out, "[]") < 0)
        w->has_failed = true;
}

static void put_hello(struct writer *w, const struct control_msg *m)
{
    put_uint(w, "version", m->u.hello.version);
    put_text(w, "instance", m->u.hello.instance);
    put_text(w, "agent", m->u.hello.agent);
    put_text(w, "hostname", m->u.hello.hostname);
    put_uint(w, "window", m->u.hello.window);
    put_uint(w, "max_streams", m->u.hello.max_streams);
    put_ports(w, "excluded", &m->u.hello.excluded);
    put_features(w);
}

static void put_port(struct writer *w, const struct control_msg *m)
{
    put_uint(w, "port", m->u.port.port);
    put_text(w, "visibility", VISIBILITY_NAME[m->u.port.visibility]);
    put_text(w, "host_mode", HOST_MODE_NAME[m->u.port.host_mode]);
    put_text(w, "name", m->u.port.name);
    put_text(w, "process", m->u.port.process);
    put_text(w, "address", m->u.port.address);
}

static void put_url(struct writer *w, const struct control_msg *m)
{
    put_uint(w, "port", m->u.url.port);
    if (m->u.url.is_refused) {
        put_text(w, "refused", m->u.url.why);
        return;
    }
    put_text(w, "url", m->u.url.url);
    put_name(w, "public");
    if (!w->has_failed && buf_adds(w->out, m->u.url.is_public ? "true" : "false") < 0)
        w->has_failed = true;
}

static void put_message(struct writer *w, const struct control_msg *m)
{
    switch (m->type) {
    case CONTROL_HELLO:
        put_hello(w, m);
        break;
    case CONTROL_WELCOME:
        put_uint(w, "version", m->u.welcome.version);
        put_uint(w, "window", m->u.welcome.window);
        put_uint(w, "max_streams", m->u.welcome.max_streams);
        put_text(w, "url_form", m->u.welcome.url_form);
        put_features(w);
        break;
    case CONTROL_PORT:
        put_port(w, m);
        break;
    case CONTROL_GONE:
        put_uint(w, "port", m->u.port.port);
        break;
    case CONTROL_URL:
        put_url(w, m);
        break;
    case CONTROL_GOAWAY:
        put_text(w, "reason", m->u.goaway.reason);
        put_text(w, "by", m->u.goaway.by);
        put_text(w, "at", m->u.goaway.at);
        if (m->u.goaway.retry_after_ms > 0)
            put_uint(w, "retry_after_ms", m->u.goaway.retry_after_ms);
        break;
    case CONTROL_TYPE_COUNT:
        break;
    }
}

int control_print(const struct control_msg *m, struct buf *out)
{
    struct writer w = {.out = out};
    size_t before = out->len;

    if (buf_addf(out, "{\"type\":\"%s\"", TYPE_NAME[m->type]) < 0)
        return -1;
    put_message(&w, m);
    if (w.has_failed || buf_adds(out, "}") < 0) {
        out->len = before;
        return -1;
    }
    return 0;
}
