# SPDX-License-Identifier: MIT
"""The agent behind corporate proxies: real squid with Basic authentication, a real SOCKS5 server,
in a network namespace where nothing but the proxy is reachable."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import DOMAIN, ROOT, Process, Server, below_ephemeral_port, program, tool
from processes import wait_until

APP = str(ROOT / "tests/e2e/apps/fault_app.py")
IP = program("ip")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="left out: namespaces with veth need root"),
]


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True)


class Island:
    """A namespace with one veth to the host side, where a proxy and a server listen; no route
    but to that one address."""

    def __init__(self, name, number):
        self.name = name
        self.outside = "192.0.2.%d" % (4 * number + 1)
        self.inside = "192.0.2.%d" % (4 * number + 2)
        self.host = name + "h"
        # What `ip netns exec` shows as /etc/hosts outside: the name that the proxy is asked for.
        self.etc = pathlib.Path("/etc/netns") / self.host
        self.etc.mkdir(parents=True, exist_ok=True)
        (self.etc / "hosts").write_text("127.0.0.1 localhost 0-demo.%s\n" % DOMAIN)
        run(IP, "netns", "add", name)
        run(IP, "netns", "add", self.host)
        run(IP, "-n", self.host, "link", "add", "v0", "type", "veth", "peer", "name", "v1",
            "netns", name)
        for ns, dev, addr in ((self.host, "v0", self.outside), (name, "v1", self.inside)):
            run(IP, "-n", ns, "link", "set", "lo", "up")
            run(IP, "-n", ns, "addr", "add", addr + "/30", "dev", dev)
            run(IP, "-n", ns, "link", "set", dev, "up")

    def inside_argv(self):
        return [IP, "netns", "exec", self.name]

    def outside_argv(self):
        return [IP, "netns", "exec", self.host]

    def stop(self):
        for ns in (self.name, self.host):
            subprocess.run([IP, "netns", "del", ns], capture_output=True)
        shutil.rmtree(self.etc, ignore_errors=True)


@pytest.fixture
def island(stack, request):
    i = Island("tun%dx" % (os.getpid() % 10000), 1)
    stack.keep(i)
    return i


SQUID = """http_port {address}:{port}
pid_filename {place}/squid.pid
cache_log {place}/cache.log
access_log stdio:{place}/access.log
coredump_dir {place}
cache deny all
shutdown_lifetime 0 seconds
visible_hostname proxy.test
hosts_file {hosts}
auth_param basic program {helper} {place}/passwords
auth_param basic realm test
auth_param basic casesensitive on
acl known proxy_auth REQUIRED
acl CONNECT method CONNECT
http_access allow CONNECT known
http_access deny all
"""


def start_squid(stack, island, place, users, port=None):
    helper = next((p for p in ("/usr/lib/squid/basic_ncsa_auth", "/usr/lib64/squid/basic_ncsa_auth")
                   if os.path.exists(p)), None)
    assert helper, "squid has no basic_ncsa_auth"
    place.mkdir(parents=True, exist_ok=True)
    os.chmod(place, 0o777)
    with open(place / "passwords", "w") as f:
        for user, password in users.items():
            done = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password,
                                  capture_output=True, text=True, check=True)
            f.write("%s:%s\n" % (user, done.stdout.strip()))
    os.chmod(place / "passwords", 0o644)
    port = port or 3128
    conf = place / "squid.conf"
    conf.write_text(SQUID.format(address=island.outside, port=port, place=place, helper=helper,
                                 hosts=island.etc / "hosts"))
    # Its shared memory bears the name: another squid of the machine must not meet it.
    squid = stack.process([*island.outside_argv(), program("squid"), "-N",
                           "-n", "t%d%s" % (os.getpid(), place.name), "-f", str(conf)])

    def listens():
        done = subprocess.run([*island.inside_argv(), sys.executable, "-c",
                               "import socket; socket.create_connection(('%s', %d), 1)"
                               % (island.outside, port)], capture_output=True)
        return done.returncode == 0
    wait_until(listens, 30, "squid listens")
    return squid, port


def server_in(stack, island):
    s = Server(stack.place / "server-in", stack.certs, default_visibility="public",
               admin_listen="127.0.0.1:0")
    s.config["listen"] = ["127.0.0.1:8443"]
    s.write()
    s.process = Process([*island.outside_argv(), tool("tunneld"), "serve",
                         "-c", s.file])
    stack.keep(s)
    s.wait_ready()
    return s


def fetch(stack, island, server, port, deadline_s=20):
    """Ask for the preview in the namespace where the server listens."""
    host = server.host(port, "demo")

    def ask():
        done = subprocess.run(
            [*island.outside_argv(), "curl", "-sS", "-m", "10", "--cacert", server.certs.ca,
             "--resolve", "%s:127.0.0.1" % host, "https://%s/" % host],
            capture_output=True, text=True)
        return done.returncode == 0 and done.stdout == "ok\n"
    return wait_until(ask, deadline_s, "the preview answers")


def bring_up(stack, island, proxy, **kw):
    server = server_in(stack, island)
    port = below_ephemeral_port()
    stack.process([*island.inside_argv(), sys.executable, APP, "127.0.0.1", str(port)])
    env = {"HTTPS_PROXY": proxy, "NO_PROXY": "10.0.0.0/8,.internal.example,127.0.0.1:9"}
    agent = stack.agent(server, wrap=island.inside_argv(), env=env, **kw)
    return server, agent, port


@pytest.mark.parametrize("password", ["secret", "p" * 200, "a:b@c/d?e#f%20 g"],
                         ids=["short", "200 characters", "odd characters"])
def test_through_squid_with_basic_credentials(stack, island, place, password):
    from urllib.parse import quote
    squid_place = place / "squid"
    start_squid(stack, island, squid_place, {"me": password})
    proxy = "http://me:%s@%s:3128" % (quote(password, safe=""), island.outside)
    server, agent, port = bring_up(stack, island, proxy)
    agent.wait_port(port)
    assert fetch(stack, island, server, port)
    agent.stop()
    wait_until(lambda: "CONNECT 0-demo.%s:8443" % DOMAIN in (squid_place / "access.log").read_text(),
               10, "squid saw the CONNECT")
    for line in agent.process.output():
        assert password not in line and quote(password, safe="") not in line


def test_a_wrong_password_is_said_and_nothing_goes_around_the_proxy(stack, island, place):
    start_squid(stack, island, place / "squid", {"me": "right"})
    server = server_in(stack, island)
    proxy = "http://me:wrong@%s:3128" % island.outside
    agent = stack.agent(server, "--once", wrap=island.inside_argv(),
                        env={"HTTPS_PROXY": proxy}, wait=False)
    assert agent.process.wait(30) == 4
    text = "\n".join(agent.process.output())
    assert "407" in text and "proxy" in text and "wrong" not in text.replace("wrong password", "")


def test_a_proxy_that_is_killed_and_started_again(stack, island, place):
    squid, _ = start_squid(stack, island, place / "squid", {"me": "pw"})
    proxy = "http://me:pw@%s:3128" % island.outside
    server, agent, port = bring_up(stack, island, proxy)
    agent.wait_port(port)
    assert fetch(stack, island, server, port)
    mark = agent.process.mark()
    # ip netns exec replaces itself: the pid is squid's own
    squid.signal(signal.SIGKILL)
    squid.wait()
    agent.wait_event("link.down", 60, mark)
    time.sleep(1)
    start_squid(stack, island, place / "squid", {"me": "pw"})
    agent.wait_up(90, mark)
    assert fetch(stack, island, server, port, 60)


@pytest.mark.parametrize("credentials", [None, ("me", "s" * 200)], ids=["open", "with credentials"])
def test_through_a_socks5_server(stack, island, credentials):
    argv = [*island.outside_argv(), program("microsocks"), "-i", island.outside, "-p", "1080"]
    at = island.outside + ":1080"
    if credentials:
        argv += ["-u", credentials[0], "-P", credentials[1]]
        at = "%s:%s@%s" % (*credentials, at)
    stack.process(argv)
    time.sleep(0.5)
    server, agent, port = bring_up(stack, island, "socks5h://" + at)
    agent.wait_port(port)
    assert fetch(stack, island, server, port)
