/* SPDX-License-Identifier: MIT */
/*
 * Theory. The text is parsed to be judged, and then cut at places that json_find() gives.
 * Where these two could see different things (a name written with escapes) the result is
 * no JSON as we take it, or lacks the hook: so it is read again before it is given out.
 */
#include "agentd/egress/keeper/oci_config.h"

#include <string.h>
#include <strings.h>

#include "agentd/egress/keeper/oci.h"
#include "common/json.h"

/* The member of an object, which must be of this type when it is there and not null.
 * Another spelling of its name is an error: Go's decoder, which runc uses, does not
 * look at case. */
static int member(const struct json *obj, const char *name, enum json_type type,
                  const struct json **ret, struct err *e)
{
    const struct json *v;
    const char *key;
    size_t pos = 0;

    *ret = NULL;
    while (json_next(obj, &pos, &key, &v)) {
        if (strcasecmp(key, name) != 0)
            continue;
        if (strcmp(key, name) != 0)
            return err_set(e, ERR_CONFIG, "config.json: \"%.40s\" is almost \"%s\"", key,
                           name);
        if (json_type(v) == type)
            *ret = v;
        else if (json_type(v) != JSON_NULL)
            return err_set(e, ERR_CONFIG, "config.json: \"%s\" is %s", name,
                           json_type_name(json_type(v)));
    }
    return 0;
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory for config.json");
}

/* Append `text` with the bytes of `old` (a part of it) replaced by `with`. */
static int put_replaced(struct span text, struct span old, struct span with,
                        struct buf *out, struct err *e)
{
    size_t at = (size_t)(old.p - text.p);
    struct span rest = span_skip(text, at + old.len);

    if (buf_add(out, text.p, at) < 0 || buf_add(out, with.p, with.len) < 0 ||
        buf_add(out, rest.p, rest.len) < 0)
        return no_memory(e);
    return 0;
}

/* Append `text` with member `name` of the object at `path` set to `value`. */
static int put_member(struct span text, const char *path, const char *name,
                      struct span value, struct buf *out, struct err *e)
{
    AUTO(buf_done)
    struct buf with = BUF_INIT;
    struct span obj, old;
    char full[64];
    int rc;

    rc = buf_addf(&with, "%s%s%s", path, *path ? "." : "", name);
    if (rc < 0 || with.len >= sizeof full)
        return no_memory(e);
    memcpy(full, with.p, with.len);
    full[with.len] = '\0';
    if (json_find(text, full, &old) == 0)
        return put_replaced(text, old, value, out, e);
    if (json_find(text, path, &obj) < 0 || obj.len < 2 || obj.p[0] != '{')
        return err_set(e, ERR_CONFIG, "config.json: no object \"%s\"", path);
    buf_drop(&with, with.len);
    old = span_of(obj.p, 1);
    if (buf_addf(&with, "{\"%s\":", name) < 0 || buf_add(&with, value.p, value.len) < 0)
        return no_memory(e);
    for (size_t i = 1; i < obj.len; i++) {
        if (strchr(" \t\r\n", obj.p[i]))
            continue;
        if (obj.p[i] != '}' && buf_adds(&with, ",") < 0)
            return no_memory(e);
        break;
    }
    return put_replaced(text, old, buf_span(&with), out, e);
}

/* -- annotations --------------------------------------------------------------------- */

static bool is_ours(const char *name)
{
    return strncasecmp(name, OCI_ANNOTATIONS, strlen(OCI_ANNOTATIONS)) == 0;
}

static int put_pair(struct buf *b, const char *name, const char *value)
{
    if (b->len > 1 && buf_adds(b, ",") < 0)
        return -1;
    if (json_put_str(b, span_str(name)) < 0 || buf_adds(b, ":") < 0)
        return -1;
    return json_put_str(b, span_str(value));
}

/* All annotations anew: theirs as they are, ours as the change says. */
static int print_annotations(const struct json *all, const struct oci_change *c,
                             struct buf *b, struct err *e)
{
    const struct json *v;
    const char *name;
    size_t pos = 0;
    int rc = buf_adds(b, "{");

    while (all && rc == 0 && json_next(all, &pos, &name, &v)) {
        if (json_type(v) != JSON_STRING)
            return err_set(e, ERR_CONFIG, "config.json: annotation \"%.40s\" is %s", name,
                           json_type_name(json_type(v)));
        if (is_ours(name) && (c->policy || (c->tier && !strcmp(name, OCI_TIER))))
            continue;
        rc = put_pair(b, name, json_str(v));
    }
    if (rc == 0 && c->policy)
        rc = put_pair(b, OCI_POLICY, c->policy);
    if (rc == 0 && c->tier)
        rc = put_pair(b, OCI_TIER, c->tier);
    if (rc == 0)
        rc = buf_adds(b, "}");
    return rc < 0 ? no_memory(e) : 0;
}

static int change_annotations(struct span text, const struct json *root,
                              const struct oci_change *c, struct buf *out, struct err *e)
{
    AUTO(buf_done)
    struct buf value = BUF_INIT;
    const struct json *all;
    struct span old;

    if (member(root, "annotations", JSON_OBJECT, &all, e) < 0)
        return -1;
    if (!c->policy && (!all || !json_get(all, OCI_POLICY)))
        return err_set(e, ERR_CONFIG,
                       "the container has no annotation " OCI_POLICY
                       ", and no --policy was given");
    if (all && (json_find(text, "annotations", &old) < 0))
        return err_set(e, ERR_CONFIG,
                       "config.json: \"annotations\" is written with escapes");
    if (print_annotations(all, c, &value, e) < 0)
        return -1;
    return put_member(text, "", "annotations", buf_span(&value), out, e);
}

