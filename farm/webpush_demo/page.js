"use strict";

const farm = document.body.dataset; // endpoint: base of the endpoints; device: where Firefox connects; key: VAPID
const at = (id) => document.getElementById(id);
let subscription = null;

// An error whose text tells the reader what to do.
class Trouble extends Error {}

function say(id, text, kind = "") {
  at(id).textContent = text;
  at(id).className = `said ${kind}`.trim();
}

// Runs a step, and shows its error where its result would be.
async function step(id, work) {
  try {
    await work();
  } catch (error) {
    say(id, error instanceof Trouble ? error.message : `${error.name}: ${error.message}`, "bad");
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Trouble("The demo does not answer any more. Start it again: farm demo");
  }
  const found = await answer.json();
  if (!answer.ok) throw new Trouble(found.error);
  return found;
}

// ---------------------------------------------------------------- the farm

async function lookForFarm() {
  const { problems } = await ask("farm");
  if (problems.length) say("farm-said", problems.join("\n"), "bad");
  else say("farm-said", "The farm answers.", "good");
  return problems;
}

// ---------------------------------------------------------------- 2, subscribe

const PERMISSION = "Notifications are not allowed for this page. Click the icon at the left of the address, allow " +
  "“Send notifications” (or remove the block), and subscribe again.";

function checkBrowser() {
  if (!/\bFirefox\//.test(navigator.userAgent)) {
    throw new Trouble("Open this page in Firefox: other browsers get pushes from their maker's server only.");
  }
  if (!window.isSecureContext) {
    throw new Trouble("Browsers give push only to https and to this machine: open the page as http://localhost, here.");
  }
  if (!("serviceWorker" in navigator) || !("PushManager" in window)) {
    throw new Trouble("This window has no push: it is a private one, or dom.push.enabled or dom.serviceWorkers.enabled " +
      "is false in about:config.");
  }
}

async function ready() {
  await navigator.serviceWorker.register("worker.js");
  return navigator.serviceWorker.ready;
}

const fromFarm = (found) => found.endpoint.startsWith(`${farm.endpoint}/wpush/`);

function hasOurKey(found) {
  const key = found.options.applicationServerKey;
  if (!key) return false;
  const text = btoa(String.fromCharCode(...new Uint8Array(key)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "") === farm.key;
}

async function subscribe() {
  checkBrowser();
  say("subscribe-said", "Waiting for your permission …");
  if (await Notification.requestPermission() !== "granted") throw new Trouble(PERMISSION);
  say("subscribe-said", "Asking Firefox; it gives up after 20 seconds …");
  const { pushManager } = await ready();
  let found = await pushManager.getSubscription();
  if (found && !(fromFarm(found) && hasOurKey(found))) {
    await found.unsubscribe(); // of an earlier run of the demo, or of another push server
    found = null;
  }
  try {
    found ??= await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: farm.key });
  } catch (error) {
    throw new Trouble(await whyNot(error));
  }
  if (!fromFarm(found)) {
    await found.unsubscribe();
    throw new Trouble(`The subscription is at ${new URL(found.endpoint).origin}, not at this farm (${farm.endpoint}). ` +
      `Set dom.push.serverURL to ${farm.device} (step 1) and subscribe again. If it is set, the farm has another ` +
      "endpoint.url: start the demo with --router-url set to that.");
  }
  showSubscription(found);
}

async function whyNot(error) {
  if (error.name === "NotAllowedError") return PERMISSION;
  const problems = await lookForFarm();
  if (problems.length) return problems.join("\n");
  return "The farm answers the demo, but Firefox got no subscription from it. Look at step 1 again: both preferences are " +
    "needed, and the address counts only if ws:// was allowed before it was set. Restart Firefox if they are right. " +
    `(${error.name}: ${error.message})`;
}

function showSubscription(found) {
  subscription = found;
  at("unsubscribe").hidden = at("endpoint").hidden = !found;
  at("endpoint").textContent = found ? found.endpoint : "";
  if (found) say("subscribe-said", "Subscribed. This is the endpoint:", "good");
}

async function unsubscribe() {
  await subscription.unsubscribe();
  at("unsubscribe").hidden = true; // the page keeps the endpoint: sending to it shows what senders are told then
  say("subscribe-said", "Unsubscribed. A push to the old endpoint is answered with 410 now: try it.");
}

async function findSubscription() {
  if (!("serviceWorker" in navigator)) return;
  const registration = await navigator.serviceWorker.getRegistration();
  const found = registration && await registration.pushManager.getSubscription();
  if (found && fromFarm(found) && hasOurKey(found)) showSubscription(found);
}

// ---------------------------------------------------------------- 3, send

async function send() {
  if (!subscription) throw new Trouble("Subscribe first (step 2).");
  const order = {
    subscription: subscription.toJSON(),
    text: at("text").value,
    topic: at("topic").value,
    ttl: at("ttl").valueAsNumber,
    urgency: at("urgency").value,
  };
  if (!Number.isInteger(order.ttl)) throw new Trouble("TTL is a whole number of seconds.");
  say("send-said", "Sending …");
  const answer = await ask("send", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(order),
  });
  if (answer.hint) throw new Trouble(`${answer.status} ${answer.says}\n${answer.hint}`);
  say("send-said", `${answer.status} after ${answer.took.toFixed(1)} ms: the farm has it.`, "good");
}

// ---------------------------------------------------------------- 4, arrivals

async function showArrivals() {
  const rows = (await allArrivals()).reverse();
  at("arrived").replaceChildren(...rows.map((row) => {
    const line = document.createElement("li");
    const [when, text, took] = ["time", "span", "span"].map((name) => line.appendChild(document.createElement(name)));
    when.textContent = new Date(row.at).toLocaleTimeString();
    text.textContent = row.text;
    took.className = "took";
    took.textContent = row.took === null ? "" : duration(row.took);
    return line;
  }));
  at("none").hidden = rows.length > 0;
  at("clear").hidden = rows.length === 0;
}

function duration(ms) {
  return ms < 10_000 ? `${Math.max(0, ms).toFixed(1)} ms` : `${Math.round(ms / 1000)} s`;
}

// ---------------------------------------------------------------- together

for (const button of document.querySelectorAll("[data-copy]")) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(at(button.dataset.copy).textContent);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}
at("subscribe").addEventListener("click", () => step("subscribe-said", subscribe));
at("unsubscribe").addEventListener("click", () => step("subscribe-said", unsubscribe));
at("send").addEventListener("submit", (event) => {
  event.preventDefault();
  step("send-said", send);
});
at("clear").addEventListener("click", () => clearArrivals().then(showArrivals));
navigator.serviceWorker?.addEventListener("message", showArrivals);
step("farm-said", lookForFarm);
step("subscribe-said", findSubscription);
step("farm-said", showArrivals);
