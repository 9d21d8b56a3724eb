# SPDX-License-Identifier: MIT
"""make bench: us and nginx TLS -> nginx TLS -> the same app, side by side in one run.

Each figure is the median of REPS (default 3) pairs, taken in turn, us first and the reference
second, so that a machine whose speed drifts does so for both. How and why: docs/PERFORMANCE.md.
argv: build folder.  ONLY=names picks sections, REPS and SECONDS change the length.
"""

import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ["BUILD"] = sys.argv[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import conftest  # noqa: E402
from conftest import BUILD, DOMAIN, Certs, Stack, below_ephemeral_port, free_port, program, tool  # noqa: E402
from processes import Process, wait_until  # noqa: E402

REPS = int(os.environ.get("REPS", "3"))
SECONDS = int(os.environ.get("SECONDS", "3"))
ONLY = os.environ.get("ONLY", "").split()
PLACE = BUILD / "bench"

NGINX = """
worker_processes 2;
daemon off;
pid {place}/{name}.pid;
error_log {place}/{name}.error.log;
events {{ worker_connections 4096; }}
http {{
  access_log {place}/{name}.access.log combined buffer=32k;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  client_max_body_size 0;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 1000000;
  upstream next {{ server 127.0.0.1:{next}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    location / {{
      proxy_pass {scheme}://next;
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_session_reuse on;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffering on;
      proxy_max_temp_file_size 0;
      proxy_buffers 16 64k;
    }}
  }}
}}
"""


class Reference:
    """nginx TLS -> nginx TLS -> app."""

    def __init__(self, stack, certs, app_port):
        PLACE.mkdir(parents=True, exist_ok=True)
        inner, self.port = free_port(), free_port()
        self.processes = []
        for name, port, nxt, scheme in (("inner", inner, app_port, "http"),
                                        ("outer", self.port, inner, "https")):
            conf = PLACE / (name + ".conf")
            conf.write_text(NGINX.format(place=PLACE, name=name, port=port, next=nxt, scheme=scheme,
                                         cert=certs.cert, key=certs.key))
            self.processes.append(stack.process(
                [program("nginx"), "-c", str(conf), "-e", str(PLACE / "start.log")]))

            def listens(port=port):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    return True
                except OSError:
                    return False
            wait_until(listens, 10, "nginx listens")
        self.host = "%s:%d" % (DOMAIN, self.port)


class LoggingToFile(Process):
    """As under an init system, and as nginx here. Reading the log line by line would take a good
    part of the two cores."""

    def __init__(self, argv, log):
        super().__init__(["sh", "-c", 'log=$1; shift; exec "$@" 2>"$log"', "sh", str(log), *argv])
        self.log = log

    def wait_line(self, test, deadline_s=15, start=0, name=None):
        return wait_until(lambda: self.log.exists() and next(
            (s for s in self.log.read_text().splitlines() if test(s)), None), deadline_s, "the line")


class Us:
    def __init__(self, stack, certs, app_port):
        self.server = stack.keep(conftest.Server(PLACE / "server", certs,
                                                 default_visibility="public"))
        self.server.process = LoggingToFile([tool("tunneld"), "serve", "-c", self.server.file],
                                            self.server.place / "log")
        self.server.wait_ready()
        self.agent = stack.agent(self.server)
        self.agent.wait_port(app_port)
        self.host = self.server.host(app_port, "demo")


def children_cpu(pid):
    """CPU seconds of a process and its children."""
    total = 0.0
    pids = [pid]
    for p in pids:
        try:
            with open("/proc/%d/stat" % p) as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            with open("/proc/%d/task/%d/children" % (p, p)) as f:
                pids += [int(x) for x in f.read().split()]
        except OSError:
            pass
    return total


def curl(host, ca, *args):
    return ["curl", "-sS", "--fail", "--cacert", ca, "--http1.1", "--resolve", "%s:127.0.0.1" % host,
            "-o", "/dev/null", "-w", "%{speed_download} %{speed_upload} %{time_total}", *args]


def speed(host, ca, target, upload=None):
    argv = curl(host, ca, "https://%s%s" % (host, target))
    if upload:
        argv[1:1] = ["-X", "POST", "-H", "Expect:", "-T", upload]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    return float(out[1 if upload else 0]) / 1e6


LATENCY = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def wrk(host, connections):
    out = subprocess.run(
        [program("wrk"), "-t1", "-c%d" % connections, "-d%ds" % SECONDS, "--latency",
         "-H", "Host: " + host, "https://127.0.0.1:%s/1k" % host.rsplit(":", 1)[1]], capture_output=True, text=True, check=True).stdout
    rps = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))

    def percentile(p):
        m = re.search(r"%s%%\s+([\d.]+)(us|ms|s)\b" % p, out)
        return float(m.group(1)) * LATENCY[m.group(2)]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors:.*", out)
    if bad:
        print("  note: wrk says: %s" % bad.group(0))
    return {"rps": rps, "p50": percentile(50), "p99": percentile(99),
            "requests": int(re.search(r"(\d+) requests in", out).group(1))}


