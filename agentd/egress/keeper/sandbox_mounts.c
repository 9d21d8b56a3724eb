/* SPDX-License-Identifier: MIT */
/*
 * The sandbox's file system is the caller's, with parts covered:
 *
 *   /proc            new: the sandbox's processes only
 *   /sys             new and read-only: a sysfs shows the network of whoever mounts it, so the
 *                    host's interfaces are not in it; where the kernel refuses it, empty
 *   /dev             a tmpfs with a few devices of the host's, an own devpts and an own shm
 *   /tmp /run        tmpfs; /run holds the host's sockets (engines, D-Bus, nscd, resolved), /tmp
 *                    X11's and agents'
 *   --bind PATH      copied before the covers are laid, put on top of them after
 *   /etc/...         sandbox_etc.c
 *   sockets, /proc   at other places: sandbox_holes.c
 *
 * All of this is done with the caller's capabilities in a namespace that stays the
 * caller's: what runs inside cannot take a cover off.
 */
#include "agentd/egress/keeper/sandbox_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/sock.h"

#define QUIET (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};

struct shown {
    char path[PATH_MAX]; /* canonical */
    int fd;
    bool is_folder;
};

/* -- steps --------------------------------------------------------------------------- */

int sandbox_mount_copy(const char *path, struct err *e)
{
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
                          OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

    return fd < 0 ? err_sys(e, "copy the mount of %s", path) : fd;
}

int sandbox_mount_put(int *take_fd, const char *path, struct err *e)
{
    int r = (int)syscall(SYS_move_mount, *take_fd, "", AT_FDCWD, path,
                         MOVE_MOUNT_F_EMPTY_PATH);

    if (r < 0)
        (void)err_sys(e, "mount at %s", path);
    sock_close(take_fd);
    return r;
}

int sandbox_tmpfs(const char *path, const char *options, unsigned long flags,
                  struct err *e)
{
    if (mount("tmpfs", path, "tmpfs", flags, options) < 0)
        return err_sys(e, "mount a tmpfs at %s", path);
    return 0;
}

int sandbox_mount_point(const char *path, bool is_folder, struct err *e)
{
    int fd;

    if (access(path, F_OK) == 0)
        return 0;
    if (file_make_parents(path, 0755, e) < 0)
        return -1;
    if (is_folder)
        return mkdir(path, 0755) < 0 ? err_sys(e, "make folder %s", path) : 0;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_EXCL, 0444);
    if (fd < 0)
        return err_sys(e, "make %s", path);
    (void)close(fd); /* nothing was written */
    return 0;
}

/* -- what is covered ----------------------------------------------------------------- */

static int cover_proc(struct err *e)
{
    if (mount("proc", "/proc", "proc", QUIET, NULL) == 0)
        return 0;
    if (errno == EPERM)
        return err_sys(e, "mount /proc (parts of it are hidden here, as in a container: "
                          "then only root may)");
    return err_sys(e, "mount /proc");
}

static int cover_sys(struct err *e)
{
    if (access("/sys", F_OK) < 0 ||
        mount("sysfs", "/sys", "sysfs", QUIET | MS_RDONLY, NULL) == 0)
        return 0;
    return sandbox_tmpfs("/sys", "size=4k,mode=0555", QUIET | MS_RDONLY, e);
}

static int make_link(const char *to, const char *path, struct err *e)
{
    return symlink(to, path) < 0 ? err_sys(e, "make link %s", path) : 0;
}

/* The group of terminals, where it is mapped; the owner is whoever opens one. */
static int cover_pts(const struct sandbox_conf *c, struct err *e)
{
    char options[64];

    if (mkdir("/dev/pts", 0755) < 0)
        return err_sys(e, "make folder /dev/pts");
    if (c->first_id)
        (void)snprintf(options, sizeof options,
                       "newinstance,ptmxmode=0666,mode=0620,gid=%u", c->first_id + 5);
    else
        (void)snprintf(options, sizeof options, "newinstance,ptmxmode=0666,mode=0600");
    if (mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options) < 0)
        return err_sys(e, "mount /dev/pts");
    return make_link("pts/ptmx", "/dev/ptmx", e);
}

static int cover_dev(const struct sandbox_conf *c, struct err *e)
{
    int fd[COUNT_OF(devices)];
    char path[32];
    size_t i;
    int r = 0;

    for (i = 0; i < COUNT_OF(devices); i++) {
        (void)snprintf(path, sizeof path, "/dev/%s", devices[i]);
        fd[i] = sandbox_mount_copy(path, e);
        if (fd[i] < 0)
            return -1; /* the process ends, and with it what is open */
    }
    if (sandbox_tmpfs("/dev", "size=64k,nr_inodes=256,mode=0755", MS_NOSUID | MS_NOEXEC,
                      e) < 0)
        return -1;
    for (i = 0; i < COUNT_OF(devices) && r == 0; i++) {
        (void)snprintf(path, sizeof path, "/dev/%s", devices[i]);
        r = sandbox_mount_point(path, false, e);
        if (r == 0)
            r = sandbox_mount_put(&fd[i], path, e);
    }
    if (r < 0 || cover_pts(c, e) < 0)
        return -1;
    if (mkdir("/dev/shm", 0755) < 0)
        return err_sys(e, "make folder /dev/shm");
    if (sandbox_tmpfs("/dev/shm", "size=" SANDBOX_SHM_BYTES ",mode=1777", QUIET, e) < 0)
        return -1;
    if (make_link("/proc/self/fd", "/dev/fd", e) < 0 ||
        make_link("/proc/self/fd/0", "/dev/stdin", e) < 0 ||
        make_link("/proc/self/fd/1", "/dev/stdout", e) < 0 ||
        make_link("/proc/self/fd/2", "/dev/stderr", e) < 0)
        return -1;
    return 0;
}

