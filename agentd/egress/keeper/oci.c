/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/sock.h"

/* -- words --------------------------------------------------------------------------- */

int oci_tier_parse(const char *text, enum egress_tier *ret, struct err *e)
{
    if (!strcmp(text, "sealed"))
        *ret = EGRESS_SEALED;
    else if (!strcmp(text, "veth"))
        *ret = EGRESS_VETH;
    else
        return err_set(e, ERR_CONFIG, "a tier is \"sealed\" or \"veth\"");
    return 0;
}

/* Each part by itself: "/a/../b" is not what it seems to be. */
static bool path_is_plain(const char *p)
{
    while (*p == '/') {
        size_t n = strcspn(++p, "/");

        if (n == 0 || (n <= 2 && !memcmp(p, "..", n)))
            return false;
        p += n;
    }
    return true;
}

int oci_policy_check(const char *text, struct err *e)
{
    size_t n = strlen(text);

    if (n == 0)
        return err_set(e, ERR_CONFIG, "the policy has no name");
    if (n > OCI_POLICY_MAX)
        return err_set(e, ERR_LIMIT, "the policy's path is longer than %d bytes",
                       OCI_POLICY_MAX);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return err_set(e, ERR_CONFIG, "the policy's path has a control byte in it");
    if (text[0] == '/') {
        if (!path_is_plain(text))
            return err_set(e, ERR_CONFIG,
                           "a part of the policy's path is empty, \".\" or \"..\"");
        return 0;
    }
    if (text[0] == '-' || strspn(text, "abcdefghijklmnopqrstuvwxyz-") != n)
        return err_set(e, ERR_CONFIG,
                       "the policy is an absolute path or a preset's name, not "
                       "\"%.64s\"",
                       text);
    return 0;
}

/* -- the state ----------------------------------------------------------------------- */

/* A member's text into *ret; 1: it is there, 0: not, -1: it is no string. */
static int text_of(const struct json *obj, const char *name, const char **ret,
                   struct err *e)
{
    const struct json *v = json_get(obj, name);

    if (!v)
        return 0;
    if (json_type(v) != JSON_STRING)
        return err_set(e, ERR_PROTO, "\"%s\" is %s, not a string", name,
                       json_type_name(json_type(v)));
    *ret = json_str(v);
    return 1;
}

static int must_have(const struct json *obj, const char *name, const char **ret,
                     struct err *e)
{
    int rc = text_of(obj, name, ret, e);

    if (rc == 0)
        return err_set(e, ERR_PROTO, "the container's state has no \"%s\"", name);
    return rc < 0 ? -1 : 0;
}

static int read_pid(const struct json *root, pid_t *ret, struct err *e)
{
    const struct json *v = json_get(root, "pid");

    if (!v || json_type(v) != JSON_INT || json_int(v) <= 0 || json_int(v) > INT32_MAX)
        return err_set(e, ERR_PROTO, "the container's state has no \"pid\" of a process");
    *ret = (pid_t)json_int(v);
    return 0;
}

static int name_from_id(const char *id, struct oci_state *s, struct err *e)
{
    struct span text = span_str(id);

    if (text.len == 0 || text.len > OCI_ID_MAX)
        return err_set(e, ERR_PROTO, "the container's id has %zu bytes", text.len);
    if (text.len > OCI_ID_NAME)
        text.len = OCI_ID_NAME;
    if (host_id_parse(text, s->name) < 0)
        return err_set(e, ERR_CONFIG,
                       "the container's id cannot be a sandbox's name (a-z, 0-9, -): "
                       "set annotation " OCI_NAME);
    return 0;
}

/* A wrong one among ours is an error, not something to pass over: it was meant to say
 * something. */
static int check_annotations(const struct json *all, struct err *e)
{
    static const char *const known[] = {OCI_POLICY, OCI_TIER, OCI_NAME};
    const struct json *v;
    const char *name;
    size_t pos = 0;

    while (json_next(all, &pos, &name, &v)) {
        bool is_known = false;

        if (strncmp(name, OCI_ANNOTATIONS, strlen(OCI_ANNOTATIONS)) != 0)
            continue;
        for (size_t i = 0; i < COUNT_OF(known); i++)
            is_known = is_known || !strcmp(name, known[i]);
        if (!is_known)
            return err_set(e, ERR_CONFIG,
                           "there is no annotation \"%.40s\": policy, tier and name are",
                           name);
    }
    return 0;
}

static int read_annotations(const struct json *root, const char *id, struct oci_state *s,
                            struct err *e)
{
    const struct json *all = json_get(root, "annotations");
    const char *policy = "", *text = "";
    int rc;

