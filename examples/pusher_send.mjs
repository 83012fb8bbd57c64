// Trigger an event with Pusher's own library, pointed here. Needs: npm install pusher
// Usage: node pusher_send.mjs http://localhost:8081 CHANNEL EVENT JSON
// Id, key and secret are those of pusher_apps.json, with which the farm was started (pusher.apps).
const [farm, channel, event, json] = process.argv.slice(2);
let data;
try {
  data = JSON.parse(json);
  new URL(farm);
} catch {
  console.error("usage: node pusher_send.mjs http://localhost:8081 CHANNEL EVENT JSON");
  process.exit(2);
}

const { default: Pusher } = await import("pusher");
const { hostname, port, protocol } = new URL(farm);
const pusher = new Pusher({
  appId: "1",
  key: "shop-key",
  secret: "shop-secret",
  host: hostname,
  port,
  useTLS: protocol === "https:",
});

try {
  const answer = await pusher.trigger(channel, event, data);
  console.log(answer.status, await answer.text()); // 200 {}
} catch (error) {
  // 429, 503 and no answer: again later, after Retry-After. Anything else is wrong with the request.
  console.error(error.message, error.status ?? "", error.body ?? error.error?.message ?? "");
  process.exit(1);
}
