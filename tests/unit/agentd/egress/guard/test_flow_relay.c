/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/support/flows_scene.h"
#include "tests/support/own_network.h"
#include "tests/support/test.h"

#define NET                                                                              \
    "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.0/24\"},\"ports\":\"7000\""
#define POLICY NET "}]}"
#define TO     "203.0.113.7:7000"

struct pair {
    struct flows_scene s;
    int listener, in, out;
};

static void open_pair(struct pair *p, const char *policy)
{
    flows_scene_open(&p->s, policy);
    p->listener = flows_scene_listen(TO);
    p->in = flows_scene_connect(&p->s, TO);
    p->out = flows_scene_accept(&p->s, p->listener);
    assert_true(p->out >= 0);
}

static void close_pair(struct pair *p)
{
    sock_close(&p->in);
    sock_close(&p->out);
    sock_close(&p->listener);
    flows_scene_close(&p->s);
}

static void bytes_pass_both_ways(void **state)
{
    struct pair p;

    (void)state;
    open_pair(&p, POLICY);
    flows_scene_say(&p.s, p.in, "up");
    flows_scene_expect(&p.s, p.out, "up");
    flows_scene_say(&p.s, p.out, "down");
    flows_scene_expect(&p.s, p.in, "down");
    flows_scene_say(&p.s, p.in, "more");
    flows_scene_expect(&p.s, p.out, "more");
    sock_close(&p.in);
    assert_string_equal(flows_scene_end(&p.s, p.out), "eof");
    sock_close(&p.out);
    flows_scene_recorded(&p.s, "\"bytes_up\":6,\"bytes_down\":4", "\"end\":\"closed\"",
                         NULL);
    assert_int_equal(p.s.ward.counts.bytes_up, 6);
    assert_int_equal(p.s.ward.counts.bytes_down, 4);
    close_pair(&p);
}

static void one_direction_may_end_before_the_other(void **state)
{
    struct pair p;

    (void)state;
    open_pair(&p, POLICY);
    flows_scene_say(&p.s, p.in, "question");
    assert_int_equal(shutdown(p.in, SHUT_WR), 0);
    flows_scene_expect(&p.s, p.out, "question");
    assert_string_equal(flows_scene_end(&p.s, p.out), "eof");
    flows_scene_say(&p.s, p.out, "answer");
    flows_scene_expect(&p.s, p.in, "answer");
    assert_true(flows_scene_is_quiet(&p.s, p.in));
    assert_int_equal(shutdown(p.out, SHUT_WR), 0);
    assert_string_equal(flows_scene_end(&p.s, p.in), "eof");
    close_pair(&p);
    open_pair(&p, POLICY);
    assert_int_equal(shutdown(p.out, SHUT_WR), 0);
    assert_string_equal(flows_scene_end(&p.s, p.in), "eof");
    flows_scene_say(&p.s, p.in, "still");
    flows_scene_expect(&p.s, p.out, "still");
    close_pair(&p);
}

static void a_reset_passes_as_a_reset(void **state)
{
    struct pair p;

    (void)state;
    open_pair(&p, POLICY);
    sock_reset(&p.in);
    assert_string_equal(flows_scene_end(&p.s, p.out), "reset");
    flows_scene_recorded(&p.s, "\"end\":\"reset\"", NULL);
    close_pair(&p);
    open_pair(&p, POLICY);
    sock_reset(&p.out);
    assert_string_equal(flows_scene_end(&p.s, p.in), "reset");
    close_pair(&p);
}

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 31 >> 4);
}

/* Everything that the path takes while nobody reads at its end. */
static size_t stuff(struct flows_scene *s, int fd, const uint8_t *p, size_t n)
{
    size_t sent = 0;
    int idle = 0;

    while (sent < n && idle < 20) {
        ssize_t got = send(fd, p + sent, n - sent, MSG_NOSIGNAL);

        if (got > 0) {
            sent += (size_t)got;
            idle = 0;
        } else {
            assert_int_equal(errno, EAGAIN);
            flows_scene_turn(s, 2);
            idle++;
        }
    }
    return sent;
}

