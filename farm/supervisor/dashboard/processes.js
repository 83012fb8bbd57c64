// The processes of this host and what replaces them, the reload, and the hosts of a cluster.

const processes = {};

function makeProcesses() {
  processes.table = h("div", {});
  processes.versions = h("p", { class: "note", role: "status" });
  processes.replacement = h("p", { class: "note", role: "status" });
  processes.reload = h("div", { class: "stack" });
  processes.button = h("div", { class: "buttons" });
  processes.cluster = h("div", {});
  put($("processes"),
    card("Routers and workers", processes.table, processes.versions, processes.replacement),
    card("Reload", processes.reload, processes.button),
    processes.cluster);
}

/** What only those see who may act. */
function drawProcessButtons() {
  fill(processes.button, actButton("Reload", {
    ask: ["Reload the farm?", "New code and new settings: workers and routers are replaced one after another, at the pace of a drain.", "Reload"],
    act: async () => {
      await api("POST", ["reload"]);
      return "The reload has begun.";
    },
  }));
}

/** A long table, so only while it is seen. */
function drawProcesses() {
  const { status } = farm;
  if (!status || state.view !== "processes") return;
  keepingFocus(processes.table, () => fill(processes.table, processTable(status)));
  fill(processes.reload, reloadFacts(status));
  write(processes.versions, status.version_note ? `Versions: ${status.version_note}.` : "");
  const last = status.last_replacement;
  write(processes.replacement, last ? replacementText(last) : "");
  fill(processes.cluster, status.cluster && clusterCard(status.cluster));
}

/** Draw what is drawn again and again, and leave the focus on the same control. */
function keepingFocus(container, draw) {
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  const key = focused && focused.getAttribute("aria-label");
  const scrolled = [...container.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  draw();
  container.querySelectorAll(".scroll").forEach((one, at) => {
    one.scrollLeft = scrolled[at] || 0;
  });
  if (key) [...container.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === key)?.focus();
}

function processTable(status) {
  const cpu = (name) => (overview.history.processes[name]?.cpu || [null]).slice(-1)[0];
  const row = (name, of, numbers, buttons) => [
    name, stateOf(of.state), of.version || "–", numbers, bytes(of.memory), cores(cpu(name)), duration(of.age ?? of.running), count(of.restarts),
    of.pid === null ? "–" : String(of.pid), buttons];
  const rows = [
    ...status.routers.map((of) => row(`router ${of.number}`, of, of.addresses === undefined ? "–" : plural(of.addresses, "address", "addresses"), "")),
    ...status.workers.map((of) => row(`worker ${of.shard}`, of, of.connections === undefined ? "–" : plural(of.connections, "connection"), workerButtons(of))),
  ];
  const columns = [["Process"], ["State"], ["Version"], ["Holds", "number"], ["Memory", "number"], ["CPU", "number"], ["Runs for", "number"], ["Restarts", "number"], ["pid", "number"], [""]];
  return table("Routers and workers", mayAct() ? columns : columns.slice(0, -1), mayAct() ? rows : rows.map((cells) => cells.slice(0, -1)));
}

function stateOf(state) {
  return h("span", { class: `state ${state === "up" || state === "ready" ? "ok" : state === "down" || state === "nowhere" ? "bad" : "warn"}` }, state);
}

function workerButtons(row) {
  const name = `worker ${row.shard}`;
  const button = (label, action, text) => actButton(label, {
    name: `${label} ${name}`,
    ask: [`${label} ${name}?`, text, label],
    act: async () => {
      await api("POST", ["workers", String(row.shard), action]);
      return `${name}: another process is started.`;
    },
  });
  return h("div", { class: "buttons tight" },
    button("Drain", "drain", "Another process takes its place; this one lets its devices go at the pace of a drain. They connect again."),
    button("Restart", "restart", "Another process takes its place at once; this one lets its devices go within a second. They connect again."));
}

function replacementText(last) {
  const what = `Last replacement: ${last.action} of worker ${last.worker}, ${last.outcome}`;
  if (last.outcome !== "running") return what + (last.why ? `: ${last.why}` : "") + (last.seconds ? `, after ${duration(last.seconds)}` : "");
  return `${what}: ${last.step}` + (last.left ? `, ${plural(last.left, "connection")} left` : "");
}

function reloadFacts(status) {
  const last = status.last_reload;
  if (!last) return h("p", { class: "note" }, "There was no reload since the farm was started.");
  return [facts([
    ["Last", h("time", { datetime: last.when }, new Date(last.when).toLocaleString("en-GB"))],
    ["Outcome", stateWord(last.outcome)],
    ["Step", last.step],
    ["Took", last.seconds === undefined ? "" : duration(last.seconds)],
    ["Needs a restart", (last.needs_restart || []).join(", ")],
  ]), last.why && h("p", { class: "problem" }, last.why)];
}

function stateWord(outcome) {
  return h("span", { class: `state ${outcome === "done" ? "ok" : outcome === "running" ? "warn" : "bad"}` }, outcome);
}

function clusterCard(cluster) {
  const hosts = cluster.hosts.map((host) => [
    host.name + (host.here ? " (this one)" : ""),
    host.isolated ? h("span", { class: "state bad" }, "cut off") : host.leaving ? h("span", { class: "state warn" }, "leaving")
      : host.fit ? h("span", { class: "state ok" }, "up") : h("span", { class: "state warn" }, "takes no routers"),
    count(host.devices), count(host.workers), host.routers.join(", ") || "none", duration(host.beat_age), host.version, host.address]);
  const lost = cluster.placements.filter((one) => one.state !== "ready");
  return card("Hosts of the cluster",
    table("Hosts of the cluster", [["Host"], ["State"], ["Devices", "number"], ["Workers", "number"], ["Routers"], ["Last beat", "number"], ["Version"], ["Address"]], hosts),
    lost.length > 0 && h("p", { class: "note" }, lost.map((one) => `Router ${one.number}: ${one.state}${one.host ? ` on ${one.host}` : ""}. `).join("")));
}
