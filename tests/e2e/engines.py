# SPDX-License-Identifier: MIT
"""Real container engines for the laboratory of egress_lab.py: podman, runc and Docker as they come from
Debian, started by hand on the laboratory's host, with all they write in folders of the test, in a mount
namespace of their own. Nothing of them is left when the test is over.

A container's root is an image of links to the machine's own /usr, given to it read-only, so that real
programs run in it: curl, python3, ip."""

import itertools
import json
import os
import pathlib
import subprocess
import tarfile

import pytest

from conftest import ROOT, Process, program
from egress_lab import IP, NAMESERVER, NSENTER, REACH, sh
from processes import wait_until

UNSHARE = program("unshare")
RUNC = "/usr/sbin/runc"
DOCKER = "/usr/bin/docker"  # Debian's, as the daemon's
NUMBERS = itertools.count(1)
RESOLV = "nameserver %s\noptions timeout:1 attempts:2\n" % NAMESERVER

ALLOWED = [["http", "web.example.test", 80], ["tcp", "db.example.test", 5432]]
DENIED = [["http", "evil.test", 80], ["tcp", "203.0.113.66", 9999], ["tcp", "203.0.113.12", 22],
          ["udp", "203.0.113.66", 9999], ["tcp", "169.254.169.254", 80]]


def need(*programs):
    """The reason for which a test is left out, or None."""
    if os.geteuid() != 0:
        return "engines and namespaces need root"
    for name in programs:
        if program(name) is None:
            return "%s is not installed" % name
    return None


class Floor:
    """A mount namespace on the laboratory's host, where engines live: what they mount and write below
    /run and /var/lib/cni ends with it."""

    def __init__(self, lab):
        self.lab = lab
        self.place = lab.place / ("engines%d" % next(NUMBERS))
        self.place.mkdir()
        self.cgroup = "agentd-test-%d-%s" % (os.getpid(), self.place.name)
        (self.place / "resolv.conf").write_text(RESOLV)
        self.holder = Process([NSENTER, "--net=/run/netns/" + lab.host, UNSHARE, "--mount", "--propagation",
                               "private", "sh", "-c", "mount -t tmpfs run /run && mkdir -p /run/lock && "
                               "mount --bind %s /etc/resolv.conf && echo ready && exec sleep 100000"
                               % (self.place / "resolv.conf")])
        self.holder.wait_line(lambda line: line == "ready")
        self.image = self.make_image()

    def argv(self, *argv):
        return [NSENTER, "--net=/run/netns/" + self.lab.host, "--mount=/proc/%d/ns/mnt" % self.holder.pid, *argv]

    def run(self, *argv, timeout=60, **kw):
        return subprocess.run(self.argv(*argv), capture_output=True, text=True, timeout=timeout, cwd="/", **kw)

    def check(self, *argv, **kw):
        done = self.run(*argv, **kw)
        assert done.returncode == 0, "%s: %s%s" % (" ".join(argv), done.stdout, done.stderr)
        return done.stdout

    def make_image(self):
        root = self.place / "image"
        for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "run"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to("usr/" + name)
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
        (root / "etc/resolv.conf").write_text(RESOLV)
        for name in ("hosts", "hostname"):
            (root / "etc" / name).write_text("")
        with tarfile.open(self.place / "image.tar", "w") as t:
            t.add(root, arcname=".")
        return str(self.place / "image.tar")

    def stop(self):
        self.holder.end()
        for controller in pathlib.Path("/sys/fs/cgroup").iterdir():
            top = controller / self.cgroup
            for folder, _, _ in os.walk(top, topdown=False) if top.is_dir() else ():
                try:
                    os.rmdir(folder)
                except OSError:
                    pass  # a process of it is still going: its engine says so


