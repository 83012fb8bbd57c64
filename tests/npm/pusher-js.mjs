// A subscriber with the npm package pusher-js. argv: {key, secret, port, user, channels, tls}; stdin: "again" has it connect
// anew, "leave" has it stay away; stdout: a line of JSON for whatever comes, as it is on the wire.
import { createHmac } from "node:crypto";
import { createInterface } from "node:readline";
import Pusher from "pusher-js";

const { key, secret, port, user, channels, tls } = JSON.parse(process.argv[2]);
const say = (event, channel, data) => console.log(JSON.stringify({ event, channel, data }));

function authorize({ socketId, channelName }, answer) {
  const channel_data = JSON.stringify({ user_id: user, user_info: { name: user } });
  const presence = channelName.startsWith("presence-");
  const text = `${socketId}:${channelName}` + (presence ? `:${channel_data}` : "");
  const auth = `${key}:${createHmac("sha256", secret).update(text).digest("hex")}`;
  answer(null, presence ? { auth, channel_data } : { auth });
}

const pusher = new Pusher(key, {
  cluster: "",
  wsHost: tls ? "localhost" : "127.0.0.1",
  wsPort: port,
  wssPort: port,
  forceTLS: Boolean(tls),
  enabledTransports: tls ? ["ws", "wss"] : ["ws"],
  disableStats: true,
  channelAuthorization: { customHandler: authorize },
});

const internal = {
  "pusher:subscription_succeeded": (channel, data) => {
    const ids = channel.startsWith("presence-") ? Object.keys(data.members) : [];
    say("pusher_internal:subscription_succeeded", channel, JSON.stringify({ presence: { ids } }));
  },
  "pusher:member_added": (channel, data) => say("pusher_internal:member_added", channel, JSON.stringify({ user_id: data.id })),
  "pusher:member_removed": (channel, data) => say("pusher_internal:member_removed", channel, JSON.stringify({ user_id: data.id })),
  "pusher:subscription_count": () => {},
};

let connected = false;
pusher.connection.bind("state_change", ({ current }) => {
  if (current === "connected") say("connected");
  else if (connected) say("disconnected");
  if (current === "connecting") say("connecting");
  connected = current === "connected";
});
for (const name of channels) {
  pusher.subscribe(name).bind_global((event, data) => {
    if (event in internal) internal[event](name, data);
    else say(event, name, typeof data === "string" || data === undefined ? data : JSON.stringify(data));
  });
}

createInterface({ input: process.stdin }).on("line", (order) => {
  pusher.disconnect();
  if (order === "again") setTimeout(() => pusher.connect(), 50);
}).on("close", () => process.exit(0));