static void a_reader_that_stalls_stops_the_writer_and_loses_nothing(void **state)
{
    enum {
        SIZE = 64 << 20
    };
    uint8_t *bytes = mem_alloc(SIZE);
    struct pair p;

    (void)state;
    fill(bytes, SIZE);
    open_pair(&p, POLICY);
    for (int way = 0; way < 2; way++) {
        int from = way ? p.out : p.in, to = way ? p.in : p.out;
        struct buf got = BUF_INIT;
        size_t sent = stuff(&p.s, from, bytes, SIZE);

        assert_in_range(sent, 1, SIZE - 1);
        assert_in_range(p.s.ward.flows->held, 1, FLOW_RELAY_BUFFER);
        flows_scene_read(&p.s, to, sent, &got);
        assert_int_equal(got.len, sent);
        assert_memory_equal(got.p, bytes, sent);
        flows_scene_turn(&p.s, 5);
        assert_int_equal(p.s.ward.flows->held, 0);
        buf_done(&got);
    }
    close_pair(&p);
    mem_free(bytes);
}

static void what_is_held_arrives_before_the_end(void **state)
{
    enum {
        SIZE = 64 << 20
    };
    uint8_t *bytes = mem_alloc(SIZE);
    struct buf got = BUF_INIT;
    struct pair p;
    size_t sent;

    (void)state;
    fill(bytes, SIZE);
    open_pair(&p, POLICY);
    sent = stuff(&p.s, p.in, bytes, SIZE);
    sock_close(&p.in);
    flows_scene_turn(&p.s, 10);
    flows_scene_read(&p.s, p.out, SIZE_MAX, &got);
    assert_int_equal(got.len, sent);
    assert_memory_equal(got.p, bytes, sent);
    buf_done(&got);
    close_pair(&p);
    mem_free(bytes);
}

static void nothing_is_held_while_idle(void **state)
{
    struct pair p;

    (void)state;
    open_pair(&p, POLICY);
    flows_scene_say(&p.s, p.in, "up");
    flows_scene_expect(&p.s, p.out, "up");
    assert_null(p.s.ward.flows->open->up.held.p);
    assert_null(p.s.ward.flows->open->down.held.p);
    assert_null(p.s.ward.flows->open->in.p);
    close_pair(&p);
}

static void bytes_in_all_end_the_connection_and_refuse_the_next(void **state)
{
    uint8_t bytes[3000] = {0};
    struct buf got = BUF_INIT;
    struct pair p;
    int next;

    (void)state;
    open_pair(&p, NET ",\"limits\":{\"bytes\":2000}}]}");
    flows_scene_write(&p.s, p.in, bytes, 1500);
    flows_scene_read(&p.s, p.out, 1500, &got);
    assert_int_equal(got.len, 1500);
    flows_scene_write(&p.s, p.out, bytes, 1500);
    assert_string_equal(flows_scene_end(&p.s, p.in), "reset");
    flows_scene_recorded(&p.s, "\"bytes_up\":1500,\"bytes_down\":500",
                         "\"end\":\"limit\"", NULL);
    next = flows_scene_connect(&p.s, TO);
    assert_string_equal(flows_scene_end(&p.s, next), "reset");
    flows_scene_recorded(&p.s, "\"refused\"", "\"limit\"", "2000 bytes in all", NULL);
    sock_close(&next);
    buf_done(&got);
    close_pair(&p);
}

static void a_rate_slows_and_loses_nothing(void **state)
{
    enum {
        SIZE = 150000
    };
    uint8_t bytes[SIZE];
    struct buf got = BUF_INIT;
    struct pair p;
    uint64_t began;

    (void)state;
    fill(bytes, SIZE);
    open_pair(&p, "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.0/24\"},"
                  "\"ports\":\"7000\"}],\"limits\":{\"bytes_per_s\":400000}}");
    began = clock_us();
    (void)stuff(&p.s, p.in, bytes, SIZE);
    flows_scene_read(&p.s, p.out, SIZE, &got);
    assert_int_equal(got.len, SIZE);
    assert_memory_equal(got.p, bytes, SIZE);
    /* A third of a second by the rate, after the burst. */
    assert_true(clock_us() - began > 200000);
    buf_done(&got);
    close_pair(&p);
}

