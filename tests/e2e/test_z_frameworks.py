# SPDX-License-Identifier: MIT
"""Next.js (a server action), webpack-dev-server and SvelteKit, unchanged in their defaults: the page
in Chromium, an edited file by hot reload, a server action's cross-site defence satisfied."""

import json
import os
import signal
import subprocess

import pytest

from conftest import Process, below_ephemeral_port, wait_until
from test_h_browser import Browser

pytestmark = pytest.mark.long

ENV = dict(os.environ, NEXT_TELEMETRY_DISABLED="1", BROWSER="none", CI="")


@pytest.fixture
def browser(npm, certs):
    return Browser(npm, certs)


@pytest.fixture
def world(stack):
    class World:
        pass
    w = World()
    w.server = stack.server(default_visibility="public", listen=["127.0.0.1:0", "127.0.0.1:0"])
    w.agent = stack.agent(w.server)
    w.port = below_ephemeral_port()
    w.url = "https://%s/" % w.server.host(w.port, "demo")
    w.app = stack.place / "app"
    w.app.mkdir()
    return w


def install(world, frameworks):
    """Real files below the project, as npm would have put them (hard links: no copy)."""
    subprocess.run(["cp", "-al", str(frameworks / "node_modules"), str(world.app)], check=True)


def serve(stack, world, *argv):
    """Dev servers start helpers of their own: a group, ended as one."""
    p = stack.process(["node", *map(str, argv)], cwd=world.app, env=ENV, preexec_fn=os.setsid)
    stack.keep(Group(p))
    world.agent.wait_port(world.port, 60)


class Group:
    def __init__(self, process):
        self.process = process

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def reload_by_edit(stack, browser, world, file, old, new, **more):
    p = Process(browser.argv("hotReload", url=world.url, before=old, after=new, **more),
                env=browser.env)
    stack.things.append(p)
    p.wait_line(lambda s: s == "open", 90)
    path = world.app / file
    path.write_text(path.read_text().replace(old, new))
    result = json.loads(p.wait_line(lambda s: s.startswith("{"), 90))
    assert result["ok"], result


def test_next_with_a_server_action(stack, browser, world, frameworks):
    """No next.config.js, the default bundler (Turbopack), listening where it does by itself."""
    write(world.app, {
        "package.json": '{"name": "app", "private": true, "type": "module"}',
        "app/layout.js": "export default function Layout({ children }) {\n"
                         "  return <html><body>{children}</body></html>;\n}\n",
        "app/page.js": "import { redirect } from 'next/navigation';\n"
                       "let count = 0;\n"
                       "async function add() { 'use server'; count++; redirect('/done?n=' + count); }\n"
                       "export default function Page() {\n"
                       "  return <form action={add}><p>hello one</p><button id='go'>go</button></form>;\n}\n",
        "app/done/page.js": "export default async function Page({ searchParams }) {\n"
                            "  const { n } = await searchParams;\n  return <p>action ran {n}</p>;\n}\n",
    })
    install(world, frameworks)
    serve(stack, world, world.app / "node_modules/next/dist/bin/next", "dev",
          "-p", str(world.port))
    result = browser.run("act", url=world.url, click="#go", waitFor="action ran")
    assert "action ran" in result["text"]
    assert result["url"].startswith(world.url)
    reload_by_edit(stack, browser, world, "app/page.js", "hello one", "hello two")


def webpack(stack, world, frameworks, *more):
    write(world.app, {
        "package.json": '{"name": "app", "private": true}',
        "webpack.config.js": "module.exports = { mode: 'development', entry: './main.js',\n"
                             "  devServer: { static: './public' } };\n",
        "main.js": "document.body.textContent = 'hello one';\n",
        "public/index.html": "<!doctype html><body><script src=/main.js></script>",
    })
    install(world, frameworks)
    serve(stack, world, world.app / "node_modules/webpack/bin/webpack.js", "serve",
          "--port", str(world.port), *more)


def socket_opened(world):
    """Hot reload came through us, and not past us from the browser straight to the app."""
    return wait_until(lambda: [e for e in world.server.events("access")
                               if e["path"] == "/ws" and e["status"] == 101], 20,
                      "a WebSocket to the app")


def test_webpack_dev_server_where_the_apps_port_leads_to_the_server_too(
        stack, browser, world, frameworks):
    """webpack-dev-server (5 and 6) writes the number of the port that it listens on into the page,
    and the page opens its socket there: at wss://PORT-demo.DOMAIN:PORT/ws, whatever port the page
    itself came from, behind any proxy. So in its defaults it needs a server that is reached at that
    port as well. Here that is the server's second listener; the port itself is the app's on this
    one machine, so the browser is told to look for it elsewhere."""
    webpack(stack, world, frameworks)
    reload_by_edit(stack, browser, world, "main.js", "hello one", "hello two",
                   resolve="MAP *:%d 127.0.0.1:%d" % (world.port, world.server.listen[1][1]))
    assert socket_opened(world)


def test_webpack_dev_server_told_to_use_the_pages_port(stack, browser, world, frameworks):
    """One option instead, where the server has only its own port."""
    webpack(stack, world, frameworks, "--client-web-socket-url-port", "0")
    reload_by_edit(stack, browser, world, "main.js", "hello one", "hello two")
    assert socket_opened(world)


def test_sveltekit(stack, browser, world, frameworks):
    write(world.app, {
        "package.json": '{"name": "app", "private": true, "type": "module"}',
        "svelte.config.js": "import adapter from '@sveltejs/adapter-auto';\n"
                            "export default { kit: { adapter: adapter() } };\n",
        "vite.config.js": "import { sveltekit } from '@sveltejs/kit/vite';\n"
                          "export default { plugins: [sveltekit()] };\n",
        "src/app.html": "<!doctype html><html><head>%sveltekit.head%</head>"
                        "<body>%sveltekit.body%</body></html>",
        "src/routes/+page.svelte": "<script>let { form } = $props();</script>\n<p>hello one</p>\n"
                                   "<form method=post><button id=go>go</button></form>\n"
                                   "<p>{form?.said ?? ''}</p>\n",
        "src/routes/+page.server.js": "export const actions = { default: async () => "
                                      "({ said: 'action ran' }) };\n",
    })
    install(world, frameworks)
    serve(stack, world, world.app / "node_modules/vite/bin/vite.js", "dev", "--port",
          str(world.port), "--strictPort")
    result = browser.run("act", url=world.url, click="#go", waitFor="action ran")
    assert "action ran" in result["text"]
    reload_by_edit(stack, browser, world, "src/routes/+page.svelte", "hello one", "hello two")
