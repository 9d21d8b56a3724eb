/* SPDX-License-Identifier: MIT */
#include "agentd/localpath.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/sock.h"

enum {
    LOCK_MS = 1000,
    LOCK_STEP_MS = 5,
};

int localsock_path(const char *runtime_dir, uid_t uid, char ret[LOCALSOCK_PATH_MAX],
                   struct err *e)
{
    int n;

    if (runtime_dir && runtime_dir[0] == '/')
        n = snprintf(ret, LOCALSOCK_PATH_MAX, "%s/agentd.sock", runtime_dir);
    else if (uid == 0)
        n = snprintf(ret, LOCALSOCK_PATH_MAX, "/run/agentd/agentd.sock");
    else
        n = snprintf(ret, LOCALSOCK_PATH_MAX, "/tmp/agentd-%lu/agentd.sock",
                     (unsigned long)uid);
    if (n < 0 || n >= LOCALSOCK_PATH_MAX) {
        ret[0] = '\0';
        return err_set(e, ERR_CONFIG, "the runtime directory's name is too long");
    }
    return 0;
}

static void directory_of(const char *path, char dir[LOCALSOCK_PATH_MAX])
{
    size_t n = (size_t)(strrchr(path, '/') - path);

    memcpy(dir, path, n);
    dir[n] = '\0';
}

/* The directory, looked at without following a link, is ours (or root's, who could do
 * anything anyway) and nobody else can write into it. */
static int check_directory(const char *dir, struct err *e)
{
    struct stat st;

    if (lstat(dir, &st) < 0)
        return err_sys(e, "look at %s", dir);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_DENIED, "%s is no directory", dir);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_set(e, ERR_DENIED, "%s belongs to another user", dir);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(e, ERR_DENIED, "%s can be written by other users", dir);
    return 0;
}

static int address(const char *path, struct sock_addr *ret, struct err *e)
{
    size_t n = strlen(path);

    if (path[0] != '/' || n >= sizeof ret->u.un.sun_path)
        return err_set(e, ERR_CONFIG, "%s cannot be a socket's path", path);
    memset(ret, 0, sizeof *ret);
    ret->u.un.sun_family = AF_UNIX;
    memcpy(ret->u.un.sun_path, path, n + 1);
    ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return 0;
}

bool localpath_is_one_of_us(int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
           (who.uid == geteuid() || who.uid == 0);
}

/* 0, or -1 with errno; EAGAIN: it took too long. */
static int connect_within(int fd, const struct sock_addr *a, unsigned ms)
{
    struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000},
                   none = {0};

    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
        connect(fd, &a->u.sa, a->len) < 0)
        return -1;
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
}

int localpath_connect(const char *path, unsigned ms, bool *ret_absent, struct err *e)
{
    char dir[LOCALSOCK_PATH_MAX];
    struct sock_addr a = {0};
    struct stat st;
    int fd;

    *ret_absent = false;
    if (address(path, &a, e) < 0)
        return -1;
    directory_of(path, dir);
    if (lstat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        *ret_absent = true;
        return err_sys(e, "connect to %s", path);
    }
    if (check_directory(dir, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, "make a socket");
    if (connect_within(fd, &a, ms) < 0) {
        *ret_absent = errno == ECONNREFUSED || errno == ENOENT;
        (void)(errno == EAGAIN ? err_set(e, ERR_TIMEOUT, "%s does not answer", path)
                               : err_sys(e, "connect to %s", path)); /* told below */
        sock_close(&fd);
        return -1;
    }
    if (!localpath_is_one_of_us(fd)) {
        sock_close(&fd);
        return err_set(e, ERR_DENIED, "the agent at %s is another user's", path);
    }
    return fd;
}

/* -- names in the folder ------------------------------------------------------------- */

/* -1: not to be had. Where others can read the folder they can hold its lock as well, so
 * nobody waits for it without end. */
static int lock_folder(const char *dir, unsigned ms)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    for (unsigned waited = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
         waited += LOCK_STEP_MS) {
        if (waited >= ms)
            sock_close(&fd);
        else
            (void)poll(NULL, 0, LOCK_STEP_MS); /* only the time matters */
    }
    return fd;
}

