/* SPDX-License-Identifier: MIT */
/*
 * Theory. Capabilities go by the bounding set (what an exec could give), the ambient and
 * inheritable sets (what it would pass on) and at last the permitted and effective ones,
 * in this order, because the first needs CAP_SETPCAP. With no_new_privs an exec gives
 * nothing that is not permitted before it, so a bounding set that may not be cut is no
 * way up; a new user namespace would be one, and the lists refuse it.
 *
 * The kernel looks at the low 32 bits of most arguments, the filter at all 64:
 * whatever is compared for equality to be refused is masked, whatever is compared to
 * be allowed is not.
 */
#include "agentd/egress/keeper/role.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||               \
    __has_feature(memory_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define LOW32 0xffffffffu

/* -- capabilities -------------------------------------------------------------------- */

#define CAP(c) (UINT64_C(1) << (c))
/* NET_BIND_SERVICE: the sockets that the guard answers from stand at port 53.
 * NET_BROADCAST: news of nftables from the sandboxes' namespaces. */
#define KEEPER_CAPS                                                                      \
    (CAP(CAP_NET_ADMIN) | CAP(CAP_SYS_ADMIN) | CAP(CAP_SYS_PTRACE) | CAP(CAP_SETUID) |   \
     CAP(CAP_SETGID) | CAP(CAP_KILL) | CAP(CAP_DAC_READ_SEARCH) |                        \
     CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_NET_BROADCAST))
#define SANDBOX_ROOT_CAPS                                                                \
    (CAP(CAP_CHOWN) | CAP(CAP_DAC_OVERRIDE) | CAP(CAP_FOWNER) | CAP(CAP_FSETID) |        \
     CAP(CAP_KILL) | CAP(CAP_SETGID) | CAP(CAP_SETUID))

static int caps_get(struct __user_cap_data_struct ret[2], struct err *e)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};

    if (syscall(SYS_capget, &h, ret) < 0)
        return err_sys(e, "read the capabilities");
    return 0;
}

static uint64_t permitted_of(const struct __user_cap_data_struct c[2])
{
    return c[0].permitted | (uint64_t)c[1].permitted << 32;
}

/* EPERM is fine for who has no CAP_SETPCAP: see the theory. */
static int cut_bounding(uint64_t keep, struct err *e)
{
    for (unsigned long c = 0; c < 64; c++) {
        int has = prctl(PR_CAPBSET_READ, c, 0, 0, 0);

        if (has < 0)
            return 0; /* past the kernel's last one */
        if (has == 1 && (keep & CAP(c)) == 0 && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 &&
            errno != EPERM)
            return err_sys(e, "take capability %lu out of the bounding set", c);
    }
    return 0;
}

/* Keep of what is permitted these, and nothing to pass on. */
static int caps_cut(uint64_t keep, struct err *e)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct c[2];

    if (cut_bounding(keep, e) < 0 || caps_get(c, e) < 0)
        return -1;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return err_sys(e, "clear the ambient capabilities");
    keep &= permitted_of(c);
    for (int i = 0; i < 2; i++) {
        c[i].permitted = c[i].effective = (uint32_t)(keep >> i * 32);
        c[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &h, c) < 0)
        return err_sys(e, "give up capabilities");
    if (caps_get(c, e) < 0)
        return -1;
    if (permitted_of(c) != keep)
        return err_set(e, ERR_SYS, "capabilities stay that were given up");
    return 0;
}

static int no_new_privs(struct err *e)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(e, "set no_new_privs");
    return 0;
}

/* Nothing of this process on a disk, and no tracing by others of its user. */
static int no_traces(struct err *e)
{
    struct rlimit none = {0, 0};

    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return err_sys(e, "forbid core files");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_sys(e, "make the process not dumpable");
    return 0;
}

int role_keeper(struct err *e)
{
    struct rlimit none = {0, 0};
    uint64_t keep = KEEPER_CAPS;

    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return err_sys(e, "forbid core files");
    /* Root of a user namespace (a rootless container's): since Linux 5.12 a namespace
     * that maps the id 0 of the one above, which the guard's then does, asks for it. */
    if (geteuid() == 0 && !userns_is_host_root())
        keep |= CAP(CAP_SETFCAP);
    return caps_cut(keep, e);
}

