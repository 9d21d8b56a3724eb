/* SPDX-License-Identifier: MIT */
/* The agent's side runs on a loop in this thread; the asking side, which blocks, in another
 * thread or, as another user, in another process. */
#include "agentd/localsock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "common/sock.h"
#include "tests/support/test.h"

#define WAIT_MS  10000
#define STRANGER 54321 /* a uid that nobody here has */

struct fixture {
    struct loop *loop;
    struct localsock *s;
    struct loop_timer deadline;
    char dir[64], path[LOCALSOCK_PATH_MAX];
    /* the agent */
    unsigned requests;
    struct localsock_request last;
    bool is_late;
    uint64_t kept; /* a ticket that is answered later */
    bool keeps;
    /* the one who asks */
    pthread_t thread;
    pid_t child;
    const char *send; /* raw bytes; NULL: localsock_ask() */
    size_t send_len;
    struct localsock_request ask;
    int result;
    struct err e;
    struct buf answer;
};

static void on_request(void *owner, uint64_t ticket, const struct localsock_request *r)
{
    struct fixture *f = owner;
    char text[64];

    f->requests++;
    f->last = *r;
    if (f->keeps) {
        f->kept = ticket;
        loop_stop(f->loop);
        return;
    }
    (void)snprintf(text, sizeof text, "{\"ok\":true,\"n\":%u}", f->requests);
    localsock_answer(f->s, ticket, span_str(text));
    localsock_answer(f->s, ticket, span_str("used twice")); /* must go nowhere */
}

static const struct localsock_ops ops = {on_request};

static void on_deadline(void *arg)
{
    struct fixture *f = arg;

    f->is_late = true;
    loop_stop(f->loop);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof *f);
    struct err e = {0};

    assert_non_null(f);
    memcpy(f->dir, "/tmp/test_localsock.XXXXXX", 27);
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/run/agentd.sock", f->dir);
    f->loop = loop_new(NULL);
    assert_non_null(f->loop);
    loop_timer_init(&f->deadline, f->loop, on_deadline, f);
    f->s = localsock_new(f->loop, f->path, &ops, f, &e);
    if (!f->s)
        fail_msg("%s", e.msg);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char run[80];
    struct stat st;

    localsock_free(f->s);
    assert_int_equal(lstat(f->path, &st), -1);
    loop_timer_stop(&f->deadline);
    loop_free(f->loop);
    (void)snprintf(run, sizeof run, "%s/run", f->dir);
    (void)rmdir(run);
    assert_int_equal(rmdir(f->dir), 0);
    buf_done(&f->answer);
    mem_free(f);
    return 0;
}

static void finished(void *arg)
{
    struct fixture *f = arg;

    loop_stop(f->loop);
}

/* Sends f->send and reads until the other side closes. */
static int raw(struct fixture *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t at = 0;
    ssize_t n;

    memcpy(a.sun_path, f->path, strlen(f->path) + 1);
    if (connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a) < 0)
        return -1;
    while (at < f->send_len) {
        n = send(fd, f->send + at, f->send_len - at, MSG_NOSIGNAL);
        if (n < 0)
            break;
        at += (size_t)n;
    }
    (void)shutdown(fd, SHUT_WR);
    for (;;) {
        if (buf_reserve(&f->answer, 4096, 65536) < 0)
            break;
        n = recv(fd, f->answer.p + f->answer.len, 4096, 0);
        if (n <= 0)
            break;
        f->answer.len += (size_t)n;
    }
    (void)close(fd);
    return 0;
}

static void *asker(void *arg)
{
    struct fixture *f = arg;

    f->result = f->send ? raw(f) : localsock_ask(f->path, &f->ask, &f->answer, &f->e);
    assert_int_equal(loop_post(f->loop, finished, f), 0);
    return NULL;
}

static void run(struct fixture *f)
{
    f->answer.len = 0;
    assert_int_equal(pthread_create(&f->thread, NULL, asker, f), 0);
    loop_timer_start(&f->deadline, WAIT_MS);
    loop_run(f->loop);
    loop_timer_stop(&f->deadline);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    assert_false(f->is_late);
}

