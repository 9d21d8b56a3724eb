# SPDX-License-Identifier: MIT
"""Real engines: podman and runc with the hook, Docker with the runtime wrapper, both tiers. What is
allowed answers from a container's first instruction on, nothing else leaves, and what breaks
enforcement is said."""

import concurrent.futures
import json
import os
import signal

import pytest

from conftest import Process, wait_until
from egress_lab import lab, sh  # noqa: F401 (a fixture)
from engines import (ALLOWED, IP, NSENTER, RUNC, Docker, Floor, Podman, Runc, example, judge,  # noqa: F401
                     need, policy, probe, reached, service)

reason = need("podman", "runc", "dockerd", "containerd")
pytestmark = [pytest.mark.skipif(reason is not None, reason="left out: %s" % reason)]


@pytest.fixture(scope="module")
def floor(lab):
    f = Floor(lab)
    yield f
    f.stop()


@pytest.fixture(scope="module")
def podman(lab, service, floor, policy):
    p = Podman(floor, example("agentd-egress.json", lab, service, policy))
    yield p
    p.stop()


@pytest.fixture(scope="module")
def docker(lab, service, floor, policy):
    d = Docker(floor, example("daemon.json", lab, service, policy)["runtimes"])
    yield d
    d.stop()


@pytest.fixture(scope="module")
def runc(floor):
    return Runc(floor)


def only_allowed_left(lab, mark):
    """The packets that arrived outside are the guard's own."""
    to = {(p["dst"], p.get("dport")) for p in lab.packets(mark) if p["proto"] in ("tcp", "udp", 6, 17)}
    assert to <= {("203.0.113.11", 80), ("203.0.113.12", 5432)}, to


def hook_bundle(runc, lab, service, annotations, command):
    hook = {"path": lab.binary, "args": ["agentd", "egress", "hook", "--socket", service.socket], "timeout": 60}
    return runc.bundle(command, hooks={"createRuntime": [hook]}, annotations=annotations)


# -- sealed -------------------------------------------------------------------------------------------


def test_podman_without_network_and_with_the_hook_is_sealed(lab, service, podman, policy):
    mark = lab.mark()
    judge(podman.run("none", {"agentd.egress.policy": policy}, *probe()))
    only_allowed_left(lab, mark)


def test_podman_tells_who_it_is_and_is_forgotten_at_its_end(service, podman, policy):
    _, name = podman.start("none", {"agentd.egress.policy": policy}, "sleep", "1000")
    s = service.one(name[:12])
    assert (s["tier"], s["enforced"]) == ("sealed", True), s
    judge(podman.execute(name, *probe()))
    podman.remove(name)
    service.wait_gone(name[:12])


def test_a_bundle_of_runc_with_the_hook_is_sealed(lab, service, runc, policy):
    mark = lab.mark()
    b = hook_bundle(runc, lab, service, {"agentd.egress.policy": policy, "agentd.egress.name": "by-hand"}, probe())
    judge(runc.run(b))
    only_allowed_left(lab, mark)
    service.wait_gone("by-hand")


def test_many_containers_may_begin_at_once(lab, service, runc, policy):
    mark = lab.mark()
    bundles = [hook_bundle(runc, lab, service, {"agentd.egress.policy": policy, "agentd.egress.name": "many-%d" % i},
                           probe(wait=20)) for i in range(12)]
    with concurrent.futures.ThreadPoolExecutor(len(bundles)) as pool:
        for done in pool.map(runc.run, bundles):
            judge(done)
    only_allowed_left(lab, mark)
    wait_until(lambda: not service.status(), 15, "all are gone")


def test_the_wrapper_puts_the_hook_into_a_bundle_and_keeps_the_rest(lab, service, runc, policy):
    wrapper = [lab.binary, "egress", "runtime", "--policy", policy, "--socket", service.socket, "--runtime", RUNC]
    b = runc.bundle(probe(), annotations={"agentd.egress.policy": "production", "org.example": "ü"})
    before = json.loads((b / "config.json").read_text())
    judge(runc.run(b, wrapper))
    after = json.loads((b / "config.json").read_text())
    assert after.pop("hooks")["createRuntime"][0]["path"] == lab.binary
    assert after.pop("annotations") == {"org.example": "ü", "agentd.egress.policy": policy}
    before.pop("annotations")
    assert after == before
    assert sorted(p.name for p in b.iterdir()) == ["config.json", "rootfs"]


