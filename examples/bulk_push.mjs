// Push to many devices, 100 in a request. Usage: node bulk_push.mjs http://localhost:8081 < FILE, with a line for each
// push: {"endpoint": "http://localhost:8081/update/...", "version": 7, "data": "hi"}. Prints what became of each: 200
// delivered, 202 stored, 429 and 503 not taken, so send it again later; anything else was wrong with the push.
import { readFileSync } from "node:fs";

const [router] = process.argv.slice(2);
if (!URL.canParse(router) || process.argv.length !== 3) {
  console.error("usage: node bulk_push.mjs http://localhost:8081 < FILE");
  process.exit(2);
}

const pushes = readFileSync(0, "utf8").split("\n").map((line) => line.trim()).filter(Boolean);
try {
  for (let first = 0; first < pushes.length; first += 100) {
    const lines = pushes.slice(first, first + 100);
    const answer = await fetch(`${router}/v1/push`, { method: "POST", body: lines.join("\n") });
    const text = await answer.text();
    if (answer.status !== 200) {
      console.error(`${answer.status}: ${text}`);
      process.exit(1);
    }
    text.trim().split("\n").forEach((told, number) => console.log(JSON.parse(told).status, lines[number]));
  }
} catch (error) {
  console.error(`no answer, so send again what has no line here: ${error.cause?.message ?? error.message}`);
  process.exit(1);
}
