# SPDX-License-Identifier: MIT
"""The core again behind nginx as a balancer that ends TLS and reuses its connections for many
hosts, links included."""

import json
import os
import subprocess
import sys

import pytest

from conftest import DOMAIN, ROOT, Process, below_ephemeral_port, free_port, program
from http_client import Client
from processes import wait_until

APP = str(ROOT / "tests/e2e/apps/fault_app.py")

NGINX = """
worker_processes 1;
daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  client_max_body_size 0;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream tunneld {{ server 127.0.0.1:{plain}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    server_name .{domain};
    ssl_certificate {cert};
    ssl_certificate_key {key};
    location / {{
      proxy_pass http://tunneld;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_read_timeout 60s;
    }}
  }}
}}
"""


@pytest.fixture
def world(stack, place):
    class World:
        pass
    w = World()
    w.balancer_port = free_port()
    w.server = stack.server(
        listen=["127.0.0.1:0", {"address": "127.0.0.1:0", "tls": False}],
        trusted_proxies=["127.0.0.1"], default_visibility="public",
        public_url="https://%s:%d" % (DOMAIN, w.balancer_port))
    (place / "nginx").mkdir()
    conf = place / "nginx/nginx.conf"
    conf.write_text(NGINX.format(
        place=place / "nginx", plain=w.server.listen[1][1], port=w.balancer_port, domain=DOMAIN,
        cert=stack.certs.cert, key=stack.certs.key))
    w.nginx = stack.process([program("nginx"), "-c", str(conf), "-e",
                             str(place / "nginx/error.log")])
    w.address = ("127.0.0.1", w.balancer_port)

    def listens():
        try:
            Client(w.address, "x." + DOMAIN, stack.certs.context()).close()
            return True
        except OSError:
            return False
    wait_until(listens, 20, "nginx listens")
    w.url = "https://%s:%d" % (DOMAIN, w.balancer_port)
    w.agents = {}
    w.port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(w.port)])
    for s in ("one", "two", "three", "four"):
        w.agents[s] = stack.agent(w.server, sandbox=s, url=w.url)
        event = w.agents[s].wait_port(w.port)
        assert event["url"] == "https://%d-%s.%s:%d/" % (w.port, s, DOMAIN, w.balancer_port)
    return w


def client(w, stack, sandbox):
    return Client(w.address, "%d-%s.%s:%d" % (w.port, sandbox, DOMAIN, w.balancer_port),
                  stack.certs.context())


def test_many_sandboxes_over_few_reused_connections(world, stack):
    for _ in range(10):
        for s in world.agents:
            with client(world, stack, s) as c:
                for _ in range(3):
                    a = c.get("/echo")
                    assert a.status == 200
                    head = a.json()["head"].lower()
                    assert "tunnel-public-url: https://%d-%s.%s:%d" % (
                        world.port, s, DOMAIN, world.balancer_port) in head
    body = os.urandom(1 << 20)
    with client(world, stack, "two") as c:
        c.request("POST", "/echo", body=body)
        assert c.answer().json()["length"] == len(body)
        c.request("POST", "/echo", body=[body[:70000], body[70000:]])
        assert c.answer().json()["length"] == len(body)


def test_the_clients_address_is_the_rightmost_untrusted_one(world, stack):
    with client(world, stack, "one") as c:
        head = c.get("/echo", [("X-Forwarded-For", "6.6.6.6")]).json()["head"].lower()
    # nginx told 127.0.0.1, which is trusted, and dropped what the client had said
    assert "x-forwarded-for: " in head and "6.6.6.6" not in head


def test_websockets_pass(world, stack, npm):
    port = below_ephemeral_port()
    env = dict(os.environ, NPM_FOLDER=str(npm), CA_FILE=stack.certs.ca)
    stack.app(["node", str(ROOT / "tests/e2e/apps/ws_echo.mjs"), "127.0.0.1", str(port)], env=env)
    world.agents["three"].wait_port(port)
    done = subprocess.run(
        ["node", str(ROOT / "tests/e2e/apps/ws_client.mjs"),
         "wss://%d-three.%s:%d/" % (port, DOMAIN, world.balancer_port), "1", "70000", "1000000"],
        env=env, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["ok"], done.stdout + done.stderr


def test_a_peer_that_is_not_trusted_gets_nothing_on_a_plaintext_listener(stack):
    server = stack.server(
        listen=["127.0.0.1:0", {"address": "127.0.0.1:0", "tls": False}],
        trusted_proxies=["192.0.2.1"], default_visibility="public")
    with Client(server.listen[1], server.host(3000, "demo")) as c:
        try:
            c.request("GET", "/")
            assert c.at_end()
        except OSError:
            pass
    server.process.wait_line(lambda s: "trusted" in s, 10, name="err")


@pytest.mark.parametrize("version", [1, 2])
def test_proxy_protocol_tells_the_client(stack, version):
    server = stack.server(
        listen=["127.0.0.1:0", {"address": "127.0.0.1:0", "tls": True, "proxy_protocol": True}],
        trusted_proxies=["127.0.0.1"], default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent.wait_port(port)
    import socket
    import struct
    if version == 1:
        head = b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n"
    else:
        head = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", 12) +
                socket.inet_aton("203.0.113.7") + socket.inet_aton("198.51.100.1") +
                struct.pack("!HH", 40000, 443))
    raw = socket.create_connection(server.listen[1], timeout=10)
    for i in range(len(head)):
        raw.sendall(head[i:i + 1])
    host = server.host(port, "demo")
    c = Client.__new__(Client)
    c.host, c.buffer = host, b""
    c.sock = stack.certs.context().wrap_socket(raw, server_hostname=host.split(":")[0])
    head = c.get("/echo").json()["head"].lower()
    assert "x-forwarded-for: 203.0.113.7" in head
    c.close()
    assert Process