/* -- the hook ------------------------------------------------------------------------ */

static int print_hook(const struct oci_change *c, struct buf *b, struct err *e)
{
    if (buf_adds(b, "{\"path\":") < 0 || json_put_str(b, span_str(c->program)) < 0 ||
        buf_adds(b, ",\"args\":[\"agentd\",\"egress\",\"hook\"") < 0)
        return no_memory(e);
    if (c->socket &&
        (buf_adds(b, ",\"--socket\",") < 0 || json_put_str(b, span_str(c->socket)) < 0))
        return no_memory(e);
    if (buf_addf(b, "],\"timeout\":%d}", OCI_HOOK_TIMEOUT_S) < 0)
        return no_memory(e);
    return 0;
}

/* Append the list with the hook at its end: what other hooks do to the network
 * is done then. */
static int put_listed(struct span list, size_t n, struct span hook, struct buf *out,
                      struct err *e)
{
    if (list.len < 2)
        return err_set(e, ERR_CONFIG, "config.json: \"createRuntime\" has no end");
    if (buf_add(out, list.p, list.len - 1) < 0 || (n > 0 && buf_adds(out, ",") < 0) ||
        buf_add(out, hook.p, hook.len) < 0 || buf_adds(out, "]") < 0)
        return no_memory(e);
    return 0;
}

/* Is the last of the list, as text, this hook? So a bundle is not given it twice. */
static bool ends_with(struct span list, struct span hook)
{
    return list.len > hook.len &&
           !memcmp(list.p + list.len - 1 - hook.len, hook.p, hook.len);
}

static int change_list(struct span text, const struct json *list, struct span hook,
                       struct buf *out, struct err *e)
{
    AUTO(buf_done)
    struct buf value = BUF_INIT;
    struct span old = span_str("[]");

    if (list && json_find(text, "hooks.createRuntime", &old) < 0)
        return err_set(e, ERR_CONFIG,
                       "config.json: \"createRuntime\" is written with escapes");
    if (list && ends_with(old, hook))
        return buf_add(out, text.p, text.len) < 0 ? no_memory(e) : 0;
    if (put_listed(old, list ? json_len(list) : 0, hook, &value, e) < 0)
        return -1;
    return put_member(text, "hooks", "createRuntime", buf_span(&value), out, e);
}

static int change_hooks(struct span text, const struct json *root,
                        const struct oci_change *c, struct buf *out, struct err *e)
{
    AUTO(buf_done)
    struct buf hook = BUF_INIT;
    AUTO(buf_done)
    struct buf value = BUF_INIT;
    const struct json *hooks, *list;
    struct span at;

    if (member(root, "hooks", JSON_OBJECT, &hooks, e) < 0 || print_hook(c, &hook, e) < 0)
        return -1;
    if (!hooks) {
        if (buf_addf(&value, "{\"createRuntime\":[%.*s]}", SPAN_FMT(buf_span(&hook))) < 0)
            return no_memory(e);
        return put_member(text, "", "hooks", buf_span(&value), out, e);
    }
    if (member(hooks, "createRuntime", JSON_ARRAY, &list, e) < 0)
        return -1;
    if (json_find(text, "hooks", &at) < 0)
        return err_set(e, ERR_CONFIG, "config.json: \"hooks\" is written with escapes");
    return change_list(text, list, buf_span(&hook), out, e);
}

static bool is_text(const struct json *v, const char *want)
{
    return v && json_type(v) == JSON_STRING && !strcmp(json_str(v), want);
}

/* The value at the end of a path of members; NULL: there is none. */
static const struct json *down(const struct json *v, const char *first,
                               const char *second)
{
    v = json_type(v) == JSON_OBJECT ? json_get(v, first) : NULL;
    return v && json_type(v) == JSON_OBJECT ? json_get(v, second) : NULL;
}

static int verify(struct span text, const struct oci_change *c, struct err *e)
{
    struct json *root = json_parse_wide(text, SIZE_MAX, e);
    const struct json *list, *last = NULL;
    int rc = 0;

    if (!root)
        return err_wrap(e, "the changed config.json");
    list = down(root, "hooks", "createRuntime");
    if (list && json_type(list) == JSON_ARRAY && json_len(list) > 0)
        last = json_at(list, json_len(list) - 1);
    if (!last || json_type(last) != JSON_OBJECT ||
        !is_text(json_get(last, "path"), c->program) ||
        (c->policy && !is_text(down(root, "annotations", OCI_POLICY), c->policy)))
        rc =
            err_set(e, ERR_CONFIG, "config.json is written so that no hook can be added");
    json_free(root);
    return rc;
}

int oci_config_change(struct span text, const struct oci_change *c, struct buf *out,
                      struct err *e)
{
    AUTO(buf_done)
    struct buf half = BUF_INIT;
    AUTO(buf_done)
    struct buf whole = BUF_INIT;
    struct json *root = json_parse_wide(text, OCI_CONFIG_MAX, e);
    int rc;

    if (!root)
        return err_wrap(e, "config.json");
    if (json_type(root) != JSON_OBJECT)
        rc = err_set(e, ERR_CONFIG, "config.json is no object");
    else
        rc = change_annotations(text, root, c, &half, e);
    if (rc == 0)
        rc = change_hooks(buf_span(&half), root, c, &whole, e);
    json_free(root);
    if (rc < 0 || verify(buf_span(&whole), c, e) < 0)
        return -1;
    return buf_add(out, whole.p, whole.len) < 0 ? no_memory(e) : 0;
}
