/* SPDX-License-Identifier: MIT */
/* Each attempt is made by a child that has taken the role: once as root where the test
 * runs as root, and once as an ordinary user. */
#include "agentd/egress/keeper/role.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/channel.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "common/loop.h"
#include "common/tls.h"
#include "tests/support/own_ns.h"
#include "tests/support/test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_GUARD_LIST 0
#else
#define HAS_GUARD_LIST 1
#endif

enum {
    NOBODY = 65534,
    DONE = 0,        /* the attempt did what it should */
    NO_ROLE = 125,   /* the role could not be taken */
    NO_RIGHTS = 124, /* this machine does not let us try */
};
enum who {
    AS_ROOT,
    AS_USER
};

/* It does not know seccomp(2), and a list would be its own too. */
static void skip_under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");

    if (preload == NULL || strstr(preload, "vgpreload") == NULL)
        return;
    print_message("skipped: valgrind knows no seccomp\n");
    skip();
}

/* -- children ------------------------------------------------------------------------ */

typedef int attempt_fn(void);
typedef int role_fn(enum who who);

/* The wait status of a child that has the role and tries. */
static int status_of(role_fn *role, attempt_fn *attempt, enum who who)
{
    pid_t pid = fork();
    int status = 0;

    assert_true(pid >= 0);
    if (pid == 0) {
        if (who == AS_USER && getuid() == 0 &&
            (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY)))
            _exit(NO_RIGHTS);
        if (who == AS_USER) /* as after an exec */
            (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        (void)alarm(20);
        if (role != NULL) {
            int rc = role(who);

            if (rc != 0)
                _exit(rc);
        }
        _exit(attempt());
    }
    while (waitpid(pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    return status;
}

static int told(struct err *e)
{
    (void)fprintf(stderr, "role: %s\n", e->msg);
    return NO_ROLE;
}

static int guard_role(enum who who)
{
    struct err e = {0};

    if (role_guard_before_exec(who == AS_ROOT ? NOBODY : 0, &e) < 0 ||
        role_guard_seal(&e) < 0)
        return told(&e);
    return 0;
}

/* Root of a user namespace of its own, which is how a sandbox's first process is. */
static int become_mapped_root(void)
{
    return own_ns_enter(CLONE_NEWUSER) < 0 ? NO_RIGHTS : 0;
}

static int the_sandbox_role(enum who who)
{
    struct err e = {0};
    int rc = who == AS_ROOT ? become_mapped_root() : 0;

    if (rc == 0 && sandbox_role(who == AS_ROOT, &e) < 0)
        rc = told(&e);
    return rc;
}

/* -- what is tried ------------------------------------------------------------------- */

/* 0 when it failed with this errno. */
static int is_error(long rc, int wanted)
{
    if (rc < 0 && errno == wanted)
        return DONE;
    (void)fprintf(stderr, "got %ld, errno %d, not %d\n", rc, errno, wanted);
    return 1;
}

static int makes_inet_sockets(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) < 0 ||
           socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP) < 0;
}

static void count_and_stop(void *arg)
{
    loop_stop(arg);
}

static int runs_a_loop(void)
{
    struct loop *l = loop_new(NULL);
    struct loop_timer t;

    if (l == NULL)
        return 1;
    loop_timer_init(&t, l, count_and_stop, l);
    loop_timer_start(&t, 5);
    loop_run(l);
    loop_free(l);
    return DONE;
}

static int draws_random_numbers(void)
{
    uint32_t n[4];

    crypto_random(n, sizeof(n));
    return DONE;
}

static int store = -1; /* opened before, by main() */

static int makes_tls(void)
{
    struct err e = {0};
    struct tls_ctx *c = tls_ctx_client_from(store, &e);

    if (c == NULL)
        (void)told(&e);
    tls_ctx_free(c);
    return c == NULL;
}

static int passes_sealed_texts(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    int fd = channel_text_out("policy", 6, NULL);

    return fd < 0 || channel_text_in(fd, 6, &b, NULL) < 0 || b.len != 6;
}

static int splices(void)
{
    int p[2], q[2];

    if (pipe2(p, O_NONBLOCK) < 0 || pipe2(q, O_NONBLOCK) < 0 ||
        write(p[1], "abc", 3) != 3)
        return 1;
    return splice(p[0], NULL, q[1], NULL, 3, SPLICE_F_MOVE) != 3;
}

static int takes_memory(void)
{
    char *p = malloc(32u << 20), *q;

    if (p == NULL)
        return 1;
    memset(p, 1, 32u << 20);
    q = realloc(p, 64u << 20);
    free(q);
    return q == NULL;
}

