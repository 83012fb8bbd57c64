// Broadcasts: what all devices of a dialect may follow.

const broadcasts = {};

function makeBroadcasts() {
  broadcasts.list = h("div", {});
  broadcasts.form = h("div", {});
  broadcasts.card = card("Broadcasts", broadcasts.list, broadcasts.form);
  return broadcasts.card;
}

function drawBroadcastForm() {
  fill(broadcasts.form, actForm("Set a broadcast", [
    field("Broadcast", "key", { required: true, size: "wide" }),
    field("Version", "version", { required: true }),
  ], "Set", async ({ key, version }) => {
    await setBroadcast("PUT", key, undefined, { version });
    return `${key} is set.`;
  }));
}

async function setBroadcast(method, key, dialect, body) {
  await api(method, ["broadcasts", key], { query: { dialect }, body });
  await loadBroadcasts();
}

async function loadBroadcasts() {
  let found;
  try {
    found = await api("GET", ["broadcasts"]);
  } catch (error) {
    broadcasts.card.hidden = error.status === 404; // no dialect with broadcasts is on
    fill(broadcasts.list, problem(error));
    return;
  }
  const rows = found.broadcasts.map(({ key, version, dialect }) => [h("code", {}, key), h("code", {}, version), dialect,
    actButton("Remove", {
      name: `Remove ${key}`,
      danger: true,
      ask: ["Remove the broadcast?", `${key} is removed from the farm. Devices that follow it keep what they have.`, "Remove"],
      act: async () => {
        await setBroadcast("DELETE", key, dialect);
        return `${key} is removed.`;
      },
    }) || ""]);
  fill(broadcasts.list, table("Broadcasts", [["Broadcast", "grow"], ["Version"], ["Dialect"], [""]], rows, "There is none."));
}
