// SPDX-License-Identifier: MIT
// Chromium, driven for one scenario: node drive.mjs SCENARIO JSON-ARGUMENTS. Prints one JSON object.
// The certificate is trusted by the hash of its key and in no other way.
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRequire } from "node:module";
const { chromium } = createRequire(process.env.NPM_FOLDER + "/")("playwright-core");

const [scenario, json] = process.argv.slice(2);
const args = JSON.parse(json);
const profile = mkdtempSync(join(tmpdir(), "chromium-"));

async function open() {
  if (args.blockThirdPartyCookies) {
    mkdirSync(join(profile, "Default"), { recursive: true });
    writeFileSync(join(profile, "Default/Preferences"), JSON.stringify({
      profile: { block_third_party_cookies: true, cookie_controls_mode: 1 },
    }));
  }
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    viewport: { width: 1000, height: 640 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--disable-features=Translate,OptimizationHints,MediaRouter",
      `--ignore-certificate-errors-spki-list=${args.spki}`,
      ...(args.resolve ? [`--host-resolver-rules=${args.resolve}`] : []),
      ...(args.blockThirdPartyCookies ? ["--test-third-party-cookie-phaseout"] : [])],
  });
}

const scenarios = {
  // The page's text, once it matches `waitFor`.
  async page(browser) {
    const page = await browser.newPage();
    const answer = await page.goto(args.url, { waitUntil: "domcontentloaded" });
    const text = await waitText(page, args.waitFor ?? "", 60000);
    if (args.screenshot) await page.screenshot({ path: args.screenshot });
    return { status: answer.status(), url: page.url(), title: await page.title(),
      text };
  },
  // Opens the page, clicks, waits for what the click brings.
  async act(browser) {
    const page = await browser.newPage();
    await page.goto(args.url);
    await page.waitForLoadState("networkidle").catch(() => {});
    await page.click(args.click, { timeout: 60000 });
    const text = await waitText(page, args.waitFor, 60000);
    return { url: page.url(), text };
  },
  // Opens the page, then tells (on stdout) that it is open, waits for `edited`, and tells what
  // happened to the page without a navigation of ours.
  async hotReload(browser) {
    const page = await browser.newPage();
    await page.goto(args.url);
    await waitText(page, args.before, 60000);
    await page.evaluate(() => { window.sameDocument = true; });
    // The dev server's client must be connected before the file is edited; it does not say when.
    await new Promise((r) => setTimeout(r, 2000));
    console.log("open");
    await waitText(page, args.after, 60000);
    return { sameDocument: await page.evaluate(() => window.sameDocument === true) };
  },
  // A page of another site embeds the preview in an iframe, by a URL with a token.
  async iframe(browser) {
    const page = await browser.newPage();
    const messages = [];
    page.on("console", (m) => messages.push(m.text()));
    await page.goto(args.outer);
    const frame = await (await page.waitForSelector("iframe")).contentFrame();
    const text = await waitText(frame, args.waitFor).catch((e) => {
      throw new Error(e + " " + messages.join(" | ") + " " + frame.url());
    });
    return { url: frame.url(), text };
  },
  // Open one preview (with its token), then let a page of another preview try its cookie.
  async hostile(browser) {
    const page = await browser.newPage();
    await page.goto(args.victim);
    const own = await page.evaluate(() => fetch("/").then((r) => r.status));
    const bad = await browser.newPage();
    await bad.goto(args.hostile);
    const results = await bad.evaluate(async (target) => {
      const out = {};
      out.fetch = await fetch(target, { credentials: "include", mode: "no-cors" })
        .then((r) => r.type + r.status, (e) => "error");
      out.cors = await fetch(target, { credentials: "include" })
        .then((r) => r.status, () => "error");
      out.socket = await new Promise((done) => {
        const s = new WebSocket(target.replace("https:", "wss:") + "socket");
        s.onopen = () => done("open");
        s.onerror = () => done("error");
      });
      return out;
    }, args.target);
    return { own, ...results };
  },
};

// The text of the page (or frame), once it matches; asked from outside, so that a page's content
// security policy stays in force.
async function waitText(where, pattern, timeout = 30000) {
  const end = Date.now() + timeout;
  let text = "";
  while (Date.now() < end) {
    text = await where.locator("body").innerText({ timeout: 2000 }).catch(() => "");
    if (new RegExp(pattern).test(text)) return text;
    await new Promise((r) => setTimeout(r, 50));
  }
  throw new Error(`no ${pattern} in: ${text.slice(0, 400)}`);
}

const browser = await open();
let code = 0;
try {
  console.log(JSON.stringify({ ok: true, ...(await scenarios[scenario](browser)) }));
} catch (e) {
  console.log(JSON.stringify({ ok: false, why: String(e) }));
  code = 1;
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
process.exit(code);