/* Nobody has it bound. A stream socket that somebody has refuses a datagram socket by its
 * type, so it need not be listening yet, and gets no connection of ours. */
static bool is_dead(const char *path)
{
    struct sock_addr a = {0};
    bool dead;
    int fd;

    if (address(path, &a, NULL) < 0)
        return false;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    dead = fd >= 0 && connect(fd, &a.u.sa, a.len) < 0 && errno == ECONNREFUSED;
    sock_close(&fd);
    return dead;
}

static void remove_dead(const char *path)
{
    struct stat was, now;

    if (lstat(path, &was) < 0 || !S_ISSOCK(was.st_mode) || was.st_uid != geteuid() ||
        !is_dead(path))
        return;
    if (lstat(path, &now) == 0 && now.st_dev == was.st_dev && now.st_ino == was.st_ino)
        (void)unlink(path); /* else it stays: it is only litter */
}

void localpath_sweep(const char *dir, unsigned max)
{
    static const char end[] = ".sock";
    char path[LOCALSOCK_PATH_MAX];
    const struct dirent *de;
    int lock = check_directory(dir, NULL) < 0 ? -1 : lock_folder(dir, 0);
    DIR *d = lock < 0 ? NULL : opendir(dir);

    while (d && max-- > 0 && (de = readdir(d)) != NULL) {
        size_t n = strlen(de->d_name), room = sizeof end - 1;

        if (n > room && strcmp(de->d_name + n - room, end) == 0 &&
            snprintf(path, sizeof path, "%s/%s", dir, de->d_name) < (int)sizeof path)
            remove_dead(path);
    }
    if (d)
        (void)closedir(d); /* opened for reading */
    sock_close(&lock);
}

/* A name under which nothing answers any more is left from an agent that was killed. */
static int clear(const char *path, struct err *e)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(e, "look at %s", path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_DENIED, "%s is there and no socket", path);
    if (!is_dead(path))
        return err_set(e, ERR_LIMIT, "another agent answers at %s", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_sys(e, "remove %s", path);
    return 0;
}

/* With the folder's lock. */
static int listen_at(const char *path, const struct sock_addr *a, struct err *e)
{
    mode_t mask;
    int fd, r;

    if (clear(path, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "make a socket");
    mask = umask(0177);
    r = bind(fd, &a->u.sa, a->len);
    (void)umask(mask); /* cannot fail */
    if (r < 0 || listen(fd, LOCALSOCK_CLIENTS) < 0) {
        (void)err_sys(e, "listen on %s", path);
        sock_close(&fd);
    }
    return fd;
}

int localpath_listen(const char *path, struct localpath *ret, struct err *e)
{
    char dir[LOCALSOCK_PATH_MAX];
    struct sock_addr a = {0};
    struct stat st;
    int fd, lock;

    memset(ret, 0, sizeof *ret);
    if (address(path, &a, e) < 0)
        return -1;
    directory_of(path, dir);
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make %s", dir);
    if (check_directory(dir, e) < 0)
        return -1;
    lock = lock_folder(dir, LOCK_MS);
    fd = listen_at(path, &a, e);
    if (fd >= 0 && lstat(path, &st) < 0) {
        (void)err_sys(e, "look at %s", path); /* told below */
        sock_close(&fd);
    }
    sock_close(&lock);
    if (fd < 0)
        return -1;
    memcpy(ret->path, path, strlen(path) + 1);
    ret->dev = st.st_dev;
    ret->ino = st.st_ino;
    return fd;
}

void localpath_remove(struct localpath *p)
{
    struct stat st;

    /* Another agent may have taken the name since; its socket stays. */
    if (p->path[0] && lstat(p->path, &st) == 0 && st.st_dev == p->dev &&
        st.st_ino == p->ino)
        (void)unlink(p->path); /* what is left is cleared by the next agent */
    p->path[0] = '\0';
}
