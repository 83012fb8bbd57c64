"""What a worker has the application's main server asked, and what that has answered."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from router.common.messages.base import Request
from router.common.messages.values import MAX_BROADCAST_VALUE, Seconds, Space, User

CONNECT: Final = "connect"
"""A client wants to connect."""
REFRESH: Final = "refresh"
"""What was granted to a connection expires."""
PUBLISH: Final = "publish"
"""A client has sent a message, which is to be published."""

MAX_URI: Final = 65_536
"""Characters of the path and query that are shown to the main server."""

Channel = Annotated[str, Meta(max_length=MAX_BROADCAST_VALUE)]
Header = tuple[bytes, bytes]
"""Name in lower case, and value."""


class Verdict(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What the main server says, or why it was not asked or its answer cannot be used.

    A status of 2xx allows it. One of 4xx is the main server's refusal, and its content type, body and headers are for
    the client. One of 5xx is ours: nothing was decided (502 the answer cannot be used, 503 there was none, 504 it did
    not come in time), and the body says why.
    """

    status: Annotated[int, Meta(ge=200, le=599)]
    channels: list[Channel] | None = None
    """Those that are granted; None: it names none."""
    redirect: Annotated[str, Meta(max_length=MAX_URI)] = ""
    """X-Accel-Redirect: names channels, in the dialect's way."""
    user: User = ""
    """User id."""
    expires: Seconds = 0
    """After so many seconds it is to be asked again; 0: never."""
    data: str = ""
    """Whatever else it says, as JSON; "" for nothing."""
    content_type: Annotated[str, Meta(max_length=MAX_BROADCAST_VALUE)] = ""
    body: bytes = b""
    headers: list[Header] = []

    @property
    def allowed(self) -> bool:
        """Whether it is allowed."""
        return self.status < 300

    @property
    def undecided(self) -> bool:
        """Whether nothing was decided: it may be asked again, and is not allowed until then."""
        return self.status >= 500


class Authorise(Request, tag=55):
    """Ask the dialect's main server (`auth.url`, or its own) about a request on the device port, or about a message of
    a connection that began with it. Always replied to with OK and a verdict; FAILED: the router knows of no main
    server. It is not kept until then: a worker repeats it to the next router."""

    REPLY = Verdict

    dialect: Space
    action: Literal["connect", "refresh", "publish"]
    method: Annotated[str, Meta(max_length=64)]
    uri: Annotated[str, Meta(max_length=MAX_URI)]
    """Path and query as the client sent them, without arguments that the dialect leaves out."""
    headers: list[Header]
    """Those of `auth.headers` that came."""
    address: Annotated[str, Meta(max_length=256)]
    """The client's."""
    channels: list[Channel]
    """Those that it wants; a message is for these."""
    user: User = ""
    data: str = ""
    """What was granted when it connected."""
    message: str = ""
