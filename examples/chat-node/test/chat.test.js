"use strict";

const assert = require("node:assert");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const test = require("node:test");
const { io } = require("socket.io-client");

test("messages are acknowledged, and SIGTERM ends the server", async () => {
  const server = spawn(process.execPath, [path.join(__dirname, "../server.js")], { env: { ...process.env, PORT: "0" } });
  const [line] = await once(server.stdout, "data");
  const port = /port (\d+)/.exec(String(line))[1];
  const socket = io(`http://127.0.0.1:${port}`, { transports: ["polling"] });
  const answer = await socket.timeout(5000).emitWithAck("message", "hello");
  assert.strictEqual(answer.messages, 1);
  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  assert.strictEqual(code, 0);
  socket.close();
});
