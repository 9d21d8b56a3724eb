/* SPDX-License-Identifier: MIT */
/*
 * What reaches outside without being network, at places that the usual covers
 * do not hide:
 *
 *   sockets with names   a service that listens at /var/lib/x/x.sock or in somebody's home can be
 *                        spoken to from any network namespace. Those that listen when the sandbox
 *                        is made are covered by an empty file; one that is made later, or that was
 *                        bound by a relative name, is not (docs/EGRESS.md).
 *   $XDG_RUNTIME_DIR     holds nothing but such sockets: private, as /run is
 *   file systems         another /proc (a chroot's) shows the host's processes, another devtmpfs
 *                        its devices, a sysfs its network, an nsfs file is a way to it.
 */
#include "agentd/egress/keeper/sandbox_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/sock.h"

enum {
    TEXT_MAX = 16 * 1024 * 1024, /* of /proc/net/unix or mountinfo */
    HOLES_MAX = 1024,
    GONE_TRIES = 100,  /* to cover a socket that comes and goes */
    LISTENS = 0x10000, /* __SO_ACCEPTCON, in the flags of /proc/net/unix */
};

/* NUL-terminated. */
static int read_text(const char *path, struct buf *ret, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    rc = file_read(fd, path, TEXT_MAX, ret, e);
    (void)close(fd); /* opened for reading: nothing can be lost */
    if (rc == 0 && buf_add(ret, "", 1) < 0)
        rc = err_set(e, ERR_NOMEM, "reading %s: no memory", path);
    return rc;
}

/* -- sockets ------------------------------------------------------------------------- */

/* "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/x.sock" */
static const char *listening_path(char *line)
{
    char *field[8], *rest = NULL, *at;
    size_t n = 0;

    at = strchr(line, '/');
    if (!at || at == line || at[-1] != ' ')
        return NULL;
    at[-1] = '\0';
    for (line = strtok_r(line, " ", &rest); line && n < COUNT_OF(field);
         line = strtok_r(NULL, " ", &rest))
        field[n++] = line;
    /* Datagram sockets are spoken to without listening. */
    if (n != 7 || (strtoul(field[4], NULL, 16) == SOCK_STREAM &&
                   !(strtoul(field[3], NULL, 16) & LISTENS)))
        return NULL;
    return at;
}

int sandbox_sockets_find(struct buf *ret, struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    char *line, *rest = NULL;
    const char *path;

    if (access("/proc/net/unix", F_OK) < 0)
        return 0; /* a kernel without */
    if (read_text("/proc/net/unix", &text, e) < 0)
        return -1;
    for (line = strtok_r((char *)text.p, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        path = listening_path(line);
        if (path && buf_add(ret, path, strlen(path) + 1) < 0)
            return err_set(e, ERR_NOMEM, "no memory for the host's sockets");
    }
    return 0;
}

/* -- covers -------------------------------------------------------------------------- */

static bool is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    return !strncmp(path, folder, n) && (path[n] == '/' || path[n] == '\0');
}

static bool is_hidden_anyway(const char *path)
{
    static const char *const folders[] = {"/proc", "/sys", "/dev",
                                          "/run",  "/tmp", "/var/run"};
    size_t i;

    for (i = 0; i < COUNT_OF(folders); i++)
        if (is_below(path, folders[i]))
            return true;
    return false;
}

static bool is_wanted(const struct sandbox_conf *c, const char *path)
{
    char real[PATH_MAX];
    unsigned i;

    for (i = 0; i < c->n_bind; i++)
        if (realpath(c->bind[i], real) && is_below(path, real))
            return true;
    return false;
}

/* Where the caller cannot go, what runs inside cannot either. */
static bool is_out_of_reach(int sys)
{
    return sys == ENOENT || sys == EACCES || sys == ENOTDIR || sys == ELOOP ||
           sys == ENAMETOOLONG;
}

/* An empty file or an empty folder over it; `source` is a tmpfs with one of each. */
static int cover(const char *path, const char *source, bool is_folder, struct err *e)
{
    char from[64];
    int fd;

    (void)snprintf(from, sizeof from, "%s/%s", source, is_folder ? "folder" : "file");
    fd = sandbox_mount_copy(from, e);
    return fd < 0 ? -1 : sandbox_mount_put(&fd, path, e);
}

/* 1: covered; 0: it needs none; -1. */
static int cover_socket(const struct sandbox_seed *s, const char *path,
                        const char *source, struct err *e)
{
    char real[PATH_MAX];
    struct stat st;

    if (!realpath(path, real) || lstat(real, &st) < 0)
        return is_out_of_reach(errno) ? 0 : err_sys(e, "look at socket %s", path);
    if (!S_ISSOCK(st.st_mode) || is_hidden_anyway(real) || is_wanted(s->conf, real))
        return 0;
    return cover(real, source, false, e) < 0 ? -1 : 1;
}

static int cover_sockets(const struct sandbox_seed *s, const char *source,
                         unsigned *ret_n, struct err *e)
{
    const char *path = (const char *)s->sockets.p, *end = path + s->sockets.len;

    for (; path < end; path += strlen(path) + 1) {
        struct err why = {0};
        int r = -1;

        /* Its owner may remove it, or put another there, at any moment. */
        for (unsigned i = 0; i < GONE_TRIES && r < 0; i++) {
            r = cover_socket(s, path, source, &why);
            if (r < 0 && why.sys != ENOENT)
                break;
        }
        if (r < 0) {
            *e = why;
            return -1;
        }
        *ret_n += (unsigned)r;
        if (*ret_n > HOLES_MAX)
            return err_set(e, ERR_LIMIT, "more than %d sockets to cover", HOLES_MAX);
    }
    return 0;
}

