// A push stream subscriber on Server-Sent Events, with nothing but Node itself (18 or later): prints what is published, and
// after a break goes on behind the last event. A browser has all this in one line: new EventSource(address).onmessage = ...
// Usage: node pushstream_device.mjs http://localhost:8080/ev/news
const [address] = process.argv.slice(2);
let last = ""; // the id of the last event, which says where it stands

for (;;) {
  try {
    const answer = await fetch(address, { headers: last ? { "Last-Event-ID": last } : {} });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    console.log("connected");
    let text = "";
    for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
      const events = (text + part).replaceAll("\r\n", "\n").split("\n\n"); // an empty line ends each event
      text = events.pop();
      for (const event of events) {
        const lines = event.split("\n");
        const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
        last = field("id").pop() ?? last;
        if (field("data").length) console.log(field("data").join("\n"));
      }
    }
  } catch (error) {
    console.error(error.message);
  }
  await new Promise((done) => setTimeout(done, 1000 + 9000 * Math.random())); // not all subscribers in the same second
}
