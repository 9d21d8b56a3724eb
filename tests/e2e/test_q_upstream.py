# SPDX-License-Identifier: MIT
"""A corporate proxy as the only way out: a real squid with credentials, a real SOCKS5 server. Programs in
the sandbox know nothing of it."""

import json
import os
import subprocess

import pytest

from conftest import program
from egress_lab import lab, user  # noqa: F401 (fixtures)
from processes import Process, wait_until

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="left out: namespaces with veth need root")]

PROXY = "203.0.113.99"
SECRET = "s3cret/word"
SQUID = """http_port {address}:3128
pid_filename {place}/squid.pid
cache_log {place}/cache.log
access_log stdio:{place}/access.log
coredump_dir {place}
cache deny all
shutdown_lifetime 0 seconds
visible_hostname proxy.test
auth_param basic program {helper} {place}/passwords
auth_param basic realm test
auth_param basic casesensitive on
acl known proxy_auth REQUIRED
http_access allow CONNECT known
http_access deny all
dns_nameservers 203.0.113.53
"""


class Squid:
    def __init__(self, lab):
        self.lab = lab
        self.place = lab.place / "squid"
        self.place.mkdir()
        os.chmod(self.place, 0o777)
        helper = "/usr/lib/squid/basic_ncsa_auth"
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=SECRET, capture_output=True, text=True,
                                check=True).stdout.strip()
        (self.place / "passwords").write_text("agent:%s\n" % hashed)
        (self.place / "squid.conf").write_text(SQUID.format(address=PROXY, place=self.place, helper=helper))
        lab.in_world(program("ip"), "addr", "add", PROXY + "/32", "dev", "lo")
        self.start()

    def start(self):
        self.process = Process(["nsenter", "--net=/run/netns/" + self.lab.world, program("squid"), "-N",
                                "-n", "up%d" % os.getpid(), "-f", str(self.place / "squid.conf")])
        wait_until(lambda: self.lab.from_host("/usr/bin/python3", "-c", "import socket; socket.create_connection(('%s', 3128), 1)"
                                              % PROXY).returncode == 0, 30, "squid listens")

    def asked(self):
        path = self.place / "access.log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def squid(lab):
    s = Squid(lab)
    yield s
    s.process.end()


def policy_by(lab, *allow, **proxy):
    secret = lab.place / "proxy-secret"
    secret.write_text("agent:%s\n" % SECRET)
    os.chmod(secret, 0o644)
    return lab.policy(*allow, proxy={"url": "http://%s:3128" % PROXY, "credentials_file": str(secret), "required": True, **proxy})


def test_a_program_that_knows_no_proxy_reaches_the_allowed_name_by_it(lab, squid, user):
    policy = policy_by(lab, "api.example.test", "web.example.test:80", "db.example.test:5432/tcp")
    mark, before = lab.mark(), len(squid.asked())
    done = lab.run(policy, "sh", "-c", "curl -sS -m 8 --cacert %s https://api.example.test/ && curl -sS -m 8 http://web.example.test/ && "
                   "curl -sS -m 8 -k https://evil.test/; env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null" % lab.certs.ca, user=user)
    assert '"sni": "api.example.test"' in done.stdout and '"host": "web.example.test"' in done.stdout, done.stderr
    assert SECRET not in done.stdout + done.stderr
    asked = squid.asked()[before:]
    assert any("CONNECT 203.0.113.10:443" in a or "CONNECT [2001:db8:1::10]:443" in a for a in asked) and any("CONNECT 203.0.113.11:80" in a for a in asked), asked
    assert not any("203.0.113.66" in a or "evil" in a for a in asked)
    assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} == {(PROXY, 3128)}


def test_by_name_where_the_policy_says_so(lab, squid, user):
    before = len(squid.asked())
    done = lab.run(policy_by(lab, "api.example.test", by="name"), "curl", "-sS", "-m", "8", "--cacert", lab.certs.ca,
                   "https://api.example.test/", user=user)
    assert '"sni": "api.example.test"' in done.stdout, done.stderr
    assert any("CONNECT api.example.test:443" in a for a in squid.asked()[before:])


def test_a_private_address_is_refused_before_the_proxy_is_asked(lab, squid, user):
    for by in ("address", "name"):
        policy = policy_by(lab, "*.example.test", "*.example.test:80", by=by)
        before = len(squid.asked())
        for name in ("inside", "metadata", "loop"):
            done = lab.run(policy, "curl", "-sS", "-m", "5", "--resolve", "%s.example.test:80:203.0.113.11" % name,
                           "http://%s.example.test/" % name, user=user)
            assert '"to"' not in done.stdout, done.stdout
        assert squid.asked()[before:] == []