def row(name, unit, ours, theirs=None, goal=""):
    mine = statistics.median(ours)
    if theirs:
        other = statistics.median(theirs)
        ratio = statistics.median([a / b for a, b in zip(ours, theirs)])
        print("  %-44s %10.2f %10.2f %-8s %6.2f x  %s" % (name, mine, other, unit, ratio, goal))
    else:
        print("  %-44s %10.2f %10s %-8s %8s  %s" % (name, mine, "-", unit, "", goal))
    sys.stdout.flush()


def header(text):
    print("\n%s\n  %-44s %10s %10s" % (text, "", "ours", "nginx x2"))


def wanted(name):
    return not ONLY or name in ONLY


def transfers(us, ref, certs):
    header("bulk, one stream, TLS on both hops, 1 GB")
    size = 1000000000
    blob = PLACE / "blob"
    if not blob.exists() or blob.stat().st_size != size:
        subprocess.run(["dd", "if=/dev/zero", "of=%s" % blob, "bs=1M", "count=0",
                        "seek=%d" % (size >> 20), "status=none"], check=True)
        os.truncate(blob, size)
    for name, goal, target, upload in (("download", ">= 0.8", "/bytes/%d" % size, None),
                                       ("upload", ">= 0.9", "/sink", str(blob))):
        ours, theirs, cpu = [], [], []
        for _ in range(REPS):
            before = children_cpu(us.server.process.pid), children_cpu(us.agent.process.pid)
            ours.append(speed(us.host, certs.ca, target, upload))
            after = children_cpu(us.server.process.pid), children_cpu(us.agent.process.pid)
            cpu.append((after[0] - before[0], after[1] - before[1]))
            theirs.append(speed(ref.host, certs.ca, target, upload))
        row(name, "MB/s", ours, theirs, goal)
        row("  tunneld CPU", "s/GB", [c[0] for c in cpu])
        row("  agentd CPU", "s/GB", [c[1] for c in cpu])


def requests(us, ref):
    header("requests, 1 KiB answers, keep-alive, wrk -t1")
    for c, goals in ((1, ("", "", "")), (64, (">= 1.2", "", "<= 0.8"))):
        ours, theirs, cpu = [], [], []
        for _ in range(REPS):
            before = children_cpu(us.server.process.pid), children_cpu(us.agent.process.pid)
            ours.append(wrk(us.host, c))
            after = children_cpu(us.server.process.pid), children_cpu(us.agent.process.pid)
            cpu.append([(b - a) * 1e6 / ours[-1]["requests"] for a, b in zip(before, after)])
            theirs.append(wrk(ref.host, c))
        for key, unit, goal in zip(("rps", "p50", "p99"), ("/s", "ms", "ms"), goals):
            row("%s, %d client%s" % (key, c, "" if c == 1 else "s"), unit,
                [o[key] for o in ours], [t[key] for t in theirs], goal)
        row("  tunneld CPU", "us/req", [x[0] for x in cpu])
        row("  agentd CPU", "us/req", [x[1] for x in cpu])


