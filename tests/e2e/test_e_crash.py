# SPDX-License-Identifier: MIT
"""kill -9 of each part in the middle of a transfer, reloads and restarts under load: the client
sees an error and not a short success, and each part comes back by itself."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from conftest import DOMAIN, Certs, below_ephemeral_port, tool
from http_client import Client, Cut
from processes import Process, wait_until

def bring_up(stack, **changes):
    server = stack.server(default_visibility="public", **changes)
    agent = stack.agent(server)
    port = below_ephemeral_port()
    app, _ = stack.app([tool("origin"), str(port)])
    agent.wait_port(port)
    return server, agent, app, port


def start_download(server, port):
    c = server.preview(port)
    c.request("GET", "/bytes/%d" % (1 << 32))
    assert c.head().status == 200
    c.take(1 << 20)
    return c


def answers(server, port):
    try:
        with server.preview(port, timeout=5) as c:
            return c.get("/").status == 200
    except OSError:
        return False


def test_an_agent_killed_in_a_download(stack):
    server, agent, _, port = bring_up(stack)
    c = start_download(server, port)
    agent.process.kill()
    with pytest.raises(Cut):
        c.skip(1 << 32)
    again = stack.agent(server)
    again.wait_port(port)
    assert answers(server, port)


def test_an_agent_killed_in_an_upload(stack):
    server, agent, _, port = bring_up(stack)
    c = server.preview(port)
    c.send(("POST /upload HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n"
            % (c.host, 1 << 32)).encode())
    for _ in range(16):
        c.send(b"x" * 65536)
    agent.process.kill()
    try:
        for _ in range(100000):
            c.send(b"x" * 65536)
        raise AssertionError("the upload was taken whole")
    except OSError:
        pass


def test_a_server_killed_in_a_download_comes_back_with_the_same_url(stack):
    server, agent, _, port = bring_up(stack)
    c = start_download(server, port)
    mark = agent.process.mark()
    server.process.kill()
    with pytest.raises((Cut, OSError)):
        c.skip(1 << 32)
    server.start()
    agent.wait_event("link.down", 20, mark)
    agent.wait_up(60, mark)
    wait_until(lambda: answers(server, port), 30, "the preview is back")


def test_a_newer_agent_of_another_instance_takes_over(stack):
    server, agent, _, port = bring_up(stack)
    second = stack.agent(server)
    second.wait_port(port)
    agent.wait_event("link.replaced", 15)
    assert agent.process.wait(15) == 5
    assert answers(server, port)


class Load(threading.Thread):
    """About `rate` requests a second on fresh and on kept connections; counts failures."""

    def __init__(self, server, port, rate=200):
        super().__init__(daemon=True)
        self.server, self.port, self.rate = server, port, rate
        self.done, self.failures, self.running = 0, [], True

    def run(self):
        kept = None
        i = 0
        start = time.monotonic()
        while self.running:
            i += 1
            try:
                if i % 10 == 0:
                    with self.server.preview(self.port) as c:
                        ok = c.get("/").status == 200
                else:
                    # As every client with kept connections does: one that the server has
                    # closed meanwhile is not used again (RFC 9112 9.3.1).
                    if kept is not None and select.select([kept.sock], [], [], 0)[0]:
                        kept.close()
                        kept = None
                    if kept is None:
                        kept = self.server.preview(self.port)
                    a = kept.get("/")
                    ok = a.status == 200
                    if a.get("connection") == "close":
                        kept.close()
                        kept = None
                if not ok:
                    self.failures.append("answer %d" % i)
            except (Cut, OSError, AssertionError) as e:
                self.failures.append("request %d: %s %s" % (i, type(e).__name__, e))
                kept = None
            self.done += 1
            time.sleep(max(0, start + i / self.rate - time.monotonic()))
        if kept:
            kept.close()


def serial_of(server):
    with Client(server.address, server.host(3000, "demo"), server.certs.context()) as c:
        return c.sock.getpeercert()["serialNumber"]


def test_a_certificate_reload_under_load_fails_no_request(stack, place):
    own = Certs(place / "own")
    stack.certs = own
    server, agent, _, port = bring_up(stack)
    load = Load(server, port)
    load.start()
    time.sleep(0.5)
    before = serial_of(server)
    for _ in range(3):
        old = serial_of(server)
        os.unlink(own.cert)
        os.unlink(own.key)
        Certs(place / "own")
        server.process.signal(signal.SIGHUP)
        wait_until(lambda: serial_of(server) != old, 10, "the new certificate")
        time.sleep(0.5)
    load.running = False
    load.join(10)
    assert serial_of(server) != before
    assert load.done > 100 and load.failures == []
    # libwebsockets' context has it too: a new agent links under the new certificate alone
    agent.stop()
    stack.agent(server).wait_port(port)
    done = subprocess.run(
        ["openssl", "s_client", "-connect", "%s:%d" % server.address, "-servername",
         "0-demo." + DOMAIN, "-CAfile", own.ca], input="", capture_output=True, text=True)
    link_cert = done.stdout[done.stdout.index("-----BEGIN"):done.stdout.index("-----END")]
    with open(own.cert) as f:
        assert link_cert.strip() in f.read()


def test_a_broken_reload_changes_nothing(stack):
    server, agent, _, port = bring_up(stack)
    mark = server.process.mark()
    server.config["domain"] = "elsewhere.example"
    server.write()
    server.process.signal(signal.SIGHUP)
    server.process.wait_line(lambda s: "domain" in s, 10, mark)
    with open(server.file, "w") as f:
        f.write("{ this is no JSON")
    mark = server.process.mark()
    server.process.signal(signal.SIGHUP)
    server.process.wait_line(lambda s: "reload" in s, 10, mark)
    assert answers(server, port)


def test_a_restart_under_socket_activation_fails_no_request(stack):
    """As under systemd: the listening socket stays open between two servers, so clients wait and
    none is refused; what had connected is served before the first one ends."""
    server = stack.server(default_visibility="public")
    address = server.address
    server.stop()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(4096)

    def activate():
        # sd_listen_fds(3): descriptor 3, and who it is meant for
        code = ("import os, sys; os.dup2(%d, 3); "
                "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
                "os.execv(sys.argv[1], sys.argv[1:])" % listener.fileno())
        server.process = Process([sys.executable, "-c", code, tool("tunneld"), "serve", "-c",
                                  server.file], pass_fds=(listener.fileno(),))
        server.wait_ready()
    activate()
    agent = stack.agent(server)
    port = below_ephemeral_port()
    stack.app([tool("origin"), str(port)])
    agent.wait_port(port)
    load = Load(server, port)
    load.start()
    time.sleep(1)
    for _ in range(2):
        mark = agent.process.mark()
        assert server.process.stop(30) == 0
        activate()
        agent.wait_up(30, mark)
        time.sleep(1)
    load.running = False
    load.join(30)
    listener.close()
    assert load.done > 200 and load.failures == []


def test_a_second_signal_ends_at_once(stack):
    server, _, _, port = bring_up(stack, limits={"drain_ms": 60000})
    c = start_download(server, port)
    server.process.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.process.alive()
    server.process.signal(signal.SIGTERM)
    server.process.wait(10)
    c.close()


def test_nothing_is_left_open_afterwards(stack):
    server, agent, _, port = bring_up(stack)
    for _ in range(3):
        assert answers(server, port)
    time.sleep(0.5)
    before = (server.process.fds(), agent.process.fds())
    for _ in range(50):
        c = server.preview(port)
        c.request("GET", "/bytes/10000000")
        c.head()
        c.close()
    wait_until(lambda: server.process.fds() <= before[0] + 1, 15, "the server's descriptors")
    wait_until(lambda: agent.process.fds() <= before[1] + 1, 15, "the agent's descriptors")
