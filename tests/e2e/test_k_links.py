# SPDX-License-Identifier: MIT
"""Links that misbehave: agents that send what no agent sends, and a server that asks an agent for
what it did not publish. Nobody else notices."""

import base64
import json
import os
import socket
import ssl
import struct
import sys
import threading

import pytest

import ws_raw
from conftest import DOMAIN, ROOT, below_ephemeral_port
from http_client import Cut
from ws_raw import ACCEPT, CREDIT, DATA, GOAWAY, OPEN, PING, RESET, mux

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
    w.token = w.server.token("rogue")
    return w


def upgrade(world, token, host=None, server_name=None, protocol="tunnel.v1", extra=()):
    """The upgrade by hand: (client, answer)."""
    host = host or "0-rogue.%s:%d" % (DOMAIN, world.server.port)
    c = world.server.client(host, server_name=server_name)
    fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
              ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode())]
    if protocol:
        fields.append(("Sec-WebSocket-Protocol", protocol))
    if token:
        fields.append(("Authorization", "Bearer " + token))
    c.request("GET", "/.tunnel/v1/link", fields + list(extra))
    return c, c.answer()


HELLO = {"type": "hello", "version": 1, "instance": "rogue-1", "agent": "rogue/1", "window": 65536,
         "max_streams": 100, "features": []}


def link(world, hello=True):
    c, a = upgrade(world, world.token)
    assert a.status == 101, (a.status, a.body)
    assert a.get("sec-websocket-protocol") == "tunnel.v1"
    assert a.get("sec-websocket-extensions") is None
    w = ws_raw.Socket(c.sock, True)
    w.buffer = c.buffer
    if hello:
        w.text(HELLO)
        assert w.receive_text("welcome")["version"] == 1
    return w


def undisturbed(world):
    with world.server.preview(world.port) as c:
        assert c.get("/").body == b"ok\n"
    assert world.agent.process.alive()


