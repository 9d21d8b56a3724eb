/* SPDX-License-Identifier: MIT */
/* The server runs on a loop; its clients are sockets of the same thread, or a child where
 * they are another user's. */
#include "agentd/line_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cdefs.h"
#include "common/sock.h"
#include "tests/support/test.h"

#define STRANGER 54321 /* a uid that nobody here has */
enum {
    CLIENTS = 3,
    LINE = 64,
    TURN_MS = 5,
    LONG_MS = 20000, /* nothing here takes so long */
    SHORT_MS = 300,
    LARGE = 8388608, /* an answer that no socket's buffer holds */
};

struct scene {
    struct loop *loop;
    struct line_server *server;
    struct loop_timer timer;
    char dir[32], path[64];
    /* the owner */
    unsigned requests;
    uint64_t ticket;
    char line[LINE + 1]; /* of the last request */
    unsigned unanswered; /* for want of memory */
    bool waits;          /* answers nothing by itself */
    bool lets_nobody_in;
    const char *answer; /* NULL: the line itself */
};

/* -- the owner ----------------------------------------------------------------------- */

static void on_request(void *owner, uint64_t ticket, struct span line)
{
    struct scene *s = owner;

    assert_true(line.len <= LINE);
    s->requests++;
    s->ticket = ticket;
    memcpy(s->line, line.p, line.len);
    s->line[line.len] = '\0';
    if (s->waits)
        return;
    if (line_server_answer(s->server, ticket, span_str(s->answer ? s->answer : s->line)) <
        0)
        s->unanswered++;
    assert_int_equal(line_server_answer(s->server, ticket, span_str("used twice")), 0);
}

static int on_refused(void *owner, enum line_server_why why, struct buf *out)
{
    static const char *const words[] = {
        [LINE_SERVER_CUT] = "cut",          [LINE_SERVER_LONG] = "long",
        [LINE_SERVER_NO_MEMORY] = "memory", [LINE_SERVER_OTHER_USER] = "other",
        [LINE_SERVER_TOO_MANY] = "many",
    };

    assert_non_null(owner);
    return buf_adds(out, words[why]);
}

static int say_nothing(void *owner, enum line_server_why why, struct buf *out)
{
    (void)owner;
    (void)why;
    (void)out;
    return 0;
}

static bool may_ask(void *owner, int fd)
{
    struct scene *s = owner;

    assert_true(fd >= 0);
    return !s->lets_nobody_in;
}

#define KIND(ms, single, refuse_fn)                                                      \
    {                                                                                    \
        .clients_max = CLIENTS, .line_max = LINE, .client_ms = (ms),                     \
        .is_single = (single), .request = on_request, .refuse = (refuse_fn),             \
        .is_allowed = may_ask                                                            \
    }
static const struct line_server_kind many = KIND(LONG_MS, false, on_refused);
static const struct line_server_kind single = KIND(LONG_MS, true, on_refused);
static const struct line_server_kind hasty = KIND(SHORT_MS, false, on_refused);
static const struct line_server_kind mute = KIND(LONG_MS, false, say_nothing);

/* -- the scene ----------------------------------------------------------------------- */

static void on_timer(void *arg)
{
    struct scene *s = arg;

    loop_stop(s->loop);
}

static void turn(struct scene *s)
{
    loop_timer_start(&s->timer, TURN_MS);
    loop_run(s->loop);
}

static void start(struct scene *s, const struct line_server_kind *kind)
{
    struct err e;

    s->server = line_server_new(s->loop, s->path, kind, s, &e);
    if (!s->server)
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    struct scene *s = mem_zalloc(1, sizeof *s);

    assert_non_null(s);
    memcpy(s->dir, "/tmp/test_line_server.XXXXXX", 29);
    assert_non_null(mkdtemp(s->dir));
    (void)snprintf(s->path, sizeof s->path, "%s/sock", s->dir);
    s->loop = loop_new(NULL);
    assert_non_null(s->loop);
    loop_timer_init(&s->timer, s->loop, on_timer, s);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    line_server_free(s->server);
    assert_int_equal(access(s->path, F_OK), -1);
    loop_free(s->loop);
    assert_int_equal(rmdir(s->dir), 0);
    mem_free(s);
    assert_int_equal(mem_live(), 0);
    return 0;
}

