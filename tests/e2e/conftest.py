# SPDX-License-Identifier: MIT
"""Fixtures: certificates, a running tunneld, agents, apps, npm packages. Everything listens on
loopback, on ports the kernel chose, in a folder of its own below build/<variant>/e2e/."""

import atexit
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from http_client import Client  # noqa: E402
from processes import Process, wait_until  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("BUILD", "build/release")
DOMAIN = "preview.localhost"
RUNTIME_ROOT = tempfile.mkdtemp(prefix="agentd-e2e-")
RUNTIME_DIRS = itertools.count(1)
atexit.register(shutil.rmtree, RUNTIME_ROOT, ignore_errors=True)
# A job in the background (make check &) begins with both ignored, and so would what is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def tool(name):
    """A program of tests/tools or bin/, as built."""
    for place in ("bin", "tests/tools"):
        path = BUILD / place / name
        if path.exists():
            return str(path)
    raise AssertionError("%s is not built" % name)


def program(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


@pytest.fixture(scope="session")
def work():
    place = BUILD / "e2e"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


class Certs:
    def __init__(self, place, domain=DOMAIN):
        subprocess.run(["sh", str(ROOT / "certs/make-dev.sh"), str(place), domain], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.ca = str(place / "ca.pem")
        self.cert = str(place / "cert.pem")
        self.key = str(place / "key.pem")

    def context(self):
        return ssl.create_default_context(cafile=self.ca)


@pytest.fixture(scope="session")
def certs(work):
    return Certs(work / "certs")


class Server:
    """A tunneld, its configuration, and its addresses once it is ready."""

    def __init__(self, place, certs, **changes):
        self.place = pathlib.Path(place)
        self.place.mkdir(parents=True, exist_ok=True)
        self.certs = certs
        self.file = str(self.place / "tunneld.json")
        self.config = {
            "domain": DOMAIN,
            "listen": ["127.0.0.1:0"],
            "admin_listen": "127.0.0.1:0",
            "tls": {"cert": certs.cert, "key": certs.key},
            "state_dir": str(self.place / "state"),
            "workers": 2,
            "log": {"format": "json", "level": "info"},
        }
        self.config.update(changes)
        self.process = None
        self.write()

    def write(self):
        with open(self.file, "w") as f:
            json.dump(self.config, f, indent=1)

    def start(self, wrap=(), env=None):
        self.process = Process([*wrap, tool("tunneld"), "serve", "-c", self.file], env=env)
        self.wait_ready()
        return self

    def wait_ready(self, start=0):
        line = self.process.wait_line(lambda s: '"ready"' in s, 30, start)
        ready = json.loads(line)
        self.listen = [split_address(a) for a in ready["listen"].split(",")]
        self.redirect = [split_address(a) for a in ready.get("redirect", "-").split(",") if a != "-"]
        self.admin = split_address(ready["admin"]) if ready.get("admin", "-") != "-" else None
        self.address = self.listen[0]
        # A restart keeps its ports, so that agents and clients find it again.
        for i, a in enumerate(self.listen):
            entry = self.config["listen"][i]
            text = "%s:%d" % a
            if isinstance(entry, dict):
                entry["address"] = text
            else:
                self.config["listen"][i] = text
        self.write()

    @property
    def port(self):
        return self.address[1]

    @property
    def url(self):
        return "https://%s:%d" % (DOMAIN, self.port)

    def host(self, port, sandbox):
        return "%s-%s.%s:%d" % (port, sandbox, DOMAIN, self.port)

    def token(self, sandbox="demo", *args, access=False):
        argv = [tool("tunneld"), "token", "-c", self.file, "--sandbox", sandbox]
        if access:
            argv.append("--access")
        done = subprocess.run(argv + list(args), capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def client(self, host, **kw):
        kw.setdefault("context", self.certs.context())
        return Client(self.address, host, **kw)

    def preview(self, port, sandbox="demo", **kw):
        return self.client(self.host(port, sandbox), **kw)

    def admin_get(self, path):
        with Client(self.admin, "%s:%d" % self.admin) as c:
            return c.get(path)

    def metric(self, name):
        m = re.search(r"^%s(?:\{[^}]*\})? (-?\d+)" % re.escape(name),
                      self.admin_get("/metrics").body.decode(), re.M)
        assert m, "no metric %s" % name
        return int(m.group(1))

    def events(self, name, start=0):
        found = []
        for line in self.process.output("err")[start:]:
            if line.startswith("{"):
                event = json.loads(line)
                if event.get("event") == name:
                    found.append(event)
        return found

    def stop(self):
        if self.process is not None and self.process.alive():
            code = self.process.stop(30)
            assert code == 0, "tunneld ended with %s:\n%s" % (
                code, "\n".join(self.process.output()[-40:]))


def split_address(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Agent:
    """An agentd, run with --json."""

    def __init__(self, server, token, place, *args, sandbox=None, env=None, wrap=(), url=None,
                 binary="agentd", command="up", ca=None):
        self.place = pathlib.Path(place)
        self.place.mkdir(parents=True, exist_ok=True)
        self.token_file = str(self.place / "token")
        self.set_token(token)
        argv = [*wrap, tool(binary), command, *args,
                "--server", url or server.url, "--token-file", self.token_file, "--json",
                "--ca-file", ca or server.certs.ca]
        if sandbox:
            argv += ["--sandbox", sandbox]
        full = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        # Not in self.place: a socket's path holds 107 bytes, and the tree may stand anywhere.
        self.runtime_dir = os.path.join(RUNTIME_ROOT, "run%d" % next(RUNTIME_DIRS))
        os.mkdir(self.runtime_dir, 0o700)
        full["XDG_RUNTIME_DIR"] = self.runtime_dir
        full.update(env or {})
        self.argv, self.env = argv, full
        self.process = None

    def set_token(self, token):
        with open(self.token_file, "w") as f:
            f.write(token + "\n")
        os.chmod(self.token_file, 0o600)

    def start(self):
        self.process = Process(self.argv, env=self.env)
        return self

    def wait_event(self, name, deadline_s=20, start=0, **members):
        def fits(line):
            if not line.startswith("{"):
                return False
            e = json.loads(line)
            return e.get("event") == name and all(e.get(k) == v for k, v in members.items())
        return json.loads(self.process.wait_line(fits, deadline_s, start, "out"))

    def wait_up(self, deadline_s=20, start=0):
        return self.wait_event("link.up", deadline_s, start)

    def wait_port(self, port, deadline_s=20, start=0):
        return self.wait_event("port.opened", deadline_s, start, port=port)

    def stop(self):
        if self.process is not None and self.process.alive():
            code = self.process.stop(30)
            assert code == 0, "agentd ended with %s:\n%s" % (
                code, "\n".join(self.process.output()[-40:]))


@pytest.fixture
def place(work, request):
    """This test's own folder."""
    p = work / re.sub(r"[^A-Za-z0-9_.-]", "_", request.node.name)[:60]
    p.mkdir(parents=True, exist_ok=True)
    return p


class Stack:
    """What one test starts, ended in reverse order."""

    def __init__(self, place, certs):
        self.place = place
        self.certs = certs
        self.things = []
        self.count = 0

    def _keep(self, thing):
        self.things.append(thing)
        return thing

    def server(self, **changes):
        self.count += 1
        return self._keep(Server(self.place / ("server%d" % self.count), self.certs, **changes)).start()

    def agent(self, server, *args, sandbox="demo", token=None, wait=True, **kw):
        self.count += 1
        token = token or server.token(sandbox, "--public")
        a = self._keep(Agent(server, token, self.place / ("agent%d" % self.count), *args, **kw)).start()
        if wait:
            a.wait_up()
        return a

    def process(self, argv, **kw):
        return self._keep(Process(argv, **kw))

    def app(self, argv, **kw):
        """A program that prints "listening PORT" when it is ready; (process, port)."""
        p = self.process(argv, **kw)
        line = p.wait_line(lambda s: s.startswith("listening "), 20)
        return p, int(line.split()[1])

    def keep(self, thing):
        """Anything with stop()."""
        return self._keep(thing)

    def end(self):
        faults = []
        for thing in reversed(self.things):
            try:
                if isinstance(thing, Process):
                    thing.end()
                else:
                    thing.stop()
            except AssertionError as e:
                faults.append(str(e))
        for thing in self.things:
            p = getattr(thing, "process", thing)
            if isinstance(p, Process):
                bad = [s for s in p.output("err")
                       if "Sanitizer" in s or "runtime error:" in s]
                faults += bad[:10]
                (self.place / ("%s.%d.log" % (pathlib.Path(p.argv[0]).name, p.pid))).write_text(
                    "\n".join("%s %s" % line for line in p.lines))
        assert not faults, "\n".join(faults)


@pytest.fixture
def stack(place, certs):
    s = Stack(place, certs)
    yield s
    s.end()


@pytest.fixture(scope="module")
def shared(work, certs, request):
    """One stack for all tests of a file, for those that disturb nothing."""
    place = work / request.module.__name__
    place.mkdir(parents=True, exist_ok=True)
    s = Stack(place, certs)
    yield s
    s.end()


def npm_install(folder, package_file):
    """The packages of a package.json, in a folder that survives from run to run; the file's text
    says whether they are still the right ones."""
    if program("node") is None or program("npm") is None:
        pytest.fail("node and npm are not installed: make deps")
    wanted = package_file.read_text()
    stamp = folder / "installed.json"
    if not stamp.exists() or stamp.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(wanted)
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock",
                               "--loglevel=error"], cwd=folder, capture_output=True, text=True,
                              timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(wanted)
    return folder


@pytest.fixture(scope="session")
def npm():
    return npm_install(ROOT / "build/npm", ROOT / "tests/e2e/package.json")


@pytest.fixture(scope="session")
def frameworks():
    return npm_install(ROOT / "build/npm-frameworks", ROOT / "tests/e2e/frameworks.json")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes long; make check-long")


def free_port():
    """A port that nothing uses at this moment, for programs that cannot be given port 0."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def below_ephemeral_port():
    """A free port that the agent publishes by default: below the ephemeral range, no debugger's."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    start = 3000 + os.getpid() * 37 % 5000
    for port in range(start, low):
        if port in (5005, 5678, 9229, 9230):
            continue
        try:
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", port))
                return port
        except OSError:
            continue
    raise AssertionError("no free port below the ephemeral range")


__all__ = ["Agent", "BUILD", "Client", "DOMAIN", "Process", "ROOT", "Server", "Stack",
           "below_ephemeral_port", "free_port", "program", "tool", "wait_until"]
