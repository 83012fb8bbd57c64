"""The test page of gopush2: a browser that subscribes and shows what comes. It holds nothing of this farm: key, message
ID and token are those of its own query, or the ones that gopush2's README uses."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Final

from farm.transports import Transport
from farm.transports.request import Response

_SCRIPT: Final = """
const given = new URLSearchParams(location.search);
const heartbeat = Number(given.get("heartbeat") || 30);
const asked = new URLSearchParams({
  key: given.get("key") ?? "Terry-Mao", mid: given.get("mid") ?? "0", token: given.get("token") ?? "test", heartbeat,
});
const url = new URL("sub?" + asked, location.href);
url.protocol = location.protocol.replace("http", "ws");
const state = document.getElementById("state");
const socket = new WebSocket(url);
socket.onopen = () => {
  state.textContent = "connected, key " + asked.get("key");
  setInterval(() => { if (socket.readyState === WebSocket.OPEN) socket.send("h"); }, heartbeat * 1000);
};
socket.onmessage = ({data}) => {
  if (data === "h" || data === "") return;
  const {mid, msg} = JSON.parse(data);
  const item = document.createElement("li");
  item.textContent = mid + ": " + msg;
  document.getElementById("messages").append(item);
};
socket.onclose = ({code, reason}) => { state.textContent = "closed: " + code + " " + reason; };
"""
_HASH: Final = base64.b64encode(sha256(_SCRIPT.encode()).digest()).decode()
_PAGE: Final = f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>gopush2 client</title>
<h1>gopush2 client</h1>
<p id="state">connecting</p>
<ul id="messages"></ul>
<script>{_SCRIPT}</script>
</html>
"""


class ClientPageTransport(Transport):
    """Of a request for it. It may be opened from any origin, whatever `worker.origins` says."""

    __slots__ = ()

    for_pages = False


CLIENT_PAGE_TRANSPORT: Final = ClientPageTransport()
CLIENT_PAGE: Final = Response(
    200,
    _PAGE.encode(),
    (
        ("Content-Security-Policy", f"default-src 'none'; script-src 'sha256-{_HASH}'; connect-src ws: wss:"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ),
    "text/html; charset=utf-8",
)
