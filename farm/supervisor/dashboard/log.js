// The last events of the log of all processes of this host.

const log = { last: 0, events: [], level: "info", text: "" };

const MOST_EVENTS = 800;
const LEVELS = ["info", "warning", "error"];
const ON_OVERVIEW = 8;

function makeLog() {
  log.body = h("div", {});
  const level = h("select", { onchange: (event) => filter({ level: event.target.value }) },
    [["info", "all"], ["warning", "warnings and errors"], ["error", "errors"]].map(([value, label]) => h("option", { value }, label)));
  const text = h("input", { type: "search", placeholder: "event, process or text", autocomplete: "off", spellcheck: "false",
    oninput: (event) => filter({ text: event.target.value.toLowerCase() }) });
  function filter(change) {
    Object.assign(log, change);
    drawLog();
  }
  put($("log"), card("Last events of the log",
    h("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
      field("Level", "level", { element: level }), field("Filter", "text", { element: text, size: "wide" })),
    log.body));
}

function takeEvents(found) {
  if (found.last < log.last) log.events = []; // the supervisor has started anew
  log.last = found.last;
  log.events = [...log.events, ...found.events].slice(-MOST_EVENTS);
  if (found.events.length || !log.drawn) drawLog();
}

function drawLog() {
  log.drawn = true;
  if (state.view === "log") {
    const from = LEVELS.indexOf(log.level);
    const shown = log.events.filter((event) => LEVELS.indexOf(event.level) >= from && (!log.text || lineOf(event).toLowerCase().includes(log.text)));
    fill(log.body, eventTable(shown.reverse(), "No such event is kept."));
  }
  const latest = log.events.slice(-ON_OVERVIEW).reverse();
  fill(overview.latest, eventTable(latest, "Nothing yet."));
}

function eventTable(events, empty) {
  const rows = events.map((event) => [
    h("time", { datetime: event.time, title: event.time }, clock(Date.parse(event.time))),
    h("span", { class: `level ${LEVELS.includes(event.level) ? event.level : "error"}` }, event.level),
    event.process,
    h("code", {}, event.event),
    h("span", { class: "fields" }, fieldsOf(event)),
  ]);
  return table("Events of the log", [["Time"], ["Level"], ["Process"], ["Event"], ["Fields", "grow"]], rows, empty, "events");
}

function fieldsOf(event) {
  return Object.entries(event.fields)
    .map(([name, value]) => `${name}=${typeof value === "string" && /[\s"=]/.test(value) ? JSON.stringify(value) : value}`)
    .join(" ");
}

function lineOf(event) {
  return `${event.level} ${event.process} ${event.event} ${fieldsOf(event)}`;
}