/* -- clients ------------------------------------------------------------------------- */

static int dial(const struct scene *s)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(a.sun_path, s->path, strlen(s->path) + 1);
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int ask(const struct scene *s, const char *text)
{
    int fd = dial(s);

    say(fd, text);
    return fd;
}

static void wait_requests(struct scene *s, unsigned n)
{
    for (unsigned i = 0; s->requests < n && i < LONG_MS / TURN_MS; i++)
        turn(s);
    assert_int_equal(s->requests, n);
}

/* Nothing comes of what was said. */
static void quiet(struct scene *s)
{
    unsigned before = s->requests;

    for (unsigned i = 0; i < 4; i++)
        turn(s);
    assert_int_equal(s->requests, before);
}

/* What comes, until it ends; how much that was. */
static size_t drain(struct scene *s, int fd, char *ret, size_t cap)
{
    static char more[65536];
    size_t n = 0;
    ssize_t got;

    for (unsigned i = 0; i < LONG_MS / TURN_MS; i++) {
        while ((got = recv(fd, more, sizeof more, 0)) > 0) {
            if (n < cap)
                memcpy(ret + n, more, n + (size_t)got < cap ? (size_t)got : cap - n);
            n += (size_t)got;
        }
        if (got == 0 || errno != EAGAIN)
            return n;
        turn(s);
    }
    fail_msg("%s", "it does not end");
    return 0;
}

/* All that comes until the end is `text`. */
static void hears(struct scene *s, int fd, const char *text)
{
    char got[256] = {0};

    (void)drain(s, fd, got, sizeof got - 1);
    assert_string_equal(got, text);
    sock_close(&fd);
}