/* -- many at once, doing anything ---------------------------------------------------- */

enum {
    MANY = 48,
    STEPS = 6000
};
struct end {
    int fd;
    uint64_t sent, got;
    struct end *other;
};

static uint32_t dice(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 131 >> 7);
}

static void end_write(struct end *e, size_t n)
{
    uint8_t bytes[60000];
    ssize_t sent;

    for (size_t i = 0; i < n; i++)
        bytes[i] = byte_at(e->sent + i);
    sent = send(e->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0)
        e->sent += (uint64_t)sent;
}

/* What comes is what the other end sent, from its beginning. */
static void end_read(struct end *e, size_t n)
{
    uint8_t bytes[60000];
    ssize_t got = recv(e->fd, bytes, n, MSG_DONTWAIT);

    for (ssize_t i = 0; i < got; i++)
        assert_int_equal(bytes[i], byte_at(e->got + (uint64_t)i));
    if (got > 0)
        e->got += (uint64_t)got;
    assert_true(e->got <= e->other->sent);
}

static void end_act(struct end *e, uint32_t *seed)
{
    uint32_t what = dice(seed) % 100;

    if (e->fd < 0)
        return;
    if (what < 45)
        end_write(e, dice(seed) % 60000);
    else if (what < 94)
        end_read(e, 1 + dice(seed) % 59999);
    else if (what < 97)
        (void)shutdown(e->fd, SHUT_WR);
    else if (what < 99)
        sock_close(&e->fd);
    else
        sock_reset(&e->fd);
}

static void many_that_do_anything_get_their_own_bytes_and_leave_nothing(void **state)
{
    static struct end end[MANY][2];
    struct flows_scene s;
    int listener = flows_scene_listen(TO);
    uint32_t seed = 7;

    (void)state;
    flows_scene_open(&s, POLICY);
    for (int i = 0; i < MANY; i++)
        for (int k = 0; k < 2; k++)
            end[i][k] = (struct end){.fd = -1, .other = &end[i][!k]};
    for (int step = 0; step < STEPS; step++) {
        struct end *e = end[dice(&seed) % MANY];

        if (e[0].fd < 0 && e[1].fd < 0) {
            e[0] = (struct end){.fd = flows_scene_connect(&s, TO), .other = &e[1]};
            e[1] = (struct end){.fd = flows_scene_accept(&s, listener), .other = &e[0]};
            assert_true(e[1].fd >= 0);
        }
        end_act(&e[dice(&seed) % 2], &seed);
        if (step % 8 == 0)
            flows_scene_turn(&s, 1);
    }
    for (int i = 0; i < MANY; i++) {
        sock_close(&end[i][0].fd);
        sock_close(&end[i][1].fd);
    }
    for (int i = 0; i < 1000 && s.ward.counts.flows > 0; i++)
        flows_scene_turn(&s, 1);
    assert_int_equal(s.ward.counts.flows, 0);
    assert_int_equal(s.ward.flows->held, 0);
    flows_scene_close(&s);
    sock_close(&listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_both_ways),
        cmocka_unit_test(one_direction_may_end_before_the_other),
        cmocka_unit_test(a_reset_passes_as_a_reset),
        cmocka_unit_test(a_reader_that_stalls_stops_the_writer_and_loses_nothing),
        cmocka_unit_test(what_is_held_arrives_before_the_end),
        cmocka_unit_test(nothing_is_held_while_idle),
        cmocka_unit_test(many_that_do_anything_get_their_own_bytes_and_leave_nothing),
        cmocka_unit_test(bytes_in_all_end_the_connection_and_refuse_the_next),
        cmocka_unit_test(a_rate_slows_and_loses_nothing),
    };

    if (!own_network_enter())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
