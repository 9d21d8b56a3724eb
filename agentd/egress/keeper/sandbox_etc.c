/* SPDX-License-Identifier: MIT */
/*
 * /etc/resolv.conf and /etc/nsswitch.conf of the sandbox. Ours are files of a small
 * read-only tmpfs, mounted over the host's. Three cases, by what the name is:
 *
 *   a file, or a link to one    mount over it
 *   a link into /run or /tmp    (systemd-resolved, resolvconf) its target is covered by our tmpfs:
 *                               make it there
 *   absent, or another link     nothing to mount at, and the host's /etc must not change: /etc
 *                               becomes a tmpfs in which each entry of the old
 *                               one is shown again
 */
#include "agentd/egress/keeper/sandbox_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/sandbox_name.h"
#include "common/cdefs.h"
#include "common/mem.h"
#include "common/sock.h"

#define ENTRIES_MAX 4096 /* of /etc, when it must be made anew */

static const struct {
    const char *name, *text;
} files[SANDBOX_ETC_FILES] = {
    {"resolv.conf",
     "# agentd egress: all names are asked of the sandbox's own name server\n"
     "nameserver " EGRESS_SEALED_IP4 "\n"},
    {"nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\ngshadow: files\n"
                      "hosts: files dns\nnetworks: files\nprotocols: files\n"
                      "services: files\nethers: files\nrpc: files\n"},
};

static int file_make(const char *path, const char *text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    ssize_t n;

    if (fd < 0)
        return err_sys(e, "make %s", path);
    n = write(fd, text, strlen(text));
    if (n != (ssize_t)strlen(text)) {
        (void)err_sys(e, "write %s", path);
        (void)close(fd); /* the write's fault is the one to tell */
        return -1;
    }
    (void)close(fd); /* a tmpfs has it */
    return 0;
}

int sandbox_etc_make(int ret[SANDBOX_ETC_FILES], struct err *e)
{
    char path[64];
    size_t i;

    /* /tmp is only where it stands for a moment: the copies keep the tmpfs. */
    if (sandbox_tmpfs("/tmp", "size=64k,nr_inodes=16,mode=0755",
                      MS_NOSUID | MS_NODEV | MS_NOEXEC, e) < 0)
        return -1;
    for (i = 0; i < COUNT_OF(files); i++) {
        (void)snprintf(path, sizeof path, "/tmp/%s", files[i].name);
        if (file_make(path, files[i].text, e) < 0)
            return -1;
    }
    if (mount(NULL, "/tmp", NULL,
              MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL) < 0)
        return err_sys(e, "make the sandbox's files read-only");
    for (i = 0; i < COUNT_OF(files); i++) {
        (void)snprintf(path, sizeof path, "/tmp/%s", files[i].name);
        ret[i] = sandbox_mount_copy(path, e);
        if (ret[i] < 0)
            return -1; /* the process ends, and with it what is open */
    }
    return umount2("/tmp", MNT_DETACH) < 0 ? err_sys(e, "unmount /tmp") : 0;
}

/* -- where to put one ---------------------------------------------------------------- */

/* The absolute path of a link's text, seen from /etc, with "." and ".." taken out by
 * letter: what it leads to is not there to be asked. False: too long. */
