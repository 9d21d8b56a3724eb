/* SPDX-License-Identifier: MIT */
/* Real sandboxes, as root (where the test is root's) and as an ordinary user (uid 65534 where it
 * is, else whoever runs it). COMMAND is a shell script whose output is compared, or this program
 * itself, which then tries what must not work. */
#include "agentd/egress/keeper/sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "common/sock.h"
#include "tests/support/test.h"

enum mode {
    ROOT,
    USER,
    MODES
};
enum {
    NOBODY = 65534,
    CANNOT = 99, /* exit code of a supervisor that the kernel refused */
    OUTPUT_MAX = 65536,
    WAIT_MS = 20000,
};

struct result {
    int code;
    char out[OUTPUT_MAX];
};

struct scene {
    enum mode mode;
    const char *script;
    const char *bind[4];
    unsigned n_bind;
    void (*before)(void); /* in the supervisor, with its first rights */
    char *const *command; /* instead of the script */
    bool tells_stage;
};

/* -- the supervisor: what `run` is, without the network ------------------------------------ */

static volatile sig_atomic_t terminated;

static void on_term(int signo)
{
    terminated = signo;
}

static int live(struct sandbox *s)
{
    struct pollfd p = {.fd = sandbox_fd(s), .events = POLLIN};
    enum sandbox_news news;
    int value = 0;

    for (;;) {
        (void)poll(&p, 1, 100);
        if (terminated) {
            sandbox_signal(s, terminated);
            terminated = 0;
        }
        news = sandbox_read(s, &value);
        if (news == SANDBOX_STOPPED)
            sandbox_stopped(s, value);
        if (news == SANDBOX_ENDED)
            return value;
    }
}

static int become(enum mode mode, struct userns_range *range, struct err *e)
{
    if (mode == ROOT)
        return userns_range_take("test", USERNS_LOCKS, range, e);
    if (getuid() == 0 &&
        (setgroups(0, NULL) < 0 || fchown(1, NOBODY, NOBODY) < 0 ||
         setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
        return err_sys(e, "become an ordinary user");
    /* setresuid() took it: our own files in /proc are ours again. */
    (void)prctl(PR_SET_DUMPABLE, 1);
    return userns_enter(e);
}

static _Noreturn void supervise(const struct scene *sc)
{
    char *shell[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char *)(uintptr_t)sc->script,
                     NULL};
    struct userns_range range = {.lock = -1};
    struct sandbox_conf conf = {.bind = sc->bind,
                                .n_bind = sc->n_bind,
                                .makers = 1,
                                .command = sc->command ? sc->command : shell};
    struct sandbox *s = NULL;
    struct err e = {0};
    int code;

    (void)signal(SIGTERM, on_term);
    (void)setenv("TUNNEL_TOKEN", "secret-token", 1);
    (void)setenv("TUNNEL_SERVER", "https://preview.example.com", 1);
    (void)setenv("https_proxy", "http://user:secret-password@proxy.example.com", 1);
    (void)setenv("ALL_PROXY", "http://user:secret-password@proxy.example.com", 1);
    (void)setenv("KEPT", "kept", 1);
    if (sc->before)
        sc->before();
    if (become(sc->mode, &range, &e) == 0) {
        conf.uid = getuid();
        conf.gid = getgid();
        conf.first_id = range.first;
        s = sandbox_new(&conf, &e);
    }
    if (!s || sandbox_go(s, &e) < 0) {
        (void)dprintf(2, "%s\n", e.msg);
        _exit(e.code == ERR_CONFIG ? 2 : CANNOT);
    }
    if (sc->tells_stage)
        (void)dprintf(1, "stage %ld\n", (long)sandbox_pid(s));
    code = live(s);
    sandbox_free(s);
    _exit(code);
}

/* Returns the supervisor; *ret_out is closed when nobody of the sandbox is left. */
static pid_t start(const struct scene *sc, int *ret_out)
{
    int out[2];
    pid_t pid;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (dup2(out[1], 1) < 0 || dup2(out[1], 2) < 0)
            _exit(CANNOT);
        supervise(sc);
    }
    (void)close(out[1]);
    *ret_out = out[0];
    return pid;
}

