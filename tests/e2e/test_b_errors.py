# SPDX-License-Identifier: MIT
"""The table of errors: each code, its status, and the form that the client can use."""

import os
import sys
import threading
import time

import pytest

from conftest import DOMAIN, ROOT, below_ephemeral_port
from http_client import Cut

APP = str(ROOT / "tests/e2e/apps/fault_app.py")

NAVIGATION = [("Accept", "text/html,*/*;q=0.8"), ("Sec-Fetch-Mode", "navigate"),
              ("Sec-Fetch-Dest", "document"), ("Sec-Fetch-Site", "none")]
FETCH = [("Accept", "*/*"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty"),
         ("Sec-Fetch-Site", "same-origin")]
CURL = [("Accept", "*/*"), ("User-Agent", "curl/8")]
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]


class World:
    pass


@pytest.fixture(scope="module")
def world(shared):
    w = World()
    w.server = shared.server(default_visibility="public", limits={"hold_ms": 700})
    w.agent = shared.agent(w.server)
    w.port = below_ephemeral_port()
    shared.app([sys.executable, APP, "127.0.0.1", str(w.port)])
    w.agent.wait_port(w.port)
    return w


def ask(world, host, target="/", fields=(), **kw):
    with world.server.client(host, **kw) as c:
        c.request("GET", target, fields)
        return c.answer()


FORMS = [("navigation", NAVIGATION, "text/html"), ("fetch", FETCH, "application/json"),
         ("curl", CURL, "text/plain")]


@pytest.mark.parametrize("name,fields,kind", FORMS, ids=[f[0] for f in FORMS])
def test_a_closed_port_is_said_in_each_form(world, name, fields, kind):
    a = ask(world, world.server.host(1, "demo"), "/", fields)
    assert (a.status, a.error) == (502, "port-closed")
    assert a.get("content-type").startswith(kind)
    assert "no-store" in a.get("cache-control")
    if kind == "application/json":
        assert a.json()["error"] == "port-closed"


@pytest.mark.parametrize("name,fields,kind", FORMS, ids=[f[0] for f in FORMS])
def test_an_absent_sandbox_is_offline_with_retry_after(world, name, fields, kind):
    a = ask(world, world.server.host(3000, "nobody"), "/", fields)
    assert (a.status, a.error) == (503, "agent-offline")
    assert int(a.get("retry-after")) >= 1
    assert a.get("content-type").startswith(kind)


def test_a_websocket_to_nothing_gets_a_status(world):
    a = ask(world, world.server.host(1, "demo"), "/", UPGRADE)
    assert (a.status, a.error) == (502, "port-closed")


@pytest.mark.parametrize("host,status,code", [
    ("{d}", 404, None),                       # the apex has no such path
    ("www.{d}", 404, "no-such-preview"),
    ("03000-demo.{d}", 404, "no-such-preview"),
    ("65536-demo.{d}", 404, "no-such-preview"),
    ("+80-demo.{d}", 400, "bad-request"),
    ("3000-.{d}", 404, "no-such-preview"),
    ("3000-a--b.{d}", 404, "no-such-preview"),
    ("3000-demo.sub.{d}", 404, "no-such-preview"),
    ("x" * 64 + ".{d}", 400, "bad-request"),
    ("3000-demo..{d}", 400, "bad-request"),
    ("3000-demo.elsewhere.example", 421, "misdirected"),
    ("127.0.0.1", 421, "misdirected"),
])
def test_hosts_that_are_no_preview(world, host, status, code):
    with world.server.client("3000-demo.%s" % DOMAIN) as c:
        c.request("GET", "/nothing-here", CURL, host=host.format(d=DOMAIN))
        a = c.answer()
    assert a.status == status
    if code is not None:
        assert a.error == code


