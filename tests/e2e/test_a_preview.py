# SPDX-License-Identifier: MIT
"""The main job: a program opens a port, and a client elsewhere uses it at its URL."""

import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT, below_ephemeral_port, tool
from http_client import Cut

APP = str(ROOT / "tests/e2e/apps/fault_app.py")
SLOW = os.environ.get("BUILD", "").endswith(("asan", "tsan"))


class World:
    pass


@pytest.fixture(scope="module")
def world(shared):
    w = World()
    w.server = shared.server(default_visibility="public")
    w.agent = shared.agent(w.server)
    w.port = below_ephemeral_port()
    w.app, _ = shared.app([sys.executable, APP, "127.0.0.1", str(w.port)])
    w.agent.wait_port(w.port)
    return w


def get(world, target, fields=()):
    with world.server.preview(world.port) as c:
        return c.get(target, fields)


def test_an_opened_port_answers_at_its_url_and_a_closed_one_is_gone(stack):
    server = stack.server(default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    (stack.place / "www").mkdir()
    (stack.place / "www/index.html").write_text("<h1>hello from a container</h1>")
    app = stack.process([sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(port)],
                        cwd=stack.place / "www")
    event = agent.wait_port(port)
    assert event["url"] == "https://%d-demo.preview.localhost:%d/" % (port, server.port)
    assert event["address"] == "127.0.0.1"
    assert event["pid"] == app.pid
    assert "python" in event["process"]
    with server.preview(port) as c:
        a = c.get("/")
        assert (a.status, a.body) == (200, b"<h1>hello from a container</h1>")
    app.kill()
    agent.wait_event("port.closed", port=port)


def test_an_app_that_listens_on_ipv6_loopback_only_works(stack):
    server = stack.server(default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "::1", str(port)])
    assert agent.wait_port(port)["address"] == "::1"
    with server.preview(port) as c:
        assert c.get("/").body == b"ok\n"


def test_one_connection_carries_many_requests(world):
    with world.server.preview(world.port) as c:
        for i in range(50):
            a = c.get("/echo?n=%d" % i)
            assert a.status == 200
            assert a.json()["target"] == "/echo?n=%d" % i


def test_pipelined_requests_are_answered_in_order(world):
    with world.server.preview(world.port) as c:
        for i in range(20):
            c.request("GET", "/echo?n=%d" % i)
        for i in range(20):
            assert c.answer().json()["target"] == "/echo?n=%d" % i


def test_request_bodies_pass_with_length_and_chunked_with_trailers(world):
    body = os.urandom(300000)
    with world.server.preview(world.port) as c:
        c.request("POST", "/echo", body=body)
        assert c.answer().json()["length"] == len(body)
        c.request("POST", "/echo", body=[body[:1], body[1:70000], body[70000:]])
        assert c.answer().json()["length"] == len(body)
        c.send(("POST /echo HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n"
                "\r\n5;ext=1\r\nhello\r\n0\r\nX-End: yes\r\n\r\n" % c.host).encode())
        assert c.answer().json()["trailers"] == ["X-End: yes"]


def test_response_bodies_pass_chunked_with_trailers_and_until_close(world):
    with world.server.preview(world.port) as c:
        a = c.get("/chunked")
        assert a.body == b"hello world"
        assert a.trailers == [("x-sum", "11")]
        assert c.get("/until-close").body == b"until the end"
        assert c.get("/http10").body == b"old"
        assert c.get("/").body == b"ok\n"  # the client's connection goes on


def test_interim_answers_head_and_bodiless_answers_pass_as_sent(world):
    with world.server.preview(world.port) as c:
        interim = []
        c.request("GET", "/early-hints")
        assert c.answer(keep_1xx=interim).body == b"ok\n"
        assert [(a.status, a.get("link")) for a in interim] == [(103, "</a.css>; rel=preload")]
        c.request("HEAD", "/head")
        a = c.answer("HEAD")
        assert (a.status, a.get("content-length"), a.body) == (200, "12345", b"")
        a = c.get("/no-content")
        assert (a.status, a.get("x-kind")) == (204, "empty")
        assert c.get("/not-modified").status == 304
        assert c.get("/").body == b"ok\n"


