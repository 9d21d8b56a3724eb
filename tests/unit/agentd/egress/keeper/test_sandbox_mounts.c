/* SPDX-License-Identifier: MIT */
/* What is seen from inside. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "tests/support/boxed.h"
#include "tests/support/test.h"

/* -- what a script sees -------------------------------------------------------------- */

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
    static struct boxed_result r;
    const char *want;
    size_t i;

    EACH_MODE(m, state)
    {
        for (i = 0; i < COUNT_OF(looks); i++) {
            boxed_run(&(struct boxed){.mode = m, .script = looks[i].script}, &r);
            want = m == BOXED_USER && looks[i].user ? looks[i].user : looks[i].out;
            if (strcmp(r.out, want) != 0)
                print_message("%s (%s)\n", looks[i].what,
                              m == BOXED_ROOT ? "root" : "user");
            assert_string_equal(r.out, want);
        }
    }
}

/* -- folders ------------------------------------------------------------------------- */

static void in_a_folder_of_tmp(void)
{
    (void)mkdir("/tmp/egress-test", 0755);
    (void)close(open("/tmp/egress-test/seen", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    if (chdir("/tmp/egress-test") < 0)
        _exit(1);
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink("/tmp/egress-test/seen"); /* another user's run may have left it */
    (void)rmdir("/tmp/egress-test");
    return 0;
}

static void a_covered_working_folder_is_told(void **state)
{
    static struct boxed_result r;

    EACH_MODE(m, state)
    {
        boxed_run(
            &(struct boxed){.mode = m, .script = "pwd", .before = in_a_folder_of_tmp},
            &r);
        assert_non_null(strstr(r.out, "/tmp/egress-test"));
        assert_non_null(strstr(r.out, "--bind"));
        assert_non_null(strstr(r.out, "\n/\n"));
    }
}

static void with_a_narrow_mask(void)
{
    in_a_folder_of_tmp();
    (void)umask(077);
}

static void the_callers_mask_is_for_the_command(void **state)
{
    static struct boxed_result r;

    EACH_MODE(m, state)
    {
        boxed_run(&(struct boxed){.mode = m,
                                  .script = "umask; grep -c nameserver /etc/resolv.conf; "
                                            "cd /tmp/egress-test && ls",
                                  .bind = {"/tmp/egress-test/seen"},
                                  .n_bind = 1,
                                  .before = with_a_narrow_mask},
                  &r);
        assert_string_equal(r.out, "0077\n1\nseen\n");
    }
}

static void bind_shows_what_is_covered(void **state)
{
    static struct boxed_result r;

    EACH_MODE(m, state)
    {
        boxed_run(&(struct boxed){.mode = m,
                                  .script =
                                      "pwd; ls; ls /tmp; cat /dev/kmsg >&- 2>&- || :; "
                                      "test -e /dev/kmsg && echo kmsg",
                                  .bind = {".", "/dev/kmsg"},
                                  .n_bind = access("/dev/kmsg", F_OK) == 0 ? 2 : 1,
                                  .before = in_a_folder_of_tmp},
                  &r);
        assert_non_null(strstr(r.out, "/tmp/egress-test\nseen\negress-test\n"));
        boxed_run(
            &(struct boxed){
                .mode = m, .script = "", .bind = {"/no/such/path"}, .n_bind = 1},
            &r);
        assert_int_equal(r.code, 2);
        assert_non_null(strstr(r.out, "/no/such/path"));
        boxed_run(
            &(struct boxed){.mode = m, .script = "", .bind = {"/proc/1"}, .n_bind = 1},
            &r);
        assert_int_equal(r.code, 2);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sandbox_looks_so_from_inside),
        cmocka_unit_test(a_covered_working_folder_is_told),
        cmocka_unit_test(the_callers_mask_is_for_the_command),
        cmocka_unit_test(bind_shows_what_is_covered),
    };

    return cmocka_run_group_tests(tests, boxed_find_modes, remove_folder);
}
