// Trigger an event with Pusher's own library, pointed here. Needs: npm install pusher
// Usage: node pusher_send.mjs http://localhost:8081 CHANNEL EVENT JSON
// Id, key and secret are those of pusher_apps.json, with which the farm was started (pusher.apps).
import Pusher from "pusher";

const [farm, channel, event, data] = process.argv.slice(2);
const { hostname, port, protocol } = new URL(farm);
const pusher = new Pusher({
  appId: "1",
  key: "shop-key",
  secret: "shop-secret",
  host: hostname,
  port,
  useTLS: protocol === "https:",
});

const answer = await pusher.trigger(channel, event, JSON.parse(data)); // throws if the farm refuses
console.log(answer.status, await answer.text()); // 200 {}
