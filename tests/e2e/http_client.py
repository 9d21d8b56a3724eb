# SPDX-License-Identifier: MIT
"""A small HTTP/1.1 client over real TLS sockets: bytes as given, answers as they come."""

import json
import socket
import ssl


class Answer:
    def __init__(self, status, reason, fields, body, trailers=()):
        self.status = status
        self.reason = reason
        self.fields = fields          # list of (lower-case name, value)
        self.body = body
        self.trailers = list(trailers)

    def get(self, name, default=None):
        for n, v in self.fields:
            if n == name.lower():
                return v
        return default

    def all(self, name):
        return [v for n, v in self.fields if n == name.lower()]

    @property
    def error(self):
        return self.get("tunnel-error")

    def json(self):
        return json.loads(self.body)


class Cut(Exception):
    """The connection ended in the middle of a message."""


class Client:
    """One connection. `host` is what the Host field and the TLS server name say."""

    def __init__(self, address, host, context=None, timeout=20, server_name=None):
        self.host = host
        self.sock = socket.create_connection(address, timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.sock = context.wrap_socket(
                self.sock, server_hostname=(server_name or host).rsplit(":", 1)[0].rstrip("."))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def request(self, method, target, fields=(), body=None, host=None):
        """Send one request; `body` bytes (with a length), or an iterable (chunked)."""
        names = {n.lower() for n, _ in fields}
        lines = ["%s %s HTTP/1.1" % (method, target)]
        if "host" not in names:
            lines.append("Host: %s" % (host or self.host))
        lines += ["%s: %s" % f for f in fields]
        if isinstance(body, bytes):
            lines.append("Content-Length: %d" % len(body))
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if isinstance(body, bytes):
            self.send(body)
        elif body is not None:
            for piece in body:
                self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.send(b"0\r\n\r\n")

    def _more(self):
        try:
            data = self.sock.recv(262144)
        except (ConnectionResetError, ssl.SSLError) as e:
            raise Cut(str(e)) from e
        if not data:
            raise Cut("end")
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def take(self, n):
        parts, have = [self.buffer], len(self.buffer)
        while have < n:
            self.buffer = b""
            self._more()
            parts.append(self.buffer)
            have += len(self.buffer)
        data = b"".join(parts)
        data, self.buffer = data[:n], data[n:]
        return data

    def skip(self, n):
        """Read n bytes and forget them."""
        while n > len(self.buffer):
            n -= len(self.buffer)
            self.buffer = b""
            self._more()
        self.buffer = self.buffer[n:]

    def head(self):
        status_line = self.line().decode("latin-1")
        parts = status_line.split(" ", 2)
        if not parts[0].startswith("HTTP/1."):
            raise AssertionError("no status line: %r" % status_line)
        fields = []
        while True:
            line = self.line().decode("latin-1")
            if line == "":
                break
            name, value = line.split(":", 1)
            fields.append((name.lower(), value.strip()))
        return Answer(int(parts[1]), parts[2] if len(parts) > 2 else "", fields, b"")

    def chunk(self):
        """One chunk's data; b"" at the end (trailers are left for trailers())."""
        size = int(self.line().split(b";")[0], 16)
        if size == 0:
            return b""
        data = self.take(size)
        if self.take(2) != b"\r\n":
            raise AssertionError("no CRLF after a chunk")
        return data

    def trailers(self):
        fields = []
        while True:
            line = self.line().decode("latin-1")
            if line == "":
                return fields
            name, value = line.split(":", 1)
            fields.append((name.lower(), value.strip()))

    def answer(self, method="GET", keep_1xx=None):
        """The next final answer, whole. Raises Cut where it is cut."""
        a = self.head()
        while a.status < 200 and a.status != 101:
            if keep_1xx is not None:
                keep_1xx.append(a)
            a = self.head()
        if method == "HEAD" or a.status in (101, 204, 304):
            return a
        if a.get("transfer-encoding") == "chunked":
            parts = []
            while True:
                piece = self.chunk()
                if not piece:
                    break
                parts.append(piece)
            a.trailers = self.trailers()
            a.body = b"".join(parts)
        elif a.get("content-length") is not None:
            a.body = self.take(int(a.get("content-length")))
        else:
            try:
                while True:
                    self._more()
            except Cut as e:
                if str(e) != "end":
                    raise
            a.body, self.buffer = self.buffer, b""
        return a

    def at_end(self):
        """Does the connection end now, without another byte?"""
        if self.buffer:
            return False
        try:
            return self.sock.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True

    def get(self, target="/", fields=(), **kw):
        self.request("GET", target, fields, **kw)
        return self.answer()