def test_docker_without_network_and_with_the_wrapper_is_sealed(lab, service, docker):
    mark = lab.mark()
    judge(docker.run("none", "sealed", *probe()))
    only_allowed_left(lab, mark)


def test_docker_starts_a_sealed_container_again(service, docker):
    pid, name = docker.start("none", "sealed", "sleep", "1000")
    for _ in range(3):
        docker.floor.check(*docker.base, "restart", "-t", "0", name)
        assert service.one(name[:12])["enforced"]
    judge(docker.execute(name, *probe()))
    docker.remove(name)
    service.wait_gone(name[:12])


# -- veth ---------------------------------------------------------------------------------------------


def test_podman_on_its_bridge_is_ruled_from_the_host(lab, service, podman, policy):
    mark = lab.mark()
    judge(podman.run("podman", {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"}, *probe()))
    only_allowed_left(lab, mark)


def test_a_network_with_ipv6_is_ruled_alike(lab, service, podman):
    policy = lab.policy("api.example.test:80")
    mark = lab.mark()
    command = ["/usr/bin/python3", "-c", PROBE6, "2001:db8:1::10", "2001:db8:1::66", "fe80::1%eth0"]
    done = podman.run("dual", {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"}, *command)
    assert done.returncode == 0, done
    assert json.loads(done.stdout) == {"named": True, "open": [False, False, False]}, done
    assert {(p["dst"], p.get("dport")) for p in lab.packets(mark) if p["proto"] in (6, 17)} <= {
        ("2001:db8:1::10", 80), ("203.0.113.10", 80)}


# An allowed name over IPv6 alone; and addresses, by TCP on a port that is not named.
PROBE6 = r"""
import json, socket, sys
a = socket.getaddrinfo("api.example.test", 80, socket.AF_INET6, socket.SOCK_STREAM)[0]
with socket.socket(socket.AF_INET6) as s:
    s.settimeout(5)
    s.connect(a[4])
    s.sendall(b"GET / HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
    named = s.recv(12) == b"HTTP/1.1 200"
def is_open(host):
    try:
        with socket.create_connection((host, 9999), 2) as c:
            return bool(c.recv(1))
    except OSError:
        return False
print(json.dumps({"named": named, "open": [is_open(h) for h in sys.argv[1:]]}))
"""


def test_docker_on_its_default_bridge_is_ruled_from_the_host(lab, service, docker):
    mark = lab.mark()
    judge(docker.run("bridge", "veth", *probe()))
    only_allowed_left(lab, mark)


@pytest.fixture(scope="module")
def host_server(lab):
    p = Process(lab.host_argv() + ["python3", "-m", "http.server", "--bind", "::", "8022"])
    yield 8022
    p.end()


def test_containers_on_one_bridge_do_not_reach_each_other_or_the_host(service, docker, host_server):
    serve = ["python3", "-m", "http.server", "8000"]
    _, open_one = docker.start("bridge", "runc", *serve)  # a container that nobody rules
    _, first = docker.start("bridge", "veth", *serve)
    try:
        there = [docker.floor.check(*docker.base, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", c).strip()
                 for c in (open_one, first)]
        asked = [["http", there[0], 8000], ["http", "172.17.0.1", host_server], ["http", "203.0.113.2", host_server],
                 ["http", there[1], 8000]]
        # They are there: a container without rules reaches those that nobody rules.
        found = reached(docker.run("bridge", "runc", *probe(*asked, wait=1, first=())).stdout)
        assert found[:3] == ["answered"] * 3, found
        found = judge(docker.run("bridge", "veth", *probe(*asked)))[-len(asked):]
        assert "answered" not in found, found
    finally:
        docker.remove(first)
        docker.remove(open_one)


def test_the_hosts_link_local_address_is_not_reached(lab, service, podman, policy, host_server):
    annotations = {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"}
    podman.run("podman", {}, "true")  # the bridge is made with the first container
    local = [a["local"] for a in json.loads(sh(IP, "-n", lab.host, "-j", "addr", "show", "pod0"))[0]["addr_info"]
             if a["local"].startswith("fe80")][0]
    asked = ["http", local + "%eth0", host_server]
    settle = "import time; time.sleep(3)\n"  # IPv6 takes two seconds to be sure of an address
    command = probe(asked, wait=1, first=())
    command[2] = settle + command[2]
    assert reached(podman.run("podman", {}, *command).stdout) == ["answered"]
    assert reached(podman.run("podman", annotations, *command).stdout) != ["answered"]


# -- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network,annotations,says", [
    ("podman", {}, "a sealed one has none"),
    ("host", {}, "the host's own network namespace"),
    ("none", {"agentd.egress.tier": "veth"}, "has no interface"),
    ("none", {"agentd.egress.tier": "open"}, "a tier is"),
    ("none", {"agentd.egress.polcy": "x"}, "no annotation"),
    ("none", {"agentd.egress.policy": "../p.json"}, "absolute path"),
    ("none", {"agentd.egress.policy": "/no/such/file"}, "/no/such"),
    ("none", {"agentd.egress.policy": "no-such-preset"}, "no-such-preset"),
    ("none", {"agentd.egress.name": "not a name"}, "agentd.egress.name"),
])
def test_what_cannot_be_enforced_does_not_start(lab, service, podman, policy, network, annotations, says):
    mark = lab.mark()
    done = podman.run(network, {"agentd.egress.policy": policy, **annotations}, *probe())
    assert done.returncode != 0 and says in done.stderr, done
    assert "answered" not in done.stdout
    assert not lab.packets(mark) and not service.status()


def test_a_policy_that_others_can_write_does_not_count(lab, service, podman, policy):
    for change in ("mode", "owner", "folder"):
        open_to_others = lab.place / ("open-" + change)
        open_to_others.mkdir()
        path = open_to_others / "p.json"
        path.write_text(open(policy).read())
        os.chmod(path, 0o666 if change == "mode" else 0o644)
        os.chmod(open_to_others, 0o777 if change == "folder" else 0o755)
        if change == "owner":
            os.chown(path, 54321, 54321)
        done = podman.run("none", {"agentd.egress.policy": str(path)}, "true")
        assert done.returncode != 0 and ("written by others" in done.stderr or "not root's" in done.stderr), done


def test_without_the_service_nothing_starts(lab, service, podman, docker, policy):
    service.stop()
    try:
        for done in (podman.run("none", {"agentd.egress.policy": policy}, "echo", "began"),
                     docker.run("none", "sealed", "echo", "began")):
            assert done.returncode != 0 and "began" not in done.stdout, done
            assert "agentd egress hook" in done.stderr or "hook" in done.stderr, done
    finally:
        service.start()


def test_a_docker_user_network_is_refused_for_its_resolver(lab, service, docker):
    docker.floor.check(*docker.base, "network", "create", "users")
    mark = lab.mark()
    done = docker.run("users", "veth", *probe())
    assert done.returncode != 0 and "answered" not in done.stdout, done
    assert "embedded resolver" in done.stderr, done
    assert not lab.packets(mark)


def test_two_interfaces_are_refused(lab, service, runc, policy):
    """A bundle in a namespace that has two, as an engine with several networks makes."""
    ns = lab.host + "two"
    sh(IP, "netns", "add", ns)
    try:
        for i in (1, 2):
            sh(IP, "-n", lab.host, "link", "add", "two%d" % i, "type", "veth", "peer", "name", "eth%d" % i, "netns", ns)
        hook = json.dumps({"ociVersion": "1.0.2", "id": "two", "status": "creating", "bundle": "/",
                           "pid": hold(lab, ns).pid,
                           "annotations": {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"}})
        done = lab.agentd("hook", "--socket", service.socket, input=hook)
        assert done.returncode == 1 and "eth1 and eth2" in done.stderr, done
    finally:
        sh(IP, "netns", "del", ns)


def test_a_namespace_that_is_a_sandbox_already_takes_no_second_one(lab, service, podman, policy):
    _, name = podman.start("none", {"agentd.egress.policy": policy}, "sleep", "1000")
    mark = lab.mark()
    done = podman.run("container:" + name, {"agentd.egress.policy": "production"}, *probe())
    assert done.returncode != 0 and "sandbox %s's already" % name[:12] in done.stderr, done
    # Without annotations it is under the first one's rules, as all in that namespace.
    judge(podman.run("container:" + name, {}, *probe()))
    only_allowed_left(lab, mark)
    podman.remove(name)
    service.wait_gone(name[:12])


def hold(lab, ns):
    p = Process([NSENTER, "--net=/run/netns/" + ns, "sh", "-c", "echo in; exec sleep 1000"])
    lab.things.append(p)
    p.wait_line(lambda line: line == "in")
    return p


def test_macvlan_has_no_end_on_the_host(lab, service, policy):
    ns = lab.host + "mac"
    sh(IP, "netns", "add", ns)
    try:
        sh(IP, "-n", lab.host, "link", "add", "mac0", "link", "out", "type", "macvlan", "mode", "bridge")
        sh(IP, "-n", lab.host, "link", "set", "mac0", "netns", ns)
        hook = json.dumps({"ociVersion": "1.0.2", "id": "mac", "status": "creating", "bundle": "/",
                           "pid": hold(lab, ns).pid,
                           "annotations": {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"}})
        done = lab.agentd("hook", "--socket", service.socket, input=hook)
        assert done.returncode == 1 and "macvlan" in done.stderr, done
    finally:
        sh(IP, "netns", "del", ns)


# -- what breaks it ---------------------------------------------------------------------------------


@pytest.fixture
def ruled(service, podman, policy):
    """A container of the veth tier that waits; (pid, its name, the sandbox's)."""
    pid, name = podman.start("podman", {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"},
                             "sleep", "1000", options=("--cap-add", "NET_ADMIN,NET_RAW"))
    service.wait_enforced(name[:12])
    yield pid, name, name[:12]
    podman.remove(name)
    service.wait_gone(name[:12])


def nothing_denied_leaves(lab, podman, name):
    mark = lab.mark()
    done = podman.execute(name, *probe(wait=1))
    assert done.returncode == 0, done
    found = reached(done.stdout)
    assert "answered" not in found[len(ALLOWED):], found
    only_allowed_left(lab, mark)
    return found


def test_br_netfilter_on_its_bridge_is_said(lab, service, podman, ruled):
    _, name, sandbox = ruled
    for switch in ("iptables", "ip6tables"):
        lab.from_host("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-%s=1" % switch)
        s = service.wait_enforced(sandbox, False)
        assert any("bridge-nf-call-" + switch in r for r in s["reasons"]), s
        nothing_denied_leaves(lab, podman, name)
        lab.from_host("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-%s=0" % switch)
        service.wait_enforced(sandbox)
    judge(podman.execute(name, *probe()))


def test_a_flushed_rule_lets_nothing_out_and_comes_back(lab, service, podman, ruled):
    _, name, sandbox = ruled
    for family in ("-4", "-6"):
        sh(IP, "-n", lab.host, family, "rule", "flush")
        sh(IP, "-n", lab.host, family, "rule", "add", "lookup", "main", "priority", "32766")
        nothing_denied_leaves(lab, podman, name)
        service.wait_enforced(sandbox)
    judge(podman.execute(name, *probe()))


def test_renaming_the_interface_inside_gains_nothing(lab, service, podman, ruled):
    pid, name, sandbox = ruled
    inside = [NSENTER, "--net=/proc/%d/ns/net" % pid, IP]
    sh(*inside, "link", "set", "eth0", "down")
    sh(*inside, "link", "set", "eth0", "name", "x")
    sh(*inside, "link", "set", "x", "up")
    sh(*inside, "route", "add", "default", "via", "10.88.0.1")
    judge(podman.execute(name, *probe()))
    assert service.wait_enforced(sandbox)


def test_an_address_that_the_sandbox_gives_itself_is_dropped(lab, service, podman, ruled):
    pid, name, sandbox = ruled
    inside = [NSENTER, "--net=/proc/%d/ns/net" % pid, IP]
    sh(*inside, "addr", "add", "10.88.0.77/16", "dev", "eth0")
    sh(*inside, "route", "replace", "default", "via", "10.88.0.1", "src", "10.88.0.77")
    mark = lab.mark()
    found = reached(podman.execute(name, *probe(wait=1)).stdout)
    assert "answered" not in found, found
    only_allowed_left(lab, mark)
    sh(*inside, "route", "replace", "default", "via", "10.88.0.1")
    judge(podman.execute(name, *probe()))
    assert service.one(sandbox)["enforced"]


def test_an_interface_moved_on_the_host_is_said_and_closed(lab, service, podman, ruled):
    _, name, sandbox = ruled
    links = json.loads(sh(IP, "-n", lab.host, "-j", "-d", "link", "show", "master", "pod0"))
    port = links[0]["ifname"]
    host = [IP, "-n", lab.host, "link"]
    sh(*host, "add", "other0", "type", "bridge")
    sh(*host, "set", port, "master", "other0")
    s = service.wait_enforced(sandbox, False)
    assert any("other0" in r for r in s["reasons"]), s
    nothing_denied_leaves(lab, podman, name)
    sh(*host, "set", port, "master", "pod0")
    nothing_denied_leaves(lab, podman, name)
    sh(*host, "del", "other0")


def test_a_second_interface_is_said(lab, service, ruled):
    pid, _, sandbox = ruled
    sh(IP, "-n", lab.host, "link", "add", "extra0", "type", "veth", "peer", "name", "extra1", "netns", str(pid))
    s = service.wait_enforced(sandbox, False)
    assert any("extra1" in r for r in s["reasons"]), s
    sh(IP, "-n", lab.host, "link", "del", "extra0")
    service.wait_enforced(sandbox)


def test_a_killed_guard_lets_nothing_out_and_comes_back(lab, service, podman, ruled):
    _, name, sandbox = ruled
    for _ in range(3):
        os.kill(service.one(sandbox)["guard"]["pid"], signal.SIGKILL)
        nothing_denied_leaves(lab, podman, name)
        service.wait_enforced(sandbox)
    judge(podman.execute(name, *probe()))


# Sends without pause, to addresses that are not allowed.
PROBER = r"""
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for host in ("203.0.113.66", "198.51.100.7"):
        try:
            u.sendto(b"x", (host, 9999))
        except OSError:
            pass
        t = socket.socket()
        t.setblocking(False)
        t.connect_ex((host, 9999))
        t.close()
"""


@pytest.mark.parametrize("network,tier", [("podman", "veth"), ("none", "sealed")])
def test_a_service_that_dies_and_comes_back_opens_nothing(lab, service, podman, policy, network, tier):
    """Killed, and stopped in good order: its rules stay, and it takes up its sandboxes again with
    no moment between."""
    _, name = podman.start(network, {"agentd.egress.policy": policy, "agentd.egress.tier": tier},
                           "python3", "-c", PROBER)
    try:
        for i in range(8):
            mark = lab.mark()
            service.process.kill() if i % 2 else service.stop()
            assert not lab.packets(mark)
            service.start()
            service.wait_enforced(name[:12])
            assert not lab.packets(mark)
        # So many refusals at once are not all answered: UDP may hear nothing.
        assert nothing_denied_leaves(lab, podman, name)[:len(ALLOWED)] == ["answered"] * len(ALLOWED)
    finally:
        podman.remove(name)
    service.wait_gone(name[:12])


def test_a_service_that_comes_back_to_a_broken_host_opens_nothing(lab, service, podman, ruled):
    """What it cannot enforce when it begins it keeps closed, and says so."""
    _, name, sandbox = ruled
    service.stop()
    lab.from_host("sysctl", "-q", "-w", "net.ipv4.conf.all.src_valid_mark=1")
    try:
        service.start()
        s = service.wait_enforced(sandbox, False)
        assert any("src_valid_mark" in r for r in s["reasons"]), s
        nothing_denied_leaves(lab, podman, name)
    finally:
        lab.from_host("sysctl", "-q", "-w", "net.ipv4.conf.all.src_valid_mark=0")
    service.wait_enforced(sandbox)
    judge(podman.execute(name, *probe()))


def test_src_valid_mark_is_said(lab, service, podman, ruled):
    _, name, sandbox = ruled
    lab.from_host("sysctl", "-q", "-w", "net.ipv4.conf.all.src_valid_mark=1")
    s = service.wait_enforced(sandbox, False)
    assert any("src_valid_mark" in r for r in s["reasons"]), s
    nothing_denied_leaves(lab, podman, name)
    lab.from_host("sysctl", "-q", "-w", "net.ipv4.conf.all.src_valid_mark=0")
    service.wait_enforced(sandbox)


def test_rp_filter_and_ip_forward_do_not_matter(lab, service, podman, ruled):
    _, name, sandbox = ruled
    for setting in ("all.rp_filter=1", "pod0.rp_filter=1"):
        lab.from_host("sysctl", "-q", "-w", "net.ipv4.conf." + setting)
    lab.from_host("sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
    judge(podman.execute(name, *probe()))
    assert service.one(sandbox)["enforced"]
    for setting in ("conf.all.rp_filter=0", "conf.pod0.rp_filter=0", "ip_forward=1"):
        lab.from_host("sysctl", "-q", "-w", "net.ipv4." + setting)


def test_an_order_of_hooks_that_docker_relies_on(service, docker):
    """libnetwork sets the interface by a prestart hook, which runc runs before ours: else the veth tier
    would find none and refuse."""
    _, name = docker.start("bridge", "veth", "sleep", "1000")
    s = service.one(name[:12])
    assert (s["tier"], s["enforced"]) == ("veth", True), s
    docker.remove(name)
    service.wait_gone(name[:12])
