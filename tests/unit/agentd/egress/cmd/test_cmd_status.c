/* SPDX-License-Identifier: MIT */
/* What `status` makes of the answers of keepers, which are children with canned ones. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "common/cdefs.h"
#include "tests/support/test.h"

enum {
    SAID = 8192,
    SERVICES_MAX = 4,
};

#define BOX(name)                                                                        \
    "{\"name\":\"" name                                                                  \
    "\",\"tier\":\"sealed\",\"mode\":\"enforce\",\"enforced\":true,\"reasons\":[],"      \
    "\"counts\":{\"open\":1,\"connections\":2,\"refused\":3},\"policy\":\"p\"}"
#define ANSWER(boxes, more) "{\"ok\":true,\"sandboxes\":[" boxes "]" more "}\n"

struct scene {
    char dir[40], run[64];
    struct {
        pid_t pid;
        char path[96];
    } service[SERVICES_MAX];
    unsigned n;
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    char part[64];

    (void)snprintf(s->dir, sizeof s->dir, "/tmp/test_statusXXXXXX");
    if (!mkdtemp(s->dir) || chmod(s->dir, 0755) < 0)
        return -1;
    (void)snprintf(part, sizeof part, "%s/agentd", s->dir);
    (void)snprintf(s->run, sizeof s->run, "%s/agentd/egress", s->dir);
    if (mkdir(part, 0755) < 0 || mkdir(s->run, 0755) < 0)
        return -1;
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    char part[64];

    for (unsigned i = 0; i < s->n; i++) {
        kill(s->service[i].pid, SIGKILL);
        waitpid(s->service[i].pid, NULL, 0);
        unlink(s->service[i].path);
    }
    rmdir(s->run);
    (void)snprintf(part, sizeof part, "%s/agentd", s->dir);
    rmdir(part);
    rmdir(s->dir);
    free(s);
    return 0;
}

/* Everybody is answered the same, and "" is no answer. */
_Noreturn static void serve(int fd, const char *answer)
{
    char request[4096];

    while (*answer) {
        int c = accept(fd, NULL, NULL);

        if (read(c, request, sizeof request) > 0)
            (void)!write(c, answer, strlen(answer));
        close(c);
    }
    for (;;)
        pause();
}

static const char *start(struct scene *s, const char *name, const char *answer)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *path = s->service[s->n].path;

    (void)snprintf(path, sizeof s->service[0].path, "%s/%s.sock", s->run, name);
    memcpy(a.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(listen(fd, 4), 0);
    s->service[s->n].pid = fork();
    if (s->service[s->n].pid == 0)
        serve(fd, answer);
    close(fd);
    s->n++;
    return path;
}

