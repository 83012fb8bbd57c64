// A push stream subscriber on Server-Sent Events, with nothing but Node itself (20 or later): prints what is published, and
// after a break goes on behind the last event. A browser has all this in one line: new EventSource(address).onmessage = ...
// Usage: node pushstream_device.mjs http://localhost:8080/ev/news
const [address] = process.argv.slice(2);
if (!URL.canParse(address)) {
  console.error("usage: node pushstream_device.mjs http://localhost:8080/ev/news");
  process.exit(2);
}
const position = {}; // the headers that say where it stands
let wait = 10; // seconds at most until it comes back

for (;;) {
  try {
    const answer = await fetch(address, { headers: position });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    console.log("connected");
    wait = 10;
    // Until there is an event it stands at the time of its first answer; a second less, as what is of that second counts as seen.
    if (!Object.keys(position).length) {
      position["If-Modified-Since"] = new Date(Date.parse(answer.headers.get("date")) - 1000).toUTCString();
    }
    let text = "";
    // Node gives up a stream that is silent for 5 minutes; with pushstream.ping_message_interval the farm's is not.
    for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
      const events = (text + part).replaceAll("\r\n", "\n").split("\n\n"); // an empty line ends each event
      text = events.pop();
      for (const event of events) {
        const lines = event.split("\n");
        const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
        const id = field("id").pop();
        if (id) {
          delete position["If-Modified-Since"];
          position["Last-Event-ID"] = id;
        }
        if (field("data").length) console.log(field("data").join("\n"));
      }
    }
  } catch (error) {
    console.error(error.cause?.message ?? error.message);
  }
  // After a restart of the farm not all subscribers in the same second, and less and less often while it is away.
  await new Promise((done) => setTimeout(done, 1000 * wait * Math.random()));
  wait = Math.min(2 * wait, 300);
}
