# SPDX-License-Identifier: MIT
"""The gauntlet for containers: podman's, root in them with CAP_NET_ADMIN and CAP_NET_RAW and a tun device,
in both tiers. What the test itself watches is the judge: the world outside, a sibling on the same bridge,
and what the host's own programs are given. The tier "open" is the same container that nobody rules: it
shows that each place is there to be reached, and each way to be gone."""

import json
import os
import random
import signal
import time

import pytest

from conftest import ROOT, Process, program, wait_until
from egress_lab import IP, NAMESERVER, NSENTER, REACH, ZONE, lab, sh  # noqa: F401 (a fixture)
from engines import ALLOWED, Floor, Podman, example, need, policy, reached, service  # noqa: F401

reason = need("podman", "runc", "nft", "iptables", "iodine", "iodined")
pytestmark = [pytest.mark.skipif(reason is not None, reason="left out: %s" % reason)]

PYTHON = "/usr/bin/python3"
INSIDE = (ROOT / "tests/e2e/gauntlet_inside.py").read_text()
WATCH = str(ROOT / "tests/e2e/gauntlet_watch.py")
PORT = 9999  # where the host's and the sibling's listeners are
WEB, DB, API = ("203.0.113.11", 80), ("203.0.113.12", 5432), ("203.0.113.10", 443)


class Box:
    """A container with these capabilities; sealed, veth, or open: ruled by nobody."""

    def __init__(self, podman, service, tier, policy, options=()):
        self.podman, self.service, self.tier = podman, service, tier
        rules = {} if tier == "open" else {"agentd.egress.policy": policy, "agentd.egress.tier": tier}
        self.pid, self.name = podman.start("none" if tier == "sealed" else "dual", rules, "sleep", "100000", options=(
            "--cap-add", "NET_ADMIN,NET_RAW", "--device", "/dev/net/tun", *options))
        self.sandbox = self.name[:12]
        self.net = [NSENTER, "--net=/proc/%d/ns/net" % self.pid]
        if tier != "open":
            service.wait_enforced(self.sandbox)
        self.iface = "lo" if tier == "sealed" else "eth0"
        self.mac, self.four, self.six = addresses(self.net, self.iface)

    def execute(self, *command):
        return self.podman.execute(self.name, *command)

    def sh(self, script):
        return self.execute("sh", "-c", script)

    def reach(self, asked, wait=1.5):
        done = self.execute(PYTHON, "-c", REACH, json.dumps(asked), str(wait), "together")
        assert done.returncode == 0, done
        return reached(done.stdout)

    def remove(self):
        self.podman.remove(self.name)
        if self.tier != "open":
            self.service.wait_gone(self.sandbox)


def addresses(net, iface):
    """MAC, IPv4 and IPv6 address of an interface, once IPv6 is sure of its own."""
    def sure():
        link = json.loads(sh(*net, IP, "-j", "addr", "show", iface))[0]
        return None if any(a.get("tentative") for a in link["addr_info"]) else link
    link = wait_until(sure, 10, "the addresses of " + iface)
    four, six = ([a["local"] for a in link["addr_info"] if a["family"] == family and
                  (a["scope"] == "global" or iface == "lo")] for family in ("inet", "inet6"))
    return link["address"], four[-1], six[0] if iface != "lo" else [a for a in six if a != "::1"][0]