static int finds_no_file(void)
{
    FILE *f = fopen("/etc/passwd", "r");

    return f != NULL ? 1 : is_error(-1, ENOENT);
}

static int is_on_no_terminal(void)
{
    return isatty(STDIN_FILENO) != 0 ? 1 : is_error(-1, ENOTTY);
}

static int sets_a_terminal(void)
{
    return ioctl(STDIN_FILENO, TIOCSTI, "x") < 0;
}

/* The kernel takes the low half of the option's number only. All others are let. */
static int sets_no_broadcast(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, got = 0, bad = fd < 0;
    socklen_t len = sizeof got;

    for (int option = 1; option < 64; option++)
        if (option != SO_BROADCAST)
            (void)setsockopt(fd, SOL_SOCKET, option, &on, sizeof on);
    bad |= setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0;
    bad |= is_error(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on), EPERM);
    bad |= is_error(syscall(SYS_setsockopt, fd, SOL_SOCKET | UINT64_C(1) << 32,
                            SO_BROADCAST | UINT64_C(1) << 32, &on, sizeof on),
                    EPERM);
    bad |= getsockopt(fd, SOL_SOCKET, SO_BROADCAST, &got, &len) < 0 || got != 0;
    return bad;
}

static int makes_no_thread(void)
{
    return is_error(syscall(SYS_clone3, NULL, 0), EPERM);
}

static int aborts(void)
{
    abort();
}

static int opens_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) < 0;
}
static int opens_route_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0;
}
static int opens_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}
static int opens_raw(void)
{
    return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0;
}
static int opens_packet(void)
{
    return socket(AF_PACKET, SOCK_RAW, 0) < 0;
}
static int opens_mptcp(void)
{
    return socket(AF_INET, SOCK_STREAM, 262) < 0;
}
static int execs(void)
{
    char *argv[] = {(char[]){"true"}, NULL};

    return execv("/bin/true", argv) < 0;
}
static int traces(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0;
}
static int reads_other_memory(void)
{
    return syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0) < 0;
}
static int sets_namespace(void)
{
    return setns(0, CLONE_NEWNET) < 0;
}
static int unshares(void)
{
    return unshare(CLONE_NEWUSER) < 0;
}
static int mounts(void)
{
    return mount("none", "/mnt", "tmpfs", 0, NULL) < 0;
}
static int kills(void)
{
    return kill(getppid(), 0) < 0;
}
static int maps_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}
static int makes_code_of_data(void)
{
    void *p =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED || mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0;
}
static int raises_limits(void)
{
    return syscall(SYS_prlimit64, getppid(), 7, NULL, NULL) < 0;
}

static const struct {
    const char *what;
    attempt_fn *fn;
    int signo; /* 0: it is let */
} guard_rows[] = {
    {"inet sockets", makes_inet_sockets, 0},
    {"broadcasts", sets_no_broadcast, 0},
    {"the loop", runs_a_loop, 0},
    {"random numbers", draws_random_numbers, 0},
    {"tls", makes_tls, 0},
    {"sealed texts", passes_sealed_texts, 0},
    {"splice", splices, 0},
    {"memory", takes_memory, 0},
    {"no file", finds_no_file, 0},
    {"no terminal", is_on_no_terminal, 0},
    {"no thread", makes_no_thread, 0},
    {"abort", aborts, SIGABRT},
    {"netlink, netfilter", opens_netlink, SIGSYS},
    {"netlink, route", opens_route_netlink, SIGSYS},
    {"unix socket", opens_unix, SIGSYS},
    {"raw socket", opens_raw, SIGSYS},
    {"packet socket", opens_packet, SIGSYS},
    {"mptcp", opens_mptcp, SIGSYS},
    {"exec", execs, SIGSYS},
    {"ptrace", traces, SIGSYS},
    {"another's memory", reads_other_memory, SIGSYS},
    {"setns", sets_namespace, SIGSYS},
    {"unshare", unshares, SIGSYS},
    {"mount", mounts, SIGSYS},
    {"kill", kills, SIGSYS},
    {"TIOCSTI", sets_a_terminal, SIGSYS},
    {"code", maps_code, SIGSYS},
    {"code of data", makes_code_of_data, SIGSYS},
    {"another's limits", raises_limits, SIGSYS},
};

