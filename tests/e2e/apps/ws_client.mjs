// SPDX-License-Identifier: MIT
// A WebSocket client by npm's ws: sends random messages of the given sizes, in turn and then all
// at once, and checks each echo. argv: url size...   Prints one JSON object.
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const { WebSocket } = createRequire(process.env.NPM_FOLDER + "/")("ws");
const [url, ...sizes] = process.argv.slice(2);
const headers = process.env.WS_HEADERS ? JSON.parse(process.env.WS_HEADERS) : {};
const socket = new WebSocket(url, {
  ca: readFileSync(process.env.CA_FILE),
  lookup: (name, options, done) =>
    options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4),
  headers,
  maxPayload: 64 << 20,
  perMessageDeflate: false,
});
const digest = (b) => createHash("sha256").update(b).digest("hex");
const fail = (why) => {
  console.log(JSON.stringify({ ok: false, why }));
  process.exit(1);
};
socket.on("error", (e) => fail(String(e)));
socket.on("unexpected-response", (_, answer) =>
  fail(`status ${answer.statusCode} ${answer.headers["tunnel-error"]}`));
socket.on("close", (code) => fail(`closed ${code}`));
socket.on("open", async () => {
  let count = 0;
  const expected = [];
  let next;
  socket.on("message", (data) => {
    if (digest(data) !== expected.shift()) fail(`echo ${count} differs`);
    count++;
    if (expected.length === 0) next();
  });
  const round = (buffers) =>
    new Promise((resolve) => {
      next = resolve;
      for (const b of buffers) expected.push(digest(b));
      for (const b of buffers) socket.send(b, { binary: true });
    });
  const buffers = sizes.map((n) => randomBytes(Number(n)));
  for (const b of buffers) await round([b]);
  await round(buffers);
  socket.removeAllListeners("close");
  socket.on("close", (code) => {
    console.log(JSON.stringify({ ok: code === 1000, count, code }));
    process.exit(0);
  });
  socket.close(1000);
});
