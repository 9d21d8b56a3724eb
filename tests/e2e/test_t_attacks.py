# SPDX-License-Identifier: MIT
"""What was tried to break `agentd egress` from inside and from beside, and does not any more."""

from egress_lab import lab, user  # noqa: F401 (fixtures)

ANEW = """
import socket, struct, ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
libc.connect(0, struct.pack("=H14x", 0), 16)  # AF_UNSPEC: away from its peer
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=0)
s.settimeout(3)
s.connect(("203.0.113.66", 8080))
"""
GIVEN = """
import socket, subprocess, sys
kind, argv = sys.argv[1], sys.argv[2:]
if kind == "tcp":
    given = socket.create_connection(("203.0.113.10", 80))
elif kind == "udp":
    given = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
elif kind == "folder":
    import os
    given = os.open("/", os.O_RDONLY)
else:
    given = socket.socketpair()[0]
done = subprocess.run(argv, stdin=given, capture_output=True, text=True, timeout=30)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""

def given(lab, user, kind, *command):
    policy = lab.policy("api.example.test:80")
    return lab.from_host("/usr/bin/python3", "-c", GIVEN, kind, lab.binary, "egress", "run", "--policy", policy,
                         "--", *command, user=user, env=lab.environment(user), cwd="/")

def test_a_socket_of_outside_as_a_stream_is_no_way_out(lab, user):  # noqa: F811
    mark = lab.mark()
    for kind, why in (("tcp", "network outside"), ("udp", "network outside"), ("folder", "folder")):
        done = given(lab, user, kind, "/usr/bin/python3", "-c", ANEW)
        assert done.returncode == 1 and "standard input" in done.stderr and why in done.stderr, done.stderr
    assert not [p for p in lab.packets(mark) if p["dst"] == "203.0.113.66"]

def test_a_local_stream_pair_is_a_stream_like_others(lab, user):  # noqa: F811
    done = given(lab, user, "pair", "/bin/true")
    assert done.returncode == 0, done.stderr
