// One device: its connection, its channels, what waits for it, and what can be done to it.

/** Show one. which: {device, dialect, channel}; the channel is that of the endpoint that it was found by, or "". */
function showDevice(which) {
  devices.shown = which;
  if (!which) {
    fill(devices.one);
    return undefined;
  }
  devices.wanted = 50;
  devices.state = h("div", { class: "stack" });
  devices.queue = h("div", { class: "stack" });
  devices.names = h("datalist", { id: "channels-of-device" });
  devices.channel = h("input", { list: "channels-of-device", autocomplete: "off", spellcheck: "false", value: which.channel });
  const title = h("h2", { tabindex: "-1" }, "Device ", h("code", {}, which.device));
  fill(devices.one,
    h("div", { class: "split" },
      h("section", { class: "card" }, title, devices.state, deviceButtons(which), pushForm(which)),
      card("Waiting messages", devices.queue)));
  title.focus();
  return refreshDevice();
}

const deviceQuery = ({ dialect }) => ({ query: { dialect } });

function pushForm(which) {
  return actForm("Send a test push", [
    field("Channel ID", "channel", { size: "wide", element: devices.channel }),
    field("TTL in seconds", "ttl", { type: "number", min: "0", value: "60" }),
    field("Data", "data", { size: "whole", element: h("textarea", { rows: "2", spellcheck: "false" }, "This is a test.") }),
    devices.names,
  ], "Push", async ({ channel, data, ttl }) => {
    const body = { channel: channel.trim(), data, ttl: Number(ttl) };
    const answer = await api("POST", ["devices", which.device, "push"], { ...deviceQuery(which), body });
    refreshDevice();
    return `${answer.status} ${answer.outcome}`;
  });
}

function deviceButtons(which) {
  const act = (method, more, text) => async () => {
    const answer = await api(method, ["devices", which.device, ...more], deviceQuery(which));
    refreshDevice();
    return text(answer);
  };
  return h("div", { class: "buttons" },
    actButton("Disconnect", {
      ask: ["Disconnect the device?", "Its connection is closed. It will most likely connect again soon.", "Disconnect"],
      act: act("POST", ["disconnect"], (answer) => (answer.disconnected ? "The device is disconnected." : "It was not connected.")),
    }),
    actButton("Empty inbox", {
      danger: true,
      ask: ["Empty the inbox?", "What waits for the device is deleted and never delivered.", "Empty"],
      act: act("DELETE", ["inbox"], (answer) => `Deleted: ${plural(answer.removed, "message")}.`),
    }),
    actButton("Forget", {
      danger: true,
      ask: ["Forget the device?", "Its registration and what waits for it go, and its connection is closed. It has to register anew.", "Forget"],
      act: act("DELETE", [], (answer) => (answer.forgotten ? "The device is forgotten." : "Nothing was known of it.")),
    }));
}

const devicePage = ({ device, dialect }, wanted, after) =>
  api("GET", ["devices", device], { query: { dialect, limit: Math.min(1000, wanted), after } });

async function refreshDevice() {
  const which = devices.shown;
  if (!which) return;
  let found;
  try {
    found = await devicePage(which, devices.wanted);
    while (found.inbox.next && found.inbox.items.length < devices.wanted) {
      const { items } = found.inbox;
      found = await devicePage(which, devices.wanted - items.length, found.inbox.next);
      found.inbox.items.unshift(...items);
    }
  } catch (error) {
    if (devices.shown === which) {
      fill(devices.state, problem(error));
      fill(devices.queue);
    }
    return;
  }
  if (devices.shown !== which) return;
  keepingFocus(devices.state, () => fill(devices.state, deviceFacts(found), deviceChannels(found)));
  keepingFocus(devices.queue, () => fill(devices.queue, inboxTable(found.inbox)));
  const names = found.channels || [];
  fill(devices.names, names.map((name) => h("option", { value: name })));
  if (!devices.channel.value && names.length) [devices.channel.value] = names;
}

function deviceFacts(found) {
  const on = found.connection;
  const known = (value, text) => (value === null ? "not known" : text(value));
  return facts([
    ["uaid", found.uaid !== found.device && found.uaid && h("code", {}, found.uaid)],
    ["Dialect", found.dialect],
    ["Connection", on ? h("span", { class: "state ok" }, "connected") : h("span", { class: "state warn" }, "not connected")],
    ["Registered", found.registered ? "yes" : "no"],
    ...(on ? [
      ["Address", known(on.address, String)],
      ["Worker", on.host ? `${on.shard} on ${on.host}` : String(on.shard)],
      ["Connected for", known(on.since, duration)],
      ["Last heard", known(on.silent, (seconds) => `${duration(seconds)} ago`)],
      ["Waits to be written", known(on.buffered, bytes)],
    ] : []),
  ]);
}

function deviceChannels(found) {
  if (found.channels === null) return h("p", { class: "note" }, "Only the device knows its channels: its dialect does not keep them.");
  return table("Channels of the device", [["Channel", "grow"]], found.channels.map((name) => [h("code", {}, name)]), "It has registered no channel.");
}

function inboxTable(inbox) {
  const shown = farm.session.show_contents;
  const columns = [["Channel", "grow"], ["Version"], ["Size", "number"], ["Age", "number"], ["Expires in", "number"], ...(shown ? [["Content"]] : [])];
  const rows = inbox.items.map((item) => [
    h("code", {}, item.channel || item.id), h("code", {}, item.version), bytes(item.size), duration(item.age), duration(item.ttl),
    ...(shown ? [h("code", { class: "contents" }, item.content ?? "")] : [])]);
  return [
    inbox.messages > 0 && h("p", {}, `${plural(inbox.messages, "message")}, ${bytes(inbox.bytes)}`),
    table("Waiting messages", columns, rows, "Nothing waits for this device."),
    inbox.next && h("div", { class: "buttons" }, h("button", { type: "button", onclick: moreMessages }, "More")),
  ].filter(Boolean);
}

function moreMessages() {
  devices.wanted += Math.max(50, devices.wanted);
  return refreshDevice();
}
