// A gopush2 device: prints what is sent to its key, and after a break goes on where it was. Needs: npm install ws
// (Node 22 and later have a WebSocket themselves, as browsers do.)
// Usage: node gopush2_device.mjs ws://localhost:8080 KEY http://localhost:8081
import { randomUUID } from "node:crypto";

const [farm, key, router] = process.argv.slice(2);
if (!URL.canParse(farm) || !URL.canParse(router)) {
  console.error("usage: node gopush2_device.mjs ws://localhost:8080 KEY http://localhost:8081");
  process.exit(2);
}
const WebSocket = globalThis.WebSocket ?? (await import("ws")).default;
let mid = 0; // the ID of the last message that it has; a real device keeps it on disk
let wait = 10; // seconds at most until it comes back

// Each connection needs a token of its own. This is what your app server does for it, with the key of gopush2.admin_key where
// one is set: a real device asks its app server, and never the router port.
async function newToken() {
  const token = randomUUID();
  const answer = await fetch(`${router}/ch?${new URLSearchParams({ key, token })}`);
  const text = await answer.text();
  if (!answer.ok || JSON.parse(text).ret !== 0) throw new Error(`${answer.status} ${text}`);
  return token;
}

function connection(token) {
  const socket = new WebSocket(`${farm}/sub?${new URLSearchParams({ key, mid, token, heartbeat: 30 })}`);
  let heard = Date.now();
  // Who is silent for twice the time is given up: the device by the farm, and the farm by the device.
  const beat = setInterval(() => {
    if (socket.readyState !== 1 || Date.now() - heard > 60_000) socket.close();
    else socket.send("h");
  }, 30_000);
  socket.onmessage = ({ data }) => {
    heard = Date.now();
    wait = 10;
    if (data === "h") return; // the farm's own heartbeat
    const message = JSON.parse(data);
    mid = message.mid;
    console.log(mid, message.msg);
  };
  socket.onerror = ({ message }) => console.error(message ?? "no connection");
  return new Promise((done) => {
    socket.onclose = ({ code, reason }) => {
      clearInterval(beat);
      console.error("closed", code, reason);
      done();
    };
  });
}

for (;;) {
  try {
    await connection(await newToken());
  } catch (error) {
    console.error(error.cause?.message ?? error.message);
  }
  // After a restart of the farm not all devices in the same second, and less and less often while it is away.
  await new Promise((done) => setTimeout(done, 1000 * wait * Math.random()));
  wait = Math.min(2 * wait, 300);
}
