# SPDX-License-Identifier: MIT
"""Frames that a container's root makes by hand, run inside it as: python3 -c THIS '{"iface": ...}'

Every one carries a mark, "GLT-" NAME ";", by which gauntlet_watch.py knows it again wherever it
arrives. The name says where it was meant to go and what it is. Prints how many it could send."""

import json
import socket
import struct
import sys

PROTOCOLS = (2, 4, 41, 47, 50, 51, 89, 103, 112, 115, 132, 136, 137, 253, 255)
STRANGER = "02:66:66:66:66:66"
V4, V6, ARP, VLAN, QINQ = 0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def checksum(piece):
    piece += b"\0" * (len(piece) % 2)
    total = sum(struct.unpack("!%dH" % (len(piece) // 2), piece))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def summed(proto, src, dst, body, at):
    """The body with its checksum at `at`, over the pseudo header too."""
    a, b = packed(src), packed(dst)
    head = a + b + (struct.pack("!BBH", 0, proto, len(body)) if len(a) == 4 else struct.pack("!II", len(body), proto))
    return body[:at] + struct.pack("!H", checksum(head + body) or 0xffff) + body[at + 2:]


def ip4(proto, src, dst, body, fragment=0, options=b"", ident=7):
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), ident, fragment, 64,
                       proto, 0, packed(src), packed(dst)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ip6(proto, src, dst, body, hops=64):
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), proto, hops, packed(src), packed(dst)) + body


def ip(proto, src, dst, body, **more):
    return (ip6 if ":" in dst else ip4)(proto, src, dst, body, **more)


def udp(src, dst, port, payload):
    return summed(17, src, dst, struct.pack("!HHHH", 4444, port, 8 + len(payload), 0) + payload, 6)


def tcp(src, dst, port, flags, payload):
    return summed(6, src, dst, struct.pack("!HHIIBBHHH", 4445, port, 1000, 0, 0x50, flags, 64000, 0, 0) + payload, 16)


def icmp(src, dst, kind, rest, payload):
    if ":" in dst:
        return summed(58, src, dst, struct.pack("!BBH", kind, 0, 0) + rest + payload, 2)
    body = struct.pack("!BBH", kind, 0, 0) + rest + payload
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def mark(name):
    return b"GLT-" + name.encode() + b";"


class Sender:
    def __init__(self, g):
        self.g, self.sent, self.failed = g, 0, {}
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.s.bind((g["iface"], 0))

    def send(self, to, kind, body, source=None, tags=b""):
        frame = mac(to) + mac(source or self.g["mac"]) + tags + struct.pack("!H", kind) + body
        try:
            self.s.send(frame + b"\0" * max(0, 60 - len(frame)))
            self.sent += 1
        except OSError as e:
            self.failed[str(e.errno)] = self.failed.get(str(e.errno), 0) + 1


def to_place(o, place, to, me, dst):
    """Every shape of packet to one address, by one neighbour."""
    six = ":" in dst
    kind, icmp_proto, echo = (V6, 58, 128) if six else (V4, 1, 8)

    def send(shape, make, src=me, **more):
        o.send(to, kind, make(mark(place + "/" + shape), src), **more)

    for port in (53 if place.startswith("sibling") else 9, 123, 443, 5353, 9999):
        payload = b"\xc3\0\0\0\1" if port == 443 else b""
        send("udp%d" % port, lambda m, s: ip(17, s, dst, udp(s, dst, port, payload + m + bytes(200))))
    for flags, shape in ((2, "syn"), (16, "ack"), (18, "synack"), (24, "push"), (1, "fin"), (4, "rst"), (0, "null")):
        for port in (22, 9999):
            send("tcp-%s-%d" % (shape, port), lambda m, s: ip(6, s, dst, tcp(s, dst, port, flags, m)))
    send("echo", lambda m, s: ip(icmp_proto, s, dst, icmp(s, dst, echo, b"\0\1\0\1", m)))
    send("echo-reply", lambda m, s: ip(icmp_proto, s, dst, icmp(s, dst, 129 if six else 0, b"\0\1\0\1", m)))
    for proto in PROTOCOLS:
        send("proto%d" % proto, lambda m, s: ip(proto, s, dst, m * 2))
    # Within a tunnel, to the world.
    send("tunnel4", lambda m, s: ip(4, s, dst, ip4(17, "203.0.113.66", "203.0.113.67", m)))
    send("tunnel6", lambda m, s: ip(41, s, dst, ip6(17, "2001:db8:1::66", "2001:db8:1::67", m)))
    send("vlan", lambda m, s: ip(17, s, dst, udp(s, dst, 9999, m)), tags=struct.pack("!HH", VLAN, 5))
    send("vlan0", lambda m, s: ip(17, s, dst, udp(s, dst, 9999, m)), tags=struct.pack("!HH", VLAN, 0))
    send("qinq", lambda m, s: ip(17, s, dst, udp(s, dst, 9999, m)), tags=struct.pack("!HHHH", QINQ, 5, VLAN, 6))
    for name in ("gateway", "stranger"):
        send("mac-" + name, lambda m, s: ip(17, s, dst, udp(s, dst, 9999, m)), source=o.g.get(name + "_mac", STRANGER))
    family = "6" if six else "4"
    for name, src in (("sibling", o.g["sibling" + family]), ("gateway", o.g["gateway" + family]),
                      ("host", o.g["host" + family]), ("world", "2001:db8:1::10" if six else "203.0.113.10"),
                      ("loopback", "::1" if six else "127.0.0.1"), ("none", "::" if six else "0.0.0.0"),
                      ("neighbour", o.g["sibling" + family] + "9" if six else o.g["sibling4"].rsplit(".", 1)[0] + ".251")):
        send("from-" + name, lambda m, s: ip(17, s, dst, udp(s, dst, 9999, m)), src=src)
        if name != "none":  # a host answers that for minutes
            send("syn-from-" + name, lambda m, s: ip(6, s, dst, tcp(s, dst, 9999, 2, m)), src=src)
    if six:
        for name, number in (("hop", 0), ("options", 60), ("routing", 43)):
            send("ext-" + name, lambda m, s: ip6(number, s, dst, struct.pack("!BBBB4s", 17, 0, 1, 4, b"\0" * 4) + udp(s, dst, 9999, m)))
        send("ext-fragment", lambda m, s: ip6(44, s, dst, struct.pack("!BBHI", 17, 0, 0, 9) + udp(s, dst, 9999, m)))
    else:
        send("options", lambda m, s: ip4(17, s, dst, udp(s, dst, 9999, m), options=b"\x83\7\4" + packed("203.0.113.66") + b"\0"))
        fragments(o, place, to, me, dst)


