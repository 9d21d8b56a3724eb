# SPDX-License-Identifier: MIT
"""What was tried to break `agentd egress` from inside and from beside, and does not any more."""

import json
import os
import sys

import pytest

from conftest import Process
from egress_lab import IP, NSENTER, lab, sh, user  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="left out: namespaces with veth need root")]

ANEW = """
import socket, struct, ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
libc.connect(0, struct.pack("=H14x", 0), 16)  # AF_UNSPEC: away from its peer
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=0)
s.settimeout(3)
s.connect(("203.0.113.66", 8080))
"""
GIVEN = """
import socket, subprocess, sys
kind, argv = sys.argv[1], sys.argv[2:]
if kind == "tcp":
    given = socket.create_connection(("203.0.113.10", 80))
elif kind == "udp":
    given = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
elif kind == "folder":
    import os
    given = os.open("/", os.O_RDONLY)
else:
    given = socket.socketpair()[0]
done = subprocess.run(argv, stdin=given, capture_output=True, text=True, timeout=30)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""

def given(lab, user, kind, *command):
    policy = lab.policy("api.example.test:80")
    return lab.from_host("/usr/bin/python3", "-c", GIVEN, kind, lab.binary, "egress", "run", "--policy", policy,
                         "--", *command, user=user, env=lab.environment(user), cwd="/")

def test_a_socket_of_outside_as_a_stream_is_no_way_out(lab, user):  # noqa: F811
    mark = lab.mark()
    for kind, why in (("tcp", "network outside"), ("udp", "network outside"), ("folder", "folder")):
        done = given(lab, user, kind, "/usr/bin/python3", "-c", ANEW)
        assert done.returncode == 1 and "standard input" in done.stderr and why in done.stderr, done.stderr
    assert not [p for p in lab.packets(mark) if p["dst"] == "203.0.113.66"]

def test_a_local_stream_pair_is_a_stream_like_others(lab, user):  # noqa: F811
    done = given(lab, user, "pair", "/bin/true")
    assert done.returncode == 0, done.stderr


# -- a ruled container on a bridge, and who else is there --------------------------------------------

SERVER = """
import select, socket, sys
served = []
for a in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as dnsmasq and systemd-resolved do
    s.bind((a, 53))
    served.append(s)
print("ready", flush=True)
while True:
    for s in select.select(served, [], [])[0]:
        s.sendto(b"host", s.recvfrom(600)[1])
"""
ASK = """
import json, socket, sys
found = []
for a in sys.argv[1:]:
    with socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        s.sendto(b"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3web\\7example\\4test\\0\\0\\1\\0\\1", (a, 53))
        try:
            reply = s.recv(600)
            found.append("host" if reply == b"host" else "guard" if reply[-4:] == bytes([203, 0, 113, 11]) else "?")
        except OSError:
            found.append("nothing")
print(json.dumps(found))
"""
BRIDGE = ["10.55.0.1", "fd55::1"]


class Bridge:
    """A bridge on the laboratory's host with two namespaces: "ruled" and "other"."""

    def __init__(self, lab):
        self.lab, self.spaces, self.things = lab, {}, []
        for name in ("iptables", "ip6tables"):
            lab.from_host("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-%s=0" % name)
        self.host("link", "add", "br0", "type", "bridge")
        for a in ("10.55.0.1/24", "fd55::1/64"):
            self.host("addr", "add", a, "dev", "br0", *(("nodad",) if ":" in a else ()))
        self.host("link", "set", "br0", "up")
        self.host("link", "set", "lo", "up")
        for number, name in ((10, "ruled"), (11, "other")):
            self.join(name, number)
        self.socket = str(lab.place / "attacks" / "egress.sock")
        served = Process(lab.host_argv() + [lab.binary, "egress", "serve", "--socket", self.socket, "--state",
                                            str(lab.place / "attacks-state")], env=lab.environment(), cwd="/")
        self.things.append(served)
        served.wait_line(lambda line: "egress.ready" in line, 20)
        done = lab.agentd("attach", "--socket", self.socket, "--policy", lab.policy("web.example.test:80"),
                          "--netns", "/run/netns/" + self.spaces["ruled"], "--iface", "eth0", "--name", "ruled")
        assert done.returncode == 0, done.stderr

    def host(self, *argv):
        sh(IP, "-n", self.lab.host, *argv)

    def join(self, name, number):
        space = self.spaces[name] = self.lab.host + name
        sh(IP, "netns", "add", space)
        inside = (IP, "-n", space)
        sh(*inside, "link", "set", "lo", "up")
        self.host("link", "add", "v" + name, "type", "veth", "peer", "name", "eth0", "netns", space)
        self.host("link", "set", "v" + name, "master", "br0", "up")
        sh(*inside, "addr", "add", "10.55.0.%d/24" % number, "dev", "eth0")
        sh(*inside, "addr", "add", "fd55::%d/64" % number, "dev", "eth0", "nodad")
        sh(*inside, "link", "set", "eth0", "up")
        sh(*inside, "route", "add", "default", "via", BRIDGE[0])
        sh(*inside, "-6", "route", "add", "default", "via", BRIDGE[1])

    def ask(self, who, *addresses):
        argv = [sys.executable, "-c", ASK, *addresses]
        if who == "host":
            return json.loads(self.lab.from_host(*argv).stdout)
        return json.loads(sh(NSENTER, "--net=/run/netns/" + self.spaces[who], *argv))

    def stop(self):
        for p in reversed(self.things):
            p.end()
        for space in self.spaces.values():
            sh(IP, "netns", "del", space)
        self.host("link", "del", "br0")


@pytest.fixture
def bridge(lab):  # noqa: F811
    one = Bridge(lab)
    yield one
    one.stop()


def test_a_question_to_the_hosts_name_server_does_not_silence_it_for_others(lab, bridge):  # noqa: F811
    there = [*BRIDGE, "203.0.113.2", "127.0.0.1"]
    server = Process(lab.host_argv() + [sys.executable, "-c", SERVER, *there])
    bridge.things.append(server)
    server.wait_line(lambda line: line == "ready")
    assert bridge.ask("host", *there) == ["host"] * 4
    assert bridge.ask("other", *there[:3]) == ["host"] * 3
    assert bridge.ask("ruled", *there[:3], "203.0.113.77", "2001:db8:1::77") == ["guard"] * 5
    assert bridge.ask("host", *there) == ["host"] * 4
    assert bridge.ask("other", *there[:3]) == ["host"] * 3
