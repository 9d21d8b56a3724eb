/* SPDX-License-Identifier: MIT */
/* pid 1: exit codes, a terminal; and what COMMAND tries in vain, which this program does
 * itself as COMMAND. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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
#include <sys/syscall.h>
#include <unistd.h>
#include <utmp.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "tests/support/boxed.h"
#include "tests/support/test.h"

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
    static struct boxed_result r;
    size_t i;

    EACH_MODE(m, state)
    {
        for (i = 0; i < COUNT_OF(rows); i++) {
            boxed_run(&(struct boxed){.mode = m, .script = rows[i].script}, &r);
            assert_int_equal(r.code, rows[i].code);
        }
        boxed_run(&(struct boxed){.mode = m, .command = missing}, &r);
        assert_int_equal(r.code, 127);
        assert_non_null(strstr(r.out, "/no/such/command"));
        boxed_run(&(struct boxed){.mode = m, .command = no_program}, &r);
        assert_int_equal(r.code, 126);
    }
}

/* -- this program as COMMAND: each try prints its errno when it differs -------------- */

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
    ok &= tried("abstract socket of outside", boxed_connect(name, true), ECONNREFUSED);
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
    static struct boxed_result r;
    int queue, sock;

    if (!realpath(self, path))
        fail();
    (void)snprintf(name, sizeof name, "egress-test-%ld", (long)getpid());
    (void)snprintf(key, sizeof key, "%d", 0x54470000 + getpid());
    EACH_MODE(m, state)
    {
        queue = msgget((key_t)atoi(key), IPC_CREAT | 0666);
        sock = boxed_listen(name, true);
        assert_true(queue >= 0 && sock >= 0);
        assert_int_equal(boxed_connect(name, true), 0); /* it is there, outside */
        boxed_run(
            &(struct boxed){.mode = m, .command = command, .bind = {path}, .n_bind = 1},
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

/* -- a terminal ---------------------------------------------------------------------- */

static void type(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Wait until the shell has the terminal's foreground, or another group has it. */
static bool until_foreground(int fd, pid_t shell, bool is_shell)
{
    for (int i = 0; i < BOXED_WAIT_MS / 10; i++) {
        pid_t now = tcgetpgrp(fd);

        if (now > 0 && (now == shell) == is_shell)
            return true;
        (void)poll(NULL, 0, 10);
    }
    return false;
}

static void a_shell_is_usable_at_a_terminal(void **state)
{
    char *const shell[] = {(char[]){"/bin/sh"}, (char[]){"-i"}, NULL};
    static struct boxed_result r;
    pid_t pid, sh;
    int fd, slave;

    EACH_MODE(m, state)
    {
        /* Not forkpty(): its fork() is the C library's own (see OPT.tsan). */
        assert_int_equal(openpty(&fd, &slave, NULL, NULL, NULL), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(fd);
            if (login_tty(slave) < 0)
                _exit(BOXED_CANNOT);
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            /* A job in the background (make check &) begins with both ignored, and what a
             * shell finds ignored it leaves so to what it starts. */
            (void)signal(SIGINT, SIG_DFL);
            (void)signal(SIGQUIT, SIG_DFL);
            (void)setenv("PS1", "> ", 1);
            boxed_supervise(&(struct boxed){.mode = m, .command = shell});
        }
        (void)close(slave);
        type(fd, "echo st''arted\n");
        assert_true(boxed_read_until(fd, "started", r.out));
        assert_null(strstr(r.out, "job control"));
        sh = tcgetpgrp(fd);
        assert_true(sh > 0);
        type(fd, "sleep 1000 || echo inter''rupted\n");
        assert_true(boxed_read_until(fd, "sleep 1000", r.out));
        assert_true(until_foreground(fd, sh, false)); /* or it would ask the shell */
        type(fd, "\003");
        type(fd, "echo al''ive\n");
        assert_true(boxed_read_until(fd, "alive", r.out));
        /* Stopped by the terminal, and continued. */
        assert_true(until_foreground(fd, sh, true));
        type(fd, "sh -c 'echo to st''op; kill -TSTP $$; echo con''tinued'\n");
        assert_true(boxed_read_until(fd, "to stop", r.out));
        assert_true(until_foreground(fd, sh, true));
        type(fd, "fg\n");
        assert_true(boxed_read_until(fd, "continued", r.out));
        type(fd, "exit 9\n");
        (void)boxed_read_until(fd, NULL, r.out);
        (void)close(fd);
        assert_int_equal(boxed_code(pid), 9);
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exit_code_is_the_commands),
        cmocka_unit_test(nothing_of_outside_can_be_reached),
        cmocka_unit_test(a_shell_is_usable_at_a_terminal),
    };

    if (argc == 4 && !strcmp(argv[1], "inside"))
        return try_all(argv[2], (key_t)atoi(argv[3]));
    return cmocka_run_group_tests(tests, boxed_find_modes, NULL);
}
