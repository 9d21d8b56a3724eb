/* SPDX-License-Identifier: MIT */
/* Sockets in a folder: of the living, of the dead, and of those who begin at the moment. */
#include "agentd/localpath.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "common/sock.h"
#include "tests/support/test.h"

struct scene {
    char dir[40], path[64];
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof *s);

    (void)snprintf(s->dir, sizeof s->dir, "/tmp/test_localpathXXXXXX");
    *state = s;
    return mkdtemp(s->dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    assert_int_equal(rmdir(s->dir), 0);
    free(s);
    return 0;
}

static const char *at(struct scene *s, const char *name)
{
    (void)snprintf(s->path, sizeof s->path, "%s/%s", s->dir, name);
    return s->path;
}

static bool is_there(struct scene *s, const char *name)
{
    return access(at(s, name), F_OK) == 0;
}

/* Bound, and listening if that is wanted; -1 as its descriptor when it is left behind. */
static int put(struct scene *s, const char *name, int type, bool listens, bool lives)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, at(s, name), sizeof s->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    if (listens)
        assert_int_equal(listen(fd, 1), 0);
    if (!lives)
        sock_close(&fd);
    return fd;
}

static void only_sockets_of_the_dead_are_removed(void **state)
{
    static const char *const stay[] = {"lives.sock", "bound.sock", "dgram.sock",
                                       "file.sock",  "link.sock",  "dead.other",
                                       ".sock"};
    struct scene *s = *state;
    char to[64];
    int fd[3];

    (void)put(s, "dead.sock", SOCK_STREAM, true, false);
    (void)put(s, "dead.other", SOCK_STREAM, true, false);
    (void)put(s, ".sock", SOCK_STREAM, true, false);
    fd[0] = put(s, "lives.sock", SOCK_STREAM, true, true);
    fd[1] = put(s, "bound.sock", SOCK_STREAM, false, true); /* it will listen soon */
    fd[2] = put(s, "dgram.sock", SOCK_DGRAM, false, true);
    (void)close(open(at(s, "file.sock"), O_CREAT | O_RDWR, 0600));
    (void)snprintf(to, sizeof to, "%s", at(s, "dead.other"));
    assert_int_equal(symlink(to, at(s, "link.sock")), 0);

    localpath_sweep(s->dir, 100);
    assert_false(is_there(s, "dead.sock"));
    for (size_t i = 0; i < COUNT_OF(stay); i++)
        if (!is_there(s, stay[i]))
            fail_msg("%s was removed", stay[i]);
    /* The living one was not asked anything. */
    assert_int_equal(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(accept(fd[0], NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
    for (size_t i = 0; i < COUNT_OF(fd); i++)
        close(fd[i]);
    for (size_t i = 0; i < COUNT_OF(stay); i++)
        unlink(at(s, stay[i]));
}

static void no_more_is_looked_at_than_was_asked(void **state)
{
    struct scene *s = *state;
    unsigned left = 0;
    char name[16];

    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof name, "%u.sock", i);
        (void)put(s, name, SOCK_STREAM, true, false);
    }
    localpath_sweep(s->dir, 10);
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof name, "%u.sock", i);
        left += is_there(s, name);
    }
    assert_in_range(left, 10, 12); /* "." and ".." are entries too */
    localpath_sweep(s->dir, 100);
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof name, "%u.sock", i);
        assert_false(is_there(s, name));
    }
}

static void nothing_is_removed_where_others_may_write_or_while_one_begins(void **state)
{
    struct scene *s = *state;
    int lock;

    (void)put(s, "dead.sock", SOCK_STREAM, true, false);
    assert_int_equal(chmod(s->dir, 0777), 0);
    localpath_sweep(s->dir, 100);
    assert_true(is_there(s, "dead.sock"));
    assert_int_equal(chmod(s->dir, 0700), 0);
    lock = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    localpath_sweep(s->dir, 100);
    assert_true(is_there(s, "dead.sock"));
    close(lock);
    localpath_sweep(s->dir, 100);
    assert_false(is_there(s, "dead.sock"));
    localpath_sweep("/nothing/there", 100);
}

/* Others sweep and begin without end; what listens here is always found. */
_Noreturn static void disturb(const char *dir, const char *path)
{
    struct localpath p;
    int fd;

    (void)alarm(60);
    for (;;) {
        localpath_sweep(dir, 100);
        fd = localpath_listen(path, &p, NULL);
        sock_close(&fd); /* as one who is killed: the name stays */
    }
}

static void who_begins_is_never_swept_away(void **state)
{
    struct scene *s = *state;
    struct localpath p;
    char path[64];
    pid_t pid[3];
    bool is_absent;
    struct err e;

    (void)snprintf(path, sizeof path, "%s", at(s, "x.sock"));
    for (unsigned i = 0; i < COUNT_OF(pid); i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            disturb(s->dir, path);
    }
    for (unsigned i = 0, n = 0; n < 300 && i < 100000; i++) {
        int fd = localpath_listen(path, &p, NULL), to;

        if (fd < 0)
            continue; /* another has it at the moment */
        n++;
        for (unsigned k = 0; k < 20; k++)
            localpath_sweep(s->dir, 100);
        to = localpath_connect(path, 5000, &is_absent, &e);
        if (to < 0)
            fail_msg("it listens, and: %s", e.msg);
        sock_close(&to);
        sock_close(&fd);
    }
    for (unsigned i = 0; i < COUNT_OF(pid); i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
    unlink(path);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(only_sockets_of_the_dead_are_removed),
        T(no_more_is_looked_at_than_was_asked),
        T(nothing_is_removed_where_others_may_write_or_while_one_begins),
        T(who_begins_is_never_swept_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
