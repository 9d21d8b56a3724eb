/* SPDX-License-Identifier: MIT */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <unistd.h>

#include "common/json.h"
#include "common/limits.h"
#include "tests/support/test.h"

/* What was written to stderr while a test ran: stderr is a file then. */
struct catch
{
    int saved, file;
    char text[1 << 20];
};

static int start_catch(void **state)
{
    struct catch *c = calloc(1, sizeof(*c));
    char path[] = "/tmp/test_log.XXXXXX";

    assert_non_null(c);
    (void)fflush(stderr);
    c->saved = dup(STDERR_FILENO);
    c->file = mkostemp(path, O_APPEND);
    assert_true(c->file >= 0 && unlink(path) == 0);
    assert_true(dup2(c->file, STDERR_FILENO) >= 0);
    *state = c;
    return 0;
}

static int stop_catch(void **state)
{
    struct catch *c = *state;

    log_flush();
    (void)dup2(c->saved, STDERR_FILENO);
    (void)close(c->saved);
    (void)close(c->file);
    free(c);
    log_setup(false, LOG_INFO);
    return 0;
}

/* Everything since the last call. */
static const char *caught(struct catch *c)
{
    ssize_t n = pread(c->file, c->text, sizeof(c->text) - 1, 0);

    assert_true(n >= 0);
    c->text[n] = '\0';
    assert_int_equal(ftruncate(c->file, 0), 0);
    return c->text;
}

/* The line after its time, which is checked by its form. */
static const char *after_time(const char *line)
{
    static const char FORM[] = "0000-00-00T00:00:00.000Z ";
    size_t i;

    for (i = 0; FORM[i] != '\0'; i++) {
        bool ok = FORM[i] == '0' ? line[i] >= '0' && line[i] <= '9' : line[i] == FORM[i];

        if (!ok)
            fail_msg("no time: %s", line);
    }
    return line + i;
}

static void a_line_has_time_level_event_and_pairs(void **state)
{
    struct catch *c = *state;

    log_info("session.open", "id=%s port=%u", "demo", 3000u);
    assert_string_equal(after_time(caught(c)),
                        "info event=session.open id=demo port=3000\n");
    log_err("start", "error=%s", log_q("open \"x\": \n"));
    assert_string_equal(after_time(caught(c)),
                        "err event=start error=\"open \\\"x\\\": \\x0a\"\n");
    log_info("ready", "%s", "");
    assert_string_equal(after_time(caught(c)), "info event=ready\n");
}

static void lines_above_the_level_are_not_written(void **state)
{
    struct catch *c = *state;

    log_setup(false, LOG_WARN);
    log_notice("a", "%s", "");
    log_debug("b", "%s", "");
    log_access(&(struct log_pair){.key = "path", .kind = LOG_WORD, .text = span_str("/")},
               1);
    log_flush();
    assert_string_equal(caught(c), "");
    log_warn("c", "%s", "");
    assert_string_equal(after_time(caught(c)), "warn event=c\n");
    log_setup(false, LOG_DEBUG);
    log_debug("d", "n=%d", 1);
    assert_string_equal(after_time(caught(c)), "debug event=d n=1\n");
}

static void levels_have_names(void **state)
{
    enum log_level l = LOG_ERR;

    (void)state;
    assert_int_equal(log_level_parse("notice", &l), 0);
    assert_int_equal(l, LOG_NOTICE);
    assert_int_equal(log_level_parse("debug", &l), 0);
    assert_int_equal(l, LOG_DEBUG);
    assert_int_equal(log_level_parse("Info", &l), -1);
    assert_int_equal(log_level_parse("", &l), -1);
    assert_int_equal(l, LOG_DEBUG);
}

static void a_value_cannot_start_a_new_line_or_control_a_terminal(void **state)
{
    struct catch *c = *state;

    log_info("x", "raw=%s q=%s", "a\nb\x1b[31m\xff", log_qs(span_of("a\0\n\xff ", 5)));
    assert_string_equal(after_time(caught(c)),
                        "info event=x raw=a?b?[31m? q=\"a\\x00\\x0a\\xff \"\n");
}

