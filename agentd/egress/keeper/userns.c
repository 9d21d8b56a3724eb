/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/userns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"

#define SUBIDS_MAX 4194304 /* bytes of /etc/subuid that are looked at */

enum {
    LOCK_PATH_MAX = 192,
    LOCK_TRIES = 3, /* when others remove the file at the same moment */
    SWEEP_MAX = 512 /* files in the folder of locks that are looked at */
};

/* -- small files --------------------------------------------------------------------- */

static int file_write(const char *path, const char *text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    n = write(fd, text, strlen(text));
    if (n != (ssize_t)strlen(text)) {
        (void)err_sys(e, "write \"%s\" to %s", text, path);
        (void)close(fd); /* the write's fault is the one to tell */
        return -1;
    }
    (void)close(fd); /* /proc has taken it, or said so above */
    return 0;
}

/* 0, also when there is no such file. */
static int read_subids(const char *path, struct buf *ret, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "open %s", path);
    rc = file_read(fd, path, SUBIDS_MAX, ret, e);
    (void)close(fd); /* opened for reading: nothing can be lost */
    return rc;
}

/* A number in /proc/sys, or -1. */
static long sysctl(const char *path)
{
    char text[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -1;
    n = read(fd, text, sizeof text - 1);
    (void)close(fd); /* opened for reading: nothing can be lost */
    if (n <= 0)
        return -1;
    text[n] = '\0';
    return strtol(text, NULL, 10);
}

int userns_refused(const char *what, struct err *e)
{
    int sys = errno;
    const char *why = "";

    if (sysctl("/proc/sys/user/max_user_namespaces") == 0)
        why = " (sysctl user.max_user_namespaces is 0)";
    else if (sysctl("/proc/sys/kernel/unprivileged_userns_clone") == 0)
        why = " (sysctl kernel.unprivileged_userns_clone is 0)";
    else if (sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1)
        why = " (sysctl kernel.apparmor_restrict_unprivileged_userns is 1)";
    else if (sys == ENOSPC)
        why = " (as many as sysctl user.max_*_namespaces allows are there, or 32 deep)";
    else if (sys == EPERM)
        why = " (a container's seccomp list, or an LSM, forbids it)";
    errno = sys;
    return err_sys(e, "%s%s", what, why);
}

/* -- ranges -------------------------------------------------------------------------- */

/* Digits up to the end or ':'. False on anything else. */
static bool number(struct span *text, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i;

    for (i = 0; i < text->len && text->p[i] != ':'; i++) {
        if (text->p[i] < '0' || text->p[i] > '9' || v > UINT32_MAX)
            return false;
        v = v * 10 + (text->p[i] - '0');
    }
    *text = span_skip(*text, i < text->len ? i + 1 : i);
    *ret = v;
    return i > 0;
}

/* "who:first:count" */
static bool line_overlaps(struct span line, uint32_t first, uint32_t count)
{
    const uint8_t *colon = line.len ? memchr(line.p, ':', line.len) : NULL;
    uint64_t at, n;

    if (!colon || line.p[0] == '#')
        return false;
    line = span_skip(line, (size_t)(colon - line.p) + 1);
    if (!number(&line, &at) || !number(&line, &n))
        return false;
    return at < (uint64_t)first + count && first < at + n;
}

bool userns_is_given(struct span subids, uint32_t first, uint32_t count)
{
    const uint8_t *end;
    struct span line;

    while (subids.len > 0) {
        end = memchr(subids.p, '\n', subids.len);
        line = span_of(subids.p, end ? (size_t)(end - subids.p) : subids.len);
        if (line_overlaps(line, first, count))
            return true;
        subids = span_skip(subids, line.len + (end ? 1 : 0));
    }
    return false;
}

static uint32_t slot_of(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a: only to spread names */

    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return h % USERNS_SLOTS;
}

static int make_folders(const char *path, struct err *e)
{
    if (file_make_parents(path, 0755, e) < 0)
        return -1;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make folder %s", path);
    return 0;
}

/* Is the file at `path` still the one that is open? */
static bool is_at(int fd, const char *path)
{
    struct stat open_one, there;

    return fstat(fd, &open_one) == 0 && lstat(path, &there) == 0 &&
           open_one.st_dev == there.st_dev && open_one.st_ino == there.st_ino;
}

static int lock_path(const char *locks, uint32_t slot, char out[LOCK_PATH_MAX],
                     struct err *e)
{
    int n = snprintf(out, LOCK_PATH_MAX, "%s/%u.lock", locks, (unsigned)slot);

    return n < 0 || n >= LOCK_PATH_MAX
               ? err_set(e, ERR_CONFIG, "%.64s... is too long", locks)
               : 0;
}

/* The lock's descriptor, -1 when somebody has it, -2 with *e. A file that was removed
 * between being opened and locked keeps nobody out. */
static int lock_slot(const char *locks, uint32_t slot, struct err *e)
{
    char path[LOCK_PATH_MAX];
    bool is_ours = true;
    int fd;

    if (lock_path(locks, slot, path, e) < 0)
        return -2;
    for (unsigned i = 0; i < LOCK_TRIES && is_ours; i++) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
            (void)err_sys(e, "open %s", path);
            return -2;
        }
        is_ours = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (is_ours && is_at(fd, path))
            return fd;
        (void)close(fd); /* nothing was written */
    }
    return -1;
}

