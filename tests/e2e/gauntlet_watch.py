# SPDX-License-Identifier: MIT
"""Tells what arrives of gauntlet_inside.py, one JSON object a line. Run in a network namespace, as

    gauntlet_watch.py sniff INTERFACE     {"mark": NAME} of every frame that comes in with one
    gauntlet_watch.py listen PORT         the same of what the kernel gives to programs of this host:
                                          raw sockets of each protocol, UDP and TCP on every address

Each NAME is told once, and again after SIGUSR1.
"""

import json
import re
import select
import signal
import socket
import sys

MARK = re.compile(rb"GLT-([^;\0]+);")
told = set()


def tell(piece, where=""):
    for name in MARK.findall(piece):
        key = where + name.decode("latin-1")
        if key not in told:
            told.add(key)
            print(json.dumps({"mark": key}), flush=True)


def sniff(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
    s.bind((interface, 0))
    print(json.dumps("ready"), flush=True)
    while True:
        frame, (_, _, direction, _, _) = s.recvfrom(65536)
        if direction != 4:  # 4: our own
            tell(frame)


def listen(port):
    sockets = []
    for family, protocols in ((socket.AF_INET, (1, 2, 4, 41, 47, 50, 51, 89, 103, 112, 115, 132, 136, 137, 253)),
                              (socket.AF_INET6, (58, 4, 41, 47, 50, 51, 89, 132, 136, 253))):
        for proto in protocols:
            s = socket.socket(family, socket.SOCK_RAW, proto)
            s.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
            sockets.append(s)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind(("::", port))
        s.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        if kind == socket.SOCK_STREAM:
            s.listen(64)
        sockets.append(s)
    accepting = sockets[-1]
    print(json.dumps("ready"), flush=True)
    while True:
        for s in select.select(sockets, [], [])[0]:
            if s is accepting:
                c, client = s.accept()
                print(json.dumps({"accepted": client[0]}), flush=True)
                c.sendall(b"hello\n")
                c.close()
            else:
                piece, client = s.recvfrom(65536)
                tell(piece)
                if s.type == socket.SOCK_DGRAM:
                    s.sendto(b"seen", client)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: told.clear())  # from now on anew
    if sys.argv[1] == "sniff":
        sniff(sys.argv[2])
    listen(int(sys.argv[2]))
