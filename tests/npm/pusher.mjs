// Calls the npm package pusher, one call after the other. stdin: {options, calls: [[method, ...arguments], ...]};
// stdout: what each has come to: {status, body} of a request, the value of any other call.
import { json } from "node:stream/consumers";
import Pusher from "pusher";

const { options, calls } = await json(process.stdin);
const pusher = new Pusher(options);

async function answer(method, values) {
  try {
    const found = await pusher[method](...values);
    return found instanceof Object && "status" in found ? { status: found.status, body: await found.text() } : found;
  } catch (error) {
    if (error instanceof Pusher.RequestError && error.status) return { status: error.status, body: error.body };
    throw error;
  }
}

const answers = [];
for (const [method, ...values] of calls) answers.push(await answer(method, values));
console.log(JSON.stringify(answers));
