/* SPDX-License-Identifier: MIT */
/*
 * Bulk without copies. A direction whose last read was long is moved by splice(2)
 * through a pipe of the sandbox's own, so that a sandbox's bytes can never meet
 * another's. The pipe is empty between two calls: what the sink does not take is read
 * out into the pump at once, like the rest of a read, and where that cannot be, the
 * pipe is closed with what is in it.
 *
 * Spliced bytes hold whole pages of the source while the sink counts only the bytes.
 * A sender of many tiny segments could make much of that: the pipe has few slots
 * (each a segment, or less), and a call that moved little in them ends the bulk; then
 * bytes are copied again.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "agentd/egress/guard/flow.h"

enum {
    SLOTS = 64,
    SLOT = 4096, /* what the kernel counts a slot as; it may hold more */
    PIECE = FLOW_RELAY_BUFFER / 2, /* both ends work meanwhile: see docs/PERFORMANCE.md */
    SHORT = PIECE / 4,
};

void flow_pipe_done(struct flows *fs)
{
    sock_close(&fs->pipe[0]);
    sock_close(&fs->pipe[1]);
}

static bool has_pipe(struct flows *fs)
{
    if (fs->pipe[0] >= 0)
        return true;
    if (pipe2(fs->pipe, O_NONBLOCK | O_CLOEXEC) < 0) {
        fs->pipe[0] = fs->pipe[1] = -1;
        return false;
    }
    if (fcntl(fs->pipe[1], F_SETPIPE_SZ, SLOTS * SLOT) >= 0)
        return true;
    flow_pipe_done(fs); /* over what a user may have: copies do as well */
    return false;
}

static ssize_t pass(int from, int to, size_t n)
{
    ssize_t r;

    do
        r = splice(from, NULL, to, NULL, n, SPLICE_F_NONBLOCK);
    while (r < 0 && errno == EINTR);
    return r;
}

/* What the sink did not take. -1: not all of it could be had. */
static int hold(struct flow *f, struct flow_pump *p, size_t n)
{
    if (buf_reserve(&p->held, n, SIZE_MAX) < 0)
        return -1;
    while (n > 0) {
        ssize_t r = read(f->flows->pipe[0], p->held.p + p->held.len, n);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return -1;
        p->held.len += (size_t)r;
        flows_hold(f->flows, (size_t)r, 0);
        n -= (size_t)r;
    }
    return 0;
}

bool flow_pipe_move(struct flow *f, enum flow_way way, size_t n)
{
    struct flow_pump *p = way == FLOW_UP ? &f->up : &f->down;
    struct conn *source = way == FLOW_UP ? f->inner : f->outer;
    struct conn *sink = way == FLOW_UP ? f->outer : f->inner;
    ssize_t got, gone = 0;

    if (!p->is_bulk || n < FLOW_RELAY_BUFFER || p->held.len > 0 || f->gate ||
        !conn_is_bare(source) || !conn_is_bare(sink) || !has_pipe(f->flows))
        return false;
    got = pass(conn_fd(source), f->flows->pipe[1], PIECE);
    p->is_bulk = got >= SHORT;
    if (got <= 0)
        return false; /* a read tells why */
    flow_count(f, way, (size_t)got);
    while (gone < got) {
        ssize_t r = pass(f->flows->pipe[0], conn_fd(sink), (size_t)(got - gone));

        if (r <= 0)
            break; /* full; or broken, which the next write tells */
        gone += r;
    }
    if (gone < got && hold(f, p, (size_t)(got - gone)) < 0) {
        flow_pipe_done(f->flows);
        flow_end(f, FLOW_NO_MEMORY);
    }
    return true;
}

void flow_pipe_read(struct flow_pump *p, size_t n)
{
    p->is_bulk = n >= FLOW_RELAY_BUFFER / 2;
}