static int code_of(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Read until `mark` came, or (NULL) to the end. False: neither within WAIT_MS. */
static bool read_until(int fd, const char *mark, char *ret)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t n = 0;
    ssize_t got;

    ret[0] = '\0';
    while (n < OUTPUT_MAX - 1 && poll(&p, 1, WAIT_MS) == 1) {
        got = read(fd, ret + n, OUTPUT_MAX - 1 - n);
        if (got <= 0)
            return mark == NULL;
        n += (size_t)got;
        ret[n] = '\0';
        if (mark && strstr(ret, mark))
            return true;
    }
    return false;
}

static void run(const struct scene *sc, struct result *ret)
{
    int out;
    pid_t pid = start(sc, &out);

    assert_true(read_until(out, NULL, ret->out));
    (void)close(out);
    ret->code = code_of(pid);
}

/* The modes that can be tried here, with the reason printed for the others. */
static bool can(enum mode mode)
{
    struct scene sc = {.mode = mode, .script = "exit 0"};
    static struct result r;

    if (mode == ROOT && !userns_is_host_root()) {
        print_message("as root: not root here\n");
        return false;
    }
    run(&sc, &r);
    if (r.code != 0)
        print_message("%s: %s", mode == ROOT ? "as root" : "as a user", r.out);
    return r.code == 0;
}

struct modes {
    bool can[MODES];
};

static int find_modes(void **state)
{
    static struct modes m;
    unsigned i;

    for (i = 0; i < MODES; i++)
        m.can[i] = can((enum mode)i);
    *state = &m;
    return 0;
}

/* Body runs once for each mode that works; skipped when none does. */
#define EACH_MODE(m, state)                                                              \
    if (!((struct modes *)*(state))->can[ROOT] &&                                        \
        !((struct modes *)*(state))->can[USER])                                          \
        skip();                                                                          \
    for (enum mode m = ROOT; m < MODES; m++)                                             \
        if (((struct modes *)*(state))->can[m])

/* -- what a script sees ------------------------------------------------------------------------ */

static const struct {
    const char *what, *script, *out;
    const char *user; /* where it differs for one; NULL */
} looks[] = {
    {"its own processes", "cat /proc/1/comm; ls /proc | grep -c '^[1-9][0-9][0-9]'",
     "egress-init\n0\n", NULL},
    {"an empty /run", "find /run -mindepth 1 -maxdepth 1", "/run/lock\n",
     "/run/user\n/run/lock\n"},
    {"/var/run is that one", "touch /run/lock/x; ls /var/run/lock", "x\n", NULL},
    {"an empty /tmp that can be used", "find /tmp -mindepth 1; touch /tmp/x; ls /tmp",
     "x\n", NULL},
    {"capabilities", "grep -E 'CapInh|CapPrm|CapEff|CapBnd|CapAmb' /proc/self/status",
     "CapInh:\t0000000000000000\nCapPrm:\t00000000000000fb\nCapEff:\t00000000000000fb\n"
     "CapBnd:\t00000000000000fb\nCapAmb:\t0000000000000000\n",
     "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
     "CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n"},
    {"no new privileges, and a filter", "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
     "NoNewPrivs:\t1\nSeccomp:\t2\n", NULL},
    {"our resolv.conf", "grep -v '^#' /etc/resolv.conf", "nameserver 192.0.0.8\n", NULL},
    {"our nsswitch.conf", "grep hosts /etc/nsswitch.conf", "hosts: files dns\n", NULL},
    {"which stay ours", "(echo x >/etc/resolv.conf) 2>/dev/null || echo no", "no\n",
     NULL},
    {"one interface", "ls /sys/class/net; tail -n +3 /proc/net/dev | cut -d: -f1",
     "lo\n    lo\n", NULL},
    {"no way to write into /sys", "(echo x >/sys/kernel/x) 2>/dev/null || echo no",
     "no\n", NULL},
    {"few devices", "cd /dev; echo *",
     "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n", NULL},
    {"devices that work",
     "head -c 4 /dev/urandom | wc -c; head -c 2 /dev/zero | wc -c; echo x >/dev/null; "
     "echo y >/dev/shm/y; cat /dev/shm/y; echo z >/dev/stdout",
     "4\n2\ny\nz\n", NULL},
    {"the environment but for secrets",
     "echo $KEPT; env | grep -ciE 'secret|TUNNEL_|_proxy'", "kept\n0\n", NULL},
    {"nothing of init's memory",
     "cat /proc/1/environ 2>/dev/null || echo no; ls /proc/1/fd 2>/dev/null || echo no",
     "no\nno\n", NULL},
    {"no other process to signal", "kill -9 1; kill -9 2>/dev/null $PPID; echo alive",
     "alive\n", NULL},
    {"the caller's files",
     "head -c 4 /proc/self/exe | tail -c 3; test -r /etc/passwd && "
     "echo yes",
     "ELFyes\n", NULL},
    {"sysctls that cannot be set",
     "for f in net/ipv4/ip_forward kernel/hostname net/ipv4/ip_unprivileged_port_start; "
     "do (echo 0 >/proc/sys/$f) 2>/dev/null && echo $f; done; echo none",
     "none\n", NULL},
};