/* In a child, as an ordinary user: root's own folder is that of the machine. */
static int status(const struct scene *s, const char *const *words, char ret[SAID])
{
    int said[2], status = 0;
    char *argv[8];
    int argc = 0;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    argv[argc++] = (char[]){"status"};
    while (*words)
        argv[argc++] = (char *)(uintptr_t)*words++;
    argv[argc] = NULL;
    assert_int_equal(pipe(said), 0);
    pid = fork();
    if (pid == 0) {
        if (setenv("XDG_RUNTIME_DIR", s->dir, 1) < 0 || dup2(said[1], 1) < 0 ||
            dup2(said[1], 2) < 0)
            _exit(99);
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
            _exit(99);
        (void)alarm(60);
        _exit(cmd_status(argc, argv));
    }
    close(said[1]);
    while (n < SAID - 1 && (got = read(said[0], ret + n, SAID - 1 - n)) > 0)
        n += (size_t)got;
    ret[n] = '\0';
    close(said[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void says(const char *said, const char *text)
{
    if (!strstr(said, text))
        fail_msg("no %s in: %s", text, said);
}

static const char *const as_json[] = {"--json", NULL}, *const as_text[] = {NULL};

static void lost_audit_records_are_told_of_each_service(void **state)
{
    struct scene *s = *state;
    char said[SAID], row[160];

    start(s, "one", ANSWER(BOX("one"), ",\"audit_lost\":12"));
    start(s, "two", ANSWER(BOX("two"), ",\"audit_lost\":0"));
    start(s, "old", ANSWER(BOX("old"), "")); /* of before it was counted */
    assert_int_equal(status(s, as_json, said), 0);
    says(said, "{\"sandboxes\":[{");
    (void)snprintf(row, sizeof row, "{\"socket\":\"%s\",\"audit_lost\":12}",
                   s->service[0].path);
    says(said, row);
    (void)snprintf(row, sizeof row, "{\"socket\":\"%s\",\"audit_lost\":0}",
                   s->service[1].path);
    says(said, row);
    (void)snprintf(row, sizeof row, "{\"socket\":\"%s\",\"audit_lost\":0}",
                   s->service[2].path);
    says(said, row);

    assert_int_equal(status(s, as_text, said), 0);
    says(said, "one  ");
    says(said, "two  ");
    (void)snprintf(row, sizeof row, "%s: 12 audit records were lost", s->service[0].path);
    says(said, row);
    assert_null(strstr(said, ": 0 audit"));
}

static void one_sandbox_is_asked_of_its_own_keeper(void **state)
{
    struct scene *s = *state;
    const char *words[] = {"--name", "one", NULL};
    char said[SAID];

    start(s, "one", ANSWER(BOX("one"), ",\"audit_lost\":3"));
    start(s, "two", ANSWER(BOX("two"), ",\"audit_lost\":4"));
    assert_int_equal(status(s, words, said), 0);
    says(said, "/one.sock: 3 audit records were lost");
    assert_null(strstr(said, "two"));
    words[0] = "--socket";
    words[1] = s->service[1].path;
    assert_int_equal(status(s, words, said), 0);
    says(said, "/two.sock: 4 audit records were lost");
    assert_null(strstr(said, "one"));
}

static void nobody_there_is_an_empty_list(void **state)
{
    const char *words[] = {"--name", "one", NULL};
    char said[SAID];

    assert_int_equal(status(*state, as_json, said), 0);
    assert_string_equal(said, "{\"sandboxes\":[],\"services\":[]}\n");
    assert_int_equal(status(*state, as_text, said), 0);
    assert_string_equal(said, "");
    assert_int_equal(status(*state, words, said), 1);
    says(said, "no `run` of yours is called \"one\"; the host's service: ");
}

static void what_is_no_status_is_told_and_hides_no_other(void **state)
{
    struct scene *s = *state;
    char said[SAID];

    start(s, "bad", "{\"ok\":true}\n");
    start(s, "one", ANSWER(BOX("one"), ",\"audit_lost\":-1"));
    assert_int_equal(status(s, as_text, said), 1);
    says(said, "/bad.sock gives no status that can be read");
    says(said, "one  ");
    assert_null(strstr(said, "audit"));
}

static void a_socket_of_who_was_killed_is_removed(void **state)
{
    struct scene *s = *state;
    char said[SAID];

    start(s, "dead", "");
    start(s, "one", ANSWER(BOX("one"), ",\"audit_lost\":0"));
    kill(s->service[0].pid, SIGKILL);
    waitpid(s->service[0].pid, NULL, 0);
    /* It is the one's who asks, and he may write there. */
    if (geteuid() == 0) {
        assert_int_equal(chown(s->run, 65534, 65534), 0);
        assert_int_equal(lchown(s->service[0].path, 65534, 65534), 0);
    }
    assert_int_equal(status(s, as_text, said), 0);
    assert_null(strstr(said, "dead"));
    says(said, "one  ");
    assert_int_equal(access(s->service[0].path, F_OK), -1);
    assert_int_equal(access(s->service[1].path, F_OK), 0);
}

static unsigned seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned)t.tv_sec;
}

static void one_that_does_not_answer_is_told_and_hides_no_other(void **state)
{
    struct scene *s = *state;
    const char *words[] = {"--name", "still", NULL};
    char said[SAID], row[160];
    unsigned began = seconds();

    start(s, "still", "");
    start(s, "one", ANSWER(BOX("one"), ",\"audit_lost\":0"));
    assert_int_equal(status(s, as_text, said), 1);
    (void)snprintf(row, sizeof row, "status: %s does not answer\n", s->service[0].path);
    says(said, row);
    says(said, "one  ");
    assert_int_equal(status(s, as_json, said), 1);
    (void)snprintf(row, sizeof row, "{\"socket\":\"%s\",\"error\":\"does not answer\"}",
                   s->service[0].path);
    says(said, row);
    says(said, "\"name\":\"one\"");
    assert_int_equal(status(s, words, said), 1);
    says(said, "still.sock does not answer");
    assert_in_range(seconds() - began, 0, 30); /* and not 35 s each */
}

/* Nor one whose queue is full, which connect() would wait for. */
static void one_that_accepts_nobody_is_told_too(void **state)
{
    struct scene *s = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char said[SAID];
    int fd[16];

    memcpy(a.sun_path, start(s, "full", ""), sizeof s->service[0].path);
    start(s, "one", ANSWER(BOX("one"), ",\"audit_lost\":0"));
    for (unsigned i = 0; i < COUNT_OF(fd); i++) {
        fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fd[i], (struct sockaddr *)&a, sizeof a); /* until none fits */
    }
    assert_int_equal(status(s, as_text, said), 1);
    says(said, "full.sock does not answer");
    says(said, "one  ");
    for (unsigned i = 0; i < COUNT_OF(fd); i++)
        close(fd[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(lost_audit_records_are_told_of_each_service),
        T(one_sandbox_is_asked_of_its_own_keeper),
        T(nobody_there_is_an_empty_list),
        T(what_is_no_status_is_told_and_hides_no_other),
        T(one_that_does_not_answer_is_told_and_hides_no_other),
        T(a_socket_of_who_was_killed_is_removed),
        T(one_that_accepts_nobody_is_told_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