/* A folder in /run that programs expect, with its owner. */
static int run_folder(const char *path, mode_t mode, uid_t uid, gid_t gid, struct err *e)
{
    if (mkdir(path, 0755) < 0 || chown(path, uid, gid) < 0 || chmod(path, mode) < 0)
        return err_sys(e, "make folder %s", path);
    return 0;
}

static int cover_run(const struct sandbox_conf *c, struct err *e)
{
    uid_t uid = c->first_id ? c->first_id : c->uid;
    gid_t gid = c->first_id ? c->first_id : c->gid;
    char options[128], path[64], *odd = realpath("/var/run", NULL);
    bool is_odd = odd && strcmp(odd, "/run") != 0;
    int r = 0;

    (void)snprintf(options, sizeof options,
                   "size=" SANDBOX_RUN_BYTES ",nr_inodes=" SANDBOX_INODES
                   ",mode=0755,uid=%u,gid=%u",
                   (unsigned)uid, (unsigned)gid);
    /* /var/run is a link to it, or a folder of its own, or a link to somewhere odd. */
    if (is_odd)
        r = sandbox_tmpfs(odd, options, MS_NOSUID | MS_NODEV, e);
    free(odd); /* realpath()'s, not mem's */
    if (r < 0)
        return -1;
    if (access("/run", F_OK) < 0)
        return 0;
    if (sandbox_tmpfs("/run", options, MS_NOSUID | MS_NODEV, e) < 0)
        return -1;
    if (run_folder("/run/lock", 01777, uid, gid, e) < 0)
        return -1;
    if (c->first_id || c->uid == 0)
        return 0;
    (void)snprintf(path, sizeof path, "/run/user/%u", (unsigned)c->uid);
    if (run_folder("/run/user", 0755, uid, gid, e) < 0)
        return -1;
    return run_folder(path, 0700, uid, gid, e);
}

/* -- what is shown again ------------------------------------------------------------- */

static int show_take(struct shown *s, const char *path, struct err *e)
{
    struct stat st;

    s->fd = -1;
    if (!realpath(path, s->path) || stat(s->path, &st) < 0)
        return err_set(e, ERR_CONFIG, "--bind %.100s: %s", path, strerror(errno));
    if (!strcmp(s->path, "/proc") || !strncmp(s->path, "/proc/", 6))
        return err_set(e, ERR_CONFIG, "--bind %.100s: /proc is always the sandbox's own",
                       path);
    s->is_folder = S_ISDIR(st.st_mode);
    s->fd = sandbox_mount_copy(s->path, e);
    return s->fd < 0 ? err_wrap(e, "--bind %.60s", path) : 0;
}

static int show_put(struct shown *s, struct err *e)
{
    if (sandbox_mount_point(s->path, s->is_folder, e) < 0 ||
        sandbox_mount_put(&s->fd, s->path, e) < 0)
        return err_wrap(e, "--bind");
    return 0;
}

static int mounts(const struct sandbox_seed *s, struct shown *shown, struct err *e)
{
    const struct sandbox_conf *c = s->conf;
    int etc[SANDBOX_ETC_FILES];
    unsigned i;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_sys(e, "make the mounts private");
    for (i = 0; i < c->n_bind; i++)
        if (show_take(&shown[i], c->bind[i], e) < 0)
            return -1;
    if (sandbox_holes_cover(s, e) < 0 || sandbox_etc_make(etc, e) < 0 ||
        cover_proc(e) < 0 || cover_sys(e) < 0 || cover_dev(c, e) < 0 ||
        cover_run(c, e) < 0 ||
        sandbox_tmpfs("/tmp",
                      "size=" SANDBOX_TMP_BYTES ",nr_inodes=" SANDBOX_INODES ",mode=1777",
                      MS_NOSUID | MS_NODEV, e) < 0)
        return -1;
    for (i = 0; i < c->n_bind; i++)
        if (show_put(&shown[i], e) < 0)
            return -1;
    return sandbox_etc_place(etc, e);
}

int sandbox_mounts(const struct sandbox_seed *s, struct err *e)
{
    const struct sandbox_conf *c = s->conf;
    struct shown *shown = mem_zalloc(c->n_bind ? c->n_bind : 1, sizeof *shown);
    mode_t mask;
    int r;

    if (!shown)
        return err_set(e, ERR_NOMEM, "no memory for %u --bind", c->n_bind);
    mask =
        umask(0); /* the caller's is for COMMAND's files, not for what all of them read */
    r = mounts(s, shown, e);
    (void)umask(mask); /* cannot fail */
    mem_free(shown);
    return r;
}