def test_no_proxy_goes_direct_when_the_policy_lists_it(lab, squid, user):
    policy = policy_by(lab, "api.example.test", required=False, no_proxy="203.0.113.0/28:443,2001:db8:1::/64")
    mark = lab.mark()
    done = lab.run(policy, "curl", "-sS", "-m", "8", "--cacert", lab.certs.ca, "https://api.example.test/", user=user)
    assert '"to"' in done.stdout, done.stderr
    assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} <= {("203.0.113.10", 443), ("2001:db8:1::10", 443)}


def test_a_wrong_password_is_an_error_and_never_direct(lab, squid, user):
    wrong = lab.policy("api.example.test", proxy={"url": "http://agent:wrong@%s:3128" % PROXY, "required": True})
    mark = lab.mark()
    done = lab.run(wrong, "curl", "-sS", "-m", "8", "-k", "https://api.example.test/", user=user)
    assert done.returncode != 0 and '"to"' not in done.stdout
    assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} <= {(PROXY, 3128)}


def test_socks5(lab, squid, user):
    socks = Process(["nsenter", "--net=/run/netns/" + lab.world, program("microsocks"), "-i", PROXY, "-p", "1080", "-u", "agent",
                     "-P", SECRET.replace("/", "")])
    try:
        wait_until(lambda: lab.from_host("/usr/bin/python3", "-c", "import socket; socket.create_connection(('%s', 1080), 1)"
                                         % PROXY).returncode == 0, 15, "microsocks listens")
        policy = lab.policy("api.example.test", proxy={"url": "socks5://agent:%s@%s:1080" % (SECRET.replace("/", ""), PROXY), "required": True})
        mark = lab.mark()
        done = lab.run(policy, "curl", "-sS", "-m", "8", "--cacert", lab.certs.ca, "https://api.example.test/", user=user)
        assert '"sni": "api.example.test"' in done.stdout, done.stderr
        assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} == {(PROXY, 1080)}
    finally:
        socks.end()


def test_squid_stopped_means_refused(lab, squid, user):
    policy = policy_by(lab, "api.example.test", "web.example.test:80")
    squid.process.end()
    try:
        mark = lab.mark()
        done = lab.run(policy, "sh", "-c", "curl -sS -m 8 -k https://api.example.test/; curl -sS -m 8 http://web.example.test/; true", user=user)
        assert '"to"' not in done.stdout
        assert {(p["dst"], p["dport"]) for p in lab.packets(mark)} <= {(PROXY, 3128)}
    finally:
        squid.start()


def test_credentials_are_in_no_log_or_record(lab, squid):
    path = lab.place / "proxy-audit.jsonl"
    policy = policy_by(lab, "api.example.test")
    done = lab.run(policy, "curl", "-sS", "-m", "8", "--cacert", lab.certs.ca, "https://api.example.test/", options=("--audit", str(path)))
    assert '"to"' in done.stdout
    shown = lab.agentd("check", policy)
    for text in (path.read_text(), done.stderr, shown.stdout, shown.stderr):
        assert SECRET not in text
    record = [json.loads(line) for line in path.read_text().splitlines() if "api.example.test" in line][-1]
    assert record["via"] == "%s:3128" % PROXY and record["dialed"] in ("203.0.113.10", "2001:db8:1::10"), record


def test_files_with_credentials_are_empty_inside(lab, user):
    """An ordinary user's COMMAND may read the user's files, but not these: the proxy's password, in a file or in
    the policy, and the agent's token."""
    inline = lab.policy("api.example.test", proxy={"url": "http://agent:%s@%s:3128" % (SECRET.replace("/", ""), PROXY)})
    by_file = policy_by(lab, "api.example.test")
    token = lab.place / "token"
    token.write_text("a.b.c\n")
    for path in (token, lab.place / "proxy-secret", inline):
        os.chmod(path, 0o644)
    for policy, hidden in ((by_file, (lab.place / "proxy-secret", token)), (inline, (inline, token))):
        done = lab.run(policy, "cat", *map(str, hidden), user=user, env={"TUNNEL_TOKEN_FILE": str(token)})
        assert (done.returncode, done.stdout) == (0, ""), (done.stdout, done.stderr)
    assert lab.run(by_file, "cat", by_file, user=user).stdout.startswith("{")
