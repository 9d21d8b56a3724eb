# SPDX-License-Identifier: MIT
"""make bench, the egress part: a sealed sandbox and the same programs behind veth and NAT, in one run.

Both reach the same server in the laboratory's world, in namespaces of its own (tests/e2e/egress_lab.py).
Measured by tests/tools/stopwatch.c, in turn: us, the reference, us, ... so that a machine whose speed
drifts does so for both. How and why: docs/PERFORMANCE.md. Needs root.
argv: build folder.  ONLY=names picks sections, ROUNDS changes the length.
"""

import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ["BUILD"] = sys.argv[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from conftest import BUILD, Process, program, tool  # noqa: E402
from processes import wait_until  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "11"))
ONLY = os.environ.get("ONLY", "").split()
SANDBOXES = 1000
SETUPS = 200          # connections a round
BYTES = 1 << 30       # a transfer
QUESTIONS = 100000    # a round
SWAPS = 20
STARTS = 21
ADDRESS, NAME = "203.0.113.20", "bench.example.test"
ALLOWED = NAME + ":443"
LIMITS = {"questions_per_s": 1000000}


def row(name, unit, ours, theirs=None, goal="", ratio=None):
    mine = statistics.median(ours)
    if theirs:
        other = statistics.median(theirs)
        ratio = statistics.median([a / b for a, b in zip(ours, theirs)])
        print("  %-44s %10.2f %10.2f %-8s %6.2f x  %s" % (name, mine, other, unit, ratio, goal))
    else:
        print("  %-44s %10.2f %10s %-8s %8s  %s" % (name, mine, "-", unit, "", goal))
    sys.stdout.flush()


def header(text, reference="veth+NAT"):
    print("\n%s\n  %-44s %10s %10s" % (text, "", "ours", reference))
    sys.stdout.flush()


class Client:
    """stopwatch client; a command, and the numbers of its answer."""

    def __init__(self, process):
        self.process = process
        process.wait_line(lambda line: line == "ready", name="out")

    def __call__(self, command, n):
        mark = self.process.mark()
        self.process.child.stdin.write("%s %d\n" % (command, n))
        self.process.child.stdin.flush()
        return [float(x) for x in self.process.wait_line(lambda line: True, 120, mark, "out").split()]

    def end(self):
        self.process.child.stdin.close()
        self.process.wait()


