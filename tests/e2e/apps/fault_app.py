# SPDX-License-Identifier: MIT
"""An app that answers as told by the path, byte for byte: well, badly, or not at all.
Records every request head it received; GET /seen gives them back as JSON."""

import base64
import json
import socket
import sys
import threading
import time

seen = []
lock = threading.Lock()

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"

# path -> (bytes to send, close afterwards?)
CANNED = {
    "/garbage": (b"what is this\r\n\r\n", True),
    "/nothing": (b"", True),
    "/two-lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nok\n!", True),
    "/length-and-chunked": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                            b"3\r\nok\n\r\n0\r\n\r\n", True),
    "/bare-lf": (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nok\n", True),
    "/unasked-101": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                     b"Upgrade: websocket\r\n\r\nhello", True),
    "/after-end": (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", False),
    "/half-body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this", True),
    "/half-chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", True),
    "/bad-chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n+5\r\nhello\r\n0\r\n\r\n", True),
    "/until-close": (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end", True),
    "/http10": (b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", True),
    "/chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                 b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n", False),
    "/early-hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + OK, False),
    "/no-content": (b"HTTP/1.1 204 No Content\r\nX-Kind: empty\r\n\r\n", False),
    "/not-modified": (b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 500\r\n\r\n", False),
    "/big-head": (b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 70000 + b"\r\nContent-Length: 0\r\n\r\n", True),
    "/forged": (b"HTTP/1.1 200 OK\r\nTunnel-Error: login-required\r\nContent-Length: 3\r\n\r\nok\n", False),
    "/close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nok\n", True),
    "/head": (b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", False),
}


class Conn:
    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def more(self):
        data = self.sock.recv(262144)
        if not data:
            raise EOFError
        self.buffer += data

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head

    def take(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def body(self, fields):
        if fields.get("transfer-encoding", "").lower() == "chunked":
            data = b""
            while True:
                n = int(self.line().split(b";")[0], 16)
                if n == 0:
                    break
                data += self.take(n)
                self.take(2)
            trailers = []
            while True:
                line = self.line()
                if not line:
                    return data, trailers
                trailers.append(line.decode("latin-1"))
        return self.take(int(fields.get("content-length", "0"))), []


def answer_json(sock, value):
    body = json.dumps(value).encode()
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                 % (len(body), body))


def answer(conn, method, target, head, fields):
    path = target.split("?")[0]
    if path == "/seen":
        with lock:
            answer_json(conn.sock, seen)
        return False
    if path == "/echo":
        if fields.get("expect") == "100-continue":
            conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, trailers = conn.body(fields)
        answer_json(conn.sock, {"method": method, "target": target,
                                "head": head.decode("latin-1"), "length": len(body),
                                "body": base64.b64encode(body[:4096]).decode(),
                                "trailers": trailers})
        return False
    if path == "/headers":
        # Answer with the fields that the query asks for, base64 of "Name: value" lines.
        extra = base64.urlsafe_b64decode(target.split("?", 1)[1])
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\n" + extra + b"\r\nContent-Length: 3\r\n\r\nok\n")
        return False
    if path == "/redirect":
        conn.sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + target.split("?", 1)[1].encode() +
                          b"\r\nContent-Length: 0\r\n\r\n")
        return False
    if path == "/events":
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for i in range(10):
            conn.sock.sendall(b"data: %d %.6f\n\n" % (i, time.time()))
            time.sleep(0.1)
        return True
    if path == "/slow":
        time.sleep(float(target.split("?", 1)[1]))
        conn.sock.sendall(OK)
        return False
    if path == "/reset":
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly")
        time.sleep(0.2)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        return True
    if path == "/once":
        # One answer on a connection that says it stays, then closes as the next request comes.
        conn.sock.sendall(OK)
        return True
    conn.body(fields)
    data, close = CANNED.get(path, (OK, False))
    conn.sock.sendall(data)
    return close


def serve(sock):
    conn = Conn(sock)
    try:
        while True:
            head = conn.head()
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ")
            fields = {}
            for line in lines[1:]:
                name, value = line.split(":", 1)
                fields[name.lower()] = value.strip()
            if target != "/seen":
                with lock:
                    seen.append(head.decode("latin-1"))
            if answer(conn, method, target, head, fields):
                break
    except (EOFError, OSError):
        pass
    finally:
        sock.close()


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1024)
    print("listening %d" % listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


main()
