// A push server as users of `ws` write it.
//
//     NODE_PATH=... node ws_server.mjs DEVICE_PORT PUSH_PORT
//
// A device connects to /sub/{device}; `PUT /push/{device}` writes its body to that device's socket.

import { createServer } from "node:http";
import { createRequire } from "node:module";

const { WebSocketServer } = createRequire(import.meta.url)("ws"); // import does not look into NODE_PATH
const [devicePort, pushPort] = process.argv.slice(2).map(Number);
const devices = new Map();

const sockets = new WebSocketServer({
  host: "127.0.0.1",
  port: devicePort,
  backlog: 4096,
  perMessageDeflate: false, // the default, and what the manual advises
  clientTracking: false, // `devices` holds them already
  maxPayload: 4096, // devices hardly send anything
});
sockets.on("connection", (socket, request) => {
  const name = request.url.slice(request.url.lastIndexOf("/") + 1);
  devices.set(name, socket);
  socket.on("error", () => {}); // "close" follows
  socket.on("close", () => {
    if (devices.get(name) === socket) devices.delete(name);
  });
});

const pushes = createServer((request, response) => {
  let body = "";
  request.setEncoding("latin1");
  request.on("data", (chunk) => {
    body += chunk;
  });
  request.on("end", () => {
    const socket = devices.get(request.url.slice(6)); // /push/
    if (request.method !== "PUT" || socket === undefined) {
      response.writeHead(404, { "Content-Length": 0 }).end();
      return;
    }
    socket.send(body);
    response.writeHead(200, { "Content-Length": 0 }).end();
  });
});
pushes.keepAliveTimeout = 3_600_000; // app servers keep their connections
pushes.requestTimeout = 0; // and no timer is needed to look after them
pushes.headersTimeout = 0;
pushes.listen(pushPort, "127.0.0.1", 4096);
