"use strict";
// What has arrived, in IndexedDB: written by the service worker, read by the page.

const KEPT = 50;

function openArrivals() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("farm-demo", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("arrivals", { autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

// Runs `work(store)` in one transaction; gives the result of the request that it returns, when all is written.
async function inArrivals(mode, work) {
  const database = await openArrivals();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction("arrivals", mode);
      const request = work(transaction.objectStore("arrivals"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

const addArrival = (row) => inArrivals("readwrite", (store) => {
  const added = store.add(row);
  added.onsuccess = () => store.delete(IDBKeyRange.upperBound(added.result - KEPT));
  return added;
});

const allArrivals = () => inArrivals("readonly", (store) => store.getAll());

const clearArrivals = () => inArrivals("readwrite", (store) => store.clear());
