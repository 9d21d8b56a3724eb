# SPDX-License-Identifier: MIT
"""Previews and egress together: the app is in a sandbox that reaches nothing, the agent outside; a real
browser sees the app, and the app sees neither network, token nor agent."""

import os
import re
import signal
import subprocess

import pytest

from conftest import BUILD, ROOT, below_ephemeral_port, free_port, program, tool
from egress_lab import user  # noqa: F401 (fixture)
from processes import Process, wait_until
from test_h_browser import browser  # noqa: F401 (fixture)

# A dev server that also tries to get out, and looks for what it could borrow.
APP = r"""
import http.server, json, os, socket, sys, glob
def tries():
    out = {}
    for host, port in (("203.0.113.66", 80), ("203.0.113.66", 9999), ("127.0.0.1", int(sys.argv[2])), ("example.test", 443)):
        try:
            with socket.create_connection((host, port), 3) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n")
                got = s.recv(100)
            out["%s:%d" % (host, port)] = "refused" if got.startswith(b"HTTP/1.1 403") else "reached"
        except OSError as e:
            out["%s:%d" % (host, port)] = "refused"
    out["environment"] = [k for k in os.environ if "TUNNEL" in k]
    out["processes"] = [open(p).read() for p in glob.glob("/proc/[0-9]*/cmdline")]
    return out
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps(tries()).encode() if self.path == "/tries" else b"<title>sealed</title><p>It works in a sandbox."
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if self.path == "/tries" else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
"""


def test_a_sealed_app_has_its_preview_and_nothing_else(stack, browser, user):
    if user and os.geteuid() != 0:
        pytest.skip("left out: becoming another user needs root")
    server = stack.server()
    port = below_ephemeral_port()
    token = stack.place / "token"
    token.write_text(server.token("demo") + "\n")
    folder = stack.place / "run"
    folder.mkdir()
    argv = [tool("agentd"), "egress", "run", "--policy", "full-isolation", "--up", "--",
            "/usr/bin/python3", "-c", APP, str(port), str(server.port)]
    if user:
        for path in (token, folder):
            os.chown(path, user, user)
        os.chmod(token, 0o600)
        argv = [program("setpriv"), "--reuid=%d" % user, "--regid=%d" % user, "--clear-groups", *argv]
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env.update(TUNNEL_SERVER=server.url, TUNNEL_TOKEN_FILE=str(token), TUNNEL_CA_FILE=server.certs.ca,
               XDG_RUNTIME_DIR=str(folder), HOME="/")
    stack.process(argv, env=env, cwd="/").wait_line(lambda line: line == "listening", 30)

    access = server.token("demo", access=True)
    with server.preview(port) as c:
        found = c.get("/tries", [("X-Tunnel-Token", access)]).json()
    assert {k: v for k, v in found.items() if ":" in k} == {
        "203.0.113.66:80": "refused", "203.0.113.66:9999": "refused", "127.0.0.1:%d" % server.port: "refused",
        "example.test:443": "refused"}
    assert found["environment"] == []
    assert not any("agentd" in p and "egress" not in p for p in found["processes"])
    with server.preview(port) as c:
        assert c.get("/").status == 401  # private as ever

    result = browser.run("page", url="https://%s/?_tunnel=%s" % (server.host(port, "demo"), access),
                         waitFor="It works in a sandbox", screenshot=str(stack.place / "page.png"))
    assert result["status"] == 200


def test_the_example_prints_a_url_that_works_and_ends_with_one_signal():
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env.update(DEMO_PORT=str(free_port()), APP_PORT=str(below_ephemeral_port()))
    p = Process(["sh", str(ROOT / "examples/sandbox.sh"), os.path.relpath(BUILD, ROOT)], env=env, preexec_fn=os.setsid)
    try:
        p.wait_line(lambda s: "Ctrl-C ends all" in s, 40)
        url = re.search(r"https://\S+\?_tunnel=\S+", "\n".join(p.output("out"))).group(0)
        done = subprocess.run(["curl", "-sS", "-k", "-L", "-c", "/dev/null", url], capture_output=True, text=True, timeout=30)
        assert "It works." in done.stdout, done.stderr
        os.killpg(p.pid, signal.SIGINT)  # what Ctrl-C sends
        p.wait(20)
        wait_until(lambda: subprocess.run(["pgrep", "-g", str(p.pid)], capture_output=True).stdout == b"", 10, "all ended")
    finally:
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
