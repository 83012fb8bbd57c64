// The first view: the numbers of this moment, and the charts of the last hour.

const overview = {
  history: { last: -1, end: 0, interval: 10, series: {}, processes: {} },
  minutes: 60,
  statuses: [],
  tiles: {},
  charts: [],
};

const RATE_STATUSES = 4; // what happens in a second is taken from the last few answers

const TILES = [
  ["devices", "Devices"],
  ["connects", "New connections"],
  ["pushes", "Pushes"],
  ["delivery", "Push to device"],
  ["store", "Store lag"],
  ["memory", "Memory"],
];

const CHARTS = [
  ["Devices", count, [["devices", "connected"]], { least: 2 }],
  ["Connections a second", rate, [["connects", "opened"], ["disconnects", "closed"], ["setups_refused", "refused"]]],
  ["Pushes a second", rate, [["pushes", "pushed"], ["delivered", "delivered"], ["stored", "stored"], ["refused", "refused"]]],
  ["Push to device", millis, [["delivery_p50", "p50"], ["delivery_p99", "p99"]], { least: 0.001, note: "from PUT to the frame" }],
  ["Store lag", millis, [["commit_p50", "p50"], ["commit_p99", "p99"]], { least: 0.001, note: "of a group commit" }],
  ["Waiting for the store", count, [["store_waiting", "writes and reads"]], { least: 2 }],
  ["Channel events a second", rate, [["events", "published"], ["copies", "sent to subscribers"]]],
];

function makeOverview() {
  const tiles = TILES.map(([name, title]) => {
    const value = h("b", {}, "–");
    const more = h("small", {}, "\u00a0");
    overview.tiles[name] = { value, more };
    return h("div", { class: "tile" }, h("h2", {}, title), value, more);
  });
  overview.charts = CHARTS.map(([title, text, lines, options]) => ({ chart: new Chart(title, text, options), lines }));
  overview.memory = new Chart("Memory", bytes, { note: "by process" });
  overview.cpu = new Chart("CPU", cores, { least: 0.1, note: "by process; 100 % is one core" });
  const span = h("div", { class: "choice", role: "group", "aria-label": "Span of the charts" },
    [[10, "10 min"], [60, "1 hour"]].map(([minutes, label]) =>
      h("button", { type: "button", "aria-pressed": String(minutes === overview.minutes), onclick: (event) => choose(event, minutes) }, label)));
  function choose(event, minutes) {
    overview.minutes = minutes;
    for (const button of span.children) button.setAttribute("aria-pressed", String(button === event.target));
    drawHistory();
  }
  overview.latest = h("div", {});
  put($("overview"),
    h("div", { class: "tiles" }, tiles),
    h("div", { class: "bar" }, h("h2", {}, "The last hour"), span),
    h("div", { class: "charts" }, overview.charts.map(({ chart }) => chart.element), overview.memory.element, overview.cpu.element),
    card("Last events of the log", overview.latest, h("p", {}, h("a", { href: "#/log" }, "All events"))));
}

/** Take up new samples behind those that are here. */
function takeHistory(found) {
  const kept = overview.history;
  const fresh = found.last < kept.last || kept.last < 0;
  const added = fresh ? Infinity : found.last - kept.last;
  kept.series = joined(fresh ? {} : kept.series, found.series, added, found);
  const processes = {};
  for (const [name, series] of Object.entries(found.processes)) {
    processes[name] = joined(fresh ? {} : kept.processes[name] || {}, series, added, found);
  }
  if (added) kept.processes = processes;
  Object.assign(kept, { last: found.last, end: found.end * 1000, interval: found.interval });
  drawHistory();
}

function joined(before, after, added, found) {
  const most = 3600 / found.interval;
  const made = {};
  for (const [name, values] of Object.entries(after)) {
    made[name] = added === Infinity ? values : [...(before[name] || []), ...values].slice(-most);
  }
  return made;
}

function drawHistory() {
  const { series, processes, end, interval, last } = overview.history;
  if (last < 0) return;
  const samples = (overview.minutes * 60) / interval;
  const cut = (values) => (values || []).slice(-samples);
  for (const { chart, lines } of overview.charts) {
    const found = lines.map(([name, label]) => ({ label, values: cut(series[name]) }));
    chart.show(found, end, interval);
  }
  for (const [chart, name] of [[overview.memory, "memory"], [overview.cpu, "cpu"]]) {
    const found = Object.entries(processes)
      .filter(([, of]) => of[name])
      .map(([label, of]) => ({ label, values: cut(of[name]) }));
    chart.show(found, end, interval);
  }
  drawTiles();
}

/** How much a counter of these rows grows in a second, over the last answers. */
function grows(rows, name) {
  const [first] = overview.statuses;
  const newest = overview.statuses[overview.statuses.length - 1];
  if (!first || first === newest) return null;
  const before = new Map(first.status[rows].map((row) => [row.pid, row[name]]));
  let grown = 0;
  for (const row of newest.status[rows]) {
    const was = before.get(row.pid);
    if (was !== undefined && row[name] !== undefined) grown += Math.max(0, row[name] - was);
  }
  return (grown * 1000) / (newest.at - first.at);
}

function takeStatusForOverview(status) {
  overview.statuses.push({ status, at: performance.now() });
  if (overview.statuses.length > RATE_STATUSES) overview.statuses.shift();
  drawTiles();
}

function drawTiles() {
  const { status } = farm;
  if (!status) return;
  const { series } = overview.history;
  const latest = (name) => (series[name] ? series[name][series[name].length - 1] : null);
  const sum = (rows, name) => status[rows].reduce((total, row) => total + (row[name] || 0), 0);
  const pushes = grows("routers", "pushes");
  const delivered = grows("routers", "pushes_delivered");
  const stored = grows("routers", "pushes_stored");
  tile("devices", count(status.connections), `room for ${count(sum("workers", "max_connections"))}`);
  tile("connects", rate(grows("workers", "connects")), `a second; ${rate(grows("workers", "disconnects"))} closed`);
  tile("pushes", rate(pushes), `a second; ${rate(delivered)} delivered, ${rate(stored)} stored`);
  tile("delivery", millis(latest("delivery_p99")), latest("delivery_p99") === null ? "none in the last 10 s" : `p99; p50 ${millis(latest("delivery_p50"))}`);
  tile("store", millis(latest("commit_p99")), `p99 of commits; ${count(sum("routers", "store_waiting"))} waiting`);
  tile("memory", bytes(sum("routers", "memory") + sum("workers", "memory") + status.memory), `CPU ${cores(latest("cpu"))} of a core`);
}

function tile(name, value, more) {
  write(overview.tiles[name].value, value);
  write(overview.tiles[name].more, more);
}