static void is_answer(struct fixture *f, const char *text)
{
    assert_int_equal(f->answer.len, strlen(text));
    assert_memory_equal(f->answer.p, text, strlen(text));
}

static void a_request_reaches_the_agent_and_its_answer_comes_back(void **state)
{
    struct fixture *f = *state;

    f->ask.op = LOCALSOCK_HTTP;
    f->ask.port = 3000;
    f->ask.is_public = true;
    memcpy(f->ask.name, "shop", 5);
    memcpy(f->ask.server, "https://\"d\"", 12);
    memcpy(f->ask.sandbox, "demo", 5);
    run(f);
    assert_int_equal(f->result, 0);
    is_answer(f, "{\"ok\":true,\"n\":1}");
    assert_memory_equal(&f->last, &f->ask, sizeof f->ask);
    f->ask = (struct localsock_request){.op = LOCALSOCK_PORTS};
    run(f);
    is_answer(f, "{\"ok\":true,\"n\":2}");
    assert_int_equal(f->last.op, LOCALSOCK_PORTS);
}

static void several_requests_on_one_connection_are_answered_in_turn(void **state)
{
    struct fixture *f = *state;

    f->send = "{\"op\":\"ports\"}\n{\"op\":\"ports\"}\nnonsense\n{\"op\":\"ports\"}\n";
    f->send_len = strlen(f->send);
    run(f);
    assert_int_equal(f->requests, 3);
    if (buf_add(&f->answer, "", 1) < 0)
        fail();
    assert_ptr_equal(strstr((char *)f->answer.p, "{\"ok\":true,\"n\":1}\n{\"ok\":true,"
                                                 "\"n\":2}\n{\"ok\":false,\"code\":"
                                                 "\"bad-request\""),
                     f->answer.p);
    assert_non_null(strstr((char *)f->answer.p, "}\n{\"ok\":true,\"n\":3}\n"));
}

static void a_line_without_end_is_cut_off(void **state)
{
    static char flood[256 * 1024];
    struct fixture *f = *state;

    memset(flood, ' ', sizeof flood);
    f->send = flood;
    f->send_len = sizeof flood;
    run(f);
    assert_int_equal(f->requests, 0);
    assert_int_equal(f->answer.len, 0);
}

static void bad_requests_are_named(void **state)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"", "line"},
        {"[]", "object"},
        {"{}", "op"},
        {"{\"op\":1}", "op"},
        {"{\"op\":\"stop\"}", "no op"},
        {"{\"op\":\"http\"}", "port"},
        {"{\"op\":\"http\",\"port\":0}", "port"},
        {"{\"op\":\"http\",\"port\":65536}", "port"},
        {"{\"op\":\"http\",\"port\":\"80\"}", "port"},
        {"{\"op\":\"http\",\"port\":80,\"public\":1}", "public"},
        {"{\"op\":\"http\",\"port\":80,\"name\":1}", "name"},
        {"{\"op\":\"http\",\"port\":80,\"name\":\"www\"}", "name"},
        {"{\"op\":\"http\",\"port\":80,\"sandbox\":\"a--b\"}", "sandbox"},
        {"{\"op\":\"http\",\"port\":80,\"sandbox\":"
         "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
         "longer"},
        {"{\"op\":\"http\",\"port\":80,\"prot\":1}", "prot"},
        {"{\"op\":\"ports\",\"op\":\"ports\"}", "line"},
    };
    struct localsock_request r;
    struct err e;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(bad); i++) {
        memset(&e, 0, sizeof e);
        if (localsock_parse(span_str(bad[i].line), &r, &e) == 0)
            fail_msg("accepted: %s", bad[i].line);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: %s", bad[i].line, e.msg);
    }
}

