// SPDX-License-Identifier: MIT
// A WebSocket server by npm's ws: echoes every message as it came. argv: address port
import { createRequire } from "node:module";
const { WebSocketServer } = createRequire(process.env.NPM_FOLDER + "/")("ws");
const server = new WebSocketServer({
  host: process.argv[2] ?? "127.0.0.1",
  port: Number(process.argv[3] ?? 0),
  maxPayload: 64 << 20,
  perMessageDeflate: false,
});
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.on("listening", () => console.log("listening", server.address().port));