static void a_sandbox_looks_so_from_inside(void **state)
{
    static struct result r;
    const char *want;
    size_t i;

    EACH_MODE(m, state)
    {
        for (i = 0; i < COUNT_OF(looks); i++) {
            run(&(struct scene){.mode = m, .script = looks[i].script}, &r);
            want = m == USER && looks[i].user ? looks[i].user : looks[i].out;
            if (strcmp(r.out, want) != 0)
                print_message("%s (%s)\n", looks[i].what, m == ROOT ? "root" : "user");
            assert_string_equal(r.out, want);
        }
    }
}

static void root_is_mapped_and_others_keep_their_ids(void **state)
{
    static struct result r;
    unsigned long in, out, n;
    unsigned uid, gid;

    EACH_MODE(m, state)
    {
        run(&(struct scene){.mode = m, .script = "id -u; id -g; cat /proc/self/uid_map"},
            &r);
        assert_int_equal(sscanf(r.out, "%u %u %lu %lu %lu", &uid, &gid, &in, &out, &n),
                         5);
        if (m == ROOT) {
            assert_int_equal(uid, 0);
            assert_int_equal(gid, 0);
            assert_int_equal(in, 0);
            assert_true(out >= USERNS_FIRST && out < USERNS_GUARD);
            assert_int_equal(n, USERNS_COUNT);
            continue;
        }
        assert_int_equal(uid, getuid() ? getuid() : NOBODY);
        assert_int_equal(gid, getuid() ? getgid() : NOBODY);
        assert_int_equal(in, uid);
        assert_int_equal(n, 1);
    }
}

static void the_exit_code_is_the_commands(void **state)
{
    static const struct {
        const char *script;
        int code;
    } rows[] = {{"exit 0", 0},
                {"exit 7", 7},
                {"kill -TERM $$", 143},
                {"kill -9 $$", 137},
                {"no-such-thing", 127}};
    char *const missing[] = {(char[]){"/no/such/command"}, NULL};
    char *const no_program[] = {(char[]){"/etc/passwd"}, NULL};
    static struct result r;
    size_t i;

    EACH_MODE(m, state)
    {
        for (i = 0; i < COUNT_OF(rows); i++) {
            run(&(struct scene){.mode = m, .script = rows[i].script}, &r);
            assert_int_equal(r.code, rows[i].code);
        }
        run(&(struct scene){.mode = m, .command = missing}, &r);
        assert_int_equal(r.code, 127);
        assert_non_null(strstr(r.out, "/no/such/command"));
        run(&(struct scene){.mode = m, .command = no_program}, &r);
        assert_int_equal(r.code, 126);
    }
}

/* -- folders --------------------------------------------------------------------------------------- */