class Street:
    """What stands around a container: gateway, host, sibling, and who watches there."""

    def __init__(self, lab, sibling):
        self.lab, self.sibling = lab, sibling
        host = lab.host_argv()
        self.gateway = addresses(host, "pod1")
        self.host = addresses(host, "out")
        for net in (host, sibling.net):  # who answers a forged SYN does so once
            sh(*net, "sysctl", "-q", "-w", "net.ipv4.tcp_synack_retries=0")
        world = [NSENTER, "--net=/run/netns/" + lab.world]
        self.watchers = {who: Process([*net, PYTHON, WATCH, *what]) for who, net, what in (
            ("world", world, ("sniff", "in")), ("sibling", sibling.net, ("sniff", "eth0")),
            ("host", host, ("listen", str(PORT))), ("sibling's programs", sibling.net, ("listen", str(PORT))))}
        lab.things.extend(self.watchers.values())
        for w in self.watchers.values():
            w.wait_line(lambda line: line == '"ready"')
        self.places = [["http", "evil.test", 80], ["http", "203.0.113.66", 8080], ["http", "169.254.169.254", 80],
                       ["tcp", "2001:db8:1::66", 22]]
        for address in ("203.0.113.66", self.gateway[1], self.host[1], sibling.four):
            self.places += [["tcp", address, PORT], ["udp", address, PORT]]
        for address in ("2001:db8:1::66", self.gateway[2], self.host[2], sibling.six):
            self.places += [["tcp", address, PORT], ["udp", address, PORT]]

    def again(self):
        """Everybody forgets what was claimed, and watches anew."""
        sh(IP, "-n", self.lab.host, "neigh", "flush", "all")
        sh(*self.sibling.net, IP, "neigh", "flush", "all")
        sh(*self.sibling.net, PYTHON, "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
           ".sendto(b'here', ('%s', 9))" % self.gateway[1])
        for w in self.watchers.values():
            w.signal(signal.SIGUSR1)
        self.starts = {who: w.mark() for who, w in self.watchers.items()}

    def seen(self):
        """Who saw what since again()."""
        time.sleep(0.5)
        found = set()
        for who, w in self.watchers.items():
            assert w.alive(), w.output()
            for line in w.output()[self.starts[who]:]:
                for what, name in json.loads(line).items():
                    found.add("%s: %s %s" % (who, what, name))
        return found

    def frames_argument(self, box):
        return json.dumps({
            "iface": box.iface, "mac": box.mac, "me4": box.four, "me6": box.six, "gateway_mac": self.gateway[0],
            "gateway4": self.gateway[1], "gateway6": self.gateway[2], "host4": self.host[1], "host6": self.host[2],
            "sibling_mac": self.sibling.mac, "sibling4": self.sibling.four, "sibling6": self.sibling.six})

    def neighbours(self):
        """MAC of each other as the host and the sibling believe it."""
        found = {}
        for who, net in (("host", [NSENTER, "--net=/run/netns/" + self.lab.host]), ("sibling", self.sibling.net)):
            for n in json.loads(sh(*net, IP, "-j", "neigh", "show")):
                if "lladdr" in n:
                    found[who, n["dst"]] = n["lladdr"]
        return found


@pytest.fixture(scope="module")
def podman(lab, service, policy):
    floor = Floor(lab)
    p = Podman(floor, example("agentd-egress.json", lab, service, policy))
    yield p
    p.stop()
    floor.stop()


@pytest.fixture(scope="module")
def street(lab, service, podman):
    sibling = Box(podman, service, "open", None)
    one = Street(lab, sibling)
    one.again()
    yield one
    sibling.remove()


@pytest.fixture(params=["open", "sealed", "veth"])
def box(request, lab, service, podman, street, policy):
    b = Box(podman, service, request.param, policy)
    street.again()
    yield b
    b.remove()


@pytest.fixture(params=["sealed", "veth"])
def ruled(request, lab, service, podman, street, policy):
    b = Box(podman, service, request.param, policy)
    street.again()
    yield b
    b.remove()


def records(service):
    return [json.loads(line) for line in service.audit.read_text().splitlines()]


def nothing_left(lab, street, mark, allowed=(WEB, DB)):
    """What the world, the sibling and the host's programs saw."""
    seen = street.seen()
    assert not seen, sorted(seen)[:20]
    astray = [p for p in lab.packets(mark) if (p["dst"], p["dport"]) not in allowed]
    assert not astray, astray[:10]


# -- frames -------------------------------------------------------------------------------------------

