# SPDX-License-Identifier: MIT
"""WebSocket frames by hand, client and server side, for links that misbehave."""

import base64
import hashlib
import json
import os
import struct


def frame(opcode, payload, mask=True, fin=True, rsv=0, length=None):
    n = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if n < 126:
        head += bytes([bit | n])
    elif n < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", n)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", n)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


class Socket:
    """One end, over anything with sendall() and recv()."""

    def __init__(self, sock, is_client):
        self.sock, self.is_client, self.buffer = sock, is_client, b""

    def send(self, opcode, payload):
        self.sock.sendall(frame(opcode, payload, mask=self.is_client))

    def text(self, value):
        self.send(1, json.dumps(value).encode())

    def binary(self, data):
        self.send(2, data)

    def take(self, n):
        while len(self.buffer) < n:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def receive(self):
        """The next frame: (opcode, payload)."""
        first, second = self.take(2)
        n = second & 0x7F
        if n == 126:
            n = struct.unpack("!H", self.take(2))[0]
        elif n == 127:
            n = struct.unpack("!Q", self.take(8))[0]
        key = self.take(4) if second & 0x80 else None
        data = self.take(n)
        if key:
            data = bytes(b ^ key[i % 4] for i, b in enumerate(data))
        return first & 15, data

    def receive_text(self, kind):
        """The next control message of this type."""
        while True:
            opcode, data = self.receive()
            if opcode == 1:
                value = json.loads(data)
                if value["type"] == kind:
                    return value
            assert opcode != 8, "closed: %r" % data

    def close_status(self):
        """Read on until the link is closed: the Close frame's status, or None for a cut."""
        try:
            while True:
                opcode, data = self.receive()
                if opcode == 8:
                    return struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
        except (EOFError, OSError):
            return None


def accept_key(key):
    return base64.b64encode(hashlib.sha1(
        (key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


def mux(kind, stream, payload=b"", flags=0, length=None):
    n = len(payload) if length is None else length
    return struct.pack("!BBHI", kind, flags, n, stream) + payload


OPEN, ACCEPT, DATA, CREDIT, RESET, PING, PONG, GOAWAY = range(1, 9)
