/* SPDX-License-Identifier: MIT */
/* A real keeper with a real guard (this program again), real namespaces and nftables. */
#include "agentd/egress/keeper/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/keeper_scene.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

#define WORLD KEEPER_SCENE_WORLD
#define DNS   "\"dns\":{\"upstream\":[\"" WORLD ":53\"]}"
#define OPEN                                                                             \
    "{\"version\":1,\"name\":\"open\",\"allow\":[\"" WORLD                               \
    "/32:8080\",\"db.example:5432\"]," DNS "}"
#define SHUT "{\"version\":1,\"name\":\"shut\",\"allow\":[]," DNS "}"

static int setup(void **state)
{
    struct keeper_scene *s = calloc(1, sizeof *s);

    keeper_scene_open(s, NULL);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    keeper_scene_close(*state);
    free(*state);
    return 0;
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void add(struct keeper_scene *s, struct keeper_box *b, const char *name,
                const char *policy)
{
    if (keeper_box_add(s, b, name, policy) < 0)
        fail_msg("add: %s", s->e.msg);
}

/* -- what a sandbox may -------------------------------------------------------------- */

static void what_is_allowed_answers_and_the_rest_fails_at_once(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;

    keeper_box_open(&b);
    assert_int_not_equal(keeper_box_connect(s, &b, WORLD, 8080), 0); /* no route yet */
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8081), ECONNREFUSED);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 5432), ECONNREFUSED);
    assert_int_equal(keeper_box_connect(s, &b, "198.51.100.1", 8080), ECONNREFUSED);
    assert_int_equal(keeper_box_connect(s, &b, "169.254.169.254", 8080), ECONNREFUSED);
    assert_int_not_equal(keeper_box_send(s, &b, WORLD, 8080), 0);
    keeper_box_close(&b);
}

static void a_name_is_answered_and_its_address_opens_for_its_port_only(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char got[64];

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 5432), ECONNREFUSED);
    assert_int_equal(keeper_box_ask(s, &b, "203.0.113.53", "other.example", got), 1003);
    assert_int_equal(keeper_box_ask(s, &b, "203.0.113.53", "db.example", got), 0);
    assert_string_equal(got, WORLD);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 5432), 0);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 5433), ECONNREFUSED);
    keeper_box_close(&b);
}

static void many_questions_of_one_sandbox_get_their_reply_sockets(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char got[64], addr[64];

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    for (int i = 0; i < 6; i++) {
        (void)snprintf(addr, sizeof addr, i % 2 ? "127.0.0.%d" : "203.0.113.%d", i + 1);
        assert_int_equal(keeper_box_ask(s, &b, addr, "db.example", got), 0);
    }
    keeper_box_close(&b);
}

static void records_tell_the_process(void **state)
{
    struct keeper_scene *s = *state;
    char out[65536], want[64];
    struct keeper_box b;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    (void)snprintf(want, sizeof want, "\"pid\":%ld,\"comm\":\"boxed\"", (long)b.pid);
    assert_int_equal(keeper_box_linger(s, &b, WORLD, 8080), 0);
    for (int i = 0; i < 200 && !strstr(keeper_scene_records(s, out), "\"connection\"");
         i++)
        keeper_scene_run(s, 10, NULL);
    assert_non_null(strstr(out, "\"sandbox.start\""));
    if (!strstr(out, want))
        fail_msg("no %s in %s", want, out);
    keeper_box_close(&b);
}

/* A file that cannot grow is what a full disk is to the keeper. */
static void records_that_are_lost_are_counted_in_the_status(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char out[16384];

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_non_null(strstr(keeper_scene_status(s, NULL, out), "],\"audit_lost\":0}"));
    assert_int_equal(fcntl(s->audit, F_ADD_SEALS, F_SEAL_GROW), 0);
    assert_int_equal(keeper_box_reload(s, "box", SHUT), 0);
    assert_non_null(strstr(keeper_scene_status(s, NULL, out), "],\"audit_lost\":1}"));
    assert_non_null(strstr(keeper_scene_status(s, "box", out), "],\"audit_lost\":1}"));
    /* a connection that the guard refuses: its record, as it tells */
    assert_int_equal(keeper_box_reload(s, "box", OPEN), 0);
    assert_int_not_equal(keeper_box_connect(s, &b, WORLD, 443), 0);
    keeper_scene_until_status(s, "box", "],\"audit_lost\":3}");
    /* the guard's death is lost too, and what it lost stays counted */
    kill(keeper_guard_pid(s->keeper), SIGKILL);
    keeper_scene_until_status(s, "box", "],\"audit_lost\":4}");
    keeper_scene_until_status(s, "box", "\"enforced\":true");
    assert_int_not_equal(keeper_box_connect(s, &b, WORLD, 443), 0);
    keeper_scene_until_status(s, "box", "],\"audit_lost\":5}");
    keeper_box_close(&b);
}