static void in_a_folder_of_tmp(void)
{
    (void)mkdir("/tmp/egress-test", 0755);
    (void)close(open("/tmp/egress-test/seen", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    if (chdir("/tmp/egress-test") < 0)
        _exit(1);
}

static void a_covered_working_folder_is_told(void **state)
{
    static struct result r;

    EACH_MODE(m, state)
    {
        run(&(struct scene){.mode = m, .script = "pwd", .before = in_a_folder_of_tmp},
            &r);
        assert_non_null(strstr(r.out, "/tmp/egress-test"));
        assert_non_null(strstr(r.out, "--bind"));
        assert_non_null(strstr(r.out, "\n/\n"));
    }
}

static void bind_shows_what_is_covered(void **state)
{
    static struct result r;

    EACH_MODE(m, state)
    {
        run(&(struct scene){.mode = m,
                            .script = "pwd; ls; ls /tmp; cat /dev/kmsg >&- 2>&- || :; "
                                      "test -e /dev/kmsg && echo kmsg",
                            .bind = {".", "/dev/kmsg"},
                            .n_bind = access("/dev/kmsg", F_OK) == 0 ? 2 : 1,
                            .before = in_a_folder_of_tmp},
            &r);
        assert_non_null(strstr(r.out, "/tmp/egress-test\nseen\negress-test\n"));
        run(
            &(struct scene){
                .mode = m, .script = "", .bind = {"/no/such/path"}, .n_bind = 1},
            &r);
        assert_int_equal(r.code, 2);
        assert_non_null(strstr(r.out, "/no/such/path"));
        run(&(struct scene){.mode = m, .script = "", .bind = {"/proc/1"}, .n_bind = 1},
            &r);
        assert_int_equal(r.code, 2);
    }
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        _exit(1);
    (void)close(fd);
}

/* A machine with systemd-resolved, and without nsswitch.conf. */
static void with_an_odd_etc(void)
{
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/etc", "tmpfs", 0, "mode=755") < 0 ||
        symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf") < 0 ||
        symlink("passwd", "/etc/link") < 0 || mkdir("/etc/folder", 0755) < 0)
        _exit(1);
    put("/etc/passwd", "root:x:0:0::/:/bin/sh\n");
    put("/etc/folder/file", "deep\n");
}

static void resolv_conf_and_nsswitch_conf_may_be_links_or_absent(void **state)
{
    static struct result r;

    if (getuid() != 0) {
        print_message("changing /etc needs root\n");
        skip();
    }
    EACH_MODE(m, state)
    {
        run(&(struct scene){.mode = m,
                            .script =
                                "tail -1 /etc/resolv.conf; grep hosts "
                                "/etc/nsswitch.conf; cat /etc/folder/file /etc/link; "
                                "readlink /etc/link; ls /etc",
                            .before = with_an_odd_etc},
            &r);
        assert_string_equal(r.out, "nameserver 192.0.0.8\nhosts: files dns\ndeep\n"
                                   "root:x:0:0::/:/bin/sh\npasswd\n"
                                   "folder\nlink\nnsswitch.conf\npasswd\nresolv.conf\n");
    }
}

/* -- this program as COMMAND: each try prints its errno when it differs ------------------------ */

struct world { /* made outside, looked for inside */
    key_t key;
    int queue, abstract, path;
    char name[64];
};

static int listen_at(const char *name, bool is_abstract)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len;

    (void)snprintf(a.sun_path + is_abstract, sizeof a.sun_path - 1, "%s", name);
    len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name));
    if (!is_abstract)
        (void)unlink(name);
    return fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && listen(fd, 4) == 0
               ? fd
               : -1;
}

static int connect_to(const char *name, bool is_abstract)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    (void)snprintf(a.sun_path + is_abstract, sizeof a.sun_path - 1, "%s", name);
    r = connect(
        fd, (struct sockaddr *)&a,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name)));
    r = r < 0 ? errno : 0;
    (void)close(fd);
    return r;
}

static int of(long r)
{
    return r < 0 ? errno : 0;
}

static int set_interface(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};

    return of(ioctl(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), SIOCSIFFLAGS, &r));
}

static int transparent(void)
{
    int one = 1;

    return of(setsockopt(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), SOL_IP,
                         IP_TRANSPARENT, &one, sizeof one));
}

static int own_terminal(void)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0)
        return errno;
    return of(open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC));
}

static bool tried(const char *what, int got, int want)
{
    if (got != want)
        (void)printf("%s: errno %d, not %d\n", what, got, want);
    return got == want;
}

