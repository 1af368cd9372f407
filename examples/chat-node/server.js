// A chat on socket.io. Its sessions are in the memory of one instance: `sticky: { to: instance }` in shipway.yaml brings every
// request of a client there, long polling included.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { Server } = require("socket.io");

const version = fs.readFileSync(path.join(__dirname, "VERSION"), "utf8").trim();
const instance = process.env.SHIPWAY_INSTANCE ?? "local";

const server = http.createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ service: "chat", version, instance, clients: io.engine.clientsCount }));
});

const io = new Server(server);

io.on("connection", (socket) => {
  let messages = 0;
  socket.on("message", (text, acknowledge) => {
    messages += 1;
    socket.broadcast.emit("message", text);
    acknowledge({ version, instance, messages });
  });
});

server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? "127.0.0.1", () => {
  console.log(`chat ${version} listens on port ${server.address().port}`);
});

// Clients are told to connect again, open requests are answered, then the process ends by itself.
process.on("SIGTERM", () => {
  console.log("SIGTERM: closing");
  io.close();
});
