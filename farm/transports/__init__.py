"""How bytes become messages and back. Pure, and without state: one object serves all connections of its kind.

What a connection has of it is one reference, `connection.transport`; what is incomplete is a `Reader` in
`connection.reader`, and only for as long as it is. Sessions and fan-outs do not know which transport it is.

Messages of a peer are pairs (kind, payload); a kind is an opcode of RFC 6455 (`farm.transports.frames`), also where the
transport has no frames: TEXT and BINARY are for the session, PING is answered with `pong`, CLOSE with `close_reply`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farm.transports.request import Refusal, Request, parse
from router.common.position import LogEvent

Headers = Sequence[tuple[str, str]]


class ResponseHead(bytes):
    """What `Transport.respond` has made."""


class PeerError(Exception):
    """The peer broke the protocol or a limit; `code` is the close code it gets."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Reader:
    """Takes any bytes of one connection and gives whole messages, as (kind, payload)."""

    __slots__ = ()

    error: PeerError | None
    """What the bytes behind the messages given so far are, if they are no message."""
    more: bool
    """Whether `feed` has stopped at its limit: call it again, perhaps with nothing."""
    taken: int
    """Messages, or parts of them, that the last `feed` took."""

    @property
    def idle(self) -> bool:
        """Whether nothing is kept: the reader may be thrown away."""
        raise NotImplementedError

    @property
    def fragmented(self) -> bool:
        """Whether a part of a message has come, and not its end."""
        return False

    @property
    def kept(self) -> int:
        """Bytes of memory, about."""
        raise NotImplementedError

    def keep(self, data: bytes) -> None:
        """Take bytes that are looked at by the next `feed`."""
        raise NotImplementedError

    def feed(self, data: bytes, most: int) -> list[tuple[int, bytes]]:
        """What became whole by these bytes, in order, looking at no more than so many parts of messages. If the bytes
        hold an error, it is in `error` afterwards, and nothing behind it is looked at."""
        raise NotImplementedError


class BytesReader(Reader):
    """A reader that keeps what is not whole, or has not had its turn, as the bytes that came."""

    __slots__ = ("_kept", "error", "more", "taken")

    def __init__(self) -> None:
        self._kept = b""
        self.error: PeerError | None = None
        self.more = False
        self.taken = 0

    @property
    def idle(self) -> bool:
        return not self._kept and self.error is None

    @property
    def kept(self) -> int:
        return len(self._kept)

    def keep(self, data: bytes) -> None:
        self._kept += data
        self.more = True


class Finder:
    """Looks for the peer's close in what it still sends after ours. It keeps no payload."""

    __slots__ = ("frames",)

    def __init__(self) -> None:
        self.frames = 0
        """That were looked at; for the caller to set back."""

    def feed(self, data: bytes) -> bool:
        """Returns: whether the end has come, or cannot be found."""
        raise NotImplementedError


class Transport:
    """A kind of connection. The defaults are those of an answer to a plain HTTP request: what the client sends behind
    that is thrown away, and the connection ends with the answer.

    max_waiting: bytes of output that may wait for a slow reader; 0: `worker.write_buffer_bytes`.
    once: whether the first effects of a session that send something are the whole answer (long polling). Then the
    session ends, and where the transport `keeps_alive`, the next request may come on the same connection.
    two_way: whether a peer that has ended its direction (TCP's FIN) has no use for an answer either.
    request_timeout: seconds from accept until the request must be whole, on a port of its own;
    `worker.handshake_timeout` if that is shorter.
    for_pages: whether a page in a browser can begin such a connection: then `worker.origins` says which.
    for_scripts: whether the answer is a script, which any page can have run: where cookies decide, it must be known
    whose it is.
    """

    __slots__ = ()

    max_waiting: int = 0
    once: bool = False
    keeps_alive: bool = False
    two_way: bool = False
    request_timeout: float = float("inf")
    for_pages: bool = True
    for_scripts: bool = False

    # ------------------------------------------------------------------ the request

    def request(self, data: bytes, max_bytes: int, max_headers: int, seen: int) -> tuple[Request, bytes] | None:
        """The request that a connection begins with, and the bytes behind it; None if it is not whole yet.

        Asked of the transport of a listener, for which no dialect is known yet. seen: so many of these bytes were
        there at the last call, which gave None.
        Raises: Refusal if it is malformed or over a limit (also while it is not whole).
        """
        return parse(data, max_bytes, max_headers, seen)

    def refusal(self, refusal: Refusal, request: Request | None) -> bytes:
        """The whole answer to a request that is refused. request: if it was understood so far."""
        return refusal.encode(request is not None and request.method == b"HEAD")

    def check(self, request: Request) -> None:
        """Whether this request may begin such a connection. Raises: Refusal."""

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        """What answers an accepted request, before any message. headers: of the dialect, besides."""
        raise NotImplementedError

    # ------------------------------------------------------------------ from the peer

    def texts(self, data: bytes, max_message: int, most: int) -> tuple[list[bytes], int] | None:
        """The short way: the text messages, no more than so many, if `data` is nothing but whole ones, and where the
        rest of it begins. None: nothing was decided, a reader takes it."""
        return None

    def reader(self, max_message: int, max_fragments: int) -> Reader | None:
        """Takes what `texts` does not; None: the peer should send nothing, and its bytes are thrown away.

        max_message: bytes of a message. max_fragments: parts that it may come in."""
        return None

    # ------------------------------------------------------------------ to the peer

    def text(self, payload: bytes) -> bytes:
        """The bytes of a text message; the payload is valid UTF-8."""
        raise NotImplementedError

    def binary(self, payload: bytes) -> bytes:
        """The bytes of a binary message."""
        raise NotImplementedError

    def event(self, text: bytes, logged: LogEvent | None) -> bytes:
        """The bytes of an event of a channel, made once for all its subscribers of this kind. text: the text message
        that its dialect makes of it. logged: what the channel's log has of it, if it is there."""
        return self.text(text)

    def respond(self, status: int, headers: Headers) -> ResponseHead | None:
        """Status and headers of the answer, where the session gives them, as to one that answers once: `answer` gets
        it as the first of the parts. Elsewhere it is sent first. None: the answer has begun already, and this changes
        nothing."""
        return None

    @property
    def responded(self) -> Transport:
        """The transport of a connection whose session has given them: another one where `close` is, before that, a
        whole answer."""
        return self

    def answer(self, parts: Sequence[bytes], code: int, reason: str) -> bytes:
        """For one that answers once: the whole answer. parts: what `respond`, `text`,
        `binary` and `event` have made. code: not
        0 if the session has closed or is to be closed, as in `close`; then there may be no parts."""
        raise NotImplementedError

    def ping(self, payload: bytes) -> bytes:
        """Bytes that change nothing, to find out whether the peer is there; empty: there are none."""
        return b""

    def pong(self, payload: bytes) -> bytes:
        """The answer to a ping of the peer."""
        return b""

    # ------------------------------------------------------------------ the end

    def close(self, code: int, reason: str) -> bytes:
        """The last bytes. The codes are those of RFC 6455 section 7.4 and the dialect's."""
        return b""

    def close_reply(self, payload: bytes) -> bytes:
        """The last bytes where the peer has closed."""
        return b""

    def finder(self, reader: Reader | None, held: Iterable[tuple[int, bytes]]) -> Finder | None:
        """Looks for the peer's close behind ours. None: it is not awaited, or stands in what has come already: in the
        reader, or among the messages that were held back."""
        return None


HTTP = Transport()
"""Of a connection without a complete request."""