class Service:
    """`agentd egress serve` on the laboratory's host."""

    def __init__(self, lab):
        self.lab = lab
        self.socket = str(lab.place / "serve" / "egress.sock")
        self.audit = lab.place / "audit.jsonl"
        self.process = None
        self.start()

    def start(self):
        self.process = Process(self.lab.host_argv() + [
            self.lab.binary, "egress", "serve", "--socket", self.socket, "--audit", str(self.audit), "--state",
            str(self.lab.place / "state")], env=self.lab.environment(), cwd="/")
        self.process.wait_line(lambda line: "egress.ready" in line, 20)

    def stop(self):
        code = self.process.stop(30)
        bad = [line for line in self.process.output("err") if "Sanitizer" in line or "runtime error:" in line]
        assert code == 0 and not bad, (code, bad, self.process.output()[-20:])

    def status(self, name=None):
        argv = ["status", "--socket", self.socket, "--json"] + (["--name", name] if name else [])
        done = self.lab.agentd(*argv)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["sandboxes"]

    def one(self, name):
        found = [s for s in self.status() if s["name"] == name]
        assert found, (name, self.status())
        return found[0]

    def wait_enforced(self, name, wanted=True):
        return wait_until(lambda: (lambda s: s if s["enforced"] == wanted else None)(self.one(name)), 15,
                          "%s enforced: %s" % (name, wanted))

    def wait_gone(self, name):
        wait_until(lambda: not [s for s in self.status() if s["name"] == name], 15, "%s is gone" % name)


@pytest.fixture(scope="module")
def policy(lab):
    return lab.policy("web.example.test:80", "db.example.test:5432/tcp")


@pytest.fixture(scope="module")
def service(lab):
    # What crosses a bridge must not be judged before it is routed; a new namespace has these at 1.
    for name in ("iptables", "ip6tables"):
        lab.from_host("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-%s=0" % name)
    s = Service(lab)
    yield s
    s.stop()


def example(name, lab, service, policy):
    """A file of examples/oci/ with this laboratory's paths."""
    text = (ROOT / "examples/oci" / name).read_text()
    text = text.replace("/usr/local/sbin/agentd", lab.binary).replace("/etc/agentd/policy.json", policy)
    text = text.replace('"egress", "hook"', '"egress", "hook", "--socket", "%s"' % service.socket)
    return json.loads(text.replace('"egress", "runtime"', '"egress", "runtime", "--socket", "%s"' % service.socket))


class Podman:
    def __init__(self, floor, hooks=None):
        self.floor = floor
        p = floor.place / "podman"
        for name in ("net", "hooks"):
            (p / name).mkdir(parents=True)
        self.names = itertools.count(1)
        self.base = ["podman", "--root", str(p / "root"), "--runroot", "/run/podman", "--tmpdir", "/run/libpod",
                     "--runtime", RUNC, "--cgroup-manager=cgroupfs", "--events-backend=file",
                     "--network-config-dir", str(p / "net"), "--hooks-dir", str(p / "hooks")]
        if hooks:
            (p / "hooks" / "agentd.json").write_text(json.dumps(hooks))
        self.network(p / "net", "podman", "pod0", ("10.88.0.0/16", "10.88.0.1"))
        self.network(p / "net", "dual", "pod1", ("10.89.0.0/16", "10.89.0.1"), ("fd89::/64", "fd89::1"))
        floor.check(*self.base, "import", floor.image, "world:1")

    @staticmethod
    def network(place, name, bridge, *subnets):
        (place / (name + ".conflist")).write_text(json.dumps({
            "cniVersion": "0.4.0", "name": name,
            "plugins": [{"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True,
                         "hairpinMode": True,
                         "ipam": {"type": "host-local", "dataDir": "/run/cni",
                                  "routes": [{"dst": "::/0" if ":" in s else "0.0.0.0/0"} for s, _ in subnets],
                                  "ranges": [[{"subnet": s, "gateway": g}] for s, g in subnets]}}]}))

    def argv(self, network, annotations, *command, options=()):
        argv = [*self.base, "run", "--name", "c%d" % next(self.names), "--network", network,
                "--cgroup-parent", "/" + self.floor.cgroup, "--ulimit", "nofile=1024:1024",
                "--ulimit", "nproc=1000:1000", "-v", "/usr:/usr:ro", *options]
        for name, value in annotations.items():
            argv += ["--annotation", "%s=%s" % (name, value)]
        return argv + ["world:1", *command]

    def run(self, network, annotations, *command, options=()):
        return self.floor.run(*self.argv(network, annotations, *command, options=("--rm", *options)))

    def start(self, network, annotations, *command, options=()):
        """In the background; its pid and name."""
        done = self.floor.check(*self.argv(network, annotations, *command, options=("-d", *options)))
        name = done.strip()
        pid = self.floor.check(*self.base, "inspect", "--format", "{{.State.Pid}}", name)
        return int(pid), name

    def execute(self, name, *command):
        return self.floor.run(*self.base, "exec", name, *command)

    def remove(self, name):
        self.floor.check(*self.base, "rm", "-f", "-t", "0", name)

    def stop(self):
        self.floor.run(*self.base, "rm", "-f", "-a", "-t", "0")
        self.floor.run(*self.base, "rmi", "-f", "-a")


