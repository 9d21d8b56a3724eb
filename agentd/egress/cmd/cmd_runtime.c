/* SPDX-License-Identifier: MIT */
/* agentd egress runtime (agentd-oci-hook(8)): the OCI runtime for engines that know
 * no hooks. It puts ours into the bundle of a container that begins and becomes the
 * real runtime. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/keeper/oci.h"
#include "agentd/egress/keeper/oci_args.h"
#include "agentd/egress/keeper/oci_config.h"
#include "agentd/egress/tell.h"
#include "common/file.h"
#include "common/sock.h"

#define RUNTIME_DEFAULT "/usr/sbin/runc"
#define CONFIG_FILE     "config.json"
#define CONFIG_PART     ".config.json.agentd"

static int write_file(int fd, struct span text, const struct stat *like, struct err *e)
{
    while (text.len > 0) {
        ssize_t n = write(fd, text.p, text.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "write " CONFIG_PART);
        text = span_skip(text, (size_t)n);
    }
    if (fchown(fd, like->st_uid, like->st_gid) < 0 ||
        fchmod(fd, like->st_mode & 07777) < 0)
        return err_sys(e, "give " CONFIG_PART " owner and mode of " CONFIG_FILE);
    return 0;
}

static int replace(int dir, struct span text, const struct stat *like, struct err *e)
{
    int fd, rc;

    if (unlinkat(dir, CONFIG_PART, 0) < 0 && errno != ENOENT)
        return err_sys(e, "remove an old " CONFIG_PART);
    fd = openat(dir, CONFIG_PART, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                0600);
    if (fd < 0)
        return err_sys(e, "make " CONFIG_PART);
    rc = write_file(fd, text, like, e);
    if (close(fd) < 0 && rc == 0)
        rc = err_sys(e, "write " CONFIG_PART);
    if (rc == 0 && renameat(dir, CONFIG_PART, dir, CONFIG_FILE) < 0)
        rc = err_sys(e, "rename " CONFIG_PART);
    if (rc < 0)
        (void)unlinkat(dir, CONFIG_PART, 0); /* the first fault is told */
    return rc;
}

static int change_in(int dir, const struct oci_change *c, struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    AUTO(buf_done)
    struct buf changed = BUF_INIT;
    struct stat st;
    int fd = openat(dir, CONFIG_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return err_sys(e, "open " CONFIG_FILE);
    if (fstat(fd, &st) < 0)
        rc = err_sys(e, "look at " CONFIG_FILE);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_CONFIG, CONFIG_FILE " is not a regular file");
    else
        rc = file_read(fd, CONFIG_FILE, OCI_CONFIG_MAX, &text, e);
    sock_close(&fd);
    if (rc == 0)
        rc = oci_config_change(buf_span(&text), c, &changed, e);
    if (rc < 0 || span_eq(buf_span(&text), buf_span(&changed)))
        return rc;
    return replace(dir, buf_span(&changed), &st, e);
}

static int find_program(char *ret, size_t cap, struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", ret, cap);

    if (n < 0 || (size_t)n >= cap)
        return err_sys(e, "find our own program");
    ret[n] = '\0';
    return access(ret, X_OK) < 0 ? err_sys(e, "our own program %.100s", ret) : 0;
}

static int change_bundle(const char *bundle, const struct oci_change *c, struct err *e)
{
    int dir, rc;

    dir = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_sys(e, "open bundle %.100s", bundle);
    rc = change_in(dir, c, e);
    sock_close(&dir);
    return rc < 0 ? err_wrap(e, "bundle %.60s", bundle) : 0;
}

struct own_options {
    struct oci_change change;
    char *runtime;
};

/* Ours come first; *ret_rest is where the runtime's begin. */
static int read_own(int argc, char **argv, struct own_options *o, int *ret_rest,
                    struct err *e)
{
    enum egress_tier tier;
    int i = 1;

    for (; i < argc; i += 2) {
        char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (!strcmp(argv[i], "--policy"))
            o->change.policy = value;
        else if (!strcmp(argv[i], "--tier"))
            o->change.tier = value;
        else if (!strcmp(argv[i], "--socket"))
            o->change.socket = value;
        else if (!strcmp(argv[i], "--runtime"))
            o->runtime = value;
        else
            break;
        if (!value)
            return err_set(e, ERR_CONFIG, "option %s has no value", argv[i]);
    }
    if (o->change.policy && oci_policy_check(o->change.policy, e) < 0)
        return err_wrap(e, "--policy");
    if (o->change.tier && oci_tier_parse(o->change.tier, &tier, e) < 0)
        return err_wrap(e, "--tier");
    if (!o->runtime || o->runtime[0] != '/')
        return err_set(e, ERR_CONFIG, "--runtime is an absolute path");
    *ret_rest = i;
    return 0;
}

static int run(int argc, char **argv, struct err *e)
{
    char usual[] = RUNTIME_DEFAULT, program[OCI_POLICY_MAX + 1];
    struct own_options o = {.runtime = usual};
    struct oci_args args;
    char **rest;
    int i = argc;

    if (read_own(argc, argv, &o, &i, e) < 0)
        return -1;
    if (oci_args_read(argc - i, argv + i, &args, e) < 0)
        return -1;
    if (args.starts) {
        if (find_program(program, sizeof program, e) < 0)
            return -1;
        o.change.program = program;
        if (change_bundle(args.bundle, &o.change, e) < 0)
            return -1;
    }
    if (!o.runtime)
        return -1;       /* read_own() has said so */
    rest = argv + i - 1; /* argv[0] at least is before it */
    rest[0] = o.runtime;
    (void)execv(o.runtime, rest);
    return err_sys(e, "start %.100s", o.runtime);
}

int cmd_runtime(int argc, char **argv)
{
    struct err e;

    if (run(argc, argv, &e) == 0)
        return EXIT_DONE; /* never: it is the runtime now */
    return tell_err(argv[0], &e);
}