# What the same container sends, and what arrives when nobody rules it.
ARRIVES = """
world: mark world4/udp9999
world: mark world4/udp443
world: mark world4/tcp-syn-22
world: mark world4/tcp-syn-9999
world: mark world4/echo
world: mark world4/proto47
world: mark world4/proto50
world: mark world4/proto132
world: mark world4/tunnel4
world: mark world4/tunnel6
world: mark world4/fragments
world: mark world4/from-sibling
world: mark world4/from-neighbour
world: mark world4/raw1
world: mark world4/raw47
world: mark world4/dgram443
world: mark world4/flood
world: mark nameserver4/dgram53
world: mark metadata4/dgram9999
world: mark world6/udp9999
world: mark world6/echo
world: mark world6/ext-options
world: mark world6/ext-fragment
world: mark world6/proto47
sibling: mark sibling4/udp9999
sibling: mark sibling4/proto47
sibling: mark sibling4/from-world
sibling: mark sibling4/mac-stranger
sibling: mark sibling4/mac-gateway
sibling: mark sibling4/tcp-syn-9999
sibling: mark sibling4/fragments
sibling: mark sibling6/udp9999
sibling: mark sibling6/raw58
sibling: mark arp/gateway-to-sibling
sibling: mark na/gateway-to-sibling
sibling: mark ra/x
sibling: mark ether/88b5
sibling: mark ether/88cc
sibling: mark group/224.0.0.251
sibling: mark group/255.255.255.255
sibling: mark group/dhcp
sibling: mark group/socket
sibling: mark world-by-sibling4/udp9999
sibling's programs: mark sibling4/udp9999
host: mark gateway4/udp9999
host: mark gateway4/echo
host: mark gateway4/proto47
host: mark host4/udp9999
host: mark host4/raw1
host: mark gateway6/udp9999
host: mark host6/udp9999
""".strip().splitlines()


def test_frames_and_raw_packets(lab, street, box):
    """Of every protocol, to the world, the host and a sibling, by everybody's MAC and from everybody's
    address; VLANs, fragments, options, tunnels, ARP, neighbours' and routers' advertisements, multicast."""
    sh(*street.sibling.net, IP, "neigh", "replace", street.gateway[1], "lladdr", street.gateway[0], "dev", "eth0",
       "nud", "stale")
    before = {("host", street.sibling.four): street.sibling.mac, ("host", street.sibling.six): street.sibling.mac}
    for (_, address), there in before.items():
        sh(IP, "-n", lab.host, "neigh", "replace", address, "lladdr", there, "dev", "pod1", "nud", "stale")
    mark = lab.mark()
    done = box.execute(PYTHON, "-c", INSIDE, street.frames_argument(box))
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["sent"] > 1000, done.stdout
    if box.tier == "open":
        seen = street.seen()
        missing = [line for line in ARRIVES if line not in seen]
        assert not missing, missing
        assert box.mac in [street.neighbours().get(key) for key in before]
    else:
        nothing_left(lab, street, mark)
        believed = street.neighbours()
        for key, there in before.items():
            assert believed.get(key, there) == there, (key, believed)
        assert believed.get(("sibling", street.gateway[1]), street.gateway[0]) == street.gateway[0]
        assert box.service.one(box.sandbox)["enforced"]
        assert box.reach(ALLOWED, 5) == ["answered"] * len(ALLOWED)


# -- root's own network -------------------------------------------------------------------------------

