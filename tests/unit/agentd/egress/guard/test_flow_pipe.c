/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/flow.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "tests/support/flows_scene.h"
#include "tests/support/own_network.h"
#include "tests/support/test.h"

#define POLICY                                                                           \
    "{\"version\":1,\"allow\":[{\"to\":{\"cidr\":\"203.0.113.0/24\"},\"ports\":\"7000\"" \
    "}]}"
#define TO "203.0.113.7:7000"

enum {
    FLOWS = 3,
    SIZE = 32 << 20,
    PIECE = 1 << 20,
};

struct many {
    struct flows_scene s;
    int listener, in[FLOWS], out[FLOWS];
    uint8_t *bytes[FLOWS];
    size_t sent[FLOWS];
};

static void open_many(struct many *m)
{
    memset(m, 0, sizeof(*m));
    flows_scene_open(&m->s, POLICY);
    m->listener = flows_scene_listen(TO);
    for (int i = 0; i < FLOWS; i++) {
        m->in[i] = flows_scene_connect(&m->s, TO);
        m->out[i] = flows_scene_accept(&m->s, m->listener);
        assert_true(m->out[i] >= 0);
        m->bytes[i] = mem_alloc(SIZE);
        for (size_t k = 0; k < SIZE; k++)
            m->bytes[i][k] = (uint8_t)((k >> 5) * 3 + (size_t)i);
    }
}

static void close_many(struct many *m)
{
    for (int i = 0; i < FLOWS; i++) {
        sock_close(&m->in[i]);
        sock_close(&m->out[i]);
        mem_free(m->bytes[i]);
    }
    sock_close(&m->listener);
    flows_scene_close(&m->s);
}

static int in_pipe(const struct many *m)
{
    int n = 0;

    if (m->s.ward.flows->pipe[0] >= 0)
        assert_int_equal(ioctl(m->s.ward.flows->pipe[0], FIONREAD, &n), 0);
    return n;
}

/* All that the paths take while nobody reads at their ends, a little of each in turn. */
static void stuff(struct many *m)
{
    for (int idle = 0; idle < 20; idle++) {
        for (int i = 0; i < FLOWS; i++) {
            size_t left = SIZE - m->sent[i];
            ssize_t n = send(m->in[i], m->bytes[i] + m->sent[i],
                             left < PIECE ? left : PIECE, MSG_NOSIGNAL | MSG_DONTWAIT);

            if (n > 0) {
                m->sent[i] += (size_t)n;
                idle = 0;
            }
            assert_int_equal(in_pipe(m), 0);
        }
        flows_scene_turn(&m->s, 2);
        assert_int_equal(in_pipe(m), 0);
    }
}

static void expect_own(struct many *m, int i)
{
    struct buf got = BUF_INIT;

    flows_scene_read(&m->s, m->out[i], m->sent[i], &got);
    assert_int_equal(got.len, m->sent[i]);
    assert_memory_equal(got.p, m->bytes[i], m->sent[i]);
    buf_done(&got);
}

static void flows_of_one_pipe_get_their_own_bytes(void **state)
{
    struct many m;

    (void)state;
    open_many(&m);
    stuff(&m);
    assert_true(m.s.ward.flows->pipe[0] >= 0); /* it was bulk */
    for (int i = 0; i < FLOWS; i++) {
        assert_in_range(m.sent[i], FLOW_RELAY_BUFFER, SIZE - 1);
        expect_own(&m, i);
    }
    flows_scene_turn(&m.s, 5);
    assert_int_equal(m.s.ward.flows->held, 0);
    assert_int_equal(m.s.ward.counts.bytes_up, m.sent[0] + m.sent[1] + m.sent[2]);
    close_many(&m);
}

static void a_sink_that_breaks_leaves_nothing_for_the_next(void **state)
{
    struct many m;

    (void)state;
    open_many(&m);
    stuff(&m);
    sock_reset(&m.out[0]);
    flows_scene_turn(&m.s, 5);
    assert_int_equal(in_pipe(&m), 0);
    sock_reset(&m.in[1]);
    flows_scene_turn(&m.s, 5);
    assert_int_equal(in_pipe(&m), 0);
    expect_own(&m, 2);
    close_many(&m);
}

static void without_memory_for_the_rest_a_flow_ends_and_others_go_on(void **state)
{
    struct many m;

    (void)state;
    for (unsigned at = 1; at <= FLOWS; at++) {
        unsigned alive = 0;

        open_many(&m);
        mem_fault_at(at); /* nothing but what a sink does not take needs memory */
        stuff(&m);
        mem_fault_at(0);
        assert_int_equal(m.s.ward.counts.flows, FLOWS - 1);
        for (int i = 0; i < FLOWS; i++) {
            uint8_t b;

            if (recv(m.in[i], &b, 1, MSG_DONTWAIT) == 0 || errno != EAGAIN)
                continue;
            expect_own(&m, i);
            alive++;
        }
        assert_int_equal(alive, FLOWS - 1);
        close_many(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flows_of_one_pipe_get_their_own_bytes),
        cmocka_unit_test(a_sink_that_breaks_leaves_nothing_for_the_next),
        cmocka_unit_test(without_memory_for_the_rest_a_flow_ends_and_others_go_on),
    };

    if (!own_network_enter())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
