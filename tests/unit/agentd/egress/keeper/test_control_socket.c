/* SPDX-License-Identifier: MIT */
/* The keeper's socket, with clients that are children and may block. */
#include "agentd/egress/keeper/control_socket.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/keeper/control_request.h"
#include "common/json.h"
#include "tests/support/keeper_scene.h"
#include "tests/support/test.h"

#define POLICY                                                                           \
    "{\"version\":1,\"name\":\"p\",\n\"allow\":[\"" KEEPER_SCENE_WORLD "/32:8080\"]}"

struct scene {
    struct keeper_scene k;
    struct control_socket *control;
    char dir[32], path[64];
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    struct err e;

    keeper_scene_open(&s->k, NULL);
    (void)snprintf(s->dir, sizeof s->dir, "/tmp/test_controlXXXXXX");
    if (!mkdtemp(s->dir))
        return -1;
    (void)snprintf(s->path, sizeof s->path, "%s/c.sock", s->dir);
    s->control = control_socket_new(s->k.keeper, s->k.loop, s->path, &e);
    if (!s->control) {
        fprintf(stderr, "control: %s\n", e.msg);
        return -1;
    }
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    control_socket_free(s->control);
    assert_int_equal(access(s->path, F_OK), -1);
    keeper_scene_close(&s->k);
    rmdir(s->dir);
    free(s);
    return 0;
}

/* -- clients ------------------------------------------------------------------------- */

struct client {
    pid_t pid;
    int out;
};
typedef void client_fn(const struct scene *s, const void *arg);

/* What it prints to descriptor 1 is what the test sees. */
static struct client start(const struct scene *s, client_fn *fn, const void *arg)
{
    struct client c;
    int pair[2];

    assert_int_equal(pipe(pair), 0);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        dup2(pair[1], 1);
        signal(SIGPIPE, SIG_IGN);
        alarm(30);
        fn(s, arg);
        fflush(stdout);
        _exit(0);
    }
    close(pair[1]);
    c.out = pair[0];
    return c;
}