def interactive(certs):
    """A keystroke beside a download, over a link limited to 20 Mbit/s by tc tbf."""
    header("interactive p99 beside a bulk download, link at 20 Mbit/s")
    if os.geteuid() != 0:
        print("  left out: a network namespace with tc needs root")
        return
    ip, tc = program("ip"), program("tc")
    names = ["bench%da" % os.getpid(), "bench%db" % os.getpid()]

    def run(*argv):
        subprocess.run(argv, check=True, capture_output=True)
    stack = Stack(PLACE / "interactive", certs)
    stack.place.mkdir(parents=True, exist_ok=True)
    try:
        for n in names:
            run(ip, "netns", "add", n)
            run(ip, "-n", n, "link", "set", "lo", "up")
        run(ip, "-n", names[0], "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns",
            names[1])
        for n, dev, addr in ((names[0], "v0", "192.0.2.1/30"), (names[1], "v1", "192.0.2.2/30")):
            run(ip, "-n", n, "addr", "add", addr, "dev", dev)
            run(ip, "-n", n, "link", "set", dev, "up")
            run(tc, "-n", n, "qdisc", "add", "dev", dev, "root", "tbf", "rate", "20mbit", "burst",
                "32k", "latency", "50ms")
        inside = [ip, "netns", "exec", names[1]]
        outside = [ip, "netns", "exec", names[0]]
        # The link's host must be found at 192.0.2.1: a SOCKS proxy there is the simplest way in
        # which the agent dials it, and microsocks copies bytes as they come.
        server = conftest.Server(stack.place / "server", certs, default_visibility="public")
        server.config["listen"] = ["127.0.0.1:8443"]
        server.write()
        server.process = conftest.Process([*outside, tool("tunneld"), "serve", "-c", server.file])
        stack.keep(server)
        server.wait_ready()
        stack.process([*outside, program("microsocks"), "-i", "192.0.2.1", "-p", "1080"])
        time.sleep(0.3)
        port = below_ephemeral_port()
        stack.process([*inside, tool("origin"), str(port)])
        agent = stack.agent(server, wrap=inside, env={"ALL_PROXY": "socks5://192.0.2.1:1080"})
        agent.wait_port(port)
        host = server.host(port, "demo")
        download = stack.process([*outside, *curl(host, certs.ca, "https://%s/bytes/%d" % (host, 1 << 30))])
        time.sleep(2)
        probe = ("import sys; sys.path.insert(0, %r)\nimport ssl, time\nfrom http_client import Client\n"
                 "c = Client(('127.0.0.1', %d), %r, ssl.create_default_context(cafile=%r))\n"
                 "for _ in range(300):\n    t = time.monotonic(); a = c.get('/1k'); "
                 "print((time.monotonic() - t) * 1000); time.sleep(0.01)\n"
                 % (str(ROOT / "tests/e2e"), server.port, host, certs.ca))
        out = subprocess.run([*outside, sys.executable, "-c", probe], capture_output=True, text=True,
                             check=True).stdout
        values = sorted(float(x) for x in out.split())
        assert download.alive(), "the download ended before the probes did"
        row("p50", "ms", [values[len(values) // 2]])
        row("p99", "ms", [values[int(len(values) * 0.99)]], goal="<= 80 ms")
    finally:
        stack.end()
        for n in names:
            subprocess.run([ip, "netns", "del", n], capture_output=True)


def idle_agents(certs):
    header("1,000 idle agents")
    stack = Stack(PLACE / "idle", certs)
    stack.place.mkdir(parents=True, exist_ok=True)
    try:
        key = stack.place / "key"
        key.write_text(os.urandom(32).hex())
        server = stack.server(keys=[{"kid": "swarm", "alg": "HS256", "file": str(key)}])
        before = server.process.rss_kib()
        swarm = stack.process([tool("swarm"), server.url, certs.ca, str(key), "swarm", "1000"])
        swarm.wait_line(lambda s: s.startswith("all-up"), 60)
        time.sleep(2)
        row("tunneld resident memory per agent", "KiB", [(server.process.rss_kib() - before) / 1000],
            goal="<= 40 (goal 32, then 22)")
        reconnect(server, swarm)
    finally:
        stack.end()


def reconnect(server, swarm):
    """The server gone for 5 s."""
    mark = swarm.mark()
    server.process.kill()
    gone = time.monotonic()
    swarm.wait_line(lambda s: s.startswith("lost"), 10, mark)
    lost_at = int(swarm.wait_line(lambda s: s.startswith("lost"), 10, mark).split()[2])
    time.sleep(max(0, 5 - (time.monotonic() - gone)))
    server.start()

    def all_back():
        return sum(line.startswith("back") for line in swarm.output("out")) >= 1000
    try:
        wait_until(all_back, 60, "all agents are back")
    except AssertionError as e:
        print("  %s" % e)
    times = sorted(int(line.split()[2]) - lost_at - 5000 for line in swarm.output("out")
                   if line.startswith("back"))
    most = max(sum(t <= x < t + 100 for x in times) for t in times)
    row("back after the server returned, median", "s", [statistics.median(times) / 1000], goal="<= 10")
    row("back, the last", "s", [times[-1] / 1000], goal="<= 40")
    row("back in the busiest 100 ms", "%", [100 * most / len(times)], goal="<= 15")


def agent_idle(certs):
    header("agentd idle, 10 s")
    stack = Stack(PLACE / "agent", certs)
    stack.place.mkdir(parents=True, exist_ok=True)
    try:
        server = stack.server()
        agent = stack.agent(server)
        time.sleep(1)
        before = agent.process.cpu_s()
        time.sleep(10)
        row("resident memory", "MiB", [agent.process.rss_kib() / 1024], goal="<= 8")
        row("CPU", "% core", [(agent.process.cpu_s() - before) * 10], goal="<= 0.2")
    finally:
        stack.end()


def port_to_url(certs):
    header("port opened -> URL answers")
    stack = Stack(PLACE / "port", certs)
    stack.place.mkdir(parents=True, exist_ok=True)
    try:
        server = stack.server(default_visibility="public")
        stack.agent(server)
        times = []
        for _ in range(10):
            port = below_ephemeral_port()
            result = {}

            def ask():
                with server.preview(port) as c:
                    result["status"] = c.get("/").status
                result["at"] = time.monotonic()
            t = threading.Thread(target=ask)
            t.start()
            time.sleep(0.3)
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            start = time.monotonic()
            listener.listen(5)
            s, _ = listener.accept()
            s.recv(65536)
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            t.join(20)
            assert result["status"] == 200
            times.append((result["at"] - start) * 1000)
            s.close()
            listener.close()
        row("median of 10", "ms", times, goal="<= 300")
        row("worst of 10", "ms", [max(times)])
    finally:
        stack.end()


def main():
    PLACE.mkdir(parents=True, exist_ok=True)
    certs = Certs(PLACE / "certs")
    print("%d cores, %s, %s" % (os.cpu_count(), os.uname().release, subprocess.run(
        ["openssl", "version"], capture_output=True, text=True).stdout.strip()))
    if wanted("bulk") or wanted("requests"):
        stack = Stack(PLACE / "main", certs)
        stack.place.mkdir(parents=True, exist_ok=True)
        try:
            port = below_ephemeral_port()
            stack.app([tool("origin"), str(port)])
            us, ref = Us(stack, certs, port), Reference(stack, certs, port)
            if wanted("bulk"):
                transfers(us, ref, certs)
            if wanted("requests"):
                requests(us, ref)
        finally:
            stack.end()
    for name, section in (("interactive", interactive), ("idle", idle_agents),
                          ("agent", agent_idle), ("port", port_to_url)):
        if wanted(name):
            section(certs)
    (PLACE / "blob").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
