# SPDX-License-Identifier: MIT
"""The demo as a newcomer runs it: its URL and its curl line work, and one signal ends all of it."""

import os
import re
import signal
import subprocess

from conftest import BUILD, ROOT, below_ephemeral_port, free_port
from processes import Process


def test_the_demo_prints_what_works_and_ends_with_one_signal():
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env.update(DEMO_PORT=str(free_port()), APP_PORT=str(below_ephemeral_port()))
    p = Process(["sh", str(ROOT / "examples/demo.sh"), str(BUILD)], env=env,
                preexec_fn=os.setsid)
    try:
        p.wait_line(lambda s: "Ctrl-C ends all" in s, 40)
        text = "\n".join(p.output("out"))
        curl = re.search(r"curl --cacert \S+ -H \"X-Tunnel-Token: \S+\" \S+", text).group(0)
        # curl itself knows that *.localhost is loopback
        done = subprocess.run(["sh", "-c", curl + " -sS"], capture_output=True, text=True,
                              timeout=30)
        assert "It works." in done.stdout, done.stderr
        url = re.search(r"https://\S+\?_tunnel=\S+", text).group(0)
        done = subprocess.run(["curl", "-sS", "-k", "-L", "-c", "-", "-o", "/dev/null", "-w",
                               "%{http_code}\n", url], capture_output=True, text=True, timeout=30)
        assert "200" in done.stdout and "__Host-tunnel" in done.stdout, done.stdout + done.stderr
        os.killpg(p.pid, signal.SIGINT)  # what Ctrl-C sends
        p.wait(20)
        left = subprocess.run(["pgrep", "-g", str(p.pid)], capture_output=True, text=True).stdout
        assert left == "", left
    finally:
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
