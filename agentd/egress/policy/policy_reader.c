/* SPDX-License-Identifier: MIT */
/* What a policy needs of this machine: files, the package registries, the
 * local networks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/policy/policy.h"
#include "agentd/egress/policy/policy_int.h"
#include "agentd/egress/policy/registries.h"
#include "common/file.h"
#include "common/sock.h"

#define NETWORKS_FILE "/etc/agentd/local-networks"
#define NETWORKS_ENV  "TUNNEL_LOCAL_NETWORKS"

/* -- files --------------------------------------------------------------------------- */

static int read_file(const char *path, bool may_wait, struct buf *ret, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (may_wait ? 0 : O_NONBLOCK));
    struct stat st;
    int rc;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (fstat(fd, &st) < 0)
        rc = err_sys(e, "stat %s", path);
    else if (!S_ISREG(st.st_mode) && !(may_wait && S_ISFIFO(st.st_mode)))
        rc = err_set(e, ERR_CONFIG, "%s is no file", path);
    else
        rc = file_read(fd, path, POLICY_TEXT_MAX, ret, e);
    sock_close(&fd);
    return rc;
}

/* @arg  the path of the policy, in whose folder relative names are */
static int reader_file(void *arg, const char *path, struct buf *ret, struct err *e)
{
    const char *base = arg, *slash = strrchr(base, '/');
    AUTO(buf_done)
    struct buf whole = BUF_INIT;

    if (*path != '/' && slash && buf_add(&whole, base, (size_t)(slash - base) + 1) < 0)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    if (buf_adds(&whole, path) < 0 || buf_add(&whole, "", 1) < 0)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    return read_file((const char *)whole.p, false, ret, e);
}

/* -- this machine -------------------------------------------------------------------- */

static int reader_registries(void *arg, struct buf *ret, struct err *e)
{
    UNUSED_ARG(arg);
    return registries_find(ret, e);
}

static int reader_networks(void *arg, struct buf *ret, struct err *e)
{
    const char *env = getenv(NETWORKS_ENV);
    size_t from = ret->len;

    UNUSED_ARG(arg);
    if (env && *env) {
        if (buf_adds(ret, env) < 0)
            return err_set(e, ERR_NOMEM, "no memory for " NETWORKS_ENV);
        for (size_t i = from; i < ret->len; i++)
            if (ret->p[i] == ',' || ret->p[i] == ' ')
                ret->p[i] = '\n';
        return 0;
    }
    if (access(NETWORKS_FILE, F_OK) < 0 && errno == ENOENT)
        return 0; /* none are declared */
    return read_file(NETWORKS_FILE, false, ret, e);
}

struct policy_reader policy_system_reader(const char *path)
{
    return (struct policy_reader){
        .file = path ? reader_file : NULL,
        .registries = reader_registries,
        .networks = reader_networks,
        /* read only: reader_file() */
        .arg = (void *)(uintptr_t)path, /* NOLINT(performance-no-int-to-ptr) */
    };
}

/* What looks like a preset's name and is no file may be a preset spelt wrong. */
static const char *no_preset(const char *name)
{
    return strchr(name, '/') || strchr(name, '.')
               ? ""
               : "; the presets are full-isolation, development, build and production";
}

struct policy *policy_load(const char *path_or_preset, struct policy_faults *faults)
{
    struct policy_reader reader = policy_system_reader(path_or_preset);
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct err e;

    if (preset_text(path_or_preset)) /* a file of that name is "./build" */
        return policy_preset(path_or_preset, &reader, faults);
    if (read_file(path_or_preset, true, &text, &e) < 0) {
        memset(faults, 0, sizeof *faults);
        faults->has_error = true;
        faults->n = 1;
        (void)snprintf(faults->at[0].text, sizeof faults->at[0].text, "%.130s%s", e.msg,
                       e.code == ERR_SYS && e.sys == ENOENT ? no_preset(path_or_preset)
                                                            : "");
        return NULL;
    }
    return policy_compile(buf_span(&text), &reader, faults);
}