static void quoted_values_are_cut_and_live_for_eight_calls(void **state)
{
    const char *slot[8];
    char text[200];
    size_t i;

    (void)state;
    memset(text, '\n', sizeof(text));
    assert_int_equal(strlen(log_qs(span_of(text, 64))), 64 * 4 + 2);
    assert_int_equal(strlen(log_qs(span_of(text, 200))), 64 * 4 + 2 + 3);
    for (i = 0; i < 8; i++) {
        char one[2] = {(char)('a' + i), '\0'};

        slot[i] = log_q(one);
    }
    for (i = 0; i < 8; i++)
        assert_int_equal(slot[i][1], 'a' + i);
}

static void an_error_is_told_whole(void **state)
{
    struct catch *c = *state;
    struct err e;

    memset(e.msg, '"', sizeof(e.msg) - 1);
    e.msg[sizeof(e.msg) - 1] = '\0';
    log_err("x", "error=%s", log_e(&e));
    assert_int_equal(strlen(after_time(caught(c))),
                     strlen("err event=x error=\"\"\n") + 2 * (sizeof(e.msg) - 1));
}

/* -- JSON ------------------------------------------------------------------------------ */

static struct json *parse_line(const char *line)
{
    struct err e = {0};
    struct json *v = json_parse(span_str(line), 1 << 16, &e);

    if (v == NULL)
        fail_msg("%s: %s", e.msg, line);
    return v;
}

static void json_members_have_the_type_that_the_format_says(void **state)
{
    struct catch *c = *state;
    struct json *v;

    log_setup(true, LOG_INFO);
    log_info("session.open", "id=%s port=%u bytes=%lu part=%u/%u text=%s left=%d word",
             "42", 3000u, 18446744073709551615ul / 4, 1u, 2u, log_q("a \"b\\\" \n"), -5);
    v = parse_line(caught(c));
    assert_string_equal(json_str(json_get(v, "level")), "info");
    assert_string_equal(json_str(json_get(v, "event")), "session.open");
    assert_int_equal(strlen(json_str(json_get(v, "time"))), 24);
    assert_string_equal(json_str(json_get(v, "id")), "42"); /* an id is never a number */
    assert_int_equal(json_int(json_get(v, "port")), 3000);
    assert_int_equal(json_type(json_get(v, "bytes")), JSON_INT);
    assert_string_equal(json_str(json_get(v, "part")), "1/2");
    assert_string_equal(json_str(json_get(v, "text")), "a \"b\\\" \n");
    assert_int_equal(json_int(json_get(v, "left")), -5);
    assert_string_equal(json_str(json_get(v, "message")), "word");
    json_free(v);
}

/* Any text as a quoted value, of any length: still one valid line. */
static void json_lines_are_valid_whatever_is_quoted_in_them(void **state)
{
    struct catch *c = *state;
    char text[100];
    unsigned seed = 1;
    unsigned i, j;

    log_setup(true, LOG_INFO);
    for (i = 0; i < 1000; i++) {
        size_t n = (size_t)rand_r(&seed) % sizeof(text);
        struct json *v;

        for (j = 0; j < n; j++)
            text[j] = "\"\\ =x%\n\xff"[rand_r(&seed) % 8];
        log_info("x", "a=%s n=%d b=%s", log_qs(span_of(text, n)), 1,
                 log_qs(span_of(text + n / 2, n - n / 2)));
        v = parse_line(caught(c));
        assert_int_equal(json_len(v), 6);
        json_free(v);
    }
}

/* A value that should have been quoted and was not costs that line its pairs, no more. */
static void text_that_is_not_quoted_makes_no_second_line(void **state)
{
    struct catch *c = *state;
    char text[3000];
    unsigned seed = 1;
    unsigned i, j;

    for (i = 0; i < 300; i++) {
        const char *line;

        log_setup(i % 2 == 0, LOG_INFO);
        for (j = 0; j < sizeof(text) - 1; j++)
            text[j] = "\"\\ =x%\n\xff"[rand_r(&seed) % 8];
        text[rand_r(&seed) % sizeof(text)] = '\0';
        text[sizeof(text) - 1] = '\0';
        log_info("x", "raw=%s n=%d", text, 1);
        line = caught(c);
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        assert_true(i % 2 != 0 || (line[0] == '{' && line[strlen(line) - 2] == '}'));
    }
}

