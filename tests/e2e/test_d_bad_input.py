# SPDX-License-Identifier: MIT
"""Hostile requests: the answer of the table, one log line that names the rule, nothing forwarded,
and no other connection disturbed."""

import socket
import sys
import time

import pytest

from conftest import DOMAIN, ROOT, below_ephemeral_port
from http_client import Cut

APP = str(ROOT / "tests/e2e/apps/fault_app.py")


class World:
    pass


@pytest.fixture(scope="module")
def world(shared):
    w = World()
    w.server = shared.server(default_visibility="public", limits={"hold_ms": 1000})
    w.agent = shared.agent(w.server)
    w.port = below_ephemeral_port()
    shared.app([sys.executable, APP, "127.0.0.1", str(w.port)])
    w.agent.wait_port(w.port)
    w.host = w.server.host(w.port, "demo")
    return w


GET = "GET /bad HTTP/1.1\r\nHost: {h}\r\n"
POST = "POST /bad HTTP/1.1\r\nHost: {h}\r\n"
BAD = {
    "two hosts": (GET + "Host: {h}\r\n\r\n", 400),
    "no host": ("GET /bad HTTP/1.1\r\n\r\n", 400),
    "length with coding": (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "two equal lengths": (POST + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "length list": (POST + "Content-Length: 5, 5\r\n\r\nhello", 400),
    "length sign": (POST + "Content-Length: +5\r\n\r\nhello", 400),
    "length huge": (POST + "Content-Length: 99999999999999999999\r\n\r\n", 400),
    "coding list": (POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "coding comma": (POST + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
    "coding odd": (POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "two codings": (POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding in 1.0": ("POST /bad HTTP/1.0\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "bare lf": ("GET /bad HTTP/1.1\nHost: {h}\n\n", 400),
    "bare lf in fields": (GET + "X: 1\nY: 2\r\n\r\n", 400),
    "bare cr": (GET + "X: 1\rY: 2\r\n\r\n", 400),
    "nul": (GET + "X: a\0b\r\n\r\n", 400),
    "nul in target": ("GET /bad\0 HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "nul in host": ("GET /bad HTTP/1.1\r\nHost: {h}\0\r\n\r\n", 400),
    "obs-fold": (GET + "X: 1\r\n  2\r\n\r\n", 400),
    "space before colon": (GET + "X : 1\r\n\r\n", 400),
    "no colon": (GET + "X\r\n\r\n", 400),
    "empty name": (GET + ": 1\r\n\r\n", 400),
    "odd name": (GET + "X(y): 1\r\n\r\n", 400),
    "absolute-form": ("GET http://{h}/bad HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "authority-form": ("CONNECT {h} HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "asterisk": ("GET * HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "no slash": ("GET bad HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "space in target": ("GET /b ad HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "fragment": ("GET /bad#x HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "two spaces": ("GET  /bad HTTP/1.1\r\nHost: {h}\r\n\r\n", 400),
    "version 2": ("GET /bad HTTP/2.0\r\nHost: {h}\r\n\r\n", 400),
    "version 0.9": ("GET /bad\r\n\r\n", 400),
    "lower-case http": ("GET /bad http/1.1\r\nHost: {h}\r\n\r\n", 400),
    "h2 preface": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "host with user": ("GET /bad HTTP/1.1\r\nHost: me@{h}\r\n\r\n", 400),
    "host with path": ("GET /bad HTTP/1.1\r\nHost: {h}/x\r\n\r\n", 400),
    "host port letters": ("GET /bad HTTP/1.1\r\nHost: 3000-demo.preview.localhost:80a\r\n\r\n", 400),
    "101 fields": (GET + "".join("X-%d: 1\r\n" % i for i in range(101)) + "\r\n", 431),
    "fields of 70 KiB": (GET + "X: " + "a" * 71000 + "\r\n\r\n", 431),
    "target of 40 KiB": ("GET /" + "a" * 40000 + " HTTP/1.1\r\nHost: {h}\r\n\r\n", 414),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_heads_are_refused_and_nothing_is_forwarded(world, name):
    text, status = BAD[name]
    mark = world.server.process.mark()
    with world.server.preview(world.port) as c:
        try:
            c.send(text.format(h=world.host).encode("latin-1"))
        except OSError:
            pass  # the answer may come before all of it was taken
        a = c.answer()
        assert a.status == status
        assert a.error == {400: "bad-request", 431: "too-large", 414: "too-large"}[status]
        assert c.at_end()
    world.server.process.wait_line(
        lambda s: '"rule"' in s or "rule=" in s, 10, mark, "err")
    with world.server.preview(world.port) as c:
        seen = c.get("/seen").json()
        assert not any("/bad" in head for head in seen)


CHUNKS = {
    "sign": "+5\r\nhello\r\n0\r\n\r\n",
    "minus": "-5\r\nhello\r\n0\r\n\r\n",
    "0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "17 digits": "00000000000000005\r\nhello\r\n0\r\n\r\n",
    "space": " 5\r\nhello\r\n0\r\n\r\n",
    "no size": "\r\nhello\r\n0\r\n\r\n",
    "bare lf": "5\nhello\n0\n\n",
    "missing crlf": "5\r\nhelloX\r\n0\r\n\r\n",
    "megabyte of extensions": "5;" + "a" * (1 << 20) + "\r\nhello\r\n0\r\n\r\n",
    "many extensions": "".join("1;%s\r\nx\r\n" % ("a" * 60) for _ in range(1000)) + "0\r\n\r\n",
    "framing in trailers": "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "host in trailers": "5\r\nhello\r\n0\r\nHost: x\r\n\r\n",
    "nul in trailers": "5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_bad_chunks_end_the_exchange(world, name):
    with world.server.preview(world.port) as c:
        c.send((POST + "Transfer-Encoding: chunked\r\n\r\n").replace("/bad", "/echo")
               .format(h=world.host).encode())
        try:
            c.send(CHUNKS[name].encode("latin-1"))
        except OSError:
            pass
        try:
            a = c.answer()
            assert (a.status, a.error) == (400, "bad-request")
        except Cut:
            pass  # a request already under way may only be cut
        except (ConnectionError, OSError):
            pass
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"


def test_an_h2c_upgrade_is_not_forwarded(world):
    with world.server.preview(world.port) as c:
        a = c.get("/echo", [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"),
                            ("HTTP2-Settings", "AAMAAABkAAQAAP__")])
        head = a.json()["head"].lower()
        assert "upgrade" not in head and "http2-settings" not in head


def test_a_head_that_never_ends_is_refused_within_its_deadline(world):
    with world.server.preview(world.port, timeout=25) as c:
        c.send(b"GET / HTTP/1.1\r\nHost: ")
        start = time.monotonic()
        a = c.answer()
        assert (a.status, a.error) == (400, "bad-request")
        assert 5 < time.monotonic() - start < 20
        assert c.at_end()


def test_plain_http_on_the_tls_port_is_closed(world):
    with socket.create_connection(world.server.address, timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            data = s.recv(1000)
        except ConnectionResetError:
            data = b""
        assert b"200" not in data


def test_a_hello_in_single_bytes_and_one_that_stops(world):
    stopped = socket.create_connection(world.server.address, timeout=30)
    stopped.sendall(b"\x16\x03\x01")
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"
    incoming, outgoing = __import__("ssl").MemoryBIO(), __import__("ssl").MemoryBIO()
    tls = world.server.certs.context().wrap_bio(
        incoming, outgoing, server_hostname="%d-demo.%s" % (world.port, DOMAIN))
    with socket.create_connection(world.server.address, timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent_hello = False
        while True:
            try:
                tls.do_handshake()
                break
            except __import__("ssl").SSLWantReadError:
                data = outgoing.read()
                if not sent_hello:
                    for i in range(len(data)):
                        s.sendall(data[i:i + 1])
                    sent_hello = True
                elif data:
                    s.sendall(data)
                incoming.write(s.recv(65536))
        s.sendall(outgoing.read())
    stopped.settimeout(30)
    try:
        assert stopped.recv(100) == b""  # closed at the deadline of the classification
    except ConnectionResetError:
        pass
    stopped.close()


def test_a_foreign_server_name_is_misdirected(world):
    context = world.server.certs.context()
    context.check_hostname = False
    for name in ("3000-demo.elsewhere.example", "elsewhere.example"):
        with world.server.client(name, context=context) as c:
            a = c.get("/")
            assert (a.status, a.error) == (421, "misdirected")


def test_each_request_is_routed_by_its_own_authority(world):
    """A client (or a balancer) may reuse a connection for other hosts that we serve."""
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"
        for i in range(8):  # ids of both workers
            c.request("GET", "/", host="3000-other%d.%s" % (i, DOMAIN))
            a = c.answer()
            assert a.error == "agent-offline", (a.status, a.error)
            c.request("GET", "/")
            assert c.answer().body == b"ok\n"


def test_a_body_that_stops_and_a_client_that_goes_disturb_nobody(world):
    gone = world.server.preview(world.port)
    gone.send((POST + "Content-Length: 1000\r\n\r\nhalf").replace("/bad", "/echo")
              .format(h=world.host).encode())
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"
    gone.close()
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"


def test_a_thousand_clients_that_send_one_byte_cost_next_to_nothing(world):
    clients = []
    for _ in range(1000):
        s = socket.create_connection(world.server.address, timeout=10)
        s.sendall(b"\x16")
        clients.append(s)
    time.sleep(0.5)
    before, start = world.server.process.cpu_s(), time.monotonic()
    time.sleep(4)
    share = (world.server.process.cpu_s() - before) / (time.monotonic() - start)
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"
    for s in clients:
        s.close()
    assert share < 0.02, "%.1f %% of a core" % (100 * share)
