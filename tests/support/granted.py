"""A dialect about whose clients the application's main server is asked, as small as it can be.

`/granted/stream?channels=a/b` asks for two channels. A message "publish TEXT" is asked about, and then echoed.
"""

from collections.abc import Sequence
from typing import Any

from farm.dialects import Authorise, Dialect, Effects, Opened, Session
from farm.transports import Transport
from farm.transports.long_poll import JsonpPoll
from farm.transports.request import Refusal, Request, Response
from farm.transports.websocket import WEBSOCKET
from router.common import messages as m
from support.plain_dialect import CHUNKS, POLLS

JSONP = JsonpPoll("called", True)
DENIED = (4009, "go away")


class GrantedSession(Session):
    """Says what was granted."""

    denied = DENIED

    def __init__(self, request: Request) -> None:
        self._grant = request.grant

    def begun(self, now: float) -> Effects:
        return () if self._grant is None else (f"{tuple(self._grant)}!".encode(),)

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        command, _, text = message.decode().partition(" ")
        if command == "publish":
            return (Authorise(text, text),)
        if command == "to":
            return (Authorise(text, text, (text,)),)
        return (message,)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        if status != m.OK:
            return (b"not asked",)
        assert isinstance(payload, m.Verdict)
        return (f"{context} {payload.status}".encode(),)


class Granted(Dialect):
    """Its transport is the second part of the path."""

    ignored_arguments = frozenset(("_",))

    def __init__(self, of_messages: bool = False) -> None:
        self._of_messages = of_messages

    @property
    def asks_of_messages(self) -> bool:
        return self._of_messages

    def transport(self, request: Request) -> Transport:
        return {"ws": WEBSOCKET, "poll": POLLS[True], "script": JSONP}.get(request.path.split("/")[2], CHUNKS)

    def wanted(self, request: Request) -> Sequence[str]:
        if "refused" in request.query:
            raise Refusal(400, "no such channel")
        return self.redirected(f"?{request.query}")

    methods = (b"GET", b"HEAD", b"OPTIONS")

    def opened(self, request: Request) -> Opened:
        if request.method == b"OPTIONS" and "session" not in request.path:
            return Response(204)
        return GrantedSession(request)
