# SPDX-License-Identifier: MIT
"""Policies on the command line: `agentd egress check` and `explain`, and the JSON Schema, which must
agree with the parser wherever a schema can tell."""

import json
import os
import subprocess

import pytest

from conftest import ROOT, tool

SCHEMA = ROOT / "docs/egress-policy.schema.json"
EXAMPLES = sorted((ROOT / "examples/egress").glob("*.json"))


def egress(*args, env=None):
    return subprocess.run([tool("agentd"), "egress", *args], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20,
                          env={**os.environ, "TUNNEL_LOCAL_NETWORKS": "10.9.0.0/16", **(env or {})})


def check(tmp_path, policy):
    path = tmp_path / "policy.json"
    path.write_text(policy if isinstance(policy, str) else json.dumps(policy, indent=1))
    return path, egress("check", str(path))


def allow(*rules):
    return {"version": 1, "allow": list(rules)}


GOOD = [
    {"version": 1},
    allow("api.example.com", "*.example.com", "db.example.com:5432/tcp", "203.0.113.0/24:443",
          "[2001:db8::]/32:443", "2001:db8:7::/48", "API.Example.org.", "a.lan:1,3-5"),
    allow({"to": {"domain": "*.example.com"}, "ports": [443, "8000-8999"], "tls": False,
           "limits": {"bytes": 1}, "expires": "2099-01-01T00:00:00.5+02:00", "reason": "why"}),
    allow({"to": {"cidr": "2001:db8::/32"}, "ports": 22}, {"to": {"group": "private"}},
          {"to": {"group": "local-networks"}, "ports": "1-9"}, {"to": {"group": "registries"}},
          {"to": {"preset": "build"}, "from": "x"}),
    {"version": 1, "deny": ["a.example.com", {"to": "b.example.com", "ports": [1]}]},
    {"version": 1, "extends": ["full-isolation", "production"], "mode": "audit", "name": "n",
     "default": "allow", "dns": {"upstream": "system"}},
    {"version": 1, "extends": "build", "dns": {"upstream": ["192.0.2.53", "[2001:db8::53]:53", "::1"]},
     "protocols": {"8443": "tls", "80": "none", "8080": "http"}, "limits": {"labels": 1, "names": 1}},
    {"version": 1, "proxy": {"url": "http://proxy.example.com:3128", "no_proxy": "a.b", "required": True,
                             "by": "name"}},
]
# What is said, and whether a schema can say it too.
BAD = [
    ({}, "version", True),
    ({"version": "1"}, "must be 1", True),
    ({"version": 1, "alow": []}, 'nearest is "allow"', True),
    ({"version": 1, "mode": "enforced"}, 'nearest is "enforce"', True),
    ({"version": 1, "default": True}, "must be a string", True),
    ({"version": 1, "name": ""}, "is empty", True),
    ({"version": 1, "allow": "a.b"}, "must be an array", True),
    ({"version": 1, "extends": "prodution"}, 'nearest is "production"', True),
    (allow("*"), "alone", True),
    (allow("*.com"), "public suffix", False),
    (allow("*.github.io"), "public suffix", False),
    (allow("a.*.example.com"), '"*"', True),
    (allow("*a.example.com"), '"*"', True),
    (allow("a\0.example.com"), "NUL", True),
    (allow("b\u00fccher.example"), "xn--", True),
    (allow("a" * 64 + ".example"), "63", True),
    (allow("a_b.example"), "_", True),
    (allow("-a.example"), "begins or ends", True),
    (allow("[a.example]"), "brackets", True),
    (allow("https://a.example"), "URL", True),
    (allow("127.1"), "dotted quad", False),
    (allow({"to": {"domain": "127.1"}}), "dotted quad", True),
    (allow({"to": {"domain": "0x7f000001"}}), "dotted quad", True),
    (allow("127.0.0.1:80"), "floor", False),
    (allow("203.0.113.5/24"), "203.0.113.0/24", False),
    (allow("a.example:0"), "no port", True),
    (allow("a.example:53"), "name server", False),
    (allow("a.example/udp"), "UDP", True),
    (allow({"ports": 1}), '"to"', True),
    (allow({"to": {"domain": "a.example", "cidr": "192.0.2.1"}}), "exactly one", True),
    (allow({"to": {"group": "registry"}}), 'nearest is "registries"', True),
    (allow({"to": "a.example", "ports": []}), "never match", True),
    (allow({"to": "a.example", "ports": [70000]}), "must be a port", True),
    (allow({"to": "a.example", "expires": "tomorrow"}), "RFC 3339", True),
    (allow({"to": "a.example", "limits": {"labels": 1}}), "there is no", True),
    (allow({"to": "a.example", "port": 1}), 'nearest is "ports"', True),
    ({"version": 1, "deny": [{"to": "a.example", "limits": {"bytes": 1}}]}, "deny rule", True),
    ({"version": 1, "deny": ["*.b.example"], "allow": ["a.b.example"]}, "covers it", False),
    ({"version": 1, "dns": {"upstream": []}}, "1 to 8", True),
    ({"version": 1, "dns": {"upstream": ["ns.example"]}}, "no address", True),
    ({"version": 1, "protocols": {"53": "none"}}, "name server", True),
    ({"version": 1, "protocols": {"1": "https"}}, 'nearest is "http"', True),
    ({"version": 1, "proxy": {}}, "url", True),
    ({"version": 1, "proxy": {"url": "http://p", "by": "ip"}}, "address", True),
    ({"version": 1, "limits": {"labels": 128}}, "127", True),
    ({"version": 1, "limits": {"bytes": 0}}, "from 1", True),
]


