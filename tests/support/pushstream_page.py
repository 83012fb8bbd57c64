"""A page of push stream's subscribers, for Chromium: the browser's own EventSource, and a client that does what
pushstream.js is known to do, written from that description. It comes again sooner than that one.
"""

from __future__ import annotations

from typing import Any, Final

from support.chromium import Tab
from support.farm_fixture import SOON_S, until
from support.web_site import Reply, Request, Site

PAGE: Final = r"""
const RECONNECT_MS = 200, POLL_MS = 100;
const seen = [], states = [];
let source, client;

// The browser's own. It comes again by itself.
function watch(url, ...types) {
  source = new EventSource(url);
  source.onopen = () => states.push("open");
  source.onerror = () => states.push(source.readyState === EventSource.CLOSED ? "closed" : "connecting");
  for (const type of ["message", ...types]) {
    source.addEventListener(type, ({ data, lastEventId }) => seen.push([JSON.parse(data).text, lastEventId, type]));
  }
}

class Client {
  // channels: {id: number of stored messages that are wanted}. byArgument: channels and positions are in the query.
  constructor(base, mode, channels, byArgument) {
    Object.assign(this, { base, mode, channels, byArgument, place: null, etag: null, modified: null, connections: 0 });
    this.connect();
  }
  url(prefix) {
    const resumes = this.place !== null;
    const path = Object.entries(this.channels)
      .map(([id, backtrack]) => encodeURIComponent(id) + (backtrack && !resumes ? `.b${backtrack}` : "")).join("/");
    const { tag, time, eventid } = this.place ?? { tag: "", time: "", eventid: "" };
    const query = [["_", Date.now()], ["tag", tag], ["time", time], ["eventid", eventid]];
    if (this.byArgument) query.unshift(["channels", path]);
    const text = query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    return `${this.base}${prefix}${this.byArgument ? "" : "/" + path}?${text}`;
  }
  connect() { this.connections += 1; this[this.mode](); }
  again(wait) { setTimeout(() => this.connect(), wait); }
  message(text) {
    const { id, channel, text: said, tag, time, eventid } = JSON.parse(text);
    if (id <= 0) { seen.push([id, channel, said]); return; }
    this.place = { tag, time, eventid };
    seen.push([unescape(said), channel, id]);
  }
  websocket() {
    const socket = this.socket = new WebSocket(this.url("/ws").replace("http", "ws"));
    socket.onmessage = ({ data }) => this.message(data);
    socket.onclose = ({ code, reason }) => { states.push([code, reason]); this.again(RECONNECT_MS); };
  }
  eventsource() {
    const source = new EventSource(this.url("/ev"));
    source.onmessage = ({ data }) => this.message(data);
    source.onerror = () => { source.close(); this.again(RECONNECT_MS); };
  }
  async stream() {
    try {
      const answer = await fetch(this.url("/sub"), { cache: "no-store" });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let kept = "";;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (kept + value).split("\r\n");
        kept = lines.pop();
        lines.filter((line) => line.trim()).forEach((line) => this.message(line));
      }
    } catch (error) { states.push(String(error)); }
    this.again(RECONNECT_MS);
  }
  longpolling() {
    const request = new XMLHttpRequest();
    request.open("GET", this.url("/lp"));
    if (this.etag) request.setRequestHeader("If-None-Match", this.etag);
    if (this.modified) request.setRequestHeader("If-Modified-Since", this.modified);
    request.onerror = () => this.again(RECONNECT_MS);
    request.onload = () => {
      if (request.status === 200 || request.status === 304) {
        this.etag = request.getResponseHeader("Etag");
        this.modified = request.getResponseHeader("Last-Modified");
        request.responseText.replace(/\}\{/g, "}\r\n{").split("\r\n").filter(Boolean)
          .forEach((text) => this.message(text));
      }
      this.again(request.status === 200 ? 0 : request.status === 304 ? POLL_MS : RECONNECT_MS);
    };
    request.send();
  }
  jsonp() {
    const script = document.createElement("script");
    const ended = (wait) => { script.remove(); this.again(wait); };
    window.took = (messages) => messages.forEach((message) => this.message(JSON.stringify(message)));
    script.onload = () => ended(POLL_MS);
    script.onerror = () => ended(RECONNECT_MS);
    script.src = this.url("/lp") + "&callback=took";
    document.head.append(script);
  }
}
function follow(...options) { client = new Client(...options); }
function connections() { return client.connections; }
function publish(text) { client.socket.send(escape(text)); }
"""


class Pages(Site):
    """Serves the page, from another origin than the farm's."""

    def get(self, request: Request) -> Reply:
        icon = '<link rel="icon" href="data:,">'
        return Reply(f"<!doctype html><title>test</title>{icon}<script>{PAGE}</script>")


class Page:
    """The page in a tab."""

    def __init__(self, tab: Tab, url: str) -> None:
        self.tab = tab
        tab.open(url)

    def seen(self) -> list[list[Any]]:
        """What has come: rows that begin with the text."""
        rows: list[list[Any]] = self.tab.evaluate("seen")
        return rows

    def states(self) -> list[Any]:
        """What became of its connections."""
        found: list[Any] = self.tab.evaluate("states")
        return found

    def expect(self, *texts: str) -> list[list[Any]]:
        """Wait until as many have come, which must be these, each once and in this order. Returns: the rows."""
        try:
            until(lambda: len(self.seen()) >= len(texts), f"{texts}", SOON_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page has seen {self.seen()}; {self.states()}") from None
        rows = self.seen()
        assert [row[0] for row in rows] == list(texts)
        return rows
