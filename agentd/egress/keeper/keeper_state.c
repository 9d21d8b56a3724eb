/* SPDX-License-Identifier: MIT */
/*
 * A keeper that ends leaves its sandboxes closed: their rules stand and nobody accepts
 * what is let through. So that the next one can open them again, each is remembered in
 * a file of its own: policy, and which namespace it is. A namespace is known by its
 * inode and a process by its start time, so neither can be taken for another; what is
 * gone is forgotten.
 */
#include "agentd/egress/keeper/keeper_int.h"
#include "agentd/egress/kernel/rt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/keeper/veth_record.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    STATE_FILE_MAX = POLICY_TEXT_MAX + 65536,
};

/* -- processes ----------------------------------------------------------------------- */

uint64_t state_pid_start(pid_t pid)
{
    char path[64], text[1024];
    const char *at;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    (void)close(fd); /* opened for reading */
    if (n <= 0)
        return 0;
    text[n] = '\0';
    /* The name may hold anything, ")" included; field 22 counts from behind
     * its last one. */
    at = strrchr(text, ')');
    for (unsigned field = 2; at && field < 22; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    return at ? strtoull(at, NULL, 10) : 0;
}

/* -- writing ------------------------------------------------------------------------- */

static int file_name(const struct keeper *k, const char *name, const char *end,
                     char ret[PATH_MAX])
{
    int n = snprintf(ret, PATH_MAX, "%s/%s%s", k->state_dir, name, end);

    return n < 0 || n >= PATH_MAX ? -1 : 0;
}

static int put_text(struct buf *out, const char *key, const char *text)
{
    if (!text)
        return 0;
    return buf_addf(out, "\"%s\":", key) < 0 || json_put_str(out, span_str(text)) < 0 ||
                   buf_adds(out, ",") < 0
               ? -1
               : 0;
}

static int print_state(const struct kept *s, struct buf *out)
{
    if (buf_addf(out, "{\"tier\":\"%s\",", s->tier == EGRESS_SEALED ? "sealed" : "veth") <
            0 ||
        put_text(out, "netns", s->ns_path) < 0 || put_text(out, "iface", s->iface) < 0)
        return -1;
    if (s->tier == EGRESS_VETH &&
        (buf_adds(out, "\"veth\":") < 0 || veth_record_print(&s->veth, out) < 0 ||
         buf_adds(out, ",") < 0))
        return -1;
    if (buf_addf(out, "\"pid\":%ld,\"start\":\"%llu\",\"inode\":\"%llu\",\"policy\":",
                 (long)s->pid, (unsigned long long)s->pid_start,
                 (unsigned long long)s->ns_stat.st_ino) < 0)
        return -1;
    return policy_print(s->policy, out) < 0 || buf_adds(out, "}\n") < 0 ? -1 : 0;
}

static int write_file(const char *path, struct span text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    size_t at = 0;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    while (at < text.len) {
        ssize_t n = write(fd, text.p + at, text.len - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            (void)err_sys(e, "write %s", path);
            sock_close(&fd);
            return -1;
        }
        at += (size_t)n;
    }
    return close(fd) < 0 ? err_sys(e, "write %s", path) : 0;
}

void state_save(const struct kept *s)
{
    const struct keeper *k = s->keeper;
    char path[PATH_MAX], fresh[PATH_MAX];
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct err e;

    if (!k->state_dir || (!s->ns_path && s->pid == 0))
        return;
    if (print_state(s, &text) < 0 || file_name(k, s->name, ".json", path) < 0 ||
        file_name(k, s->name, ".new", fresh) < 0) {
        log_warn("state.save", "sandbox=%s error=%s", s->name, log_q("no memory"));
        return;
    }
    if (write_file(fresh, buf_span(&text), &e) < 0) {
        log_warn("state.save", "sandbox=%s error=%s", s->name, log_e(&e));
        (void)unlink(fresh); /* half of it is of no use */
    } else if (rename(fresh, path) < 0) {
        log_warn("state.save", "sandbox=%s errno=%d", s->name, errno);
    }
}

void state_forget(const struct kept *s)
{
    char path[PATH_MAX];

    if (s->keeper->state_dir && file_name(s->keeper, s->name, ".json", path) == 0)
        (void)unlink(path); /* it may never have been written */
}

/* -- reading ------------------------------------------------------------------------- */

struct remembered {
    struct keeper_add add;
    struct veth veth; /* VETH */
    uint64_t start, inode;
};

static uint64_t number_of(const struct json *o, const char *key)
{
    const char *text = json_get_str(o, key, NULL);

    return text ? strtoull(text, NULL, 10) : 0;
}

static int read_record(const struct json *o, struct remembered *ret, struct err *e)
{
    const struct json *pid = json_get(o, "pid");
    const char *tier = json_get_str(o, "tier", NULL);

    if (!tier || !pid || json_type(pid) != JSON_INT)
        return err_set(e, ERR_CONFIG, "it is not what was written there");
    ret->add.tier = strcmp(tier, "sealed") == 0 ? EGRESS_SEALED : EGRESS_VETH;
    ret->add.ns_path = json_get_str(o, "netns", NULL);
    ret->add.iface = json_get_str(o, "iface", NULL);
    ret->add.pid = (pid_t)json_int(pid);
    ret->start = number_of(o, "start");
    ret->inode = number_of(o, "inode");
    return ret->add.tier == EGRESS_SEALED
               ? 0
               : veth_record_read(json_get(o, "veth"), &ret->veth, e);
}

/* ERR_NOTFOUND: it is gone, or another one has its place. */
static int check_alive(const struct remembered *r, struct err *e)
{
    char path[64];
    struct stat st;

    (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)r->add.pid);
    if (r->add.pid > 0 && (r->start == 0 || state_pid_start(r->add.pid) != r->start))
        return err_set(e, ERR_NOTFOUND, "its process is gone");
    if (stat(r->add.ns_path ? r->add.ns_path : path, &st) < 0 ||
        (uint64_t)st.st_ino != r->inode)
        return err_set(e, ERR_NOTFOUND, "its namespace is gone");
    return 0;
}