/* -- changes ------------------------------------------------------------------------- */

static void a_reload_takes_and_gives(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
        assert_int_equal(keeper_box_reload(s, "box", SHUT), 0);
        assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), ECONNREFUSED);
        assert_int_equal(keeper_box_reload(s, "box", OPEN), 0);
    }
    assert_int_equal(keeper_box_reload(s, "none", OPEN), -1);
    assert_int_equal(s->e.code, ERR_NOTFOUND);
    keeper_box_close(&b);
}

static void a_removed_sandbox_is_closed_and_may_come_back(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char got[16384];

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_remove(s->keeper, "box", NULL, NULL, NULL), 0);
    for (int i = 0; i < 500 && !strstr(keeper_scene_status(s, "box", got), "error"); i++)
        keeper_scene_run(s, 10, NULL);
    assert_non_null(strstr(got, "no sandbox box"));
    assert_int_not_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    assert_int_equal(keeper_remove(s->keeper, "box", NULL, NULL, NULL), -1);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    keeper_box_close(&b);
}

static void a_sandbox_whose_process_ended_is_forgotten(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char got[16384];

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    keeper_box_close(&b);
    for (int i = 0; i < 500 && !strstr(keeper_scene_status(s, "box", got), "error"); i++)
        keeper_scene_run(s, 10, NULL);
    assert_non_null(strstr(got, "no sandbox box"));
}

/* -- no memory, at every place ------------------------------------------------------- */

static void on_end(void *arg, const struct err *e)
{
    *(int *)arg = e ? -1 : 1;
}

/* 1: it is done; -1: it failed, now or later. */
static int reload_with_fault(struct keeper_scene *s, struct policy *p, unsigned at)
{
    int end = 0;

    mem_fault_at(at);
    if (keeper_reload(s->keeper, "box", p, on_end, &end, NULL) < 0)
        end = -1;
    for (int i = 0; i < 3000 && end == 0; i++)
        keeper_scene_run(s, 5, NULL);
    mem_fault_at(0);
    return end;
}

static void a_reload_without_memory_leaves_the_old_policy(void **state)
{
    struct keeper_scene *s = *state;
    struct policy *p = policy_text(SHUT);
    struct keeper_box b;
    unsigned failed = 0;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    for (unsigned at = 1; at <= 20; at++) {
        int end = reload_with_fault(s, p, at);

        assert_int_not_equal(end, 0);
        if (end < 0) {
            failed++;
            assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
            assert_int_equal(keeper_box_connect(s, &b, WORLD, 8081), ECONNREFUSED);
            continue;
        }
        assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), ECONNREFUSED);
        assert_int_equal(keeper_box_reload(s, "box", OPEN), 0);
    }
    assert_true(failed > 0);
    policy_unref(p);
    keeper_box_close(&b);
}

static void an_addition_without_memory_opens_nothing(void **state)
{
    struct keeper_scene *s = *state;
    struct policy *p = policy_text(OPEN);
    struct keeper_box b;
    unsigned files = 0, failed = 0;
    char got[16384];

    keeper_box_open(&b);
    for (unsigned at = 1; at <= failed + 4; at++) {
        struct netns *ns = netns_open(NULL, b.pid, NULL);
        struct keeper_add a = {.name = "box",
                               .tier = EGRESS_SEALED,
                               .policy = p,
                               .take_ns = &ns,
                               .pid = b.pid};
        int end = 0;

        assert_non_null(ns);
        mem_fault_at(at);
        if (keeper_add(s->keeper, &a, on_end, &end, NULL) < 0)
            end = -1;
        for (int i = 0; i < 3000 && end == 0; i++)
            keeper_scene_run(s, 5, NULL);
        mem_fault_at(0);
        assert_null(ns);
        assert_int_not_equal(end, 0);
        failed += end < 0;
        assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080) == 0, end > 0);
        if (end > 0)
            assert_int_equal(keeper_remove(s->keeper, "box", NULL, NULL, NULL), 0);
        for (int i = 0; i < 500 && !strstr(keeper_scene_status(s, "box", got), "error");
             i++)
            keeper_scene_run(s, 5, NULL);
        if (at <= 2)
            files = descriptors();
        assert_int_equal(descriptors(), files);
    }
    assert_true(failed > 10);
    policy_unref(p);
    keeper_box_close(&b);
}

/* -- what dies, and what others do --------------------------------------------------- */

static void kill_and_wait(struct keeper_scene *s)
{
    pid_t was = keeper_guard_pid(s->keeper);

    assert_true(was > 0);
    assert_int_equal(kill(was, SIGKILL), 0);
    for (int i = 0; i < 1000 && keeper_guard_pid(s->keeper) == was; i++)
        keeper_scene_run(s, 5, NULL);
    keeper_scene_until_status(s, "box", "\"enforced\":true");
    assert_int_not_equal(keeper_guard_pid(s->keeper), was);
}

