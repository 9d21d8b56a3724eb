# SPDX-License-Identifier: MIT
"""A real browser: pages, hot reload by Vite, a private preview in a foreign iframe with third-party
cookies blocked, and a hostile sibling preview."""

import base64
import hashlib
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT, Process, below_ephemeral_port, program

APP = str(ROOT / "tests/e2e/apps/fault_app.py")


def spki(certs):
    key = subprocess.run(["openssl", "x509", "-in", certs.cert, "-pubkey", "-noout"],
                         capture_output=True, check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=key,
                         capture_output=True, check=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


class Browser:
    def __init__(self, npm, certs):
        self.env = dict(os.environ, NPM_FOLDER=str(npm), CHROMIUM=program("chromium"))
        self.spki = spki(certs)

    def argv(self, scenario, **args):
        args["spki"] = self.spki
        return ["node", str(ROOT / "tests/e2e/browser/drive.mjs"), scenario, json.dumps(args)]

    def run(self, scenario, **args):
        done = subprocess.run(self.argv(scenario, **args), env=self.env, capture_output=True,
                              text=True, timeout=120)
        result = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
        assert result.get("ok"), done.stdout + done.stderr
        return result


@pytest.fixture
def browser(npm, certs):
    return Browser(npm, certs)


def test_a_page_and_its_event_stream_in_chromium(stack, browser):
    from conftest import BUILD
    server = stack.server(default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    stack.app([str(BUILD / "examples/hello/hello"), str(port)])
    agent.wait_port(port)
    result = browser.run("page", url="https://%s/" % server.host(port, "demo"),
                         waitFor="\\d\\d:\\d\\d:\\d\\d UTC",
                         screenshot=str(stack.place / "page.png"))
    assert result["status"] == 200
    assert "It works." in result["text"] and "Host: localhost:%d" % port in result["text"]


def test_the_error_page_of_a_closed_port_turns_into_the_app(stack, browser):
    """A visitor who is too early sees our page, and without a key pressed then sees the app."""
    server = stack.server(default_visibility="public", limits={"hold_ms": 200})
    agent = stack.agent(server)
    port = below_ephemeral_port()
    p = Process(browser.argv("page", url="https://%s/" % server.host(port, "demo"),
                             waitFor="^ok\\s*$",
                             screenshot=str(stack.place / "page.png")), env=browser.env)
    stack.things.append(p)
    server.process.wait_line(lambda s: "port-closed" in s, 60)
    stack.app([sys.executable, APP, "127.0.0.1", str(port)])
    agent.wait_port(port)
    line = p.wait_line(lambda s: s.startswith("{"), 60)
    result = json.loads(line)
    assert result["ok"], result
    assert result["text"].strip() == "ok"


def test_vite_hot_reload_reaches_an_open_page(stack, browser, npm):
    server = stack.server(default_visibility="public")
    agent = stack.agent(server)
    port = below_ephemeral_port()
    project = stack.place / "app"
    project.mkdir()
    (project / "index.html").write_text(
        "<!doctype html><title>app</title><div id=app></div>"
        "<script type=module src=/main.js></script>")
    (project / "main.js").write_text(
        "import { text } from './text.js';\n"
        "const show = (t) => { document.getElementById('app').textContent = t; };\nshow(text);\n"
        "if (import.meta.hot) import.meta.hot.accept('./text.js', (m) => show(m.text));\n")
    (project / "text.js").write_text("export const text = 'first';\n")
    (project / "package.json").write_text('{"name": "app", "private": true, "type": "module"}')
    os.symlink(npm / "node_modules", project / "node_modules")
    stack.process(["node", str(npm / "node_modules/vite/bin/vite.js"), "--port", str(port),
                   "--strictPort"], cwd=project)
    agent.wait_port(port, 40)
    p = Process(browser.argv("hotReload", url="https://%s/" % server.host(port, "demo"),
                             before="first",
                             after="second"), env=browser.env)
    stack.things.append(p)
    p.wait_line(lambda s: s == "open", 60)
    (project / "text.js").write_text("export const text = 'second';\n")
    result = json.loads(p.wait_line(lambda s: s.startswith("{"), 60))
    assert result == {"ok": True, "sameDocument": True}


PAGE = """<!doctype html><title>inner</title><p id=state>loading</p>
<link rel=stylesheet href=/style.css><script type=module>
const css = getComputedStyle(document.body).color === 'rgb(1, 2, 3)';
const data = await fetch('/data.json').then(r => r.json());
const ws = await new Promise(done => {
  const s = new WebSocket(location.origin.replace('https', 'wss') + ':WSPORT');
  s.onopen = () => s.send('hello'); s.onmessage = e => done(e.data); s.onerror = () => done('error');
});
document.getElementById('state').textContent = `css ${css} data ${data.value} socket ${ws}`;
</script>"""


def test_a_private_preview_works_in_an_iframe_of_another_site(stack, browser, npm):
    """Page, style sheet, fetch and WebSocket, with third-party cookies blocked."""
    server = stack.server()
    agent = stack.agent(server)
    port = below_ephemeral_port()
    app = stack.place / "app.mjs"
    app.write_text("""
import { createServer } from "node:http";
import { createRequire } from "node:module";
const { WebSocketServer } = createRequire(process.env.NPM_FOLDER + "/")("ws");
const page = process.argv[3];
const http = createServer((q, a) => {
  const kinds = { "/style.css": ["text/css", "body { color: rgb(1, 2, 3) }"],
                  "/data.json": ["application/json", '{"value": 42}'] };
  const [kind, body] = kinds[q.url] ?? ["text/html", page];
  a.writeHead(200, { "Content-Type": kind }); a.end(body);
});
new WebSocketServer({ server: http }).on("connection", s => s.on("message", d => s.send("echo " + d)));
http.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening", http.address().port));
""")
    page = PAGE.replace(" + ':WSPORT'", "")
    stack.app(["node", str(app), str(port), page],
              env=dict(os.environ, NPM_FOLDER=str(npm)))
    agent.wait_port(port)
    token = server.token("demo", access=True)
    outer_port = below_ephemeral_port()
    site = stack.place / "site"
    site.mkdir()
    url = "https://%s/?_tunnel=%s" % (server.host(port, "demo"), token)
    (site / "index.html").write_text(
        "<!doctype html><title>outer</title><iframe src='%s' width=800 height=400></iframe>" % url)
    stack.process([sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(outer_port)], cwd=site)
    agent.wait_port(outer_port)
    result = browser.run("iframe", outer="http://127.0.0.1:%d/" % outer_port,
                         waitFor="socket",
                         blockThirdPartyCookies=True)
    assert result["text"].strip() == "css true data 42 socket echo hello"
    assert "_tunnel" not in result["url"]


def test_a_hostile_sibling_preview_cannot_use_the_visitors_cookie(stack, browser):
    server = stack.server()
    agents = [stack.agent(server, sandbox=s) for s in ("victim", "hostile")]
    ports = {}
    for s in ("victim", "hostile"):
        ports[s] = below_ephemeral_port()
        stack.app([sys.executable, APP, "127.0.0.1", str(ports[s])])
        for a in agents:
            a.wait_port(ports[s])
    urls = {s: "https://%s/" % server.host(ports[s], s) for s in ports}
    result = browser.run(
        "hostile", target=urls["victim"],
        **{s: "%s?_tunnel=%s" % (urls[s], server.token(s, access=True)) for s in urls})
    assert result["own"] == 200
    assert result["cors"] == "error" and result["socket"] == "error"
    # What the victim's app saw: its own visits, none from the hostile page.
    with server.preview(ports["victim"], "victim") as c:
        seen = c.get("/seen", [("X-Tunnel-Token", server.token("victim", access=True))]).json()
    assert seen and not any("hostile" in head for head in seen)
