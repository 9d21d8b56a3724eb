# SPDX-License-Identifier: MIT
"""A laboratory for egress: two namespaces of its own and a cable between them.

    host (agentd runs here)  203.0.113.2, 2001:db8:1::2  ---- 203.0.113.1  world (world.py)

The world answers on every address there is, so that whatever leaves a sandbox arrives somewhere and
is seen. Nothing of the machine's own network is touched."""

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from conftest import ROOT, Certs, Process, program, tool
from processes import wait_until

IP = program("ip")
NSENTER = program("nsenter")
SETPRIV = program("setpriv")
NAMESERVER = "203.0.113.53"
DOMAIN = "example.test"  # the world's certificate covers it and *.example.test
ORDINARY = 54321         # a uid that is nobody here
REACH = (ROOT / "tests/e2e/reach_inside.py").read_text()
MARKER = ("203.0.113.1", 9)  # UDP, from the host itself: see Lab.settle()
SERVERS_S = 0.2              # the world's servers, a thread a connection, write what they were sent
ZONE = {
    "api.example.test": {"A": ["203.0.113.10"], "AAAA": ["2001:db8:1::10"]},
    "web.example.test": {"A": ["203.0.113.11"]},
    "db.example.test": {"A": ["203.0.113.12"]},
    "shared.example.test": {"A": ["203.0.113.10"]},
    "alias.example.test": {"CNAME": "web.example.test"},
    "evil.test": {"A": ["203.0.113.66"], "AAAA": ["2001:db8:1::66"]},
    "inside.example.test": {"A": ["10.20.30.40"]},
    "metadata.example.test": {"A": ["169.254.169.254"]},
    "loop.example.test": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
}


def sh(*argv, **kw):
    done = subprocess.run(argv, capture_output=True, text=True, **kw)
    assert done.returncode == 0, "%s: %s" % (" ".join(argv), done.stderr)
    return done.stdout


def is_marker(packet):
    return packet["proto"] == 17 and (packet["dst"], packet["dport"]) == MARKER and packet["src"] == "203.0.113.2"


