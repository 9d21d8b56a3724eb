# SPDX-License-Identifier: MIT
"""Processes that a test starts: started, watched through their log, ended by pid."""

import os
import signal
import subprocess
import threading
import time


class Process:
    """A child whose output lines are kept, and which is ended with the test."""

    def __init__(self, argv, env=None, cwd=None, stdin=subprocess.DEVNULL, preexec_fn=None,
                 pass_fds=()):
        self.argv = argv
        self.lines = []
        self.changed = threading.Condition()
        self.child = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", preexec_fn=preexec_fn, pass_fds=pass_fds)
        self.pid = self.child.pid
        self.threads = [threading.Thread(target=self._read, args=(name, stream), daemon=True)
                        for name, stream in (("out", self.child.stdout), ("err", self.child.stderr))]
        for t in self.threads:
            t.start()

    def _read(self, name, stream):
        for line in stream:
            with self.changed:
                self.lines.append((name, line.rstrip("\n")))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def output(self, name=None):
        with self.changed:
            return [line for n, line in self.lines if name is None or n == name]

    def wait_line(self, test, deadline_s=15, start=0, name=None):
        """The first line from index `start` on for which test(line) is true."""
        end = time.monotonic() + deadline_s
        with self.changed:
            at = start
            while True:
                while at < len(self.lines):
                    n, line = self.lines[at]
                    at += 1
                    if (name is None or n == name) and test(line):
                        return line
                left = end - time.monotonic()
                over = self.child.poll() is not None and not any(t.is_alive() for t in self.threads)
                if left <= 0 or over:
                    raise AssertionError(
                        "%s: the line did not come (exit %s); last output:\n%s" % (
                            self.argv[0], self.child.poll(),
                            "\n".join(line for _, line in self.lines[-40:])))
                self.changed.wait(min(left, 0.2))

    def mark(self):
        with self.changed:
            return len(self.lines)

    def alive(self):
        return self.child.poll() is None

    def signal(self, signo):
        if self.alive():
            os.kill(self.pid, signo)

    def wait(self, deadline_s=15):
        return self.child.wait(deadline_s)

    def stop(self, deadline_s=15):
        """SIGTERM, then SIGKILL; the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.child.wait()
            raise AssertionError("%s did not end on SIGTERM within %s s; last output:\n%s" % (
                self.argv[0], deadline_s, "\n".join(self.output()[-40:])))

    def end(self):
        """Ask first: a master process (nginx, squid) then ends its workers too."""
        self.signal(signal.SIGTERM)
        try:
            self.child.wait(3)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.signal(signal.SIGKILL)
        return self.child.wait()

    def rss_kib(self):
        with open("/proc/%d/status" % self.pid) as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0

    def cpu_s(self):
        with open("/proc/%d/stat" % self.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))


def wait_until(test, deadline_s=15, what="the condition"):
    """Poll until test() is true; its value."""
    end = time.monotonic() + deadline_s
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("%s did not hold within %s s" % (what, deadline_s))
        time.sleep(0.02)
