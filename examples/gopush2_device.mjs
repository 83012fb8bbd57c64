// A gopush2 device: prints what is sent to its key, and after a break goes on where it was. Needs: npm install ws
// (Node 22 and later have a WebSocket themselves, as browsers do.) Usage: node gopush2_device.mjs ws://localhost:8080 KEY TOKEN
// The key and the token are made by your app server: curl 'http://localhost:8081/ch?key=KEY&token=TOKEN'
import WebSocket from "ws";

const [farm, key, token] = process.argv.slice(2);
const mid = Number(process.argv[5] ?? 0); // the ID of the last message that it has; a real device keeps it
const socket = new WebSocket(`${farm}/sub?${new URLSearchParams({ key, mid, token, heartbeat: 30 })}`);

socket.on("open", () => setInterval(() => socket.send("h"), 30_000)); // a device that is silent for twice that is let go
socket.on("message", (data) => {
  if (String(data) === "h") return; // the farm's own heartbeat
  const { mid, msg } = JSON.parse(data);
  console.log(mid, msg);
});
socket.on("close", (code, reason) => {
  console.error("closed", code, String(reason)); // each connection needs a token of its own: ask your app server for one
  process.exit(1);
});