/* The lowest above 2, which are the caller's; 0: none. */
static int other_descriptor(void)
{
    int fd;

    for (fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            return fd;
    return 0;
}

static int try_all(const char *name, key_t key)
{
    bool ok = tried("another descriptor", other_descriptor(), 0);
    int self = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    ok &= tried("setns", of(setns(self, CLONE_NEWNET)), EPERM);
    ok &= tried("init's namespace", of(open("/proc/1/ns/net", O_RDONLY)), EACCES);
    ok &= tried("unshare user", of(unshare(CLONE_NEWUSER)), EPERM);
    ok &= tried("unshare net", of(unshare(CLONE_NEWNET)), EPERM);
    ok &= tried("mount", of(mount("tmpfs", "/tmp", "tmpfs", 0, NULL)), EPERM);
    ok &= tried("umount", of(umount2("/proc", MNT_DETACH)), EPERM);
    ok &= tried("ptrace init", of(ptrace(PTRACE_ATTACH, 1, NULL, NULL)), EPERM);
    ok &= tried("ptrace parent", of(ptrace(PTRACE_SEIZE, getppid(), NULL, NULL)), EPERM);
    ok &= tried("vsock", of(socket(AF_VSOCK, SOCK_STREAM, 0)), EAFNOSUPPORT);
    ok &= tried("packet", of(socket(AF_PACKET, SOCK_RAW, 0)), EAFNOSUPPORT);
    ok &= tried("netfilter", of(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)),
                EAFNOSUPPORT);
    ok &= tried("route", of(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), 0);
    ok &= tried("icmp", of(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)), EPERM);
    ok &= tried("hostname", of(sethostname("x", 1)), EPERM);
    ok &= tried("interface", set_interface(), EPERM);
    ok &= tried("transparent", transparent(), EPERM);
    ok &= tried("keyring", of(syscall(SYS_keyctl, 0, -3, 1)), EPERM);
    ok &= tried("add_key", of(syscall(SYS_add_key, "user", "x", "y", 1, -3)), EPERM);
    ok &= tried("bpf", of(syscall(SYS_bpf, 0, NULL, 0)), EPERM);
    ok &= tried("message queue of outside", of(msgget(key, 0)), ENOENT);
    ok &= tried("abstract socket of outside", connect_to(name, true), ECONNREFUSED);
    ok &= tried("own terminal", own_terminal(), 0);
    ok &= tried("host's init", of(kill(getppid(), SIGKILL)),
                0); /* init inside, which lives */
    return ok ? 0 : 1;
}

static void nothing_of_outside_can_be_reached(void **state)
{
    char key[16], name[64];
    const char *self = (const char *)getauxval(AT_EXECFN);
    char path[4096];
    char *const command[] = {path, (char[]){"inside"}, name, key, NULL};
    static struct result r;
    int queue, sock;

    if (!realpath(self, path))
        fail();
    (void)snprintf(name, sizeof name, "egress-test-%ld", (long)getpid());
    (void)snprintf(key, sizeof key, "%d", 0x54470000 + getpid());
    EACH_MODE(m, state)
    {
        queue = msgget((key_t)atoi(key), IPC_CREAT | 0666);
        sock = listen_at(name, true);
        assert_true(queue >= 0 && sock >= 0);
        assert_int_equal(connect_to(name, true), 0); /* it is there, outside */
        run(&(struct scene){.mode = m, .command = command, .bind = {path}, .n_bind = 1},
            &r);
        assert_int_equal(msgctl(queue, IPC_RMID, NULL), 0);
        (void)close(sock);
        if (r.code == 126 || r.code == 127) {
            print_message("%s cannot be read by an ordinary user\n", path);
            continue;
        }
        assert_string_equal(r.out, "");
        assert_int_equal(r.code, 0);
    }
}

/* A socket with a name in /run or /tmp, by which programs outside can be spoken to. */
static void sockets_with_names_are_covered(void **state)
{
    static const char *const at[] = {"/tmp/egress-test.sock", "/run/egress-test.sock"};
    static struct result r;
    size_t i;
    int fd;

    EACH_MODE(m, state)
    {
        for (i = 0; i < COUNT_OF(at); i++) {
            char script[64];

            fd = listen_at(at[i], false);
            if (fd < 0)
                continue; /* /run is root's */
            (void)snprintf(script, sizeof script, "test -e %s || echo none", at[i]);
            run(&(struct scene){.mode = m, .script = script}, &r);
            assert_string_equal(r.out, "none\n");
            (void)close(fd);
            (void)unlink(at[i]);
        }
    }
}