/* Takes a lock's file away that nobody holds: it is removed while we hold it, and who
 * opened it meanwhile finds that it is not there any more. */
static void sweep_slot(const char *locks, uint32_t slot)
{
    char path[LOCK_PATH_MAX];
    int fd;

    if (lock_path(locks, slot, path, NULL) < 0)
        return;
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_at(fd, path))
        (void)unlink(path); /* else it stays: it is only litter */
    (void)close(fd);        /* nothing was written */
}

/* Those of processes that were killed. */
static void sweep(const char *locks)
{
    DIR *d = opendir(locks);
    const struct dirent *de;
    unsigned n = 0;

    while (d && n++ < SWEEP_MAX && (de = readdir(d)) != NULL) {
        char *end;
        unsigned long slot = strtoul(de->d_name, &end, 10);

        if (end != de->d_name && strcmp(end, ".lock") == 0 && slot < USERNS_SLOTS)
            sweep_slot(locks, (uint32_t)slot);
    }
    if (d)
        (void)closedir(d); /* opened for reading */
}

int userns_range_take(const char *name, const char *locks, struct userns_range *ret,
                      struct err *e)
{
    AUTO(buf_done)
    struct buf uids = BUF_INIT;
    AUTO(buf_done)
    struct buf gids = BUF_INIT;
    uint32_t start = slot_of(name), i, slot, first;
    int fd;

    if (read_subids("/etc/subuid", &uids, e) < 0 ||
        read_subids("/etc/subgid", &gids, e) < 0 || make_folders(locks, e) < 0)
        return -1;
    sweep(locks);
    for (i = 0; i < USERNS_SLOTS; i++) {
        slot = (start + i) % USERNS_SLOTS;
        first = USERNS_FIRST + slot * USERNS_COUNT;
        if (userns_is_given(buf_span(&uids), first, USERNS_COUNT) ||
            userns_is_given(buf_span(&gids), first, USERNS_COUNT) ||
            userns_is_given(buf_span(&uids), USERNS_GUARD + slot, 1) ||
            userns_is_given(buf_span(&gids), USERNS_GUARD + slot, 1))
            continue;
        fd = lock_slot(locks, slot, e);
        if (fd == -2)
            return -1;
        if (fd < 0)
            continue;
        *ret = (struct userns_range){first, USERNS_GUARD + slot, fd, locks};
        return 0;
    }
    return err_set(e, ERR_LIMIT, "all %u ranges of ids for sandboxes are in use",
                   USERNS_SLOTS);
}

void userns_range_done(struct userns_range *r)
{
    if (r->lock >= 0)
        (void)close(r->lock); /* nothing was written */
    if (r->lock >= 0 && r->locks)
        sweep_slot(r->locks, r->guard - USERNS_GUARD); /* unless a child has it still */
    *r = (struct userns_range){.lock = -1};
}

/* -- namespaces ---------------------------------------------------------------------- */

/* The first line of the map of who asks: true when it is of all ids to themselves. */
static bool has_all_ids(void)
{
    char text[128], *at = text;
    unsigned long inside, outside, count;
    int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, text, sizeof text - 1);
    (void)close(fd); /* opened for reading: nothing can be lost */
    if (n <= 0)
        return false;
    text[n] = '\0';
    inside = strtoul(at, &at, 10);
    outside = strtoul(at, &at, 10);
    count = strtoul(at, &at, 10);
    return inside == 0 && outside == 0 && count == UINT32_MAX;
}

bool userns_is_host_root(void)
{
    return geteuid() == 0 && has_all_ids();
}

int userns_map(pid_t pid, uint32_t first, uid_t uid, gid_t gid, struct err *e)
{
    char path[64], uids[64], gids[64];

    if (first) {
        (void)snprintf(uids, sizeof uids, "0 %u %u", first, USERNS_COUNT);
        memcpy(gids, uids, sizeof gids);
    } else {
        (void)snprintf(uids, sizeof uids, "%u %u 1", (unsigned)uid, (unsigned)uid);
        (void)snprintf(gids, sizeof gids, "%u %u 1", (unsigned)gid, (unsigned)gid);
        /* Else an ordinary user could drop a group that keeps him out of a file. */
        (void)snprintf(path, sizeof path, "/proc/%ld/setgroups", (long)pid);
        if (file_write(path, "deny", e) < 0)
            return -1;
    }
    (void)snprintf(path, sizeof path, "/proc/%ld/uid_map", (long)pid);
    if (file_write(path, uids, e) < 0)
        return -1;
    (void)snprintf(path, sizeof path, "/proc/%ld/gid_map", (long)pid);
    return file_write(path, gids, e);
}

int userns_enter(struct err *e)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (unshare(CLONE_NEWUSER) < 0)
        return userns_refused("make a user namespace", e);
    return userns_map(getpid(), 0, uid, gid, e);
}
