/* SPDX-License-Identifier: MIT */

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/keeper/userns.h"
#include "common/cdefs.h"
#include "tests/support/boxed.h"
#include "tests/support/test.h"

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
    static struct boxed_result r;

    if (getuid() != 0) {
        print_message("changing /etc needs root\n");
        skip();
    }
    EACH_MODE(m, state)
    {
        boxed_run(
            &(struct boxed){.mode = m,
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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolv_conf_and_nsswitch_conf_may_be_links_or_absent),
    };

    return cmocka_run_group_tests(tests, boxed_find_modes, NULL);
}
