# SPDX-License-Identifier: MIT
"""agentd's command line as a user meets it: exit codes, ports, http, doctor, an empty chroot, bad
certificates."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from conftest import DOMAIN, ROOT, Certs, below_ephemeral_port, tool
from processes import wait_until

APP = str(ROOT / "tests/e2e/apps/fault_app.py")


def run(*argv, env=None, timeout=30, **kw):
    full = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    full.update(env or {})
    return subprocess.run([tool("agentd"), *argv], capture_output=True, text=True, timeout=timeout,
                          env=full, **kw)


def test_version_and_wrong_usage():
    done = run("version")
    assert done.returncode == 0 and "agentd" in done.stdout
    for argv in (["nonsense"], ["up", "--nonsense"], ["http"], ["http", "65536"], ["http", "03000"],
                 ["http", "0"], ["up", "--server", "ftp://x"], ["up", "--token", "secret"]):
        done = run(*argv)
        assert done.returncode == 2, argv
        assert done.stderr and not done.stdout
    assert "secret" not in run("up", "--token", "secret").stderr
    for argv in (["share", "3000"], ["tcp", "22"], ["forward", "a:1"], ["egress", "nonsense"]):
        done = run(*argv)
        assert done.returncode == 2 and done.stderr, argv


def test_ports_lists_what_listens_here(stack):
    port = below_ephemeral_port()
    app, _ = stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    done = run("ports", "--json")
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) == 1 and "ports" in found[0]:
        found = found[0]["ports"]
    mine = [p for p in found if p["port"] == port]
    assert mine and mine[0]["address"] == "127.0.0.1" and mine[0]["pid"] == app.pid
    assert str(port) in run("ports").stdout


def test_http_prints_the_url_alone_and_serves(stack):
    server = stack.server(default_visibility="public")
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent = stack.keep(__import__("conftest").Agent(
        server, server.token("demo"), stack.place / "http", str(port), command="http"))
    agent.argv.remove("--json")
    agent.start()
    line = agent.process.wait_line(lambda s: True, 20, name="out")
    assert line == "https://%s/" % server.host(port, "demo")
    with server.preview(port) as c:
        assert c.get("/").body == b"ok\n"
    # nothing but the one port is published
    other = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(other)])
    time.sleep(0.6)
    assert not any(str(other) in s for s in agent.process.output("out"))


def test_http_has_a_link_of_its_own_where_no_agent_can_listen(stack):
    server = stack.server(default_visibility="public")
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent = stack.agent(server, str(port), command="http", wait=False,
                        env={"XDG_RUNTIME_DIR": "/" + "x" * 120})
    agent.process.wait_line(lambda s: server.host(port, "demo") in s, 20, name="out")
    with server.preview(port) as c:
        assert c.get("/").body == b"ok\n"


def test_http_uses_the_agent_that_runs_here(stack):
    server = stack.server()
    agent = stack.agent(server, token=server.token("demo", "--public"))
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent.wait_port(port)
    with server.preview(port) as c:
        assert c.get("/").status == 401
    done = run("http", str(port), "--public", "--server", server.url,
               env={"XDG_RUNTIME_DIR": agent.runtime_dir})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "https://%s/" % server.host(port, "demo")

    def is_public():
        with server.preview(port) as c:
            return c.get("/").status == 200
    wait_until(is_public, 10, "the port is public")
    assert agent.process.alive()


def test_a_named_preview(stack):
    server = stack.server(default_visibility="public")
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent = stack.keep(__import__("conftest").Agent(
        server, server.token("demo", "--name", "shop"), stack.place / "named", str(port),
        "--name", "shop", command="http")).start()
    agent.process.wait_line(lambda s: "shop." + DOMAIN in s, 20, name="out")
    with server.client("shop.%s:%d" % (DOMAIN, server.port)) as c:
        assert c.get("/").body == b"ok\n"


def test_an_unreachable_server_is_exit_4_once(stack):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        token = stack.place / "token"
        token.write_text("x.y.z")
        done = run("up", "--once", "--server", "https://%s:%d" % (DOMAIN, port), "--sandbox", "demo",
                   "--token-file", str(token))
    assert done.returncode == 4 and "connect" in done.stderr.lower()


def test_an_intercepted_connection_names_the_issuer(stack, place):
    """The server's certificate is from a CA that this agent does not trust."""
    other = Certs(place / "other")
    server = stack.server()
    agent = stack.agent(server, "--once", ca=other.ca, wait=False)
    assert agent.process.wait(20) == 4
    text = "\n".join(agent.process.output())
    assert "issued by" in text and "development CA" in text


def test_doctor_says_what_is_well_and_what_is_not(stack, place):
    server = stack.server()
    token = place / "token"
    token.write_text(server.token("demo"))
    common = ["--server", server.url, "--token-file", str(token)]
    done = run("doctor", *common, "--ca-file", server.certs.ca)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("name", "tls", "upgrade", "token"):
        assert stage in done.stdout.lower()
    done = run("doctor", *common, "--ca-file", Certs(place / "x").ca)
    assert done.returncode in (1, 4) and "issued by" in done.stdout
    token.write_text("no.good.token")
    done = run("doctor", *common, "--sandbox", "demo", "--ca-file", server.certs.ca)
    assert done.returncode == 3
    done = run("doctor", "--server", "https://nowhere.invalid", "--sandbox", "demo", "--token-file",
               str(token), "--proxy", "none")
    assert done.returncode in (1, 4)


@pytest.mark.skipif(os.environ.get("BUILD", "build/release") != "build/release",
                    reason="the static agent is built in release only")
@pytest.mark.skipif(os.geteuid() != 0, reason="left out: chroot needs root")
def test_the_static_agent_runs_in_an_empty_chroot(stack, place):
    server = stack.server(default_visibility="public")
    root = place / "root"
    root.mkdir()
    shutil.copy(tool("agentd-static"), root / "agentd")
    shutil.copy(server.certs.ca, root / "ca.pem")
    (root / "token").write_text(server.token("demo"))
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent = stack.process(["/agentd", "up", "--server", server.url, "--token-file", "/token",
                           "--ca-file", "/ca.pem", "--json"], env={},
                          preexec_fn=lambda: (os.chroot(root), os.chdir("/")))
    agent.wait_line(lambda s: "port.opened" in s and str(port) in s, 20, name="out")
    with server.preview(port) as c:
        assert c.get("/").body == b"ok\n"
    agent.signal(signal.SIGTERM)
    assert agent.wait(15) == 0


def test_it_stays_away_from_what_is_not_an_app(stack):
    server = stack.server()
    agent = stack.agent(server, "--exclude", "2000-2100")
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    quiet = []
    for port in (9229, 2050, low + 100):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        s.listen()
        quiet.append(s)
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent.wait_port(port)
    time.sleep(0.6)
    opened = {json.loads(s)["port"] for s in agent.process.output("out") if "port.opened" in s}
    assert port in opened and not opened & {s.getsockname()[1] for s in quiet}
    for s in quiet:
        s.close()