/* -- the guard, before exec ---------------------------------------------------------- */

static int become(uid_t uid, struct err *e)
{
    gid_t gid = (gid_t)uid;

    if (cut_bounding(0, e) < 0) /* while there is CAP_SETPCAP */
        return -1;
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        return err_sys(e, "become user %u", (unsigned)uid);
    return 0;
}

static int write_proc(const char *path, const char *text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t n = strlen(text);
    ssize_t w;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    w = write(fd, text, n);
    (void)close(fd); /* proc has taken it or not */
    if (w != (ssize_t)n)
        return err_sys(e, "write %s", path);
    return 0;
}

/* Of our own, so that no exec and no descriptor gives anything in the one we
 * came from. */
static int own_user_namespace(struct err *e)
{
    char uids[48], gids[48];

    (void)snprintf(uids, sizeof(uids), "%u %u 1\n", geteuid(), geteuid()); /* fits */
    (void)snprintf(gids, sizeof(gids), "%u %u 1\n", getegid(), getegid()); /* fits */
    /* /proc/self belongs to root while we are not dumpable. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || unshare(CLONE_NEWUSER) < 0)
        return err_sys(e, "make a user namespace for the guard");
    if (write_proc("/proc/self/setgroups", "deny", e) < 0 ||
        write_proc("/proc/self/uid_map", uids, e) < 0)
        return -1;
    return write_proc("/proc/self/gid_map", gids, e);
}

int role_guard_before_exec(uid_t uid, struct err *e)
{
    pid_t parent = getppid();

    if (uid != 0 && uid != geteuid() ? become(uid, e) < 0 : own_user_namespace(e) < 0)
        return -1;
    if (no_new_privs(e) < 0 || caps_cut(0, e) < 0 || no_traces(e) < 0)
        return -1;
    /* After the change of user, which clears it. A parent that died before this changed
     * getppid(); one that died before our first line closed the channel. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return err_sys(e, "ask to die with the keeper");
    if (getppid() != parent)
        return err_set(e, ERR_NOTFOUND, "the keeper is gone");
    return 0;
}

/* -- lists --------------------------------------------------------------------------- */

struct list {
    scmp_filter_ctx f;
    int rc; /* the first failure, negative errno */
};

/* A call that this architecture or this libseccomp does not have is no failure. */
static void rule(struct list *l, uint32_t action, const char *call, unsigned n,
                 const struct scmp_arg_cmp *args)
{
    int nr = seccomp_syscall_resolve_name(call);
    int rc;

    if (l->rc < 0 || nr == __NR_SCMP_ERROR)
        return;
    rc = seccomp_rule_add_array(l->f, action, nr, n, args);
    if (rc < 0 && rc != -EDOM)
        l->rc = rc;
}

static void rules(struct list *l, uint32_t action, const char *const *calls, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rule(l, action, calls[i], 0, NULL);
}
#define RULES(l, action, calls) rules((l), (action), (calls), COUNT_OF(calls))
#define RULE1(l, action, call, a)                                                        \
    rule((l), (action), (call), 1, (const struct scmp_arg_cmp[]){a})
#define RULE2(l, action, call, a, b)                                                     \
    rule((l), (action), (call), 2, (const struct scmp_arg_cmp[]){a, b})
#define RULE3(l, action, call, a, b, c)                                                  \
    rule((l), (action), (call), 3, (const struct scmp_arg_cmp[]){a, b, c})

static int list_start(struct list *l, uint32_t otherwise, struct err *e)
{
    l->rc = 0;
    l->f = seccomp_init(otherwise);
    if (l->f == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a list of system calls");
    l->rc = seccomp_attr_set(l->f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    return 0;
}

static int list_load(struct list *l, const char *whose, struct err *e)
{
    if (l->rc == 0)
        l->rc = seccomp_load(l->f);
    seccomp_release(l->f);
    if (l->rc == 0)
        return 0;
    errno = -l->rc;
    return err_sys(e, "load the %s's list of system calls", whose);
}

/* -- the guard's: nothing but this --------------------------------------------------- */

static const char *const GUARD_MAY[] = {
    /* #syscalls: the loop */
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2",
    "poll", "ppoll", "restart_syscall",
    /* bytes */
    "read", "write", "readv", "writev", "pread64", "close", "close_range", "fcntl",
    "fstat", "lseek", "dup", "dup2", "dup3", "pipe2", "splice", "tee", "memfd_create",
    /* sockets, once there */
    "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "connect", "bind",
    "accept", "accept4", "getsockname", "getpeername", "getsockopt", "shutdown",
    /* memory, without code in it: see below */
    "brk", "munmap", "mremap", "madvise", "futex", "set_robust_list", "rseq",
    "membarrier",
    /* signals, time, chance, itself */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "clock_gettime",
    "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "getrandom",
    "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getppid", "getrusage",
    "getrlimit", "sched_yield", "sched_getaffinity", "uname", "exit", "exit_group"};

/* What libraries try and do without. */
static const char *const GUARD_FINDS_NOTHING[] = {
    "open",     "openat",     "openat2", "access",  "faccessat", "faccessat2",
    "readlink", "readlinkat", "stat",    "lstat",   "statx",     "getcwd",
    "mkdir",    "mkdirat",    "unlink",  "unlinkat"};
static const char *const GUARD_MAY_NOT[] = {
    "clone", "clone3",        "io_uring_setup",   "sysinfo",
    "prctl", "inotify_init1", "sched_setaffinity"};

static void guard_sockets(struct list *l)
{
    static const uint64_t families[] = {AF_INET, AF_INET6};
    static const uint64_t kinds[][2] = {{SOCK_STREAM, 0},
                                        {SOCK_STREAM, IPPROTO_TCP},
                                        {SOCK_DGRAM, 0},
                                        {SOCK_DGRAM, IPPROTO_UDP}};
    const uint64_t not_flags = ~(uint64_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (size_t f = 0; f < COUNT_OF(families); f++)
        for (size_t k = 0; k < COUNT_OF(kinds); k++)
            RULE3(l, SCMP_ACT_ALLOW, "socket", SCMP_A0(SCMP_CMP_EQ, families[f], 0),
                  SCMP_A1(SCMP_CMP_MASKED_EQ, not_flags, kinds[k][0]),
                  SCMP_A2(SCMP_CMP_EQ, kinds[k][1], 0));
}

/* No broadcasts: they would reach the host's own programs, at an address of the network
 * that the floor does not know. The option's number is of no use at other levels; that
 * another is meant is seen in one of its low bits. */
static void guard_options(struct list *l)
{
    for (unsigned i = 0; i < 32; i++) {
        uint64_t bit = UINT64_C(1) << i;

        RULE1(l, SCMP_ACT_ALLOW, "setsockopt",
              SCMP_A2(SCMP_CMP_MASKED_EQ, bit, ~(uint64_t)SO_BROADCAST & bit));
    }
    RULE1(l, SCMP_ACT_ERRNO(EPERM), "setsockopt",
          SCMP_A2(SCMP_CMP_MASKED_EQ, LOW32, SO_BROADCAST));
}

static void guard_arguments(struct list *l)
{
    /* FIONBIO: libuv; FIONREAD and SIOCOUTQ, SIOCOUTQNSD: how much waits in a socket */
    static const uint64_t ioctls[] = {FIONBIO, FIONREAD, 0x5411 /* SIOCOUTQ */,
                                      0x894b /* SIOCOUTQNSD */};
    uint64_t me = (uint64_t)getpid();

    /* The C library asks whether it writes to a terminal. */
    RULE1(l, SCMP_ACT_ERRNO(ENOTTY), "ioctl", SCMP_A1(SCMP_CMP_EQ, TCGETS, 0));
    for (size_t i = 0; i < COUNT_OF(ioctls); i++)
        RULE1(l, SCMP_ACT_ALLOW, "ioctl", SCMP_A1(SCMP_CMP_EQ, ioctls[i], 0));
    RULE1(l, SCMP_ACT_ALLOW, "mmap", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    RULE1(l, SCMP_ACT_ALLOW, "mprotect", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    /* fstat() of newer C libraries; the metadata of other files is nobody's secret. */
    RULE1(l, SCMP_ACT_ALLOW, "newfstatat", SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
    RULE1(l, SCMP_ACT_ERRNO(ENOENT), "newfstatat",
          SCMP_A3(SCMP_CMP_NE, AT_EMPTY_PATH, 0));
    RULE1(l, SCMP_ACT_ALLOW, "tgkill", SCMP_A0(SCMP_CMP_EQ, me, 0)); /* abort() */
    RULE2(l, SCMP_ACT_ALLOW, "prlimit64", SCMP_A0(SCMP_CMP_EQ, 0, 0),
          SCMP_A2(SCMP_CMP_EQ, 0, 0)); /* only reads */
}

int role_guard_seal(struct err *e)
{
    struct list l;

    /* exec made it dumpable again. */
    if (no_new_privs(e) < 0 || caps_cut(0, e) < 0 || no_traces(e) < 0)
        return -1;
    if (IS_SANITIZED) {
        log_warn("guard.unsealed", "why=%s", log_q("built with a sanitizer"));
        return 0;
    }
    if (list_start(&l, SCMP_ACT_KILL_PROCESS, e) < 0)
        return -1;
    RULES(&l, SCMP_ACT_ALLOW, GUARD_MAY);
    RULES(&l, SCMP_ACT_ERRNO(ENOENT), GUARD_FINDS_NOTHING);
    RULES(&l, SCMP_ACT_ERRNO(EPERM), GUARD_MAY_NOT);
    guard_sockets(&l);
    guard_options(&l);
    guard_arguments(&l);
    return list_load(&l, "guard", e);
}

/* -- the sandbox's: everything but this ---------------------------------------------- */

static const char *const SANDBOX_MAY_NOT[] = {
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    /* into or out of namespaces and file systems */
    "setns", "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "open_by_handle_at", "swapon",
    "swapoff", "quotactl", "quotactl_fd", "chroot",
    /* the kernel's own programs and secrets */
    "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "kexec_load",
    "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module",
    "userfaultfd", "lookup_dcookie", "syslog", "acct", "reboot", "iopl", "ioperm",
    "vhangup", "nfsservctl", "pidfd_getfd"};

static void sandbox_sockets(struct list *l, const char *call)
{
    const uint32_t no = SCMP_ACT_ERRNO(EAFNOSUPPORT);

    for (uint64_t family = 0; family < AF_NETLINK; family++)
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
            RULE1(l, no, call, SCMP_A0(SCMP_CMP_MASKED_EQ, LOW32, family));
    /* Above AF_NETLINK, and with anything in the upper half, which no honest
     * caller has. */
    RULE1(l, no, call, SCMP_A0(SCMP_CMP_GT, AF_NETLINK, 0));
    RULE2(l, no, call, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK, 0),
          SCMP_A2(SCMP_CMP_NE, NETLINK_ROUTE, 0));
}

static void sandbox_arguments(struct list *l)
{
    static const uint64_t namespaces[] = {CLONE_NEWUSER,  CLONE_NEWNET, CLONE_NEWNS,
                                          CLONE_NEWPID,   CLONE_NEWIPC, CLONE_NEWUTS,
                                          CLONE_NEWCGROUP};
    static const uint64_t ioctls[] = {TIOCSTI, 0x541c /* TIOCLINUX */};
    const uint32_t no = SCMP_ACT_ERRNO(EPERM);

    for (size_t i = 0; i < COUNT_OF(namespaces); i++) {
        uint64_t flag = namespaces[i];

        RULE1(l, no, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
        RULE1(l, no, "unshare", SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
    }
    RULE1(l, no, "unshare", SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWTIME, CLONE_NEWTIME));
    /* Its flags are in memory, where no filter sees them; with ENOSYS
     * libraries use clone(). */
    rule(l, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
    for (size_t i = 0; i < COUNT_OF(ioctls); i++)
        RULE1(l, no, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, LOW32, ioctls[i]));
}

int sandbox_role(bool is_root, struct err *e)
{
    struct list l;

    if (no_new_privs(e) < 0 || caps_cut(is_root ? SANDBOX_ROOT_CAPS : 0, e) < 0)
        return -1;
    if (list_start(&l, SCMP_ACT_ALLOW, e) < 0)
        return -1;
    RULES(&l, SCMP_ACT_ERRNO(EPERM), SANDBOX_MAY_NOT);
    sandbox_sockets(&l, "socket");
    sandbox_sockets(&l, "socketpair");
    sandbox_arguments(&l);
    return list_load(&l, "sandbox", e);
}