static void a_killed_guard_comes_back_with_everything_and_nothing_leaks(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    unsigned files;
    size_t live;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080),
                     0); /* sock_diag's is opened */
    kill_and_wait(s);
    files = descriptors();
    live = mem_live();
    for (int i = 0; i < 30; i++) {
        kill_and_wait(s);
        if (i % 10 == 0)
            assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
        assert_int_equal(keeper_box_connect(s, &b, WORLD, 8081), ECONNREFUSED);
    }
    assert_int_equal(descriptors(), files);
    assert_true(mem_live() <= live + 8);
    keeper_box_close(&b);
}

static void without_a_guard_nothing_answers(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(kill(keeper_guard_pid(s->keeper), SIGSTOP), 0);
    assert_int_not_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    assert_int_equal(kill(keeper_guard_pid(s->keeper), SIGCONT), 0);
    keeper_scene_until_status(s, "box", "\"enforced\":true");
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    keeper_box_close(&b);
}

static void another_programs_flush_is_undone_and_recorded(void **state)
{
    static const char *const flush[] = {"nft", "flush", "ruleset", NULL};
    static const char *const rule[] = {"nft",           "add",     "chain", "inet",
                                       "agentd_egress", "foreign", NULL};
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char out[65536];

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_scene_program(b.pid, flush), 0);
    keeper_scene_until_status(s, "box", "\"restored\":1");
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8081), ECONNREFUSED);
    assert_int_equal(keeper_scene_program(b.pid, rule), 0);
    keeper_scene_until_status(s, "box", "\"restored\":2");
    assert_non_null(strstr(keeper_scene_records(s, out), "\"rules.restored\""));
    keeper_scene_until_status(s, "box", "\"enforced\":true");
    keeper_box_close(&b);
}

static void pins_come_back_after_a_flush(void **state)
{
    static const char *const flush[] = {"nft", "flush", "ruleset", NULL};
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char got[64];
    int rc = -1;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_ask(s, &b, "203.0.113.53", "db.example", got), 0);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 5432), 0);
    assert_int_equal(keeper_scene_program(b.pid, flush), 0);
    keeper_scene_until_status(s, "box", "\"restored\":1");
    for (int i = 0; i < 100 && rc != 0; i++)
        rc = keeper_box_connect(s, &b, WORLD, 5432);
    assert_int_equal(rc, 0);
    keeper_box_close(&b);
}

static void an_address_that_the_host_gets_is_floor_from_then_on(void **state)
{
    static const char *const more[] = {"ip",  "addr",  "add", "203.0.113.9/32",
                                       "dev", "cable", NULL};
    struct keeper_scene *s = *state;
    struct keeper_box b;
    char out[65536];

    keeper_box_open(&b);
    add(s, &b, "box", "{\"version\":1,\"allow\":[\"203.0.113.0/24:8080\"]," DNS "}");
    assert_int_equal(keeper_scene_program(0, more), 0);
    for (int i = 0; i < 50 && !strstr(keeper_scene_records(s, out), "\"floor\""); i++) {
        assert_int_not_equal(keeper_box_connect(s, &b, "203.0.113.9", 8080), 0);
        keeper_scene_run(s, 20, NULL);
    }
    assert_non_null(strstr(out, "\"floor\""));
    keeper_box_close(&b);
}

static void an_interface_that_appears_is_said(void **state)
{
    static const char *const dummy[] = {"ip",   "link", "add",  "wlan0", "type",
                                        "veth", "peer", "name", "wlan1", NULL};
    struct keeper_scene *s = *state;
    struct keeper_box b;

    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_scene_program(b.pid, dummy), 0);
    keeper_scene_until_status(s, "box", "\"enforced\":false");
    keeper_box_close(&b);
}

/* -- what is refused ----------------------------------------------------------------- */

static void bad_additions_are_refused_and_nothing_changes(void **state)
{
    static const char *const veth[] = {"ip",   "link", "add",  "eth0", "type",
                                       "veth", "peer", "name", "eth1", NULL};
    static const char *const names[] = {"", "A", "a--b", "-a", "../a", "a b"};
    struct keeper_scene *s = *state;
    struct keeper_box b, other;

    keeper_box_open(&b);
    keeper_box_open(&other);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(keeper_box_add(s, &b, names[i], OPEN), -1);
        assert_int_equal(s->e.code, ERR_CONFIG);
    }
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_add(s, &other, "box", SHUT), -1);
    assert_int_equal(s->e.code, ERR_LIMIT);
    assert_int_equal(keeper_scene_program(other.pid, veth), 0);
    assert_int_equal(keeper_box_add(s, &other, "other", OPEN), -1);
    assert_int_equal(s->e.code, ERR_DENIED);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    keeper_box_close(&b);
    keeper_box_close(&other);
}