def test_upper_case_and_a_trailing_dot_are_the_same_host(world):
    for host in ("%d-DEMO.Preview.LocalHost:%d" % (world.port, world.server.port),
                 "%d-demo.%s.:%d" % (world.port, DOMAIN, world.server.port)):
        with world.server.preview(world.port) as c:
            c.request("GET", "/", host=host)
            assert c.answer().body == b"ok\n"


def test_reserved_paths_are_never_forwarded(world):
    with world.server.preview(world.port) as c:
        a = c.get("/.tunnel/anything")
        assert a.status == 404
        seen = c.get("/seen").json()
        assert not any("/.tunnel/" in head for head in seen)


def test_a_request_waits_for_its_port(stack):
    server = stack.server(default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    result = {}

    def wait_for_it():
        with server.preview(port) as c:
            result["answer"] = c.get("/")
    t = threading.Thread(target=wait_for_it)
    t.start()
    time.sleep(0.5)
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent.wait_port(port)
    t.join(15)
    assert result["answer"].body == b"ok\n"


def test_a_request_waits_for_the_link_of_a_sandbox_that_was_here(stack):
    server = stack.server(default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent.wait_port(port)
    agent.stop()
    result = {}

    def wait_for_it():
        with server.preview(port) as c:
            result["answer"] = c.get("/")
    t = threading.Thread(target=wait_for_it)
    t.start()
    time.sleep(0.3)
    stack.agent(server)
    t.join(15)
    assert result["answer"].body == b"ok\n"


def test_an_excluded_port_is_closed_at_once(stack):
    server = stack.server(default_visibility="public", limits={"hold_ms": 60000})
    stack.agent(server, "--exclude", "9000-9100")
    with server.preview(9050, timeout=10) as c:
        a = c.get("/", CURL)
    assert (a.status, a.error) == (502, "port-closed")


BAD_ANSWERS = ["/garbage", "/nothing", "/two-lengths", "/length-and-chunked", "/bare-lf",
               "/unasked-101", "/big-head"]


@pytest.mark.parametrize("path", BAD_ANSWERS)
def test_an_answer_that_is_no_http_is_bad_upstream(world, path):
    a = ask(world, world.server.host(world.port, "demo"), path, CURL)
    assert (a.status, a.error) == (502, "bad-upstream")


@pytest.mark.parametrize("path", ["/half-body", "/half-chunked", "/bad-chunk", "/reset"])
def test_an_answer_that_is_cut_is_seen_to_be_cut(world, path):
    with world.server.preview(world.port) as c:
        c.request("GET", path, CURL)
        try:
            a = c.answer()
            # found before a byte of the answer had gone out
            assert (a.status, a.error) == (502, "bad-upstream")
        except Cut:
            pass


def test_bytes_after_an_answer_reach_nobody(world):
    with world.server.preview(world.port) as c:
        a = c.get("/after-end")
        # bytes that came with the answer make it a bad one; later ones end the stream
        assert a.body == b"ok\n" or (a.status, a.error) == (502, "bad-upstream")
    with world.server.preview(world.port) as c:
        assert b"stolen" not in c.get("/echo").body


def test_no_app_can_forge_our_error_field(world):
    assert ask(world, world.server.host(world.port, "demo"), "/forged").error is None


def test_a_reused_stream_that_the_app_closes_is_repeated_once(world):
    with world.server.preview(world.port) as c:
        for _ in range(20):
            assert c.get("/once").body == b"ok\n"
        for _ in range(10):
            assert c.get("/once").status == 200
            time.sleep(0.02)


def test_an_app_killed_in_a_download_is_seen_as_a_cut(world, stack):
    from conftest import tool
    port = below_ephemeral_port()
    app, _ = stack.app([tool("origin"), str(port)])
    world.agent.wait_port(port)
    with world.server.preview(port) as c:
        c.request("GET", "/bytes/%d" % (1 << 30))
        assert c.head().status == 200
        c.take(1 << 20)
        app.kill()
        with pytest.raises(Cut):
            c.skip(1 << 30)
    assert os.path.exists("/proc/%d" % world.server.process.pid)