/* Octal escapes of mountinfo, in place. */
static void unescape(char *text)
{
    char *to = text;

    for (; *text; text++) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
            *to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 3;
        } else {
            *to++ = *text;
        }
    }
    *to = '\0';
}

/* "36 35 98:0 /root /place rw,... shared:1 - ext4 /dev/x rw": the place, where the type
 * is one of those that show the host. */
static char *telling_place(char *line)
{
    static const char *const types[] = {"proc",   "sysfs",   "devtmpfs", "devpts",
                                        "nsfs",   "debugfs", "tracefs",  "cgroup",
                                        "mqueue", "cgroup2"};
    char *type = strstr(line, " - "), *place = line, *end;
    size_t i;

    if (!type)
        return NULL;
    type += 3;
    type[strcspn(type, " ")] = '\0';
    for (i = 0; i < COUNT_OF(types); i++)
        if (!strcmp(type, types[i]))
            break;
    if (i == COUNT_OF(types))
        return NULL;
    for (i = 0; i < 4 && place; i++) {
        place = strchr(place, ' ');
        place = place ? place + 1 : NULL;
    }
    end = place ? strchr(place, ' ') : NULL;
    if (!end)
        return NULL;
    *end = '\0';
    unescape(place);
    return place;
}

static int cover_places(const struct sandbox_seed *s, const char *source, unsigned *ret_n,
                        struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    char *line, *rest = NULL;
    const char *place;
    struct stat st;

    if (read_text("/proc/self/mountinfo", &text, e) < 0)
        return -1;
    for (line = strtok_r((char *)text.p, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        place = telling_place(line);
        if (!place || is_hidden_anyway(place) || is_wanted(s->conf, place))
            continue;
        if (lstat(place, &st) < 0) {
            if (is_out_of_reach(errno))
                continue; /* under another mount */
            return err_sys(e, "look at %s", place);
        }
        if (++*ret_n > HOLES_MAX)
            return err_set(e, ERR_LIMIT, "more than %d mounts to cover", HOLES_MAX);
        if (cover(place, source, S_ISDIR(st.st_mode), e) < 0)
            return -1;
    }
    return 0;
}

/* Sockets of the desktop, of agents and of keepers are made there at any time. It is
 * below /run on most machines, and hidden with it. */
static int cover_runtime_folder(const struct sandbox_conf *c, struct err *e)
{
    const char *folder = getenv("XDG_RUNTIME_DIR");
    char real[PATH_MAX], options[128];
    struct stat st;

    if (!folder || folder[0] != '/' || !realpath(folder, real) || stat(real, &st) < 0 ||
        !S_ISDIR(st.st_mode) || !strcmp(real, "/") || is_hidden_anyway(real) ||
        is_wanted(c, real))
        return 0;
    (void)snprintf(options, sizeof options,
                   "size=" SANDBOX_RUN_BYTES ",nr_inodes=" SANDBOX_INODES
                   ",mode=0700,uid=%u,gid=%u",
                   (unsigned)(c->first_id ? c->first_id : c->uid),
                   (unsigned)(c->first_id ? c->first_id : c->gid));
    return sandbox_tmpfs(real, options, MS_NOSUID | MS_NODEV, e);
}

/* What rules and records the sandbox is often the caller's own file, and so
 * COMMAND's to write. */
static int fix(const char *path, struct err *e)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    char real[PATH_MAX];
    struct stat st;
    int fd;

    if (!path || !realpath(path, real) || stat(real, &st) < 0 || !S_ISREG(st.st_mode) ||
        is_hidden_anyway(real))
        return 0;
    fd = sandbox_mount_copy(real, e);
    if (fd < 0)
        return -1;
    if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0) {
        (void)err_sys(e, "make %s read-only", real);
        sock_close(&fd);
        return -1;
    }
    return sandbox_mount_put(&fd, real, e);
}

/* The caller's own file, and so COMMAND's to read where the caller is no root. */
static int hide(const char *path, const char *source, struct err *e)
{
    char real[PATH_MAX];
    struct stat st;

    if (!path || !realpath(path, real) || stat(real, &st) < 0 || !S_ISREG(st.st_mode) ||
        is_hidden_anyway(real))
        return 0;
    return cover(real, source, false, e);
}

int sandbox_holes_cover(const struct sandbox_seed *s, struct err *e)
{
    static const char source[] = "/tmp";
    unsigned n = 0;
    size_t i;
    int r;

    /* For a moment at /tmp: the copies keep the tmpfs. */
    if (sandbox_tmpfs(source, "size=4k,nr_inodes=8,mode=0755",
                      MS_NOSUID | MS_NODEV | MS_NOEXEC, e) < 0)
        return -1;
    if (sandbox_mount_point("/tmp/file", false, e) < 0 ||
        sandbox_mount_point("/tmp/folder", true, e) < 0)
        return -1;
    if (mount(NULL, source, NULL,
              MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL) < 0)
        return err_sys(e, "make covers read-only");
    r = cover_places(s, source, &n, e);
    if (r == 0)
        r = cover_sockets(s, source, &n, e);
    if (r == 0)
        r = cover_runtime_folder(s->conf, e);
    for (i = 0; i < COUNT_OF(s->conf->fixed) && r == 0; i++)
        r = fix(s->conf->fixed[i], e);
    for (i = 0; i < COUNT_OF(s->conf->secret) && r == 0; i++)
        r = hide(s->conf->secret[i], source, e);
    if (r == 0 && umount2(source, MNT_DETACH) < 0)
        r = err_sys(e, "unmount %s", source);
    return r;
}
