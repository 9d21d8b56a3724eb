/* SPDX-License-Identifier: MIT */
#include "agentd/events.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "tests/support/test.h"

struct fixture {
    struct loop *loop;
    struct events *ev;
    int out[2];
    struct buf got;
};

static int open_all(void **state, bool json)
{
    struct fixture *f = mem_zalloc(1, sizeof *f);

    assert_non_null(f);
    f->loop = loop_new(NULL);
    assert_non_null(f->loop);
    assert_int_equal(pipe(f->out), 0);
    assert_int_equal(fcntl(f->out[0], F_SETFL, O_NONBLOCK), 0);
    f->ev = events_new(f->loop, f->out[1], json);
    assert_non_null(f->ev);
    *state = f;
    return 0;
}
static int setup_json(void **state)
{
    return open_all(state, true);
}
static int setup_text(void **state)
{
    return open_all(state, false);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    events_free(f->ev);
    (void)close(f->out[0]);
    (void)close(f->out[1]);
    loop_free(f->loop);
    buf_done(&f->got);
    mem_free(f);
    return 0;
}

static void collect(struct fixture *f)
{
    ssize_t n;

    for (;;) {
        assert_int_equal(buf_reserve(&f->got, 4096, 1u << 24), 0);
        n = read(f->out[0], f->got.p + f->got.len, 4096);
        if (n <= 0)
            return;
        f->got.len += (size_t)n;
    }
}

static struct published_port shop(void)
{
    struct published_port p = {.port = 3000, .is_public = true};

    assert_int_equal(sock_parse("[::1]:3000", &p.listen, NULL), 0);
    memcpy(p.url, "https://3000-demo.d/", 21);
    memcpy(p.holder.name, "a\"b", 4);
    p.holder.pid = 77;
    return p;
}

static void each_event_is_one_object_on_a_line(void **state)
{
    static const char *const want[] = {"link.up",     "link.down",   "link.replaced",
                                       "port.opened", "port.closed", "port.refused"};
    struct fixture *f = *state;
    struct published_port p = shop();
    const uint8_t *at, *nl;
    struct json *j;
    const char *time;
    size_t i;

    events_link_up(f->ev, "https://d", "demo");
    events_link_down(f->ev, "line\nbreak", true, 1500);
    events_link_replaced(f->ev, "other", "2026-01-01T00:00:00Z");
    events_port_opened(f->ev, &p);
    events_port_closed(f->ev, 3000);
    events_port_refused(f->ev, 3000, "why \"not\"");
    collect(f); /* at once, without a loop turn */
    at = f->got.p;
    for (i = 0; i < COUNT_OF(want); i++) {
        nl = memchr(at, '\n', f->got.len - (size_t)(at - f->got.p));
        assert_non_null(nl);
        j = json_parse(span_of(at, (size_t)(nl - at)), 4096, NULL);
        assert_non_null(j);
        assert_string_equal(json_str(json_get(j, "event")), want[i]);
        time = json_str(json_get(j, "time"));
        assert_int_equal(strlen(time), strlen("2026-01-01T00:00:00.000Z"));
        assert_true(time[10] == 'T' && time[23] == 'Z');
        if (strcmp(want[i], "link.down") == 0) {
            assert_string_equal(json_str(json_get(j, "why")), "line\nbreak");
            assert_int_equal(json_int(json_get(j, "retry_ms")), 1500);
        }
        if (strcmp(want[i], "port.opened") == 0) {
            assert_int_equal(json_int(json_get(j, "port")), 3000);
            assert_string_equal(json_str(json_get(j, "url")), "https://3000-demo.d/");
            assert_string_equal(json_str(json_get(j, "address")), "::1");
            assert_string_equal(json_str(json_get(j, "process")), "a\"b");
            assert_int_equal(json_int(json_get(j, "pid")), 77);
            assert_true(json_bool(json_get(j, "public")));
        }
        json_free(j);
        at = nl + 1;
    }
    assert_ptr_equal(at, f->got.p + f->got.len);
}

static void as_text_only_urls_are_said(void **state)
{
    struct fixture *f = *state;
    struct published_port p = shop();

    events_link_up(f->ev, "https://d", "demo");
    events_port_opened(f->ev, &p);
    events_port_refused(f->ev, 3000, "x");
    events_port_closed(f->ev, 3000);
    collect(f);
    assert_int_equal(f->got.len, 21);
    assert_memory_equal(f->got.p, "https://3000-demo.d/\n", 21);
}

static void on_pause(void *arg)
{
    loop_stop(((struct fixture *)arg)->loop);
}

/* A reader that stalls: nothing blocks, memory is bounded, and what is kept comes out as
 * whole lines in order when it reads again. */
static void a_stalled_reader_stops_nothing_and_gets_whole_lines(void **state)
{
    struct fixture *f = *state;
    struct published_port p = shop();
    struct loop_timer pause;
    size_t i, lines = 0;
    unsigned turns;

    for (i = 0; i < 40000; i++)
        events_port_opened(f->ev, &p);
    loop_timer_init(&pause, f->loop, on_pause, f);
    for (turns = 0; turns < 1000; turns++) {
        size_t before = f->got.len;
        collect(f);
        if (f->got.len == before)
            break;
        loop_timer_start(&pause, 3 * EVENTS_RETRY_MS);
        loop_run(f->loop);
    }
    assert_in_range(f->got.len, EVENTS_MAX, EVENTS_MAX + 1024 * 1024);
    assert_true(f->got.len % 21 == 0);
    for (i = 0; i < f->got.len; i += 21, lines++)
        assert_memory_equal(f->got.p + i, "https://3000-demo.d/\n", 21);
    assert_true(lines < 40000);
}

static void a_reader_that_is_gone_is_no_failure(void **state)
{
    struct fixture *f = *state;
    struct published_port p = shop();

    (void)signal(SIGPIPE, SIG_IGN); /* as main does */
    (void)close(f->out[0]);
    f->out[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    events_port_opened(f->ev, &p);
    events_port_opened(f->ev, &p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_event_is_one_object_on_a_line, setup_json,
                                        teardown),
        cmocka_unit_test_setup_teardown(as_text_only_urls_are_said, setup_text, teardown),
        cmocka_unit_test_setup_teardown(
            a_stalled_reader_stops_nothing_and_gets_whole_lines, setup_text, teardown),
        cmocka_unit_test_setup_teardown(a_reader_that_is_gone_is_no_failure, setup_text,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