/* Elsewhere they are covered too, unless they are asked for. */
static void sockets_elsewhere_are_covered_but_for_bind(void **state)
{
    char name[64], script[256];
    static struct result r;
    int fd, second;

    (void)snprintf(name, sizeof name, "/var/tmp/egress-test-%ld", (long)getpid());
    (void)snprintf(script, sizeof script,
                   "test -S %s && echo socket; test -e %s && echo there", name, name);
    EACH_MODE(m, state)
    {
        fd = listen_at(name, false);
        assert_true(fd >= 0);
        run(&(struct scene){.mode = m, .script = script}, &r);
        assert_string_equal(r.out, "there\n");
        assert_int_equal(connect_to(name, false), 0); /* for others it is as it was */
        run(&(struct scene){.mode = m, .script = script, .bind = {name}, .n_bind = 1},
            &r);
        assert_string_equal(r.out, "socket\nthere\n");
        run(
            &(struct scene){
                .mode = m, .script = script, .bind = {"/var/tmp"}, .n_bind = 1},
            &r);
        assert_string_equal(r.out, "socket\nthere\n");
        (void)close(fd);
        (void)unlink(name);
        /* One that only sends datagrams has nobody listening, and is spoken to all the same. */
        second = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", name);
        assert_int_equal(bind(second, (struct sockaddr *)&a, sizeof a), 0);
        run(&(struct scene){.mode = m, .script = script}, &r);
        assert_string_equal(r.out, "there\n");
        (void)close(second);
        (void)unlink(name);
    }
}

/* As a chroot's: with it the host's processes would be seen. */
static void with_another_proc(void)
{
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755") < 0 ||
        mkdir("/mnt/a b", 0755) < 0 || mount("proc", "/mnt/a b", "proc", 0, NULL) < 0)
        _exit(1);
}

static void another_proc_is_covered(void **state)
{
    static struct result r;

    if (getuid() != 0) {
        print_message("mounting needs root\n");
        skip();
    }
    EACH_MODE(m, state)
    {
        run(&(struct scene){.mode = m,
                            .script =
                                "ls -A '/mnt/a b'; test -d '/mnt/a b' && echo empty",
                            .before = with_another_proc},
            &r);
        assert_string_equal(r.out, "empty\n");
    }
}

/* -- signals and ends --------------------------------------------------------------------------- */

static void a_signal_reaches_the_command(void **state)
{
    static struct result r;
    pid_t pid;
    int out;

    EACH_MODE(m, state)
    {
        pid = start(
            &(struct scene){.mode = m,
                            .script =
                                "trap 'echo got; exit 5' TERM; echo ready; while :; "
                                "do sleep 100 & wait; done"},
            &out);
        assert_true(read_until(out, "ready\n", r.out));
        assert_int_equal(kill(pid, SIGTERM), 0);
        assert_true(read_until(out, NULL, r.out));
        assert_string_equal(r.out, "got\n");
        (void)close(out);
        assert_int_equal(code_of(pid), 5);
    }
}

/* The pipe ends only when each process that has it is gone. */
static void all_ends_with_the_supervisor(void **state)
{
    static struct result r;
    pid_t pid;
    int out;

    EACH_MODE(m, state)
    {
        pid =
            start(&(struct scene){.mode = m,
                                  .script = "setsid sleep 1000 & echo ready; sleep 1000"},
                  &out);
        assert_true(read_until(out, "ready\n", r.out));
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_true(read_until(out, NULL, r.out));
        (void)close(out);
        assert_int_equal(code_of(pid), 128 + SIGKILL);
    }
}

static void all_ends_with_the_stage(void **state)
{
    static struct result r;
    long stage = 0;
    pid_t pid;
    int out;

    EACH_MODE(m, state)
    {
        pid = start(&(struct scene){.mode = m,
                                    .script = "setsid sleep 1000 & sleep 1; echo ready; "
                                              "sleep 1000",
                                    .tells_stage = true},
                    &out);
        assert_true(read_until(out, "ready\n", r.out));
        assert_int_equal(sscanf(r.out, "stage %ld", &stage), 1);
        assert_int_equal(kill((pid_t)stage, SIGKILL), 0);
        assert_true(read_until(out, NULL, r.out));
        (void)close(out);
        assert_int_equal(code_of(pid), 128 + SIGKILL);
    }
}

static void what_the_command_leaves_behind_ends_with_it(void **state)
{
    static struct result r;

    EACH_MODE(m, state)
    {
        run(&(struct scene){.mode = m,
                            .script = "setsid sleep 1000 & (sleep 1000 &) ; exit 3"},
            &r);
        assert_int_equal(r.code, 3);
    }
}

/* -- a terminal ------------------------------------------------------------------------------------ */