def fragments(o, place, to, me, dst):
    m = mark(place + "/fragments")
    whole = udp(me, dst, 9999, m * 8)
    for ident, cut in ((11, 8), (12, 16), (13, 64)):  # tiny first ones
        o.send(to, V4, ip4(17, me, dst, whole[:cut], 0x2000, ident=ident))
        o.send(to, V4, ip4(17, me, dst, whole[cut:], cut // 8, ident=ident))
    syn = tcp(me, dst, 9999, 2, m * 4)
    o.send(to, V4, ip4(6, me, dst, tcp(me, dst, 80, 16, m)[:16], 0x2000, ident=14))  # overlapped: to another port
    o.send(to, V4, ip4(6, me, dst, syn[:24], 0x2000, ident=14))
    o.send(to, V4, ip4(6, me, dst, syn[16:], 2, ident=14))
    o.send(to, V4, ip4(17, me, dst, m, 100, ident=15))  # a last one without a first


def neighbours(o):
    """Claims to be somebody else, and to be a router."""
    g = o.g
    for who in ("gateway", "sibling"):
        for to, victim in ((g["sibling_mac"], "sibling"), (g["gateway_mac"], "gateway"), ("ff:ff:ff:ff:ff:ff", "sibling")):
            for operation in (1, 2):
                body = struct.pack("!HHBBH", 1, V4, 6, 4, operation) + mac(g["mac"]) + packed(g[who + "4"])
                o.send(to, ARP, body + mac(to) + packed(g[victim + "4"]) + mark("arp/%s-to-%s" % (who, victim)))
            if who == victim:
                continue
            me, m = g["me6"], mark("na/%s-to-%s" % (who, victim))
            option = b"\2\1" + mac(g["mac"])
            filler = b"\x0e" + bytes([(len(m) + 9) // 8]) + m  # an option that nobody knows
            filler += b"\0" * (-len(filler) % 8)
            for src in (me, g[who + "6"]):
                for dst in (g[victim + "6"], "ff02::1"):
                    na = icmp(src, dst, 136, b"\xa0\0\0\0" + packed(g[who + "6"]), option + filler)
                    o.send(to, V6, ip6(58, src, dst, na, 255))
                    if src != me:  # a question from itself is true
                        ns = icmp(src, dst, 135, b"\0\0\0\0" + packed(g[victim + "6"]), b"\1\1" + mac(g["mac"]) + filler)
                        o.send(to, V6, ip6(58, src, dst, ns, 255))
    for to in ("33:33:00:00:00:01", g["sibling_mac"], g["gateway_mac"]):
        filler = b"\x0e\2" + mark("ra/x").ljust(14, b"\0")
        for src in ("fe80::66", g["me6"]):
            ra = icmp(src, "ff02::1", 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0), b"\1\1" + mac(g["mac"]) + filler)
            o.send(to, V6, ip6(58, src, "ff02::1", ra, 255))
            redirect = icmp(src, "ff02::1", 137, b"\0" * 4 + packed(g["me6"]) + packed("2001:db8:1::66"), filler)
            o.send(to, V6, ip6(58, src, "ff02::1", redirect, 255))
    for to in ("ff:ff:ff:ff:ff:ff", "01:80:c2:00:00:00", "01:80:c2:00:00:0e", g["sibling_mac"], g["gateway_mac"], "33:33:00:00:00:02"):
        for kind in (0x88b5, 0x88cc, 0x888e, 0x8137, 0x8847, 0x8863, 0x8864, 0x22f0, 100):
            o.send(to, kind, mark("ether/%x" % kind) + bytes(40))
    for dst, to in (("224.0.0.251", "01:00:5e:00:00:fb"), ("239.1.2.3", "01:00:5e:01:02:03"), ("255.255.255.255", "ff:ff:ff:ff:ff:ff")):
        o.send(to, V4, ip4(17, g["me4"], dst, udp(g["me4"], dst, 5353, mark("group/" + dst))))
    for dst, to in (("ff02::fb", "33:33:00:00:00:fb"), ("ff05::1:3", "33:33:00:01:00:03")):
        o.send(to, V6, ip6(17, g["me6"], dst, udp(g["me6"], dst, 5353, mark("group/" + dst))))
    discover = b"\1\1\6\0" + bytes(232) + b"\x63\x82\x53\x63\x35\1\1\xff"
    o.send("ff:ff:ff:ff:ff:ff", V4, ip4(17, "0.0.0.0", "255.255.255.255", udp("0.0.0.0", "255.255.255.255", 67, discover + mark("group/dhcp"))))


def by_socket(g):
    """What the kernel sends for a program: raw sockets of every protocol, datagrams, SYN with data."""
    for place, dst in (("world4", "203.0.113.66"), ("world6", "2001:db8:1::66"), ("gateway4", g["gateway4"]),
                       ("host4", g["host4"]), ("sibling4", g["sibling4"]), ("sibling6", g["sibling6"]),
                       ("metadata4", "169.254.169.254"), ("nameserver4", "203.0.113.53")):
        family = socket.AF_INET6 if ":" in dst else socket.AF_INET
        for proto in (1, 58, *PROTOCOLS):
            try_it(family, socket.SOCK_RAW, proto, dst, 0, mark("%s/raw%d" % (place, proto)) * 2)
        for port in (53, 123, 443, 853, 5353, 9999):
            if port != 53 or place != "world4":
                try_it(family, socket.SOCK_DGRAM, 0, dst, port, mark("%s/dgram%d" % (place, port)))
        for port in (22, 9999):
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.settimeout(0.2)
                try:
                    s.sendto(mark("%s/fastopen%d" % (place, port)), 0x20000000, (dst, port))
                except OSError:
                    pass
    for dst in ("224.0.0.251", "239.1.2.3", "255.255.255.255", "ff02::fb%" + g["iface"]):
        try_it(socket.AF_INET6 if ":" in dst else socket.AF_INET, socket.SOCK_DGRAM, 0, dst, 5353, mark("group/socket"))


def try_it(family, kind, proto, dst, port, payload):
    try:
        with socket.socket(family, kind, proto) as s:
            if kind == socket.SOCK_DGRAM and family == socket.AF_INET:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.settimeout(0.5)
            s.sendto(payload, (dst, port))
    except OSError:
        pass


def flood(g):
    """SYNs to closed ports: bounded, each from a port of its own."""
    o = Sender(g)
    for i in range(3000):
        o.send(g["gateway_mac"], V4, ip4(6, g["me4"], "203.0.113.66", tcp(g["me4"], "203.0.113.66", 10000 + i, 2, mark("world4/flood"))))


def main():
    g = json.loads(sys.argv[1])
    o = Sender(g)
    for family in "46":
        six = family == "6"
        for place, to, dst in (
                ("world", g["gateway_mac"], "2001:db8:1::66" if six else "203.0.113.66"),
                ("gateway", g["gateway_mac"], g["gateway" + family]), ("host", g["gateway_mac"], g["host" + family]),
                ("sibling", g["sibling_mac"], g["sibling" + family]),
                ("sibling-by-gateway", g["gateway_mac"], g["sibling" + family]),
                ("world-by-sibling", g["sibling_mac"], "2001:db8:1::66" if six else "203.0.113.66"),
                ("metadata", g["gateway_mac"], "fd00:ec2::254" if six else "169.254.169.254"),
                ("loopback", g["gateway_mac"], "::1" if six else "127.0.0.1")):
            to_place(o, place + family, to, g["me" + family], dst)
    neighbours(o)
    by_socket(g)
    flood(g)
    # Last: a bridge believes that the sibling is here now.
    for dst in ("203.0.113.66", g["gateway4"]):
        o.send(g["gateway_mac"], V4, ip4(17, g["sibling4"], dst, udp(g["sibling4"], dst, 9999, mark("posing/" + dst))),
               source=g["sibling_mac"])
    print(json.dumps({"sent": o.sent, "failed": o.failed}))


if __name__ == "__main__":
    main()