static void try_guard_rows(enum who who)
{
    for (size_t i = 0; i < COUNT_OF(guard_rows); i++) {
        int status = status_of(guard_role, guard_rows[i].fn, who);
        int signo = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

        if (signo != guard_rows[i].signo || (signo == 0 && WEXITSTATUS(status) != DONE))
            fail_msg("%s: signal %d, exit %d", guard_rows[i].what, signo,
                     WEXITSTATUS(status));
    }
}

static void the_guard_may_do_its_work_and_nothing_else(void **state)
{
    UNUSED_ARG(state);
    skip_under_valgrind();
    if (!HAS_GUARD_LIST) {
        print_message("skipped: a sanitizer's build has no list for the guard\n");
        skip();
    }
    if (getuid() == 0)
        try_guard_rows(AS_ROOT);
    try_guard_rows(AS_USER);
}

/* -- what a role leaves -------------------------------------------------------------- */

static uint64_t status_hex(const char *key)
{
    FILE *f = fopen("/proc/thread-self/status", "r");
    char line[256];
    uint64_t v = UINT64_MAX;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            v = strtoull(line + strlen(key) + 1, NULL, 16);
    if (f != NULL)
        (void)fclose(f);
    return v;
}

static int before_exec(enum who who)
{
    struct err e = {0};

    return role_guard_before_exec(who == AS_ROOT ? NOBODY : 0, &e) < 0 ? told(&e) : 0;
}

static int has_nothing(void)
{
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return 1;
    if (status_hex("CapPrm:") != 0 || status_hex("CapEff:") != 0 ||
        status_hex("CapInh:") != 0 || status_hex("CapAmb:") != 0 ||
        status_hex("CapBnd:") != 0)
        return 2;
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || getuid() != geteuid() ? 3
                                                                                : DONE;
}

static int is_nobody_without_groups(void)
{
    return getuid() != NOBODY || getgid() != NOBODY || getgroups(0, NULL) > 0;
}

static int shell_has_no_caps(void)
{
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"},
                    (char[]){"grep -Eq '^CapPrm:.0+$' /proc/self/status"}, NULL};

    return execv("/bin/sh", argv);
}

static int lives_in_a_user_namespace_of_its_own(void)
{
    return setns(0, 0) == 0 || mount("none", "/mnt", "tmpfs", 0, NULL) == 0;
}

static void the_guard_starts_with_nothing(void **state)
{
    static attempt_fn *const checks[] = {has_nothing, shell_has_no_caps,
                                         lives_in_a_user_namespace_of_its_own};

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(checks); i++) {
        assert_int_equal(status_of(before_exec, checks[i], AS_USER), 0);
        if (getuid() == 0)
            assert_int_equal(status_of(before_exec, checks[i], AS_ROOT), 0);
    }
    if (getuid() == 0)
        assert_int_equal(status_of(before_exec, is_nobody_without_groups, AS_ROOT), 0);
}

static void the_guard_dies_with_its_keeper(void **state)
{
    int p[2];
    pid_t pid;
    char byte;
    struct pollfd poll_fd;

    UNUSED_ARG(state);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* the keeper */
        if (fork() == 0) {
            if (before_exec(AS_USER) != 0 || write(p[1], "r", 1) != 1)
                _exit(1);
            (void)pause();
            _exit(0);
        }
        (void)close(p[1]);
        _exit(read(p[0], &byte, 1) != 1);
    }
    (void)close(p[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    poll_fd = (struct pollfd){.fd = p[0], .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 10000), 1); /* its end is closed: it is dead */
    assert_int_equal(read(p[0], &byte, 1), 0);
    (void)close(p[0]);
}

static int keeper(enum who who)
{
    struct err e = {0};

    UNUSED_ARG(who);
    return role_keeper(&e) < 0 ? told(&e) : 0;
}

static int keeps_what_it_needs(void)
{
    /* KILL 5, SETGID 6, SETUID 7, DAC_READ_SEARCH 2, NET_BIND_SERVICE 10, NET_BROADCAST 11,
     * NET_ADMIN 12, SYS_PTRACE 19, SYS_ADMIN 21 */
    const uint64_t may = 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 12 |
                         1 << 19 | 1 << 21;

    if (geteuid() != 0)
        return status_hex("CapPrm:") != 0;
    return (status_hex("CapPrm:") & ~may) != 0 || (status_hex("CapBnd:") & ~may) != 0 ||
           status_hex("CapEff:") != status_hex("CapPrm:") ||
           (status_hex("CapPrm:") & 1 << 12) == 0;
}