    if (!all || json_type(all) != JSON_OBJECT)
        return err_set(e, ERR_CONFIG, "the container has no annotation " OCI_POLICY);
    if (check_annotations(all, e) < 0)
        return -1;
    rc = text_of(all, OCI_POLICY, &policy, e);
    if (rc == 0)
        return err_set(e, ERR_CONFIG, "the container has no annotation " OCI_POLICY);
    if (rc < 0 || oci_policy_check(policy, e) < 0)
        return err_wrap(e, OCI_POLICY);
    memcpy(s->policy, policy, strlen(policy) + 1); /* oci_policy_check() measured it */
    rc = text_of(all, OCI_TIER, &text, e);
    s->tier = EGRESS_SEALED;
    if (rc < 0 || (rc > 0 && oci_tier_parse(text, &s->tier, e) < 0))
        return err_wrap(e, OCI_TIER);
    rc = text_of(all, OCI_NAME, &text, e);
    if (rc == 0)
        return name_from_id(id, s, e);
    if (rc > 0 && host_id_parse(span_str(text), s->name) < 0)
        rc = err_set(e, ERR_CONFIG, "a name has 1 to %d of a-z, 0-9 and -",
                     EGRESS_NAME_MAX);
    return rc < 0 ? err_wrap(e, OCI_NAME) : 0;
}

static int read_root(const struct json *root, struct oci_state *s, struct err *e)
{
    const char *id = "", *status = "", *version = "";

    if (json_type(root) != JSON_OBJECT)
        return err_set(e, ERR_PROTO, "the container's state is no object");
    if (must_have(root, "ociVersion", &version, e) < 0 ||
        must_have(root, "id", &id, e) < 0 || must_have(root, "status", &status, e) < 0 ||
        read_pid(root, &s->pid, e) < 0)
        return -1;
    if (strncmp(version, "1.", 2) != 0)
        return err_set(e, ERR_PROTO, "OCI version %.20s is not known", version);
    if (strcmp(status, "creating") != 0 && strcmp(status, "created") != 0)
        return err_set(e, ERR_PROTO,
                       "the container is %.20s: this is a createRuntime hook", status);
    return read_annotations(root, id, s, e);
}

int oci_state_read(struct span text, struct oci_state *ret, struct err *e)
{
    struct oci_state s = {0};
    struct json *root = json_parse(text, OCI_STATE_MAX, e);
    int rc;

    if (!root)
        return err_wrap(e, "the container's state");
    rc = read_root(root, &s, e);
    json_free(root);
    if (rc == 0)
        *ret = s;
    return rc;
}

int oci_request(const struct oci_state *s, struct span policy, struct buf *out,
                struct err *e)
{
    if (buf_addf(out,
                 "{\"op\":\"attach\",\"name\":\"%s\",\"tier\":\"%s\",\"pid\":%ld,"
                 "\"policy\":",
                 s->name, s->tier == EGRESS_VETH ? "veth" : "sealed", (long)s->pid) < 0 ||
        buf_add(out, policy.p, policy.len) < 0 || buf_adds(out, "}\n") < 0)
        return err_set(e, ERR_NOMEM, "no memory for a request");
    return 0;
}

/* -- files --------------------------------------------------------------------------- */

/* One step down a path; *fd becomes the part's own. */
static int step(int *fd, const char *part, bool is_last, uid_t owner, struct err *e)
{
    struct stat st;
    int next =
        openat(*fd, part, O_PATH | O_NOFOLLOW | O_CLOEXEC | (is_last ? 0 : O_DIRECTORY));

    if (next < 0)
        return err_sys(e, "open \"%s\"", part);
    sock_close(fd);
    *fd = next;
    if (fstat(next, &st) < 0)
        return err_sys(e, "look at \"%s\"", part);
    if (is_last && !S_ISREG(st.st_mode))
        return err_set(e, ERR_DENIED, "\"%.64s\" is not a regular file", part);
    if (st.st_uid != 0 && st.st_uid != owner)
        return err_set(e, ERR_DENIED, "\"%.64s\" is not root's, but user %u's", part,
                       (unsigned)st.st_uid);
    /* In a folder like /tmp others may add, but not replace what is ours. */
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) && (is_last || !(st.st_mode & S_ISVTX)))
        return err_set(e, ERR_DENIED, "\"%.64s\" can be written by others than its owner",
                       part);
    return 0;
}

int oci_trusted_file(const char *path, uid_t owner, struct err *e)
{
    char part[256];
    int fd, rc = 0;

    if (path[0] != '/' || !path_is_plain(path))
        return err_set(e, ERR_CONFIG, "%.100s is not a plain absolute path", path);
    fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "open /");
    for (const char *p = path + 1; rc == 0 && *p;) {
        size_t n = strcspn(p, "/");

        if (n >= sizeof part) {
            rc = err_set(e, ERR_LIMIT, "a part of it is longer than %zu bytes",
                         sizeof part - 1);
            break;
        }
        memcpy(part, p, n);
        part[n] = '\0';
        p += n;
        rc = step(&fd, part, *p == '\0', owner, e);
        p += *p == '/';
    }
    sock_close(&fd);
    return rc < 0 ? err_wrap(e, "%.100s", path) : 0;
}