static void finish(struct scene *s, struct client *c, char out[4096])
{
    size_t n = 0;
    ssize_t got = 1;

    while (got > 0 && n < 4095) {
        struct pollfd p = {.fd = c->out, .events = POLLIN};

        while (poll(&p, 1, 0) == 0)
            keeper_scene_run(&s->k, 5, NULL);
        got = read(c->out, out + n, 4095 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    out[n] = '\0';
    close(c->out);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static const char *run(struct scene *s, client_fn *fn, const void *arg, char out[4096])
{
    struct client c = start(s, fn, arg);

    finish(s, &c, out);
    return out;
}

static void call(const struct scene *s, const void *arg)
{
    struct buf answer = BUF_INIT;
    struct err e = {0};

    if (control_call(s->path, span_str(arg), &answer, &e) == 0)
        printf("%.*s", SPAN_FMT(buf_span(&answer)));
    else
        printf("error %d: %s", (int)e.code, e.msg);
}

static int dial(const struct scene *s)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memcpy(a.sun_path, s->path, strlen(s->path) + 1);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        printf("connect: %s", strerror(errno));
        fflush(stdout);
        _exit(0);
    }
    return fd;
}

static void read_answer(int fd)
{
    char got[4096];
    ssize_t n;

    while ((n = read(fd, got, sizeof got)) > 0)
        printf("%.*s", (int)n, got);
}

/* -- tests --------------------------------------------------------------------------- */

static void an_empty_keeper_has_no_sandboxes(void **state)
{
    struct scene *s = *state;
    char out[4096];

    assert_string_equal(run(s, call, "{\"op\":\"status\"}", out),
                        "{\"ok\":true,\"sandboxes\":[],\"audit_lost\":0}\n");
    assert_non_null(
        strstr(run(s, call, "{\"op\":\"status\",\"name\":\"x\"}", out), "error 6"));
    assert_non_null(
        strstr(run(s, call, "{\"op\":\"detach\",\"name\":\"x\"}", out), "no sandbox x"));
    assert_non_null(strstr(
        run(s, call, "{\"op\":\"reload\",\"name\":\"x\",\"policy\":" POLICY "}", out),
        "no sandbox x"));
}

static void a_sandbox_is_attached_reloaded_and_detached(void **state)
{
    struct scene *s = *state;
    char out[4096], request[512];
    struct keeper_box b;

    keeper_box_open(&b);
    (void)snprintf(request, sizeof request,
                   "{\"op\":\"attach\",\"name\":\"box\",\"tier\":\"sealed\",\"pid\":%ld,"
                   "\"policy\":" POLICY "}",
                   (long)b.pid);
    assert_string_equal(run(s, call, request, out), "{\"ok\":true,\"name\":\"box\"}\n");
    assert_int_equal(keeper_box_connect(&s->k, &b, KEEPER_SCENE_WORLD, 8080), 0);
    assert_non_null(strstr(run(s, call, request, out), "already"));
    assert_non_null(strstr(run(s, call, "{\"op\":\"status\",\"name\":\"box\"}", out),
                           "{\"ok\":true,\"sandboxes\":[{\"name\":\"box\""));
    assert_string_equal(
        run(s, call, "{\"op\":\"reload\",\"name\":\"box\",\"policy\":{\"version\":1}}",
            out),
        "{\"ok\":true,\"name\":\"box\"}\n");
    assert_int_not_equal(keeper_box_connect(&s->k, &b, KEEPER_SCENE_WORLD, 8080), 0);
    assert_non_null(strstr(
        run(s, call, "{\"op\":\"reload\",\"name\":\"box\",\"policy\":{\"version\":2}}",
            out),
        "error 7: policy: version"));
    assert_string_equal(run(s, call, "{\"op\":\"detach\",\"name\":\"box\"}", out),
                        "{\"ok\":true,\"name\":\"box\"}\n");
    keeper_box_close(&b);
}

static void a_process_that_is_not_there_is_an_error(void **state)
{
    struct scene *s = *state;
    char out[4096];

    (void)run(
        s, call,
        "{\"op\":\"attach\",\"name\":\"box\",\"tier\":\"sealed\",\"pid\":2147483646,"
        "\"policy\":" POLICY "}",
        out);
    assert_non_null(strstr(out, "error 1: the sandbox's namespace"));
    (void)run(s, call,
              "{\"op\":\"attach\",\"name\":\"box\",\"tier\":\"sealed\",\"netns\":"
              "\"/etc/passwd\",\"policy\":" POLICY "}",
              out);
    assert_non_null(strstr(out, "error 1: the sandbox's namespace"));
    assert_string_equal(run(s, call, "{\"op\":\"status\"}", out),
                        "{\"ok\":true,\"sandboxes\":[],\"audit_lost\":0}\n");
}

static void half_a_line(const struct scene *s, const void *arg)
{
    int fd = dial(s);

    (void)arg;
    (void)!write(fd, "{\"op\":\"sta", 10);
    shutdown(fd, SHUT_WR);
    read_answer(fd);
}

static void long_line(const struct scene *s, const void *arg)
{
    static char text[65536];
    int fd = dial(s);

    (void)arg;
    memset(text, ' ', sizeof text);
    for (size_t n = 0; n < 10485760; n += sizeof text)
        if (send(fd, text, sizeof text, MSG_NOSIGNAL) < 0)
            break;
    read_answer(fd);
}

static void one_byte_at_a_time(const struct scene *s, const void *arg)
{
    static const char line[] = "{\"op\":\"status\"}\n";
    int fd = dial(s);

    (void)arg;
    for (size_t i = 0; i < sizeof line - 1; i++) {
        (void)!write(fd, line + i, 1);
        (void)poll(NULL, 0, 1);
    }
    read_answer(fd);
}

static void what_is_no_request_is_answered_so(void **state)
{
    struct scene *s = *state;
    char out[4096];

    assert_non_null(strstr(run(s, half_a_line, NULL, out), "one whole line"));
    assert_non_null(strstr(out, "\"code\":\"config\""));
    assert_non_null(strstr(run(s, long_line, NULL, out), "more than"));
    assert_string_equal(run(s, one_byte_at_a_time, NULL, out),
                        "{\"ok\":true,\"sandboxes\":[],\"audit_lost\":0}\n");
    assert_non_null(strstr(run(s, call, "{\"op\":\"format\"}", out), "error 7"));
    assert_non_null(strstr(run(s, call, "{\"op\":\"status\",\"x\":1}", out), "error 7"));
}

static void another_user(const struct scene *s, const void *arg)
{
    int fd;

    (void)arg;
    if (setgid(65534) < 0 || setuid(65534) < 0) {
        printf("cannot");
        return;
    }
    fd = dial(s);
    (void)!write(fd, "{\"op\":\"status\"}\n", 16);
    read_answer(fd);
}

static void other_users_are_refused(void **state)
{
    struct scene *s = *state;
    char out[4096];
    struct stat st;

    assert_int_equal(stat(s->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)run(s, another_user, NULL, out);
    if (strcmp(out, "cannot") == 0) {
        print_message("skipped: this user cannot become another\n");
        skip();
    }
    assert_string_equal(out, "connect: Permission denied");
    /* Even where the file system would let him. */
    assert_int_equal(chmod(s->dir, 0755), 0);
    assert_int_equal(chmod(s->path, 0666), 0);
    assert_non_null(strstr(run(s, another_user, NULL, out), "\"code\":\"refused\""));
}

static void silent(const struct scene *s, const void *arg)
{
    int fd[CONTROL_CLIENTS_MAX];

    (void)arg;
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        fd[i] = dial(s);
    printf("x");
    fflush(stdout);
    read_answer(fd[0]);
}

static void too_many_clients_are_told_so(void **state)
{
    struct scene *s = *state;
    struct client c = start(s, silent, NULL);
    char out[4096];

    for (int i = 0; i < 200; i++)
        keeper_scene_run(&s->k, 5, NULL);
    assert_non_null(strstr(run(s, call, "{\"op\":\"status\"}", out), "too many clients"));
    kill(c.pid, SIGKILL);
    finish(s, &c, out);
    for (int i = 0; i < 20; i++)
        keeper_scene_run(&s->k, 5, NULL);
    assert_string_equal(run(s, call, "{\"op\":\"status\"}", out),
                        "{\"ok\":true,\"sandboxes\":[],\"audit_lost\":0}\n");
}

static void a_client_that_goes_leaves_its_sandbox(void **state)
{
    struct scene *s = *state;
    char request[512], out[4096];
    struct keeper_box b;
    struct client c;

    keeper_box_open(&b);
    (void)snprintf(request, sizeof request,
                   "{\"op\":\"attach\",\"name\":\"box\",\"tier\":\"sealed\",\"pid\":%ld,"
                   "\"policy\":" POLICY "}",
                   (long)b.pid);
    assert_int_equal(kill(keeper_guard_pid(s->k.keeper), SIGSTOP), 0);
    c = start(s, call, request);
    for (int i = 0; i < 40; i++)
        keeper_scene_run(&s->k, 5, NULL);
    kill(c.pid, SIGKILL);
    assert_int_equal(kill(keeper_guard_pid(s->k.keeper), SIGCONT), 0);
    finish(s, &c, out);
    keeper_scene_until_status(&s->k, "box", "\"enforced\":true");
    keeper_box_close(&b);
}

static void one_socket_is_one_keepers(void **state)
{
    struct scene *s = *state;
    struct err e;

    assert_null(control_socket_new(s->k.keeper, s->k.loop, s->path, &e));
    assert_int_equal(access(s->path, F_OK), 0);
}

static void says(const char *path, int sys, const char *text)
{
    struct buf answer = BUF_INIT;
    struct err e = {0};

    assert_int_equal(control_call(path, span_str("{\"op\":\"status\"}"), &answer, &e),
                     -1);
    assert_true(control_is_absent(&e));
    assert_int_equal(e.sys, sys);
    assert_string_equal(e.msg, text);
    buf_done(&answer);
}

static void nobody_there_is_told_apart(void **state)
{
    char dir[] = "/tmp/test_controlXXXXXX", path[64], text[256];
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct err e = {.code = ERR_SYS, .sys = EACCES};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    says("/nowhere/nobody.sock", ENOENT,
         "there is no socket /nowhere/nobody.sock (start `agentd egress serve --socket "
         "...`): No such file or directory");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/left.sock", dir);
    (void)snprintf(text, sizeof text,
                   "nobody listens at %s (start `agentd egress serve --socket ...`): "
                   "Connection refused",
                   path);
    memcpy(a.sun_path, path, sizeof path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    says(path, ECONNREFUSED, text);
    unlink(path);
    rmdir(dir);
    assert_false(control_is_absent(&e));
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(an_empty_keeper_has_no_sandboxes),
        T(a_sandbox_is_attached_reloaded_and_detached),
        T(a_process_that_is_not_there_is_an_error),
        T(what_is_no_request_is_answered_so),
        T(other_users_are_refused),
        T(too_many_clients_are_told_so),
        T(a_client_that_goes_leaves_its_sandbox),
        T(one_socket_is_one_keepers),
        cmocka_unit_test(nobody_there_is_told_apart),
    };
    int code;

    if (keeper_scene_main(argc, argv, &code))
        return code;
    return code ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