static void the_keeper_keeps_what_it_needs(void **state)
{
    UNUSED_ARG(state);
    assert_int_equal(status_of(keeper, keeps_what_it_needs, AS_USER), 0);
    if (getuid() == 0)
        assert_int_equal(status_of(keeper, keeps_what_it_needs, AS_ROOT), 0);
}

/* -- the sandbox --------------------------------------------------------------------- */

static const struct {
    const char *what;
    long nr, a, b, c;
    int error; /* 0: it is let */
} sandbox_rows[] = {
    {"unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0},
    {"unix pair", SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, EFAULT}, /* asked: let */
    {"inet", SYS_socket, AF_INET, SOCK_STREAM, 0, 0},
    {"inet6", SYS_socket, AF_INET6, SOCK_DGRAM, 0, 0},
    {"netlink route", SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, 0},
    {"netlink netfilter", SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER,
     EAFNOSUPPORT},
    {"netlink audit", SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_AUDIT, EAFNOSUPPORT},
    {"unspec", SYS_socket, AF_UNSPEC, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"packet", SYS_socket, AF_PACKET, SOCK_RAW, 0, EAFNOSUPPORT},
    {"vsock", SYS_socket, AF_VSOCK, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"vsock, upper half", SYS_socket, AF_VSOCK | 1L << 32, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"ax25, upper half", SYS_socket, AF_AX25 | 1L << 40, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"negative", SYS_socket, -1, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"alg", SYS_socket, AF_ALG, SOCK_SEQPACKET, 0, EAFNOSUPPORT},
    {"bluetooth", SYS_socket, AF_BLUETOOTH, SOCK_RAW, 0, EAFNOSUPPORT},
    {"can", SYS_socket, AF_CAN, SOCK_RAW, 0, EAFNOSUPPORT},
    {"xdp", SYS_socket, AF_XDP, SOCK_RAW, 0, EAFNOSUPPORT},
    {"qipcrtr", SYS_socket, AF_QIPCRTR, SOCK_DGRAM, 0, EAFNOSUPPORT},
    {"smc", SYS_socket, AF_SMC, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"tipc", SYS_socket, AF_TIPC, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"rds", SYS_socket, AF_RDS, SOCK_SEQPACKET, 0, EAFNOSUPPORT},
    {"tipc pair", SYS_socketpair, AF_TIPC, SOCK_STREAM, 0, EAFNOSUPPORT},
    {"io_uring", SYS_io_uring_setup, 1, 0, 0, EPERM},
    {"io_uring register", SYS_io_uring_register, -1, 0, 0, EPERM},
    {"new user namespace", SYS_unshare, CLONE_NEWUSER, 0, 0, EPERM},
    {"new user namespace among others", SYS_unshare, CLONE_FS | CLONE_NEWUSER, 0, 0,
     EPERM},
    {"new network", SYS_unshare, CLONE_NEWNET, 0, 0, EPERM},
    {"new time", SYS_unshare, CLONE_NEWTIME, 0, 0, EPERM},
    {"own file table", SYS_unshare, CLONE_FILES, 0, 0, 0},
    {"clone with a user namespace", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, EPERM},
    {"clone, upper half", SYS_clone, 1L << 40 | CLONE_NEWUSER | SIGCHLD, 0, 0, EPERM},
    {"clone3", SYS_clone3, 0, 0, 0, ENOSYS},
    {"mount", SYS_mount, 0, 0, 0, EPERM},
    {"umount", SYS_umount2, 0, 0, 0, EPERM},
    {"move_mount", SYS_move_mount, -1, 0, -1, EPERM},
    {"fsopen", SYS_fsopen, 0, 0, 0, EPERM},
    {"open_tree", SYS_open_tree, -1, 0, 0, EPERM},
    {"pivot_root", SYS_pivot_root, 0, 0, 0, EPERM},
    {"setns", SYS_setns, 0, 0, 0, EPERM},
    {"bpf", SYS_bpf, 0, 0, 0, EPERM},
    {"perf", SYS_perf_event_open, 0, 0, 0, EPERM},
    {"keyctl", SYS_keyctl, 0, 0, 0, EPERM},
    {"add_key", SYS_add_key, 0, 0, 0, EPERM},
    {"request_key", SYS_request_key, 0, 0, 0, EPERM},
    {"kexec", SYS_kexec_load, 0, 0, 0, EPERM},
    {"module", SYS_init_module, 0, 0, 0, EPERM},
    {"module by file", SYS_finit_module, -1, 0, 0, EPERM},
    {"userfaultfd", SYS_userfaultfd, 0, 0, 0, EPERM},
    {"open by number", SYS_open_by_handle_at, -1, 0, 0, EPERM},
    {"TIOCSTI", SYS_ioctl, 0, TIOCSTI, 0, EPERM},
    {"TIOCSTI, upper half", SYS_ioctl, 0, TIOCSTI | 1L << 32, 0, EPERM},
    {"TIOCLINUX", SYS_ioctl, 0, 0x541c, 0, EPERM},
    {"getpid", SYS_getpid, 0, 0, 0, 0},
};

static int sandbox_tries_all(void)
{
    int bad = 0;

    for (size_t i = 0; i < COUNT_OF(sandbox_rows); i++) {
        long rc;
        int got;

        errno = 0;
        rc = syscall(sandbox_rows[i].nr, sandbox_rows[i].a, sandbox_rows[i].b,
                     sandbox_rows[i].c, 0L, 0L);
        got = rc < 0 ? errno : 0;
        if (got != sandbox_rows[i].error) {
            (void)fprintf(stderr, "%s: errno %d, not %d\n", sandbox_rows[i].what, got,
                          sandbox_rows[i].error);
            bad = 1;
        }
    }
    return bad;
}

/* glibc's fork, threads and posix_spawn go on without clone3. */
static int sandbox_forks_and_runs(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(7);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
        return 1;
    return system("true") != 0; /* NOLINT: posix_spawn is what is tried */
}

#ifdef __x86_64__
/* 32-bit socket(AF_VSOCK, ...) by the other door. */
static int calls_as_i386(void)
{
    long rc;

    __asm__ volatile("int $0x80"
                     : "=a"(rc)
                     : "a"(359), "b"(AF_VSOCK), "c"(SOCK_STREAM), "d"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    return rc >= 0;
}

static int calls_as_x32(void)
{
    return syscall(0x40000000 | SYS_socket, AF_VSOCK, SOCK_STREAM, 0) >= 0;
}
#endif

static int root_keeps_seven(void)
{
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"},
                    (char[]){"grep -q '^CapPrm:.00000000000000fb$' /proc/self/status && "
                             "grep -q '^CapEff:.00000000000000fb$' /proc/self/status && "
                             "grep -q '^CapBnd:.00000000000000fb$' /proc/self/status && "
                             "grep -q '^NoNewPrivs:.1$' /proc/self/status"},
                    NULL};

    return execv("/bin/sh", argv);
}

/* False: no user namespaces for us here. */
static bool sandbox_does(attempt_fn *fn, enum who who, int wanted)
{
    int status = status_of(the_sandbox_role, fn, who);

    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_RIGHTS) {
        print_message("not tried as root: no user namespaces here\n");
        return false;
    }
    if (status != wanted)
        fail_msg("wait status %#x, not %#x", status, wanted);
    return true;
}