static struct policy *read_policy(struct span text, struct err *e)
{
    struct policy_faults *faults = mem_zalloc(1, sizeof *faults);
    struct policy *p = NULL;
    struct span policy;

    if (!faults || json_find(text, "policy", &policy) < 0)
        (void)err_set(e, faults ? ERR_CONFIG : ERR_NOMEM, "its policy cannot be read");
    else if (!(p = policy_compile(policy, NULL, faults)) &&
             policy_faults_err(faults, e) < 0)
        (void)err_wrap(e, "its policy"); /* NULL says it */
    mem_free(faults);
    return p;
}

static int adopt(struct keeper *k, const char *name, struct span text,
                 const struct json *o, struct err *e)
{
    struct remembered r = {.add = {.name = name}};
    struct netns *ns = NULL;
    struct err why;
    int rc;

    if (read_record(o, &r, e) < 0)
        return -1;
    if (check_alive(&r, e) < 0) {
        /* Its queues, and others in its namespace, may have outlived it: as at its end. */
        if (r.add.tier == EGRESS_VETH &&
            rt_link_down(k->host_rt_fd, r.veth.port_index, &why) < 0)
            *e = why;
        return -1;
    }
    r.add.policy = read_policy(text, e);
    if (!r.add.policy)
        return -1;
    ns = netns_open(r.add.ns_path, r.add.pid, e);
    r.add.take_ns = &ns;
    rc = ns ? keeper_adopt(k, &r.add, &r.veth, e) : -1;
    policy_unref(r.add.policy);
    return rc;
}

static int read_file(const char *path, struct buf *ret, struct err *e)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), rc;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    rc = file_read(fd, path, STATE_FILE_MAX, ret, e);
    sock_close(&fd);
    return rc;
}

static int load_one(struct keeper *k, const char *name, struct err *e)
{
    char path[PATH_MAX];
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct json *o = NULL;
    bool is_sealed = false;
    int rc = -1;

    if (file_name(k, name, ".json", path) < 0)
        return err_set(e, ERR_LIMIT, "the name of the state directory is too long");
    if (read_file(path, &text, e) == 0)
        o = json_parse(buf_span(&text), STATE_FILE_MAX, e);
    if (o) {
        is_sealed = strcmp(json_get_str(o, "tier", ""), "sealed") == 0;
        rc = adopt(k, name, buf_span(&text), o, e);
    }
    json_free(o);
    if (rc == 0) {
        log_notice("state.adopted", "sandbox=%s", name);
        return 0;
    }
    log_warn("state.adopt", "sandbox=%s error=%s", name, log_e(e));
    if (e->code == ERR_NOTFOUND)
        (void)unlink(path); /* nothing to come back to */
    return is_sealed || e->code == ERR_NOTFOUND ? 0 : err_wrap(e, "sandbox %s", name);
}

static bool is_ours(const char *dir)
{
    struct stat st;

    return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 077) == 0;
}

/* The directory and those above it that are missing, all closed to others. */
static void make_dirs(char *path)
{
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(path, 0700); /* is_ours() says how it went */
        *at = '/';
    }
    (void)mkdir(path, 0700);
}

int state_load(struct keeper *k, struct err *e)
{
    const struct dirent *de;
    char name[HOST_ID_MAX + 1];
    int rc = 0;
    DIR *d;

    make_dirs(k->state_dir);
    d = is_ours(k->state_dir) ? opendir(k->state_dir) : NULL;
    if (!d) {
        return err_set(e, ERR_CONFIG,
                       "%s is not a directory of ours that is closed to others",
                       k->state_dir);
    }
    while (rc == 0 && (de = readdir(d)) != NULL) {
        size_t n = strlen(de->d_name);

        if (n > 5 && strcmp(de->d_name + n - 5, ".json") == 0 &&
            host_id_parse(span_of(de->d_name, n - 5), name) == 0)
            rc = load_one(k, name, e);
    }
    (void)closedir(d); /* opened for reading */
    return rc;
}