# $IF, $ME, $GW, $SIB, $MAC, $SIBMAC: the interface, the addresses around. What fails in one tier is
# meant for the other.
ROOT = {
    "flush": "nft flush ruleset; iptables -F; iptables -t nat -F; ip rule flush; ip -6 rule flush; "
             "ip rule add lookup local pref 0; ip rule add lookup main; ip -6 rule add lookup local pref 0; "
             "ip -6 rule add lookup main",
    "routes": "ip route flush table main; ip route add $GW dev $IF; ip route add default via $GW dev $IF; "
              "ip route del local default dev lo; ip -6 route del local default dev lo",
    "routes by the sibling": "ip route replace default via $SIB dev $IF; ip -6 route replace default via $SIB6 dev $IF",
    "routing rules": "ip rule add fwmark 0x54470001 lookup main pref 1; ip rule add from all lookup 100 pref 2; "
                     "ip route add default via $GW dev $IF table 100; ip route add unreachable 192.0.2.0/24",
    "marks": "iptables -t mangle -A OUTPUT -j MARK --set-mark 0x54470001; "
             "ip6tables -t mangle -A OUTPUT -j MARK --set-mark 0x54470001",
    "an address of the sibling's": "ip addr add $SIB/32 dev $IF; ip route replace default via $GW dev $IF src $SIB",
    "an address of the world's": "ip addr add 203.0.113.10/32 dev $IF; ip route replace default via $GW dev $IF src 203.0.113.10",
    "another MAC": "ip link set $IF address 02:66:66:66:66:66",
    "the sibling's MAC": "ip link set $IF address $SIBMAC",
    "frames to the sibling": "ip neigh replace $GW lladdr $SIBMAC dev $IF nud permanent; "
                             "ip -6 neigh replace $GW6 lladdr $SIBMAC dev $IF nud permanent",
    "another name": "ip link set $IF down; ip link set $IF name x0; ip link set x0 up; ip route add default via $GW; "
                    "ip -6 addr add $ME6/64 dev x0 nodad; ip -6 route add default via $GW6",
    "promiscuous": "ip link set $IF promisc on; ip link set $IF allmulticast on; ip link set $IF mtu 9000",
    "dummy, veth and tun": "ip link add d0 type dummy; ip addr add 192.0.2.1/24 dev d0; ip link set d0 up; "
                           "ip link add v0 type veth peer name v1; ip addr add 192.0.2.5/32 dev v0; ip link set v0 up; "
                           "ip link set v1 up; ip tuntap add t0 mode tun; ip addr add 192.0.2.9/32 dev t0; ip link set t0 up; "
                           "for d in d0 v0 t0; do ip route add default dev $d metric 5; done",
    "a bridge of its own": "ip link add b0 type bridge; ip link set $IF master b0; ip addr add $ME/16 dev b0; ip link set b0 up; "
                           "ip route replace default via $GW dev b0",
    "vlan": "ip link add link $IF name w0 type vlan id 5; ip addr add 192.0.2.5/24 dev w0; ip link set w0 up; "
            "ip route replace default dev w0",
    "macvlan": "ip link add link $IF name m0 type macvlan mode bridge; ip addr add ${ME%.*}.77/16 dev m0; ip link set m0 up; "
               "ip route replace default via $GW dev m0 src ${ME%.*}.77",
    "ipvlan": "ip link add link $IF name m0 type ipvlan mode l2; ip addr add ${ME%.*}.78/16 dev m0; ip link set m0 up; "
              "ip route replace default via $GW dev m0 src ${ME%.*}.78",
    "tunnels": "ip link add g0 type gre local $ME remote 203.0.113.66; ip link add i0 type ipip local $ME remote 203.0.113.66; "
               "ip link add s0 type sit local $ME remote 203.0.113.66; ip link add x1 type vxlan id 5 remote 203.0.113.66 dstport 4789 dev $IF; "
               "for d in g0 i0 s0 x1; do ip link set $d up; ip route add default dev $d metric 3; done",
    "source translation": "iptables -t nat -A POSTROUTING -j SNAT --to-source $SIB; "
                          "ip6tables -t nat -A POSTROUTING -j SNAT --to-source $SIB6",
    "destination translation": "nft add table ip mine; nft 'add chain ip mine out { type nat hook output priority 100; }'; "
                               "nft add rule ip mine out ip daddr 203.0.113.11 tcp dport 80 dnat to 169.254.169.254:80; "
                               "nft add rule ip mine out ip daddr 203.0.113.12 tcp dport 5432 dnat to 203.0.113.66:9999",
    "another's destination in prerouting": "nft add table ip mine; nft 'add chain ip mine pre { type nat hook prerouting priority -190; }'; "
                                           "nft add rule ip mine pre tcp dport 80 dnat to 169.254.169.254:80; "
                                           "nft add rule ip mine pre tcp dport 5432 dnat to 203.0.113.66:9999",
    "traffic control": "tc qdisc add dev $IF clsact; tc filter add dev $IF egress matchall action pedit ex munge ip src set $SIB "
                       "pipe csum ip4h udp tcp pipe action mirred egress redirect dev $IF",
}
# In these nothing of the world answers the open container either: its way goes elsewhere.
ELSEWHERE = {"routes by the sibling", "an address of the sibling's", "frames to the sibling", "dummy, veth and tun", "vlan",
             "the sibling's MAC", "source translation", "tunnels", "traffic control", "another MAC", "an address of the world's"}
