# SPDX-License-Identifier: MIT
"""The world outside a sandbox, in one process inside a namespace of the tests': a name server with a
zone that a test may change, web servers, talkers and listeners on every address there is, and a
packet log. Started by egress_lab.py as: world.py FOLDER CERT KEY INTERFACE NAMESERVER

FOLDER/zone.json        {"name": {"A": [...], "AAAA": [...], "CNAME": "...", "ttl": 60,
                         "script": [{...}, ...]}}: with a script, each question for A takes the next
FOLDER/questions.jsonl  {"name", "type", "tcp"}
FOLDER/connections.jsonl {"to", "port", "sni", "line"}
FOLDER/packets.jsonl    {"proto", "src", "dst", "sport", "dport", "len"}, what came by INTERFACE
"""

import json
import pathlib
import socket
import ssl
import struct
import sys
import threading

HTTP_PORTS = (80, 8080)
TLS_PORTS = (443, 8443)
TALK_PORTS = (22, 25, 853, 5432, 9999)
DATAGRAM_PORTS = (123, 443, 9999)
TYPES = {1: "A", 28: "AAAA", 5: "CNAME", 16: "TXT", 65: "HTTPS", 64: "SVCB", 10: "NULL", 15: "MX",
         255: "ANY", 12: "PTR", 33: "SRV"}


class Log:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)
        self.lock = threading.Lock()

    def add(self, **entry):
        with self.lock:
            self.file.write(json.dumps(entry) + "\n")


class Zone:
    def __init__(self, folder):
        self.path = folder / "zone.json"
        self.log = Log(folder / "questions.jsonl")
        self.asked = {}
        self.lock = threading.Lock()

    def record(self, name, kind):
        try:
            entry = json.loads(self.path.read_text()).get(name)
        except ValueError:  # being written
            return self.record(name, kind)
        if entry and "script" in entry:
            with self.lock:
                at = self.asked.get(name, 0)
                if kind == "A":
                    self.asked[name] = at + 1
            return entry["script"][min(at, len(entry["script"]) - 1)]
        return entry

    def answer(self, message, tcp):
        ident, flags = struct.unpack("!HH", message[:4])
        at, labels = 12, []
        while message[at]:
            labels.append(message[at + 1:at + 1 + message[at]].decode("latin-1"))
            at += 1 + message[at]
        kind = struct.unpack("!H", message[at + 1:at + 3])[0]
        question = message[12:at + 5]
        name = ".".join(labels).lower()
        self.log.add(name=name, type=TYPES.get(kind, str(kind)), tcp=tcp)
        entry = self.record(name, TYPES.get(kind))
        answers, rcode, owner = [], 0 if entry is not None else 3, b"\xc0\x0c"
        while entry and "CNAME" in entry:
            target = b"".join(bytes([len(x)]) + x.encode() for x in entry["CNAME"].split(".")) + b"\0"
            answers.append(owner + struct.pack("!HHIH", 5, 1, entry.get("ttl", 60), len(target)) + target)
            owner, name = target, entry["CNAME"]
            entry = self.record(name, TYPES.get(kind))
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        for text in (entry or {}).get(TYPES.get(kind), []) if family else []:
            packed = socket.inet_pton(family, text)
            answers.append(owner + struct.pack("!HHIH", kind, 1, entry.get("ttl", 60), len(packed)) + packed)
        head = struct.pack("!HHHHHH", ident, 0x8180 | flags & 0x100 | rcode, 1, len(answers), 0, 0)
        return head + question + b"".join(answers)

    def serve_udp(self, address):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((address, 53))
        while True:
            message, client = s.recvfrom(4096)
            try:
                s.sendto(self.answer(message, False), client)
            except (IndexError, struct.error):
                pass  # no question

    def serve_tcp(self, address):
        s = socket.create_server((address, 53))
        while True:
            c, _ = s.accept()
            with c:
                head = c.recv(2, socket.MSG_WAITALL)
                message = c.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
                reply = self.answer(message, True)
                c.sendall(struct.pack("!H", len(reply)) + reply)


