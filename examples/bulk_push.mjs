// Push to many devices, 100 in a request. Usage: node bulk_push.mjs http://localhost:8081 < FILE, with a line for each
// push: {"endpoint": "http://localhost:8081/update/...", "version": 7, "data": "hi"}. Prints what became of each: 200
// delivered, 202 stored, 503 not taken, so send it again later; anything else was wrong with the push.
import { readFileSync } from "node:fs";

const pushes = readFileSync(0, "utf8").split("\n").map((line) => line.trim()).filter(Boolean);
for (let first = 0; first < pushes.length; first += 100) {
  const lines = pushes.slice(first, first + 100);
  const answer = await fetch(`${process.argv[2]}/v1/push`, { method: "POST", body: lines.join("\n") });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${answer.status}: ${text}`);
  text.trim().split("\n").forEach((told, number) => console.log(JSON.parse(told).status, lines[number]));
}