# Each takes three containers: what the others show in another way is left to check-long.
ALSO = {"routing rules", "an address of the world's", "another MAC", "promiscuous", "dummy, veth and tun", "a bridge of its own",
        "vlan", "ipvlan", "tunnels", "source translation", "another's destination in prerouting", "routes by the sibling",
        "traffic control"}


def variables(street, box):
    return "".join("%s='%s'; " % v for v in {
        "IF": box.iface, "ME": box.four, "ME6": box.six, "MAC": box.mac, "GW": street.gateway[1], "GW6": street.gateway[2],
        "SIB": street.sibling.four, "SIB6": street.sibling.six, "SIBMAC": street.sibling.mac}.items())


def test_the_places_are_there(street, podman, service):
    b = Box(podman, service, "open", None)
    try:
        street.again()
        found = b.reach(street.places, 5)
        for (kind, host, port), answer in zip(street.places, found):
            assert answer == "answered" or kind == "udp", (kind, host, port, answer)
        seen = {line.split(": mark reach ")[1] for line in street.seen() if ": mark reach " in line}
        assert seen >= {host for kind, host, _ in street.places if kind == "udp"}, seen
    finally:
        b.remove()


@pytest.mark.parametrize("what", [pytest.param(what, marks=pytest.mark.long if what in ALSO else ()) for what in ROOT])
def test_root_of_the_container_changes_its_network(lab, street, box, what):
    mark = lab.mark()
    done = box.sh(variables(street, box) + "export PATH=/usr/sbin:/usr/bin; " + ROOT[what] + "; true")
    assert done.returncode == 0, done
    found = box.reach([*street.places, *ALLOWED])
    if box.tier == "open":
        if what not in ELSEWHERE:
            assert "answered" in found, (found, done)
        return
    denied = found[:len(street.places)]
    assert "answered" not in denied, (list(zip(street.places, denied)), done)
    # The frames too, by hand, from what the interface is now.
    iface = "x0" if what == "another name" else box.iface
    argument = json.loads(street.frames_argument(box))
    done = box.execute(PYTHON, "-c", INSIDE, json.dumps({**argument, "iface": iface}))
    assert done.returncode == 0, done
    nothing_left(lab, street, mark)


def test_its_interface_in_a_nested_namespace(lab, street, podman, service, policy):
    """With CAP_SYS_ADMIN too, and no list of system calls."""
    for tier in ("open", "veth", "sealed"):
        box = Box(podman, service, tier, policy, options=("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"))
        try:
            street.again()
            mark = lab.mark()
            script = variables(street, box) + r"""
export PATH=/usr/sbin:/usr/bin
unshare --net sleep 30 & P=$!
sleep 0.5
[ $IF = lo ] || ip link set $IF netns $P
ip link add w0 type veth peer name w1
ip link set w1 netns $P
nsenter --net=/proc/$P/ns/net sh -c "ip link set lo up; ip link set $IF up; ip addr add $ME/16 dev $IF; ip route add default via $GW;
ip -6 addr add $ME6/64 dev $IF nodad; ip -6 route add default via $GW6; ip link set w1 up"
exec nsenter --net=/proc/$P/ns/net "$@"
"""
            done = box.execute("sh", "-c", script, "sh", PYTHON, "-c", REACH, json.dumps(street.places),
                               "1.5", "together")
            found = reached(done.stdout)
            if tier == "open":
                assert found.count("answered") > len(found) / 2, (found, done)
            else:
                assert "answered" not in found, (found, done)
                nothing_left(lab, street, mark)
        finally:
            box.remove()


def test_what_it_hears_when_promiscuous(lab, street, ruled):
    """Of what others on its bridge say to each other, nothing that is meant for one of them."""
    script = WATCH_INSIDE % ruled.iface
    p = Process(ruled.podman.floor.argv(*ruled.podman.base, "exec", ruled.name, PYTHON, "-c", script))
    try:
        p.wait_line(lambda line: line == "ready")
        for net, to in ((street.sibling.net, street.gateway[1]), (lab.host_argv(), street.sibling.four)):
            sh(*net, PYTHON, "-c", "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
               "[s.sendto(b'GLT-secret;', ('%s', 9998)) for _ in range(50)]" % to)
        time.sleep(1)
        assert not [line for line in p.output() if "secret" in line], p.output()
    finally:
        p.end()


