# SPDX-License-Identifier: MIT
"""Private by default: who gets in, who does not, and what the app never sees."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time

import pytest

from conftest import DOMAIN, ROOT, below_ephemeral_port
from test_b_errors import CURL, FETCH, NAVIGATION, UPGRADE

APP = str(ROOT / "tests/e2e/apps/fault_app.py")


class World:
    pass


@pytest.fixture(scope="module")
def world(shared):
    w = World()
    key = shared.place / "acme.key"
    other = shared.place / "rival.key"
    w.acme, w.rival = os.urandom(32).hex(), os.urandom(32).hex()
    key.write_text(w.acme)
    other.write_text(w.rival)
    w.server = shared.server(keys=[
        {"kid": "acme-1", "alg": "HS256", "file": str(key), "tenant": "acme"},
        {"kid": "rival-1", "alg": "HS256", "file": str(other), "tenant": "rival"}])
    w.agent = shared.agent(w.server, token=mint(w.acme, "acme-1", "tunnel:link", "demo"))
    w.port = below_ephemeral_port()
    shared.app([sys.executable, APP, "127.0.0.1", str(w.port)])
    w.agent.wait_port(w.port)
    return w


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def mint(key, kid, aud, sub, header=None, **claims):
    """As any platform would, with nothing of ours."""
    body = {"aud": aud, "sub": sub, "exp": int(time.time()) + 200}
    body.update(claims)
    head = {"alg": "HS256", "typ": "JWT", "kid": kid}
    head.update(header or {})
    signed = "%s.%s" % (b64(json.dumps(head).encode()), b64(json.dumps(body).encode()))
    return "%s.%s" % (signed, b64(hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest()))


def access(world, **claims):
    return mint(world.acme, "acme-1", "tunnel:access", "demo", **claims)


def ask(world, host, target="/", fields=()):
    with world.server.client(host) as c:
        return c.get(target, fields)


@pytest.mark.parametrize("fields,kind", [
    (NAVIGATION, "text/html"), (FETCH, "application/json"), (CURL, "text/plain"), (UPGRADE, None)])
def test_without_a_token_it_is_401_in_each_form(world, fields, kind):
    a = ask(world, world.server.host(world.port, "demo"), "/", fields)
    assert (a.status, a.error) == (401, "login-required")
    if kind:
        assert a.get("content-type").startswith(kind)


def test_private_unknown_and_offline_look_alike(world):
    def shape(a):
        return (a.status, a.reason, sorted((n, v) for n, v in a.fields if n != "date"),
                a.body.replace(b"demo", b"ID").replace(b"nobody", b"ID"))
    answers = [shape(ask(world, world.server.host(p, s), "/", CURL))
               for p, s in ((world.port, "demo"), (1, "demo"), (world.port, "nobody"))]
    sizes = {len(a[3]) for a in answers}
    assert len({a[:2] for a in answers}) == 1 and len(sizes) <= 2
    assert answers[0][0] == 401


def cookie_of(answer):
    values = [v for v in answer.all("set-cookie") if v.startswith("__Host-tunnel=")]
    assert len(values) == 1
    attributes = {p.strip().lower() for p in values[0].split(";")[1:]}
    assert {"secure", "httponly", "samesite=none", "partitioned", "path=/"} <= attributes
    return values[0].split(";")[0]


def enter(world, token=None, port=None, host=None):
    a = ask(world, host or world.server.host(port or world.port, "demo"),
            "/page?a=1&_tunnel=%s&b=2" % (token or access(world)), NAVIGATION)
    assert a.status == 303, (a.status, a.error)
    assert a.get("location") in ("/page?a=1&b=2",
                                 "https://%s/page?a=1&b=2" % world.server.host(world.port, "demo"))
    return cookie_of(a)


def test_a_token_in_the_query_becomes_a_cookie_that_opens_the_page(world):
    cookie = enter(world)
    for fields in (NAVIGATION, FETCH, CURL):
        a = ask(world, world.server.host(world.port, "demo"), "/", fields + [("Cookie", cookie)])
        assert a.body == b"ok\n"


def test_a_token_in_the_header_opens_it_for_one_request(world):
    with world.server.preview(world.port) as c:
        assert c.get("/", CURL + [("X-Tunnel-Token", access(world))]).body == b"ok\n"
        assert c.get("/", CURL).status == 401


def test_the_app_never_sees_our_credentials(world):
    token, cookie = access(world), enter(world)
    host = world.server.host(world.port, "demo")
    ask(world, host, "/x?mark=1", [("X-Tunnel-Token", token), ("Cookie", "one=1; %s; two=2" % cookie)])
    ask(world, host, "/y?mark=1", [("Cookie", cookie)])
    seen = ask(world, host, "/seen", [("Cookie", cookie)]).json()
    assert any("/x?mark=1" in h for h in seen) and any("/y?mark=1" in h for h in seen)
    for head in seen:
        assert token not in head and "x-tunnel-token" not in head.lower()
        assert "__Host-tunnel" not in head and cookie.split("=", 1)[1] not in head
        assert "_tunnel=" not in head
    assert any("one=1" in h and "two=2" in h for h in seen)


def test_the_app_cannot_set_our_cookie(world):
    import base64 as b
    cookie = enter(world)
    want = b.urlsafe_b64encode(b"Set-Cookie: __Host-tunnel=forged; Secure; Path=/\r\n"
                               b"Set-Cookie: mine=1; Domain=localhost; Path=/").decode()
    a = ask(world, world.server.host(world.port, "demo"), "/headers?" + want, [("Cookie", cookie)])
    assert a.all("set-cookie") == ["mine=1; Path=/"]


def test_a_cookie_counts_only_for_its_own_host(world, stack):
    cookie = enter(world)
    a = ask(world, world.server.host(1, "demo"), "/", CURL + [("Cookie", cookie)])
    assert a.status == 401
    a = ask(world, world.server.host(world.port, "other"), "/", CURL + [("Cookie", cookie)])
    assert a.status == 401


def test_a_sibling_previews_page_cannot_use_the_visitors_cookie(world):
    cookie = enter(world)
    host = world.server.host(world.port, "demo")
    for origin in ("https://" + world.server.host(world.port, "evil"), "https://elsewhere.example",
                   "null"):
        for fields in (UPGRADE, [("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Site", "same-site")]):
            a = ask(world, host, "/", fields + [("Origin", origin), ("Cookie", cookie)])
            assert (a.status, a.error) == (401, "login-required"), origin
    for origin in ("https://" + host, "https://" + world.server.host(8000, "demo")):
        a = ask(world, host, "/", FETCH + [("Origin", origin), ("Cookie", cookie)])
        assert a.body == b"ok\n", origin


def test_a_preflight_from_a_sibling_port_needs_no_credentials(world):
    fields = [("Origin", "https://" + world.server.host(8000, "demo")),
              ("Access-Control-Request-Method", "POST"), ("Sec-Fetch-Mode", "cors")]
    with world.server.preview(world.port) as c:
        c.request("OPTIONS", "/", fields)
        assert c.answer().status == 200
    foreign = [("Origin", "https://" + world.server.host(8000, "evil"))] + fields[1:]
    with world.server.preview(world.port) as c:
        c.request("OPTIONS", "/", foreign)
        assert c.answer().status == 401


def bad_tokens(world):
    good = access(world)
    head, body, signature = good.split(".")
    none = "%s.%s." % (b64(json.dumps({"alg": "none", "kid": "acme-1"}).encode()), body)
    return {
        "garbage": "garbage",
        "empty": "",
        "unsigned": "%s.%s." % (head, body),
        "alg none": none,
        "swapped algorithm": mint(world.acme, "acme-1", "tunnel:access", "demo", {"alg": "EdDSA"}),
        "other signature": "%s.%s.%s" % (head, body, b64(os.urandom(32))),
        "other key": mint(world.rival, "acme-1", "tunnel:access", "demo"),
        "unknown kid": mint(world.acme, "acme-9", "tunnel:access", "demo"),
        "no kid": mint(world.acme, None, "tunnel:access", "demo"),
        "expired": access(world, exp=int(time.time()) - 5),
        "not yet": access(world, nbf=int(time.time()) + 1000),
        "too long": access(world, exp=int(time.time()) + 90000),
        "no exp": access(world, exp=None),
        "link token": mint(world.acme, "acme-1", "tunnel:link", "demo"),
        "audience list": mint(world.acme, "acme-1", ["tunnel:access"], "demo"),
        "other sandbox": mint(world.acme, "acme-1", "tunnel:access", "other"),
        "other tenant": mint(world.rival, "rival-1", "tunnel:access", "demo"),
        "claimed tenant": mint(world.rival, "rival-1", "tunnel:access", "demo", tenant="acme"),
    }


def test_no_bad_token_opens_a_preview(world):
    host = world.server.host(world.port, "demo")
    assert ask(world, host, "/", CURL + [("X-Tunnel-Token", access(world))]).status == 200
    for name, token in bad_tokens(world).items():
        a = ask(world, host, "/", CURL + [("X-Tunnel-Token", token)])
        assert a.status in (401, 403), name
        assert a.error in ("login-required", "forbidden"), name
        assert token not in a.body.decode("latin-1") or token == ""
        a = ask(world, host, "/?_tunnel=" + token, NAVIGATION)
        assert a.status in (401, 403) and not a.all("set-cookie"), name


def test_a_foreign_tenants_token_is_none_also_while_the_agent_is_away(world, stack):
    agent = stack.agent(world.server, token=mint(world.acme, "acme-1", "tunnel:link", "away"))
    agent.stop()
    token = mint(world.rival, "rival-1", "tunnel:access", "away")
    a = ask(world, world.server.host(world.port, "away"), "/", CURL + [("X-Tunnel-Token", token)])
    assert (a.status, a.error) == (401, "login-required")


def test_a_token_for_other_ports_is_forbidden(world):
    a = ask(world, world.server.host(world.port, "demo"), "/",
            CURL + [("X-Tunnel-Token", access(world, ports="1-10"))])
    assert (a.status, a.error) == (403, "forbidden")


def test_no_token_appears_in_a_log(world):
    token = access(world)
    ask(world, world.server.host(world.port, "demo"), "/log?_tunnel=" + token, NAVIGATION)
    ask(world, world.server.host(world.port, "demo"), "/log?secret=1", [("X-Tunnel-Token", token)])
    world.server.process.wait_line(lambda s: '"/log"' in s, 10)
    text = "\n".join(world.server.process.output())
    assert token not in text and "secret=1" not in text


@pytest.mark.parametrize("name", ["expired", "alg none", "access token", "other tenant",
                                  "other sandbox", "garbage"])
def test_no_bad_token_links_an_agent(world, stack, name):
    token = {
        "expired": mint(world.acme, "acme-1", "tunnel:link", "demo", exp=int(time.time()) - 5),
        "alg none": bad_tokens(world)["alg none"],
        "access token": access(world),
        "other tenant": mint(world.rival, "rival-1", "tunnel:link", "demo"),
        "other sandbox": mint(world.acme, "acme-1", "tunnel:link", "other"),
        "garbage": "garbage",
    }[name]
    agent = stack.agent(world.server, "--sandbox", "demo", token=token, wait=False)
    assert agent.process.wait(20) == 3, agent.process.output()
    text = "\n".join(agent.process.output())
    assert "token" in text and token not in text
    # the one that was there is undisturbed
    assert ask(world, world.server.host(world.port, "demo"), "/",
               CURL + [("X-Tunnel-Token", access(world))]).status == 200


def test_a_port_is_made_public_only_by_name_and_with_the_claim(stack, world):
    with_claim = mint(world.acme, "acme-1", "tunnel:link", "pub1", public=True)
    without = mint(world.acme, "acme-1", "tunnel:link", "pub2")
    port = below_ephemeral_port()
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    one = stack.agent(world.server, str(port), "--public", token=with_claim, command="http",
                      wait=False)
    one.process.wait_line(lambda s: "pub1" in s, 20, name="out")
    assert ask(world, world.server.host(port, "pub1"), "/", CURL).body == b"ok\n"
    two = stack.agent(world.server, str(port), "--public", token=without, command="http",
                      wait=False)
    two.process.wait_line(lambda s: "public" in s and "token" in s, 20)
    assert two.process.wait(20) == 3
    assert ask(world, world.server.host(port, "pub2"), "/", CURL).status == 401
    assert two.process.wait(15) == 3


def test_links_host_and_domain_are_no_preview(world):
    for host in ("0-demo.%s:%d" % (DOMAIN, world.server.port),):
        with world.server.client(host) as c:
            a = c.get("/")
            assert a.status in (400, 403, 404, 421, 426)
