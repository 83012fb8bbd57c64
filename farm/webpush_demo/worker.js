"use strict";
// The service worker: Firefox wakes it for each push, also when the page is closed.

importScripts("arrivals.js");

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("push", (event) => event.waitUntil(arrived(event.data, Date.now())));
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(showPage());
});

async function arrived(data, at) {
  const row = read(data, at);
  await addArrival(row);
  for (const page of await pages()) page.postMessage("arrived");
  // Firefox wants something to be seen for a push: those without a notification use up a quota, and then the
  // subscription is taken away. Where none can be shown, the push has arrived all the same.
  await self.registration.showNotification("Push from the farm", { body: row.text }).catch(() => {});
}

function read(data, at) {
  const text = data ? data.text() : "";
  try {
    const message = JSON.parse(text);
    if (typeof message.text === "string") return { at, text: message.text, took: at - message.sent };
  } catch {
    // Not from this demo, but a push like any other.
  }
  return { at, text: text || "(no text)", took: null };
}

const pages = () => self.clients.matchAll({ type: "window", includeUncontrolled: true });

async function showPage() {
  const [page] = await pages();
  await (page ? page.focus() : self.clients.openWindow("./"));
}