static void a_sandbox_is_refused_what_leads_out(void **state)
{
    UNUSED_ARG(state);
    skip_under_valgrind();
    (void)sandbox_does(sandbox_tries_all, AS_ROOT, 0);
    assert_true(sandbox_does(sandbox_tries_all, AS_USER, 0));
}

static void a_sandbox_starts_programs(void **state)
{
    UNUSED_ARG(state);
    skip_under_valgrind();
    (void)sandbox_does(sandbox_forks_and_runs, AS_ROOT, 0);
    assert_true(sandbox_does(sandbox_forks_and_runs, AS_USER, 0));
    assert_true(sandbox_does(shell_has_no_caps, AS_USER, 0));
    (void)sandbox_does(root_keeps_seven, AS_ROOT, 0);
}

static void a_sandbox_has_one_architecture(void **state)
{
    UNUSED_ARG(state);
    skip_under_valgrind();
#ifdef __x86_64__
    assert_int_equal(WTERMSIG(status_of(the_sandbox_role, calls_as_i386, AS_USER)),
                     SIGSYS);
    assert_int_equal(WTERMSIG(status_of(the_sandbox_role, calls_as_x32, AS_USER)),
                     SIGSYS);
#else
    print_message("skipped: this processor has one only\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_guard_may_do_its_work_and_nothing_else),
        cmocka_unit_test(the_guard_starts_with_nothing),
        cmocka_unit_test(the_guard_dies_with_its_keeper),
        cmocka_unit_test(the_keeper_keeps_what_it_needs),
        cmocka_unit_test(a_sandbox_is_refused_what_leads_out),
        cmocka_unit_test(a_sandbox_starts_programs),
        cmocka_unit_test(a_sandbox_has_one_architecture),
    };

    store = tls_store_open();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