class Place:
    """The laboratory with a server outside, and behind veth and NAT a namespace like any engine's."""

    def __init__(self):
        import egress_lab
        self.sh, self.ip = egress_lab.sh, egress_lab.IP
        self.lab = egress_lab.Lab()
        self.ref = self.lab.host[:-1] + "r"
        self.processes = []
        self.stopwatch = str(self.lab.place / "stopwatch")
        shutil.copy(tool("stopwatch"), self.stopwatch)
        try:
            self.furnish(egress_lab.NAMESERVER)
        except BaseException:
            self.stop()
            raise

    def furnish(self, nameserver):
        # Its packet log and its servers in Python would be measured too.
        self.lab.outside.end()
        self.lab.zone({NAME: {"A": [ADDRESS], "ttl": 3600}})
        zone = "import sys, pathlib; sys.path.insert(0, %r); import world; " \
               "world.Zone(pathlib.Path(sys.argv[1])).serve_udp(sys.argv[2])" % str(ROOT / "tests/e2e")
        self.in_world(sys.executable, "-c", zone, str(self.lab.place), nameserver)
        self.in_world(self.stopwatch, "server", ADDRESS, "443").wait_line(lambda line: line == "ready")
        wait_until(lambda: ":0035 " in self.lab.in_world("cat", "/proc/net/udp"), 15, "the name server")
        self.nat()

    def in_world(self, *argv):
        p = Process([program("nsenter"), "--net=/run/netns/" + self.lab.world, *argv])
        self.processes.append(p)
        return p

    def nat(self):
        host, ref, sh, ip = self.lab.host, self.ref, self.sh, self.ip
        sh(ip, "netns", "add", ref)
        sh(ip, "-n", host, "link", "add", "ref", "type", "veth", "peer", "name", "eth0", "netns", ref)
        sh(ip, "-n", host, "addr", "add", "198.51.100.1/30", "dev", "ref")
        sh(ip, "-n", host, "link", "set", "ref", "up")
        sh(ip, "-n", ref, "link", "set", "lo", "up")
        sh(ip, "-n", ref, "addr", "add", "198.51.100.2/30", "dev", "eth0")
        sh(ip, "-n", ref, "link", "set", "eth0", "up")
        sh(ip, "-n", ref, "route", "add", "default", "via", "198.51.100.1")
        sh(*self.lab.host_argv(), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        sh(*self.lab.host_argv(), program("nft"),
           "table ip reference { chain out { type nat hook postrouting priority srcnat; "
           "oifname out ip saddr 198.51.100.0/30 masquerade; }; }")

    def sealed(self):
        return Client(self.lab.start(self.lab.policy(ALLOWED, limits=LIMITS), self.stopwatch, "client", ADDRESS,
                                     "443", NAME, stdin=subprocess.PIPE))

    def natted(self):
        p = Process([program("nsenter"), "--net=/run/netns/" + self.ref, self.stopwatch, "client", ADDRESS,
                     "443", NAME], stdin=subprocess.PIPE)
        self.processes.append(p)
        return Client(p)

    def stop(self):
        for p in self.processes:
            if p.alive():
                p.end()
        subprocess.run([self.ip, "netns", "del", self.ref], capture_output=True)
        self.lab.stop()


def connections(ours, theirs):
    header("connections and one stream, the name checked (TLS), its answer in the table")
    ours("ask", 1)
    for c in (ours, theirs):
        c("setup", SETUPS)
    a, b = [], []
    for _ in range(ROUNDS):
        a.append(ours("setup", SETUPS))
        b.append(theirs("setup", SETUPS))
    for i, what in ((0, "connect to first byte, p50"), (1, "connect to first byte, p99"), (2, "  connect alone, p50")):
        row(what, "us", [x[i] for x in a], [x[i] for x in b])
    row("added to connect and first byte, p50", "us", [x[0] - y[0] for x, y in zip(a, b)], goal="<= 150 us")
    a, b = [], []
    for _ in range(ROUNDS):
        a.append(ours("ping", 2000))
        b.append(theirs("ping", 2000))
    row("one byte there and back, p50", "us", [x[0] for x in a], [x[0] for x in b])


def throughput(ours, theirs):
    for way, what in (("down", "download"), ("up", "upload")):
        a, b = [], []
        for _ in range(max(3, ROUNDS)):
            a += ours(way, BYTES)
            b += theirs(way, BYTES)
        row("%s, one stream, 1 GiB" % what, "MB/s", a, b, ">= 0.7")


def names(ours):
    header("a sandbox's name server, asked from inside, the answer in its table", "")
    ours("questions", QUESTIONS)
    row("32 questions under way", "1/s", [ours("questions", QUESTIONS)[0] for _ in range(ROUNDS)])
    times = [ours("ask", 5000) for _ in range(ROUNDS)]
    row("one at a time, p50", "us", [t[0] for t in times])
    row("one at a time, p99", "us", [t[1] for t in times])


def starts(place):
    header("a sandbox from its start to its end, /bin/true", "unshare")
    policy = place.lab.policy(ALLOWED)
    a, b = [], []
    for _ in range(STARTS):
        t = time.monotonic()
        done = place.lab.run(policy, "/bin/true")
        a.append((time.monotonic() - t) * 1000)
        assert done.returncode == 0, done.stderr
        t = time.monotonic()
        place.lab.from_host(program("unshare"), "-mnpf", "/bin/true")
        b.append((time.monotonic() - t) * 1000)
    row("agentd egress run -- true, p50", "ms", a, b)


# -- a thousand sandboxes


class Service:
    """agentd egress serve in the laboratory, and what is asked of it on its socket."""

    def __init__(self, place):
        self.lab = place.lab
        self.path = str(self.lab.place / "serve.sock")
        self.process = Process([*self.lab.host_argv(), self.lab.binary, "egress", "serve", "--socket", self.path,
                                "--state", str(self.lab.place / "state"), "--log-level", "warn"],
                               env=self.lab.environment())
        place.processes.append(self.process)
        end = time.monotonic() + 10
        while not os.path.exists(self.path) and time.monotonic() < end:
            time.sleep(0.02)

    def ask(self, **request):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(self.path)
            s.sendall(json.dumps(request).encode() + b"\n")
            got = b""
            while not got.endswith(b"\n"):
                piece = s.recv(65536)
                if not piece:
                    break
                got += piece
        answer = json.loads(got)
        assert answer.get("ok", True) is not False and "error" not in answer, answer
        return answer


def memory_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in f if line.endswith("kB\n")}
    return fields["Rss"], fields["Private_Dirty"]


