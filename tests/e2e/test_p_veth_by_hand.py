# SPDX-License-Identifier: MIT
"""A sandbox with an interface and no engine: `attach` to a namespace made by hand, whose processes end and
whose service dies in any order."""

import itertools
import os
import signal
import sys

import pytest

from conftest import Process
from egress_lab import IP, NSENTER, lab, sh  # noqa: F401 (fixture)
from engines import Service
from processes import wait_until
from test_n_engines import PROBER

HOLDER = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("in", flush=True)
time.sleep(1000)
"""
QUESTION = """
import socket, sys
question = b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3web\\7example\\4test\\0\\0\\1\\0\\1"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
"""
ASK = QUESTION + 's.sendto(question, (sys.argv[1], 53))'
ASK_ONCE = QUESTION + """
s.settimeout(10)
s.sendto(question, ("203.0.113.53", 53))
s.recv(512)
print("in\\nanswered", flush=True)
"""
NUMBERS = itertools.count(1)

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="left out: namespaces with veth need root")]


class Room:
    """One veth to the host, which forwards; `first` is the sandbox's process, `second` one that shares its
    network and sends without pause to what is not allowed."""

    def __init__(self, lab):
        number = next(NUMBERS)  # the last one's interface may still be on its way out
        self.lab, self.ns, port = lab, "%sr%d" % (lab.host, number), "hand%d" % number
        sh(IP, "netns", "add", self.ns)
        sh(IP, "-n", lab.host, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.ns)
        sh(IP, "-n", lab.host, "addr", "add", "10.66.0.1/24", "dev", port)
        sh(IP, "-n", lab.host, "link", "set", port, "up")
        sh(IP, "-n", self.ns, "addr", "add", "10.66.0.2/24", "dev", "eth0")
        sh(IP, "-n", self.ns, "link", "set", "eth0", "up")
        sh(IP, "-n", self.ns, "route", "add", "default", "via", "10.66.0.1")
        lab.from_host("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.first = self.inside("import time; print('in', flush=True); time.sleep(1000)")
        self.second = self.inside("print('in', flush=True)\n" + PROBER)

    def inside(self, script):
        p = Process([NSENTER, "--net=/run/netns/" + self.ns, sys.executable, "-c", script])
        p.wait_line(lambda line: line == "in")
        return p

    def stop(self):
        for p in (self.first, self.second):
            p.kill()
        sh(IP, "netns", "del", self.ns)


@pytest.fixture
def service(lab):
    s = Service(lab)
    yield s
    s.stop()


@pytest.fixture
def room(lab, service):
    r = Room(lab)
    mark = lab.mark()
    wait_until(lambda: [p for p in lab.packets(mark) if p["src"] == "10.66.0.2"], 10, "without rules it gets out")
    done = lab.agentd("attach", "--policy", lab.policy("web.example.test:80"), "--pid", str(r.first.pid), "--name", "room",
                      "--socket", service.socket)
    assert done.returncode == 0, done.stderr
    service.wait_enforced("room")
    yield r
    r.stop()


def test_what_shares_its_network_does_not_get_out_after_its_end(lab, service, room):
    mark = lab.mark()
    room.first.signal(signal.SIGKILL)
    service.wait_gone("room")
    assert room.second.alive()
    assert lab.packets(mark) == []


def test_nor_when_it_ends_while_there_is_no_service(lab, service, room):
    mark = lab.mark()
    service.process.kill()
    room.first.kill()
    assert lab.packets(mark) == []
    service.start()
    assert service.status() == []
    assert room.second.alive()
    assert lab.packets(mark) == []


def test_a_name_server_of_the_hosts_in_the_way_is_said(lab, service, room):
    """It does not share its port, so answers to the sandbox cannot leave from there."""
    def hold(address):
        p = Process(lab.host_argv() + [sys.executable, "-c", HOLDER, address])
        p.wait_line(lambda line: line == "in")
        return p

    def reasons(wanted):
        return service.wait_enforced("room", wanted)["reasons"]

    server = hold("0.0.0.0")
    said = reasons(False)
    assert len(said) == 1 and "UDP port 53 at all addresses" in said[0], said
    server.kill()
    reasons(True)
    server = hold("10.66.0.1")
    reasons(True)  # nobody asks there
    sh(NSENTER, "--net=/run/netns/" + room.ns, sys.executable, "-c", ASK, "10.66.0.1")
    said = reasons(False)
    assert len(said) == 1 and "UDP port 53 at 10.66.0.1" in said[0], said
    server.kill()
    reasons(True)


def test_the_floor_for_the_guard_holds_what_it_was_given(lab, service, room):
    """The rules know the guard's sockets by their owner, and the keeper makes the listeners, those that answer
    and the one for pins: they are the guard's own, or a guard that was taken over could send from them to anybody."""
    guard = service.one("room")["guard"]["pid"]
    with open("/proc/%d/status" % guard) as f:
        uid = next(line.split()[1] for line in f if line.startswith("Uid:"))
    room.inside(ASK_ONCE).wait_line(lambda line: line == "answered")
    its = {os.readlink("/proc/%d/fd/%s" % (guard, n)) for n in os.listdir("/proc/%d/fd" % guard)}
    tables = ["/proc/net/%s" % t for t in ("tcp", "tcp6", "udp", "udp6")]
    rows = [line.split() for line in lab.from_host("cat", *tables).stdout.splitlines() if "local_address" not in line]
    owners = {row[1]: row[7] for row in rows if "socket:[%s]" % row[9] in its}
    assert len(owners) >= 6 and any(at.endswith(":0035") for at in owners), owners
    assert set(owners.values()) == {uid} and uid != "0", owners
