# SPDX-License-Identifier: MIT
"""A reader that stops holds its own window and nothing else."""

import os
import threading
import time

import pytest

from conftest import below_ephemeral_port, tool
from processes import wait_until

SANITIZED = os.environ.get("BUILD", "").endswith(("asan", "tsan"))
WINDOW_MAX = 4 << 20


@pytest.fixture
def world(stack):
    class World:
        pass
    w = World()
    w.server = stack.server(default_visibility="public", limits={"buffer_bytes": 64 << 20})
    w.agent = stack.agent(w.server)
    w.port = below_ephemeral_port()
    stack.app([tool("origin"), str(w.port)])
    w.agent.wait_port(w.port)
    return w


def stall(world, size=1 << 30):
    """A client that asks for much and reads nothing, with a small socket buffer."""
    c = world.server.preview(world.port)
    c.sock.setsockopt(__import__("socket").SOL_SOCKET, __import__("socket").SO_RCVBUF, 4096)
    c.request("GET", "/bytes/%d" % size)
    return c


def settled(process):
    last = -1
    for _ in range(100):
        now = process.rss_kib()
        if now == last:
            return now
        last = now
        time.sleep(0.3)
    return last


@pytest.mark.skipif(SANITIZED, reason="sanitizers change what memory costs")
def test_a_stalled_download_holds_at_most_its_window(world):
    with world.server.preview(world.port) as c:
        c.get("/bytes/1000")
    before = settled(world.server.process), settled(world.agent.process)
    c = stall(world)
    time.sleep(2)
    after = settled(world.server.process), settled(world.agent.process)
    bound = WINDOW_MAX // 1024 + 1024
    assert after[0] - before[0] < bound, "tunneld holds %d KiB" % (after[0] - before[0])
    assert after[1] - before[1] < bound, "agentd holds %d KiB" % (after[1] - before[1])
    c.close()


def latencies(world, count=100):
    out = []
    with world.server.preview(world.port) as c:
        for _ in range(count):
            start = time.monotonic()
            assert c.get("/").status == 200
            out.append(time.monotonic() - start)
    return sorted(out)


def test_other_streams_go_on_beside_stalled_ones(world):
    stalled = [stall(world) for _ in range(20)]
    time.sleep(1)
    # A stream that waited for a stalled one would wait for ever; this bound is only generous.
    assert latencies(world)[98] < 1.0
    done = []

    def download():
        with world.server.preview(world.port) as c:
            c.request("GET", "/bytes/%d" % (100 << 20))
            c.head()
            c.skip(100 << 20)
            done.append(True)
    t = threading.Thread(target=download)
    t.start()
    t.join(60)
    assert done
    for c in stalled:
        c.close()


@pytest.mark.skipif(SANITIZED, reason="sanitizers change what memory costs")
def test_a_thousand_stalled_clients_stay_inside_the_budget(world):
    before = settled(world.server.process)
    stalled = []
    for _ in range(900):
        stalled.append(stall(world))
    wait_until(lambda: world.server.metric("tunneld_connections_open") >= 900, 20, "the clients")
    time.sleep(2)
    after = settled(world.server.process)
    # 64 KiB first window and a TLS connection each, and what the budget allows beyond.
    bound = 900 * (64 + 64 + 48) + (64 << 10)
    assert after - before < bound, "%d KiB" % (after - before)
    for c in stalled[:100]:
        c.close()
    assert latencies(world, 20)[18] < 2.0
    for c in stalled:
        c.close()
    wait_until(lambda: world.server.metric("tunneld_connections_open") < 5, 30, "the end")


def test_the_server_raises_its_limit_of_descriptors(stack):
    server = stack.server(limits={"connections": 500})
    server.stop()
    server.start(wrap=["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh"])
    with open("/proc/%d/limits" % server.process.pid) as f:
        soft = next(line.split()[3] for line in f if line.startswith("Max open files"))
    assert int(soft) == 500 + 1024