WATCH_INSIDE = """
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("%s", 0))
s.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex(s.getsockname()[0]), 1, 0, b""))
print("ready", flush=True)
while True:
    if b"GLT-secret" in s.recv(65536):
        print("secret", flush=True)
"""


# -- forging what the guard is told ------------------------------------------------------------------


def test_connections_that_are_forged_for_the_guard(lab, street, podman, service, policy):
    """In a sealed container root may make rules of its own that lead to the guard whatever it likes: the
    guard judges what it is told again."""
    box = Box(podman, service, "sealed", policy)
    try:
        street.again()
        mark = lab.mark()
        assert box.reach(ALLOWED, 5) == ["answered"] * len(ALLOWED)
        done = box.execute(PYTHON, "-c", FORGE, json.dumps(street.places))
        assert done.returncode == 0, done
        found = json.loads(done.stdout)
        assert found["tables"] > 2, found  # it did delete them
        assert "answered" not in [f["answer"] for f in found["answers"]], found
        told = [r for r in records(service) if r.get("sandbox") == box.sandbox and r.get("by") == "guard"]
        assert {("203.0.113.66", PORT), ("2001:db8:1::66", PORT), (street.gateway[1], PORT), ("169.254.169.254", 80)} <= {
            (r.get("address"), r.get("port")) for r in told}, [(r.get("address"), r.get("port"), r.get("reason")) for r in told]
        nothing_left(lab, street, mark)
        service.wait_enforced(box.sandbox)
        assert box.reach(ALLOWED, 5) == ["answered"] * len(ALLOWED)
    finally:
        box.remove()


# Rewrites, between the judge and the guard, where a connection was meant to go: to 203.0.113.11, port 80,
# it said, to each of these places it says now. (The kernel's NAT would do so before the judge.) Then the
# same while it deletes the sandbox's table without pause.
FORGE = REACH.split("if __name__")[0] + r"""
import subprocess, threading, time
RULES = '''
table inet mine {
    chain out { type filter hook output priority 50; %(ip)s daddr %(to)s tcp dport 80 %(ip)s daddr set %(host)s tcp dport set %(port)d; }
    chain back { type filter hook output priority -350; %(ip)s saddr %(host)s tcp sport %(port)d %(ip)s saddr set %(to)s tcp sport set 80; }
}
'''
wait, answers, tables, stop = 1.0, [], [0], []
def flush():
    while not stop:
        if subprocess.run(["/usr/sbin/nft", "delete", "table", "inet", "agentd_egress"], capture_output=True).returncode == 0:
            tables[0] += 1
def forge(asked):
    _, host, port = asked
    six = ":" in host
    subprocess.run(["/usr/sbin/nft", "delete", "table", "inet", "mine"], capture_output=True)
    subprocess.run(["/usr/sbin/nft", "-f", "-"], text=True, check=True, input=RULES % {
        "ip": "ip6" if six else "ip", "to": "2001:db8:1::10" if six else "203.0.113.11", "host": host, "port": port})
    for kind in ("tcp", "http"):
        answers.append({"asked": asked, "answer": reach(kind, "2001:db8:1::10" if six else "203.0.113.11", 80, wait)})
asked = [a for a in json.loads(sys.argv[1]) if a[0] != "udp" and not a[1].endswith("test")]
for a in asked:
    forge(a)
thread = threading.Thread(target=flush)
thread.start()
for a in asked:
    forge(a)
stop.append(1)
thread.join()
with open("/proc/net/tcp") as f:
    ports = [int(line.split()[1].rsplit(":", 1)[1], 16) for line in list(f)[1:] if line.split()[3] == "0A"]
for port in ports:  # straight to the listener
    for host in ("127.0.0.1", "192.0.0.8", "203.0.113.66"):
        for kind in ("tcp", "http"):
            answers.append({"asked": [kind, host, port], "answer": reach(kind, host, port, wait)})
subprocess.run(["/usr/sbin/nft", "delete", "table", "inet", "mine"], check=True)
print(json.dumps({"answers": answers, "tables": tables[0]}))
"""