def test_a_link_by_hand_carries_a_request(world):
    w = link(world)
    w.text({"type": "port", "port": 5000})
    assert "5000-rogue" in w.receive_text("url")["url"]
    with world.server.preview(5000, "rogue") as c:
        c.request("GET", "/by-hand")
        data = b""
        while len(data) < 8 or data[0] != OPEN:
            opcode, data = w.receive()
        stream = struct.unpack("!I", data[4:8])[0]
        assert struct.unpack("!H", data[8:10])[0] == 5000
        w.binary(mux(ACCEPT, stream) +
                 mux(DATA, stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
        assert c.answer().body == b"hi"
    w.sock.close()


BAD_FRAMES = {
    "unknown type": mux(77, 2),
    "reserved flag": mux(PING, 0, b"12345678", flags=128),
    "huge length": mux(DATA, 2, b"", length=65535),
    "never opened": mux(DATA, 2, b"x"),
    "credit of nothing": mux(CREDIT, 200, struct.pack("!Q", 1 << 20)),
    "odd open": mux(OPEN, 3, b"\0\1\0\0"),
    "our own ids": mux(OPEN, 2, b"\0\1\0\0"),
    "stream 0": mux(DATA, 0, b"x"),
    "ping on a stream": mux(PING, 5, b"12345678"),
    "unasked pong": mux(7, 0, b"12345678"),
    "no such reason": mux(GOAWAY, 0, b"\xff"),
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_against_the_protocol_ends_that_link_only(world, name):
    mark = world.server.process.mark()
    w = link(world)
    w.binary(BAD_FRAMES[name])
    assert w.close_status() in (1002, None)
    world.server.process.wait_line(lambda s: "rogue" in s and "link" in s or "rogue" in s
                                   and "session" in s, 10, mark, "err")
    undisturbed(world)


@pytest.mark.parametrize("name,send", [
    ("frame before the hello", lambda w: w.binary(mux(PING, 0, b"12345678"))),
    ("no hello but a port", lambda w: w.text({"type": "port", "port": 1})),
    ("hello without instance", lambda w: w.text({"type": "hello", "version": 1})),
    ("hello of wrong types", lambda w: w.text(dict(HELLO, window="large"))),
    ("hello with window 0", lambda w: w.text(dict(HELLO, window=0))),
    ("no JSON", lambda w: w.send(1, b"hello?")),
    ("duplicates", lambda w: w.send(1, b'{"type":"hello","type":"hello"}')),
    ("deep", lambda w: w.send(1, b'{"type":' + b"[" * 5000)),
    ("over the bound", lambda w: w.send(1, b" " * 70000)),
    ("an unmasked frame", lambda w: w.sock.sendall(ws_raw.frame(1, b"{}", mask=False))),
    ("reserved bits", lambda w: w.sock.sendall(ws_raw.frame(1, b"{}", rsv=4))),
    ("a huge frame", lambda w: w.sock.sendall(ws_raw.frame(2, b"x" * 100, length=1 << 62))),
])
def test_a_start_against_the_protocol_ends_that_link_only(world, name, send):
    w = link(world, hello=False)
    send(w)
    assert w.close_status() != 1000
    undisturbed(world)


def test_credit_that_shrinks_and_data_beyond_it(world):
    for frames in (lambda s: mux(CREDIT, s, struct.pack("!Q", 1)),
                   lambda s: mux(CREDIT, s, struct.pack("!Q", 1 << 63)),
                   lambda s: mux(ACCEPT, s) + mux(ACCEPT, s),
                   lambda s: mux(ACCEPT, s) + mux(DATA, s, b"x", flags=1) + mux(DATA, s, b"x")):
        w = link(world)
        w.text({"type": "port", "port": 5000})
        w.receive_text("url")
        with world.server.preview(5000, "rogue") as c:
            c.request("GET", "/")
            data = b""
            while len(data) < 8 or data[0] != OPEN:
                _, data = w.receive()
            w.binary(frames(struct.unpack("!I", data[4:8])[0]))
            assert w.close_status() in (1002, None)
            try:
                assert c.answer().status in (502, 503)
            except Cut:
                pass
        undisturbed(world)


@pytest.mark.parametrize("what,status", [
    ("no token", 401), ("wrong host", 421), ("no subprotocol", 400), ("other sandbox", 403)])
def test_refused_upgrades(world, what, status):
    if what == "no token":
        c, a = upgrade(world, None)
    elif what == "wrong host":
        c, a = upgrade(world, world.token, host="0-demo.%s:%d" % (DOMAIN, world.server.port),
                       server_name="0-rogue." + DOMAIN)
    elif what == "no subprotocol":
        c, a = upgrade(world, world.token, protocol=None)
    else:
        c, a = upgrade(world, world.server.token("somebody"))
    assert a.status == status, (a.status, a.body)
    assert world.token not in a.body.decode("latin-1")
    c.close()


def test_ports_beyond_the_bound_and_names_not_allowed_are_refused_in_words(world):
    w = link(world)
    w.text({"type": "port", "port": 5001, "visibility": "public"})
    answer = w.receive_text("url")
    assert "refused" not in answer or answer["refused"]
    w.text({"type": "port", "port": 5002, "name": "shop"})
    assert w.receive_text("url")["refused"]
    for i in range(1100):
        w.text({"type": "port", "port": 10000 + i})
    refused = 0
    for i in range(1100):
        refused += "refused" in w.receive_text("url")
    assert refused >= 1100 - 1024
    w.sock.close()
    undisturbed(world)


class RogueServer:
    """Speaks the server's side to an agent, over real TLS, and asks for what it likes."""

    def __init__(self, certs, talk):
        self.talk, self.result = talk, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certs.cert, certs.key)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return "https://%s:%d" % (DOMAIN, self.listener.getsockname()[1])

    def serve(self):
        raw, _ = self.listener.accept()
        raw.settimeout(20)
        sock = self.context.wrap_socket(raw, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        lower = {k.lower(): v for k, v in fields.items()}
        sock.sendall(("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                      "Sec-WebSocket-Protocol: tunnel.v1\r\nSec-WebSocket-Accept: %s\r\n\r\n"
                      % ws_raw.accept_key(lower["sec-websocket-key"])).encode())
        w = ws_raw.Socket(sock, False)
        hello = w.receive_text("hello")
        w.text({"type": "welcome", "version": 1, "window": 65536, "max_streams": 0,
                "url_form": "https://{port}-demo.%s/" % DOMAIN, "features": []})
        self.result = self.talk(w, hello)

    def stop(self):
        self.listener.close()


def frames_of(w):
    """Mux frames from the link: (type, stream, payload)."""
    data = b""
    while True:
        while len(data) < 8 or len(data) < 8 + struct.unpack("!H", data[2:4])[0]:
            opcode, more = w.receive()
            if opcode == 8:
                return
            if opcode == 2:
                data += more
        kind, _, n, stream = struct.unpack("!BBHI", data[:8])
        yield kind, stream, data[8:8 + n]
        data = data[8 + n:]


def test_an_agent_opens_only_what_it_publishes(stack):
    """Whatever the server says: a port that listens here but is not published stays closed."""
    secret = socket.create_server(("127.0.0.1", 0))
    secret.settimeout(0.5)
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])

    def talk(w, hello):
        while w.receive_text("port")["port"] != port:
            pass
        ask = secret.getsockname()[1]
        w.binary(mux(OPEN, 2, struct.pack("!HBB", ask, 0, 0)) + mux(DATA, 2, b"GET / HTTP/1.1\r\n\r\n"))
        w.binary(mux(OPEN, 4, struct.pack("!HBB", port, 0, 0)))
        w.binary(mux(DATA, 4, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        got = {2: [], 4: []}
        for kind, stream, payload in frames_of(w):
            if stream in got:
                got[stream].append((kind, payload))
            if stream == 4 and kind == DATA:
                return got
    rogue = stack.keep(RogueServer(stack.certs, talk))
    token = jwt_without_meaning("demo")
    server = World()
    server.certs, server.url = stack.certs, rogue.url
    stack.agent(server, token=token, wait=False, url=rogue.url)
    rogue.thread.join(30)
    assert rogue.result, "the agent did not answer"
    assert rogue.result[2] == [(RESET, b"\x03")]  # not-published
    assert rogue.result[4][0][0] == ACCEPT
    with pytest.raises(socket.timeout):
        secret.accept()
    secret.close()


@pytest.mark.parametrize("name", ["unknown type", "never opened", "stream 0", "garbage"])
def test_an_agent_survives_a_server_that_breaks_the_protocol(stack, name):
    def talk(w, hello):
        w.binary(BAD_FRAMES[name] if name != "never opened" else mux(DATA, 4, b"x"))
        return w.close_status()
    rogue = stack.keep(RogueServer(stack.certs, talk))
    server = World()
    server.certs, server.url = stack.certs, rogue.url
    agent = stack.agent(server, token=jwt_without_meaning("demo"), wait=False, url=rogue.url)
    rogue.thread.join(30)
    assert rogue.result in (1002, None) and not rogue.thread.is_alive()
    agent.wait_event("link.down", 10)
    assert agent.process.alive()


def jwt_without_meaning(sub):
    """For servers of our own that check nothing; the agent reads sub and exp only."""
    def part(v):
        return base64.urlsafe_b64encode(json.dumps(v).encode()).rstrip(b"=").decode()
    return "%s.%s.%s" % (part({"alg": "EdDSA", "kid": "x"}),
                         part({"aud": "tunnel:link", "sub": sub, "exp": 4102444800}), "AAAA")