class Lab:
    numbers = itertools.count(1)

    def __init__(self):
        tag = "tl%d_%d" % (os.getpid() % 100000, next(self.numbers))
        self.host, self.world = tag + "h", tag + "w"
        # Not below the build folder or /tmp: an ordinary user reads it, and so do sandboxes.
        self.place = pathlib.Path(tempfile.mkdtemp(prefix=tag, dir="/var/tmp"))
        os.chmod(self.place, 0o755)
        self.binary = str(self.place / "agentd")
        shutil.copy(tool("agentd"), self.binary)
        self.certs = Certs(self.place / "certs", DOMAIN)
        os.chmod(self.place / "certs", 0o755)
        os.chmod(self.certs.ca, 0o644)
        self.things = []
        self.names = itertools.count(1)
        for ns in (self.host, self.world):
            sh(IP, "netns", "add", ns)
            sh(IP, "-n", ns, "link", "set", "lo", "up")
        sh(IP, "-n", self.host, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", self.world)
        for ns, dev, addresses in ((self.host, "out", ("203.0.113.2/32", "2001:db8:1::2/128")),
                                   (self.world, "in", ("203.0.113.1/32", "2001:db8:1::1/128"))):
            for a in addresses:
                sh(IP, "-n", ns, "addr", "add", a, "dev", dev, *(("nodad",) if ":" in a else ()))
            sh(IP, "-n", ns, "link", "set", dev, "up")
        # All of it through the gateway, so that no address needs ARP of its own.
        sh(IP, "-n", self.host, "route", "add", "203.0.113.1", "dev", "out")
        sh(IP, "-n", self.host, "route", "add", "default", "via", "203.0.113.1")
        sh(IP, "-n", self.host, "-6", "route", "add", "2001:db8:1::1", "dev", "out")
        sh(IP, "-n", self.host, "-6", "route", "add", "default", "via", "2001:db8:1::1")
        # Everything that is not the host is here.
        sh(IP, "-n", self.world, "route", "add", "203.0.113.2/32", "dev", "in")
        sh(IP, "-n", self.world, "-6", "route", "add", "2001:db8:1::2/128", "dev", "in",
           "table", "local")  # IPv6 looks there first; IPv4 has one table until it has rules
        sh(IP, "-n", self.world, "route", "add", "local", "0.0.0.0/0", "dev", "lo")
        sh(IP, "-n", self.world, "-6", "route", "add", "local", "::/0", "dev", "lo")
        self.zone(ZONE)
        self.outside = Process([NSENTER, "--net=/run/netns/" + self.world, sys.executable,
                                str(ROOT / "tests/e2e/world.py"), str(self.place), self.certs.cert,
                                self.certs.key, "in", NAMESERVER])
        self.outside.wait_line(lambda line: line == "ready")
        wait_until(lambda: self.from_host(sys.executable, "-c", "import socket; socket.create_connection("
                                          "('203.0.113.10', 80), 1)").returncode == 0, 15, "the cable")

    # -- the two sides

    def in_world(self, *argv):
        return sh(NSENTER, "--net=/run/netns/" + self.world, *argv)

    def host_argv(self, user=None):
        argv = [NSENTER, "--net=/run/netns/" + self.host]
        if user:
            argv += [SETPRIV, "--reuid=%d" % user, "--regid=%d" % user, "--clear-groups"]
        return argv

    def from_host(self, *argv, user=None, **kw):
        return subprocess.run(self.host_argv(user) + list(argv), capture_output=True, text=True, **kw)

    # -- what a test gives

    def zone(self, names):
        part = self.place / "zone.part"
        part.write_text(json.dumps(names))
        part.rename(self.place / "zone.json")

    def policy(self, *allow, **changes):
        """A policy file; `dns` asks the world's name server."""
        text = {"version": 1, "allow": list(allow), "dns": {"upstream": [NAMESERVER]}, **changes}
        path = self.place / ("policy-%d.json" % next(self.names))
        path.write_text(json.dumps(text))
        os.chmod(path, 0o644)
        return str(path)

    def environment(self, user=None):
        place = self.place / ("run-%d" % (user or 0))
        place.mkdir(exist_ok=True)
        os.chmod(place, 0o700)
        if user:
            os.chown(place, user, user)
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(place), "LANG": "C.UTF-8",
                "HOME": "/"}

    def agentd(self, *args, user=None, env=None, **kw):
        return self.from_host(self.binary, "egress", *args, user=user, cwd="/",
                              env={**self.environment(user), **(env or {})}, **kw)

    def run(self, policy, *command, user=None, options=(), timeout=60, env=None):
        """`agentd egress run` to its end."""
        return self.agentd("run", "--policy", policy, *options, "--", *command, user=user, timeout=timeout, env=env)

    def start(self, policy, *command, user=None, options=(), **kw):
        p = Process(self.host_argv(user) + [self.binary, "egress", "run", "--policy", policy, *options,
                                            "--", *command], env=self.environment(user), cwd="/", **kw)
        self.things.append(p)
        return p

    def python(self, policy, script, *args, **kw):
        """A script inside a sandbox; what it printed as JSON."""
        done = self.run(policy, "/usr/bin/python3", "-c", script, *args, **kw)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def explain(self, policy, *targets):
        done = self.agentd("explain", "--policy", policy, *targets)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith(("allowed", "denied"))]

    # -- what the world saw

    def lines(self, name):
        path = self.place / name
        if not path.exists():
            return []
        text = path.read_text()
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]  # the last may be half written

    def settle(self):
        """What left the host before this is in the packet log after it: one packet more has come through."""
        def markers():
            return sum(is_marker(p) for p in self.lines("packets.jsonl"))
        seen = markers()
        sh(*self.host_argv(), "bash", "-c", "echo > /dev/udp/%s/%d" % MARKER)
        wait_until(lambda: markers() > seen, 15, "the packet log")

    def mark(self):
        self.settle()
        time.sleep(SERVERS_S)
        return {name: len(self.lines(name)) for name in ("packets.jsonl", "connections.jsonl", "questions.jsonl")}

    def since(self, mark, name):
        if name == "packets.jsonl":
            self.settle()
            return [p for p in self.lines(name)[mark[name]:] if not is_marker(p)]
        time.sleep(SERVERS_S)
        return self.lines(name)[mark[name]:]

    def packets(self, mark):
        """What left the host but for the guard's questions to the name server."""
        return [p for p in self.since(mark, "packets.jsonl")
                if not (p["dst"] == NAMESERVER and p["dport"] == 53)]

    def connections(self, mark):
        return self.since(mark, "connections.jsonl")

    def questions(self, mark):
        return self.since(mark, "questions.jsonl")

    def stop(self):
        for p in reversed(self.things):
            if p.alive():
                p.end()
        self.outside.end()
        for ns in (self.host, self.world):
            subprocess.run([IP, "netns", "del", ns], capture_output=True)
        shutil.rmtree(self.place, ignore_errors=True)


@pytest.fixture(scope="module")
def lab():
    one = Lab()
    yield one
    one.stop()


@pytest.fixture(params=[None, ORDINARY], ids=["root", "ordinary"])
def user(request):
    """Each such test runs as root and as an ordinary user."""
    return request.param