static void a_long_line_is_cut_between_pairs(void **state)
{
    struct catch *c = *state;
    char text[2200];
    const char *line;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_info("x", "a=1 b=\"two words\" c=%s", text);
    line = after_time(caught(c));
    assert_string_equal(line, "info event=x a=1 b=\"two words\"\n");
}

/* -- access lines, threads ------------------------------------------------------------- */

static void log_get(unsigned status)
{
    struct log_pair pair[] = {
        {.key = "method", .kind = LOG_WORD, .text = span_str("GET")},
        {.key = "status", .kind = LOG_NUMBER, .number = status},
    };

    log_access(pair, 2);
}

static void access_lines_are_harmless_whatever_is_in_them(void **state)
{
    struct log_pair pair[] = {
        {.key = "error", .kind = LOG_WORD, .text = span_of("a\n\"\x1b\xff", 5)},
        {.key = "path", .kind = LOG_TEXT, .text = span_of("/\"\n b", 5)},
        {.key = "most", .kind = LOG_NUMBER, .number = UINT64_MAX},
        {.key = "least", .kind = LOG_NUMBER},
    };
    struct catch *c = *state;
    struct json *line;
    const char *p;

    log_access(pair, 4);
    log_flush();
    assert_string_equal(after_time(caught(c)),
                        "info event=access error=a?\"?? path=\"/\\\"\\x0a b\" "
                        "most=18446744073709551615 least=0\n");
    log_setup(true, LOG_INFO);
    log_access(pair, 4);
    log_flush();
    p = strchr(caught(c), '{');
    assert_non_null(strstr(p, ",\"event\":\"access\",\"error\":\"a?\\\"??\","
                              "\"path\":\"/\\\"\\u000a b\","
                              "\"most\":18446744073709551615,\"least\":0}\n"));
    pair[2].number = 7; /* the parser's numbers are smaller */
    log_access(pair, 4);
    log_flush();
    p = strrchr(caught(c), '{');
    line = parse_line(p);
    json_free(line);
}

static void a_long_access_line_leaves_pairs_out(void **state)
{
    static char text[5000];
    struct log_pair pair[] = {
        {.key = "a", .kind = LOG_NUMBER, .number = 1},
        {.key = "b", .kind = LOG_WORD, .text = span_of(text, sizeof(text))},
        {.key = "c", .kind = LOG_NUMBER, .number = 2},
    };
    struct catch *c = *state;

    log_access(pair, 3);
    log_flush();
    assert_string_equal(after_time(caught(c)), "info event=access a=1 c=2\n");
}

static void a_path_is_told_up_to_256_bytes(void **state)
{
    char text[300], want[400];
    struct log_pair pair = {.key = "path", .kind = LOG_TEXT, .text = span_of(text, 256)};
    struct catch *c = *state;

    memset(text, 'p', sizeof(text));
    for (size_t len = 256; len <= 257; len++) {
        pair.text.len = len;
        (void)snprintf(want, sizeof(want), "info event=access path=\"%.256s%s\"\n", text,
                       len > 256 ? "..." : "");
        (void)caught(c); /* up to here is known */
        log_access(&pair, 1);
        log_flush();
        assert_non_null(strstr(caught(c), want));
    }
    log_setup(true, LOG_INFO);
    memset(text, 1, sizeof(text)); /* the longest when escaped */
    log_access(&pair, 1);
    log_flush();
    json_free(parse_line(strrchr(caught(c), '{')));
}

static void access_lines_wait_for_the_flush(void **state)
{
    struct catch *c = *state;
    unsigned i, lines = 0;
    const char *p;

    log_get(200);
    log_get(404);
    assert_string_equal(caught(c), "");
    log_flush();
    p = after_time(caught(c));
    assert_memory_equal(p, "info event=access method=GET status=200\n", 40);
    assert_string_equal(after_time(p + 40), "info event=access method=GET status=404\n");
    log_flush();
    assert_string_equal(caught(c), "");
    for (i = 0; i < 2000; i++) /* more than the buffer holds */
        log_get(200);
    log_flush();
    for (p = caught(c); *p != '\0'; p = strchr(p, '\n') + 1, lines++)
        assert_memory_equal(after_time(p), "info event=access method=GET status=200\n",
                            40);
    assert_int_equal(lines, 2000);
}