def listener(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    s.listen(512)
    return s


def meant(connection):
    text = connection.getsockname()[0]
    return text[7:] if text.startswith("::ffff:") else text


def web(connection, log, sni=None):
    """HTTP/1.1: every request gets a JSON object that tells where it arrived; an upgrade, an echo."""
    to, port = meant(connection), connection.getsockname()[1]
    stream = connection.makefile("rb")
    while True:
        line = stream.readline(65536)
        if not line.strip():
            return
        fields = {}
        while True:
            field = stream.readline(65536)
            if not field.strip():
                break
            key, _, value = field.decode("latin-1").partition(":")
            fields[key.strip().lower()] = value.strip()
        if "content-length" in fields:
            stream.read(int(fields["content-length"]))
        log.add(to=to, port=port, sni=sni, line=line.decode("latin-1").strip(), host=fields.get("host"))
        if fields.get("upgrade") == "websocket":
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                               b"Upgrade: websocket\r\n\r\n")
            while True:
                piece = stream.read1(65536)
                if not piece:
                    return
                connection.sendall(piece)
        path = line.split()[1].decode("latin-1")
        if path.startswith("/bytes/"):
            body = b"x" * int(path[7:])
        else:
            body = json.dumps({"to": to, "port": port, "host": fields.get("host"), "sni": sni,
                               "path": path, "fields": fields}).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                           % len(body) + body)
        if fields.get("connection", "").lower() == "close":
            return


def talk(connection, log):
    """Speaks first, then echoes."""
    to, port = meant(connection), connection.getsockname()[1]
    log.add(to=to, port=port, sni=None, line=None)
    connection.sendall(("hello from %s %d\n" % (to, port)).encode())
    while True:
        piece = connection.recv(65536)
        if not piece:
            return
        connection.sendall(piece)


def serve(port, handle):
    s = listener(port)

    def one(connection):
        try:
            with connection:
                connection.settimeout(60)
                handle(connection)
        except (OSError, ValueError, IndexError):
            pass  # the other side's doing

    while True:
        connection, _ = s.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def tls(context, log):
    def handle(connection):
        names = {}
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as c:
            c.context.sni_callback = lambda s, name, _: names.__setitem__(id(s), name)
            c.do_handshake()
            web(c, log, names.pop(id(c), None))
    return handle


def datagrams(port, log):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", port))
    while True:
        _, client = s.recvfrom(65536)
        s.sendto(b"seen", client)


def describe(packet, kind):
    """One IP packet as the log tells it; None: ARP and the neighbours' ICMPv6."""
    if kind == 0x0800 and len(packet) >= 20:
        at, proto = (packet[0] & 15) * 4, packet[9]
        src, dst = (socket.inet_ntop(socket.AF_INET, packet[i:i + 4]) for i in (12, 16))
    elif kind == 0x86DD and len(packet) >= 40:
        at, proto = 40, packet[6]
        src, dst = (socket.inet_ntop(socket.AF_INET6, packet[i:i + 16]) for i in (8, 24))
        if proto == 58 and len(packet) > 40 and 133 <= packet[40] <= 137 or proto in (0, 58) and dst.startswith("ff02:"):
            return None
    elif kind == 0x0806:
        return None
    else:
        return {"proto": -1, "src": "", "dst": "", "sport": 0, "dport": 0, "len": len(packet), "ethertype": kind}
    sport, dport = struct.unpack("!HH", packet[at:at + 4]) if proto in (6, 17, 132, 136) and len(packet) >= at + 4 else (0, 0)
    return {"proto": proto, "src": src, "dst": dst, "sport": sport, "dport": dport, "len": len(packet)}


def sniff(interface, log):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    s.bind((interface, 3))
    while True:
        packet, (_, kind, direction, _, _) = s.recvfrom(65536)
        entry = describe(packet, kind) if direction != 4 else None  # 4: our own
        if entry:
            log.add(**entry)


def main():
    folder, cert, key, interface, nameserver = sys.argv[1:]
    folder = pathlib.Path(folder)
    log = Log(folder / "connections.jsonl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    zone = Zone(folder)
    work = [(zone.serve_udp, (nameserver,)), (zone.serve_tcp, (nameserver,)),
            (sniff, (interface, Log(folder / "packets.jsonl")))]
    work += [(serve, (p, lambda c: web(c, log))) for p in HTTP_PORTS]
    work += [(serve, (p, tls(context, log))) for p in TLS_PORTS]
    work += [(serve, (p, lambda c: talk(c, log))) for p in TALK_PORTS]
    work += [(datagrams, (p, log)) for p in DATAGRAM_PORTS]
    for target, args in work:
        threading.Thread(target=target, args=args, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
