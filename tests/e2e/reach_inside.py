# SPDX-License-Identifier: MIT
"""Runs inside a sandbox or a container, as text given to python3 -c: asks for each [kind, host, port] as a
program would, and prints for each what came of it and how long it took.

    ASKED (a JSON list) [SECONDS to wait for each [together]]

A kind is tcp (whose server speaks first), http, tls (HTTP in it, the server's name sent, nothing verified),
udp, or name (resolved only). What comes of it: answered, refused (a 403 and an end without a byte too), or
silent."""

import json
import socket
import sys
import time


def ask_udp(host, port, wait):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(wait)
        s.connect((host, port))
        s.send((b"GLT-reach %s;" % host.encode()).ljust(1200, b"x"))  # as long as QUIC's first
        s.recv(100)
    return "answered"


def ask_tcp(kind, host, port, wait):
    with socket.create_connection((host, port), wait) as s:
        if kind == "tls":
            import ssl
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            s = context.wrap_socket(s, server_hostname=host)
        if kind in ("http", "tls"):
            s.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode())
        first = s.recv(400)
        return "answered" if first and b" 403 " not in first[:20] else "refused"


def reach(kind, host, port, wait):
    try:
        if kind == "name":
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return "answered"
        return ask_udp(host, port, wait) if kind == "udp" else ask_tcp(kind, host, port, wait)
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"


def main():
    asked = json.loads(sys.argv[1])
    wait = float(sys.argv[2]) if len(sys.argv) > 2 else 3

    def timed(target):
        start = time.monotonic()
        result = reach(*target, wait)
        return {"target": target, "result": result, "ms": (time.monotonic() - start) * 1000}
    if sys.argv[3:] == ["together"]:
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor(max(1, len(asked))) as pool:
            return list(pool.map(timed, asked))
    return [timed(target) for target in asked]


if __name__ == "__main__":
    print(json.dumps(main()))