/* `text` comes, and the connection stays. */
static void is_told(struct scene *s, int fd, const char *text)
{
    char got[256] = {0};
    size_t n = 0;

    for (unsigned i = 0; n < strlen(text) && i < LONG_MS / TURN_MS; i++) {
        ssize_t r = recv(fd, got + n, sizeof got - 1 - n, 0);

        if (r < 0)
            turn(s);
        else if (r == 0)
            break;
        n += r > 0 ? (size_t)r : 0;
    }
    assert_string_equal(got, text);
    turn(s);
    assert_int_equal(recv(fd, got, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

/* -- tests --------------------------------------------------------------------------- */

static void a_line_becomes_a_request_and_its_answer_a_line(void **state)
{
    static const char line[] = "{\"op\":\"ports\"}";
    struct scene *s = *state;
    int fd;

    start(s, &many);
    for (size_t cut = 0; cut <= sizeof line; cut++) {
        fd = dial(s);
        assert_int_equal(send(fd, line, cut < sizeof line ? cut : cut - 1, 0),
                         cut < sizeof line ? cut : cut - 1);
        turn(s);
        say(fd, line + (cut < sizeof line ? cut : cut - 1));
        say(fd, "\n");
        is_told(s, fd, "{\"op\":\"ports\"}\n");
        sock_close(&fd);
    }
    assert_int_equal(s->requests, sizeof line + 1);
    fd = dial(s);
    for (const char *p = "ab\n"; *p; p++) {
        assert_int_equal(send(fd, p, 1, 0), 1);
        turn(s);
    }
    is_told(s, fd, "ab\n");
    sock_close(&fd);
}

static void lines_sent_ahead_are_requests_in_turn(void **state)
{
    struct scene *s = *state;
    int fd;

    start(s, &many);
    s->waits = true;
    fd = ask(s, "one\ntwo\n\nfour\nfi");
    for (unsigned i = 0; i < 4; i++) {
        static const char *const lines[] = {"one", "two", "", "four"};
        char told[16];

        wait_requests(s, i + 1);
        assert_string_equal(s->line, lines[i]);
        quiet(s); /* not before this one is answered */
        (void)snprintf(told, sizeof told, "answer %u", i);
        assert_int_equal(line_server_answer(s->server, s->ticket, span_str(told)), 0);
        (void)snprintf(told, sizeof told, "answer %u\n", i);
        is_told(s, fd, told);
    }
    s->waits = false;
    say(fd, "ve\n");
    is_told(s, fd, "five\n");
    sock_close(&fd);
    fd = ask(s, "1\n2\n3\n");
    is_told(s, fd, "1\n2\n3\n");
    sock_close(&fd);
}

static void one_request_is_all_where_the_kind_says_so(void **state)
{
    struct scene *s = *state;
    int fd;

    start(s, &single);
    hears(s, ask(s, "one\ntwo\n"), "one\n");
    assert_int_equal(s->requests, 1);
    s->waits = true;
    fd = ask(s, "one\ntwo\n");
    wait_requests(s, 2);
    quiet(s);
    (void)line_server_answer(s->server, s->ticket, span_str("late"));
    hears(s, fd, "late\n");
    assert_int_equal(s->requests, 2);
}

static void no_answer_ends_the_connection(void **state)
{
    struct scene *s = *state;

    start(s, &many);
    s->answer = "";
    hears(s, ask(s, "one\ntwo\n"), "");
    assert_int_equal(s->requests, 1);
}

static void the_longest_line_passes_and_one_byte_more_does_not(void **state)
{
    struct scene *s = *state;
    char line[LINE + 4], told[LINE + 2];

    start(s, &many);
    for (size_t cut = 0; cut <= LINE; cut += LINE / 4) {
        int fd = dial(s);

        memset(line, 'x', sizeof line);
        memcpy(line + LINE, "\n", 2); /* and its NUL */
        assert_int_equal(send(fd, line, cut, 0), cut);
        turn(s);
        say(fd, line + cut);
        memcpy(told, line, sizeof told);
        is_told(s, fd, told);
        sock_close(&fd);
        s->requests = 0;
        fd = dial(s);
        memcpy(line + LINE, "x\n", 3);
        assert_int_equal(send(fd, line, cut, 0), cut);
        turn(s);
        say(fd, line + cut);
        hears(s, fd, "long\n");
        assert_int_equal(s->requests, 0);
    }
}

static void a_flood_without_a_line_is_cut_off(void **state)
{
    static char flood[65536];
    struct scene *s = *state;
    int fd;

    start(s, &mute);
    memset(flood, 'x', sizeof flood);
    fd = dial(s);
    assert_true(send(fd, flood, sizeof flood, MSG_NOSIGNAL) > LINE);
    hears(s, fd, "");
    assert_int_equal(s->requests, 0);
}

static void a_line_without_its_end_is_no_request(void **state)
{
    static const char *const begun[] = {"", "{\"op\":\"por"};
    struct scene *s = *state;

    start(s, &many);
    for (size_t i = 0; i < COUNT_OF(begun); i++) {
        int fd = ask(s, begun[i]);

        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        hears(s, fd, "cut\n");
    }
    assert_int_equal(s->requests, 0);
}

static void a_slow_client_is_cut_off(void **state)
{
    struct scene *s = *state;
    int fd;

    start(s, &hasty);
    hears(s, ask(s, "half a li"), "");
    assert_int_equal(s->requests, 0);
    /* An owner that does not answer in time is not waited for either. */
    s->waits = true;
    fd = ask(s, "one\n");
    wait_requests(s, 1);
    hears(s, fd, "");
    assert_int_equal(line_server_answer(s->server, s->ticket, span_str("late")), 0);
}

static void who_does_not_read_its_answer_is_cut_off(void **state)
{
    static char some[65536];
    struct scene *s = *state;
    char *large = mem_alloc(LARGE);
    int fd, next;
    size_t n;

    memset(large, 'x', LARGE);
    large[LARGE - 1] = '\0';
    start(s, &hasty);
    s->answer = large;
    fd = ask(s, "one\ntwo\n");
    wait_requests(s, 1);
    s->answer = NULL;
    for (unsigned i = 0; i < 2 * SHORT_MS / TURN_MS; i++) {
        if (i < 16)
            (void)!recv(fd, some, sizeof some, 0);
        turn(s);
    }
    assert_int_equal(s->requests, 1); /* the next line waits until all of it has left */
    next = ask(s, "two\n");
    is_told(s, next, "two\n");
    sock_close(&next);
    n = drain(s, fd, NULL, 0);
    assert_true(n > 0 && n < LARGE);
    sock_close(&fd);
    mem_free(large);
}

static void a_large_answer_arrives_whole(void **state)
{
    struct scene *s = *state;
    char *large = mem_alloc(LARGE);
    int fd;

    memset(large, 'x', LARGE);
    large[LARGE - 1] = '\0';
    start(s, &single);
    s->answer = large;
    fd = ask(s, "one\n");
    assert_int_equal(drain(s, fd, NULL, 0), LARGE); /* a newline for its NUL */
    sock_close(&fd);
    mem_free(large);
}

static void an_answer_for_a_client_that_is_gone_goes_nowhere(void **state)
{
    struct scene *s = *state;

    start(s, &single);
    s->waits = true;
    for (unsigned i = 0; i < 2 * CLIENTS; i++) {
        int fd = ask(s, "one\n");

        wait_requests(s, i + 1);
        sock_close(&fd);
        assert_int_equal(line_server_answer(s->server, s->ticket, span_str("x")), 0);
        assert_int_equal(line_server_answer(s->server, s->ticket, span_str("x")), 0);
        assert_int_equal(line_server_answer(s->server, 0, span_str("x")), 0);
        turn(s); /* and its place is free */
    }
    s->waits = false;
    hears(s, ask(s, "two\n"), "two\n");
}

static void too_many_clients_are_told_so(void **state)
{
    struct scene *s = *state;
    int fd[CLIENTS], next;

    start(s, &many);
    for (size_t i = 0; i < CLIENTS; i++) {
        fd[i] = ask(s, "x\n");
        is_told(s, fd[i], "x\n");
    }
    hears(s, dial(s), "many\n");
    is_told(s, fd[0], ""); /* those who are there stay */
    say(fd[0], "y\n");
    is_told(s, fd[0], "y\n");
    for (size_t i = 0; i < CLIENTS; i++)
        sock_close(&fd[i]);
    for (unsigned i = 0; i < 4; i++)
        turn(s);
    next = ask(s, "z\n");
    is_told(s, next, "z\n");
    sock_close(&next);
}

static void without_descriptors_clients_wait(void **state)
{
    struct scene *s = *state;
    struct rlimit was, none;
    int fd;

    start(s, &many);
    fd = ask(s, "one\n");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){(rlim_t)fd + 1, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    quiet(s);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    is_told(s, fd, "one\n");
    sock_close(&fd);
}

static void whom_the_owner_does_not_let_in_is_not_read(void **state)
{
    struct scene *s = *state;

    start(s, &many);
    s->lets_nobody_in = true;
    hears(s, dial(s), "other\n");
    assert_int_equal(s->requests, 0);
}

/* In a child, as another user, files being open to him. */
static int stranger(const struct scene *s)
{
    char got[16] = {0};
    int fd;

    if (setresuid(STRANGER, STRANGER, STRANGER) < 0)
        return 2;
    fd = dial(s);
    if (fcntl(fd, F_SETFL, 0) < 0)
        return 3;
    (void)!send(fd, "one\n", 4, MSG_NOSIGNAL); /* it may be closed already */
    for (size_t n = 0; n < sizeof got - 1;) {
        ssize_t r = recv(fd, got + n, sizeof got - 1 - n, 0);

        if (r <= 0)
            break;
        n += (size_t)r;
    }
    return strcmp(got, "other\n") == 0 ? 0 : 1;
}

static void another_user_is_turned_away(void **state)
{
    struct scene *s = *state;
    int status = 0;
    pid_t pid, ended = 0;

    if (geteuid() != 0) {
        print_message("left out: only root can be another user\n");
        skip();
    }
    start(s, &many);
    assert_int_equal(chmod(s->dir, 0755), 0);
    assert_int_equal(chmod(s->path, 0666), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)alarm(LONG_MS / 1000);
        _exit(stranger(s));
    }
    while (ended == 0) {
        turn(s);
        ended = waitpid(pid, &status, WNOHANG);
    }
    assert_int_equal(ended, pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(s->requests, 0);
}

static void freeing_ends_all_clients(void **state)
{
    struct scene *s = *state;
    int fd[CLIENTS];

    start(s, &many);
    s->waits = true;
    fd[0] = dial(s);
    fd[1] = ask(s, "half");
    fd[2] = ask(s, "one\n");
    wait_requests(s, 1);
    line_server_free(s->server);
    s->server = NULL;
    for (size_t i = 0; i < CLIENTS; i++)
        hears(s, fd[i], "");
}

static int make_and_free(struct scene *s)
{
    struct line_server *l = line_server_new(s->loop, s->path, &many, s, NULL);

    turn(s); /* what the loop frees later */
    line_server_free(l);
    turn(s);
    return l ? 0 : -1;
}

static void without_memory_there_is_no_server_and_no_socket(void **state)
{
    struct scene *s = *state;

    FAIL_EACH_ALLOC(make_and_free(s));
    assert_int_equal(access(s->path, F_OK), -1);
}

/* Whichever allocation fails, the client is served, told, or cut off, and the next served. */
static void without_memory_a_client_is_told_or_cut_off(void **state)
{
    struct scene *s = *state;
    unsigned failures = 0;

    start(s, &single);
    for (unsigned i = 1; i < 12; i++) {
        char got[64] = {0};
        int fd = ask(s, "one\n");

        mem_fault_at(i);
        (void)drain(s, fd, got, sizeof got - 1);
        mem_fault_at(0);
        sock_close(&fd);
        if (strcmp(got, "one\n") != 0)
            failures++;
        assert_true(strcmp(got, "one\n") == 0 || strcmp(got, "memory\n") == 0 || !got[0]);
        hears(s, ask(s, "two\n"), "two\n");
    }
    assert_true(failures >= 4); /* the client, its watcher, what it says, its answer */
    assert_true(s->unanswered > 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(a_line_becomes_a_request_and_its_answer_a_line),
        T(lines_sent_ahead_are_requests_in_turn),
        T(one_request_is_all_where_the_kind_says_so),
        T(no_answer_ends_the_connection),
        T(the_longest_line_passes_and_one_byte_more_does_not),
        T(a_flood_without_a_line_is_cut_off),
        T(a_line_without_its_end_is_no_request),
        T(a_slow_client_is_cut_off),
        T(who_does_not_read_its_answer_is_cut_off),
        T(a_large_answer_arrives_whole),
        T(an_answer_for_a_client_that_is_gone_goes_nowhere),
        T(too_many_clients_are_told_so),
        T(without_descriptors_clients_wait),
        T(whom_the_owner_does_not_let_in_is_not_read),
        T(another_user_is_turned_away),
        T(freeing_ends_all_clients),
        T(without_memory_there_is_no_server_and_no_socket),
        T(without_memory_a_client_is_told_or_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