static void *write_lines(void *arg)
{
    const char *name = arg;
    unsigned i;

    for (i = 0; i < 500; i++) {
        log_info("thread", "name=%s n=%u", name, i);
        log_access(&(struct log_pair){"name", LOG_WORD, 0, span_str(name)}, 1);
    }
    log_flush();
    return NULL;
}

static void threads_do_not_mix_their_lines(void **state)
{
    static char names[2][4] = {"one", "two"};
    struct catch *c = *state;
    pthread_t t[2];
    unsigned lines = 0;
    const char *p;

    assert_int_equal(pthread_create(&t[0], NULL, write_lines, names[0]), 0);
    assert_int_equal(pthread_create(&t[1], NULL, write_lines, names[1]), 0);
    assert_int_equal(pthread_join(t[0], NULL), 0);
    assert_int_equal(pthread_join(t[1], NULL), 0);
    for (p = caught(c); *p != '\0'; p = strchr(p, '\n') + 1, lines++) {
        const char *rest = after_time(p);

        assert_true(strncmp(rest, "info event=thread name=", 23) == 0 ||
                    strncmp(rest, "info event=access name=", 23) == 0);
    }
    assert_int_equal(lines, 2000);
}

static void errno_survives_a_line(void **state)
{
    (void)state;
    errno = ENOTTY;
    log_info("x", "n=%d", 1);
    assert_int_equal(errno, ENOTTY);
}

static void a_full_pipe_does_not_stop_the_program(void **state)
{
    struct catch *c = *state;
    int fds[2];
    unsigned i;

    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
    assert_int_equal(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
    for (i = 0; i < 5; i++)
        log_info("x", "text=\"%01000d\"", 1);
    assert_true(dup2(c->file, STDERR_FILENO) >= 0);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void a_rate_lets_some_through_and_counts_the_rest(void **state)
{
    struct log_rate r = {0};
    unsigned dropped = 99;
    unsigned i;

    (void)state;
    for (i = 0; i < LOG_RATE_PER_S; i++) {
        assert_true(log_rate_ok(&r, 5000 + i, &dropped));
        assert_int_equal(dropped, 0);
    }
    for (i = 0; i < 7; i++)
        assert_false(log_rate_ok(&r, 5999, &dropped));
    assert_true(log_rate_ok(&r, 6000, &dropped));
    assert_int_equal(dropped, 7);
    assert_true(log_rate_ok(&r, 6001, &dropped));
    assert_int_equal(dropped, 0);
}

#define CAUGHT(test) cmocka_unit_test_setup_teardown(test, start_catch, stop_catch)

/* Else the next socket would be 2, and read our log. */
static void a_closed_stderr_is_no_place_for_others(void **state)
{
    int saved = dup(STDERR_FILENO), fd;

    (void)state;
    assert_int_equal(close(STDERR_FILENO), 0);
    log_setup(false, LOG_INFO);
    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    (void)close(saved);
    assert_true(fd > STDERR_FILENO);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAUGHT(a_line_has_time_level_event_and_pairs),
        CAUGHT(lines_above_the_level_are_not_written),
        cmocka_unit_test(levels_have_names),
        CAUGHT(a_value_cannot_start_a_new_line_or_control_a_terminal),
        cmocka_unit_test(quoted_values_are_cut_and_live_for_eight_calls),
        CAUGHT(an_error_is_told_whole),
        CAUGHT(json_members_have_the_type_that_the_format_says),
        CAUGHT(json_lines_are_valid_whatever_is_quoted_in_them),
        CAUGHT(text_that_is_not_quoted_makes_no_second_line),
        CAUGHT(a_long_line_is_cut_between_pairs),
        CAUGHT(access_lines_are_harmless_whatever_is_in_them),
        CAUGHT(a_long_access_line_leaves_pairs_out),
        CAUGHT(a_path_is_told_up_to_256_bytes),
        CAUGHT(access_lines_wait_for_the_flush),
        CAUGHT(threads_do_not_mix_their_lines),
        CAUGHT(errno_survives_a_line),
        CAUGHT(a_full_pipe_does_not_stop_the_program),
        cmocka_unit_test(a_rate_lets_some_through_and_counts_the_rest),
        cmocka_unit_test(a_closed_stderr_is_no_place_for_others),
    };

    return cmocka_run_group_tests_name("common/log", tests, NULL, NULL);
}
