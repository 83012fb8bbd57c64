// Sends one push as the npm package web-push makes it. stdin: {subscription, payload, options}; stdout: {status, body}.
// web-push posts by https only; here it encrypts, signs and sets the headers, and the request is posted by plain http.
import http from "node:http";
import { json, text } from "node:stream/consumers";
import webpush from "web-push";

const { subscription, payload, options } = await json(process.stdin);
const { endpoint, method, headers, body } = webpush.generateRequestDetails(subscription, payload, options);
const answer = await new Promise((resolve, reject) => {
  http.request(endpoint, { method, headers }, resolve).on("error", reject).end(body ?? undefined);
});
console.log(JSON.stringify({ status: answer.statusCode, body: await text(answer) }));
