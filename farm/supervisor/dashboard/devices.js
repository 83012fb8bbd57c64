// Devices: found by uaid, endpoint or client address.

const devices = { asked: "", shown: null };

function makeDevices() {
  devices.input = h("input", { type: "search", required: true, autocomplete: "off", spellcheck: "false",
    placeholder: "uaid, endpoint URL or client address" });
  devices.list = h("div", {});
  devices.one = h("div", { class: "stack" });
  const form = h("form", { class: "filters", role: "search", onsubmit: search },
    field("Find a device (key: /)", "q", { element: devices.input, size: "wide" }),
    h("div", { class: "buttons" }, h("button", { class: "primary" }, "Find")));
  function search(event) {
    event.preventDefault();
    const wanted = `#/devices?q=${encodeURIComponent(devices.input.value.trim())}`;
    if (location.hash === wanted) findDevices(devices.input.value.trim());
    else location.hash = wanted;
  }
  put($("devices"), card("Devices", form, devices.list), devices.one);
}

/** What was typed, as an argument of the route. */
function argumentOf(text) {
  if (/^https?:\/\//i.test(text) || text.startsWith("/")) return { endpoint: text };
  if (/^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(text)) return { uaid: text };
  return { address: text };
}

async function findDevices(text) {
  devices.asked = text;
  devices.input.value = text;
  fill(devices.list, h("p", { class: "note" }, "…"));
  let found;
  try {
    found = await api("GET", ["devices"], { query: { ...argumentOf(text), limit: 100 } });
  } catch (error) {
    fill(devices.list, problem(error));
    return;
  }
  if (devices.asked !== text) return;
  announce(`${plural(found.devices.length, "device")} found`);
  drawDevices(found);
  if (found.devices.length === 1 && !("address" in argumentOf(text))) location.replace(deviceHash(found.devices[0]));
}

function deviceHash({ device, dialect, channel }) {
  const more = channel ? `/${encodeURIComponent(channel)}` : "";
  return `#/devices/${encodeURIComponent(device)}/${encodeURIComponent(dialect)}${more}`;
}

function drawDevices(found) {
  const rows = found.devices.map((row) => [
    h("a", { href: deviceHash(row) }, h("code", {}, row.uaid || row.device)), row.dialect, row.address || "–",
    row.shard === null ? "not connected" : `worker ${row.shard}`, row.host || "", duration(row.since)]);
  fill(devices.list,
    table("Devices", [["Device", "grow"], ["Dialect"], ["Address"], ["Connection"], ["Host"], ["For", "number"]], rows, "No such device."),
    found.more && h("p", { class: "note" }, "There may be more: these are the first."));
}
