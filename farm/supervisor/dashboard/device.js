// One device: its connection, its channels, what waits for it, and what can be done to it.

/** Show one; of another one than before, everything is drawn anew. */
function showDevice(uaid) {
  devices.shown = uaid;
  if (!uaid) {
    fill(devices.one);
    return undefined;
  }
  devices.state = h("div", { class: "stack" });
  devices.queue = h("div", {});
  devices.channel = h("select", {}, h("option", { value: "" }, "the first"));
  const title = h("h2", { tabindex: "-1" }, "Device ", h("code", {}, uaid));
  fill(devices.one,
    h("div", { class: "split" },
      h("section", { class: "card" }, title, devices.state, deviceButtons(uaid)),
      card("Waiting messages", devices.queue)),
    mayAct() && h("section", { class: "card" }, pushForm(uaid)));
  title.focus();
  return refreshDevice();
}

function pushForm(uaid) {
  return actForm("Send a test push", [
    field("Channel", "channel", { element: devices.channel }),
    field("TTL in seconds", "ttl", { type: "number", min: "0", value: "60" }),
    field("Data", "data", { size: "whole", element: h("textarea", { rows: "2", spellcheck: "false" }, "This is a test.") }),
  ], "Push", async ({ channel, data, ttl }) => {
    const body = { data, ttl: Number(ttl) };
    if (channel) body.channel = channel;
    const answer = await api("POST", ["devices", uaid, "push"], { body });
    refreshDevice();
    return pushOutcome(answer);
  });
}

function pushOutcome(answer) {
  return `An app server would get ${answer.status}${answer.outcome ? `: ${answer.outcome}` : ""}.`;
}

function deviceButtons(uaid) {
  const done = (text) => {
    refreshDevice();
    return text;
  };
  return h("div", { class: "buttons" },
    actButton("Empty inbox", {
      danger: true,
      ask: ["Empty the inbox?", "What waits for the device is deleted and never delivered.", "Empty"],
      act: async () => {
        await api("DELETE", ["devices", uaid, "inbox"]);
        return done("The inbox is empty.");
      },
    }),
    actButton("Disconnect", {
      ask: ["Disconnect the device?", "Its connection is closed. It will most likely connect again soon.", "Disconnect"],
      act: async () => {
        await api("POST", ["devices", uaid, "disconnect"]);
        return done("The device is disconnected.");
      },
    }),
    actButton("Forget", {
      danger: true,
      ask: ["Forget the device?", "Its registrations, its inbox and its connection go. App servers are told that it is gone, and it has to register anew.", "Forget"],
      act: async () => {
        await api("DELETE", ["devices", uaid]);
        return done("The device is forgotten.");
      },
    }));
}

async function refreshDevice() {
  const uaid = devices.shown;
  if (!uaid) return;
  let found;
  try {
    found = await api("GET", ["devices", uaid]);
  } catch (error) {
    if (devices.shown === uaid) {
      fill(devices.state, problem(error));
      fill(devices.queue);
    }
    return;
  }
  if (devices.shown !== uaid) return;
  keepingFocus(devices.state, () => fill(devices.state, deviceFacts(found), deviceChannels(found)));
  keepingFocus(devices.queue, () => fill(devices.queue, inboxTable(found)));
  const names = found.channels.map((one) => one.channel);
  if (devices.names !== names.join()) {
    devices.names = names.join();
    const kept = devices.channel.value;
    fill(devices.channel, names.map((name) => h("option", { value: name }, name)));
    if (names.includes(kept)) devices.channel.value = kept;
  }
}

function deviceFacts(found) {
  const on = found.connection;
  return facts([
    ["Dialect", found.dialect],
    ["Connection", on ? h("span", { class: "state ok" }, "connected") : h("span", { class: "state warn" }, "not connected")],
    ["Worker", on && String(on.shard)],
    ["Host", on && on.host],
    ["Address", on && on.address],
    ["Connected for", on && on.age !== null ? duration(on.age) : ""],
    ["Last heard", on && on.heard !== null ? `${duration(on.heard)} ago` : ""],
    ["Waits to be written", on && on.buffered ? bytes(on.buffered) : ""],
  ]);
}

function deviceChannels(found) {
  return table("Channels of the device", [["Channel", "grow"]], found.channels.map((one) => [h("code", {}, one.channel)]), "It has registered no channel.");
}

function inboxTable(found) {
  const rows = found.inbox.map((item) => [h("code", {}, item.id), h("code", {}, item.channel || "–"), bytes(item.size), duration(item.age), item.ttl === null ? "–" : duration(item.ttl),
    ...(farm.session?.show_contents ? [h("code", { class: "contents" }, item.data ?? "")] : [])]);
  const columns = [["Message", "grow"], ["Channel"], ["Size", "number"], ["Age", "number"], ["TTL", "number"], ...(farm.session?.show_contents ? [["Contents"]] : [])];
  return table("Waiting messages", columns, rows, "Nothing waits for this device.");
}