static void type(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void a_shell_is_usable_at_a_terminal(void **state)
{
    char *const shell[] = {(char[]){"/bin/sh"}, (char[]){"-i"}, NULL};
    static struct result r;
    pid_t pid;
    int fd;

    EACH_MODE(m, state)
    {
        pid = forkpty(&fd, NULL, NULL, NULL);
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)setenv("PS1", "> ", 1);
            supervise(&(struct scene){.mode = m, .command = shell});
        }
        type(fd, "echo st''arted\n");
        assert_true(read_until(fd, "started", r.out));
        assert_null(strstr(r.out, "job control"));
        type(fd, "sleep 1000 || echo inter''rupted\n");
        assert_true(read_until(fd, "sleep 1000", r.out));
        (void)poll(NULL, 0,
                   300); /* until sleep has the terminal; too soon only asks the shell */
        type(fd, "\003");
        type(fd, "echo al''ive\n");
        assert_true(read_until(fd, "alive", r.out));
        /* Stopped by the terminal, and continued. */
        type(fd, "sh -c 'kill -TSTP $$; echo con''tinued'\n");
        (void)poll(NULL, 0, 300);
        type(fd, "fg\n");
        assert_true(read_until(fd, "continued", r.out));
        type(fd, "exit 9\n");
        (void)read_until(fd, NULL, r.out);
        (void)close(fd);
        assert_int_equal(code_of(pid), 9);
    }
}

/* -- sockets -------------------------------------------------------------------------------------- */

/* In the child of a test: a maker's sockets are in the sandbox, not here. */
static _Noreturn void use_maker(enum mode mode)
{
    char *const shell[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char[]){"cat"}, NULL};
    struct userns_range range = {.lock = -1};
    struct sandbox_conf conf = {.makers = 2, .command = shell};
    char mine[64] = "", its[64] = "", path[64];
    struct err e = {0};
    struct sandbox *s;
    struct netns *ns;
    int maker, fd;

    if (become(mode, &range, &e) < 0)
        _exit(1);
    conf.uid = getuid();
    conf.gid = getgid();
    conf.first_id = range.first;
    s = sandbox_new(&conf, &e);
    if (!s)
        _exit(2);
    maker = sandbox_maker(s);
    ns = netns_from_maker(&maker, &e);
    if (!ns || sandbox_maker(s) < 0 || sandbox_maker(s) >= 0)
        _exit(3);
    fd = netns_socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, &e);
    if (fd < 0 || netns_socket(ns, AF_INET, SOCK_STREAM, 0, &e) < 0)
        _exit(4);
    (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)sandbox_pid(s));
    if (readlink(path, its, sizeof its - 1) <= 0 ||
        readlink("/proc/self/ns/net", mine, sizeof mine - 1) <= 0 || !strcmp(mine, its))
        _exit(5);
    netns_free(ns);
    sandbox_free(s); /* never started: ends all the same */
    _exit(0);
}

static void a_maker_gives_sockets_of_the_sandbox(void **state)
{
    pid_t pid;

    EACH_MODE(m, state)
    {
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            use_maker(m);
        assert_int_equal(code_of(pid), 0);
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sandbox_looks_so_from_inside),
        cmocka_unit_test(root_is_mapped_and_others_keep_their_ids),
        cmocka_unit_test(the_exit_code_is_the_commands),
        cmocka_unit_test(a_covered_working_folder_is_told),
        cmocka_unit_test(bind_shows_what_is_covered),
        cmocka_unit_test(resolv_conf_and_nsswitch_conf_may_be_links_or_absent),
        cmocka_unit_test(nothing_of_outside_can_be_reached),
        cmocka_unit_test(sockets_with_names_are_covered),
        cmocka_unit_test(sockets_elsewhere_are_covered_but_for_bind),
        cmocka_unit_test(another_proc_is_covered),
        cmocka_unit_test(a_signal_reaches_the_command),
        cmocka_unit_test(all_ends_with_the_supervisor),
        cmocka_unit_test(all_ends_with_the_stage),
        cmocka_unit_test(what_the_command_leaves_behind_ends_with_it),
        cmocka_unit_test(a_shell_is_usable_at_a_terminal),
        cmocka_unit_test(a_maker_gives_sockets_of_the_sandbox),
    };

    if (argc == 4 && !strcmp(argv[1], "inside"))
        return try_all(argv[2], (key_t)atoi(argv[3]));
    return cmocka_run_group_tests(tests, find_modes, NULL);
}