static void files_are_closed_to_others(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char run_dir[80];

    assert_int_equal(lstat(f->path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)snprintf(run_dir, sizeof run_dir, "%s/run", f->dir);
    assert_int_equal(lstat(run_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void a_second_agent_leaves_the_first_its_place(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;
    struct err e;

    assert_int_equal(lstat(f->path, &before), 0);
    assert_null(localsock_new(f->loop, f->path, &ops, f, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(lstat(f->path, &after), 0);
    assert_true(before.st_ino == after.st_ino);
}

static void a_socket_left_by_a_killed_agent_is_taken_over(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd;

    localsock_free(f->s);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path, f->path, strlen(f->path) + 1);
    assert_int_equal(bind(fd, (const struct sockaddr *)(const void *)&a, sizeof a), 0);
    (void)close(fd); /* the name stays, as after kill -9 */
    f->ask.op = LOCALSOCK_PORTS;
    assert_int_equal(localsock_ask(f->path, &f->ask, &f->answer, NULL), 1);
    f->s = localsock_new(f->loop, f->path, &ops, f, NULL);
    assert_non_null(f->s);
    run(f);
    assert_int_equal(f->result, 0);
}

static void without_an_agent_there_is_nobody_to_ask(void **state)
{
    struct buf b = BUF_INIT;
    struct localsock_request r = {.op = LOCALSOCK_PORTS};

    (void)state;
    assert_int_equal(localsock_ask("/nonexistent/agentd.sock", &r, &b, NULL), 1);
    buf_done(&b);
}

static void a_directory_that_others_can_write_is_not_trusted(void **state)
{
    struct fixture *f = *state;
    char run_dir[80];
    struct err e;

    (void)snprintf(run_dir, sizeof run_dir, "%s/run", f->dir);
    assert_int_equal(chmod(run_dir, 0777), 0);
    f->ask.op = LOCALSOCK_PORTS;
    assert_int_equal(localsock_ask(f->path, &f->ask, &f->answer, &e), -1);
    assert_int_equal(e.code, ERR_DENIED);
    assert_null(localsock_new(f->loop, f->path, &ops, f, &e));
    assert_int_equal(e.code, ERR_DENIED);
    assert_int_equal(chmod(run_dir, 0700), 0);
}

static void a_link_in_place_of_the_directory_is_not_followed(void **state)
{
    struct fixture *f = *state;
    char link[80], run_dir[80], path[120];
    struct err e;

    (void)snprintf(link, sizeof link, "%s/link", f->dir);
    (void)snprintf(run_dir, sizeof run_dir, "%s/run", f->dir);
    (void)snprintf(path, sizeof path, "%s/agentd.sock", link);
    assert_int_equal(symlink(run_dir, link), 0);
    f->ask.op = LOCALSOCK_PORTS;
    assert_int_equal(localsock_ask(path, &f->ask, &f->answer, &e), -1);
    assert_int_equal(e.code, ERR_DENIED);
    (void)unlink(link);
}

static void *child_waiter(void *arg)
{
    struct fixture *f = arg;

    if (waitpid(f->child, &f->result, 0) != f->child)
        f->result = -1;
    assert_int_equal(loop_post(f->loop, finished, f), 0);
    return NULL;
}

/* Another user connects, files being open to him; nothing is heard of him. */
static void another_user_is_turned_away(void **state)
{
    struct fixture *f = *state;
    char run_dir[80];
    int status = 0;
    pid_t pid;

    if (geteuid() != 0)
        skip();
    (void)snprintf(run_dir, sizeof run_dir, "%s/run", f->dir);
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(run_dir, 0755), 0);
    assert_int_equal(chmod(f->path, 0666), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (setresuid(STRANGER, STRANGER, STRANGER) < 0)
            _exit(2);
        f->send = "{\"op\":\"ports\"}\n";
        f->send_len = strlen(f->send);
        _exit(raw(f) == 0 && f->answer.len == 0 ? 0 : 1);
    }
    f->child = pid;
    assert_int_equal(pthread_create(&f->thread, NULL, child_waiter, f), 0);
    loop_timer_start(&f->deadline, WAIT_MS);
    loop_run(f->loop);
    loop_timer_stop(&f->deadline);
    if (f->is_late)
        (void)kill(pid, SIGKILL);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    status = f->result;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(f->requests, 0);
}

/* Another user serves where we would ask: what he says is not believed. */
static void an_agent_of_another_user_is_not_asked(void **state)
{
    struct fixture *f = *state;
    struct localsock_request r = {.op = LOCALSOCK_PORTS};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int ready[2], status, fd;
    struct err e = {0};
    pid_t pid;
    char c;

    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(f->dir, 0777), 0);
    assert_int_equal(pipe(ready), 0);
    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s/other.sock", f->dir);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (setresuid(STRANGER, STRANGER, STRANGER) < 0 ||
            bind(fd, (const struct sockaddr *)(const void *)&a, sizeof a) < 0 ||
            listen(fd, 1) < 0)
            _exit(1);
        (void)!write(ready[1], "x", 1);
        (void)pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(chmod(f->dir, 0700), 0); /* the directory is in order */
    assert_int_equal(localsock_ask(a.sun_path, &r, &f->answer, &e), -1);
    assert_int_equal(e.code, ERR_DENIED);
    assert_int_equal(f->answer.len, 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)unlink(a.sun_path);
    (void)close(ready[0]);
    (void)close(ready[1]);
}

static void an_answer_for_a_client_that_is_gone_goes_nowhere(void **state)
{
    static const char line[] = "{\"op\":\"ports\"}\n";
    struct fixture *f = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    f->keeps = true;
    memcpy(a.sun_path, f->path, strlen(f->path) + 1);
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a), 0);
    assert_int_equal(send(fd, line, sizeof line - 1, 0), sizeof line - 1);
    (void)close(fd);
    loop_timer_start(&f->deadline, WAIT_MS);
    loop_run(f->loop); /* until the request is there */
    assert_int_equal(f->requests, 1);
    localsock_answer(f->s, f->kept, span_str("{}"));
    localsock_answer(f->s, f->kept, span_str("{}"));
    localsock_refuse(f->s, 0, "timeout", "nobody");
    /* the place is free again, and the agent well */
    f->keeps = false;
    f->ask.op = LOCALSOCK_PORTS;
    run(f);
    assert_int_equal(f->result, 0);
}