@pytest.mark.parametrize("policy", GOOD, ids=range(len(GOOD)))
def test_good_policies_are_printed(tmp_path, policy):
    _, done = check(tmp_path, policy)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["version"] == 1 and list(printed) == sorted(printed)
    _, again = check(tmp_path, done.stdout)
    assert again.returncode == 0 and again.stdout == done.stdout


@pytest.mark.parametrize("policy, says, _", BAD, ids=range(len(BAD)))
def test_bad_policies_name_file_line_and_rule(tmp_path, policy, says, _):
    path, done = check(tmp_path, policy)
    assert done.returncode == 2 and done.stdout == ""
    errors = [l for l in done.stderr.splitlines() if ": error: " in l]
    assert errors and says in errors[0], done.stderr
    assert int(errors[0][len(str(path)) + 1:].split(":")[0]) >= 1


def test_all_faults_are_told_with_their_lines(tmp_path):
    path, done = check(tmp_path, '{"version": 1,\n"allow": [\n"*",\n"ok.example.com",\n"a_b"],\n"x": 1}')
    assert done.returncode == 2
    assert [l.split(" ")[0] for l in done.stderr.splitlines()] == \
        ["%s:%d:" % (path, n) for n in (3, 5, 6)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_are_in_order(path):
    done = egress("check", str(path))
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_the_schema_says_what_the_parser_says():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    for policy in GOOD + [json.loads(p.read_text()) for p in EXAMPLES]:
        assert not list(judge.iter_errors(policy)), policy
    for policy, _, by_schema in BAD:
        assert bool(list(judge.iter_errors(policy))) == by_schema, policy


def test_files_extend_files_beside_them(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/base.json").write_text('{"version": 1, "extends": "more.txt"}')
    (tmp_path / "sub/more.txt").write_text("more.example.com:80\n")
    _, done = check(tmp_path, {"version": 1, "extends": "sub/base.json"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["allow"] == [{"from": "sub/more.txt", "to": "more.example.com:80/tcp"}]
    path, done = check(tmp_path, {"version": 1, "extends": "./policy.json"})
    assert done.returncode == 2 and "circle" in done.stderr


@pytest.mark.parametrize("preset", ["full-isolation", "development", "build", "production"])
def test_presets_stand_for_files(preset):
    done = egress("check", preset)
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    assert printed["name"] == preset
    assert printed["default"] == ("allow" if preset == "production" else "deny")
    if preset == "development":
        assert [r["to"] for r in printed["allow"]] == ["10.9.0.0/16:1-65535/tcp"]


def test_a_proxys_credentials_are_not_shown(tmp_path):
    (tmp_path / "secret").write_text("user:hunter2\n")
    _, done = check(tmp_path, {"version": 1, "proxy": {"url": "http://p.example:1",
                                                      "credentials_file": "secret"}})
    assert done.returncode == 0 and "http://***@p.example:1" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr and "user" not in done.stdout


EXPLAINED = [
    ("https://www.example.com/x?y", "allowed", 'allow rule 1 "*.example.com:443/tcp" (why)'),
    ("www.example.com", "allowed", "server name is checked"),
    ("HTTPS://WWW.Example.Com.:443/", "allowed", "allow rule 1"),
    ("http://www.example.com/", "denied", "default deny: allow rule 1"),
    ("example.com", "denied", "default deny: no rule names example.com port 443"),
    ("secret.example.com", "denied", 'deny rule 1 "secret.example.com:443/tcp"'),
    ("db.example.org:5432", "allowed", "no name is checked"),
    ("db.example.org:5432/tcp", "allowed", "allow rule 2"),
    ("db.example.org:5432/udp", "denied", "floor: UDP"),
    ("203.0.113.9:443", "allowed", "by its address"),
    ("[2001:db8::1]:443", "denied", "default deny"),
    ("2001:db8::1", "denied", "default deny"),
    ("10.1.2.3", "denied", "floor: private"),
    ("10.9.2.3:22", "allowed", "local-networks"),
    ("169.254.169.254", "denied", "floor: cloud metadata"),
    ("[::ffff:127.0.0.1]:80", "denied", "floor: loopback"),
    ("8.8.8.8:53/udp", "denied", "floor: port 53"),
]


def test_explain_names_the_rule_that_decides(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({
        "version": 1, "deny": ["secret.example.com"],
        "allow": [{"to": "*.example.com", "reason": "why"}, "db.example.org:5432", "203.0.113.0/24",
                  {"to": {"group": "local-networks"}}]}))
    done = egress("explain", "--policy", str(path), *[t for t, _, _ in EXPLAINED])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(EXPLAINED)
    for line, (target, word, says) in zip(lines, EXPLAINED):
        assert line.split()[0] == word and says in line, (target, line)


@pytest.mark.parametrize("target", ["127.1", "0x7f.1", "a_b.c", "ftp://a.b", "a.b:0", "a.b/sctp", "", "[a.b]",
                                    "a.b:1:2", "http://", "a..b", "b\u00fccher.example"])
def test_a_target_that_is_none_is_refused(target):
    done = egress("explain", "--policy", "production", target)
    assert done.returncode == 2 and done.stdout == "" and done.stderr


def test_explain_says_what_audit_mode_would_refuse(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"version": 1, "mode": "audit"}')
    done = egress("explain", "a.example.com", "--policy=%s" % path, "--", "127.0.0.1:80")
    first, second = done.stdout.splitlines()
    assert first.startswith("allowed mode audit, else refused: default deny")
    assert second.startswith("denied floor: loopback")


def test_wrong_usage_is_told():
    for args in (["check"], ["check", "a", "b"], ["check", "/nonexistent"], ["explain", "a.b"],
                 ["explain", "--policy"], ["explain", "--polcy", "x", "a.b"],
                 ["explain", "--policy", "/nonexistent", "a.b"]):
        done = egress(*args)
        assert done.returncode == 2 and done.stdout == "" and done.stderr, args


def test_explain_without_a_target_tells_the_implicit_rules():
    done = egress("explain", "--policy", "full-isolation")
    assert done.returncode == 0
    assert "cloud metadata" in done.stdout and "private networks" in done.stdout
    assert done.stdout.splitlines()[-1] == "default deny"
