// Which view is shown, what is asked and how often, and what is said while the farm does not answer.

const VIEWS = { overview: "Overview", devices: "Devices", channels: "Channels", processes: "Processes", log: "Log" };
const STATUS_MS = 2000;
const MANY = 40; // processes, whose status is long
const MANY_MS = 6000;
const EVERY = { history: 4, events: 2, view: 1 }; // in turns of the status
const MARKS = { ok: "●", starting: "◐", degraded: "▲", draining: "◑" };

const state = { view: "", turn: 0, lostAt: null, pid: null, timer: 0, asking: false };

function route() {
  if (!farm.session) return;
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  const view = Object.hasOwn(VIEWS, name) ? name : "overview";
  if (view !== state.view) {
    for (const each of Object.keys(VIEWS)) $(each).hidden = each !== view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${VIEWS[view]} – ${farm.session.host}`;
    if (state.view) $("main").focus({ preventScroll: true });
    state.view = view;
    scrollTo(0, 0);
  }
  if (view === "devices") {
    const asked = new URLSearchParams(search || "").get("q");
    showDevice(rest.length > 1 ? { device: rest[0], dialect: rest[1], channel: rest[2] || "" } : null);
    if (asked) findDevices(asked);
  } else if (view === "channels") {
    if (rest.length === 3) showChannel({ dialect: rest[0], application: rest[1], channel: rest[2] });
    else showChannel(null);
    loadChannels();
    loadBroadcasts();
  } else if (view === "processes") drawProcesses();
  else if (view === "log") drawLog();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** One turn: ask what is due. Everything goes on when the farm answers again, a new one too. */
async function turn() {
  if (state.asking || document.hidden) return; // it goes on when the page is seen again
  state.asking = true;
  clearTimeout(state.timer);
  try {
    await ask();
    reached();
  } catch (error) {
    lost(error);
  }
  state.asking = false;
  const many = farm.status && farm.status.workers.length + farm.status.routers.length > MANY;
  state.timer = setTimeout(turn, many ? MANY_MS : STATUS_MS);
}

async function ask() {
  if (!farm.session || state.lostAt !== null) {
    takeSession(await api("GET", ["session"]));
  }
  const due = (name) => state.turn % EVERY[name] === 0 || state.lostAt !== null;
  farm.status = await api("GET", ["status"]);
  if (state.pid !== farm.status.pid) {
    state.pid = farm.status.pid;
    overview.history.last = -1;
    overview.statuses = [];
    log.last = 0;
    log.events = [];
  }
  drawStatus();
  if (due("history")) takeHistory(await api("GET", ["history"], { query: { after: overview.history.last } }));
  takeStatusForOverview(farm.status);
  drawProcesses();
  if (due("events")) takeEvents(await api("GET", ["events"], { query: { after: log.last, limit: 800 } }));
  if (due("view") && state.view === "devices") await refreshDevice();
  if (due("view") && state.view === "channels") await refreshChannel();
  state.turn += 1;
}

/** Who asks. Only then it is known what may be shown: the first view is drawn now. */
function takeSession(session) {
  if (JSON.stringify(session) === JSON.stringify(farm.session)) return;
  farm.session = session;
  $("host").textContent = farm.session.host;
  $("version").textContent = farm.session.version;
  $("role").textContent = mayAct() ? "" : "read only";
  drawProcessButtons();
  drawChannelForms();
  drawBroadcastForm();
  route();
}

function drawStatus() {
  const { status, down, uptime, drain } = farm.status;
  const pill = $("status");
  pill.className = `pill ${status}`;
  write(pill, `${MARKS[status] || "●"} ${status}`);
  let text = down.length ? down.join(", ") : "";
  if (drain) text = `${drain.phase}: ${count(drain.left)} connections left`;
  write($("why"), text);
  write($("uptime"), `up ${duration(uptime)}`);
}

function reached() {
  if (state.lostAt === null) return;
  state.lostAt = null;
  document.body.classList.remove("lost");
  $("banner").hidden = true;
  announce("The farm answers again.");
}

function lost(error) {
  if (error instanceof ApiError === false) console.error(error); // a defect of this page
  if (state.lostAt === null) state.lostAt = Date.now();
  document.body.classList.add("lost");
  $("status").className = "pill";
  write($("status"), "○ no answer");
  const since = clock(state.lostAt);
  const text = error.status === 401 ? "The token is not accepted any more. Load the page again to sign in."
    : error instanceof ApiError === false ? "This page has a defect; the browser's console has a trace."
    : error.status ? `Since ${since} the farm answers with an error: ${error.message}`
    : `The farm has not answered since ${since}. What is shown is from before; it is asked again and again.`;
  write($("banner"), text);
  $("banner").hidden = false;
}

function keys(event) {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.key !== "/") return;
  event.preventDefault();
  if (state.view !== "devices") {
    location.hash = "#/devices";
    route();
  }
  devices.input.select();
}

makeOverview();
makeDevices();
makeChannels();
makeProcesses();
makeLog();
addEventListener("hashchange", route);
addEventListener("keydown", keys);
addEventListener("online", turn);
addEventListener("offline", turn);
document.addEventListener("visibilitychange", turn);
turn();