static void our_own_namespace_is_never_sealed(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box self = {.pid = getpid(), .fd = -1};

    assert_int_equal(keeper_box_add(s, &self, "self", OPEN), -1);
    assert_int_equal(s->e.code, ERR_DENIED);
    assert_int_equal(
        keeper_scene_program(0, (const char *const[]){"nft", "list", "table", "inet",
                                                      "agentd_egress", NULL}),
        1);
}

static void a_sandbox_that_is_gone_is_an_error(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b;
    struct policy *p = policy_text(OPEN);
    struct netns *ns;
    struct keeper_add a = {.name = "gone", .tier = EGRESS_SEALED, .policy = p};
    unsigned files;

    keeper_box_open(&b);
    ns = netns_open(NULL, b.pid, NULL);
    assert_non_null(ns);
    a.pid = b.pid;
    a.take_ns = &ns;
    keeper_box_close(&b);
    files = descriptors();
    assert_int_equal(keeper_add(s->keeper, &a, NULL, NULL, &s->e), -1);
    assert_null(ns);
    assert_true(descriptors() < files); /* the namespace's, and nothing new */
    policy_unref(p);
}

/* -- over a restart ------------------------------------------------------------------ */

static void sandboxes_are_adopted_by_the_next_keeper(void **state)
{
    char dir[] = "/tmp/test_keeperXXXXXX", path[64], got[16384];
    struct keeper_scene *s = *state;
    struct keeper_box b;

    assert_non_null(mkdtemp(dir));
    keeper_scene_restart(s, dir);
    keeper_box_open(&b);
    add(s, &b, "box", OPEN);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    keeper_free(s->keeper);
    s->keeper = NULL;
    assert_int_not_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    keeper_scene_restart(s, dir);
    keeper_scene_until_status(s, "box", "\"enforced\":true");
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8080), 0);
    assert_int_equal(keeper_box_connect(s, &b, WORLD, 8081), ECONNREFUSED);
    keeper_free(s->keeper);
    s->keeper = NULL;
    keeper_box_close(&b);
    keeper_scene_restart(s, dir); /* it is gone: forgotten, its file too */
    assert_non_null(strstr(keeper_scene_status(s, "box", got), "no sandbox"));
    (void)snprintf(path, sizeof path, "%s/box.json", dir);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rmdir(dir), 0);
}

static void many_sandboxes_come_and_go(void **state)
{
    struct keeper_scene *s = *state;
    struct keeper_box b[12];
    char name[16], got[16384];

    for (int i = 0; i < 12; i++) {
        keeper_box_open(&b[i]);
        (void)snprintf(name, sizeof name, "box-%d", i);
        add(s, &b[i], name, i % 2 ? OPEN : SHUT);
    }
    for (int i = 0; i < 12; i++)
        assert_int_equal(keeper_box_connect(s, &b[i], WORLD, 8080),
                         i % 2 ? 0 : ECONNREFUSED);
    for (int i = 0; i < 12; i++)
        keeper_box_close(&b[i]);
    for (int i = 0;
         i < 500 && !strstr(keeper_scene_status(s, NULL, got), "{\"sandboxes\":[],"); i++)
        keeper_scene_run(s, 10, NULL);
    assert_string_equal(got, "{\"sandboxes\":[],\"audit_lost\":0}");
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_allowed_answers_and_the_rest_fails_at_once),
        T(a_name_is_answered_and_its_address_opens_for_its_port_only),
        T(many_questions_of_one_sandbox_get_their_reply_sockets),
        T(records_tell_the_process),
        T(records_that_are_lost_are_counted_in_the_status),
        T(a_reload_takes_and_gives),
        T(a_reload_without_memory_leaves_the_old_policy),
        T(an_addition_without_memory_opens_nothing),
        T(a_removed_sandbox_is_closed_and_may_come_back),
        T(a_sandbox_whose_process_ended_is_forgotten),
        T(a_killed_guard_comes_back_with_everything_and_nothing_leaks),
        T(without_a_guard_nothing_answers),
        T(another_programs_flush_is_undone_and_recorded),
        T(pins_come_back_after_a_flush),
        T(an_address_that_the_host_gets_is_floor_from_then_on),
        T(an_interface_that_appears_is_said),
        T(bad_additions_are_refused_and_nothing_changes),
        T(our_own_namespace_is_never_sealed),
        T(a_sandbox_that_is_gone_is_an_error),
        T(sandboxes_are_adopted_by_the_next_keeper),
        T(many_sandboxes_come_and_go),
    };
    int code;

    if (keeper_scene_main(argc, argv, &code))
        return code;
    return code ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