def machine_kib():
    """What the machine's programs and its kernel hold for good."""
    with open("/proc/meminfo") as f:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in f}
    return fields["AnonPages"] + fields["SUnreclaim"] + fields["PageTables"]


def fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def batch(ip, lines):
    subprocess.run([ip, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)


def policy_of(n, version):
    return {"version": 1, "dns": {"upstream": ["203.0.113.53"]},
            "allow": ["n%d-%d.example.test:443" % (i, version) for i in range(n)]}


def thousand(place):
    header("%d sealed sandboxes in one service" % SANDBOXES, "")
    tag = place.lab.host[:-1] + "m"
    spaces = ["%s%d" % (tag, i) for i in range(SANDBOXES)]
    try:
        batch(place.ip, ["netns add " + n for n in spaces])
        service = Service(place)
        policy = policy_of(10, 0)
        service.ask(op="attach", name="first", tier="sealed", policy=policy, netns="/run/netns/" + spaces[0])
        guard = service.ask(op="status", name="first")["sandboxes"][0]["guard"]["pid"]
        pids = service.process.pid, guard
        before = [memory_kib(p) for p in pids], [fds(p) for p in pids]
        machine = machine_kib()
        times = []
        for i in range(1, SANDBOXES):
            t = time.monotonic()
            service.ask(op="attach", name="s%d" % i, tier="sealed", policy=policy, netns="/run/netns/" + spaces[i])
            times.append((time.monotonic() - t) * 1000)
        time.sleep(2)
        for who, i in (("keeper", 0), ("guard", 1)):
            row("%s, resident memory a sandbox" % who, "KiB",
                [(memory_kib(pids[i])[0] - before[0][i][0]) / (SANDBOXES - 1)])
            row("%s, descriptors a sandbox" % who, "", [(fds(pids[i]) - before[1][i]) / (SANDBOXES - 1)])
        row("all of the machine's, a sandbox", "KiB", [(machine_kib() - machine) / (SANDBOXES - 1)])
        row("attach to in force, p50", "ms", times)
        cpu = [children_cpu(p) for p in pids]
        time.sleep(5)
        for who, i in (("keeper", 0), ("guard", 1)):
            row("%s, CPU when idle" % who, "% core", [(children_cpu(pids[i]) - cpu[i]) * 20])
        swap(service)
    finally:
        batch(place.ip, ["netns del " + n for n in spaces if os.path.exists("/run/netns/" + n)])


def children_cpu(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def swap(service):
    times = []
    for i in range(SWAPS):
        policy = policy_of(1000, i % 2)
        t = time.monotonic()
        service.ask(op="reload", name="first", policy=policy)
        times.append((time.monotonic() - t) * 1000)
    row("reload of 1,000 names to in force, p50", "ms", times)
    row("reload of 1,000 names to in force, worst", "ms", [max(times)])


# -- the parts by themselves


def parts():
    """What the benchmarks in C measured: the kernel alone, and guard - keeper - kernel - keeper - guard."""
    header("pins and whole swaps", "")
    goals = {"nft.pin.1000_sandboxes": "p99 <= 50 us", "guard.pin.1000_sandboxes": "p99 <= 50 us"}
    for name in ("bench_nft", "bench_pin"):
        binary = BUILD / "tests/bench" / name
        if not binary.exists():
            continue
        done = subprocess.run([str(binary)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            if not line.startswith("{"):
                print("  " + line)
                continue
            r = json.loads(line)
            if r["unit"] != "us" or "median" not in r:
                continue
            row(r["name"] + ", p50", "us", [r["median"]])
            row(r["name"] + ", p99", "us", [r["p99"]], goal=goals.get(r["name"], ""))


def main():
    if os.geteuid() != 0:
        print("egress: left out: namespaces with veth and NAT need root")
        return

    def wanted(name):
        return not ONLY or name in ONLY
    print("%d cores, %s" % (os.cpu_count(), os.uname().release))
    if wanted("parts"):
        parts()
    place = Place()
    try:
        if wanted("connections") or wanted("throughput") or wanted("names"):
            ours, theirs = place.sealed(), place.natted()
            if wanted("connections"):
                connections(ours, theirs)
            if wanted("throughput"):
                throughput(ours, theirs)
            if wanted("names"):
                names(ours)
            ours.end()
            theirs.end()
        if wanted("starts"):
            starts(place)
        if wanted("thousand"):
            thousand(place)
    finally:
        place.stop()


if __name__ == "__main__":
    main()