static bool link_target(const char *text, char ret[PATH_MAX])
{
    char whole[PATH_MAX], *part, *rest = NULL;
    size_t n = 0, len;
    char *slash;

    if (snprintf(whole, sizeof whole, "%s%s", text[0] == '/' ? "" : "/etc/", text) >=
        PATH_MAX)
        return false;
    ret[0] = '\0';
    for (part = strtok_r(whole, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
        if (!strcmp(part, "."))
            continue;
        if (!strcmp(part, "..")) {
            slash = strrchr(ret, '/');
            n = slash ? (size_t)(slash - ret) : 0;
            ret[n] = '\0';
            continue;
        }
        len = strlen(part);
        if (n + len + 2 > PATH_MAX)
            return false;
        ret[n] = '/';
        memcpy(ret + n + 1, part, len + 1);
        n += len + 1;
    }
    return n > 0;
}

static bool is_private(const char *path)
{
    return !strncmp(path, "/run/", 5) || !strncmp(path, "/tmp/", 5) ||
           !strncmp(path, "/var/run/", 9);
}

/* 1: it is in place, 0: there is nowhere to mount it, -1: error. */
static int put_one(int *take_fd, const char *name, struct err *e)
{
    char path[64], text[PATH_MAX], target[PATH_MAX];
    struct stat st;
    ssize_t n;

    (void)snprintf(path, sizeof path, "/etc/%s", name);
    if (realpath(path, target)) {
        if (stat(target, &st) < 0 || S_ISDIR(st.st_mode))
            return 0;
        return sandbox_mount_put(take_fd, target, e) < 0 ? -1 : 1;
    }
    n = readlink(path, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    if (!link_target(text, target) || !is_private(target))
        return 0;
    if (sandbox_mount_point(target, false, e) < 0 ||
        sandbox_mount_put(take_fd, target, e) < 0)
        return -1;
    return 1;
}

/* -- /etc anew ----------------------------------------------------------------------- */

struct entry {
    char name[NAME_MAX + 1];
    char *link; /* its text, or NULL */
    int fd;     /* a copy of its mount, or -1 */
    bool is_folder;
};

static bool is_ours(const char *name)
{
    size_t i;

    for (i = 0; i < COUNT_OF(files); i++)
        if (!strcmp(name, files[i].name))
            return true;
    return false;
}

/* 0 also for what cannot be read: the caller could not either. */
static int entry_take(struct entry *t, const char *name, struct err *e)
{
    char path[sizeof "/etc/" + NAME_MAX], text[PATH_MAX];
    struct stat st;
    ssize_t n;

    (void)snprintf(path, sizeof path, "/etc/%s", name);
    t->fd = -1;
    if (lstat(path, &st) < 0)
        return 0;
    (void)snprintf(t->name, sizeof t->name, "%s", name);
    t->is_folder = S_ISDIR(st.st_mode);
    if (!S_ISLNK(st.st_mode)) {
        t->fd = sandbox_mount_copy(path, e);
        return t->fd < 0 ? -1 : 0;
    }
    n = readlink(path, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    t->link = mem_alloc((size_t)n + 1);
    if (!t->link)
        return err_set(e, ERR_NOMEM, "no memory for /etc");
    memcpy(t->link, text, (size_t)n + 1);
    return 0;
}

static int entry_put(struct entry *t, struct err *e)
{
    char path[sizeof "/etc/" + NAME_MAX];

    (void)snprintf(path, sizeof path, "/etc/%s", t->name);
    if (t->link)
        return symlink(t->link, path) < 0 ? err_sys(e, "make link %s", path) : 0;
    if (t->fd < 0)
        return 0;
    if (sandbox_mount_point(path, t->is_folder, e) < 0)
        return -1;
    return sandbox_mount_put(&t->fd, path, e);
}

static int take_all(struct entry *t, size_t *ret_n, struct err *e)
{
    DIR *d = opendir("/etc");
    const struct dirent *de;
    size_t n = 0;
    int r = 0;

    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, "read /etc");
    while (r == 0 && (de = readdir(d)) != NULL) {
        if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") || is_ours(de->d_name))
            continue;
        if (n == ENTRIES_MAX)
            r = err_set(e, ERR_LIMIT, "/etc has more than %d entries", ENTRIES_MAX);
        else
            r = entry_take(&t[n++], de->d_name, e);
    }
    (void)closedir(d);
    *ret_n = n;
    return r;
}

static int etc_anew(int fd[SANDBOX_ETC_FILES], struct err *e)
{
    struct entry *t = mem_zalloc(ENTRIES_MAX, sizeof *t);
    size_t n = 0, i;
    char path[64];
    int r;

    if (!t)
        return err_set(e, ERR_NOMEM, "no memory for /etc");
    r = take_all(t, &n, e);
    if (r == 0)
        r = sandbox_tmpfs("/etc", "size=4m,nr_inodes=8192,mode=0755",
                          MS_NOSUID | MS_NODEV, e);
    for (i = 0; i < n; i++) {
        if (r == 0)
            r = entry_put(&t[i], e);
        sock_close(&t[i].fd);
        mem_free(t[i].link);
    }
    mem_free(t);
    for (i = 0; i < COUNT_OF(files) && r == 0; i++) {
        (void)snprintf(path, sizeof path, "/etc/%s", files[i].name);
        r = sandbox_mount_point(path, false, e);
        if (r == 0)
            r = sandbox_mount_put(&fd[i], path, e);
    }
    return r;
}

int sandbox_etc_place(int fd[SANDBOX_ETC_FILES], struct err *e)
{
    int copy[SANDBOX_ETC_FILES] = {-1, -1}, r = 1;
    size_t i;

    /* Each is put by a copy of its own, since the second may need what the
     * first has used. */
    for (i = 0; i < COUNT_OF(files) && r > 0; i++) {
        copy[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, 3);
        if (copy[i] < 0)
            r = err_sys(e, "copy a descriptor");
        else
            r = put_one(&copy[i], files[i].name, e);
        sock_close(&copy[i]);
    }
    if (r == 0)
        r = etc_anew(fd, e) < 0 ? -1 : 1;
    for (i = 0; i < COUNT_OF(files); i++)
        sock_close(&fd[i]);
    return r < 0 ? -1 : 0;
}
