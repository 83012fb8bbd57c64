// What all views share: elements, texts of numbers, the API, and the state of the farm as it was last heard.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Properties that begin with "on" are listeners; a child that is no element becomes text, never HTML. */
function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value") made.value = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  return put(made, ...children);
}

/** The same in SVG. */
function s(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function put(parent, ...children) {
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
  return parent;
}

/** Replace what stands in an element. */
function fill(parent, ...children) {
  parent.replaceChildren();
  return put(parent, ...children);
}

const $ = (id) => document.getElementById(id);

// ---- numbers as people read them

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 10_000_000 ? plain.format(value) : compact(value);
}

function compact(value) {
  return Math.abs(value) < 10_000 ? plain.format(value) : scaled(value, 1000, ["", "K", "M", "G"]);
}

function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  return Math.abs(value) < 10 ? String(Number(value.toPrecision(2))) : count(value);
}

function bytes(value) {
  return value === null || value === undefined ? "–" : scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
}

function scaled(value, step, units) {
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit && Math.abs(value) < 100 ? 1 : 0;
  const number = value.toFixed(digits).replace(/\.0$/, "");
  return units[unit].length === 1 && units[unit] !== "B" ? number + units[unit] : `${number} ${units[unit]}`.trim();
}

/** A short time, such as that of a push. */
function millis(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${Number(seconds.toPrecision(2))} s`;
  return `${Number((seconds * 1000).toPrecision(2))} ms`;
}

/** A long time: an age. */
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const steps = [[86_400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
  for (const [size, unit, smaller, smallerUnit] of steps) {
    if (seconds >= size) {
      const rest = Math.floor((seconds % size) / smaller);
      return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${smallerUnit}` : "");
    }
  }
  return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.floor(seconds)} s`;
}

function cores(value) {
  return value === null || value === undefined ? "–" : `${Number((value * 100).toFixed(value < 0.1 ? 1 : 0))} %`;
}

function clock(milliseconds, withSeconds = true) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (withSeconds) options.second = "2-digit";
  return new Date(milliseconds).toLocaleTimeString("en-GB", options);
}

function plural(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

// ---- the API

class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const ANSWER_MS = 20_000;

/** Ask a route below /api/v1. path: its parts. Throws ApiError; with status 0 nothing answered. */
async function api(method, path, { query = {}, body } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const search = new URLSearchParams(given).toString();
  const url = `${location.origin}/api/v1/${path.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
  const options = { method, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer, text;
  try {
    answer = await fetch(url, options);
    text = await answer.text();
  } catch {
    throw new ApiError(0, "unreachable", "The farm does not answer.");
  }
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    // not one of ours: a proxy in between
  }
  if (answer.ok && found !== null) return found;
  const error = found && found.error;
  throw new ApiError(answer.status, error ? error.code : "", error ? error.message : `Answered ${answer.status}.`);
}

// ---- what everybody may look at

const farm = { session: null, status: null, reached: null };

const mayAct = () => farm.session !== null && farm.session.role === "act";

/** Set a text, but only another one: what is set anew is read aloud anew. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Say something to those who do not see it. */
function announce(text) {
  $("said").textContent = text;
}

function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error.message || String(error));
}

/** A card with a heading. */
function card(title, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), ...children);
}

/** A table. columns: [title, "number" or undefined]; rows: lists of what stands in the cells. */
function table(caption, columns, rows, empty, kind = "rows") {
  if (!rows.length && empty) return h("p", { class: "empty" }, empty);
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, at) => h(at ? "td" : "th", { class: columns[at][1], scope: at ? null : "row", "data-title": columns[at][0] }, cell))),
  );
  return h("div", { class: "scroll" },
    h("table", { class: kind, "aria-label": caption }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

/** Names and values. */
function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== false && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
