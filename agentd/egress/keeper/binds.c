/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/binds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/keeper/sandbox_int.h"
#include "common/log.h"

static bool is_engines(const char *path)
{
    static const char *const names[] = {
        "docker.sock",    "containerd.sock", "podman.sock",
        "crio.sock",      "libvirt-sock",    "system_bus_socket",
        "buildkitd.sock", "private",         "containerd.sock.ttrpc"};
    const char *base = strrchr(path, '/');

    base = base ? base + 1 : path;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcmp(base, names[i]))
            return true;
    return false;
}

static int check_socket(const char *bind, const char *path, struct err *e)
{
    if (is_engines(path))
        return err_set(
            e, ERR_CONFIG,
            "--bind %.70s shows %.70s: who may speak to it is not in a sandbox", bind,
            path);
    log_warn("run.bind", "path=%s why=%s", log_q(path),
             log_q("a socket to outside is a way out that no policy rules"));
    return 0;
}

static bool is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    return !strncmp(path, folder, n) && path[n] == '/';
}

/* The sockets in it that somebody listens at now. */
static int check_folder(const char *bind, const char *real, const struct buf *sockets,
                        struct err *e)
{
    const char *path = (const char *)sockets->p, *end = path + sockets->len;
    char socket[PATH_MAX];

    for (; path < end; path += strlen(path) + 1)
        if (realpath(path, socket) && is_below(socket, real) &&
            check_socket(bind, socket, e) < 0)
            return -1;
    return 0;
}

static int check(const char *path, const struct buf *sockets, struct err *e)
{
    char real[PATH_MAX];
    struct stat st;

    if (!realpath(path, real) || stat(real, &st) < 0)
        return err_set(e, ERR_CONFIG, "--bind %.100s: %s", path, strerror(errno));
    if (!strcmp(real, "/"))
        return err_set(e, ERR_CONFIG,
                       "--bind %.60s: all of it would be shown, and nothing private "
                       "be left",
                       path);
    if (S_ISSOCK(st.st_mode))
        return is_engines(path) ? check_socket(path, path, e)
                                : check_socket(path, real, e);
    return S_ISDIR(st.st_mode) ? check_folder(path, real, sockets, e) : 0;
}

int binds_check(const char *const *path, unsigned n, struct err *e)
{
    AUTO(buf_done)
    struct buf sockets = BUF_INIT;

    if (n > 0 && sandbox_sockets_find(&sockets, e) < 0)
        return -1;
    for (unsigned i = 0; i < n; i++)
        if (check(path[i], &sockets, e) < 0)
            return -1;
    return 0;
}
