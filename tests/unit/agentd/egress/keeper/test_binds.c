/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/binds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "tests/support/boxed.h"
#include "tests/support/test.h"

struct place {
    char folder[64], deep[80], socket[100], link[80];
    int fd;
};

static void place_open(struct place *p, const char *name)
{
    (void)snprintf(p->folder, sizeof p->folder, "/var/tmp/egress-binds-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    (void)snprintf(p->deep, sizeof p->deep, "%s/deep", p->folder);
    (void)snprintf(p->link, sizeof p->link, "%s/link", p->folder);
    (void)snprintf(p->socket, sizeof p->socket, "%s/%s", p->deep, name);
    assert_int_equal(mkdir(p->deep, 0755), 0);
    assert_int_equal(symlink(p->socket, p->link), 0);
    p->fd = boxed_listen(p->socket, false);
    assert_true(p->fd >= 0);
}

static void place_close(struct place *p)
{
    (void)close(p->fd);
    (void)unlink(p->socket);
    (void)unlink(p->link);
    (void)rmdir(p->deep);
    (void)rmdir(p->folder);
}

static void expect(const char *path, const char *refusal)
{
    struct err e = {0};
    int r = binds_check(&path, 1, &e);

    if (refusal ? r == 0 || e.code != ERR_CONFIG || !strstr(e.msg, refusal) : r != 0)
        fail_msg("%s: wanted %s, got %s", path, refusal ? refusal : "yes",
                 r < 0 ? e.msg : "yes");
}

static void an_engines_socket_is_not_shown_by_itself_or_by_a_folder(void **state)
{
    static const char *const names[] = {"docker.sock", "system_bus_socket", "private"};
    struct place p;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        place_open(&p, names[i]);
        expect(p.socket, "not in a sandbox");
        expect(p.link, "not in a sandbox");
        expect(p.deep, "not in a sandbox");
        expect(p.folder, "not in a sandbox");
        place_close(&p);
    }
}

static void other_sockets_and_folders_are_shown(void **state)
{
    struct place p;

    (void)state;
    place_open(&p, "mine.sock");
    expect(p.socket, NULL);
    expect(p.folder, NULL);
    place_close(&p);
    expect("/dev/null", NULL);
    expect("/var/tmp/..", NULL);
}

static void what_is_not_there_and_everything_are_refused(void **state)
{
    (void)state;
    expect("/", "all of it");
    expect("/var/tmp/../..", "all of it");
    expect("/nowhere/at/all", "No such file");
    expect("", "No such file");
}

static void none_is_fine(void **state)
{
    (void)state;
    assert_int_equal(binds_check(NULL, 0, NULL), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engines_socket_is_not_shown_by_itself_or_by_a_folder),
        cmocka_unit_test(other_sockets_and_folders_are_shown),
        cmocka_unit_test(what_is_not_there_and_everything_are_refused),
        cmocka_unit_test(none_is_fine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
