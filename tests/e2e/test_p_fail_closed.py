# SPDX-License-Identifier: MIT
"""Closed before it is open, and closed when parts die: a prober inside the sandbox sends without pause,
and the packet log outside stays empty but for what the policy allows."""

import json
import os
import random
import signal
import time

import pytest

from egress_lab import lab, user  # noqa: F401 (fixtures)
from processes import wait_until

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="left out: namespaces with veth need root")]

DEATHS = 200
REPLACEMENTS = 200

# Sends to what no policy here allows, from the first instruction on, and says how often it tried.
PROBER = r"""
import os, socket, sys, threading, time
tries = [0]
def tcp(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        s = socket.socket(family, socket.SOCK_STREAM)
        s.setblocking(False)
        s.connect_ex((host, port))
        s.close()
        tries[0] += 1
        time.sleep(0.0005)
def udp(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    while True:
        try:
            s.sendto(b"probe", (host, port))
        except OSError:
            pass
        tries[0] += 1
        time.sleep(0.0005)
for f, a in ((tcp, ("203.0.113.66", 9999)), (tcp, ("2001:db8:1::66", 9999)), (tcp, ("169.254.169.254", 80)),
             (udp, ("203.0.113.66", 9999)), (udp, ("2001:db8:1::66", 443)), (udp, ("203.0.113.10", 443))):
    threading.Thread(target=f, args=a, daemon=True).start()
print("up", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "tries":
        print("tries", tries[0], flush=True)
    elif word.startswith("get "):
        try:
            s = socket.create_connection((word[4:], 80), 3)
            s.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % word[4:].encode())
            print("got", s.recv(20).decode().split()[1:2], flush=True)
        except OSError as e:
            print("got", type(e).__name__, flush=True)
    elif word.startswith("hold "):
        s = socket.create_connection((word[5:], 5432), 5)
        s.recv(100)
        def watch(s=s):
            start = time.monotonic()
            try:
                s.settimeout(20)
                s.recv(100)
            except OSError:
                pass
            print("cut", flush=True)
        threading.Thread(target=watch, daemon=True).start()
        print("held", flush=True)
"""


class Prober:
    def __init__(self, lab, policy, name, user):
        self.lab, self.name, self.user = lab, name, user
        self.p = lab.start(policy, "/usr/bin/python3", "-c", PROBER, user=user, options=("--name", name), stdin=-1)
        self.p.wait_line(lambda line: line == "up")

    def ask(self, word, start):
        at = self.p.mark()
        self.p.child.stdin.write(word + "\n")
        self.p.child.stdin.flush()
        return self.p.wait_line(lambda line: line.startswith(start), start=at)

    def tries(self):
        return int(self.ask("tries", "tries").split()[1])

    def status(self):
        return json.loads(self.lab.agentd("status", "--name", self.name, "--json", user=self.user).stdout)["sandboxes"][0]

    def guard(self):
        return self.status()["guard"]["pid"]

    def end(self):
        self.p.child.stdin.close()
        assert self.p.wait() == 0, self.p.output()[-20:]


def test_nothing_leaves_from_the_first_instruction_on(lab, user):
    mark = lab.mark()
    for i in range(5):
        prober = Prober(lab, lab.policy("web.example.test:80"), "first%d" % i, user)
        wait_until(lambda: prober.tries() > 200, 20, "the prober tries")
        prober.end()
    assert lab.packets(mark) == []


def test_nothing_leaves_while_the_guard_is_killed(lab, user):
    mark = lab.mark()
    prober = Prober(lab, lab.policy("web.example.test:80"), "killed", user)
    killed, pid = set(), 0
    dice = random.Random(5)
    while len(killed) < DEATHS:
        pid = wait_until(lambda: (lambda g: g if g and g not in killed else 0)(prober.guard()), 10, "a new guard")
        time.sleep(dice.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    wait_until(lambda: "200" in prober.ask("get web.example.test", "got"), 20, "the allowed host answers again")
    assert prober.status()["guard"]["restarts"] >= DEATHS
    assert prober.tries() > DEATHS
    prober.end()
    assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} == {("203.0.113.11", 80)}


def test_nothing_leaves_while_policies_are_replaced(lab, user):
    mark = lab.mark()
    policies = [lab.policy("web.example.test:80"), lab.policy("api.example.test", "203.0.113.64/28:22")]
    prober = Prober(lab, policies[0], "replaced", user)
    for i in range(REPLACEMENTS):
        done = lab.agentd("reload", "--name", "replaced", "--policy", policies[(i + 1) % 2], user=user)
        assert done.returncode == 0, done.stderr
    assert "200" in prober.ask("get web.example.test", "got")
    assert prober.status()["enforced"] is True
    prober.end()
    assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} == {("203.0.113.11", 80)}


def test_a_replaced_policy_cuts_what_it_no_longer_allows(lab, user):
    prober = Prober(lab, lab.policy("db.example.test:5432", "web.example.test:80"), "cut", user)
    assert prober.ask("hold db.example.test", "held") == "held"
    at = prober.p.mark()
    done = lab.agentd("reload", "--name", "cut", "--policy", lab.policy("web.example.test:80"), user=user)
    assert done.returncode == 0, done.stderr
    prober.p.wait_line(lambda line: line == "cut", 1.0, start=at)
    assert "200" in prober.ask("get web.example.test", "got")
    prober.end()


def test_a_replaced_policy_keeps_what_it_still_allows(lab, user):
    prober = Prober(lab, lab.policy("db.example.test:5432"), "kept", user)
    assert prober.ask("hold db.example.test", "held") == "held"
    at = prober.p.mark()
    for _ in range(3):
        assert lab.agentd("reload", "--name", "kept", "--policy",
                          lab.policy("db.example.test:5432", "web.example.test:80"), user=user).returncode == 0
    assert "200" in prober.ask("get web.example.test", "got")
    assert "cut" not in prober.p.output()[at:]
    prober.end()


def test_when_run_is_killed_everything_in_the_sandbox_ends(lab, user):
    prober = Prober(lab, lab.policy("web.example.test:80"), "orphan", user)
    pids = descendants(prober.p.pid)
    assert len(pids) >= 3
    os.kill(keeper(prober.p.pid), signal.SIGKILL)
    wait_until(lambda: not [p for p in pids if os.path.exists("/proc/%d/exe" % p)], 5, "all of them are gone")


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(c) for c in f.read().split()]
    except FileNotFoundError:
        return []


def descendants(pid):
    found = []
    for c in children(pid):
        found += [c, *descendants(c)]
    return found


def keeper(pid):
    """nsenter and setpriv exec, so the process that was started is `agentd egress run`."""
    assert os.readlink("/proc/%d/exe" % pid).endswith("agentd")
    return pid