def test_expect_continue_is_answered_by_the_app(world):
    with world.server.preview(world.port) as c:
        c.send(("POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\n"
                "Expect: 100-continue\r\n\r\n" % c.host).encode())
        assert c.head().status == 100
        c.send(b"hello")
        assert c.answer().json()["length"] == 5


def test_ranges_pass_untouched(world, stack):
    port = below_ephemeral_port()
    stack.process([tool("origin"), str(port)])
    world.agent.wait_port(port)
    with world.server.preview(world.port) as c:
        head = c.get("/echo", [("Range", "bytes=3-9"), ("If-Range", '"x"')]).json()["head"].lower()
        assert "range: bytes=3-9" in head and 'if-range: "x"' in head


def test_events_arrive_as_they_are_sent(world):
    late = []
    with world.server.preview(world.port) as c:
        c.request("GET", "/events")
        assert c.head().get("content-type") == "text/event-stream"
        count = 0
        while True:
            try:
                piece = c.chunk()
            except Cut:
                break
            if not piece:
                break
            now = time.time()
            for line in piece.decode().splitlines():
                if line.startswith("data:"):
                    late.append(now - float(line.split()[2]))
                    count += 1
    assert count == 10
    # Events come 100 ms apart; one that waited for the next, or for a buffer to fill, shows.
    assert sorted(late)[5] < 0.05, late


def test_localhost_mode_shows_the_app_its_own_address(world):
    host = "%d-demo.preview.localhost" % world.port
    here = "https://%s:%d" % (host, world.server.port)
    with world.server.preview(world.port) as c:
        c.request("GET", "/echo", [
            ("Origin", here), ("Referer", here + "/page?x=1"), ("Cookie", "a=b"),
            ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Host", "evil.example"),
            ("Forwarded", "for=6.6.6.6"), ("Connection", "X-Hop"), ("X-Hop", "1")])
        head = c.answer().json()["head"]
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    lower = {k.lower(): v for k, v in fields.items()}
    assert lower["host"] == "localhost:%d" % world.port
    assert lower["origin"] == "http://localhost:%d" % world.port
    assert lower["referer"] == "http://localhost:%d/page?x=1" % world.port
    assert lower["cookie"] == "a=b"
    assert lower["tunnel-public-url"].rstrip("/") == here
    assert lower["x-forwarded-for"] == "127.0.0.1"
    assert not {"x-forwarded-host", "forwarded", "x-hop", "x-forwarded-proto"} & set(lower)


def test_a_foreign_origin_passes_as_sent(world):
    for origin in ("https://evil.example", "null"):
        with world.server.preview(world.port) as c:
            head = c.get("/echo", [("Origin", origin)]).json()["head"]
            assert "origin: %s" % origin in head.lower()


def test_redirects_to_localhost_become_the_preview(world):
    with world.server.preview(world.port) as c:
        a = c.get("/redirect?http://localhost:%d/next" % world.port)
        assert a.get("location") == "https://%s/next" % c.host
        a = c.get("/redirect?http://127.0.0.1:%d/next" % world.port)
        assert a.get("location") == "https://%s/next" % c.host
        for other in ("https://elsewhere.example/x", "/relative", "http://localhost:1/closed"):
            assert c.get("/redirect?" + other).get("location") == other