static void the_path_follows_the_runtime_directory(void **state)
{
    char path[LOCALSOCK_PATH_MAX], dir[200];

    (void)state;
    assert_int_equal(localsock_path("/run/user/7", 7, path, NULL), 0);
    assert_string_equal(path, "/run/user/7/agentd.sock");
    assert_int_equal(localsock_path(NULL, 0, path, NULL), 0);
    assert_string_equal(path, "/run/agentd/agentd.sock");
    assert_int_equal(localsock_path("", 7, path, NULL), 0);
    assert_string_equal(path, "/tmp/agentd-7/agentd.sock");
    assert_int_equal(localsock_path("relative", 7, path, NULL), 0);
    assert_string_equal(path, "/tmp/agentd-7/agentd.sock");
    memset(dir, 'x', sizeof dir);
    dir[0] = '/';
    dir[sizeof dir - 1] = '\0';
    assert_int_equal(localsock_path(dir, 7, path, NULL), -1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(a_request_reaches_the_agent_and_its_answer_comes_back),
        T(several_requests_on_one_connection_are_answered_in_turn),
        T(a_line_without_end_is_cut_off),
        cmocka_unit_test(bad_requests_are_named),
        T(files_are_closed_to_others),
        T(a_second_agent_leaves_the_first_its_place),
        T(a_socket_left_by_a_killed_agent_is_taken_over),
        cmocka_unit_test(without_an_agent_there_is_nobody_to_ask),
        T(a_directory_that_others_can_write_is_not_trusted),
        T(a_link_in_place_of_the_directory_is_not_followed),
        T(another_user_is_turned_away),
        T(an_agent_of_another_user_is_not_asked),
        T(an_answer_for_a_client_that_is_gone_goes_nowhere),
        cmocka_unit_test(the_path_follows_the_runtime_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