class Docker:
    """containerd and dockerd; `runtimes` as in daemon.json."""

    def __init__(self, floor, runtimes=None):
        self.floor = floor
        p = floor.place / "docker"
        p.mkdir()
        (p / "daemon.json").write_text(json.dumps({"runtimes": runtimes or {}}))
        self.socket = str(p / "docker.sock")
        self.base = [DOCKER, "-H", "unix://" + self.socket]
        self.containerd = Process(floor.argv(
            "containerd", "--config", "/dev/null", "--root", str(p / "c-root"), "--state", "/run/containerd",
            "--address", "/run/c.sock", "--log-level", "error"), cwd="/")
        wait_until(lambda: floor.run("test", "-S", "/run/c.sock").returncode == 0, 20, "containerd")
        self.daemon = Process(floor.argv(
            "dockerd", "--containerd", "/run/c.sock", "--data-root", str(p / "root"), "--exec-root",
            "/run/docker", "--pidfile", "/run/docker.pid", "-H", "unix://" + self.socket, "--config-file",
            str(p / "daemon.json"), "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent",
            "/" + floor.cgroup, "--storage-driver", "overlay2", "--log-level", "warn"), cwd="/")
        wait_until(lambda: not self.daemon.alive() or
                   floor.run(*self.base, "version").returncode == 0, 40, "dockerd")
        assert self.daemon.alive(), "\n".join(self.daemon.output()[-20:])
        floor.check(*self.base, "import", floor.image, "world:1")

    def argv(self, network, runtime, *command, options=()):
        return [*self.base, "run", "--network", network, "--runtime", runtime, "-v", "/usr:/usr:ro",
                *options, "world:1", *command]

    def run(self, network, runtime, *command, options=()):
        return self.floor.run(*self.argv(network, runtime, *command, options=("--rm", *options)))

    def start(self, network, runtime, *command, options=()):
        name = self.floor.check(*self.argv(network, runtime, *command, options=("-d", *options))).strip()
        pid = self.floor.check(*self.base, "inspect", "--format", "{{.State.Pid}}", name)
        return int(pid), name

    def execute(self, name, *command):
        return self.floor.run(*self.base, "exec", name, *command)

    def remove(self, name):
        self.floor.check(*self.base, "rm", "-f", name)

    def stop(self):
        left = self.floor.run(*self.base, "ps", "-aq").stdout.split()
        if left:
            self.floor.run(*self.base, "rm", "-f", *left)
        self.daemon.end()
        self.containerd.end()


class Runc:
    """Bundles by hand."""

    def __init__(self, floor):
        self.floor = floor
        self.base = [RUNC, "--root", "/run/runc"]

    def bundle(self, command, **changes):
        """A folder with a config.json: no interface but lo, /usr of the machine."""
        b = self.floor.place / ("bundle%d" % next(NUMBERS))
        b.mkdir()
        subprocess.run(["cp", "-a", str(self.floor.place / "image"), str(b / "rootfs")], check=True)
        subprocess.run([RUNC, "spec"], cwd=b, check=True)
        config = json.loads((b / "config.json").read_text())
        config["process"].update(terminal=False, args=list(command), rlimits=[])
        config["root"]["readonly"] = False
        config["linux"]["cgroupsPath"] = "/%s/%s" % (self.floor.cgroup, b.name)
        config["mounts"].append({"destination": "/usr", "source": "/usr", "type": "bind",
                                 "options": ["rbind", "ro"]})
        config.update(changes)
        (b / "config.json").write_text(json.dumps(config))
        return b

    def run(self, bundle, runtime=None):
        base = runtime + self.base[1:] if runtime else self.base
        return self.floor.run(*base, "run", "--bundle", str(bundle), bundle.name)

    def stop(self):
        pass  # `run` ends with its container


def probe(*more, wait=5, first=(*ALLOWED, *DENIED)):
    """The command that asks for all of ALLOWED and DENIED, and for more."""
    return ["/usr/bin/python3", "-c", REACH, json.dumps([*first, *more]), str(wait)]


def reached(text):
    """What came of each that such a command asked for."""
    return [f["result"] for f in json.loads(text.strip().splitlines()[-1])]


def judge(done):
    """What it printed, against what was asked."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = reached(done.stdout)
    want = ["answered"] * len(ALLOWED) + ["refused"] * len(DENIED)
    assert found[:len(want)] == want, found
    return found