def test_a_large_body_survives_both_ways(world, stack):
    size = (1 << 26) + 12345 if SLOW else (2 << 30) + 12345
    port = below_ephemeral_port()
    stack.app([tool("origin"), str(port)])
    world.agent.wait_port(port)
    url = "https://%d-demo.preview.localhost:%d" % (port, world.server.port)
    curl = ["curl", "-sS", "--cacert", world.server.certs.ca, "--fail", "--no-buffer",
            "--resolve", "%d-demo.preview.localhost:%d:127.0.0.1" % (port, world.server.port)]
    wanted = subprocess.run(curl + ["%s/sha/%d" % (url, size)], capture_output=True, text=True,
                            timeout=120, check=True).stdout.strip()
    down = subprocess.Popen(curl + ["%s/bytes/%d" % (url, size)], stdout=subprocess.PIPE)
    digest = hashlib.sha256()
    for piece in iter(lambda: down.stdout.read(1 << 20), b""):
        digest.update(piece)
    assert down.wait() == 0
    assert digest.hexdigest() == wanted
    source = subprocess.Popen(curl + ["%s/bytes/%d" % (url, size)], stdout=subprocess.PIPE)
    up = subprocess.run(curl + ["-T", "-", "-X", "POST", url + "/upload"], stdin=source.stdout,
                        capture_output=True, text=True, timeout=300)
    source.stdout.close()
    assert up.returncode == 0, up.stderr
    assert source.wait(30) == 0
    assert up.stdout.split() == [str(size), wanted]


def test_five_hundred_requests_at_once(world):
    def one(i):
        with world.server.preview(world.port, timeout=60) as c:
            a = c.get("/echo?n=%d" % i)
            return a.status == 200 and a.json()["target"] == "/echo?n=%d" % i
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        clients = [pool.submit(one, i) for i in range(500)]
        assert all(f.result() for f in clients)


def test_a_websocket_echoes_messages_of_all_sizes(world, stack, npm):
    port = below_ephemeral_port()
    env = dict(os.environ, NPM_FOLDER=str(npm), CA_FILE=world.server.certs.ca)
    stack.app(["node", str(ROOT / "tests/e2e/apps/ws_echo.mjs"), "127.0.0.1", str(port)], env=env)
    world.agent.wait_port(port)
    sizes = [1, 2, 125, 126, 127, 1000, 65535, 65536, 65537, 1 << 20, 16 << 20]
    done = subprocess.run(
        ["node", str(ROOT / "tests/e2e/apps/ws_client.mjs"),
         "wss://%s/" % world.server.host(port, "demo"), *map(str, sizes)],
        env=env, capture_output=True, text=True, timeout=120)
    result = json.loads(done.stdout)
    assert result == {"ok": True, "count": 2 * len(sizes), "code": 1000}, done.stderr


def test_a_page_on_one_port_may_call_an_api_on_another(world, stack):
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    world.agent.wait_port(port)
    page = "https://" + world.server.host(world.port, "demo")
    with world.server.preview(port) as c:
        head = c.get("/echo", [("Origin", page)]).json()["head"]
        assert "origin: http://localhost:%d" % world.port in head.lower()
        import base64
        want = base64.urlsafe_b64encode(
            b"Access-Control-Allow-Origin: http://localhost:%d" % world.port).decode()
        a = c.get("/headers?" + want, [("Origin", page)])
        assert a.get("access-control-allow-origin") == page


def test_ports_that_come_and_go_do_not_disturb_a_transfer(world, stack):
    """Control messages and bulk data share the link, in both directions."""
    import socket
    port = below_ephemeral_port()
    stack.app([tool("origin"), str(port)])
    world.agent.wait_port(port)
    mark = world.agent.process.mark()
    url = "https://" + world.server.host(port, "demo")
    curl = ["curl", "-sS", "--cacert", world.server.certs.ca, "--fail", "-o", "/dev/null",
            "--resolve", "%s:127.0.0.1" % world.server.host(port, "demo")]
    size = 1 << (26 if SLOW else 30)
    blob = stack.place / "blob"
    with open(blob, "wb") as f:
        f.truncate(size)
    running = [stack.process(curl + ["-T", str(blob), "-X", "POST", "-H", "Expect:", url + "/sink"]),
               stack.process(curl + ["%s/bytes/%d" % (url, size)])]
    while any(p.alive() for p in running):
        listeners = []
        for _ in range(20):
            s = socket.socket()
            s.bind(("127.0.0.1", below_ephemeral_port()))
            s.listen()
            listeners.append(s)
        time.sleep(0.3)
        for s in listeners:
            s.close()
        time.sleep(0.3)
    assert [p.wait() for p in running] == [0, 0], [p.output() for p in running]
    assert not any("link.down" in s for s in world.agent.process.output()[mark:])
